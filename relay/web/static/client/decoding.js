// @ts-check
// Candles of the wire as the application gets them.

const EXTRAS = {
  quoteVolume: "quote_volume",
  trades: "trades",
  takerVolume: "taker_volume",
  takerQuoteVolume: "taker_quote_volume",
};

/** Return a candle of the wire; one that is extended has `quoteVolume` and so on, null if not known. Throws `TypeError`. */
export function candleOf(value, isClosed) {
  const candle = { volume: 0, ...value, isClosed };
  if (value.trades !== undefined) {
    for (const [field, name] of Object.entries(EXTRAS)) {
      const number = value[name] ?? null;
      if (number !== null && typeof number !== "number") throw new TypeError(`${name} is not a number`);
      delete candle[name];
      candle[field] = number;
    }
  }
  for (const field of ["time", "open", "high", "low", "close", "volume"]) {
    if (typeof candle[field] !== "number") throw new TypeError(`a candle without ${field}`);
  }
  return candle;
}

/** Return what a candle carries beside prices and volume as one text, null where nothing is known. */
export function extrasOf(candle) {
  const values = Object.keys(EXTRAS).map((field) => candle[field] ?? null);
  return values.every((value) => value === null) ? null : JSON.stringify(values);
}

/** Return candles of the wire, oldest first. Throws `TypeError`. */
export function candlesOf(values, lastIsClosed) {
  return values.map((value, index) => candleOf(value, index < values.length - 1 || lastIsClosed));
}
