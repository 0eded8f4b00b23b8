/**
 * What is unread in one channel, and how far this person has read.
 *
 * The node's word is a ChannelHead: (head seq, head ordinal) and (read seq, read ordinal). Events pushed after it carry no
 * ordinal; they are counted on from it as they are placed, in order, each once. Unread is the difference of the two
 * ordinals, on every device the same. One's own message moves one's own mark, as it does at the owner. A mark that was set
 * here is *wanted* until the node's word has reached it.
 */

import type { ChannelHead } from "../wire/values.js";

export interface MarksRow {
  headSeq: number;
  headOrdinal: number;
  readSeq: number;
  readOrdinal: number;
  mentions: number;
  /** A mark set here that the node has not confirmed; 0: none. */
  wanted: number;
  /** Events were passed over unseen, so `headOrdinal` is not known until the node speaks of a head as high as ours. */
  uncounted: boolean;
}

export class Marks implements MarksRow {
  headSeq = 0;
  headOrdinal = 0;
  readSeq = 0;
  readOrdinal = 0;
  mentions = 0;
  wanted = 0;
  uncounted = false;

  static load(row: MarksRow): Marks {
    return Object.assign(new Marks(), row);
  }

  row(): MarksRow {
    return { ...this };
  }

  /** People's messages behind the read mark. */
  unread(): number {
    return Math.max(0, this.headOrdinal - this.readOrdinal);
  }

  /** The node's word. Heads may overtake each other on their way: each half moves only forward. */
  onHead(head: ChannelHead): void {
    if (head.headSeq >= this.headSeq) {
      this.headSeq = head.headSeq;
      this.headOrdinal = head.headOrdinal;
      this.mentions = head.mentions;
      this.uncounted = false;
    }
    if (head.readSeq >= this.readSeq) {
      this.readSeq = head.readSeq;
      this.readOrdinal = head.readOrdinal;
    }
    if (this.wanted <= head.readSeq) this.wanted = 0;
  }

  /** An event took its place in order. */
  onPlaced(seq: number, isMessage: boolean, isOwn: boolean): void {
    if (seq <= this.headSeq) return;
    this.headSeq = seq;
    if (isMessage) this.headOrdinal += 1;
    if (isMessage && isOwn && seq > this.readSeq) {
      this.readSeq = seq;
      this.readOrdinal = this.headOrdinal;
      if (this.wanted <= seq) this.wanted = 0;
    }
  }

  /** Events up to `seq` are not for us, and were not seen. */
  onSkipped(seq: number): void {
    if (seq <= this.headSeq) return;
    this.headSeq = seq;
    this.uncounted = true;
  }

  /** The person has read up to here. Returns whether the node has to be told. */
  want(seq: number): boolean {
    if (seq <= this.readSeq || seq <= this.wanted) return false;
    this.wanted = seq;
    // The badge shows it at once where the ordinal is known, else with the node's answer.
    if (seq >= this.headSeq) this.readOrdinal = this.headOrdinal;
    return true;
  }
}
