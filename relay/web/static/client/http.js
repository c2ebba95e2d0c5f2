// @ts-check
// The REST routes of one relay: asks, bounds what is read, and says what a refusal means.

import { BadReply, ClientClosed, Refused, Unreachable } from "./errors.js";

export const ROUTES = "api/v1/market-data/";
const MIB = 1024 * 1024;
// 100,000 instruments have 40 to 50 MB.
const MOST_OF_ANSWER = 64 * MIB;
const CODES = { 401: "unauthorized", 403: "forbidden", 429: "rate_limited", 503: "internal" };

/** Asks the relay at `url`; `token` is sent along where there is one. Once it `isClosed` every request is refused. */
export class Http {
  isClosed = false;
  #headers = {};

  constructor(url, token) {
    this.url = url;
    if (token !== undefined) this.#headers.Authorization = `Bearer ${token}`;
  }

  /** Return the body of an answer to a route, within a time. Throws `ClientError`. */
  async get(route, asked, timeoutMs, moreHeaders = {}) {
    if (this.isClosed) throw new ClientClosed();
    const url = new URL(ROUTES + route, this.url);
    for (const [name, value] of Object.entries(asked)) if (value != null) url.searchParams.set(name, value);
    const limit = new AbortController();
    const timer = setTimeout(() => limit.abort(), timeoutMs);
    // Not every body hears of the signal: one in Node that is not encoded as it says ends neither way.
    const end = new Promise((_, reject) => limit.signal.addEventListener("abort", reject));
    end.catch(() => {});
    let answer, body;
    try {
      answer = await fetch(url, {
        headers: { ...this.#headers, ...moreHeaders },
        signal: limit.signal,
        redirect: "manual",
      });
      body = await Promise.race([textOf(answer, MOST_OF_ANSWER), end]);
    } catch (fault) {
      if (fault instanceof TooLarge) throw this.badReply(fault.message);
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
    if (value === undefined) throw this.badReply();
    return value;
  }

  /** Return the error that an answer is none of a relay. */
  badReply(why = "is the address right?") {
    return new BadReply(`the answer from ${this.url} is not from a relay; ${why}`);
  }

  // A browser says neither status nor host. Nothing more is told: an address may hold a token.
  #redirected({ status, headers }) {
    let host = "another address";
    try {
      host = new URL(headers.get("Location") ?? "", this.url).host || host;
    } catch {}
    const said = status ? `HTTP ${status} points to ${host}` : "it points to another address";
    return this.badReply(`${said}; redirects are not followed: if the relay is there, use that address`);
  }

  #refusal({ status, headers }, problem) {
    const words = {
      401: `the relay at ${this.url} needs a valid token`,
      403: `the relay at ${this.url} does not allow this client`,
      429: `too many connections or requests for the relay at ${this.url}`,
      503: `the relay at ${this.url} is full, starting or shutting down`,
    };
    const detail = problem.detail || problem.title || words[status];
    const waitMs = 1000 * headers.get("Retry-After");
    return new Refused(
      status,
      problem.code ?? CODES[status] ?? "",
      detail || `${this.url} answered with HTTP status ${status}; is this the address of a relay?`,
      { title: problem.title ?? "", retryAfterMs: waitMs > 0 && waitMs < Infinity ? waitMs : null },
    );
  }
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
