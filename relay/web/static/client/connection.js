// @ts-check
// The WebSocket to a relay: opened, lost, opened again after a wait or at another relay, whoever reads what it brings.

import { timerMs } from "./backoff.js";
import { ClientError, Disconnected, Refused, Unreachable } from "./errors.js";
import { ROUTES } from "./http.js";
import { faultOfAll, isForGood } from "./relays.js";

const HANDSHAKE_MS = 10_000;
const SILENCE_MS = 20_000;
const PONG_MS = 10_000;
// A snapshot of 5,000 candles has 1.3 MB.
const MOST_OF_MESSAGE = 8 * 1024 * 1024;
const CLOSE_RATE_LIMITED = 4002;
const IS_UNREAD = "the program does not read the messages";
// Too many invalid messages, token revoked: trying again would not help.
const CLOSES_FOR_GOOD = new Set([4001, 4003]);

/**
 * One WebSocket at a time: asks for what is followed, and puts what comes into the inbox.
 *
 * Until the first one is open a failure of all relays goes to `onFault`, unless the client waits for a relay; later each is
 * told as lost.
 */
export class Connection {
  /** No connection until what is unread is read. */
  isBlocked = false;
  #relays;
  #rotation;
  #backoff;
  #following;
  #inbox;
  #options;
  #onFault;
  /** @type {WebSocket | null} */
  #socket = null;
  #isOpen = false;
  #wasConnected = false;
  #faults = []; // of this round; null for a relay whose connection was open
  #connectedAt = 0;
  #heardAt = 0;
  /** @type {number | null} */
  #askedForLifeAt = null;
  #attemptTimer;
  #silenceTimer;

  /** Of the `options` of a client it takes `WebSocket`, `token`, `timeoutMs` and `waitsForRelay`. */
  constructor(relays, rotation, backoff, following, inbox, options, onFault) {
    this.#relays = relays;
    this.#rotation = rotation;
    this.#backoff = backoff;
    this.#following = following;
    this.#inbox = inbox;
    this.#options = options;
    this.#onFault = onFault;
  }

  get isOpen() {
    return this.#isOpen;
  }

  /** Take it that the relay is well, so that the next loss is the first again. */
  dataFlows() {
    this.#rotation.restart();
    this.#faults = [];
  }

  get #http() {
    return this.#relays.at(this.#rotation.current);
  }

  /** Find out now whether the relay is there: connect without waiting on, or ask for a sign of life. */
  check() {
    if (this.#isOpen) this.#askForLife();
    else if (this.#attemptTimer !== undefined) {
      this.disconnect();
      this.#rotation.nextAt = 0;
      this.connectWhenDue();
    }
  }

  /** Connect now, or when an attempt is due. */
  connectWhenDue() {
    if (this.#socket !== null || this.#attemptTimer !== undefined) return;
    this.#attemptTimer = setTimeout(
      () => {
        this.#attemptTimer = undefined;
        // An attempt that is due later than a timer can wait.
        if (performance.now() < this.#rotation.nextAt - 1) this.connectWhenDue();
        else this.#connect();
      },
      timerMs(this.#rotation.nextAt - performance.now()),
    );
  }

  #connect() {
    if (this.#options.WebSocket === undefined) {
      this.#rotation.stay(performance.now());
      this.#fail(
        new ClientError("there is no WebSocket here: use Node 22 or newer, or give a class as option WebSocket"),
      );
      return;
    }
    const url = new URL(`${ROUTES}ws`, this.#http.url);
    url.protocol = { "http:": "ws:", "https:": "wss:" }[url.protocol];
    if (this.#options.token) url.searchParams.set("token", this.#options.token);
    let socket;
    try {
      socket = new this.#options.WebSocket(url.href);
    } catch (fault) {
      // A page that came by https may open no other connections, for instance.
      const why = `the connection is not allowed (${/** @type {Error} */ (fault).name})`;
      this.#goOn(new Unreachable(`no relay reached at ${this.#http.url}: ${why}`), { isFinal: true });
      return;
    }
    this.#socket = socket;
    // A relay that accepts and then says nothing must not hold up the resume for long.
    const patience = setTimeout(() => this.#onSilence(socket), Math.min(this.#options.timeoutMs, HANDSHAKE_MS));
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
      else this.#onRefused(socket);
    };
    socket.onerror = () => {}; // the close follows and says more
  }

  #onOpen() {
    this.#isOpen = true;
    this.#wasConnected = true;
    this.#connectedAt = this.#heardAt = performance.now();
    this.#askedForLifeAt = null;
    this.#relays.preferred = this.#rotation.current;
    this.#following.restart(this.#rotation.current);
    clearInterval(this.#silenceTimer);
    this.#silenceTimer = setInterval(() => this.#listen(), 1000);
  }

  #onSilence(socket) {
    if (socket !== this.#socket) return;
    socket.onclose = null;
    socket.close();
    this.#socket = null;
    this.#goOn(new Unreachable(`no relay reached at ${this.#http.url}: no answer in time`));
  }

  /** The handshake failed. A browser does not say why, so the same address is asked without an upgrade. */
  async #onRefused(socket) {
    /** @type {ClientError} */
    let refused = new Unreachable(`no relay reached at ${this.#http.url}: nothing answers, or it is not a relay`);
    socket.onclose = null;
    socket.close();
    try {
      await this.#http.get("ws", {}, Math.min(this.#options.timeoutMs, HANDSHAKE_MS), this.#ownOrigin());
    } catch (fault) {
      // 400 says that the token is fine and only the upgrade is missing.
      const isThere = fault instanceof Refused && fault.status === 400;
      refused = isThere
        ? new Unreachable(
            `the relay at ${this.#http.url} answers, but not over WebSocket; a proxy between must pass the headers Upgrade and Connection`,
          )
        : /** @type {ClientError} */ (fault);
    }
    if (socket !== this.#socket) return;
    this.#socket = null;
    this.#goOn(refused);
  }

  /** Go on at the next relay after a failed attempt; end where there is none that could be used. */
  #goOn(fault, { isFinal = false } = {}) {
    const leastMs = fault instanceof Refused ? (fault.retryAfterMs ?? 0) : 0;
    this.#faults.push(fault);
    const retryInMs = this.#rotation.goOn(performance.now(), { leastMs });
    const faults = this.#endOfRound();
    // A relay that starts, is full or shuts down takes clients later; one that refuses a token does not.
    const isOver = faults.every(isForGood) || isFinal || !(this.#wasConnected || this.#options.waitsForRelay);
    if (faults.length && isOver) this.#fail(faultOfAll(faults.filter((one) => one !== null)));
    else this.#tellLost(fault.message, null, retryInMs);
  }

  /** Return the faults of the round that is over, none while it goes on. */
  #endOfRound() {
    if (this.#rotation.isWithinRound) return [];
    const faults = this.#faults;
    this.#faults = [];
    return faults;
  }

  /** The page's origin, which a browser says on its WebSocket and not on what a page asks of its own host. */
  #ownOrigin() {
    const own = globalThis.location?.origin;
    return own !== undefined && own === new URL(this.#http.url).origin ? { "X-Page-Origin": own } : {};
  }

  #lose(reason, closeCode) {
    this.disconnect();
    if (CLOSES_FOR_GOOD.has(closeCode)) {
      this.#fail(new Disconnected(closeCode, reason));
      return;
    }
    const { mostMs } = this.#backoff;
    const now = performance.now();
    if (now - this.#connectedAt >= mostMs) this.dataFlows();
    const text = `connection to the relay lost${reason ? ` (${reason})` : ""}`;
    if (closeCode === CLOSE_RATE_LIMITED) {
      // It asks to come back later. Another relay would be asked as often, so this waits the longest time at once.
      this.#tellLost(text, closeCode, this.#rotation.stay(now, mostMs));
    } else if (reason === IS_UNREAD) {
      this.#tellLost(text, closeCode, this.#rotation.stay(now));
    } else {
      this.#faults.push(null);
      const retryInMs = this.#rotation.goOn(now, { wasOpen: true });
      this.#endOfRound();
      this.#tellLost(text, closeCode, retryInMs);
    }
  }

  #tellLost(reason, closeCode, retryInMs) {
    this.#inbox.put({ type: "lost", reason, closeCode, retryInMs });
    if (this.#inbox.isFull) this.isBlocked = true;
    if (!this.isBlocked) this.connectWhenDue();
  }

  /** Have no connection and plan none. */
  disconnect() {
    const socket = this.#socket;
    this.#socket = null;
    this.#isOpen = false;
    clearTimeout(this.#attemptTimer);
    this.#attemptTimer = undefined;
    clearInterval(this.#silenceTimer);
    this.#following.stop();
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
    this.send({ action: "ping" });
  }

  /** Send a request if there is a connection; else the next one brings it. */
  send(request) {
    if (this.#isOpen && this.#socket?.readyState === 1) this.#socket.send(JSON.stringify(request));
  }

  #onMessage(data) {
    this.#heardAt = performance.now();
    this.#askedForLifeAt = null;
    if (typeof data !== "string") return;
    if (data.length > MOST_OF_MESSAGE) {
      this.#lose("the relay sent a message that is too large", null);
      return;
    }
    this.#inbox.heardSize = data.length;
    try {
      this.#following.take(JSON.parse(data));
    } catch {
      // Skipping it could lose a closed candle; a new connection brings it again.
      this.#lose("the relay sent a message that cannot be read", null);
      return;
    }
    this.#inbox.heardSize = 0;
    if (this.#inbox.isFull) this.#lose(IS_UNREAD, null);
  }

  #fail(fault) {
    this.disconnect();
    this.#onFault(fault);
  }
}
