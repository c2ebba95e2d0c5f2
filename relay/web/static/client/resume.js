// @ts-check
// How far one stream got, over all connections: where to go on, what was told already, what is missing; no clock.

import { candleOf, extrasOf } from "./decoding.js";

const MOST_BARS = 5000;
const MOST_GAPS = 50;
const MOST_TOLD = 512;
// 1970-01-01 was a Thursday.
const FIRST_MONDAY = 4 * 86_400;
const UNIT_S = { s: 1, m: 60, h: 3600, d: 86_400, w: 604_800, M: 31 * 86_400 };

/** Where one stream stands; decides where to go on and what was seen already. */
export class Progress {
  #name;
  lastClosed = null;
  lastOpen = null;
  confirmedAt = null;
  hasSnapshot = false;
  isToldGaps = false; // by the relay, since it took the stream on this connection
  gaps = []; // that were told and are not repaired yet, as [from, to]
  relay = 0; // number of the one that is asked now
  /** @type {string | null} */
  store = null; // what that relay calls its database; several relays may share an address
  #revisions = new Map(); // by relay, since each counts its own: the number of the last one that was told, and its store
  isInDoubt = false; // closed candles may be missing: nothing counts until the relay was asked anew
  /** @type {number | null} */
  #due = null; // the first open time that may be missing
  #explained = 0; // the relay was asked for what lies before
  #doubted = 0;
  #outdatedBefore = 0; // up to there the provider changed its history, and what it is now is still to come
  /** @type {number | null} */
  #pendingBars = null; // so many candles were asked for, and most of them are still to come
  #beginsAnew = false;
  #told = new Map(); // as closed: the relay may come to know later that one is so, or was revised and is so again

  /** `name` is that of the stream, folded. */
  constructor(name, options) {
    this.#name = name;
    this.options = options;
  }

  get isUnderWay() {
    return this.lastClosed !== null || this.lastOpen !== null;
  }

  /** Say whether the next snapshot is the one that the application asked for. */
  get awaitsFirst() {
    const { bars, since } = this.options;
    return (bars !== undefined || since !== undefined) && !this.isUnderWay && !this.hasSnapshot;
  }

  /** Return `since` for the next subscribe, or null to ask as the first time. */
  resumeFrom() {
    const { bars, since } = this.options;
    if (this.lastClosed !== null) return this.lastClosed;
    if (this.lastOpen !== null) return this.lastOpen - 1;
    if (this.confirmedAt === null || since !== undefined) return since ?? null;
    if (bars && !this.hasSnapshot) return null;
    // Nothing came yet, so what is owed begins with the candle that was open when the stream was confirmed.
    return this.length === null ? null : Math.max(0, this.confirmedAt - this.length);
  }

  /** Seconds from one open time to the next, of a month the most; null where only a newer relay knows. */
  get length() {
    const [, count, unit] = /@(\d+)([a-zA-Z])$/.exec(this.#name) ?? [];
    return unit in UNIT_S ? Number(count) * UNIT_S[unit] : null;
  }

  #nextOpen(time) {
    if (!this.#name.endsWith("@1M")) return time + this.length;
    const at = new Date(time * 1000);
    return at.setUTCMonth(at.getUTCMonth() + 1) / 1000;
  }

  #openAt(moment) {
    if (this.length === null) return moment;
    const at = new Date(moment * 1000);
    if (this.#name.endsWith("@1M")) return Date.UTC(at.getUTCFullYear(), at.getUTCMonth()) / 1000;
    // A venue may count days and weeks from days of its own; else weeks begin on Monday.
    const anchor = this.lastClosed ?? (this.#name.endsWith("w") ? FIRST_MONDAY : 0);
    return moment - ((moment - anchor) % this.length);
  }

  /** Return the first open time that may be missing, as far as it is known. */
  #firstOwed() {
    if (this.lastClosed !== null && this.length !== null) return this.#nextOpen(this.lastClosed);
    const since = this.resumeFrom();
    return since === null ? null : since + 1;
  }

  /** Return what the relay left out without a word, as [from, to]; the candle that is open now is not missing. */
  #holes(owed, times, serverTime) {
    const found = [];
    for (const at of times.length ? times : [this.#openAt(serverTime)]) {
      if (owed < at) found.push([owed, at]);
      if (this.length === null) break;
      owed = this.#nextOpen(at);
    }
    return found;
  }

  /** Return so many bars, or as many as begin with what was open when the stream was confirmed: all since is owed. */
  #reachingBack(bars, serverTime) {
    if (!bars || this.confirmedAt === null || this.length === null) return bars;
    return Math.min(MOST_BARS, Math.max(bars, this.#openedSince(serverTime) + 2));
  }

  /** Return how many candles opened at least since the stream was confirmed, as far as that is known. */
  #openedSince(serverTime) {
    if (this.confirmedAt === null || this.length === null) return 0;
    return Math.floor((serverTime - this.confirmedAt) / this.length);
  }

  /** The relay sends nothing more of what was asked for: what was still to come is asked for again. */
  lose() {
    this.#beginsAnew = this.#pendingBars !== null;
  }

  /** Say whether the next snapshot takes the place of all that came, though the relay does not say so. */
  get beginsAnew() {
    return this.#beginsAnew;
  }

  /** Note whether a snapshot is followed by one with all that was asked for. */
  notePending(isPending) {
    this.#beginsAnew = false;
    this.#pendingBars = isPending ? (this.#pendingBars ?? this.options.bars ?? null) : null;
  }

  /** Return the options of the next subscribe as the relay takes them; `serverTime` is the relay's time now. */
  request(serverTime = 0) {
    const { bars, throttleMs, closedOnly, extended } = this.options;
    const since = this.#beginsAnew ? null : this.resumeFrom();
    const request = {};
    if (since !== null) {
      request.since = since;
      // Of a relay that named none yet all revisions are wanted.
      if (this.#revisions.size) {
        const { number = 0, store = null } = this.#revisions.get(this.relay) ?? {};
        request.revision = number;
        if (store !== null) request.store = store;
      }
    }
    // Once something was delivered, `bars` would cut what was missed.
    if (this.#beginsAnew && this.#pendingBars !== null) {
      request.bars = Math.min(MOST_BARS, this.#pendingBars + this.#openedSince(serverTime));
    } else if (bars !== undefined && !this.isUnderWay && !this.hasSnapshot) {
      request.bars = this.#reachingBack(bars, serverTime);
    }
    if (throttleMs !== undefined) request.throttle_ms = throttleMs;
    if (closedOnly) request.closed_only = true;
    if (extended) request.extended = true;
    return request;
  }

  /** Say whether the application has still to see this candle, and remember it as seen. */
  accept(candle) {
    const { time: openTime, isClosed } = candle;
    if (this.lastClosed !== null && openTime <= this.lastClosed) return false;
    // What came before the first candle was never owed; a resume may bring it along.
    if (this.lastClosed === null && this.lastOpen !== null && openTime < this.lastOpen) return false;
    if (isClosed) {
      this.lastClosed = openTime;
      this.#due = this.length === null ? null : this.#nextOpen(openTime);
      this.#settle(openTime);
      // A gap may have been repaired by a revision before the stream came past it.
      return this.#remember(candle);
    }
    if (this.#told.has(openTime) || (this.lastOpen !== null && openTime < this.lastOpen)) return false;
    if (this.lastClosed === null && this.length !== null) this.#due = openTime;
    this.lastOpen = openTime;
    return true;
  }

  /** Take the candles that the application asked for: steps between them are the relay's to answer for. */
  acceptFirst(candles) {
    this.hasSnapshot = true;
    for (const candle of candles) {
      this.#explained = Math.max(this.#explained, candle.time);
      this.accept(candle);
    }
  }

  /** Take the candles that came in the place of those that were missed; yields what is to be told, type and fields. */
  *takeMissed(wire, candles, isRepair, serverTime) {
    const { seq = null } = wire;
    const isComplete = wire.complete !== false;
    const missed = { isBackfilled: true, isRevised: false, tsEventMs: null, seq };
    for (const candle of (wire.revised ?? []).map((one) => candleOf(one, true))) {
      if (this.acceptRevised(candle)) yield ["update", { ...missed, candle, isClosed: true, isRevised: true }];
    }
    const owed = this.#firstOwed();
    const since = this.resumeFrom();
    if (wire.revisions_known === false) yield ["outdated", { from: 0, before: since + 1 }];
    this.#believe();
    // Before a snapshot the relay tells of all that it lacks; without a word where it has no history.
    if (!isComplete && !isRepair && owed !== null && !this.isToldGaps) {
      const reason = "the relay could not send all candles that were missed while the connection was lost";
      const times = candles.map(({ time }) => time).filter((time) => time > since);
      for (const [from, to] of this.#holes(owed, times, serverTime)) {
        this.addGap(from, to);
        yield ["gap", { from, to, reason }];
      }
    }
    for (const candle of candles) {
      const { isClosed } = candle;
      if (this.isUnexplained(candle.time)) {
        this.doubt(candles.at(-1).time);
        break;
      }
      // A gap was told, and a later candle: what it lacked comes after that.
      const isRevised = this.lastOpen !== null && candle.time < this.lastOpen;
      if (!this.accept(candle)) continue;
      yield ["update", { ...missed, candle, isClosed, isBackfilled: isClosed, isRevised }];
    }
  }

  /** Say whether a candle is to be told as revised: not where it was told with these values last. */
  acceptRevised(candle) {
    this.#settle(candle.time);
    return this.#remember(candle);
  }

  /** Keep a closed candle as it is told, for a while; say whether it is other than what was told before. */
  #remember(candle) {
    const { time, open, high, low, close, volume } = candle;
    const values = JSON.stringify([open, high, low, close, volume]);
    const extras = extrasOf(candle);
    const before = this.#told.get(time);
    // That extras are known or not is no news.
    const isOther =
      before?.values !== values || (before.extras !== extras && before.extras !== null && extras !== null);
    this.#told.delete(time);
    this.#told.set(time, { values, extras });
    if (this.#told.size > MOST_TOLD) this.#told.delete(this.#told.keys().next().value);
    return isOther;
  }

  /** Take it that candles have other values now: what comes of them next is news. */
  takeOutdated(from, before) {
    for (const time of this.#told.keys()) if (from <= time && time < before) this.#told.delete(time);
    this.#outdatedBefore = Math.max(this.#outdatedBefore, before);
  }

  /** Take a past for which nobody asked: it is in the place of all that came, and nothing of it comes again. */
  takeRenewed(candles) {
    this.#told.clear();
    for (const candle of candles) {
      this.#explained = Math.max(this.#explained, candle.time);
      if (!this.accept(candle) && candle.isClosed) this.acceptRevised(candle);
    }
  }

  /** Say that what was outdated came, if a candle that opened at this time is of it; without a time all of it. */
  endOutdated(time = 0) {
    if (time < this.#outdatedBefore) this.#outdatedBefore = 0;
  }

  /** Note the number of a revision, if there is one: what was revised up to it was told, unless more is still to come. */
  learnRevision(number) {
    if (this.#outdatedBefore) return;
    if (!Number.isInteger(number)) return;
    const { store } = this;
    const known = this.#revisions.get(this.relay);
    const newest = known?.store === store ? Math.max(number, known.number) : number;
    this.#revisions.set(this.relay, { number: newest, store });
  }

  /** Say whether closed candles may be missing right before this one, and the relay said nothing of it. */
  isUnexplained(openTime) {
    if (this.#due === null) return false;
    let due = this.#due;
    if (openTime <= due || openTime <= this.#explained) return false;
    for (const [from, to] of this.gaps) if (from <= due && due < to) due = to;
    return due < openTime;
  }

  doubt(openTime) {
    this.isInDoubt = true;
    this.#doubted = Math.max(this.#doubted, openTime);
  }

  /** What comes was asked for after the steps that were doubted: it is the relay's last word on them. */
  #believe() {
    this.#explained = Math.max(this.#explained, this.#doubted);
    this.#doubted = 0;
  }

  /**
   * Note a gap that the relay told of; return where what of it is news begins, null if nothing is. What it begins with
   * may be candles that another relay had.
   */
  takeGap(from, to) {
    this.isToldGaps = true;
    let start = from;
    while (start < to && this.#told.has(start) && this.length !== null) start = this.#nextOpen(start);
    return start < to && this.addGap(start, to) ? start : null;
  }

  /** Say whether a gap is news, and remember it. */
  addGap(from, to) {
    if (this.gaps.some((gap) => gap[0] <= from && to <= gap[1])) return false;
    this.gaps = [...this.gaps, [from, to]].sort((one, other) => one[0] - other[0]).slice(-MOST_GAPS);
    return true;
  }

  /** Take a candle that came after all out of the gaps. */
  #settle(openTime) {
    if (!this.gaps.length || this.length === null) return;
    const end = this.#nextOpen(openTime);
    const parts = this.gaps.flatMap(([from, to]) => [
      [from, Math.min(to, openTime)],
      [Math.max(from, end), to],
    ]);
    this.gaps = parts.filter(([from, to]) => from < to);
  }

  /** The relay took it under its canonical name; from the first time on every candle that closes is owed. */
  confirm(serverTime) {
    this.confirmedAt ??= serverTime;
    this.isToldGaps = this.isInDoubt = false;
  }
}
