/** Where a message is written. What is typed stays with its conversation until it is sent. */

import type { ChannelInfo } from "@conch/sdk";
import { useEffect, useLayoutEffect, useRef, useState } from "preact/hooks";
import { ErrorLine, Icon } from "./parts.js";
import { useChat } from "./state.js";
import { wordsFor } from "./words.js";

const TEXT_CHARS_MAX = 100_000;
/** A paste that makes the text longer than this does not go into the field: laying it out would freeze the page. */
const FIELD_CHARS_MAX = 2 * TEXT_CHARS_MAX;
const LINES_MAX_PX = 180;
/** Longer texts fill the field, without measuring. */
const MEASURED_CHARS_MAX = 5_000;
/** With a keyboard Enter sends; on a touch screen it is a new line, and the button sends. */
const entersSend = !matchMedia("(pointer: coarse)").matches;

interface Props {
  info: ChannelInfo;
  title: string;
  onSend: () => void;
  /** Puts a text into the field, before what is there. */
  write: { current: (text: string) => void };
}

export function Composer({ info, title, onSend, write }: Props) {
  const { client, drafts } = useChat();
  const [text, setText] = useState(() => drafts.get(info.channel));
  const [error, setError] = useState<string | null>(null);
  const field = useRef<HTMLTextAreaElement>(null);
  // Most texts are far from the limit: count scalar values only near it.
  const over = text.length <= TEXT_CHARS_MAX ? 0 : [...text].length - TEXT_CHARS_MAX;
  const isEmpty = text.trim() === "";

  useEffect(() => {
    if (entersSend) field.current?.focus();
  }, [info.channel]);
  useEffect(() => () => drafts.save(), [drafts]);
  useLayoutEffect(() => {
    const it = field.current;
    if (!it) return;
    it.style.height = "auto";
    it.style.height = `${text.length > MEASURED_CHARS_MAX ? LINES_MAX_PX : Math.min(it.scrollHeight + 2, LINES_MAX_PX)}px`;
  }, [text]);

  const change = (to: string): void => {
    drafts.set(info.channel, to);
    setText(to);
    setError(null);
  };
  const writeBefore = (more: string): void => {
    change([more, drafts.get(info.channel)].filter(Boolean).join("\n"));
    field.current?.focus();
  };
  write.current = writeBefore;
  const onPaste = (event: ClipboardEvent): void => {
    const more = event.clipboardData?.getData("text/plain").length ?? 0;
    if (text.length + more <= FIELD_CHARS_MAX) return;
    event.preventDefault();
    setError(
      `That is too long to paste: ${more.toLocaleString()} characters. A message has room for ${TEXT_CHARS_MAX.toLocaleString()}: paste it in parts.`,
    );
  };
  const send = (): void => {
    if (isEmpty || over > 0) return;
    const sent = text.trim();
    change("");
    onSend();
    client.send(info.channel, sent).catch((failure: unknown) => {
      // Not kept anywhere yet: back into the field with it, before what was typed since.
      writeBefore(sent);
      setError(wordsFor(failure));
    });
    field.current?.focus();
  };

  if (info.left) {
    return (
      <p class="composer-left" role="status">
        You are not in this group any more. What was said while you were is still here.
      </p>
    );
  }
  return (
    <form class="composer" onSubmit={(event) => (event.preventDefault(), send())}>
      <ErrorLine text={over > 0 ? `Too long by ${over.toLocaleString()} characters. Send it in parts.` : error} />
      <div class="composer-line">
        <textarea
          ref={field} rows={1} value={text} dir="auto" placeholder="Message" aria-label={`Message to ${title}`}
          aria-invalid={over > 0} enterkeyhint={entersSend ? "send" : "enter"} onPaste={onPaste}
          onInput={(event) => change(event.currentTarget.value)}
          onKeyDown={(event) => {
            if (event.key !== "Enter" || event.shiftKey || event.isComposing || !entersSend) return;
            event.preventDefault();
            send();
          }}
        />
        <button type="submit" class="send" aria-label="Send" title="Send" disabled={isEmpty || over > 0}>
          <Icon name="send" />
        </button>
      </div>
    </form>
  );
}
