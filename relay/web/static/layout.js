// @ts-check
// Which streams the page shows in how many charts: in the address, so that it can be shared, and remembered.

const KEY = "relay-charts";
export const COUNTS = [1, 2, 4, 8];

/** Read a list of streams such as `BTCUSDT@1m,EUR/USD@1h`; what is no stream is left out. */
export function parse(text) {
  return text
    .split(",")
    .map(decode)
    .filter((name) => /^[^@\s]{1,64}@\d{1,2}[a-zA-Z]$/.test(name))
    .slice(0, COUNTS.at(-1));
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

  /** Read the address, else what was remembered. */
  load() {
    const remembered = stored();
    const linked = parse(location.hash.slice(1));
    this.streams = [...linked, ...remembered.streams.slice(linked.length)];
    this.count = linked.length ? countFor(linked.length) : remembered.count;
  }

  /** Whether the address names other charts than are shown, as after the reader changed it. */
  get isLeft() {
    const linked = format(parse(location.hash.slice(1)));
    return linked !== "" && linked !== format(this.streams.slice(0, this.count));
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

  /** Give each cell in sight a stream. */
  fill(candidates) {
    const free = candidates.filter((name) => !this.streams.includes(name));
    while (this.streams.length < this.count && candidates.length) {
      this.streams.push(free.shift() ?? candidates[this.streams.length % candidates.length]);
    }
    this.save();
  }

  /** Write the address (without an entry in the browser's history) and remember. */
  save() {
    history.replaceState(null, "", `#${format(this.streams.slice(0, this.count))}`);
    try {
      localStorage.setItem(KEY, JSON.stringify({ streams: this.streams, count: this.count }));
    } catch {
      // Then the address alone holds it.
    }
  }
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
