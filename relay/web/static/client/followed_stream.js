// @ts-check
// One stream that an application follows: its names, how far it got, and when the relay is to be asked again.

import { folded } from "./parsing.js";
import { Progress } from "./resume.js";

const REPAIR_MS = 30_000;
const MOST_REPAIR_MS = 600_000;
const MOST_REPAIRS = 12;

/** What was asked of one stream, and when to ask again. */
export class FollowedStream {
  name = null; // canonical, once the relay confirmed it
  failures = 0;
  isAsked = false; // on this connection
  askedId = 0; // of the last request for it on this connection
  repairAt = Infinity; // when the relay is to be asked for what is missing still of the gaps
  repairs = 0;
  isRepairing = false;
  awaitsSnapshot = false;
  // A stream is renewed by leaving it and asking for it anew: of one that goes on the relay sends nothing again.
  mustLeave = false;
  isRenewing = false;
  askAt = 0; // when the relay is to be asked for it; Infinity once it was

  constructor(asked, options) {
    this.asked = asked;
    this.askedBy = new Set([asked]);
    this.progress = new Progress(asked, options);
  }

  /** Every name it goes by, folded: those it was asked for by, and the canonical one. */
  get spellings() {
    return this.name === null ? [...this.askedBy] : [...this.askedBy, folded(this.name)];
  }

  /** Begin anew with a connection that knows of nothing, to the relay of this number. */
  restart(relay) {
    Object.assign(this.progress, { relay, store: null });
    this.progress.lose();
    Object.assign(this, { askAt: 0, isAsked: false, awaitsSnapshot: false });
    Object.assign(this, { isRepairing: false, mustLeave: false, isRenewing: false });
  }

  /** The relay took it under its canonical name. */
  confirm(serverTime) {
    Object.assign(this, { failures: 0, isRenewing: false, isRepairing: false });
    this.progress.confirm(serverTime);
  }

  planRepair(now) {
    // What so many questions did not bring may come with the next connection.
    if (!this.progress.gaps.length || this.repairAt < Infinity || this.repairs >= MOST_REPAIRS) return;
    this.repairAt = now + Math.min(MOST_REPAIR_MS, REPAIR_MS * 2 ** this.repairs);
    this.repairs += 1;
  }
}
