// @ts-check
// What a symbol cost a day ago: by the candles of its last day, asked for once a day. Draws nothing.

import { secondsOf } from "./format.js";

const DAY_S = 86_400;
const AGAIN_MS = 300_000;
// The first that an instrument has: few candles, and near enough to the minute.
const INTERVALS = ["15m", "30m", "5m", "1h"];

/** `ask(symbol, interval, limit)` returns the newest candles; what it throws is asked for again some minutes later. */
export class DayAgo {
  #ask;
  #days = new Map();

  constructor(ask) {
    this.#ask = ask;
  }

  /** Return what an instrument cost a day before `now`, in Unix seconds; null where that is not known, or not yet. */
  priceOf(instrument, now) {
    const interval = INTERVALS.find((one) => instrument?.intervals.includes(one));
    if (interval === undefined) return null;
    const step = secondsOf(interval) ?? DAY_S;
    const ago = now - DAY_S;
    const day = this.#days.get(instrument.symbol);
    if (day === undefined || (performance.now() >= day.askAgainAt && !(day.askedFor > ago))) {
      this.#load(instrument.symbol, interval, step, now);
    }
    return priceAt(day?.candles ?? [], ago, step);
  }

  async #load(symbol, interval, step, now) {
    const day = {
      candles: this.#days.get(symbol)?.candles ?? [],
      askedFor: 0,
      askAgainAt: performance.now() + AGAIN_MS,
    };
    this.#days.set(symbol, day);
    try {
      // Two days' worth would be asked for in vain: a market that rested has its last candles before the rest.
      day.candles = await this.#ask(symbol, interval, DAY_S / step + 4);
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
