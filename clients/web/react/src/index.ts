/** `@conch/react`: hooks over {@link https://www.npmjs.com/package/@conch/sdk | @conch/sdk}. Start with {@link useConch} and {@link ConchProvider}. */

export { type Conch, ConchProvider, type ConchProviderProps, useClient, useConch } from "./provider.js";
export { useChannel, useChannels, useConnection, useStorage } from "./state.js";
export { type Messages, type MessagesOptions, useMessages } from "./messages.js";
export { type MessagesState } from "./window.js";
export { type InfiniteScroll, useInfiniteScroll } from "./scroll.js";
export { type Sending, useSending } from "./sending.js";
