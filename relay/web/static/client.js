// @ts-self-types="./client.d.ts"
// @ts-check
/**
 * Client of a market relay: streams that survive lost connections, and the REST routes; no dependencies, no page.
 *
 *     import { RelayClient } from "http://127.0.0.1:8000/client.js";
 *
 *     const relay = new RelayClient("http://127.0.0.1:8000");
 *     relay.subscribe("BTCUSDT@1m", { bars: 100 });
 *     for await (const message of relay) {
 *       if (message.type === "snapshot") console.log(message.candles.length, "candles");
 *       if (message.type === "update" && message.isClosed) console.log(message.candle);
 *     }
 *
 * What the relay promises for one connection, the client keeps across connections: every closed candle once and in
 * order. It speaks as `relay.client` does in Python.
 */

const ROUTES = "api/v1/market-data/";
const STREAMS_PER_REQUEST = 100;
// The relay takes frames up to 4,096 bytes; this leaves room for the options around the names.
const NAME_BYTES_PER_REQUEST = 3500;
const MOST_GAPS = 50;
const MOST_TOLD = 512;
const REPAIR_MS = 30_000;
const MOST_REPAIR_MS = 600_000;
const MOST_REPAIRS = 12;
const HANDSHAKE_MS = 10_000;
const SILENCE_MS = 20_000;
const PONG_MS = 10_000;
const MIB = 1024 * 1024;
// 100,000 instruments have some 40 MB, a snapshot of 5,000 candles has 1.3 MB.
const MOST_OF_ANSWER = 64 * MIB;
const MOST_OF_MESSAGE = 8 * MIB;
const MOST_OF_NAME = 100;
// In the year 5138; a present time in milliseconds is larger.
const LATEST_TIME = 10 ** 11;
const CLOSE_RATE_LIMITED = 4002;
// Too many invalid messages, token revoked: trying again would not help.
const CLOSES_FOR_GOOD = new Set([4001, 4003]);
// A stream that was confirmed once exists, so its refusal passes, for instance once a relay that starts has its lists;
// but for these, which are about what was asked: asked again it would be refused again.
const REFUSED_FOR_GOOD = new Set(["invalid_json", "invalid_request", "unknown_action"]);
const CODES = { 401: "unauthorized", 403: "forbidden", 429: "rate_limited", 503: "internal" };
// A timer that is to wait longer runs out at once.
const LONGEST_TIMER_MS = 2 ** 31 - 1;
// 1970-01-01 was a Thursday.
const FIRST_MONDAY = 4 * 86_400;
const UNIT_S = { s: 1, m: 60, h: 3600, d: 86_400, w: 604_800, M: 31 * 86_400 };

// -- errors ----------------------------------------------------------------------------------------------------------

/** The relay cannot be used; the message is one line for people and carries no token. */
export class ClientError extends Error {
  get name() {
    return this.constructor.name;
  }
}

/** Nothing answers at the address, or not in time. */
export class Unreachable extends ClientError {}

/** The answer is not one of a relay; the address may belong to another server. */
export class BadReply extends ClientError {}

/**
 * The relay refused; `retryAfterMs` says when to come back.
 *
 * `code` is one of the contract's. Where the answer has none, the status gives it; it is empty where that says nothing
 * either.
 */
export class Refused extends ClientError {
  /**
   * @param {number} status
   * @param {string} code
   * @param {string} detail
   * @param {{ title?: string, retryAfterMs?: number | null }} more
   */
  constructor(status, code, detail, { title = "", retryAfterMs = null } = {}) {
    super(detail);
    this.status = status;
    this.code = code;
    this.detail = detail;
    this.title = title;
    this.retryAfterMs = retryAfterMs;
  }
}

/** The relay closed the connection for good; connecting again as before would end the same way. */
export class Disconnected extends ClientError {
  constructor(closeCode, reason) {
    super(`the relay closed the connection for good: ${reason || "no reason given"} (${closeCode})`);
    this.closeCode = closeCode;
    this.reason = reason;
  }
}

/** An argument is none that a relay could take; it is named, and nothing was sent. */
export class BadArgument extends ClientError {}

/** The client is used after it was closed. */
export class ClientClosed extends ClientError {
  constructor() {
    super("this client is closed; make a new one");
  }
}

// -- one stream ------------------------------------------------------------------------------------------------------

/** What was asked of one stream and how far it got; decides where to go on and what was seen already. */
class Stream {
  name = null; // canonical, once the relay confirmed it
  lastClosed = null;
  lastOpen = null;
  confirmedAt = null;
  hasSnapshot = false;
  failures = 0;
  isAsked = false; // on this connection
  askedId = 0; // of the last request for it on this connection
  isToldGaps = false; // by the relay, since it took the stream on this connection
  gaps = []; // that were told and are not repaired yet, as [from, to]
  /** @type {number | null} */
  revision = null; // number of the last revision that was told
  isInDoubt = false; // closed candles may be missing: nothing counts until the relay was asked anew
  /** @type {number | null} */
  #due = null; // the first open time that may be missing
  #explained = 0; // the relay was asked for what lies before
  #doubted = 0;
  #told = new Map(); // as closed: the relay may come to know later that one is so, or was revised and is so again
  repairAt = Infinity; // when the relay is to be asked for what is missing still of the gaps
  repairs = 0;
  isRepairing = false;
  awaitsSnapshot = false;
  // A stream is renewed by leaving it and asking for it anew: of one that goes on the relay sends nothing again.
  mustLeave = false;
  isRenewing = false;
  askAt = 0; // when the relay is to be asked for it; Infinity once it was

  constructor(asked, options) {
    this.asked = asked;
    this.options = options;
    this.askedBy = new Set([asked]);
  }

  /** Every name it goes by, folded: those it was asked for by, and the canonical one. */
  get spellings() {
    return this.name === null ? [...this.askedBy] : [...this.askedBy, folded(this.name)];
  }

  get isUnderWay() {
    return this.lastClosed !== null || this.lastOpen !== null;
  }

  /** Return `since` for the next subscribe, or null to ask as the first time. */
  resumeFrom() {
    const { bars, since } = this.options;
    if (this.lastClosed !== null) return this.lastClosed;
    if (this.lastOpen !== null) return this.lastOpen - 1;
    if (this.confirmedAt === null || since !== undefined) return since ?? null;
    if (bars && !this.hasSnapshot) return null;
    // Nothing came yet, so what is owed begins with the candle that was open when the stream was confirmed.
    return this.length === null ? null : Math.max(0, this.confirmedAt - this.length);
  }

  /** Seconds from one open time to the next, of a month the most; null where only a newer relay knows. */
  get length() {
    const [, count, unit] = /@(\d+)([a-zA-Z])$/.exec(this.asked) ?? [];
    return unit in UNIT_S ? Number(count) * UNIT_S[unit] : null;
  }

  #nextOpen(time) {
    if (!this.asked.endsWith("@1M")) return time + this.length;
    const at = new Date(time * 1000);
    return at.setUTCMonth(at.getUTCMonth() + 1) / 1000;
  }

  #openAt(moment) {
    if (this.length === null) return moment;
    const at = new Date(moment * 1000);
    if (this.asked.endsWith("@1M")) return Date.UTC(at.getUTCFullYear(), at.getUTCMonth()) / 1000;
    // A venue may count days and weeks from days of its own; else weeks begin on Monday.
    const anchor = this.lastClosed ?? (this.asked.endsWith("w") ? FIRST_MONDAY : 0);
    return moment - ((moment - anchor) % this.length);
  }

  /** Return the first open time that may be missing, as far as it is known. */
  firstOwed() {
    if (this.lastClosed !== null && this.length !== null) return this.#nextOpen(this.lastClosed);
    const since = this.resumeFrom();
    return since === null ? null : since + 1;
  }

  /** Return what the relay left out without a word, as [from, to]; the candle that is open now is not missing. */
  holes(owed, times, serverTime) {
    const found = [];
    for (const at of times.length ? times : [this.#openAt(serverTime)]) {
      if (owed < at) found.push([owed, at]);
      if (this.length === null) break;
      owed = this.#nextOpen(at);
    }
    return found;
  }

  /** Return the options of the next subscribe as the relay takes them. */
  request() {
    const { bars, throttleMs, closedOnly } = this.options;
    const since = this.resumeFrom();
    const request = {};
    if (since !== null) {
      request.since = since;
      if (this.revision !== null) request.revision = this.revision;
    }
    // Once something was delivered, `bars` would cut what was missed.
    if (bars !== undefined && !this.isUnderWay && !this.hasSnapshot) request.bars = bars;
    if (throttleMs !== undefined) request.throttle_ms = throttleMs;
    if (closedOnly) request.closed_only = true;
    return request;
  }

  /** Say whether the application has still to see this candle, and remember it as seen. */
  accept(candle) {
    const { time: openTime, isClosed } = candle;
    if (this.lastClosed !== null && openTime <= this.lastClosed) return false;
    // What came before the first candle was never owed; a resume may bring it along.
    if (this.lastClosed === null && this.lastOpen !== null && openTime < this.lastOpen) return false;
    if (isClosed) {
      this.lastClosed = openTime;
      this.#due = this.length === null ? null : this.#nextOpen(openTime);
      this.#settle(openTime);
      this.remember(candle);
    } else if (this.lastOpen !== null && openTime < this.lastOpen) {
      return false;
    } else {
      if (this.lastClosed === null && this.length !== null) this.#due = openTime;
      this.lastOpen = openTime;
    }
    return true;
  }

  /** Take the candles that the application asked for: steps between them are the relay's to answer for. */
  acceptFirst(candles) {
    this.hasSnapshot = true;
    for (const candle of candles) {
      this.#explained = Math.max(this.#explained, candle.time);
      this.accept(candle);
    }
  }

  /** Say whether a candle is to be told as revised: not where it was told with these values last. */
  acceptRevised(candle) {
    this.#settle(candle.time);
    return this.remember(candle);
  }

  /** Keep a closed candle as it is told, for a while; say whether it is other than what was told before. */
  remember({ time, open, high, low, close, volume }) {
    const values = JSON.stringify([open, high, low, close, volume]);
    const isOther = this.#told.get(time) !== values;
    this.#told.delete(time);
    this.#told.set(time, values);
    if (this.#told.size > MOST_TOLD) this.#told.delete(this.#told.keys().next().value);
    return isOther;
  }

  /** Note the number of a revision, if there is one: what was revised up to it was told. */
  learnRevision(number) {
    if (Number.isInteger(number)) this.revision = Math.max(number, this.revision ?? 0);
  }

  /** Say whether closed candles may be missing right before this one, and the relay said nothing of it. */
  isUnexplained(openTime) {
    if (this.#due === null) return false;
    let due = this.#due;
    if (openTime <= due || openTime <= this.#explained) return false;
    for (const [from, to] of this.gaps) if (from <= due && due < to) due = to;
    return due < openTime;
  }

  doubt(openTime) {
    this.isInDoubt = true;
    this.#doubted = Math.max(this.#doubted, openTime);
  }

  /** What comes was asked for after the steps that were doubted: it is the relay's last word on them. */
  believe() {
    this.#explained = Math.max(this.#explained, this.#doubted);
    this.#doubted = 0;
  }

  /** Say whether a gap is news, and remember it. */
  addGap(from, to) {
    if (this.gaps.some((gap) => gap[0] <= from && to <= gap[1])) return false;
    this.gaps = [...this.gaps, [from, to]].sort((one, other) => one[0] - other[0]).slice(-MOST_GAPS);
    return true;
  }

  /** Take a candle that came after all out of the gaps. */
  #settle(openTime) {
    if (!this.gaps.length || this.length === null) return;
    const end = this.#nextOpen(openTime);
    const parts = this.gaps.flatMap(([from, to]) => [
      [from, Math.min(to, openTime)],
      [Math.max(from, end), to],
    ]);
    this.gaps = parts.filter(([from, to]) => from < to);
  }

  /** The relay took it under its canonical name; from the first time on every candle that closes is owed. */
  confirm(serverTime) {
    const fresh = { isToldGaps: false, isInDoubt: false, isRenewing: false, isRepairing: false };
    Object.assign(this, { failures: 0, confirmedAt: this.confirmedAt ?? serverTime, ...fresh });
  }

  /** Begin anew with a connection that knows of nothing. */
  restart() {
    Object.assign(this, { askAt: 0, isAsked: false, awaitsSnapshot: false });
    Object.assign(this, { isRepairing: false, mustLeave: false, isRenewing: false });
  }

  planRepair(now) {
    // What so many questions did not bring may come with the next connection.
    if (!this.gaps.length || this.repairAt < Infinity || this.repairs >= MOST_REPAIRS) return;
    this.repairAt = now + Math.min(MOST_REPAIR_MS, REPAIR_MS * 2 ** this.repairs);
    this.repairs += 1;
  }
}

// -- the client ------------------------------------------------------------------------------------------------------

/**
 * A connection to one relay, and an async iterable of messages.
 *
 * The WebSocket opens with the first iteration; REST alone never opens it. There is one, however many iterate: each
 * message comes to one of them. What is not read is kept, of an open candle only the newest; beyond `mostUnread` messages
 * the connection is given up, and resumed when all are read. Leaving the last `for await` with `break` closes the
 * connection too; the next one goes on where it stopped.
 *
 * Before the first connection a failure is thrown as `ClientError` to all who wait, unless `waitsForRelay`; after it the
 * client reconnects. Waits between attempts lie between the two bounds of `backoffMs`, with jitter, and are at least what
 * the relay asks for; iterating again after an error waits as well. Throws `Refused` for a token that is not valid, and
 * `Disconnected` on 4001 and 4003, which closes the client. A client that is closed throws `ClientClosed` wherever it is
 * used.
 */
export class RelayClient {
  #options;
  #headers = {};
  /** @type {WebSocket | null} */
  #socket = null;
  #isOpen = false;
  #isClosed = false;
  #isBlocked = false; // no connection until what is unread is read
  #wasConnected = false;
  #streams = new Map(); // by canonical name once the relay confirmed it, as asked until then
  #bySpelling = new Map();
  #requests = new Map();
  #leaving = new Set();
  #lastId = 0;
  #unread = []; // each message in an object of its own with its size, so that it can be replaced where it stands
  #unreadSize = 0;
  #heardSize = 0; // of what the relay sent last, until it is told
  #replaceable = new Map();
  #waiting = [];
  #iterations = new Set();
  /** @type {ClientError | null} */
  #fault = null; // what nobody was there to be told
  #failures = 0;
  #attemptAt = 0;
  #connectedAt = 0;
  #heardAt = 0;
  /** @type {number | null} */
  #askedForLifeAt = null;
  #serverAheadMs = 0;
  #attemptTimer;
  #askTimer;
  #silenceTimer;

  /** `url` is the relay's address; without one, the relay this file was loaded from. */
  constructor(url = new URL(".", import.meta.url), options = {}) {
    this.url = parseUrl(url);
    const given = checked(options, CLIENT_OPTIONS);
    this.#options = { WebSocket: globalThis.WebSocket, ...CLIENT_DEFAULTS, ...given };
    if (given.token !== undefined) this.#headers.Authorization = `Bearer ${given.token}`;
  }

  /** The streams subscribed to and not refused; canonical names where the relay confirmed them. */
  get streams() {
    return [...this.#streams.keys()];
  }

  get isConnected() {
    return this.#isOpen;
  }

  get isClosed() {
    return this.#isClosed;
  }

  /** Close the connection; an iteration under way ends, and what was not read is dropped. */
  close() {
    this.#isClosed = true;
    this.#fault = null;
    this.#forget(() => true);
    this.#disconnect();
    this.#wake();
  }

  #checkOpen() {
    if (this.#isClosed) throw new ClientClosed();
  }

  /**
   * Find out now whether the relay is there: connect without waiting on, or ask for a sign of life.
   *
   * For pages that know more than the client, such as that the machine is online again.
   */
  check() {
    if (this.#isOpen) this.#askForLife();
    else if (this.#attemptTimer !== undefined) {
      this.#disconnect();
      this.#attemptAt = 0;
      this.#connectWhenDue();
    }
  }

  // -- streams -------------------------------------------------------------------------------------------------------

  /**
   * Follow streams (`BTCUSDT@1m`) from now on, through reconnects. The answers come with the iteration.
   *
   * A stream refused is told as `failure` and forgotten. Subscribing again replaces the options; what was delivered is
   * not delivered again. `bars` is 0 to 5,000, `since` a time in Unix seconds, `throttleMs` 0 to 60,000. Throws
   * `BadArgument` and follows none.
   */
  subscribe(streams, options = {}) {
    this.#checkOpen();
    const names = [streams].flat().map(parseStream);
    const given = checked(options, SUBSCRIBE_OPTIONS);
    for (const asked of names) {
      const known = this.#bySpelling.get(asked);
      if (known !== undefined) {
        Object.assign(known, { options: given, askAt: 0 });
        continue;
      }
      const stream = new Stream(asked, given);
      this.#streams.set(asked, stream);
      this.#bySpelling.set(asked, stream);
    }
    this.#askSoon();
  }

  /**
   * Stop following streams; nothing of them comes after this returns, except the relay's confirmation.
   *
   * A stream goes by every name it was asked for by. Throws `BadArgument` and leaves none.
   */
  unsubscribe(streams) {
    this.#checkOpen();
    for (const stream of [streams]
      .flat()
      .map(parseStream)
      .map((name) => this.#bySpelling.get(name))) {
      if (stream === undefined || !this.#isFollowed(stream)) continue;
      const name = stream.name ?? stream.asked;
      this.#drop(stream);
      this.#forget((message) => message.stream === name);
      if (this.#isOpen && stream.isAsked) this.#leaving.add(stream.asked);
    }
    this.#askSoon();
  }

  #drop(stream) {
    this.#streams.delete(stream.name ?? stream.asked);
    for (const spelling of stream.spellings) this.#bySpelling.delete(spelling);
  }

  /** Give a stream its canonical name; return the one that has it, perhaps another that is followed already. */
  #rename(stream, name) {
    const known = this.#bySpelling.get(folded(name)) ?? stream;
    // The canonical name may be another one than in an earlier run of the relay.
    this.#drop(stream);
    if (known !== stream) {
      // Two spellings of one stream: the later request replaces the options, what was seen stays seen.
      this.#drop(known);
      known.options = stream.options;
      for (const asked of stream.askedBy) known.askedBy.add(asked);
    }
    known.name = name;
    this.#streams.set(name, known);
    for (const spelling of known.spellings) this.#bySpelling.set(spelling, known);
    return known;
  }

  // -- iterating -----------------------------------------------------------------------------------------------------

  [Symbol.asyncIterator]() {
    this.#checkOpen();
    const iteration = {};
    this.#iterations.add(iteration);
    const isOver = () => !this.#iterations.has(iteration);
    const done = { value: undefined, done: true };
    return {
      next: async () => {
        try {
          const message = isOver() ? undefined : await this.#read(isOver);
          return message === undefined ? done : { value: message, done: false };
        } catch (fault) {
          this.#iterations.delete(iteration);
          if (this.#isClosed && fault instanceof ClientClosed) return done;
          throw fault;
        }
      },
      return: async () => {
        this.#iterations.delete(iteration);
        // Whoever else still reads connects again.
        if (!this.#iterations.size) this.#disconnect();
        this.#wake();
        return done;
      },
    };
  }

  /**
   * Return the next message as an iterator does; throws `ClientClosed` where it is closed meanwhile.
   *
   * Who gives up waiting says so by `signal`, for instance `AbortSignal.timeout(1000)`: its reason is thrown, and the
   * message that comes later is left to the next reader.
   */
  async next(options = {}) {
    const { signal } = checked(options, { signal: abortSignal });
    signal?.throwIfAborted();
    const wake = () => this.#wake();
    signal?.addEventListener("abort", wake);
    try {
      const value = await this.#read(() => signal?.aborted);
      if (value === undefined) throw signal.reason;
      return { value, done: false };
    } finally {
      signal?.removeEventListener("abort", wake);
    }
  }

  /** Return the next message, connecting if that is to be done; undefined once the iteration is over. */
  async #read(isOver = () => false) {
    while (!isOver()) {
      if (this.#unread.length) return this.#takeUnread();
      if (this.#fault !== null) {
        const fault = this.#fault;
        this.#fault = null;
        if (fault instanceof Disconnected) this.close();
        throw fault;
      }
      this.#checkOpen();
      this.#isBlocked = false;
      this.#connectWhenDue();
      await new Promise((resolve, reject) => this.#waiting.push({ resolve, reject }));
    }
    return undefined;
  }

  get #isFull() {
    return this.#unread.length > this.#options.mostUnread || this.#unreadSize > this.#options.mostUnreadBytes;
  }

  #takeUnread() {
    const place = this.#unread.shift();
    const { message } = place;
    this.#unreadSize -= place.size;
    if (this.#replaceable.get(message.stream) === place) this.#replaceable.delete(message.stream);
    return message;
  }

  #tell(message) {
    const place = { message, size: this.#heardSize };
    this.#heardSize = 0;
    this.#unreadSize += place.size;
    if (message.type === "update" && !message.isClosed && !message.isRevised) {
      const before = this.#replaceable.get(message.stream);
      if (before !== undefined) {
        // An unread state of an open candle is replaced by the newer one, as the relay does for slow readers.
        this.#unreadSize -= before.size;
        Object.assign(before, place);
        return;
      }
      this.#replaceable.set(message.stream, place);
    } else if (message.stream !== undefined) {
      this.#replaceable.delete(message.stream);
    } else {
      this.#replaceable.clear();
    }
    this.#unread.push(place);
    this.#wake();
  }

  #forget(isForgotten) {
    this.#unread = this.#unread.filter(({ message }) => !isForgotten(message));
    this.#unreadSize = this.#unread.reduce((sum, { size }) => sum + size, 0);
    for (const [stream, { message }] of this.#replaceable) if (isForgotten(message)) this.#replaceable.delete(stream);
  }

  #wake() {
    for (const { resolve } of this.#waiting.splice(0)) resolve();
  }

  /** Throw a fault at all who wait, else at the next one who reads; reading after that begins anew. */
  #fail(fault) {
    this.#disconnect();
    const waiting = this.#waiting.splice(0);
    if (!waiting.length) this.#fault = fault;
    for (const { reject } of waiting) reject(fault);
    if (waiting.length && fault instanceof Disconnected) this.close();
  }

  // -- the connection ------------------------------------------------------------------------------------------------

  #connectWhenDue() {
    if (this.#socket !== null || this.#attemptTimer !== undefined) return;
    this.#attemptTimer = setTimeout(
      () => {
        this.#attemptTimer = undefined;
        // An attempt that is due later than a timer can wait.
        if (performance.now() < this.#attemptAt - 1) this.#connectWhenDue();
        else this.#connect();
      },
      timerMs(this.#attemptAt - performance.now()),
    );
  }

  #connect() {
    if (this.#options.WebSocket === undefined) {
      this.#planNext(0);
      this.#fail(
        new ClientError("there is no WebSocket here: use Node 22 or newer, or give a class as option WebSocket"),
      );
      return;
    }
    const url = new URL(`${ROUTES}ws`, this.url);
    url.protocol = { "http:": "ws:", "https:": "wss:" }[url.protocol];
    if (this.#options.token) url.searchParams.set("token", this.#options.token);
    let socket;
    try {
      socket = new this.#options.WebSocket(url.href);
    } catch (fault) {
      // A page that came by https may open no other connections, for instance.
      this.#planNext(0);
      this.#fail(
        new Unreachable(
          `no relay reached at ${this.url}: the connection is not allowed (${/** @type {Error} */ (fault).name})`,
        ),
      );
      return;
    }
    this.#socket = socket;
    // A relay that accepts and then says nothing must not hold up the resume for long.
    const patience = setTimeout(() => this.#onRefused(socket, "no answer in time"), HANDSHAKE_MS);
    socket.onopen = () => {
      clearTimeout(patience);
      if (socket === this.#socket) this.#onOpen();
    };
    socket.onmessage = ({ data }) => {
      if (socket === this.#socket) this.#onMessage(data);
    };
    socket.onclose = ({ code, reason }) => {
      clearTimeout(patience);
      if (socket !== this.#socket) return;
      if (this.#isOpen) this.#lose(reason, code);
      else this.#onRefused(socket, "nothing answers, or it is no relay");
    };
    socket.onerror = () => {}; // the close follows and says more
  }

  #onOpen() {
    this.#isOpen = true;
    this.#wasConnected = true;
    this.#connectedAt = this.#heardAt = performance.now();
    this.#askedForLifeAt = null;
    this.#requests.clear();
    this.#leaving.clear();
    for (const stream of this.#streams.values()) stream.restart();
    clearInterval(this.#silenceTimer);
    this.#silenceTimer = setInterval(() => this.#listen(), 1000);
    this.#askSoon();
  }

  /** The handshake failed. A browser does not say why, so the same address is asked without an upgrade. */
  async #onRefused(socket, reason) {
    if (socket !== this.#socket) return;
    /** @type {ClientError} */
    let refused = new Unreachable(`no relay reached at ${this.url}: ${reason}`);
    socket.onclose = null;
    socket.close();
    try {
      await this.#get("ws", {}, Math.min(this.#options.timeoutMs, HANDSHAKE_MS));
    } catch (fault) {
      // 400 says that the token is fine and only the upgrade is missing.
      const isThere = fault instanceof Refused && fault.status === 400;
      refused = isThere
        ? new Unreachable(`the relay at ${this.url} takes no connection now`)
        : /** @type {ClientError} */ (fault);
    }
    if (socket !== this.#socket) return;
    this.#socket = null;
    const retryInMs = this.#planNext(refused instanceof Refused ? (refused.retryAfterMs ?? 0) : 0);
    // A relay that starts, is full or shuts down takes clients later; one that refuses a token does not.
    const isFinal = refused instanceof Refused && (refused.status === 401 || refused.status === 403);
    if (isFinal || !(this.#wasConnected || this.#options.waitsForRelay)) this.#fail(refused);
    else this.#tellLost(refused.message, null, retryInMs);
  }

  #lose(reason, closeCode) {
    this.#disconnect();
    if (CLOSES_FOR_GOOD.has(closeCode)) {
      this.#fail(new Disconnected(closeCode, reason));
      return;
    }
    const [, mostMs] = this.#options.backoffMs;
    if (performance.now() - this.#connectedAt >= mostMs) this.#failures = 0;
    // 4002 asks to come back later, so it waits the longest time at once.
    const retryInMs = this.#planNext(closeCode === CLOSE_RATE_LIMITED ? mostMs : 0);
    this.#tellLost(`connection to the relay lost${reason ? ` (${reason})` : ""}`, closeCode, retryInMs);
  }

  #tellLost(reason, closeCode, retryInMs) {
    this.#tell({ type: "lost", reason, closeCode, retryInMs });
    if (this.#isFull) this.#isBlocked = true;
    if (!this.#isBlocked) this.#connectWhenDue();
  }

  /** Set when the next attempt is due; return in how many milliseconds. */
  #planNext(leastMs) {
    const waitMs = Math.max(this.#backoff(this.#failures), leastMs);
    this.#failures += 1;
    this.#attemptAt = performance.now() + waitMs;
    return waitMs;
  }

  #backoff(failures) {
    const [leastMs, mostMs] = this.#options.backoffMs;
    const boundMs = Math.min(mostMs, leastMs * 2 ** Math.min(failures + 1, 16));
    return leastMs + Math.random() * (boundMs - leastMs);
  }

  /** Have no connection and plan none. */
  #disconnect() {
    const socket = this.#socket;
    this.#socket = null;
    this.#isOpen = false;
    clearTimeout(this.#attemptTimer);
    this.#attemptTimer = undefined;
    clearInterval(this.#silenceTimer);
    clearTimeout(this.#askTimer);
    this.#askTimer = undefined;
    socket?.close();
  }

  /** Give up a connection that says nothing: it may be dead without a close, as after a sleep of the machine. */
  #listen() {
    const now = performance.now();
    if (this.#askedForLifeAt !== null) {
      if (now - this.#askedForLifeAt > PONG_MS) this.#lose("the relay does not answer", null);
    } else if (now - this.#heardAt > SILENCE_MS) {
      this.#askForLife();
    }
  }

  #askForLife() {
    this.#askedForLifeAt ??= performance.now();
    this.#send({ action: "ping" });
  }

  #send(request) {
    if (this.#isOpen && this.#socket?.readyState === 1) this.#socket.send(JSON.stringify(request));
  }

  // -- asking --------------------------------------------------------------------------------------------------------

  /** Ask for all that is due, once the caller is done: streams left again at once are not asked for at all. */
  #askSoon() {
    if (!this.#isOpen) return;
    let dueAt = this.#leaving.size ? 0 : Infinity;
    for (const stream of this.#streams.values()) dueAt = Math.min(dueAt, stream.askAt, stream.repairAt);
    clearTimeout(this.#askTimer);
    if (dueAt < Infinity) this.#askTimer = setTimeout(() => this.#ask(), timerMs(dueAt - performance.now()));
  }

  #ask() {
    for (const names of batches([...this.#leaving])) this.#request("unsubscribe", names, {}, names);
    this.#leaving.clear();
    const renewed = new Map();
    for (const stream of this.#streams.values()) {
      if (stream.mustLeave) renewed.set(stream.asked, stream);
      stream.mustLeave = false;
    }
    for (const names of batches([...renewed.keys()])) {
      this.#request(
        "renew",
        names,
        {},
        names.map((name) => renewed.get(name)),
      );
    }
    const now = performance.now();
    const groups = new Map();
    for (const stream of this.#streams.values()) {
      if (stream.askAt > now) continue;
      const request = stream.request();
      // A name with a provider is confirmed under another one, so it goes alone and its id tells it.
      const key = JSON.stringify(request) + (stream.asked.includes(":") ? stream.asked : "");
      if (!groups.has(key)) groups.set(key, { request, streams: new Map() });
      groups.get(key).streams.set(stream.asked, stream);
      const awaitsSnapshot = "since" in request || "bars" in request;
      Object.assign(stream, { askAt: Infinity, isAsked: true, awaitsSnapshot });
    }
    for (const { request, streams } of groups.values()) {
      for (const names of batches([...streams.keys()])) {
        this.#request(
          "subscribe",
          names,
          request,
          names.map((name) => streams.get(name)),
        );
      }
    }
    for (const stream of this.#streams.values()) if (stream.repairAt <= now) this.#repair(stream);
    this.#askSoon();
  }

  /** Ask for what is missing still of the gaps of a stream. */
  #repair(stream) {
    const request = stream.request();
    stream.repairAt = Infinity;
    if (!stream.gaps.length || !("since" in request) || !stream.isAsked || stream.awaitsSnapshot) return;
    this.#request("repair", [stream.asked], { ...request, gaps: stream.gaps }, [stream]);
    stream.planRepair(performance.now());
  }

  #renew(stream) {
    Object.assign(stream, { mustLeave: true, isRenewing: true, askAt: 0 });
    this.#askSoon();
  }

  #request(kind, streams, options, open) {
    const action = { renew: "unsubscribe", repair: "subscribe" }[kind] ?? kind;
    this.#requests.set(++this.#lastId, { kind, action, open });
    if (action === "subscribe") for (const stream of open) stream.askedId = this.#lastId;
    this.#send({ action, streams, id: this.#lastId, ...options });
  }

  /** Take the stream that an answer is about from its request; by name, or because it is the only one left. */
  #asked({ id, symbol, interval }) {
    const { kind, open = [] } = this.#requests.get(id) ?? {};
    const name = folded(`${symbol}@${interval ?? ""}`);
    const spelled = open.map((one) => folded(one.asked ?? one));
    let index = spelled.indexOf(name);
    // A relay may confirm a bare name as one of a provider, and the other way round.
    if (index < 0) index = spelled.map(bare).indexOf(bare(name));
    if (index < 0 && open.length === 1) index = 0;
    if (index < 0) return undefined;
    const [found] = open.splice(index, 1);
    if (!open.length) this.#requests.delete(id);
    return kind !== "unsubscribe" && this.#isFollowed(found) ? found : undefined;
  }

  #isFollowed(stream) {
    return this.#streams.get(stream.name ?? stream.asked) === stream;
  }

  // -- messages of the relay -----------------------------------------------------------------------------------------

  #onMessage(data) {
    this.#heardAt = performance.now();
    this.#askedForLifeAt = null;
    if (typeof data !== "string") return;
    if (data.length > MOST_OF_MESSAGE) {
      this.#lose("the relay sent a message that is too large", null);
      return;
    }
    this.#heardSize = data.length;
    try {
      this.#take(JSON.parse(data));
    } catch {
      // Skipping it could lose a closed candle; a new connection brings it again.
      this.#lose("the relay sent something unreadable", null);
      return;
    }
    this.#heardSize = 0;
    if (this.#isFull) this.#lose("the messages are not read", null);
  }

  #take(wire) {
    if (wire.type === "error") this.#takeError(wire);
    else if (wire.type === "subscription") this.#takeConfirmation(wire);
    else if (wire.type === "status" && wire.symbol === undefined) this.#takeHello(wire);
    else if (wire.type === "pong") this.#learnTime(wire);
    else {
      const stream = this.#streams.get(`${wire.symbol}@${wire.interval}`);
      if (!stream?.name || stream.isRenewing) return;
      if (wire.type === "price_update") this.#takeUpdate(stream, wire);
      else if (wire.type === "snapshot") this.#takeSnapshot(stream, wire);
      else if (wire.type === "status") this.#tellOf(stream, "state", { status: wire.status, text: wire.message ?? "" });
      else if (wire.type === "gap") {
        stream.isToldGaps = true;
        if (!stream.addGap(wire.from, wire.to)) return;
        stream.planRepair(performance.now());
        this.#askSoon();
        this.#tellOf(stream, "gap", { from: wire.from, to: wire.to, reason: wire.reason ?? "" });
      }
    }
  }

  #tellOf(stream, type, fields) {
    const name = stream.name ?? stream.asked;
    const at = name.lastIndexOf("@");
    this.#tell({ type, stream: name, symbol: name.slice(0, at), interval: name.slice(at + 1), ...fields });
  }

  #learnTime(wire) {
    // Whole seconds, so it is behind: a candle that closed before the stream was confirmed may be asked for, none is missed.
    if (wire.server_time) this.#serverAheadMs = wire.server_time * 1000 - performance.now();
  }

  #serverNow() {
    return Math.floor((performance.now() + this.#serverAheadMs) / 1000);
  }

  #takeHello(wire) {
    if (wire.status !== "connected") return;
    this.#learnTime(wire);
    this.#tell({ type: "connected", epoch: wire.epoch ?? "", serverTime: wire.server_time ?? null });
  }

  #takeConfirmation(wire) {
    const name = `${wire.symbol}@${wire.interval}`;
    const { kind } = this.#requests.get(wire.id) ?? {};
    const stream = this.#asked(wire);
    if (kind === "renew" || kind === "repair") {
      // Of these the application knows nothing.
      if (kind === "repair" && stream !== undefined) stream.isRepairing = true;
      return;
    }
    let told = stream ?? { name, asked: name };
    if (wire.action === "subscribe") {
      if (stream === undefined) return;
      const kept = this.#rename(stream, name);
      kept.confirm(this.#serverNow());
      kept.learnRevision(wire.revision);
      told = { name, asked: stream.asked };
    } else {
      // It was ended by another of its names, not known to be one.
      const ended = this.#bySpelling.get(folded(name));
      if (ended?.isAsked && ended.askedId < wire.id) {
        ended.askAt = 0;
        this.#askSoon();
      }
    }
    this.#tellOf(told, "confirmed", { action: wire.action, provider: wire.provider ?? "", asked: told.asked });
  }

  #takeError(wire) {
    const request = this.#requests.get(wire.id);
    const { code = "", message: text = "" } = wire;
    const retryAfterMs = wire.retry_after > 0 ? wire.retry_after * 1000 : null;
    let refused = [];
    if (wire.symbol !== undefined && wire.symbol !== null) {
      const stream = this.#asked(wire);
      if (stream !== undefined) refused = [stream];
    } else if (request !== undefined) {
      this.#requests.delete(wire.id);
      if (request.kind === "subscribe") refused = request.open.filter((stream) => this.#isFollowed(stream));
      else if (request.kind === "unsubscribe" && code === "rate_limited") {
        setTimeout(() => this.#leaveAgain(request.open), timerMs(retryAfterMs ?? 1000));
      }
    }
    // What was to be left and is not subscribed is what was wanted; gaps are asked for again.
    if (request?.action === "unsubscribe" || request?.kind === "repair") return;
    const waitMs = Math.max(retryAfterMs ?? 0, this.#backoff(refused[0]?.failures ?? 0));
    for (const stream of refused) {
      const isRetried = code === "rate_limited" || (stream.confirmedAt !== null && !REFUSED_FOR_GOOD.has(code));
      if (isRetried) {
        stream.askAt = performance.now() + waitMs;
        stream.failures += 1;
      } else {
        this.#drop(stream);
      }
      this.#tellOf(stream, "failure", { code, text, asked: stream.asked, isRetried, retryAfterMs });
    }
    if (refused.length) this.#askSoon();
    else this.#tell({ type: "failure", code, text, isRetried: false, retryAfterMs });
  }

  #leaveAgain(names) {
    for (const name of names) if (!this.#bySpelling.has(name)) this.#leaving.add(name);
    this.#askSoon();
  }

  #takeSnapshot(stream, wire) {
    const lastIsClosed = Boolean(wire.last_is_closed);
    const candles = candlesOf(wire.candles, lastIsClosed);
    const isComplete = wire.complete !== false;
    const { seq = null, provider = "" } = wire;
    const isResumed = stream.isUnderWay || stream.hasSnapshot;
    const wasWanted = stream.options.bars !== undefined || stream.options.since !== undefined;
    const isRepair = stream.isRepairing;
    Object.assign(stream, { isRepairing: false, awaitsSnapshot: false });
    stream.learnRevision(wire.revision);
    this.#failures = 0;
    if (wasWanted && !isResumed) {
      stream.acceptFirst(candles);
      this.#tellOf(stream, "snapshot", { provider, candles, lastIsClosed, isComplete, seq });
      return;
    }
    const missed = { isBackfilled: true, isRevised: false, tsEventMs: null, seq };
    for (const candle of (wire.revised ?? []).map((one) => candleOf(one, true))) {
      if (stream.acceptRevised(candle))
        this.#tellOf(stream, "update", { ...missed, candle, isClosed: true, isRevised: true });
    }
    const owed = stream.firstOwed();
    const since = stream.resumeFrom();
    if (wire.revisions_known === false) this.#tellOf(stream, "outdated", { before: since + 1 });
    stream.believe();
    // Before a snapshot the relay tells of all that it lacks; without a word where it has no history.
    if (!isComplete && !isRepair && owed !== null && !stream.isToldGaps) {
      const reason = "the relay could not give all that was missed while the connection was lost";
      const times = candles.map(({ time }) => time).filter((time) => time > since);
      for (const [from, to] of stream.holes(owed, times, this.#serverNow())) {
        stream.addGap(from, to);
        this.#tellOf(stream, "gap", { from, to, reason });
      }
    }
    for (const candle of candles) {
      const { isClosed } = candle;
      if (stream.isUnexplained(candle.time)) {
        stream.doubt(candles.at(-1).time);
        break;
      }
      // A gap was told, and a later candle: what it lacked comes after that.
      const isRevised = stream.lastOpen !== null && candle.time < stream.lastOpen;
      if (!stream.accept(candle)) continue;
      this.#tellOf(stream, "update", { ...missed, candle, isClosed, isBackfilled: isClosed, isRevised });
    }
    // It may be another run of the relay, which knows nothing of the gaps.
    if (stream.gaps.length && !isRepair) Object.assign(stream, { repairAt: performance.now(), repairs: 0 });
    stream.planRepair(performance.now());
    if (stream.isInDoubt) this.#renew(stream);
    else this.#askSoon();
  }

  #takeUpdate(stream, wire) {
    const isClosed = wire.is_closed === true;
    const candle = candleOf(wire.candle, isClosed);
    const isRevised = wire.revised === true;
    this.#failures = 0;
    stream.learnRevision(wire.revision);
    if (!isRevised && stream.isUnexplained(candle.time)) {
      stream.doubt(candle.time);
      this.#renew(stream);
      return;
    }
    if (!(isRevised ? stream.acceptRevised(candle) : stream.accept(candle))) return;
    const { ts_event: tsEventMs = null, seq = null } = wire;
    this.#tellOf(stream, "update", {
      candle,
      isClosed,
      isBackfilled: wire.backfilled === true,
      isRevised,
      tsEventMs,
      seq,
    });
  }

  // -- REST ----------------------------------------------------------------------------------------------------------

  /** Return candles; times are Unix seconds on open time, both inclusive. Throws `ClientError`. */
  async history(symbol, interval, range = {}) {
    const { startTime, endTime, limit } = checked(range, HISTORY_OPTIONS);
    if (startTime > endTime) throw new BadArgument(`startTime ${startTime} is after endTime ${endTime}`);
    const asked = { symbol: nameGiven("symbol", symbol), interval: nameGiven("interval", interval) };
    const wire = await this.#get("history", { ...asked, start_time: startTime, end_time: endTime, limit });
    try {
      const { symbol, interval, provider = "" } = wire;
      const lastIsClosed = Boolean(wire.last_is_closed);
      return { symbol, interval, provider, candles: candlesOf(wire.candles, lastIsClosed), lastIsClosed };
    } catch {
      throw this.#badReply();
    }
  }

  /** Return what can be streamed, sorted. Throws `ClientError`. */
  async symbols(assetClass) {
    const list = await this.#list("symbols", assetClass);
    if (list.some((one) => typeof one !== "string")) throw this.#badReply();
    return list;
  }

  /** Return what can be streamed, with details. Throws `ClientError`. */
  async instruments(assetClass) {
    const list = await this.#list("instruments", assetClass);
    if (list.some((one) => typeof one?.symbol !== "string")) throw this.#badReply();
    return list.map(({ asset_class, attribution = "", ...rest }) => ({
      assetClass: asset_class,
      attribution,
      ...rest,
    }));
  }

  /** Return what the relay says about itself; keys may be missing and new ones come. Throws `ClientError`. */
  async status() {
    const status = await this.#get("status", {});
    if (status === null || typeof status !== "object" || Array.isArray(status)) throw this.#badReply();
    return status;
  }

  async #list(route, assetClass) {
    const asked = assetClass == null ? {} : { asset_class: nameGiven("assetClass", assetClass) };
    const list = await this.#get(route, asked);
    if (!Array.isArray(list)) throw this.#badReply();
    return list;
  }

  async #get(route, asked, timeoutMs = this.#options.timeoutMs) {
    this.#checkOpen();
    const url = new URL(ROUTES + route, this.url);
    for (const [name, value] of Object.entries(asked)) if (value != null) url.searchParams.set(name, value);
    const limit = new AbortController();
    const timer = setTimeout(() => limit.abort(), timeoutMs);
    // Not every body hears of the signal: one in Node that is not encoded as it says ends neither way.
    const end = new Promise((_, reject) => limit.signal.addEventListener("abort", reject));
    end.catch(() => {});
    let answer, body;
    try {
      answer = await fetch(url, { headers: this.#headers, signal: limit.signal, redirect: "manual" });
      body = await Promise.race([textOf(answer, MOST_OF_ANSWER), end]);
    } catch (fault) {
      if (fault instanceof TooLarge) throw this.#badReply(fault.message);
      const reason = limit.signal.aborted ? "no answer in time" : "the request failed";
      throw new Unreachable(`no relay reached at ${this.url}: ${reason}`);
    } finally {
      clearTimeout(timer);
    }
    if (answer.type === "opaqueredirect" || (answer.status >= 300 && answer.status < 400))
      throw this.#redirected(answer);
    let value;
    try {
      value = JSON.parse(body);
    } catch {
      value = undefined;
    }
    if (answer.status !== 200) throw this.#refusal(answer, value ?? {});
    if (value === undefined) throw this.#badReply();
    return value;
  }

  #badReply(why = "is the address right?") {
    return new BadReply(`the answer from ${this.url} is not one of a relay; ${why}`);
  }

  // A browser says neither status nor host. Nothing more is told: an address may hold a token.
  #redirected({ status, headers }) {
    let host = "another address";
    try {
      host = new URL(headers.get("Location") ?? "", this.url).host || host;
    } catch {}
    const said = status ? `HTTP ${status} points to ${host}` : "it points to another address";
    return this.#badReply(`${said}; redirects are not followed: if that is the relay, give its address`);
  }

  #refusal({ status, headers }, problem) {
    const words = {
      401: `the relay at ${this.url} wants a valid token`,
      403: `the relay at ${this.url} does not allow this client`,
      429: `too many connections or requests for the relay at ${this.url}`,
      503: `the relay at ${this.url} is full, starting or shutting down`,
    };
    const detail = problem.detail || problem.title || words[status];
    const waitMs = 1000 * headers.get("Retry-After");
    return new Refused(
      status,
      problem.code ?? CODES[status] ?? "",
      detail || `${this.url} answered with HTTP status ${status}; is it the address of a relay?`,
      { title: problem.title ?? "", retryAfterMs: waitMs > 0 && waitMs < Infinity ? waitMs : null },
    );
  }
}

// -- names -----------------------------------------------------------------------------------------------------------

/** Return the address of a relay: http or https, without user, query and fragment. Throws `BadArgument`. */
export function parseUrl(value) {
  let url;
  if (typeof value === "string" || value instanceof URL) {
    const text = String(value).trim();
    try {
      url = new URL(text.includes("://") ? text : `http://${text}`);
    } catch {}
  }
  const protocol = { "ws:": "http:", "wss:": "https:" }[url?.protocol] ?? url?.protocol;
  if (!/^https?:$/.test(protocol) || !url.host) {
    throw new BadArgument(`${shown(value)} is not an address such as http://127.0.0.1:8000`);
  }
  return new URL(`${protocol}//${url.host}${url.pathname.replace(/\/*$/, "/")}`);
}

/** Return `btcusdt@1H` as `BTCUSDT@1h`; whether there is such a stream only the relay knows. Throws `BadArgument`. */
export function parseStream(stream) {
  if (typeof stream !== "string") {
    throw new BadArgument(`a stream is one text such as "BTCUSDT@1m", not ${shown(stream)}`);
  }
  const at = stream.lastIndexOf("@");
  if (at < 1 || at === stream.length - 1 || !isSendable(stream)) {
    throw new BadArgument(`stream ${shown(stream)} is not of the form SYMBOL@INTERVAL, for example BTCUSDT@1m`);
  }
  return folded(stream);
}

/** Say whether a name can be sent: half of a pair of surrogates is no text, and a request has its bound. */
function isSendable(text) {
  return text.length <= MOST_OF_NAME && !/\p{Surrogate}/u.test(text);
}

// -- what callers may give: the relay would refuse the rest later, or never see it -----------------------------------

/** Return a value as an error may repeat it: short, and quoted if it is a text. */
function shown(value) {
  let text;
  try {
    text = typeof value === "string" ? JSON.stringify(value) : String(value);
  } catch {
    text = typeof value;
  }
  return text.length > 60 ? `${text.slice(0, 59)}…` : text;
}

/** Return options without those that are left out; each is checked by the function of its name. Throws `BadArgument`. */
function checked(options, known) {
  if (options === null || typeof options !== "object") throw new BadArgument(`options ${shown(options)} are no object`);
  const found = {};
  for (const [option, value] of Object.entries(options)) {
    if (!Object.hasOwn(known, option)) {
      throw new BadArgument(`there is no option ${shown(option)}; there are ${Object.keys(known).join(", ")}`);
    }
    if (value !== undefined && value !== null) found[option] = known[option](option, value);
  }
  return found;
}

function refuseUnless(isTaken, option, value, wanted) {
  if (!isTaken) throw new BadArgument(`${option} ${shown(value)} is not ${wanted}`);
  return value;
}

const whole = (least, most) => (option, value) =>
  refuseUnless(
    Number.isInteger(value) && least <= value && value <= most,
    option,
    value,
    most < Infinity ? `a whole number from ${least} to ${most}` : `a whole number from ${least} on`,
  );

const moment = (option, value) =>
  refuseUnless(
    Number.isInteger(value) && 0 <= value && value <= LATEST_TIME,
    option,
    value,
    `a whole number from 0 to ${LATEST_TIME}; times are Unix seconds, not milliseconds`,
  );

const flag = (option, value) => refuseUnless(typeof value === "boolean", option, value, "true or false");

const nameGiven = (option, value) =>
  refuseUnless(typeof value === "string" && value && isSendable(value), option, value, "a name that a relay knows");

const duration = (option, value) =>
  refuseUnless(
    typeof value === "number" && value > 0 && value < Infinity,
    option,
    value,
    "a number of milliseconds above 0",
  );

function durations(option, value) {
  const isPair = Array.isArray(value) && value.length === 2;
  refuseUnless(isPair, option, value, "two numbers of milliseconds, the least and the most");
  for (const one of value) duration(option, one);
  return refuseUnless(value[0] <= value[1], option, value, "two numbers of milliseconds, the least and the most");
}

function token(option, value) {
  // The value itself stays out of the message.
  const isToken = typeof value === "string" && /^[\x21-\x7e]+$/.test(value);
  if (!isToken) throw new BadArgument("a token is one word of printable ASCII characters");
  return value;
}

const abortSignal = (option, value) => refuseUnless(value instanceof AbortSignal, option, value, "an AbortSignal");
const webSocket = (option, value) => refuseUnless(typeof value === "function", option, value, "a class");

const CLIENT_OPTIONS = {
  token,
  waitsForRelay: flag,
  backoffMs: durations,
  timeoutMs: duration,
  mostUnread: whole(1, Infinity),
  mostUnreadBytes: whole(1, Infinity),
  WebSocket: webSocket,
};
const CLIENT_DEFAULTS = {
  waitsForRelay: false,
  backoffMs: [1000, 30_000],
  timeoutMs: 30_000,
  mostUnread: 20_000,
  mostUnreadBytes: 64 * MIB,
};
const SUBSCRIBE_OPTIONS = { bars: whole(0, 5000), since: moment, throttleMs: whole(0, 60_000), closedOnly: flag };
const HISTORY_OPTIONS = { startTime: moment, endTime: moment, limit: whole(1, 5000) };

// -- values ----------------------------------------------------------------------------------------------------------

// 1m is a minute and 1M a month; all other letters mean the same in both cases.
function folded(name) {
  const at = name.lastIndexOf("@");
  const interval = name.slice(at);
  return name.slice(0, at).toUpperCase() + (interval.endsWith("M") ? interval : interval.toLowerCase());
}

function bare(name) {
  return name.slice(name.lastIndexOf(":") + 1);
}

class TooLarge extends Error {}

/** Return the text of an answer; reads no further than so many bytes. Throws `TooLarge`. */
async function textOf(answer, mostBytes) {
  if (answer.body === null) return "";
  const reader = answer.body.getReader();
  const decoder = new TextDecoder();
  let text = "";
  let left = mostBytes;
  for (let part = await reader.read(); !part.done; part = await reader.read()) {
    left -= part.value.length;
    if (left < 0) {
      await reader.cancel();
      throw new TooLarge(`it has more than ${mostBytes / MIB} MiB`);
    }
    text += decoder.decode(part.value, { stream: true });
  }
  return text + decoder.decode();
}

function batches(names) {
  const encoder = new TextEncoder();
  const found = [];
  let size = Infinity;
  for (const name of names) {
    const length = encoder.encode(JSON.stringify(name)).length + 1;
    if (size + length > NAME_BYTES_PER_REQUEST || found.at(-1).length === STREAMS_PER_REQUEST) {
      found.push([]);
      size = 0;
    }
    found.at(-1).push(name);
    size += length;
  }
  return found;
}

function candleOf(value, isClosed) {
  const candle = { volume: 0, ...value, isClosed };
  for (const field of ["time", "open", "high", "low", "close", "volume"]) {
    if (typeof candle[field] !== "number") throw new TypeError(`a candle without ${field}`);
  }
  return candle;
}

function candlesOf(values, lastIsClosed) {
  return values.map((value, index) => candleOf(value, index < values.length - 1 || lastIsClosed));
}

function timerMs(waitMs) {
  return Math.min(Math.max(0, waitMs), LONGEST_TIMER_MS);
}
