// @ts-check
// What a symbol cost a day ago: by the candles of its last day, asked for once a day. Draws nothing.

import { secondsOf } from "./format.js";

export const DAY_S = 86_400;
const AGAIN_MS = 300_000;
// The first that an instrument has: few candles, and near enough to the minute.
const INTERVALS = ["15m", "30m", "5m", "1h"];

/** Return `{ interval, step, count }` of the candles that tell the last day of an instrument; null where it has none. */
export function dayOf(instrument) {
  const interval = INTERVALS.find((one) => instrument?.intervals.includes(one));
  if (interval === undefined) return null;
  const step = secondsOf(interval) ?? DAY_S;
  // Two days' worth would be asked for in vain: a market that rested has its last candles before the rest.
  return { interval, step, count: DAY_S / step + 4 };
}

/** `ask(symbol, interval, limit)` returns the newest candles; what it throws is asked for again some minutes later. */
export class DayAgo {
  #ask;
  #days = new Map();

  constructor(ask) {
    this.#ask = ask;
  }

  /** Return what an instrument cost a day before `now`, in Unix seconds; null where that is not known, or not yet. */
  priceOf(instrument, now) {
    const asked = dayOf(instrument);
    if (asked === null) return null;
    const ago = now - DAY_S;
    const day = this.#days.get(instrument.symbol);
    if (day === undefined || (performance.now() >= day.askAgainAt && !(day.askedFor > ago))) {
      this.#load(instrument.symbol, asked, now);
    }
    return priceAt(day?.candles ?? [], ago, asked.step);
  }

  /** Forget what a symbol cost: its past is another one now. */
  forget(symbol) {
    this.#days.delete(symbol);
  }

  async #load(symbol, { interval, count }, now) {
    const day = {
      candles: this.#days.get(symbol)?.candles ?? [],
      askedFor: 0,
      askAgainAt: performance.now() + AGAIN_MS,
    };
    this.#days.set(symbol, day);
    try {
      day.candles = await this.#ask(symbol, interval, count);
      day.askedFor = now;
    } catch {
      // A number less on the page; the streams say what is wrong.
    }
  }
}

/** Return the price at a time by sorted candles: none before the first one. */
export function priceAt(candles, time, step) {
  const candle = candles.findLast((one) => one.time <= time);
  if (candle === undefined) return null;
  return time < candle.time + step ? candle.open : candle.close;
}
