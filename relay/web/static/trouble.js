// @ts-check
// The bar that says in words why nothing comes from the relay, and when the page tries again.

import { span } from "./format.js";
import { byId, hide, within, write } from "./page.js";

// A connection that is lost for a moment needs no words.
const AFTER_MS = 2000;

export class TroubleBar {
  #feed;
  #bar = byId("trouble");
  /** @type {number | null} */
  #since = null;

  constructor(feed) {
    this.#feed = feed;
    within(this.#bar, "button").addEventListener("click", () => feed.retry());
  }

  /** Whether what is shown is old. */
  get isOffline() {
    return this.#since !== null;
  }

  /** Write what changes with the connection and with time. */
  tick() {
    const { state, text, retryAt } = this.#feed.connection;
    const now = performance.now();
    if (state === "connected") this.#since = null;
    else if (state !== "connecting") this.#since ??= now;
    const isTold = state === "ended" || (this.#since !== null && now - this.#since >= AFTER_MS);
    hide(this.#bar, !isTold);
    if (!isTold) return;
    const waitMs = retryAt === null ? 0 : retryAt - now;
    if (state !== "connecting") {
      write(
        within(this.#bar, "[data-part=cause]"),
        state === "ended" ? `The relay refuses this page: ${text}` : `Offline: ${text}`,
      );
    }
    write(
      within(this.#bar, "[data-part=wait]"),
      waitMs > 0 ? `next attempt in ${span(Math.ceil(waitMs / 1000) * 1000)}` : "",
    );
  }
}
