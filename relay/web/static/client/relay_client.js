// @ts-check
// The client as an application sees it: puts the parts together, checks what is given, and is iterated.

import { historyOf, instrumentsOf, statusOf, symbolsOf } from "./answers.js";
import {
  CLIENT_DEFAULTS,
  CLIENT_OPTIONS,
  HISTORY_OPTIONS,
  INSTRUMENT_OPTIONS,
  NEXT_OPTIONS,
  SUBSCRIBE_OPTIONS,
  checked,
  nameGiven,
} from "./arguments.js";
import { Backoff } from "./backoff.js";
import { Connection } from "./connection.js";
import { BadArgument, ClientClosed, Disconnected } from "./errors.js";
import { Http } from "./http.js";
import { Inbox } from "./inbox.js";
import { parseStream, parseUrls } from "./parsing.js";
import { Relays } from "./relays.js";
import { Rotation } from "./rotation.js";
import { FollowedStreams } from "./subscriptions.js";

/**
 * A connection to a relay, and an async iterable of messages.
 *
 * There may be several relays that serve the same, with one token for all. The client begins with any of them, so that many
 * clients spread, or `inOrder` with the first. When a relay fails, refuses, says nothing or shuts down, it goes on at the
 * next one, each stream where it stopped, and stays there. After a round without success it pauses.
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
  #isClosed = false;
  #iterations = new Set();
  #relays;
  #inbox;
  #following;
  #connection;

  /**
   * `url` is the relay's address, or a list of them; without one, the relay this file was loaded from.
   *
   * @param {string | URL | (string | URL)[]} url
   */
  constructor(url = new URL(".", import.meta.url), options = {}) {
    this.urls = parseUrls(url);
    /** @type {any} */
    const given = { WebSocket: globalThis.WebSocket, ...CLIENT_DEFAULTS, ...checked(options, CLIENT_OPTIONS) };
    const backoff = new Backoff(given.backoffMs);
    const first = given.inOrder ? 0 : Math.floor(Math.random() * this.urls.length);
    const https = this.urls.map((one) => new Http(one, given.token));
    this.#relays = new Relays(https, given.timeoutMs, first);
    this.#inbox = new Inbox(given.mostUnread, given.mostUnreadBytes);
    this.#following = new FollowedStreams(backoff, {
      send: (request) => this.#connection.send(request),
      tell: (message) => this.#inbox.put(message),
      dataFlows: () => this.#connection.dataFlows(),
    });
    const rotation = new Rotation(https.length, backoff, first);
    this.#connection = new Connection(this.#relays, rotation, backoff, this.#following, this.#inbox, given, (fault) => {
      if (this.#inbox.fail(fault) && fault instanceof Disconnected) this.close();
    });
  }

  /** The address of the relay that was reached last; of the one that is asked first until then. */
  get url() {
    return this.#relays.url;
  }

  /** The streams subscribed to and not refused; canonical names where the relay confirmed them. */
  get streams() {
    return this.#following.names;
  }

  get isConnected() {
    return this.#connection.isOpen;
  }

  get isClosed() {
    return this.#isClosed;
  }

  /** Close the connection; an iteration under way ends, and what was not read is dropped. */
  close() {
    this.#isClosed = true;
    this.#relays.close();
    this.#inbox.takeFault();
    this.#inbox.forget(() => true);
    this.#connection.disconnect();
    this.#inbox.wake();
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
    this.#connection.check();
  }

  // -- streams -------------------------------------------------------------------------------------------------------

  /**
   * Follow streams (`BTCUSDT@1m`) from now on, through reconnects. The answers come with the iteration.
   *
   * A stream refused is told as `failure` and forgotten. Subscribing again replaces the options; what was delivered is
   * not delivered again. `bars` is 0 to 5,000, `since` a time in Unix seconds, `throttleMs` 0 to 60,000. With `extended`
   * candles also have `quoteVolume`, `trades`, `takerVolume` and `takerQuoteVolume`, null if not known. Throws
   * `BadArgument` and follows none.
   */
  subscribe(streams, options = {}) {
    this.#checkOpen();
    const names = [streams].flat().map(parseStream);
    this.#following.follow(names, checked(options, SUBSCRIBE_OPTIONS));
  }

  /**
   * Stop following streams; nothing of them comes after this returns, except the relay's confirmation.
   *
   * A stream goes by every name it was asked for by. Throws `BadArgument` and leaves none.
   */
  unsubscribe(streams) {
    this.#checkOpen();
    const left = this.#following.leave([streams].flat().map(parseStream));
    this.#inbox.forget((message) => left.has(message.stream));
  }

  // -- iterating -----------------------------------------------------------------------------------------------------

  /** @returns {AsyncIterator<any, undefined>} */
  [Symbol.asyncIterator]() {
    this.#checkOpen();
    const iteration = {};
    this.#iterations.add(iteration);
    const isOver = () => !this.#iterations.has(iteration);
    /** @type {IteratorReturnResult<undefined>} */
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
        if (!this.#iterations.size) this.#connection.disconnect();
        this.#inbox.wake();
        return done;
      },
    };
  }

  /**
   * Return the next message as an iterator does; throws `ClientClosed` where it is closed meanwhile.
   *
   * Who gives up waiting says so by `signal`, for instance `AbortSignal.timeout(1000)`: its reason is thrown, and the
   * message that comes later is left to the next reader.
   *
   * @returns {Promise<IteratorYieldResult<any>>}
   */
  async next(options = {}) {
    const { signal } = checked(options, NEXT_OPTIONS);
    signal?.throwIfAborted();
    const wake = () => this.#inbox.wake();
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
      if (!this.#inbox.isEmpty) return this.#inbox.pop();
      const fault = this.#inbox.takeFault();
      if (fault !== null) {
        if (fault instanceof Disconnected) this.close();
        throw fault;
      }
      this.#checkOpen();
      this.#connection.isBlocked = false;
      this.#connection.connectWhenDue();
      await this.#inbox.wait();
    }
    return undefined;
  }

  // -- REST ----------------------------------------------------------------------------------------------------------

  /**
   * Return candles; times are Unix seconds on open time, both inclusive; `extended` as of `subscribe`. With `waitS` (0 to
   * 60) the relay answers after about so many seconds at the latest with what it knows, `isComplete` false; `timeoutMs`
   * begins then. Throws `ClientError`.
   */
  async history(symbol, interval, range = {}) {
    const { startTime, endTime, limit, extended, waitS } = checked(range, HISTORY_OPTIONS);
    if (startTime > endTime) throw new BadArgument(`startTime ${startTime} is after endTime ${endTime}`);
    const asked = { symbol: nameGiven("symbol", symbol), interval: nameGiven("interval", interval) };
    const options = { start_time: startTime, end_time: endTime, limit, extended: extended || undefined, wait_s: waitS };
    return this.#relays.get("history", { ...asked, ...options }, historyOf, 1000 * (waitS ?? 0));
  }

  /** Return what can be streamed, sorted. Throws `ClientError`. */
  async symbols(assetClass) {
    return this.#relays.get("symbols", ofClass(assetClass), symbolsOf);
  }

  /**
   * Return what can be streamed, with details; with `search` what has all its words, the best first, 100 if no `limit` is
   * given. Throws `ClientError`.
   */
  async instruments(assetClass, wanted = {}) {
    const { provider, search, limit } = checked(wanted, INSTRUMENT_OPTIONS);
    return this.#relays.get("instruments", { ...ofClass(assetClass), provider, q: search, limit }, instrumentsOf);
  }

  /** Return what the relay says about itself; keys may be missing and new ones come. Throws `ClientError`. */
  async status() {
    return this.#relays.get("status", {}, statusOf);
  }
}

function ofClass(assetClass) {
  return assetClass == null ? {} : { asset_class: nameGiven("assetClass", assetClass) };
}
