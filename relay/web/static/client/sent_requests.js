// @ts-check
// Requests of one connection that wait for answers: which stream an answer is about, and how much one may name.

import { differsInPin, folded } from "./parsing.js";

const STREAMS_PER_REQUEST = 100;
// The relay takes frames up to 4,096 bytes; this leaves room for the options around the names.
const NAME_BYTES_PER_REQUEST = 3500;

/** Requests by their `id`, which goes on counting over all connections. */
export class SentRequests {
  #sent = new Map();
  #lastId = 0;

  /** Wait for no answer: the connection is another one. */
  clear() {
    this.#sent.clear();
  }

  /** Return a request that waits for answers, with its `kind`, its `action` and what is `open`. */
  get(id) {
    return this.#sent.get(id);
  }

  /** Wait for no more answers to a request. */
  drop(id) {
    this.#sent.delete(id);
  }

  /** Return a request as the relay takes it; it counts as sent. */
  sent(kind, streams, options, open) {
    const action = { renew: "unsubscribe", repair: "subscribe" }[kind] ?? kind;
    this.#sent.set(++this.#lastId, { kind, action, open });
    if (action === "subscribe") for (const stream of open) stream.askedId = this.#lastId;
    return { action, streams, id: this.#lastId, ...options };
  }

  /** Take what an answer is about from its request; by name, or because it is the only one left. */
  pop({ id, symbol, interval }) {
    const { kind, open = [] } = this.#sent.get(id) ?? {};
    const name = folded(`${symbol}@${interval ?? ""}`);
    const spelled = open.map((one) => folded(one.asked ?? one));
    let index = spelled.indexOf(name);
    if (index < 0) index = spelled.findIndex((one) => differsInPin(one, name));
    if (index < 0 && open.length === 1) index = 0;
    if (index < 0) return undefined;
    const [found] = open.splice(index, 1);
    if (!open.length) this.#sent.delete(id);
    return kind === "unsubscribe" ? undefined : found;
  }
}

/** Divide names so that each part fits into one request. */
export function batches(names) {
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
