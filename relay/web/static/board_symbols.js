// @ts-check
// The symbols of the watch list: in the reader's order, each once, not too many; and how they are remembered; pure.

/** Each costs the relay and its provider a stream. */
export const MOST_SYMBOLS = 50;

/** Return the list with a symbol at its end; null where it has no room. */
export function added(symbols, symbol) {
  if (symbols.includes(symbol)) return symbols;
  return symbols.length < MOST_SYMBOLS ? [...symbols, symbol] : null;
}

/** Return the list without a symbol. */
export function removed(symbols, symbol) {
  return symbols.filter((one) => one !== symbol);
}

/** Return the list with a symbol at another place, the nearest one that there is. */
export function moved(symbols, symbol, place) {
  const others = removed(symbols, symbol);
  return others.toSpliced(Math.max(0, place), 0, symbol);
}

/** Return what was remembered as text: `{ symbols, isOpen }`; `symbols` is null where there is no list yet. */
export function read(text) {
  let kept;
  try {
    kept = JSON.parse(text ?? "null");
  } catch {
    kept = null;
  }
  const isOpen = kept?.isOpen === true;
  if (!Array.isArray(kept?.symbols)) return { symbols: null, isOpen };
  const symbols = kept.symbols.filter((one) => typeof one === "string" && /^[^@\s]{1,97}$/.test(one));
  return { symbols: [...new Set(symbols)].slice(0, MOST_SYMBOLS), isOpen };
}
