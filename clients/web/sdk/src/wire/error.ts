/** What the other side sent is not a valid frame: costs the connection, never more. */
export class FrameError extends Error {
  override name = "FrameError";
}
