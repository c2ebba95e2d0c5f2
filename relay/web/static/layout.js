// @ts-check
// Which streams the page shows in how many charts: in the address, so that it can be shared, and remembered.

const KEY = "relay-charts";
export const COUNTS = [1, 2, 4, 8];

/** Read a list of streams such as `BTCUSDT@1m,EUR/USD@1h`; what is no stream is left out. */
export function parse(text) {
  return read(text).streams;
}

/** Return `{ streams, unread }` of such a list: what is shown of it, and what is not as it stands there. */
export function read(text) {
  const streams = [];
  const unread = [];
  for (const part of text.split(",").filter(Boolean)) {
    const name = decode(part).trim();
    const isStream = /^[^@\s]{1,97}@\d{1,2}[a-zA-Z]$/.test(name);
    if (isStream && streams.length < Math.max(...COUNTS)) streams.push(name);
    else unread.push(name || part);
  }
  return { streams, unread };
}

/** Return the list as it stands in the address. Names may have any letters; the signs in them need no escape. */
export function format(streams) {
  return streams
    .map((name) => encodeURIComponent(name).replace(/%2F/g, "/").replace(/%40/g, "@").replace(/%3A/g, ":"))
    .join(",");
}

/** Return the smallest layout that has room for so many charts. */
export function countFor(number) {
  return COUNTS.find((count) => count >= number) ?? COUNTS.at(-1);
}

/** The streams in all cells, shown or not, and how many are shown. */
export class Layout {
  streams = [];
  count = 1;
  /** What of the address was left out, since it is no stream or there are too many. */
  unread = [];

  #isKept;

  /** With `isKept` the address and what is remembered stay as they are: they are another page's. */
  constructor(isKept = false) {
    this.#isKept = isKept;
  }

  /**
   * Show what a link asks for, else what is after the hash of the address, else what was remembered.
   *
   * @param {{ streams: string[], unread: string[] }} link
   */
  load(link = { streams: [], unread: [] }) {
    const remembered = this.#isKept ? { streams: [], count: 1 } : stored();
    const isLinked = this.#isKept || link.streams.length + link.unread.length > 0;
    const { streams: linked, unread } = isLinked ? link : read(location.hash.slice(1));
    this.unread = unread;
    this.streams = [...linked, ...remembered.streams.slice(linked.length)];
    this.count = linked.length ? countFor(linked.length) : remembered.count;
  }

  /** Whether the address is another than that of what is shown, as after the reader changed it. */
  get isLeft() {
    return location.hash.slice(1) !== format(this.streams.slice(0, this.count));
  }

  /** Show `symbol@interval` in one cell. */
  set(index, stream) {
    this.streams[index] = stream;
    this.save();
  }

  /** Show so many charts; `active` stays in sight. Cells that never had a stream get the next of `candidates`. */
  resize(count, active, candidates) {
    if (active >= count) {
      const [stream] = this.streams.splice(active, 1);
      this.streams.unshift(stream);
    }
    this.count = count;
    this.fill(candidates);
  }

  /** Give each cell in sight a stream, of a symbol that has none yet while there are such. */
  fill(candidates) {
    const shown = new Set(this.streams.map(symbolOf));
    const free = candidates.filter((name) => !shown.has(symbolOf(name)));
    while (this.streams.length < this.count && candidates.length) {
      this.streams.push(free.shift() ?? candidates[this.streams.length % candidates.length]);
    }
    this.save();
  }

  /** Write the address (without an entry in the browser's history) and remember. */
  save() {
    if (this.#isKept) return;
    const theme = new URLSearchParams(location.search).get("theme");
    const query = theme === "dark" || theme === "light" ? `?theme=${theme}` : "";
    history.replaceState(null, "", `${location.pathname}${query}#${format(this.streams.slice(0, this.count))}`);
    try {
      localStorage.setItem(KEY, JSON.stringify({ streams: this.streams, count: this.count }));
    } catch {
      // Then the address alone holds it.
    }
  }
}

function symbolOf(name) {
  return name.slice(0, name.lastIndexOf("@"));
}

function stored() {
  try {
    const { streams, count } = JSON.parse(localStorage.getItem(KEY) ?? "{}");
    return { streams: parse(format(streams)), count: COUNTS.includes(count) ? count : 1 };
  } catch {
    return { streams: [], count: 1 };
  }
}

function decode(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return "";
  }
}
