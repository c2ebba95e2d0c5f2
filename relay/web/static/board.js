// @ts-check
// The watch list: beside the charts where there is room, else a drawer over them. Follows its symbols while it is seen.

import { MOST_SYMBOLS, added, moved, read, removed } from "./board_symbols.js";
import { dayOf } from "./day.js";
import { percent, price, split } from "./format.js";
import { byId, fill, hide, make, within, write } from "./page.js";
import { STATES, side } from "./panel.js";

const KEY = "relay-watch-list";
const BESIDE = "(min-width: 1000px)";
const THROTTLE_MS = 1000;
// Of a symbol that no provider lists the relay says so, whatever the interval.
const ANY = { interval: "15m", count: 1 };
const DRAGGED_PX = 4;
const EDGE_PX = 24;
const STEPS = { ArrowUp: -1, ArrowDown: 1, Home: -Infinity, End: Infinity };

/** `onPick` is called with the symbol to be shown, `onSearch` with what is to be called with a symbol that is found. */
export class Board {
  #aside = byId("board-side");
  #drawer = byId("board-drawer", HTMLDialogElement);
  #board = byId("board");
  #button = byId("board-button");
  #list = within(this.#board, "ul");
  #adder = within(this.#board, "[data-do=add]");
  #said = within(this.#board, "[role=status]");
  #isBeside = matchMedia(BESIDE);
  #feed;
  #onPick;
  #instruments = new Map();
  /** @type {string[]} */
  #shown = [];
  #active = "";
  /** @type {string[] | null} Null until it is opened for the first time: it begins with what is on screen. */
  #chosen;
  #isKeptOpen;
  #followed = new Map(); // by symbol: its stream, and who listens to that
  #current = ""; // whose row the tab key comes to
  #wasDragged = false;

  constructor(feed, { onPick, onSearch }) {
    this.#feed = feed;
    this.#onPick = onPick;
    const kept = stored();
    this.#chosen = kept.symbols;
    this.#isKeptOpen = kept.isOpen;
    this.#button.addEventListener("click", () => this.toggle());
    within(this.#board, "[data-do=close]").addEventListener("click", () => this.toggle());
    within(this.#board, "[data-do=search]").addEventListener("click", () => onSearch((symbol) => this.#add(symbol)));
    this.#adder.addEventListener("click", () => {
      this.#add(this.#active);
      this.#focus(this.#active);
    });
    this.#list.addEventListener("click", ({ target }) => this.#onClick(target));
    this.#list.addEventListener("keydown", (event) => this.#onKey(event));
    this.#list.addEventListener("focusin", ({ target }) => this.#turnTo(symbolOf(target)));
    this.#list.addEventListener("pointerdown", (event) => this.#onPointer(event));
    this.#drawer.addEventListener("close", () => this.#onToggled());
    // Over the page its keys rest, also the one that closes it.
    this.#drawer.addEventListener("keydown", (event) => {
      if (event.key !== "w" || event.ctrlKey || event.metaKey || event.altKey) return;
      event.preventDefault();
      this.#drawer.close();
    });
    this.#isBeside.addEventListener("change", () => this.#place());
    document.addEventListener("visibilitychange", () => this.#follow());
    addEventListener("storage", ({ key }) => {
      if (key !== KEY) return;
      this.#chosen = stored().symbols;
      this.#onChanged();
    });
    this.#place();
  }

  get isOpen() {
    return this.#isBeside.matches ? !this.#aside.hidden : this.#drawer.open;
  }

  get symbols() {
    return this.#chosen ?? [];
  }

  /** Take what can be followed, by symbol. */
  setInstruments(instruments) {
    this.#instruments = instruments;
    this.#onChanged();
  }

  /** Mark the symbols in the charts; `active` is the place of the one that changes with a click. */
  setShown(symbols, active) {
    this.#shown = symbols;
    this.#active = symbols[active] ?? "";
    this.#onChanged();
  }

  /** Open it, or close it; `takesFocus` where the reader goes on in it with the keyboard. */
  toggle(takesFocus = false) {
    if (!this.#isBeside.matches) {
      if (this.#drawer.open) return this.#drawer.close();
      this.#drawer.showModal();
    } else {
      if (this.isOpen && this.#board.contains(document.activeElement)) this.#button.focus();
      this.#isKeptOpen = !this.isOpen;
      hide(this.#aside, !this.#isKeptOpen);
      this.#keep();
    }
    this.#onToggled();
    if (this.isOpen && (takesFocus || this.#drawer.open)) this.#focus(this.#active);
  }

  /** Add the symbol of the chart, and show where. */
  addShown() {
    if (!this.#active) return;
    if (!this.isOpen) this.toggle();
    this.#add(this.#active);
  }

  /** Write what changes with time: prices, changes, states. */
  tick() {
    if (this.isOpen && !document.hidden) for (const row of this.#rows) this.#write(row);
  }

  // -- open and closed -----------------------------------------------------------------------------------------------

  /** Stand beside the charts, or wait to be drawn over them. */
  #place() {
    const isBeside = this.#isBeside.matches;
    this.#drawer.close();
    (isBeside ? this.#aside : this.#drawer).append(this.#board);
    hide(this.#aside, !(isBeside && this.#isKeptOpen));
    this.#onToggled();
  }

  #onToggled() {
    this.#button.setAttribute("aria-expanded", String(this.isOpen));
    this.#say("");
    this.#onChanged();
  }

  #keep() {
    try {
      localStorage.setItem(KEY, JSON.stringify({ symbols: this.#chosen, isOpen: this.#isKeptOpen }));
    } catch {
      // Then it lasts until the page is loaded again.
    }
  }

  // -- the symbols ---------------------------------------------------------------------------------------------------

  #add(symbol) {
    const before = this.symbols;
    const symbols = added(before, symbol);
    if (symbols === null) return this.#say(`No room for ${symbol}: remove another symbol first.`, true);
    this.#change(symbols, symbols === before ? `${symbol} is in the list already.` : `${symbol} is added.`);
    this.#rowOf(symbol)?.scrollIntoView({ block: "nearest" });
  }

  #remove(symbol) {
    const place = this.symbols.indexOf(symbol);
    this.#change(removed(this.symbols, symbol), `${symbol} is removed.`);
    this.#focus(this.symbols[Math.min(place, this.symbols.length - 1)]);
  }

  #move(symbol, place) {
    const symbols = moved(this.symbols, symbol, place);
    this.#change(symbols, `${symbol} is number ${symbols.indexOf(symbol) + 1} of ${symbols.length}.`);
    this.#rowOf(symbol)?.scrollIntoView({ block: "nearest" });
  }

  #change(symbols, words) {
    this.#chosen = symbols;
    this.#keep();
    this.#onChanged();
    this.#say(words);
  }

  #say(words, isWrong = false) {
    write(this.#said, words);
    this.#said.classList.toggle("wrong", isWrong);
  }

  #onChanged() {
    if (this.isOpen && this.#chosen === null && this.#shown.length) {
      this.#chosen = [...new Set(this.#shown)];
      this.#keep();
    }
    this.#follow();
    if (this.isOpen) this.#draw();
  }

  /** Follow what is seen and nothing else: one stream a symbol, which brings its last day too. */
  #follow() {
    const wanted = this.isOpen && !document.hidden && this.#instruments.size ? this.symbols : [];
    for (const [symbol, { live, listener }] of this.#followed) {
      if (wanted.includes(symbol)) continue;
      this.#feed.leave(live, listener);
      this.#followed.delete(symbol);
    }
    for (const symbol of wanted) {
      if (this.#followed.has(symbol)) continue;
      const instrument = this.#instruments.get(symbol);
      const { interval, count } = dayOf(instrument) ?? { ...ANY, interval: instrument?.intervals[0] ?? ANY.interval };
      // Prices are read off the stream when they are written.
      const listener = ({ kind, live }) => kind === "renamed" && Object.assign(followed, { live });
      const wants = { bars: count, throttleMs: THROTTLE_MS };
      const followed = { live: this.#feed.follow(`${symbol}@${interval}`, listener, wants), listener };
      this.#followed.set(symbol, followed);
    }
  }

  // -- rows ----------------------------------------------------------------------------------------------------------

  /** @returns {HTMLElement[]} */
  get #rows() {
    return /** @type {HTMLElement[]} */ ([...this.#list.children]);
  }

  #rowOf(symbol) {
    return this.#rows.find((row) => row.dataset.key === symbol);
  }

  #draw() {
    const { symbols } = this;
    fill(
      this.#list,
      symbols,
      (symbol) => symbol,
      (symbol) => rowOf(symbol),
      (row, symbol) => {
        const isActive = symbol === this.#active;
        row.dataset.shown = isActive ? "active" : this.#shown.includes(symbol) ? "other" : "";
        if (isActive) row.querySelector(".board-row").setAttribute("aria-current", "true");
        else row.querySelector(".board-row").removeAttribute("aria-current");
        this.#write(row);
      },
    );
    this.#turnTo([this.#current, this.#active, symbols[0]].find((symbol) => symbols.includes(symbol)));
    hide(within(this.#board, "[data-part=empty]"), symbols.length > 0);
    hide(this.#adder, !this.#active || symbols.includes(this.#active));
    write(this.#adder, `Add ${this.#active}`);
    write(within(this.#board, "[data-part=count]"), `${symbols.length} of ${MOST_SYMBOLS}`);
  }

  #write(row) {
    const symbol = row.dataset.key;
    const live = this.#followed.get(symbol)?.live;
    const instrument = this.#instruments.get(symbol);
    const isOffline = this.#feed.connection.state !== "connected";
    const status = live?.status ?? "connecting";
    const state = isOffline && status !== "error" ? "disconnected" : status;
    const word = isOffline ? "Offline" : (STATES[status] ?? status);
    const button = row.querySelector(".board-row");
    const [, last, change, says] = button.children;
    // Where a chart shows the symbol, both say the same.
    const newest = live && this.#feed.newestOf(split(live.name).symbol);
    if (newest) {
      const { close } = newest.candles.last;
      write(last, price(close, newest.decimals));
      const before = this.#feed.dayAgo(instrument);
      if (before) {
        write(change, percent(close / before - 1));
        change.dataset.side = side(close - before);
      }
    }
    if (row.dataset.state !== state) row.dataset.state = state;
    write(says, state === "connected" ? " in 24 hours" : ` in 24 hours, ${word}`);
    const pair = instrument?.base && instrument.quote ? `${instrument.base} / ${instrument.quote}` : symbol;
    const why = state === "connected" ? "" : [word, isOffline ? "" : live?.text].filter(Boolean).join(": ");
    const title = [pair, instrument?.provider, why].filter(Boolean).join(" · ");
    if (button.title !== title) button.title = title;
  }

  /** Have the tab key come to one row. */
  #turnTo(symbol) {
    if (symbol === undefined) return;
    this.#current = symbol;
    for (const row of this.#rows) {
      within(row, ".board-row").tabIndex = row.dataset.key === symbol ? 0 : -1;
    }
  }

  /** Go to the row of a symbol; where there is none, to the one that was gone to last, or to what adds the first one. */
  #focus(symbol) {
    const row = this.#rowOf(symbol) ?? this.#rowOf(this.#current);
    within(row ?? this.#board, row ? ".board-row" : "[data-do=search]").focus();
  }

  // -- what the reader does ------------------------------------------------------------------------------------------

  #onClick(target) {
    const symbol = symbolOf(target);
    const isDrag = this.#wasDragged;
    this.#wasDragged = false;
    if (symbol === undefined || isDrag) return;
    const place = this.symbols.indexOf(symbol);
    if (target.closest(".remove")) this.#remove(symbol);
    else if (target.closest(".grip")) this.#move(symbol, place ? place - 1 : this.symbols.length);
    else {
      this.#drawer.close();
      this.#onPick(symbol);
    }
  }

  #onKey(event) {
    const symbol = symbolOf(event.target);
    const place = this.symbols.indexOf(symbol);
    if (event.ctrlKey || event.metaKey || place < 0) return;
    if (event.key in STEPS) {
      const to = Math.max(0, Math.min(place + STEPS[event.key], this.symbols.length - 1));
      if (event.altKey) this.#move(symbol, to);
      this.#focus(event.altKey ? symbol : this.symbols[to]);
    } else if (event.key === "Delete" || event.key === "Backspace") this.#remove(symbol);
    else return;
    event.preventDefault();
  }

  /** Drag a row by its grip; a line shows where it comes to stand. */
  #onPointer({ target, button, pointerId, clientY: startY }) {
    const grip = target.closest(".grip");
    if (grip === null || button !== 0) return;
    const symbol = symbolOf(grip);
    const others = this.#rows.filter((row) => row.dataset.key !== symbol);
    let place = 0;
    this.#wasDragged = false;
    grip.setPointerCapture(pointerId);
    const over = new AbortController();
    const mark = (isMarked) => {
      const [row, edge] = place < others.length ? [others[place], "before"] : [others[place - 1], "after"];
      if (row) row.dataset.drop = isMarked ? edge : "";
    };
    const move = ({ clientY }) => {
      if (!this.#wasDragged && Math.abs(clientY - startY) < DRAGGED_PX) return;
      this.#wasDragged = true;
      const { top, bottom } = this.#list.getBoundingClientRect();
      if (clientY < top + EDGE_PX) this.#list.scrollTop -= EDGE_PX / 2;
      if (clientY > bottom - EDGE_PX) this.#list.scrollTop += EDGE_PX / 2;
      mark(false);
      place = others.filter((row) => middleOf(row) < clientY).length;
      mark(true);
    };
    const end = ({ type }) => {
      over.abort();
      mark(false);
      if (this.#wasDragged && type === "pointerup") this.#move(symbol, place);
    };
    grip.addEventListener("pointermove", move, { signal: over.signal });
    grip.addEventListener("pointerup", end, { signal: over.signal });
    grip.addEventListener("pointercancel", end, { signal: over.signal });
  }
}

function rowOf(symbol) {
  return make(
    "li",
    {},
    make("button", {
      type: "button",
      className: "grip",
      tabIndex: -1,
      "aria-label": `Move ${symbol} up`,
      title: "Drag it to another place; a click moves it up",
    }),
    make(
      "button",
      { type: "button", className: "board-row", "aria-keyshortcuts": "Alt+ArrowUp Alt+ArrowDown Delete" },
      make("span", { className: "name" }, symbol),
      make("span", { className: "number" }, "–"),
      make("span", { className: "number" }, "–"),
      make("span", { className: "visually-hidden" }),
    ),
    make(
      "button",
      { type: "button", className: "remove", tabIndex: -1, "aria-label": `Remove ${symbol}`, title: "Remove ( Del )" },
      "×",
    ),
  );
}

/** The symbol whose row an element is in. */
function symbolOf(element) {
  return element.closest("li")?.dataset.key;
}

function middleOf(row) {
  const { top, height } = row.getBoundingClientRect();
  return top + height / 2;
}

function stored() {
  try {
    return read(localStorage.getItem(KEY));
  } catch {
    return read(null); // a browser that keeps nothing
  }
}
