/** Types of `client.js`, the client of a market relay. */

/** Open, high, low, close and volume over an interval; `time` is the open time in Unix seconds (UTC). */
export interface Candle {
  /** Its values are final; it changes only by a revision. */
  isClosed: boolean;
  time: number;
  open: number;
  high: number;
  low: number;
  close: number;
  volume: number;
  /** Of `extended` candles: the volume in units of the quote currency, null if not known. */
  quoteVolume?: number | null;
  /** Of `extended` candles: the number of trades, null if not known. */
  trades?: number | null;
  /** Of `extended` candles: the part of `volume` that takers bought, null if not known. */
  takerVolume?: number | null;
  /** Of `extended` candles: the part of `quoteVolume` that takers bought, null if not known. */
  takerQuoteVolume?: number | null;
}

/** What a symbol denotes, and which provider serves it. */
export interface Instrument {
  symbol: string;
  /** `provider:SYMBOL`, which always means this instrument. */
  id: string;
  provider: string;
  /** What people call it; null where it is not known, as the fields below. */
  name: string | null;
  assetClass: string;
  base: string;
  quote: string;
  intervals: string[];
  /** Those that the relay makes of shorter candles. */
  derivedIntervals: string[];
  /** The smallest change of a price, a decimal number as text. */
  priceStep: string | null;
  volumeStep: string | null;
  /** What volumes count, if that is not the base. */
  volumeUnit: string | null;
  /** `24x7`, or hours and a time zone: `1700-1700 America/New_York`. */
  session: string | null;
  /** Unix seconds. */
  listedAt: number | null;
  expiresAt: number | null;
  /** While it is paused nothing is traded; its history stays. */
  status: "trading" | "paused";
  attribution: string;
}

export type Status =
  "connecting" | "connected" | "reconnecting" | "backfilling" | "stale" | "market_closed" | "throttled" | "error";

/** What an error is about. */
export type Code =
  | "invalid_json"
  | "invalid_request"
  | "unknown_action"
  | "unknown_symbol"
  | "unknown_interval"
  | "unsupported_interval"
  | "not_subscribed"
  | "too_many_subscriptions"
  | "rate_limited"
  | "provider_unavailable"
  | "unauthorized"
  | "forbidden"
  | "not_found"
  | "internal";

/** A connection is open. `epoch` names one run of the relay: `seq` starts anew with it. */
export interface Connected {
  type: "connected";
  epoch: string;
  serverTime: number | null;
}

/** The connection is lost; the next attempt follows in `retryInMs` and the streams go on where they stopped. */
export interface Lost {
  type: "lost";
  reason: string;
  closeCode: number | null;
  retryInMs: number;
}

interface OfStream {
  /** The canonical name, `BTCUSDT@1m`. */
  stream: string;
  symbol: string;
  interval: string;
}

/** The relay accepted a stream (or its end), asked for as `asked`. Comes again whenever the client asks anew. */
export interface Confirmed extends OfStream {
  type: "confirmed";
  action: "subscribe" | "unsubscribe";
  /** Who it comes from; empty if the relay did not say. */
  provider: string;
  asked: string;
}

/** The state of a stream changed; a confirmed stream is `connected` until this says otherwise. */
export interface State extends OfStream {
  type: "state";
  status: Status;
  text: string;
}

/**
 * The past that `bars` or `since` asked for; once a subscription, what is missed later comes as `Update`. It comes again, with
 * `isRenewed`, where the provider changed its history or gave it late: then it takes the place of all candles of the stream that
 * came before.
 */
export interface Snapshot extends OfStream {
  type: "snapshot";
  provider: string;
  candles: Candle[];
  lastIsClosed: boolean;
  isComplete: boolean;
  seq: number | null;
  isRenewed: boolean;
  /** The provider has not answered yet: another one with all that was asked for follows, `isRenewed`. */
  isPending: boolean;
}

/** The newest known state of a stream's candle. Each closed candle comes once, except where it is revised. */
export interface Update extends OfStream {
  type: "update";
  candle: Candle;
  isClosed: boolean;
  isBackfilled: boolean;
  isRevised: boolean;
  tsEventMs: number | null;
  seq: number | null;
}

/** Closed candles with `from` ≤ open time < `to` are missing: no provider could deliver them. */
export interface Gap extends OfStream {
  type: "gap";
  from: number;
  to: number;
  reason: string;
}

/**
 * Candles with `from` ≤ open time < `before` may have other values now: the provider changed its history, and those of the
 * subscription follow as revised updates or as a new `Snapshot`; or they may have been revised while the client was not
 * connected, and the relay cannot say which. `history` has them as they are now.
 */
export interface Outdated extends OfStream {
  type: "outdated";
  from: number;
  before: number;
}

/** The relay refused a stream (or a request, without `stream`). With `isRetried` the client asks again by itself. */
export interface Failure extends Partial<OfStream> {
  type: "failure";
  code: Code;
  text: string;
  asked?: string;
  isRetried: boolean;
  /** After how many milliseconds it is worth another try; null if the relay did not say. */
  retryAfterMs: number | null;
}

export type Message = Connected | Lost | Confirmed | State | Snapshot | Update | Gap | Outdated | Failure;

export interface SubscribeOptions {
  /** First the last so many candles, the open one included (0 to 5,000). */
  bars?: number;
  /** First every candle whose open time is greater. */
  since?: number;
  /** At most one update of an open candle per so many milliseconds. */
  throttleMs?: number;
  /** Closed candles only. */
  closedOnly?: boolean;
  /** Candles also have `quoteVolume`, `trades`, `takerVolume` and `takerQuoteVolume`. */
  extended?: boolean;
}

/** The part of the WebSocket class that the client uses; a browser and Node 22 have it built in. */
export interface WebSocketClass {
  new (url: string): {
    readonly readyState: number;
    onopen: ((event: any) => unknown) | null;
    onmessage: ((event: any) => unknown) | null;
    onclose: ((event: any) => unknown) | null;
    onerror: ((event: any) => unknown) | null;
    send(data: string): void;
    close(): void;
  };
}

export interface ClientOptions {
  /** One for all relays. */
  token?: string | null;
  /** Of several relays, begin with the first; without it with any, so that many clients spread. */
  inOrder?: boolean;
  /** Keep trying if the relay cannot be reached at the start. */
  waitsForRelay?: boolean;
  /** Shortest and longest pause between two attempts, in milliseconds. */
  backoffMs?: [least: number, most: number];
  /** How long a REST request may take, at all relays together, after its `waitS`; a handshake takes 10 s at most. */
  timeoutMs?: number;
  /** With more unread messages than this the client closes the connection until they are read; 20,000 by default. */
  mostUnread?: number;
  /** The same limit for their size in bytes; 64 MiB by default. */
  mostUnreadBytes?: number;
  WebSocket?: WebSocketClass;
}

/**
 * A connection to a relay, and an async iterable of messages; the WebSocket opens with the first iteration.
 *
 * With several addresses, of relays that serve the same, it goes on at the next one when one fails, refuses, says nothing or
 * shuts down: each stream where it stopped.
 * Leaving the last `for await` with `break` closes it; the next one goes on where it stopped.
 */
export class RelayClient implements AsyncIterable<Message> {
  constructor(url?: string | URL | (string | URL)[], options?: ClientOptions);
  /** The relay that was reached last; the one that is asked first until then. */
  readonly url: URL;
  readonly urls: URL[];
  /** The streams subscribed to and not refused; canonical names where the relay confirmed them. */
  readonly streams: string[];
  readonly isConnected: boolean;
  /** Whether it was closed, and can be used no more. */
  readonly isClosed: boolean;
  /** Follow streams (`BTCUSDT@1m`) from now on, through reconnects. */
  subscribe(streams: string | string[], options?: SubscribeOptions): void;
  /** Stop following streams. */
  unsubscribe(streams: string | string[]): void;
  /** Connect without waiting on, or ask for a sign of life. */
  check(): void;
  /** Close the connection; an iteration under way ends, and what was not read is dropped. */
  close(): void;
  /**
   * Return the next message; throws `ClientClosed` where the client is closed meanwhile.
   *
   * Who gives up waiting says so by `signal`: its reason is thrown, and the message goes to the next reader.
   */
  next(options?: { signal?: AbortSignal }): Promise<IteratorYieldResult<Message>>;
  [Symbol.asyncIterator](): AsyncIterator<Message, undefined>;
  history(
    symbol: string,
    interval: string,
    range?: {
      startTime?: number;
      endTime?: number;
      limit?: number;
      extended?: boolean;
      /** After about so many whole seconds (0 to 60) the relay answers with what it knows; 0 asks no provider. */
      waitS?: number;
    },
  ): Promise<{
    symbol: string;
    interval: string;
    provider: string;
    candles: Candle[];
    lastIsClosed: boolean;
    /** False if the relay says that a candle may be missing; it requests it again. */
    isComplete: boolean;
  }>;
  symbols(assetClass?: string): Promise<string[]>;
  /** With `search` those that have all its words in symbol, name, base or quote, the best first, 100 if no limit is given. */
  instruments(
    assetClass?: string | null,
    wanted?: { provider?: string; search?: string; limit?: number },
  ): Promise<Instrument[]>;
  status(): Promise<Record<string, any>>;
}

/** The relay cannot be used. */
export class ClientError extends Error {}
/** Nothing answers at the address, or not in time. */
export class Unreachable extends ClientError {}
/** The answer is not one of a relay. */
export class BadReply extends ClientError {}
/** The relay refused, for instance a token. */
export class Refused extends ClientError {
  readonly status: number;
  /** Empty where neither the answer nor its status says what it is about. */
  readonly code: Code | "";
  readonly title: string;
  readonly detail: string;
  readonly retryAfterMs: number | null;
}
/** The relay closed the connection for good (4001, 4003). */
export class Disconnected extends ClientError {
  readonly closeCode: number;
  readonly reason: string;
}
/** An argument is none that a relay could take; it is named, and nothing was sent. */
export class BadArgument extends ClientError {}
/** The client is used after it was closed. */
export class ClientClosed extends ClientError {}

/** Return the address of a relay, without user, query and fragment. Throws `BadArgument`. */
export function parseUrl(value: string | URL): URL;
/** Return `btcusdt@1H` as `BTCUSDT@1h`. Throws `BadArgument`. */
export function parseStream(stream: string): string;
