// @ts-check
// The chart page: puts feed, grid, search and keys together.

import { ClientError } from "../client.js";
import { Board } from "./board.js";
import { Feed } from "./feed.js";
import { intervalsOf, moment, price, span, split, zone } from "./format.js";
import { listen } from "./keys.js";
import { COUNTS, Layout, format } from "./layout.js";
import { readLink, wrongOf } from "./link.js";
import { byId, hide, within, write, writeState } from "./page.js";
import { Panel } from "./panel.js";
import { Picker } from "./picker.js";
import { TroubleBar } from "./trouble.js";
import { ViewDialog } from "./view.js";

const FIRST = ["BTCUSDT", "ETHUSDT", "EUR/USD", "SOLUSDT", "BNBUSDT", "XRPUSDT", "GBP/USD", "DOGEUSDT"];
const RETRY_MS = 5000;
// What a page loads of the list; of a longer one the relay is asked.
const MOST_LISTED = 5000;
const MOST_FOUND = 60;
const TICK_MS = 500;
const CONNECTION = { connecting: "Connecting", connected: "Connected", disconnected: "Offline", ended: "Refused" };

const grid = byId("grid");
const link = readLink(location.search);
// In a frame of another page there is one chart, and nothing with which to choose others.
const { isEmbedded } = link;
const feed = new Feed(isEmbedded ? { listing: "the search of the whole page lists all" } : {});
const trouble = new TroubleBar(feed);
const layout = new Layout(isEmbedded);
const picker = new Picker((symbol, interval) => choose(symbol, interval));
const panels = [];
const board = isEmbedded
  ? null
  : new Board(feed, {
      onPick: choose,
      onSearch: (add) => picker.open(shownSymbols()[active], { pick: add, label: "Add a symbol to the watch list" }),
    });
const viewer = new ViewDialog({
  onChange: (view) => panels.forEach((panel) => panel.setView(view)),
  onGo: (time) => panels[active]?.goTo(time) ?? "There is no chart yet.",
});
let active = 0;
let instruments = new Map();

// -- panels ----------------------------------------------------------------------------------------------------------

function render() {
  while (panels.length > layout.count) panels.pop().close();
  grid.dataset.count = String(layout.count);
  layout.streams.slice(0, layout.count).forEach((stream, index) => {
    if (panels[index] === undefined) {
      panels[index] = new Panel(feed, byId("panel"), { onChosen, onSearch: isEmbedded ? null : onSearch, onRenamed });
      grid.append(panels[index].element);
      panels[index].setView(viewer.view);
    }
    panels[index].show(stream);
    // What is shown has one spelling, whatever the address has: btcusdt@1H is BTCUSDT@1h.
    if (panels[index].stream !== stream) layout.set(index, panels[index].stream);
  });
  narrowScales();
  activate(Math.min(active, panels.length - 1));
}

function activate(index) {
  active = Math.max(0, index);
  panels.forEach((panel, at) => {
    panel.setActive(at === active && panels.length > 1);
    panel.setInstrument(panel.stream && instruments.get(split(panel.stream).symbol));
  });
  renderIntervals();
  renderSource();
  board?.setShown(shownSymbols(), active);
  for (const button of buttonsIn(byId("layouts"))) {
    button.setAttribute("aria-pressed", String(Number(button.dataset.count) === layout.count));
  }
}

function onChosen(panel) {
  if (panels.indexOf(panel) !== active) activate(panels.indexOf(panel));
}

function onSearch(panel, text) {
  onChosen(panel);
  openPicker(text);
}

function openPicker(text = "") {
  picker.open(shownSymbols()[active], { text });
}

/** The symbols in the charts, one for each. */
function shownSymbols() {
  return layout.streams.slice(0, layout.count).map((stream) => split(stream).symbol);
}

function onRenamed(panel) {
  const index = panels.indexOf(panel);
  if (index >= 0 && layout.streams[index] !== panel.stream) layout.set(index, panel.stream);
  if (index >= 0) activate(active);
}

// -- choosing --------------------------------------------------------------------------------------------------------

function showIn(index, stream) {
  layout.set(index, stream);
  panels[index]?.show(stream);
  narrowScales();
  activate(index);
}

function choose(symbol, interval = null) {
  const before = layout.streams[active] && split(layout.streams[active]).interval;
  const known = intervalsOf(instruments.get(symbol));
  const kept = known.includes(before) ? before : known.includes("1m") ? "1m" : known[0];
  showIn(active, `${symbol}@${interval ?? kept ?? before ?? "1m"}`);
}

function chooseInterval(interval) {
  showIn(active, `${split(layout.streams[active]).symbol}@${interval}`);
}

function stepInterval(step) {
  const { symbol, interval } = split(layout.streams[active]);
  const known = intervalsOf(instruments.get(symbol));
  const next = known[known.indexOf(interval) + step];
  if (next !== undefined) chooseInterval(next);
}

function resize(count) {
  layout.resize(count, active, candidates());
  active = Math.min(active, count - 1);
  render();
}

/** What a cell without a stream may show: well-known names first. */
function candidates() {
  const listed = [...FIRST.filter((symbol) => instruments.has(symbol)), ...instruments.keys()].slice(
    0,
    2 * Math.max(...COUNTS),
  );
  return [...new Set(listed)].map((symbol) => {
    const intervals = intervalsOf(instruments.get(symbol));
    return `${symbol}@${intervals.includes("1m") ? "1m" : intervals[0]}`;
  });
}

// -- the bars on top and below ---------------------------------------------------------------------------------------

function renderIntervals() {
  const { symbol, interval } = layout.streams[active] ? split(layout.streams[active]) : {};
  const known = instruments.has(symbol) ? intervalsOf(instruments.get(symbol)) : interval ? [interval] : [];
  const bar = byId("intervals");
  if ([...bar.children].map((button) => button.textContent).join() !== known.join()) {
    bar.replaceChildren(...known.map(intervalButton));
  }
  const built = instruments.get(symbol)?.derivedIntervals ?? [];
  for (const button of buttonsIn(bar)) {
    const isShown = button.textContent === interval;
    button.setAttribute("aria-pressed", String(isShown));
    button.title = built.includes(button.textContent) ? "Built by the relay from shorter candles" : "";
  }
  showInterval();
  byId("search-text").textContent = symbol ?? "Search";
}

/** Scroll the interval that is shown to the middle of its bar. */
function showInterval() {
  const bar = byId("intervals");
  const button = /** @type {HTMLElement | null} */ (bar.querySelector("[aria-pressed=true]"));
  if (button) bar.scrollTo({ left: button.offsetLeft - (bar.clientWidth - button.offsetWidth) / 2 });
}

function intervalButton(interval) {
  const button = document.createElement("button");
  Object.assign(button, { type: "button", className: "button", textContent: interval });
  button.addEventListener("click", () => chooseInterval(interval));
  return button;
}

function renderSource() {
  const shown = panels.map((panel) => panel.stream && instruments.get(split(panel.stream).symbol)?.attribution);
  byId("source").textContent = [...new Set(shown.filter(Boolean))].join(" · ");
}

/** Give the charts of a grid price scales of one width, so that their times stand below each other. */
function alignScales() {
  const widest = Math.max(0, ...panels.map(({ chart }) => chart.scaleWidth));
  for (const { chart } of panels) if (chart.scaleWidth < widest) chart.scaleWidth = widest;
}

/** Let the price scales be as narrow as their prices again. */
function narrowScales() {
  for (const { chart } of panels) chart.scaleWidth = 0;
}

function tick() {
  for (const panel of panels) panel.tick();
  board?.tick();
  alignScales();
  const { state, text } = feed.connection;
  writeState(byId("connection"), state === "ended" ? "error" : state, CONNECTION[state]);
  byId("connection").title = text;
  trouble.tick();
  grid.toggleAttribute("data-offline", trouble.isOffline);
  const { isLocal } = viewer.view;
  write(byId("clock"), `${moment(Date.now() / 1000, true, isLocal).slice(11)} ${zone(isLocal)}`);
  const { live } = panels[active] ?? {};
  const last = live?.candles.last;
  const figure = trouble.isOffline ? "Offline" : last ? price(last.close, live.decimals) : "";
  const title = [figure, live && split(live.name).symbol].filter(Boolean).join(" ");
  document.title = title ? `${title} · market-relay` : "market-relay";
}

/** Say what is wrong in the address. */
function renderWrong(read) {
  const said = wrongOf(read);
  hide(byId("unread"), !said);
  if (said) write(within(byId("unread"), "p"), said);
}

function announce() {
  const { state, text } = feed.connection;
  // What is wrong the bar of troubles says.
  write(byId("announcer"), state === "connected" ? "Connected to the relay" : state === "connecting" ? text : "");
  tick();
}

// -- start -----------------------------------------------------------------------------------------------------------

/** Keep what is known of instruments. */
function learn(list) {
  for (const instrument of list) instruments.set(instrument.symbol, instrument);
}

/** Return the best hits of a search by the relay, which knows all instruments. */
async function find(text) {
  const list = await feed.ask((client) => client.instruments(null, { search: text, limit: MOST_FOUND }));
  learn(list);
  return list;
}

/** Learn of the instruments that are shown. */
async function loadShown() {
  await untilItWorks(async () => {
    await Promise.all(shownSymbols().map(find));
    activate(active);
    return instruments.size > 0 || panels.some(({ live }) => live?.failure);
  });
}

async function loadInstruments() {
  await untilItWorks(async () => {
    const list = await feed.ask((client) => client.instruments(null, { limit: MOST_LISTED }));
    instruments = new Map();
    learn(list);
    const isAll = list.length < MOST_LISTED;
    if (!isAll)
      await Promise.all([...FIRST, ...shownSymbols()].map((symbol) => instruments.has(symbol) || find(symbol)));
    picker.setInstruments([...instruments.values()], isAll ? null : find);
    board?.setInstruments(instruments);
    layout.fill(candidates());
    render();
    return list.length > 0;
  });
}

/** Try something that asks the relay until it returns true: right after its start a relay may know no instruments yet. */
async function untilItWorks(ask) {
  for (;;) {
    try {
      if (await ask()) return;
    } catch (fault) {
      if (!(fault instanceof ClientError)) throw fault;
    }
    await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
  }
}

/** @returns {HTMLElement[]} */
function buttonsIn(bar) {
  return [...bar.children];
}

/** Open the help at its beginning. By the attribute `autofocus` a page in a frame would ask for what browsers refuse it. */
function openHelp() {
  byId("help", HTMLDialogElement).showModal();
  byId("help-title").focus();
}

/** What moves the chart, wherever the page is. */
function chartKeys() {
  const chart = () => panels[active]?.chart;
  return {
    ArrowLeft: () => chart()?.scroll(-0.2),
    ArrowRight: () => chart()?.scroll(0.2),
    "+": () => chart()?.zoom(1.25),
    "=": () => chart()?.zoom(1.25),
    "-": () => chart()?.zoom(0.8),
    End: () => chart()?.toEnd(),
  };
}

/** What chooses other charts, and how they are looked at. */
function startChoosing() {
  byId("search").addEventListener("click", () => openPicker());
  byId("layouts").addEventListener("click", ({ target }) => {
    /** @type {HTMLElement | null} */
    const button = /** @type {Element} */ (target).closest("[data-count]");
    if (button) resize(Number(button.dataset.count));
  });
  byId("help-button").addEventListener("click", openHelp);
  byId("view-button").addEventListener("click", () => viewer.open());
  for (const dialog of /** @type {NodeListOf<HTMLDialogElement>} */ (document.querySelectorAll("dialog.closable"))) {
    dialog.addEventListener("click", ({ target }) => {
      if (target === dialog || /** @type {Element} */ (target).closest("[data-close]")) dialog.close();
    });
  }
  addEventListener("hashchange", () => {
    if (!layout.isLeft) return;
    layout.load();
    renderWrong({ faults: [], unread: layout.unread });
    layout.fill(candidates());
    render();
  });
  const turn = (step) => panels.length && activate((active + step + panels.length) % panels.length);
  listen({
    ...chartKeys(),
    "/": openPicker,
    "Ctrl+k": openPicker,
    "[": () => stepInterval(-1),
    "]": () => stepInterval(1),
    ",": () => turn(-1),
    ".": () => turn(1),
    w: () => board?.toggle(true),
    a: () => board?.addShown(),
    v: () => viewer.open(),
    f: () => viewer.toggleFull(),
    t: () => within(document, "[data-theme-toggle]").click(),
    "?": openHelp,
    ...Object.fromEntries(COUNTS.map((count) => [String(count), () => resize(count)])),
  });
  new ResizeObserver(showInterval).observe(byId("intervals"));
  loadInstruments();
}

/** In a frame: the one chart that the address names, and the way to the whole page. */
function startFrame() {
  listen(chartKeys());
  const whole = byId("whole", HTMLAnchorElement);
  whole.href = `${location.pathname}#${format(layout.streams)}`;
  hide(whole, false);
  loadShown();
}

function start() {
  within(byId("unread"), "button").addEventListener("click", () => hide(byId("unread"), true));
  layout.load(link);
  renderWrong({ faults: link.faults, unread: layout.unread });
  if (isEmbedded && !layout.streams.length) {
    // Nothing to show, and no connection for it; the bar says why.
    hide(within(byId("unread"), "button"), true);
    return;
  }
  feed.addEventListener("connection", announce);
  setInterval(tick, TICK_MS);
  render();
  if (isEmbedded) startFrame();
  else startChoosing();
  feed.run();
}

/** What the page shows, to look at from a console: `relayCharts.panels[0].candles`. Copies; changing them does nothing. */
globalThis.relayCharts = Object.freeze({
  get connection() {
    return { ...feed.connection };
  },
  get received() {
    return feed.received;
  },
  get streams() {
    return feed.streams;
  },
  get instruments() {
    return instruments.size;
  },
  get panels() {
    return panels.map(({ live, chart }) => ({
      stream: live?.name,
      status: live?.status,
      lagMs: live?.lagMs,
      isLoaded: live?.isLoaded,
      isAtStart: live?.isAtStart,
      isLoading: live?.isLoading,
      candles: live?.candles.entries.map((entry) => ({ ...entry })),
      gaps: live?.candles.gaps.map((gap) => ({ ...gap })),
      visible: chart.visible,
      marks: { ...chart.marks, scaleWidth: chart.scaleWidth },
    }));
  },
});

start();
