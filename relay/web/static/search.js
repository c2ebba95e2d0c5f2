// @ts-check
// Finds instruments by what a reader types; pure.

import { COMMON_NAMES, QUOTES } from "./names.js";

const SHORTEST_NAME = 3;
const SIGNS = /[\s@/:_.-]+/;
/** What people call units; in upper case M is a month, and all others are what they are in lower case. */
const UNITS = {
  s: ["sec", "secs", "second", "seconds"],
  m: ["min", "mins", "minute", "minutes"],
  h: ["hr", "hrs", "hour", "hours"],
  d: ["day", "days"],
  w: ["wk", "week", "weeks"],
  M: ["mo", "month", "months"],
};
const INTERVAL = /(?:^|[\s@])(\d{1,2})\s?([a-z]+)$/i;

/**
 * Return `{ words, name, interval }`: the text without an interval at its end, in words and as a symbol would be written,
 * and that interval or null.
 */
export function parse(text) {
  const [whole, count, unit] = INTERVAL.exec(text.trim()) ?? [""];
  const interval = unit ? intervalOf(count, unit) : null;
  const rest = (interval === null ? text.trim() : text.trim().slice(0, -whole.length)).toUpperCase();
  return { words: rest.split(SIGNS).filter(Boolean), name: rest.split(/[\s@]+/)[0], interval };
}

function intervalOf(count, word) {
  const lower = word.toLowerCase();
  const unit = word === "M" ? word : Object.keys(UNITS).find((one) => one === lower || UNITS[one].includes(lower));
  return unit === undefined ? null : Number(count) + unit;
}

/** Prepare instruments for searching, once: 3,700 of them are looked through at each key. */
export function prepare(instruments) {
  return instruments.map((instrument) => {
    const { symbol, base, quote, provider, assetClass } = instrument;
    const name = symbol.toUpperCase();
    const pin = `${provider}:`.toUpperCase();
    // `BTC/USD` is found as BTCUSD too, and a pinned name by what follows the provider; symbols have colons as well.
    const bare = plain(name.startsWith(pin) ? name.slice(pin.length) : name);
    const all = `${name} ${bare} ${base} ${quote} ${instrument.name ?? ""} ${provider} ${assetClass}`.toUpperCase();
    return { instrument, name, bare, base: base.toUpperCase(), quote: quote.toUpperCase(), all };
  });
}

/**
 * Return the instruments that have all the words, the likeliest first: by how well they fit, then the one on screen,
 * then by what people trade against, then those used last (`recent`), then the shorter name. Without words the one on
 * screen and those used last come first.
 *
 * @param {any[]} prepared
 * @param {string[]} words
 * @param {{ recent?: string[], shown?: string }} hints
 */
export function search(prepared, words, { recent = [], shown = "" } = {}) {
  const asked = words.map((word) => ({ word, codes: codesOf(word) }));
  const found = [];
  for (const entry of prepared) {
    if (!asked.every((one) => fits(entry, one))) continue;
    const { symbol } = entry.instrument;
    const quote = QUOTES.indexOf(entry.quote);
    const used = recent.indexOf(symbol);
    const order = words.length
      ? [fit(entry, words, asked[0].codes), symbol === shown ? 0 : 1, last(quote), last(used), entry.name.length]
      : [symbol === shown ? 0 : 1, last(used)];
    found.push({ instrument: entry.instrument, order });
  }
  return found.sort((one, other) => compare(one.order, other.order)).map(({ instrument }) => instrument);
}

function plain(text) {
  return text.replace(/[^\p{L}\p{N}]/gu, "");
}

/** The currencies that a word may be the name of, or the beginning of one. */
function codesOf(word) {
  if (word.length < SHORTEST_NAME) return [];
  return Object.keys(COMMON_NAMES)
    .filter((name) => name.startsWith(word))
    .map((name) => COMMON_NAMES[name]);
}

function fits({ all, base, quote }, { word, codes }) {
  return all.includes(word) || codes.includes(base) || codes.includes(quote);
}

/** How well an instrument fits, 0 best. */
function fit({ name, bare, base }, words, codes) {
  const [word] = words;
  if (name === word || bare === plain(words.join(""))) return 0;
  if (base === word || codes.includes(base)) return 1;
  if (name.startsWith(word) || (plain(word) && bare.startsWith(plain(word)))) return 2;
  return name.includes(word) ? 3 : 4;
}

function last(index) {
  return index < 0 ? Infinity : index;
}

function compare(one, other) {
  const at = one.findIndex((value, index) => value !== other[index]);
  return at < 0 ? 0 : one[at] - other[at];
}
