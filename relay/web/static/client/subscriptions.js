// @ts-check
// The streams that an application follows: what to ask the relay, and what of its answers the application is told.

import { timerMs } from "./backoff.js";
import { candleOf, candlesOf } from "./decoding.js";
import { FollowedStream } from "./followed_stream.js";
import { folded } from "./parsing.js";
import { SentRequests, batches } from "./sent_requests.js";

// A stream that was confirmed once exists, so its refusal passes, for instance once a relay that starts has its lists;
// but for these, which are about what was asked: asked again it would be refused again.
const REFUSED_FOR_GOOD = new Set(["invalid_json", "invalid_request", "unknown_action"]);

/**
 * Streams by name: canonical once the relay confirmed it, as asked until then.
 *
 * After `restart` everything is asked for again, each stream from where it stopped; nothing is asked after `stop`. `send`
 * takes a request, `tell` a message for the application; `dataFlows` is called when candles come.
 */
export class FollowedStreams {
  #streams = new Map(); // by canonical name once the relay confirmed it, as asked until then
  #bySpelling = new Map();
  #requests = new SentRequests();
  #leaving = new Set();
  #serverAheadMs = 0;
  #relay = 0;
  #store = null;
  #isOpen = false;
  #askTimer;
  #backoff;
  #send;
  #tell;
  #dataFlows;

  constructor(backoff, { send, tell, dataFlows }) {
    this.#backoff = backoff;
    this.#send = send;
    this.#tell = tell;
    this.#dataFlows = dataFlows;
  }

  get names() {
    return [...this.#streams.keys()];
  }

  /** Follow streams; one that is followed already gets these options. */
  follow(names, options) {
    for (const asked of names) {
      const known = this.#bySpelling.get(asked);
      if (known !== undefined) {
        known.progress.options = options;
        known.askAt = 0;
        continue;
      }
      const stream = new FollowedStream(asked, options);
      Object.assign(stream.progress, { relay: this.#relay, store: this.#store });
      this.#streams.set(asked, stream);
      this.#bySpelling.set(asked, stream);
    }
    this.#askSoon();
  }

  /** Forget streams; the relay is told soon. Returns the names under which they were told of. */
  leave(names) {
    const left = new Set();
    for (const stream of names.map((name) => this.#bySpelling.get(name))) {
      if (stream === undefined || !this.#isFollowed(stream)) continue;
      left.add(stream.name ?? stream.asked);
      this.#drop(stream);
      if (this.#isOpen && stream.isAsked) this.#leaving.add(stream.asked);
    }
    this.#askSoon();
    return left;
  }

  /** Begin anew with a connection that knows of nothing, to the relay of this number. */
  restart(relay) {
    this.#relay = relay;
    this.#store = null;
    this.#isOpen = true;
    this.#requests.clear();
    this.#leaving.clear();
    for (const stream of this.#streams.values()) stream.restart(relay);
    this.#askSoon();
  }

  /** Ask for nothing until there is a connection again. */
  stop() {
    this.#isOpen = false;
    clearTimeout(this.#askTimer);
    this.#askTimer = undefined;
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
      known.progress.options = stream.progress.options;
      for (const asked of stream.askedBy) known.askedBy.add(asked);
    }
    known.name = name;
    this.#streams.set(name, known);
    for (const spelling of known.spellings) this.#bySpelling.set(spelling, known);
    return known;
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
      const request = stream.progress.request(this.#serverNow());
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
    const request = stream.progress.request();
    stream.repairAt = Infinity;
    if (!stream.progress.gaps.length || !("since" in request) || !stream.isAsked || stream.awaitsSnapshot) return;
    this.#request("repair", [stream.asked], { ...request, gaps: stream.progress.gaps }, [stream]);
    stream.planRepair(performance.now());
  }

  #renew(stream) {
    Object.assign(stream, { mustLeave: true, isRenewing: true, askAt: 0 });
    stream.progress.lose();
    this.#askSoon();
  }

  /** Take the stream that an answer is about from its request, if it is followed still. */
  #asked(wire) {
    const found = this.#requests.pop(wire);
    return found !== undefined && this.#isFollowed(found) ? found : undefined;
  }

  #request(kind, streams, options, open) {
    this.#send(this.#requests.sent(kind, streams, options, open));
  }

  #isFollowed(stream) {
    return this.#streams.get(stream.name ?? stream.asked) === stream;
  }

  // -- messages of the relay -----------------------------------------------------------------------------------------

  /** Take a message of the relay and tell what is to be told. Throws whatever an unreadable one makes it throw. */
  take(wire) {
    if (wire.type === "error") this.#takeError(wire);
    else if (wire.type === "subscription") this.#takeConfirmation(wire);
    else if (wire.type === "status" && wire.symbol === undefined) this.#takeHello(wire);
    else if (wire.type === "pong") this.#learnTime(wire);
    else {
      const stream = this.#streams.get(`${wire.symbol}@${wire.interval}`);
      if (!stream?.name || stream.isRenewing) return;
      if (wire.type === "price_update") this.#takeUpdate(stream, wire);
      else if (wire.type === "snapshot") this.#takeSnapshot(stream, wire);
      else if (wire.type === "outdated") {
        const { from = 0, before } = wire;
        stream.progress.takeOutdated(from, before);
        this.#tellOf(stream, "outdated", { from, before });
      } else if (wire.type === "status")
        this.#tellOf(stream, "state", { status: wire.status, text: wire.message ?? "" });
      else if (wire.type === "gap") {
        const from = stream.progress.takeGap(wire.from, wire.to);
        if (from === null) return;
        stream.planRepair(performance.now());
        this.#askSoon();
        this.#tellOf(stream, "gap", { from, to: wire.to, reason: wire.reason ?? "" });
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
    this.#store = typeof wire.store === "string" && wire.store ? wire.store : null;
    for (const stream of this.#streams.values()) stream.progress.store = this.#store;
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
      kept.progress.learnRevision(wire.revision);
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
      this.#requests.drop(wire.id);
      if (request.kind === "subscribe") refused = request.open.filter((stream) => this.#isFollowed(stream));
      else if (request.kind === "unsubscribe" && code === "rate_limited") {
        setTimeout(() => this.#leaveAgain(request.open), timerMs(retryAfterMs ?? 1000));
      }
    }
    // What was to be left and is not subscribed is what was wanted; gaps are asked for again.
    if (request?.action === "unsubscribe" || request?.kind === "repair") return;
    const waitMs = Math.max(retryAfterMs ?? 0, this.#backoff.waitMs(refused[0]?.failures ?? 0));
    // One moment for all, so that one request asks for them again.
    const askAt = performance.now() + waitMs;
    for (const stream of refused) {
      const isRetried =
        code === "rate_limited" || (stream.progress.confirmedAt !== null && !REFUSED_FOR_GOOD.has(code));
      if (isRetried) {
        stream.askAt = askAt;
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
    const { progress } = stream;
    const lastIsClosed = Boolean(wire.last_is_closed);
    const candles = candlesOf(wire.candles, lastIsClosed);
    const { seq = null, provider = "" } = wire;
    const isComplete = wire.complete !== false;
    const isPending = wire.pending === true;
    const isAnswer = progress.beginsAnew;
    const isRenewed = isAnswer || (wire.replaces === true && (progress.isUnderWay || progress.hasSnapshot));
    const told = { provider, candles, lastIsClosed, isComplete, seq, isRenewed, isPending };
    progress.endOutdated();
    progress.notePending(isPending);
    const isRepair = stream.isRepairing;
    if (isAnswer || !isRenewed) Object.assign(stream, { isRepairing: false, awaitsSnapshot: false });
    progress.learnRevision(wire.revision);
    if (isRenewed) {
      progress.takeRenewed(candles);
      this.#dataFlows();
      this.#tellOf(stream, "snapshot", told);
      return;
    }
    this.#dataFlows();
    if (progress.awaitsFirst) {
      progress.acceptFirst(candles);
      this.#tellOf(stream, "snapshot", told);
      return;
    }
    for (const [type, fields] of progress.takeMissed(wire, candles, isRepair, this.#serverNow()))
      this.#tellOf(stream, type, fields);
    // It may be another run of the relay, which knows nothing of the gaps.
    if (progress.gaps.length && !isRepair) Object.assign(stream, { repairAt: performance.now(), repairs: 0 });
    stream.planRepair(performance.now());
    if (progress.isInDoubt) this.#renew(stream);
    else this.#askSoon();
  }

  #takeUpdate(stream, wire) {
    const isClosed = wire.is_closed === true;
    const candle = candleOf(wire.candle, isClosed);
    const isRevised = wire.revised === true;
    this.#dataFlows();
    if (isRevised) stream.progress.endOutdated(candle.time);
    stream.progress.learnRevision(wire.revision);
    if (!isRevised && stream.progress.isUnexplained(candle.time)) {
      stream.progress.doubt(candle.time);
      this.#renew(stream);
      return;
    }
    if (!(isRevised ? stream.progress.acceptRevised(candle) : stream.progress.accept(candle))) return;
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
}
