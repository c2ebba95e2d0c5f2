// @ts-check
// One cell of the grid: the head with symbol, price, state and lag; the chart; what there is to say about it.

import { Chart } from "./chart.js";
import {
  closeOf,
  countdown,
  moment,
  percent,
  price,
  secondsOf,
  sideOf,
  span,
  split,
  volume,
  withTimes,
  zone,
} from "./format.js";
import { within } from "./page.js";

const MOST_CANDLES = 20_000;
const KEPT_CANDLES = 15_000;
const READABLE_MS = 100;
const OLD_MS = 60_000;
const RECENT = 50;
const ROOM = 4; // pixels below the readout

export const STATES = {
  connecting: "Connecting",
  connected: "Live",
  reconnecting: "Reconnecting",
  backfilling: "Backfilling",
  stale: "Stale",
  market_closed: "Market closed",
  throttled: "Throttled",
  error: "Error",
};

/**
 * Shows one stream of the feed. `onChosen` is called when the reader turns to it, `onSearch` to change the symbol; if that is
 * null, the symbol stays.
 */
export class Panel {
  /** @type {any} The stream of the feed that is shown; null before the first one. */
  live = null;
  #feed;
  #chart;
  #parts = {};
  #frame = 0;
  #pointer = null;
  #headroom = 0;
  #sizes;
  #isBehind = false;
  #mayWriteAt = 0;
  #instrument;
  #view = { scale: "normal", isLocal: false, hasAverages: false };

  constructor(feed, template, { onChosen, onSearch, onRenamed }) {
    this.#feed = feed;
    this.#onRenamed = onRenamed;
    this.element = template.content.firstElementChild.cloneNode(true);
    for (const part of this.element.querySelectorAll("[data-part]")) this.#parts[part.dataset.part] = part;
    this.element.addEventListener("pointerdown", () => onChosen(this));
    this.element.addEventListener("focusin", () => onChosen(this));
    this.#isFixed = onSearch === null;
    // The button around the name: Enter presses that, not what is in it.
    const button = within(this.element, "button.symbol", HTMLButtonElement);
    button.disabled = this.#isFixed;
    button.addEventListener("click", () => onSearch(this));
    // What was asked for in vain may be what the search has by another spelling.
    this.#parts.choose.addEventListener("click", () => onSearch(this, split(this.live.name).symbol));
    this.#parts.end.addEventListener("click", () => this.chart.toEnd());
    this.#sizes = new ResizeObserver((entries) =>
      this.#makeRoom(entries.some(({ target }) => target === this.#parts.canvas)),
    );
    this.#sizes.observe(this.#parts.canvas);
    this.#sizes.observe(this.#parts.readout);
  }

  #onRenamed;
  #isFixed;

  /** The chart; made when the panel is in the document, whose size it takes. */
  get chart() {
    this.#chart ??= new Chart(this.#parts.canvas, {
      onOlder: () => this.live && this.#feed.loadOlder(this.live),
      onPointer: (time) => {
        this.#pointer = time;
        this.#refresh();
      },
      onMove: (isAtEnd) => {
        if (this.#isBehind === !isAtEnd) return;
        this.#isBehind = !isAtEnd;
        this.#parts.end.hidden = isAtEnd;
      },
    });
    return this.#chart;
  }

  get stream() {
    return this.live?.name ?? null;
  }

  /** Show another stream. */
  show(stream) {
    if (this.stream === stream) return;
    if (this.live !== null) this.#feed.leave(this.live, this.#listener);
    this.live = this.#feed.follow(stream, this.#listener);
    this.#isBehind = false;
    this.#headroom = 0;
    this.#parts.end.hidden = true;
    this.#showWhole();
  }

  /** Say who provides the data of what is shown. */
  setInstrument(instrument) {
    this.#instrument = instrument;
    const provider = instrument?.provider ?? "";
    // A name that begins with it needs the room for itself.
    this.#parts.provider.textContent = this.stream?.startsWith(`${provider}:`) ? "" : provider;
  }

  /** Show prices, times and averages as the reader wants them. */
  setView(view) {
    this.#view = view;
    this.chart.setView(view);
    if (this.live !== null) this.#refresh();
  }

  /** Go to a time, and load what lies between; return why not, or an empty text. */
  async goTo(time) {
    if (this.live === null) return "There is no chart yet.";
    if (time > this.#feed.now) return "That is in the future.";
    const problem = await this.#feed.loadBackTo(this.live, time);
    if (problem) return problem;
    this.chart.goTo(time);
    return "";
  }

  setActive(isActive) {
    this.element.classList.toggle("active", isActive);
    if (isActive) this.element.setAttribute("aria-current", "true");
    else this.element.removeAttribute("aria-current");
  }

  /** Stop following, free the chart. */
  close() {
    if (this.live !== null) this.#feed.leave(this.live, this.#listener);
    cancelAnimationFrame(this.#frame);
    this.#sizes.disconnect();
    this.#chart?.close();
    this.element.remove();
  }

  #listener = ({ kind, time, place, isMoreExact, live }) => {
    if (kind === "renamed") {
      const isOther = live !== this.live;
      this.live = live;
      if (isOther) this.#showWhole();
      this.#onRenamed(this);
    } else if (kind === "reset") {
      this.#showWhole();
    } else if (kind === "candle") {
      if (isMoreExact) this.chart.setDecimals(this.live.decimals);
      if (place === "inserted") this.chart.redraw();
      else this.chart.changed(time);
      this.#trim();
    } else if (kind === "gap" || kind === "older") {
      this.chart.setDecimals(this.live.decimals);
      this.chart.redraw();
    }
    this.#refresh(kind !== "candle");
  };

  #showWhole() {
    const { candles, name, decimals } = this.live;
    const { symbol, interval } = split(name);
    this.#parts.symbol.textContent = symbol;
    this.#parts.interval.textContent = interval;
    this.element.setAttribute("aria-label", `Chart of ${symbol}, ${interval}`);
    this.chart.show(candles, interval, decimals);
    this.#refresh();
    this.tick();
  }

  /** Keep the candles below the readout. What is written of a candle under the pointer, or for a moment, moves none. */
  #makeRoom(isAnew) {
    if (this.#pointer !== null) return;
    const room = Math.max(isAnew ? 0 : this.#headroom, this.#parts.readout.offsetHeight + ROOM);
    if (room !== this.#headroom) this.chart.setHeadroom(room);
    this.#headroom = room;
  }

  /** Keep a page that stays open from growing, unless the reader looks at the past. */
  #trim() {
    if (this.live.candles.entries.length <= MOST_CANDLES || this.#isBehind) return;
    this.live.candles.trim(KEPT_CANDLES);
    this.live.isAtStart = false;
    this.chart.redraw();
  }

  // -- words and numbers ---------------------------------------------------------------------------------------------

  /** Write with the next frame; numbers that nobody could read so fast wait a little. */
  #refresh(isAtOnce = true) {
    if (isAtOnce) this.#mayWriteAt = 0;
    this.#frame ||= requestAnimationFrame((now) => {
      this.#frame = 0;
      if (now < this.#mayWriteAt) return this.#refresh(false);
      this.#mayWriteAt = now + READABLE_MS;
      this.#write();
    });
  }

  #write() {
    const { candles, decimals, isLoaded, isLoading, isAtStart, isComplete, isPending, failure, trouble } = this.live;
    const { last } = candles;
    const entry = (this.#pointer !== null && candles.at(this.#pointer)) || last;
    const parts = this.#parts;
    const before = candles.entries.at(-2);
    set(parts.price, last ? price(last.close, decimals) : "");
    const { interval } = split(this.live.name);
    const isComparable = before !== undefined && !before.isOutdated;
    const ratio = isComparable ? last.close / before.close - 1 : 0;
    set(parts.change, isComparable ? `${percent(ratio)} ${interval}` : "");
    parts.change.dataset.side = sideOf(ratio);
    parts.price.dataset.side = side(ratio);
    this.#writeReadout(entry, decimals);
    this.#writeText();
    parts.notice.hidden = isLoaded && last !== undefined && failure === null;
    parts.choose.hidden = failure === null || this.#isFixed;
    const isOutdated = candles.newestOutdated !== undefined;
    const past = isLoading
      ? "Loading older candles"
      : isOutdated
        ? "The provider changed its history: grey candles are not valid any more"
        : isPending
          ? "The provider has not answered yet: older candles follow"
          : trouble;
    set(
      parts.past,
      past ?? (isAtStart && this.#isBehind ? "No older candles" : isComplete ? "" : "Older candles are incomplete"),
    );
    parts.past.hidden = parts.past.textContent === "";
    this.tick();
  }

  #writeReadout(entry, decimals) {
    const { readout } = this.#parts;
    readout.hidden = entry === undefined;
    if (entry === undefined) return;
    const step = secondsOf(split(this.live.name).interval) ?? Infinity;
    const isLocal = this.#view.isLocal && step < 86_400;
    const values = {
      time: this.#pointer === null ? "" : `${moment(entry.time, step < 60, isLocal)} ${zone(isLocal, entry.time)}`,
      open: price(entry.open, decimals),
      high: price(entry.high, decimals),
      low: price(entry.low, decimals),
      close: price(entry.close, decimals),
      volume: volume(entry.volume),
      kind: [
        entry.isClosed ? "closed" : "open",
        entry.isBackfilled && "backfilled",
        entry.isRevised && "revised",
        entry.isOutdated && "not valid any more",
      ]
        .filter(Boolean)
        .join(", "),
    };
    // A market without volume says none, rather than 0.
    const hasVolume = this.live.candles.entries.slice(-RECENT).some((one) => one.volume > 0);
    this.#parts.volume.parentElement.hidden = !hasVolume;
    for (const [name, text] of Object.entries(values)) set(this.#parts[name], text);
    readout.dataset.side = side(entry.close - entry.open);
    this.#parts.kind.dataset.kind = entry.isRevised ? "revised" : entry.isBackfilled ? "backfilled" : "";
  }

  #writeDay() {
    const { last } = this.live.candles;
    const before = last && this.#instrument ? this.#feed.dayAgo(this.#instrument) : null;
    const ratio = before ? last.close / before - 1 : 0;
    set(this.#parts.day, before ? `${percent(ratio)} 24h` : "");
    this.#parts.day.dataset.side = sideOf(ratio);
  }

  #writeLeft() {
    const { candles, name, status } = this.live;
    const { last } = candles;
    const isRead = this.#pointer === null || this.#pointer === last?.time;
    const isRunning = last && !last.isClosed && isRead && status === "connected" && !this.#isOffline;
    const left = isRunning ? closeOf(last.time, split(name).interval) - this.#feed.now : 0;
    set(this.#parts.left, left > 0 ? `closes in ${countdown(left)}` : "");
  }

  /** Write what stands where candles will be. */
  #writeText() {
    const { failure, isLoaded, candles } = this.live;
    const nothing = isLoaded ? "No candles yet" : this.#isOffline ? "No connection" : "Loading candles";
    const why = failure && withTimes(failure, this.#view.isLocal);
    set(this.#parts.text, why ?? (isLoaded && candles.last ? "" : nothing));
  }

  get #isOffline() {
    return this.#feed.connection.state !== "connected";
  }

  /** Write what changes with time alone: the state, how old the last update is, how long the candle is open still. */
  tick() {
    if (this.live === null) return;
    this.#writeText();
    this.#writeDay();
    this.#writeLeft();
    const { status, lagMs, heardAt } = this.live;
    const text = withTimes(this.live.text, this.#view.isLocal);
    const state = this.#isOffline && status !== "error" ? "disconnected" : status;
    this.#parts.state.dataset.state = state;
    set(this.#parts.state, state === "disconnected" ? "Offline" : (STATES[status] ?? status));
    const age = heardAt === null ? null : performance.now() - heardAt;
    // The lag of an update from long ago says nothing of now.
    const isOld = age !== null && age >= OLD_MS;
    const lag = lagMs === null ? "lag n/a" : `lag ${span(lagMs)}`;
    set(this.#parts.lag, state !== "connected" ? "" : isOld ? `${span(age)} ago` : lag);
    this.#parts.lag.title = isOld
      ? "Time since the last update"
      : lagMs === null
        ? "The provider sends no time with its updates"
        : "Time from the provider's event to this page";
    this.#parts.state.title = [text, age === null ? "" : `last update ${span(age)} ago`].filter(Boolean).join("; ");
    set(this.#parts.words, state === "disconnected" || ["connected", "error"].includes(status) ? "" : text);
    this.#parts.words.hidden = this.#parts.words.textContent === "";
  }
}

function set(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** Return which side of nothing a change is on, for its colour. */
export function side(change) {
  return change > 0 ? "up" : change < 0 ? "down" : "";
}
