/** The worker behind `workerTimer`: rings once, after as many milliseconds as the last message said. */

let handle: ReturnType<typeof setTimeout> | undefined;

self.onmessage = (message: MessageEvent<{ number: number; ms: number | null }>): void => {
  const { number, ms } = message.data;
  clearTimeout(handle);
  if (ms !== null) handle = setTimeout(() => self.postMessage(number), ms);
};
