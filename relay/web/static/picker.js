// @ts-check
// The dialog that searches a symbol: a combobox with a list, for the keyboard first.

import { byId, within } from "./page.js";
import { parse, prepare, search } from "./search.js";

const SHOWN = 60;
const RECENT_KEY = "relay-recent";
const MOST_RECENT = 8;

/** `pick` is called with a symbol and, where one was typed or stays valid, an interval or null. */
export class Picker {
  #dialog = byId("picker", HTMLDialogElement);
  #input = within(this.#dialog, "input", HTMLInputElement);
  #list = within(this.#dialog, "[role=listbox]");
  #classes = within(this.#dialog, ".classes");
  #count = within(this.#dialog, ".count");
  #all = [];
  #found = [];
  #active = 0;
  #assetClass = "";
  /** @type {string | null} */
  #interval = null;
  #pick;

  constructor(pick) {
    this.#pick = pick;
    this.#input.addEventListener("input", () => this.#update());
    this.#input.addEventListener("keydown", (event) => this.#onKey(event));
    this.#list.addEventListener("click", ({ target }) => {
      /** @type {HTMLElement | null} */
      const option = /** @type {Element} */ (target).closest("[role=option]");
      if (option) this.#choose(Number(option.dataset.index));
    });
    this.#dialog.addEventListener("click", ({ target }) => {
      if (target === this.#dialog) this.#close();
    });
  }

  get isOpen() {
    return this.#dialog.open;
  }

  /** Search among these from now on. */
  setInstruments(instruments) {
    this.#all = prepare(instruments);
    const classes = ["", ...new Set(instruments.map(({ assetClass }) => assetClass))];
    this.#classes.replaceChildren(...(classes.length > 2 ? classes.map((name) => this.#classButton(name)) : []));
    if (this.isOpen) this.#update();
  }

  /** Open with a text typed already. */
  open(text = "") {
    this.#input.value = text;
    this.#update();
    if (!this.#dialog.open) this.#dialog.showModal();
    this.#input.focus();
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
    this.#found = search(among, words, recent());
    this.#list.replaceChildren(...this.#found.slice(0, SHOWN).map((instrument, index) => option(instrument, index)));
    this.#list.scrollTop = 0;
    const more = this.#found.length - SHOWN;
    this.#count.textContent = !this.#all.length
      ? "Loading the instruments"
      : !this.#found.length
        ? "Nothing found"
        : more > 0
          ? `${SHOWN} of ${this.#found.length.toLocaleString("en")}; type more to narrow it`
          : `${this.#found.length} found`;
    this.#activate(0);
  }

  #activate(index) {
    this.#list.children[this.#active]?.setAttribute("aria-selected", "false");
    this.#active = Math.max(0, Math.min(index, this.#list.children.length - 1));
    const option = this.#list.children[this.#active];
    option?.setAttribute("aria-selected", "true");
    option?.scrollIntoView({ block: "nearest" });
    if (option) this.#input.setAttribute("aria-activedescendant", option.id);
    else this.#input.removeAttribute("aria-activedescendant");
  }

  #onKey(event) {
    const steps = { ArrowDown: 1, ArrowUp: -1, PageDown: 8, PageUp: -8 };
    if (event.isComposing) return;
    if (event.key in steps) this.#activate(this.#active + steps[event.key]);
    else if (event.key === "Enter") this.#choose(this.#active);
    else return;
    event.preventDefault();
  }

  /** Close at once for the keyboard too: a closed dialog keeps the focus up to the next frame. */
  #close() {
    this.#dialog.close();
    this.#input.blur();
  }

  #choose(index) {
    const instrument = this.#found[index];
    const { words, interval } = parse(this.#input.value);
    if (instrument === undefined && (this.#all.length || !words.length)) return;
    this.#close();
    // Who types ahead of the list is believed; the relay says if there is no such symbol.
    if (instrument === undefined) return this.#pick(words[0], interval);
    remember(instrument.symbol);
    this.#pick(instrument.symbol, instrument.intervals.includes(this.#interval) ? this.#interval : null);
  }
}

function option({ symbol, base, quote, provider, assetClass }, index) {
  const element = document.createElement("div");
  element.id = `option-${index}`;
  element.dataset.index = index;
  element.setAttribute("role", "option");
  element.setAttribute("aria-selected", "false");
  const names = { symbol, pair: base && quote ? `${base} / ${quote}` : "", provider: `${provider} · ${assetClass}` };
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
