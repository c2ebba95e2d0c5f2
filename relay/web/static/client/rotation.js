// @ts-check
// Which of several relays is asked next, and when; no I/O and no clock: the time is passed in.

/**
 * Goes round a number of relays: to the next one when one fails, with a pause after each round without success.
 *
 * The pauses grow with the rounds, not with the failures of one relay, and a single relay is a round. A relay that named
 * a time is not asked before it. `current` is the relay that is used, or asked next at `nextAt`.
 */
export class Rotation {
  current;
  nextAt = 0;
  #backoff;
  #notBefore;
  #failed = new Set(); // since the last pause
  #rounds = 0;

  constructor(count, backoff, first) {
    this.current = first;
    this.#backoff = backoff;
    this.#notBefore = Array(count).fill(0);
  }

  /** Whether there are relays that can be asked before the next pause. */
  get isWithinRound() {
    return this.#failed.size > 0;
  }

  /** Take it that the current relay is well: the next failure is the first again. */
  restart() {
    this.#failed.clear();
    this.#rounds = 0;
  }

  /**
   * Leave the current relay, which failed; return in how many milliseconds the next one is to be asked.
   *
   * This one wants to be asked in `leastMs` at the soonest. If it `wasOpen`, it may have left many clients at once: they
   * spread over the shortest pause.
   */
  goOn(now, { leastMs = 0, wasOpen = false } = {}) {
    const count = this.#notBefore.length;
    const failed = this.current;
    this.#notBefore[failed] = now + leastMs;
    this.#failed.add(failed);
    const order = this.#notBefore.map((_, step) => (failed + 1 + step) % count);
    const next = order.find((number) => !this.#failed.has(number) && this.#notBefore[number] <= now);
    let waitMs = 0;
    if (next !== undefined) {
      this.current = next;
      if (wasOpen) waitMs = Math.random() * this.#backoff.leastMs;
    } else {
      this.#failed.clear();
      const pauseMs = this.#roundPauseMs();
      waitMs = Infinity;
      for (const number of order) {
        const askedMs = Math.max(pauseMs, number === failed ? leastMs : this.#notBefore[number] - now);
        // Where equal, the next one in the order comes first.
        if (askedMs < waitMs) [this.current, waitMs] = [number, askedMs];
      }
    }
    this.nextAt = now + waitMs;
    return waitMs;
  }

  /** Pause, and then ask the current relay again: it was not its fault. Return the pause in milliseconds. */
  stay(now, leastMs = 0) {
    const waitMs = Math.max(this.#roundPauseMs(), leastMs);
    this.nextAt = now + waitMs;
    return waitMs;
  }

  #roundPauseMs() {
    this.#rounds += 1;
    return this.#backoff.waitMs(this.#rounds - 1);
  }
}
