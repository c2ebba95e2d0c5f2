// @ts-check
// Candles of the wire as the application gets them.

/** Return a candle of the wire. Throws `TypeError`. */
export function candleOf(value, isClosed) {
  const candle = { volume: 0, ...value, isClosed };
  for (const field of ["time", "open", "high", "low", "close", "volume"]) {
    if (typeof candle[field] !== "number") throw new TypeError(`a candle without ${field}`);
  }
  return candle;
}

/** Return candles of the wire, oldest first. Throws `TypeError`. */
export function candlesOf(values, lastIsClosed) {
  return values.map((value, index) => candleOf(value, index < values.length - 1 || lastIsClosed));
}
