// @ts-check
// Numbers, times and intervals as people read them; pure.

const UNIT_S = { s: 1, m: 60, h: 3600, d: 86_400, w: 604_800 };
const MOST_DECIMALS = 10;
const priceFormats = new Map();
const volumeFormat = new Intl.NumberFormat("en", { notation: "compact", maximumSignificantDigits: 4 });

/** Return how many decimals a price has, as it is written: 51193.2 has one, 6.38e-6 has eight. */
export function decimalsOf(value) {
  const [digits, exponent = "0"] = String(value).split("e");
  const decimals = (digits.split(".")[1] ?? "").length - Number(exponent);
  return Math.min(MOST_DECIMALS, Math.max(0, decimals));
}

/** Return a price with a fixed number of decimals: 51,193.20. */
export function price(value, decimals) {
  if (!priceFormats.has(decimals)) {
    const digits = { minimumFractionDigits: decimals, maximumFractionDigits: decimals };
    priceFormats.set(decimals, new Intl.NumberFormat("en", digits));
  }
  return priceFormats.get(decimals).format(value);
}

/** Return a volume in few characters: 1.234K. */
export function volume(value) {
  return volumeFormat.format(value);
}

/** Return a change in per cent with its sign: +0.43%. */
export function percent(ratio) {
  const text = (Math.abs(ratio) * 100).toFixed(2);
  return `${ratio < 0 && text !== "0.00" ? "−" : "+"}${text}%`;
}

/** Return a time span in its largest sensible unit: 45 ms, 1.2 s, 3 min, 2 h. */
export function span(ms) {
  if (ms < 999.5) return `${Math.round(ms)} ms`;
  if (ms < 9950) return `${(ms / 1000).toFixed(1)} s`;
  if (ms < 99_500) return `${Math.round(ms / 1000)} s`;
  if (ms < 5_400_000) return `${Math.round(ms / 60_000)} min`;
  return `${Math.round(ms / 3_600_000)} h`;
}

/** Return a time as 2026-11-22 17:28:50 in UTC; without seconds for candles that last longer. */
export function utc(seconds, withSeconds = true) {
  return new Date(seconds * 1000)
    .toISOString()
    .replace("T", " ")
    .slice(0, withSeconds ? 19 : 16);
}

/** Return the length of an interval in seconds, or null for months, which have no fixed one. */
export function secondsOf(interval) {
  const [, count, unit] = /^(\d+)([smhdw])$/.exec(interval) ?? [];
  return count ? Number(count) * UNIT_S[unit] : null;
}

/** Split `BTCUSDT@1m`. */
export function split(stream) {
  const at = stream.lastIndexOf("@");
  return { symbol: stream.slice(0, at), interval: stream.slice(at + 1) };
}
