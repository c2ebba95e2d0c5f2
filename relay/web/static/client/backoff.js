// @ts-check
// How long to wait: before the next attempt, growing and with jitter, and as long as a timer can.

// A timer that is to wait longer runs out at once.
const LONGEST_TIMER_MS = 2 ** 31 - 1;

/** Return a time to wait that a timer takes. */
export function timerMs(waitMs) {
  return Math.min(Math.max(0, waitMs), LONGEST_TIMER_MS);
}

/** Waits between attempts: they lie between two bounds. */
export class Backoff {
  constructor([leastMs, mostMs]) {
    this.leastMs = leastMs;
    this.mostMs = mostMs;
  }

  /** Return how long to wait after so many failures in a row. */
  waitMs(failures) {
    const boundMs = Math.min(this.mostMs, this.leastMs * 2 ** Math.min(failures + 1, 16));
    return this.leastMs + Math.random() * (boundMs - this.leastMs);
  }
}
