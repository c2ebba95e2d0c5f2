// @ts-check
// How people write a relay's address and a stream; what there is only the relay knows.

import { BadArgument, shown } from "./errors.js";

const MOST_OF_NAME = 100;

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

/** Return the addresses of one relay or several, each once. Throws `BadArgument`. */
export function parseUrls(value) {
  if (Array.isArray(value) && !value.length) {
    throw new BadArgument("there is no address in the list; give one such as http://127.0.0.1:8000");
  }
  const urls = [value].flat().map(parseUrl);
  return urls.filter((url, place) => urls.findIndex((other) => other.href === url.href) === place);
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
export function isSendable(text) {
  return text.length <= MOST_OF_NAME && !/\p{Surrogate}/u.test(text);
}

// 1m is a minute and 1M a month; all other letters mean the same in both cases.
/** Return the one spelling of all that differ in case. */
export function folded(name) {
  const at = name.lastIndexOf("@");
  const interval = name.slice(at);
  return name.slice(0, at).toUpperCase() + (interval.endsWith("M") ? interval : interval.toLowerCase());
}

/**
 * Say whether one name is the other without its provider: a relay may confirm either as the other. Symbols may have
 * colons too; what is before the first one is a provider only if it can be the name of one.
 */
export function differsInPin(one, other) {
  return withoutPin(one) === other || withoutPin(other) === one;
}

function withoutPin(name) {
  return name.replace(/^[a-z_][a-z0-9_]*:/i, "");
}
