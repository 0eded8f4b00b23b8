/**
 * Byte credit that this client grants: the node pushes no more than this before it hears from us.
 *
 * Charged are the whole frames of pushed events, header included. When half of the credit is used, all that was used is
 * granted again, so the node never waits for a client that reads.
 */
export class Credit {
  private used = 0;

  constructor(private readonly windowBytes: number) {}

  /** A pushed frame arrived; the bytes to grant now, or 0. */
  pushed(frameBytes: number): number {
    this.used += frameBytes;
    if (this.used < Math.ceil(this.windowBytes / 2)) return 0;
    const grant = this.used;
    this.used = 0;
    return grant;
  }
}
