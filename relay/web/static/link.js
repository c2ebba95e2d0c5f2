// @ts-check
// What the query of an address asks of the chart page: `?symbol=BTCUSDT&interval=1m&theme=dark&embed=1`.

import { read } from "./layout.js";

const NAMES = ["symbol", "interval", "theme", "embed"];
const THEMES = ["dark", "light"];
const INTERVAL = "1m";
const STREAMS = "BTCUSDT@1m,EUR/USD@1h";

/**
 * Return `{ streams, unread, isEmbedded, faults }` of a query: what is to be shown, what of a list of streams is not, whether
 * it is for a frame, and what is wrong, in words. Nothing is guessed. Without `=` it is a list of streams, as after the hash.
 */
export function readLink(query) {
  const text = query.replace(/^\?/, "");
  if (!text.includes("=")) return { ...read(text), isEmbedded: false, faults: [] };
  const given = new URLSearchParams(text);
  const faults = [];
  for (const name of new Set(given.keys())) {
    if (!NAMES.includes(name)) faults.push(`${quoted(name)} is not one of ${NAMES.join(", ")}`);
    else if (given.getAll(name).length > 1) faults.push(`${name} is given more than once`);
  }
  const theme = given.get("theme");
  if (theme !== null && !THEMES.includes(theme)) faults.push(`theme ${quoted(theme)} is neither dark nor light`);
  const embed = given.get("embed");
  const isEmbedded = embed === "1";
  if (embed !== null && !isEmbedded && embed !== "0") faults.push(`embed ${quoted(embed)} is neither 0 nor 1`);
  return { streams: streamsOf(given, isEmbedded, faults), unread: [], isEmbedded, faults };
}

/** Say what is wrong in an address in one text, "" if nothing is. `unread` is what of a list of streams is not shown. */
export function wrongOf({ faults, unread }) {
  const said = faults.length ? [`The address is wrong: ${faults.join("; ")}.`] : [];
  if (unread.length) {
    const names = unread.slice(0, 3).map(quoted);
    if (unread.length > 3) names.push(`${unread.length - 3} more`);
    said.push(`Part of the address cannot be read: ${names.join(", ")}. Write at most 8 streams, such as ${STREAMS}.`);
  }
  return said.join(" ");
}

function streamsOf(given, isEmbedded, faults) {
  const symbol = given.get("symbol");
  const interval = given.get("interval") ?? INTERVAL;
  if (symbol === null) {
    if (isEmbedded || given.has("interval")) faults.push("symbol is missing, such as symbol=BTCUSDT");
    return [];
  }
  const before = faults.length;
  if (!isStream(symbol, INTERVAL)) faults.push(`${quoted(symbol)} is not a symbol such as BTCUSDT or EUR/USD`);
  if (!isStream("A", interval)) faults.push(`${quoted(interval)} is not an interval such as 1m, 5m, 1h or 1d`);
  if (["symbol", "interval"].some((name) => given.getAll(name).length > 1) || faults.length > before) return [];
  return [`${symbol.trim()}@${interval.trim()}`];
}

function isStream(symbol, interval) {
  return read(encodeURIComponent(`${symbol}@${interval}`)).streams.length === 1;
}

function quoted(text) {
  return `“${text.length > 40 ? `${text.slice(0, 39)}…` : text}”`;
}
