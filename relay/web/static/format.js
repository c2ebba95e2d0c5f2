// @ts-check
// Numbers, times and intervals as people read them; pure.

const UNIT_S = { s: 1, m: 60, h: 3600, d: 86_400, w: 604_800 };
const MOST_DECIMALS = 10;
const priceFormats = new Map();
const volumeFormat = new Intl.NumberFormat("en", { notation: "compact", maximumSignificantDigits: 4 });

/**
 * Return how many decimals a price has, as it is written: 51193.2 has one, 6.38e-6 has eight. What a calculation of the
 * provider left in the last digits of a number is not counted: 109.71000000000001 has two.
 */
export function decimalsOf(value) {
  const [digits, exponent = "0"] = String(Number(value.toPrecision(15))).split("e");
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

/** Return a change in per cent with its sign: +0.43%; 0.00% has none. */
export function percent(ratio) {
  const text = `${(Math.abs(ratio) * 100).toFixed(2)}%`;
  return text === "0.00%" ? text : `${ratio < 0 ? "−" : "+"}${text}`;
}

/** Return what such a change is to the eye: up, down, or nothing where it is written as none. */
export function sideOf(ratio) {
  const [sign] = percent(ratio);
  return sign === "+" ? "up" : sign === "−" ? "down" : "";
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

/** Return a time as `utc` does, in the zone of the reader's clock where `isLocal`. */
export function moment(seconds, withSeconds, isLocal) {
  return utc(isLocal ? seconds - offsetOf(seconds) : seconds, withSeconds);
}

/** Return the name of the zone that `moment` uses: UTC, UTC+2, UTC−3:30. */
export function zone(isLocal, seconds = Date.now() / 1000) {
  const minutes = isLocal ? -offsetOf(seconds) / 60 : 0;
  if (minutes === 0) return "UTC";
  const [hours, rest] = [Math.floor(Math.abs(minutes) / 60), Math.abs(minutes) % 60];
  return `UTC${minutes < 0 ? "−" : "+"}${hours}${rest ? `:${String(rest).padStart(2, "0")}` : ""}`;
}

/** Return a text of the relay with its times as a page writes them, to the minute. */
export function withTimes(text, isLocal) {
  return text.replace(/\d{4}-\d\d-\d\dT\d\d:\d\d(:\d\d)?Z/g, (found) => {
    const seconds = Date.parse(found) / 1000;
    return `${moment(seconds, false, isLocal)} ${zone(isLocal, seconds)}`;
  });
}

/** Return the Unix seconds of a text such as 2026-11-22T17:28, or null if it is none. */
export function onceUtc(text, isLocal) {
  const ms = Date.parse(isLocal ? text : `${text}Z`);
  return Number.isFinite(ms) ? Math.floor(ms / 1000) : null;
}

/** Return how many seconds UTC is ahead of the reader's clock at a time. */
export function offsetOf(seconds) {
  return new Date(seconds * 1000).getTimezoneOffset() * 60;
}

/** Return how long is left, as clocks show it: 0:42, 1:05:09, 2 d 3 h. */
export function countdown(seconds) {
  const left = Math.max(0, Math.ceil(seconds));
  const [days, hours, minutes] = [Math.floor(left / 86_400), Math.floor(left / 3600) % 24, Math.floor(left / 60) % 60];
  if (days) return `${days} d ${hours} h`;
  const two = (value) => String(value).padStart(2, "0");
  return hours ? `${hours}:${two(minutes)}:${two(left % 60)}` : `${minutes}:${two(left % 60)}`;
}

/** Return when a candle that opened at a time closes. */
export function closeOf(time, interval) {
  const step = secondsOf(interval);
  if (step !== null) return time + step;
  const opened = new Date(time * 1000);
  return Date.UTC(opened.getUTCFullYear(), opened.getUTCMonth() + parseInt(interval, 10), 1) / 1000;
}

/** Return the length of an interval in seconds, or null for months, which have no fixed one. */
export function secondsOf(interval) {
  const [, count, unit] = /^(\d+)([smhdw])$/.exec(interval) ?? [];
  return count ? Number(count) * UNIT_S[unit] : null;
}

/** Return all intervals of an instrument, shortest first: the provider's own, and those that the relay builds. */
export function intervalsOf(instrument) {
  const all = [...(instrument?.intervals ?? []), ...(instrument?.derivedIntervals ?? [])];
  return all.sort((one, other) => (secondsOf(one) ?? Infinity) - (secondsOf(other) ?? Infinity));
}

/** Split `BTCUSDT@1m`. */
export function split(stream) {
  const at = stream.lastIndexOf("@");
  return { symbol: stream.slice(0, at), interval: stream.slice(at + 1) };
}
