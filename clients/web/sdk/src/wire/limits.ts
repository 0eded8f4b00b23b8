/** Fixed limits of the protocol (docs/protocol.md, section 19). Units are in the names. */

export const HEADER_BYTES = 8;
export const FRAME_BYTES_MAX = 524_288;
export const CREDIT_BYTES = 262_144;
export const HELLO_CURSORS_MAX = 256;
export const HELLO_PENDING_MAX = 64;
export const SEND_MANY_ITEMS_MAX = 64;
export const SEND_MANY_BYTES_MAX = 65_536;
export const SENDS_IN_FLIGHT_MAX = 64;
export const HISTORY_ITEMS_MAX = 200;
export const SYNC_ROWS_MAX = 500;
export const GAP_STREAMED_MAX = 200;
export const HEARTBEAT_MS = 25_000;
export const SILENCE_MAX_MS = 45_000;
export const TEXT_CHARS_MAX = 100_000;
export const PAYLOAD_BYTES_MAX = 102_400;
export const SEQ_MAX = 4_294_967_294;
/** How long a node knows a message by its key (P-029), but for an hour in which the last attempt gets there. */
export const KEY_KEPT_MS = (7 * 24 - 1) * 3_600_000;
