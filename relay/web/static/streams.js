// @ts-check
// The table of streams: sorted, filtered, and only so many rows at a time, so that thousands of streams stay quick.

import { span, utc } from "./format.js";
import { byId, fill, make, write, within, writeState } from "./page.js";

const PAGE = 200;
const count = new Intl.NumberFormat("en");

// The worst first, when sorted by state.
const STATES = [
  "error",
  "stale",
  "reconnecting",
  "connecting",
  "backfilling",
  "throttled",
  "market_closed",
  "connected",
];
const WORDS = { connected: "live", market_closed: "market closed" };

const whole = (name) => (stream) => stream[name];
const COLUMNS = [
  { name: "symbol", title: "Stream", value: (stream) => `${stream.symbol} ${stream.interval}` },
  { name: "provider", title: "Provider", value: whole("provider"), text: (stream) => stream.provider },
  { name: "status", title: "State", value: (stream) => STATES.indexOf(stream.status) },
  {
    name: "subscribers",
    title: "Subscribers",
    value: whole("subscribers"),
    text: subscribersText,
    isAmount: true,
  },
  { name: "last_update", title: "Last update", value: age, text: ageText, isAmount: true, hint: "Time since" },
  { name: "lag_ms", title: "Lag", value: whole("lag_ms"), text: lagText, isAmount: true, hint: "Of the last update" },
  { name: "seq", title: "Updates", value: whole("seq"), isAmount: true },
  {
    name: "conflated",
    title: "Conflated",
    value: whole("conflated"),
    isAmount: true,
    hint: "Open candles replaced by newer ones before they were sent",
  },
  { name: "gaps", title: "Gaps", value: whole("gaps"), isAmount: true, hint: "Candles that are not available" },
  { name: "reconnects", title: "Losses", value: whole("reconnects"), isAmount: true, hint: "Lost connections" },
  { name: "backfilled", title: "Backfilled", value: whole("backfilled"), isAmount: true },
  { name: "revised", title: "Revised", value: whole("revised"), isAmount: true },
];

function age(stream) {
  return stream.last_update === null ? null : Math.max(0, stream.now - stream.last_update);
}

function ageText(stream) {
  const seconds = age(stream);
  return seconds === null ? "–" : span(seconds * 1000);
}

// A stream without subscribers says what it is kept for.
function subscribersText({ subscribers, kept_by: keptBy }) {
  return subscribers || !keptBy.length ? count.format(subscribers) : keptBy.join(", ");
}

function lagText(stream) {
  return stream.lag_ms === null ? "–" : span(Math.max(0, stream.lag_ms));
}

const nameOf = (stream) => `${stream.provider}:${stream.symbol}@${stream.interval}`;

/** The table; `show` takes the streams of a status answer. */
export class Streams {
  #table = byId("streams", HTMLTableElement);
  #head = within(this.#table, "thead tr", HTMLTableRowElement);
  #body = this.#table.tBodies[0];
  #filter = byId("filter", HTMLInputElement);
  #states = byId("states", HTMLSelectElement);
  #shown = byId("shown");
  #more = byId("more");
  #streams = [];
  #sort = { column: COLUMNS[0], isDown: false };
  #limit = PAGE;
  #open = new Set();

  constructor() {
    this.#head.append(...COLUMNS.map((column) => this.#title(column)));
    for (const state of STATES) this.#states.append(make("option", { value: state }, WORDS[state] ?? state));
    for (const input of [this.#filter, this.#states]) {
      input.addEventListener("input", () => {
        this.#limit = PAGE;
        this.#draw();
      });
    }
    this.#more.addEventListener("click", () => {
      this.#limit += PAGE;
      this.#draw();
    });
    this.#markSort();
  }

  /** Take the streams of an answer and the relay's time. */
  show(streams, now) {
    this.#streams = streams.map((stream) => ({ ...stream, now }));
    this.#draw();
  }

  #title(column) {
    const button = make("button", { type: "button", className: "sort", title: column.hint }, column.title);
    button.addEventListener("click", () => {
      const isSame = this.#sort.column === column;
      // Of figures the largest are of interest first, of names the first.
      this.#sort = { column, isDown: isSame ? !this.#sort.isDown : Boolean(column.isAmount) };
      this.#markSort();
      this.#draw();
    });
    return make("th", { scope: "col", className: column.isAmount ? "amount" : "" }, button);
  }

  #markSort() {
    const { column, isDown } = this.#sort;
    for (const [place, head] of [...this.#head.cells].entries()) {
      if (COLUMNS[place] === column) head.setAttribute("aria-sort", isDown ? "descending" : "ascending");
      else head.removeAttribute("aria-sort");
    }
  }

  #fits(stream) {
    const state = this.#states.value;
    if (state === "!connected" && stream.status === "connected") return false;
    if (state === "gaps" && !stream.gaps && !stream.open_gaps.length) return false;
    if (STATES.includes(state) && stream.status !== state) return false;
    const name = nameOf(stream).toLowerCase();
    return this.#filter.value
      .toLowerCase()
      .split(/\s+/)
      .every((word) => name.includes(word));
  }

  #draw() {
    const { column, isDown } = this.#sort;
    const found = this.#streams.filter((stream) => this.#fits(stream));
    const names = new Map(found.map((stream) => [stream, nameOf(stream)]));
    const name = (stream) => names.get(stream) ?? "";
    found.sort((one, other) => {
      const [a, b] = [column.value(one), column.value(other)];
      // What has no value comes last either way.
      if ((a === null) !== (b === null)) return a === null ? 1 : -1;
      const order = a < b ? -1 : a > b ? 1 : 0;
      return (isDown ? -order : order) || (name(one) < name(other) ? -1 : 1);
    });
    const rows = [];
    for (const stream of found.slice(0, this.#limit)) {
      const key = names.get(stream);
      rows.push({ key, stream });
      if (this.#open.has(key)) rows.push({ key: `${key} details`, stream, isDetails: true });
    }
    fill(
      this.#body,
      rows,
      ({ key }) => key,
      ({ key, isDetails }) => (isDetails ? this.#makeDetails() : this.#makeRow(key)),
      (element, { stream, isDetails }) => (isDetails ? writeDetails(element, stream) : writeRow(element, stream)),
    );
    const total = this.#streams.length;
    write(
      this.#shown,
      found.length === total ? count.format(total) : `${count.format(found.length)} of ${count.format(total)}`,
    );
    const hidden = found.length - Math.min(found.length, this.#limit);
    this.#more.hidden = !hidden;
    write(this.#more, `Show ${Math.min(hidden, PAGE)} more of ${count.format(hidden)}`);
  }

  #makeRow(key) {
    const button = make("button", { type: "button", className: "opens", "aria-expanded": String(this.#open.has(key)) });
    button.append(make("span"), " ", make("span", { className: "interval" }));
    button.addEventListener("click", () => {
      const isOpen = !this.#open.delete(key);
      if (isOpen) this.#open.add(key);
      button.setAttribute("aria-expanded", String(isOpen));
      this.#draw();
    });
    const row = make("tr", {}, make("th", { scope: "row" }, button));
    for (const column of COLUMNS.slice(1)) {
      row.append(
        make(
          "td",
          { className: column.isAmount ? "amount" : "" },
          ...(column.name === "status" ? [make("span", { className: "state" })] : []),
        ),
      );
    }
    return row;
  }

  #makeDetails() {
    return make("tr", {}, make("td", { className: "wide", colSpan: COLUMNS.length }));
  }
}

function writeRow(row, stream) {
  const [symbol, interval] = row.cells[0].firstElementChild.children;
  write(symbol, stream.symbol);
  write(interval, stream.interval);
  for (const [place, column] of COLUMNS.entries()) {
    const cell = row.cells[place];
    if (column.name === "status")
      writeState(cell.firstElementChild, stream.status, WORDS[stream.status] ?? stream.status);
    else if (place > 0) {
      const value = stream[column.name];
      write(cell, column.text ? column.text(stream) : count.format(value));
      if (column.isAmount) cell.classList.toggle("quiet", !value);
    }
  }
}

function writeDetails(row, stream) {
  const cell = row.cells[0];
  const { message, open_gaps: openGaps, duplicates, late, events: told, next_poll: next, poll_every_s: every } = stream;
  const { kept_by: keptBy } = stream;
  const text = JSON.stringify([message, openGaps, duplicates, late, told, next, every, keptBy]);
  if (cell.dataset.text === text) return;
  cell.dataset.text = text;
  const facts = make("ul", { className: "details" });
  const known = [
    ["Repeated by the provider", count.format(duplicates)],
    ["Too late to be sent", count.format(late)],
    ["Gaps that may still be filled", count.format(openGaps.length)],
  ];
  if (keptBy.length) known.push(["Kept also by", keptBy.join(", ")]);
  if (next) known.push(["Next poll", `${utc(next)} UTC`]);
  if (every) known.push(["Polled every", span(every * 1000)]);
  for (const [name, value] of known) facts.append(make("li", {}, `${name} `, make("b", {}, value)));
  const events = make("ul", { className: "events" });
  for (const { time, event } of [...told].reverse()) {
    events.append(make("li", {}, make("time", { className: "mono" }, utc(time)), event));
  }
  const gaps = openGaps.map(([from, to]) => make("p", {}, `Missing: ${utc(from)} to ${utc(to)} UTC`));
  cell.replaceChildren(make("p", {}, message || "live"), facts, ...gaps, ...(told.length ? [events] : []));
}
