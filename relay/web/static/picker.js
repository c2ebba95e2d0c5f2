// @ts-check
// The dialog that searches a symbol: a combobox with a list, for the keyboard first.

import { ClientError } from "../client.js";
import { intervalsOf } from "./format.js";
import { byId, within } from "./page.js";
import { parse, prepare, search } from "./search.js";

const SHOWN = 60;
// Who types on is not asked for.
const PAUSE_MS = 150;
const RECENT_KEY = "relay-recent";
const MOST_RECENT = 8;

const LABEL = "Search a symbol";

/** `pick` is called with a symbol and an interval of it, or null where none was typed. */
export class Picker {
  #dialog = byId("picker", HTMLDialogElement);
  #input = within(this.#dialog, "input", HTMLInputElement);
  #list = within(this.#dialog, "[role=listbox]");
  #classes = within(this.#dialog, ".classes");
  #count = within(this.#dialog, ".count");
  #all = [];
  /** @type {((text: string) => Promise<any[]>) | null} Asks the relay, where the page has not all instruments. */
  #ask = null;
  #asked = new Set();
  #waits = false;
  #found = [];
  #active = 0;
  #assetClass = "";
  /** @type {string | null} */
  #interval = null;
  #shown = "";
  #pick;
  #picked;

  constructor(pick) {
    this.#pick = this.#picked = pick;
    this.#input.addEventListener("input", () => this.#update());
    this.#input.addEventListener("keydown", (event) => this.#onKey(event));
    this.#list.addEventListener("click", ({ target }) => {
      /** @type {HTMLElement | null} */
      const option = /** @type {Element} */ (target).closest("[role=option]");
      if (option) this.#choose(Number(option.dataset.index));
    });
    this.#dialog.addEventListener("click", ({ target }) => {
      if (target === this.#dialog) this.#dialog.close();
    });
  }

  get isOpen() {
    return this.#dialog.open;
  }

  /**
   * Search among these from now on; where there are more, `ask` returns those that the relay finds for a text.
   *
   * @param {any[]} instruments
   * @param {((text: string) => Promise<any[]>) | null} ask
   */
  setInstruments(instruments, ask = null) {
    this.#all = prepare(instruments);
    this.#ask = ask;
    this.#asked.clear();
    const classes = ["", ...new Set(instruments.map(({ assetClass }) => assetClass))];
    this.#classes.replaceChildren(...(classes.length > 2 ? classes.map((name) => this.#classButton(name)) : []));
    if (this.isOpen) this.#update();
  }

  /**
   * Open with a text to begin with; `shown` is the symbol on screen, which comes first among equals; `pick` is called this
   * time, for what `label` says.
   */
  open(shown = "", { text = "", pick = this.#pick, label = LABEL } = {}) {
    this.#shown = shown;
    this.#picked = pick;
    this.#dialog.setAttribute("aria-label", label);
    this.#input.value = text;
    this.#update();
    if (!this.#dialog.open) this.#dialog.showModal();
    this.#input.focus();
    this.#input.select();
  }

  #classButton(name) {
    const button = document.createElement("button");
    Object.assign(button, { type: "button", className: "button", textContent: name || "all" });
    button.setAttribute("aria-pressed", String(name === this.#assetClass));
    button.addEventListener("click", () => {
      this.#assetClass = name;
      for (const one of this.#classes.children) one.setAttribute("aria-pressed", String(one === button));
      this.#update();
      this.#input.focus();
    });
    return button;
  }

  #update() {
    const { words, interval } = parse(this.#input.value);
    const among = this.#all.filter(({ instrument }) => !this.#assetClass || instrument.assetClass === this.#assetClass);
    this.#interval = interval;
    this.#found = search(among, words, { recent: recent(), shown: this.#shown });
    this.#list.replaceChildren(...this.#found.slice(0, SHOWN).map((instrument, index) => option(instrument, index)));
    this.#list.scrollTop = 0;
    this.#activate(0);
    if (this.#ask !== null && words.length) this.#askFor(this.#ask, words.join(" "));
  }

  /** Ask the relay for a text, if it stays the same for a moment, and show what it found among the others. */
  async #askFor(ask, text) {
    if (this.#asked.has(text)) return;
    const typed = this.#input.value;
    await new Promise((resolve) => setTimeout(resolve, PAUSE_MS));
    if (this.#input.value !== typed || this.#asked.has(text)) return;
    this.#asked.add(text);
    let found = [];
    this.#waits = true;
    this.#say();
    try {
      found = await ask(text);
    } catch (fault) {
      if (!(fault instanceof ClientError)) throw fault;
      this.#asked.delete(text);
    } finally {
      this.#waits = false;
    }
    const known = new Set(this.#all.map(({ instrument }) => instrument.symbol));
    const more = found.filter(({ symbol }) => !known.has(symbol));
    this.#all.push(...prepare(more));
    if (more.length && this.isOpen && this.#input.value === typed) this.#update();
    else this.#say();
  }

  #activate(index) {
    this.#list.children[this.#active]?.setAttribute("aria-selected", "false");
    this.#active = Math.max(0, Math.min(index, this.#list.children.length - 1));
    const option = this.#list.children[this.#active];
    option?.setAttribute("aria-selected", "true");
    option?.scrollIntoView({ block: "nearest" });
    if (option) this.#input.setAttribute("aria-activedescendant", option.id);
    else this.#input.removeAttribute("aria-activedescendant");
    this.#say();
  }

  /** Say how many there are, or that the one to be chosen has no such interval. */
  #say() {
    const instrument = this.#found[this.#active];
    const { length } = this.#found;
    const isMissing = instrument !== undefined && !this.#has(instrument);
    this.#count.classList.toggle("wrong", isMissing);
    this.#count.textContent = isMissing
      ? `${instrument.symbol} has no candles of ${this.#interval}; it has ${intervalsOf(instrument).join(", ")}`
      : !this.#all.length
        ? "Loading the instruments"
        : !length && this.#waits
          ? "Searching"
          : !length
            ? "Nothing found. You can add an interval: btc 5m, eur usd 1h"
            : length > SHOWN
              ? `${SHOWN} of ${length.toLocaleString("en")}; type more to see fewer`
              : `${length} found`;
  }

  #has(instrument) {
    return this.#interval === null || intervalsOf(instrument).includes(this.#interval);
  }

  #onKey(event) {
    const steps = { ArrowDown: 1, ArrowUp: -1, PageDown: 8, PageUp: -8 };
    if (event.isComposing || !this.isOpen) return;
    if (event.key in steps) this.#activate(this.#active + steps[event.key]);
    else if (event.key === "Enter") this.#choose(this.#active);
    else return;
    event.preventDefault();
  }

  #choose(index) {
    const instrument = this.#found[index];
    const { name, interval } = parse(this.#input.value);
    if (instrument === undefined && (this.#all.length || !name)) return;
    // What was typed is not dropped: it stands there to be changed, with what there is.
    if (instrument !== undefined && !this.#has(instrument)) return this.#activate(index);
    this.#dialog.close();
    // Who types ahead of the list is believed; the relay says if there is no such symbol.
    if (instrument === undefined) return this.#picked(name, interval);
    remember(instrument.symbol);
    this.#picked(instrument.symbol, this.#interval);
  }
}

function option({ symbol, name, base, quote, provider, assetClass }, index) {
  const element = document.createElement("div");
  element.id = `option-${index}`;
  element.dataset.index = index;
  element.setAttribute("role", "option");
  element.setAttribute("aria-selected", "false");
  const pair = base && quote ? `${base} / ${quote}` : "";
  const names = { symbol, pair: name ?? pair, provider: `${provider} · ${assetClass}` };
  for (const [className, textContent] of Object.entries(names)) {
    element.append(Object.assign(document.createElement("span"), { className, textContent }));
  }
  return element;
}

function recent() {
  try {
    const list = JSON.parse(localStorage.getItem(RECENT_KEY) ?? "[]");
    return Array.isArray(list) ? list : [];
  } catch {
    return [];
  }
}

function remember(symbol) {
  try {
    const list = [symbol, ...recent().filter((one) => one !== symbol)].slice(0, MOST_RECENT);
    localStorage.setItem(RECENT_KEY, JSON.stringify(list));
  } catch {
    // A browser that keeps nothing searches as well without.
  }
}
