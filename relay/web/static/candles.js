// @ts-check
// The candles of one stream as the page knows them: sorted, each with how it came, and the gaps; pure.

import { secondsOf } from "./format.js";

const MOST_WHITESPACE = 400;
const VALUES = ["open", "high", "low", "close", "volume"];

/**
 * Sorted candles. An entry is a candle with `isClosed`, `isBackfilled`, `isRevised` and `isOutdated`: it has other values by
 * now, which are still to come. Entries are never changed.
 */
export class Candles {
  entries = [];
  gaps = [];

  get first() {
    return this.entries[0];
  }

  get last() {
    return this.entries.at(-1);
  }

  /** Forget everything and begin with a snapshot. */
  reset(candles, lastIsClosed) {
    this.entries = candles.map((candle, index) => entryOf(candle, index < candles.length - 1 || lastIsClosed));
    this.gaps = [];
  }

  /** Take an update; return `last` if it is now the newest candle, `older` if it replaced one, else `inserted`. */
  put({ candle, isClosed, isBackfilled, isRevised }) {
    const index = this.#indexOf(candle.time);
    const before = this.entries[index];
    const isKnown = before?.time === candle.time;
    const entry = {
      ...candle,
      isClosed,
      isBackfilled: isBackfilled || (isKnown && before.isBackfilled),
      isRevised: isRevised || (isKnown && before.isRevised),
      isOutdated: false,
    };
    this.entries.splice(index, isKnown ? 1 : 0, entry);
    if (index === this.entries.length - 1) return "last";
    return isKnown ? "older" : "inserted";
  }

  /** Put older candles in front, those known already left out; return how many there were. */
  prepend(candles) {
    const bound = this.first?.time ?? Infinity;
    const older = candles.filter((candle) => candle.time < bound).map((candle) => entryOf(candle, true));
    this.entries = [...older, ...this.entries];
    return older.length;
  }

  /** Say that candles with `from` ≤ time < `to` have other values by now; return whether there are any. */
  outdate(from, to) {
    const isOld = ({ time }) => from <= time && time < to;
    const isAny = this.entries.some(isOld);
    if (isAny) this.entries = this.entries.map((entry) => (isOld(entry) ? { ...entry, isOutdated: true } : entry));
    return isAny;
  }

  /** The open time of the newest candle of which the values are outdated; undefined where there is none. */
  get newestOutdated() {
    return this.entries.findLast(({ isOutdated }) => isOutdated)?.time;
  }

  /** Take all candles up to a time that there are in truth, from the first of them on: outdated ones follow, or go. */
  renew(candles, to) {
    const from = candles[0]?.time ?? -Infinity;
    const renewed = new Map(candles.map((candle) => [candle.time, candle]));
    this.entries = this.entries.flatMap((entry) => {
      if (!entry.isOutdated || entry.time < from || entry.time > to) return [entry];
      const candle = renewed.get(entry.time);
      if (candle === undefined) return [];
      const isOther = VALUES.some((name) => candle[name] !== entry[name]);
      return [{ ...entry, ...candle, isRevised: entry.isRevised || isOther, isOutdated: false }];
    });
  }

  /** Remember that candles with `from` ≤ time < `to` could not be had. */
  addGap(from, to, reason) {
    this.gaps.push({ from, to, reason });
  }

  /** Forget the oldest beyond `most`; return whether there were any. */
  trim(most) {
    const excess = this.entries.length - most;
    if (excess <= 0) return false;
    this.entries.splice(0, excess);
    this.gaps = this.gaps.filter((gap) => gap.to > this.first.time);
    return true;
  }

  /** Return the candle that opened at a time, or undefined. */
  at(time) {
    const entry = this.entries[this.#indexOf(time)];
    return entry?.time === time ? entry : undefined;
  }

  /**
   * Return the spans that are still missing between two candles, with the open times that belong there.
   *
   * A gap that was filled later, by revised candles, is no gap any more.
   */
  holes(interval) {
    const step = secondsOf(interval);
    const found = [];
    for (const { from, to, reason } of this.gaps) {
      const index = this.#indexOf(from);
      const before = this.entries[index - 1];
      if (step === null || before === undefined) continue;
      const end = Math.min(to, this.entries[index]?.time ?? Infinity);
      const times = [];
      for (let time = before.time + step; time < end && times.length < MOST_WHITESPACE; time += step) times.push(time);
      if (times.length) found.push({ times, reason, before: before.time });
    }
    return found;
  }

  /**
   * Return the averages at the entries of a span, and at one on each side of it: each of the last `count` values called
   * `name`; none where there are fewer, or where one of them is outdated.
   */
  averages(name, count, from, to) {
    const start = Math.max(this.#indexOf(from) - 1, count - 1);
    const end = Math.min(this.#indexOf(to) + 2, this.entries.length);
    const rows = [];
    let sum = 0;
    let outdated = 0;
    for (let index = start - count + 1; index < end; index += 1) {
      sum += this.entries[index][name];
      outdated += Number(this.entries[index].isOutdated);
      if (index < start) continue;
      const first = this.entries[index - count + 1];
      if (!outdated) rows.push({ time: this.entries[index].time, value: sum / count });
      sum -= first[name];
      outdated -= Number(first.isOutdated);
    }
    return rows;
  }

  /** Return the index of the first entry that is not before a time. */
  #indexOf(time) {
    let low = 0;
    let high = this.entries.length;
    if (high && this.entries[high - 1].time < time) return high;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.entries[middle].time < time) low = middle + 1;
      else high = middle;
    }
    return low;
  }
}

function entryOf(candle, isClosed) {
  return { ...candle, isClosed, isBackfilled: false, isRevised: false, isOutdated: false };
}
