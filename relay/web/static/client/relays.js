// @ts-check
// The relays that a client may use, of which each serves the same: requests go to the one that worked last.

import { BadReply, Refused, Unreachable } from "./errors.js";

/** One relay or several, in their order; `preferred` is the number of the one that worked last. */
export class Relays {
  #relays;
  #timeoutMs;

  constructor(relays, timeoutMs, first) {
    this.#relays = relays;
    this.#timeoutMs = timeoutMs;
    this.preferred = first;
  }

  at(number) {
    return this.#relays[number];
  }

  /** The address of the preferred one. */
  get url() {
    return this.#relays[this.preferred].url;
  }

  /** Refuse every request from now on. */
  close() {
    for (const relay of this.#relays) relay.isClosed = true;
  }

  /**
   * Return what `read` makes of an answer of the first relay that has one. Throws `ClientError`.
   *
   * All of them together have the time limit: each takes an equal part of what is left. What each takes of the time in
   * which it was allowed to answer, `waitMs`, does not count.
   */
  async get(route, asked, read, waitMs = 0) {
    const count = this.#relays.length;
    let leftMs = this.#timeoutMs;
    const first = this.preferred;
    const faults = [];
    for (let step = 0; step < count; step += 1) {
      const number = (first + step) % count;
      const relay = this.#relays[number];
      const began = performance.now();
      try {
        const wire = await relay.get(route, asked, waitMs + Math.max(1, leftMs) / (count - step));
        const answer = readAnswer(relay, wire, read);
        this.preferred = number;
        return answer;
      } catch (fault) {
        if (!isOfRelay(fault)) throw fault;
        faults.push(fault);
        leftMs -= Math.max(0, performance.now() - began - waitMs);
      }
    }
    throw faultOfAll(faults);
  }
}

function readAnswer(relay, wire, read) {
  try {
    return read(wire);
  } catch {
    throw relay.badReply();
  }
}

/**
 * Say whether another relay may answer where one did not. A wrong request is wrong everywhere; one that is too many is
 * too many for the next relay as well, and so is one to a provider that is not available.
 */
function isOfRelay(fault) {
  if (fault instanceof Refused) {
    if (!fault.code || fault.status === 401 || fault.status === 403) return true;
    return fault.status >= 500 && fault.code !== "provider_unavailable";
  }
  return fault instanceof Unreachable || fault instanceof BadReply;
}

/** Say whether asking the same relay again would end the same way; null is a connection that was open. */
export function isForGood(fault) {
  return fault instanceof Refused && (fault.status === 401 || fault.status === 403);
}

/** Return what to throw where every relay failed. */
export function faultOfAll(faults) {
  if (faults.length === 1 || faults.every(isForGood)) return faults.at(-1);
  const texts = faults.map(({ message }) => message).join("; ");
  return new Unreachable(`none of ${faults.length} relays can be used: ${texts}`);
}
