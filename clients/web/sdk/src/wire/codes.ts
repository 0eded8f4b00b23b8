/** Error codes of the protocol (docs/protocol.md, "Error codes") by name, and what their hundreds ask of a client. */

export const Code = {
  rateLimited: 4100,
  overloaded: 4101,
  storageFull: 4102,
  outcomeUnknown: 4103,
  unavailable: 4104,
  goingAway: 4200,
  idleTimeout: 4201,
  slowConsumer: 4202,
  internalError: 4203,
  sessionReplaced: 4204,
  resync: 4300,
  badFrame: 4400,
  unknownFrame: 4401,
  notFound: 4402,
  forbidden: 4403,
  conflict: 4404,
  invalid: 4405,
  channelFull: 4406,
  limitReached: 4407,
  badAlias: 4408,
  unexpectedFrame: 4409,
  tooLarge: 4413,
  unsupportedVersion: 4426,
  unauthenticated: 4500,
  tokenExpired: 4501,
  helloTimeout: 4502,
  deviceRevoked: 4600,
  flooding: 4601,
  accountClosed: 4602,
  quarantined: 4603,
} as const;

/** Whether it is one of the protocol's, and not of the transport below. */
export const isProtocolCode = (code: number | null): code is number => code !== null && code >= 4100 && code < 4700;

/** What to do about a code. */
export type Advice =
  | "retry-here" // 41xx: the same again, on this connection, later
  | "resume" // 42xx and anything unknown: connect again and resume
  | "afresh" // 43xx: forget cursors and token, connect again, load afresh
  | "fix-request" // 44xx: the same again will be refused again
  | "authenticate" // 45xx: a new token first
  | "stop"; // 46xx: no further attempt

/** By number, because a close may carry one that this version has no name for. */
export function adviceOf(code: number): Advice {
  switch (Math.floor(code / 100)) {
    case 41:
      return "retry-here";
    case 43:
      return "afresh";
    case 44:
      return "fix-request";
    case 45:
      // Slow to say HELLO is no fault of the token.
      return code === Code.helloTimeout ? "resume" : "authenticate";
    case 46:
      return "stop";
    default:
      return "resume";
  }
}
