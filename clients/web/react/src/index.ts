/**
 * React hooks over `@conch/sdk`. Start with {@link useConch} and {@link ConchProvider}.
 *
 * @module @conch/react
 */

export { type Conch, ConchProvider, type ConchProviderProps, useClient, useConch } from "./provider.js";
export { useChannel, useChannels, useConnection, useStorage } from "./state.js";
export { type Messages, type MessagesOptions, useMessages } from "./messages.js";
export { type MessagesState } from "./window.js";
export { type InfiniteScroll, useInfiniteScroll } from "./scroll.js";
export { type Sending, useSending } from "./sending.js";
