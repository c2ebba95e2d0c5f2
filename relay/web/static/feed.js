// @ts-check
// The streams that the page shows: one client, each stream once however many charts show it. Draws nothing.

import { Disconnected, Refused, RelayClient, parseStream } from "../client.js";
import { Candles } from "./candles.js";
import { DAY_S, DayAgo, dayOf, priceAt } from "./day.js";
import { decimalsOf, secondsOf, split } from "./format.js";
import { askToken, currentToken } from "./token.js";

// What a chart wants of a stream.
const CHART = { bars: 500 };
const PAGE = 1000;
const PATIENCE_MS = 5000;
const MOST_BACK = 15_000;
const MONTH_S = 2_592_000;
const TOKEN_REVOKED = 4003;
const ASK_AGAIN_MS = [10_000, 300_000];
// What a page is refused for the operator can mend meanwhile.
const REFUSED_AGAIN_MS = 60_000;
// Refusals that are about what was asked: asked again it would be refused again.
const FOR_GOOD = new Set([
  "invalid_json",
  "invalid_request",
  "unknown_action",
  "unknown_interval",
  "unsupported_interval",
]);
// A reader of the page asks by no routes.
const ROUTE = "GET /api/v1/market-data/symbols lists all";
const NO_ROOM = "too_many_subscriptions";
const PRICES_LOOKED_AT = 100;
// So far clocks of providers may be ahead of the relay's.
const MOST_EARLY_MS = 5000;

/** One stream: its candles, its state, how far behind it is. Listeners get `{ kind, … }`. */
export class Live {
  candles = new Candles();
  status = "connecting";
  text = "";
  failure = null; // why the relay refused the stream
  refusals = 0; // in a row
  lacksRoom = false; // the last refusal was for too many streams
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  askTimer;
  trouble = null; // why older candles could not be had
  lagMs = null;
  heardAt = null;
  decimals = 0; // of the prices, the most that were seen
  isLoaded = false;
  isComplete = true;
  isPending = false; // most of the past is still to come: the provider has not answered yet
  isAtStart = false;
  isLoading = false;
  hearsOfOlder = false; // the relay tells what is revised of candles from before the snapshot, too
  early = []; // such revisions that came while older candles were on their way
  askAgainAt = 0;
  pasts = 0; // how often the past became another one
  isRenewing = false;
  listeners = new Map(); // each with what it wants: `bars`, and `throttleMs` where not every update
  asked = {}; // of the relay: what suffices for all listeners

  constructor(name) {
    this.name = name;
  }

  tell(kind, fields = {}) {
    for (const listener of [...this.listeners.keys()]) listener({ kind, ...fields });
  }

  get wanted() {
    const all = [...this.listeners.values()];
    const bars = Math.max(...all.map((one) => one.bars));
    const throttleMs = Math.min(...all.map((one) => one.throttleMs ?? 0));
    return throttleMs ? { bars, throttleMs } : { bars };
  }

  learnDecimals(candles) {
    const found = Math.max(...candles.flatMap(({ open, close }) => [decimalsOf(open), decimalsOf(close)]));
    if (found > this.decimals) this.decimals = found;
  }
}

/** Dispatches `connection` when the connection to the relay changes; `connection` says how it is. */
export class Feed extends EventTarget {
  connection = { state: "connecting", text: "Connecting", retryAt: null };
  received = 0;
  #client;
  #lives = new Map();
  #aheadMs = 0;
  /** @type {(value?: any) => void} */
  #endWait = () => {};
  #dayAgo = new DayAgo(async (symbol, interval, limit) => {
    const { candles } = await this.ask((client) => client.history(symbol, interval, { limit }));
    return candles;
  });

  #url;
  #askAgainMs;
  #listing;

  /**
   * `url` is the relay's address, of this page by default; `askAgainMs` least and most between asking for a refused stream;
   * `listing` says where a reader finds all symbols.
   *
   * @param {{ url?: string, askAgainMs?: number[], listing?: string }} options
   */
  constructor({ url, askAgainMs = ASK_AGAIN_MS, listing = "the search lists all" } = {}) {
    super();
    this.#listing = listing;
    this.#url = url;
    this.#askAgainMs = askAgainMs;
    this.#client = this.#newClient(currentToken());
    addEventListener("online", () => this.#client.check());
    // After a sleep of the machine the connection may be dead without a word.
    document.addEventListener("visibilitychange", () => document.hidden || this.#client.check());
  }

  get streams() {
    return [...this.#lives.keys()];
  }

  /**
   * Follow a stream; `listener` is called on every change, until `leave`. Without `wanted` it gets what a chart shows.
   *
   * @param {{ bars: number, throttleMs?: number }} wanted
   */
  follow(stream, listener, wanted = CHART) {
    const name = parseStream(stream);
    const live = this.#lives.get(name) ?? new Live(name);
    this.#lives.set(name, live);
    live.listeners.set(listener, wanted);
    this.#adapt(live);
    return live;
  }

  /** Stop following; the last one to leave ends the stream. */
  leave(live, listener) {
    live.listeners.delete(listener);
    if (this.#lives.get(live.name) !== live) return;
    if (live.listeners.size) return this.#adapt(live);
    this.#lives.delete(live.name);
    this.#client.unsubscribe(live.name);
    // What is followed in its place comes first.
    for (const other of this.#lives.values()) if (other.lacksRoom) this.#askAgain(other, 0);
  }

  /** Ask the relay for what suffices for those who follow a stream now. */
  #adapt(live) {
    const { asked, wanted } = live;
    if (asked.bars >= wanted.bars && asked.throttleMs === wanted.throttleMs) return;
    // Of a stream that goes on the relay sends nothing again: for more of its past it is left, and followed anew.
    if (asked.bars < wanted.bars) {
      this.#client.unsubscribe(live.name);
      live.isLoaded = live.isPending = false;
      live.candles.reset([], true);
    }
    this.#subscribe(live);
  }

  #subscribe(live) {
    live.asked = live.wanted;
    this.#client.subscribe(live.name, live.asked);
  }

  /** Call the relay through its client, again after a token was entered. */
  async ask(call) {
    for (;;) {
      const client = this.#client;
      try {
        return await call(client);
      } catch (fault) {
        if (!needsToken(fault)) throw fault;
        await this.#newToken(client, fault);
      }
    }
  }

  /** The relay's time in Unix seconds. */
  get now() {
    return (Date.now() + this.#aheadMs) / 1000;
  }

  /** Return which stream of a symbol has its newest price, among all that are followed; undefined where none has one. */
  newestOf(symbol) {
    let newest;
    for (const live of this.#lives.values()) {
      if (!live.candles.last || !live.name.startsWith(`${symbol}@`)) continue;
      if (newest === undefined || (live.heardAt ?? 0) > (newest.heardAt ?? 0)) newest = live;
    }
    return newest;
  }

  /** Return what an instrument cost a day ago; null where that is not known, or not yet. */
  dayAgo(instrument) {
    const day = dayOf(instrument);
    if (this.connection.state !== "connected" || day === null) return null;
    // A stream that is followed has it already.
    const live = this.#lives.get(`${instrument.symbol}@${day.interval}`);
    const isKnown = live?.isLoaded && live.candles.newestOutdated === undefined;
    const known = isKnown ? priceAt(live.candles.entries, this.now - DAY_S, day.step) : null;
    return known ?? this.#dayAgo.priceOf(instrument, this.now);
  }

  /** Load candles back to a time; return the reason where that is too far, or an empty text. */
  async loadBackTo(live, time) {
    const { interval } = split(live.name);
    const step = secondsOf(interval) ?? MONTH_S;
    const { first } = live.candles;
    if (first === undefined) return "There are no candles yet.";
    if (live.isPending) return "The provider has not answered yet: older candles follow.";
    const count = Math.ceil((first.time - time) / step);
    if (count > MOST_BACK) {
      return `That is ${count.toLocaleString("en")} candles of ${interval} back, but the page loads at most ${MOST_BACK.toLocaleString("en")}: choose a longer interval.`;
    }
    while (live.candles.first.time > time && !live.isAtStart) {
      const before = live.candles.first.time;
      await this.loadOlder(live);
      if (live.trouble !== null) return live.trouble;
      // While another load is under way this one does nothing.
      if (live.candles.first.time === before) await new Promise((resolve) => setTimeout(resolve, 100));
    }
    return "";
  }

  /** Load the candles before the first one of a stream. Does nothing where there are none, or while it loads. */
  async loadOlder(live) {
    const first = live.candles.first;
    if (first === undefined || live.isAtStart || live.isLoading || performance.now() < live.askAgainAt) return;
    // They come by themselves.
    if (live.isPending) return;
    live.isLoading = true;
    live.tell("loading");
    const { symbol, interval } = split(live.name);
    const range = { endTime: first.time - 1, limit: PAGE };
    const { pasts } = live;
    try {
      // A subscription has the candles of its snapshot, one that resumes has all: of those it is told what is revised.
      if (!live.hearsOfOlder) this.#subscribe(live);
      live.hearsOfOlder = true;
      const { candles } = await this.ask((client) => client.history(symbol, interval, range));
      // The candles may have been replaced meanwhile, by a snapshot for another token, or the past is another one.
      if (live.candles.first === first && pasts === live.pasts) live.isAtStart = live.candles.prepend(candles) === 0;
      for (const message of live.early) if (live.candles.at(message.candle.time)) live.candles.put(message);
      live.trouble = null;
    } catch (fault) {
      live.trouble = /** @type {Error} */ (fault).message;
      const waitMs = fault instanceof Refused ? fault.retryAfterMs : null;
      live.askAgainAt = performance.now() + (waitMs ?? PATIENCE_MS);
    } finally {
      Object.assign(live, { isLoading: false, early: [] });
    }
    live.tell("older");
  }

  /** Take messages for as long as the page lives. */
  async run() {
    for (;;) {
      const client = this.#client;
      try {
        for await (const message of client) this.#take(message);
      } catch (fault) {
        if (needsToken(fault)) await this.#newToken(client, fault);
        else if (fault instanceof Disconnected || fault instanceof Refused) {
          // Nothing is followed any more, but history can still be had.
          if (client.isClosed) this.#client = this.#newClient(currentToken());
          await this.#wait(fault.message, fault instanceof Refused ? REFUSED_AGAIN_MS : null);
          for (const live of this.#lives.values()) this.#subscribe(live);
        } else throw fault;
      }
    }
  }

  /** Say why nothing is followed; return after so long, or when the reader wants to try again. */
  async #wait(text, waitMs) {
    this.#setConnection("ended", text, waitMs === null ? null : performance.now() + waitMs);
    let timer;
    await new Promise((resolve) => {
      this.#endWait = resolve;
      if (waitMs !== null) timer = setTimeout(resolve, waitMs);
    });
    clearTimeout(timer);
    this.#setConnection("connecting", "Connecting");
  }

  /** Try now to get a connection, or to find out whether it is alive. */
  retry() {
    this.#endWait();
    setTimeout(() => this.#client.check());
  }

  #newClient(token) {
    return new RelayClient(this.#url, { token, waitsForRelay: true });
  }

  async #newToken(client, fault) {
    // Whoever comes first changes the client; the others find it changed. A refusal may come after the next token, too.
    if (client !== this.#client) return;
    this.#setConnection("disconnected", "Waiting for a token");
    const token = await askToken(fault.message);
    if (client !== this.#client) return;
    this.#client = this.#newClient(token);
    client.close();
    for (const live of this.#lives.values()) this.#subscribe(live);
  }

  #setConnection(state, text, retryAt = null) {
    this.connection = { state, text, retryAt };
    this.dispatchEvent(new Event("connection"));
  }

  // -- messages ------------------------------------------------------------------------------------------------------

  #take(message) {
    if (message.type === "connected") {
      this.#compareClocks(message.serverTime);
      this.#setConnection("connected", "Connected");
      return;
    }
    if (message.type === "lost") {
      this.#setConnection("disconnected", message.reason, performance.now() + message.retryInMs);
      return;
    }
    const live = this.#lives.get(message.asked ?? message.stream) ?? this.#lives.get(message.stream);
    if (live === undefined) return;
    if (message.type === "confirmed") this.#onConfirmed(live, message);
    else if (message.type === "state") this.#onState(live, message.status, message.text);
    else if (message.type === "snapshot") this.#onSnapshot(live, message);
    else if (message.type === "update") this.#onUpdate(live, message);
    else if (message.type === "gap") this.#onGap(live, message);
    else if (message.type === "outdated") this.#onOutdated(live, message);
    else if (message.type === "failure") {
      this.#onFailure(live, { ...message, text: message.text.replace(ROUTE, this.#listing) });
    }
  }

  #onConfirmed(live, { action, stream }) {
    if (action !== "subscribe") return;
    const known = this.#lives.get(stream);
    if (known === undefined) {
      this.#lives.delete(live.name);
      live.name = stream;
      this.#lives.set(stream, live);
      live.tell("renamed", { live });
    } else if (known !== live) {
      // Another spelling of a stream that is shown already: its listeners change over.
      this.#lives.delete(live.name);
      for (const [listener, wanted] of live.listeners) {
        known.listeners.set(listener, wanted);
        listener({ kind: "renamed", live: known });
      }
      // The relay took the later request for both.
      known.asked = { ...live.asked, bars: known.asked.bars };
      return this.#adapt(known);
    }
    Object.assign(live, { refusals: 0, lacksRoom: false });
    this.#onState(live, "connected", "");
  }

  #onState(live, status, text) {
    Object.assign(live, { status, text, failure: null });
    live.tell("state");
  }

  #onSnapshot(live, { candles, lastIsClosed, isComplete, isPending }) {
    // Who looks at what came before the rest of the past goes on looking at it.
    const isRest = live.isPending && live.candles.last !== undefined;
    live.candles.reset(candles, lastIsClosed);
    live.pasts += 1;
    Object.assign(live, { isLoaded: true, isComplete, isPending, isAtStart: false, hearsOfOlder: false });
    if (candles.length) live.learnDecimals(candles.slice(-PRICES_LOOKED_AT));
    live.tell(isRest ? "older" : "reset");
  }

  #onUpdate(live, message) {
    this.received += 1;
    const decimals = live.decimals;
    live.learnDecimals([message.candle]);
    live.isLoaded = true;
    live.heardAt = performance.now();
    const { first } = live.candles;
    if (message.isRevised && first !== undefined && message.candle.time < first.time) {
      // Alone it would stand before a hole; whoever scrolls back to it has it from history.
      if (live.isLoading) live.early.push(message);
      return;
    }
    if (message.tsEventMs !== null) {
      // Nothing is told before its time: in a replay time runs faster than here.
      const aheadMs = message.tsEventMs - Date.now();
      if (aheadMs > this.#aheadMs + MOST_EARLY_MS) this.#aheadMs = aheadMs;
      live.lagMs = Math.max(0, Date.now() + this.#aheadMs - message.tsEventMs);
    }
    const place = live.candles.put(message);
    // Nobody scrolls back where there is no chart.
    if (live.asked.throttleMs) live.candles.trim(live.asked.bars);
    live.tell("candle", { time: message.candle.time, place, isMoreExact: live.decimals > decimals });
  }

  #onGap(live, { from, to, reason }) {
    live.candles.addGap(from, to, reason);
    live.tell("gap");
  }

  /** Show which candles are outdated, until the relay sends what they are now, or history has it. */
  #onOutdated(live, { from, before }) {
    this.#dayAgo.forget(split(live.name).symbol);
    live.pasts += 1;
    if (!live.candles.outdate(from, before)) return;
    live.tell("older");
    this.#renew(live);
  }

  /** Have outdated candles from history, the newest first, as long as there are any: which were revised nobody knows. */
  async #renew(live) {
    if (live.isRenewing) return;
    live.isRenewing = true;
    const { symbol, interval } = split(live.name);
    const [leastMs, mostMs] = this.#askAgainMs;
    let tries = 0;
    let endTime;
    while (this.#lives.get(live.name) === live && (endTime = live.candles.newestOutdated) !== undefined) {
      const { pasts } = live;
      let waitMs = 0;
      try {
        const { candles, isComplete } = await this.ask((client) =>
          client.history(symbol, interval, { endTime, limit: PAGE }),
        );
        // An answer of before is none any more.
        if (pasts !== live.pasts) continue;
        if (isComplete) {
          live.candles.renew(candles, endTime);
          live.tell("older");
          continue;
        }
      } catch (fault) {
        waitMs = (fault instanceof Refused && fault.retryAfterMs) || 0;
      }
      const pauseMs = Math.max(waitMs, Math.min(mostMs, leastMs * 2 ** tries));
      tries += 1;
      await new Promise((resolve) => setTimeout(resolve, pauseMs));
    }
    live.isRenewing = false;
  }

  #onFailure(live, { code, text, isRetried, retryAfterMs }) {
    const hasRoom = code === NO_ROOM && this.#makeRoom(live, text);
    if (isRetried) return this.#onState(live, "reconnecting", text);
    if (hasRoom && !live.refusals) {
      live.refusals += 1;
      return this.#subscribe(live);
    }
    Object.assign(live, { status: "error", text, failure: text });
    live.tell("state");
    if (FOR_GOOD.has(code)) return;
    // The client has forgotten the stream; a page that stays open asks again, ever more rarely.
    const [leastMs, mostMs] = this.#askAgainMs;
    const waitMs = Math.max(retryAfterMs ?? 0, Math.min(mostMs, leastMs * 2 ** live.refusals));
    live.refusals += 1;
    live.lacksRoom = code === NO_ROOM;
    this.#askAgain(live, waitMs);
  }

  #askAgain(live, waitMs) {
    clearTimeout(live.askTimer);
    live.askTimer = setTimeout(() => {
      if (this.#lives.get(live.name) === live) this.#subscribe(live);
    }, waitMs);
  }

  /** Have a stream that no chart shows wait, in favour of one in a chart; say whether there was one. */
  #makeRoom(live, text) {
    const isListed = ({ asked, status }) => asked.throttleMs && status !== "error" && status !== "connecting";
    const listed = live.asked.throttleMs ? undefined : [...this.#lives.values()].findLast(isListed);
    if (listed === undefined) return false;
    this.#client.unsubscribe(listed.name);
    this.#onFailure(listed, { code: NO_ROOM, text, isRetried: false, retryAfterMs: null });
    return true;
  }

  /** Learn how far the relay's clock is ahead: it tells whole seconds, so within one second both agree. */
  #compareClocks(serverTime) {
    if (serverTime === null) return;
    const least = serverTime * 1000 - Date.now();
    this.#aheadMs = least <= 0 && least + 1000 >= -50 ? 0 : least + 500;
  }
}

function needsToken(fault) {
  return (
    (fault instanceof Refused && fault.status === 401) ||
    (fault instanceof Disconnected && fault.closeCode === TOKEN_REVOKED)
  );
}
