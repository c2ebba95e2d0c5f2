// @ts-check
// The WebSocket to one relay: opened, lost, opened again after a wait, whoever reads what it brings.

import { timerMs } from "./backoff.js";
import { ClientError, Disconnected, Refused, Unreachable } from "./errors.js";
import { ROUTES } from "./http.js";

const HANDSHAKE_MS = 10_000;
const SILENCE_MS = 20_000;
const PONG_MS = 10_000;
// A snapshot of 5,000 candles has 1.3 MB.
const MOST_OF_MESSAGE = 8 * 1024 * 1024;
const CLOSE_RATE_LIMITED = 4002;
// Too many invalid messages, token revoked: trying again would not help.
const CLOSES_FOR_GOOD = new Set([4001, 4003]);

/**
 * One WebSocket at a time: asks for what is followed, and puts what comes into the inbox.
 *
 * Until the first one is open a failure goes to `onFault`, unless the client waits for a relay; later it is told as lost.
 */
export class Connection {
  /** No connection until what is unread is read. */
  isBlocked = false;
  #http;
  #backoff;
  #following;
  #inbox;
  #options;
  #onFault;
  /** @type {WebSocket | null} */
  #socket = null;
  #isOpen = false;
  #wasConnected = false;
  #failures = 0;
  #attemptAt = 0;
  #connectedAt = 0;
  #heardAt = 0;
  /** @type {number | null} */
  #askedForLifeAt = null;
  #attemptTimer;
  #silenceTimer;

  /** Of the `options` of a client it takes `WebSocket`, `token`, `timeoutMs` and `waitsForRelay`. */
  constructor(http, backoff, following, inbox, options, onFault) {
    this.#http = http;
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
    this.#failures = 0;
  }

  /** Find out now whether the relay is there: connect without waiting on, or ask for a sign of life. */
  check() {
    if (this.#isOpen) this.#askForLife();
    else if (this.#attemptTimer !== undefined) {
      this.disconnect();
      this.#attemptAt = 0;
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
        if (performance.now() < this.#attemptAt - 1) this.connectWhenDue();
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
    const url = new URL(`${ROUTES}ws`, this.#http.url);
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
          `no relay reached at ${this.#http.url}: the connection is not allowed (${/** @type {Error} */ (fault).name})`,
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
      else this.#onRefused(socket, "nothing answers, or it is not a relay");
    };
    socket.onerror = () => {}; // the close follows and says more
  }

  #onOpen() {
    this.#isOpen = true;
    this.#wasConnected = true;
    this.#connectedAt = this.#heardAt = performance.now();
    this.#askedForLifeAt = null;
    this.#following.restart();
    clearInterval(this.#silenceTimer);
    this.#silenceTimer = setInterval(() => this.#listen(), 1000);
  }

  /** The handshake failed. A browser does not say why, so the same address is asked without an upgrade. */
  async #onRefused(socket, reason) {
    if (socket !== this.#socket) return;
    /** @type {ClientError} */
    let refused = new Unreachable(`no relay reached at ${this.#http.url}: ${reason}`);
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
    const retryInMs = this.#planNext(refused instanceof Refused ? (refused.retryAfterMs ?? 0) : 0);
    // A relay that starts, is full or shuts down takes clients later; one that refuses a token does not.
    const isFinal = refused instanceof Refused && (refused.status === 401 || refused.status === 403);
    if (isFinal || !(this.#wasConnected || this.#options.waitsForRelay)) this.#fail(refused);
    else this.#tellLost(refused.message, null, retryInMs);
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
    if (performance.now() - this.#connectedAt >= mostMs) this.#failures = 0;
    // 4002 asks to come back later, so it waits the longest time at once.
    const retryInMs = this.#planNext(closeCode === CLOSE_RATE_LIMITED ? mostMs : 0);
    this.#tellLost(`connection to the relay lost${reason ? ` (${reason})` : ""}`, closeCode, retryInMs);
  }

  #tellLost(reason, closeCode, retryInMs) {
    this.#inbox.put({ type: "lost", reason, closeCode, retryInMs });
    if (this.#inbox.isFull) this.isBlocked = true;
    if (!this.isBlocked) this.connectWhenDue();
  }

  /** Set when the next attempt is due; return in how many milliseconds. */
  #planNext(leastMs) {
    const waitMs = Math.max(this.#backoff.waitMs(this.#failures), leastMs);
    this.#failures += 1;
    this.#attemptAt = performance.now() + waitMs;
    return waitMs;
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
    if (this.#inbox.isFull) this.#lose("the program does not read the messages", null);
  }

  #fail(fault) {
    this.disconnect();
    this.#onFault(fault);
  }
}
