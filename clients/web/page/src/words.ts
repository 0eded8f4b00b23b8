/** Codes as words for a person, each with what to do next. */

import { ApiError, Code } from "@conch/sdk";

const byCode: Record<string, string> = {
  unreachable: "The server cannot be reached. Check your connection and try again.",
  wrong_credentials: "Handle and password do not belong together. Check both.",
  handle_taken: "That handle belongs to somebody. Choose another one, or log in if it is yours.",
  invalid_handle: "A handle has 3 to 32 of the letters a–z, digits, and _ . -",
  invalid_password: "A password has 8 to 256 characters.",
  invalid_display_name: "A name has 1 to 64 characters, and none that cannot be seen.",
  sign_up_closed: "This server makes no accounts on request. Ask whoever runs it.",
  rate_limited: "Too many tries. Wait a moment, then try again.",
  overloaded: "The server is busy. Try again in a moment.",
  unavailable: "The server cannot do that right now. Try again in a moment.",
  going_away: "The server is restarting. Try again in a moment.",
  storage_full: "The server's disk is full. Your messages wait here.",
  not_found: "Nobody and nothing was found under that.",
  forbidden: "You may not do that in this conversation.",
  limit_reached: "There is no room for more.",
  unauthenticated: "You are logged out on this device. Log in again.",
  device_revoked: "This device was logged out. Log in again.",
  account_closed: "This account was closed.",
  outbox_full: "Too many messages wait to be sent. Wait until some are through.",
  storage: "This browser has no room to keep the message: it is back in the field. Free some space, then try again.",
  invalid: "The server does not take that. Leave out what cannot be seen, and try again.",
  conflict: "Somebody changed that at the same time. Try again.",
  unsupported_version: "The server speaks a newer version than this page. Reload the page.",
};

/** What went wrong, to be shown beside what was tried. */
export function wordsFor(error: unknown): string {
  if (error instanceof ApiError) return byCode[error.code] ?? `That did not work (${error.code.replaceAll("_", " ")}). Try again.`;
  return "That did not work. Reload the page and try again.";
}

/** Why a message will not be sent. */
export function wordsForRefusal(code: number | null): string {
  switch (code) {
    case Code.notFound:
      return "Not sent: you are not in this conversation any more.";
    case Code.forbidden:
      return "Not sent: you may not write here.";
    case Code.tooLarge:
    case Code.invalid:
      return "Not sent: the server does not take this text.";
    case Code.channelFull:
      return "Not sent: this conversation is full.";
    case Code.quarantined:
      return "Not sent: this conversation is out of order on the server.";
    case Code.outcomeUnknown:
      return "Given up after seven days. It may have arrived: look before you send it again.";
    default:
      return "Not sent.";
  }
}
