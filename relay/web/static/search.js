// @ts-check
// Finds instruments by what a reader types; pure.

const INTERVAL = /^(\d{1,2})([smhdwM])$/;

/** Return `{ words, interval }`: the text without an interval at its end, and that interval or null. */
export function parse(text) {
  const words = text
    .trim()
    .split(/[\s@]+/)
    .filter(Boolean);
  const [, count, unit] = INTERVAL.exec(words.length > 1 ? words.at(-1) : "") ?? [];
  if (!count) return { words: words.map((word) => word.toUpperCase()), interval: null };
  return { words: words.slice(0, -1).map((word) => word.toUpperCase()), interval: count + unit };
}

/** Prepare instruments for searching, once: 3,700 of them are looked through at each key. */
export function prepare(instruments) {
  return instruments.map((instrument) => {
    const { symbol, base, quote, provider, assetClass } = instrument;
    const name = symbol.toUpperCase();
    // `BTC/USD` is found as BTCUSD too, and a pinned name by what follows the provider.
    const bare = name.slice(name.lastIndexOf(":") + 1).replace(/[^\p{L}\p{N}]/gu, "");
    const all = `${name} ${bare} ${base} ${quote} ${provider} ${assetClass}`.toUpperCase();
    return { instrument, name, bare, base: base.toUpperCase(), all };
  });
}

/** Return the instruments that have all the words, the likeliest first; `recent` are the symbols used last. */
export function search(prepared, words, recent = []) {
  const found = [];
  for (const entry of prepared) {
    if (!words.every((word) => entry.all.includes(word))) continue;
    const index = recent.indexOf(entry.instrument.symbol);
    found.push({ instrument: entry.instrument, rank: rank(entry, words[0]) - (index < 0 ? 0 : 0.5 - index / 100) });
  }
  return found.sort((one, other) => one.rank - other.rank).map(({ instrument }) => instrument);
}

function rank({ name, bare, base }, word) {
  if (word === undefined) return 5;
  const plain = word.replace(/[^\p{L}\p{N}]/gu, "");
  if (name === word || bare === plain) return 0;
  if (base === word) return 1;
  if (name.startsWith(word) || (plain && bare.startsWith(plain))) return 2;
  if (name.includes(word)) return 3;
  return 4;
}
