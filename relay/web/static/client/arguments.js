// @ts-check
// What callers may give: the relay would refuse the rest later, or never see it.

import { BadArgument, shown } from "./errors.js";
import { isSendable } from "./parsing.js";

// In the year 5138; a present time in milliseconds is larger.
const LATEST_TIME = 10 ** 11;
// In 1973. What is less is hardly the time of a candle that anybody asks for.
const EARLIEST_MEANT = 10 ** 8;

/** Return options without those that are left out; each is checked by the function of its name. Throws `BadArgument`. */
export function checked(options, known) {
  if (options === null || typeof options !== "object")
    throw new BadArgument(`options ${shown(options)} are not an object`);
  const found = {};
  for (const [option, value] of Object.entries(options)) {
    if (!Object.hasOwn(known, option)) {
      throw new BadArgument(`there is no option ${shown(option)}; options are ${Object.keys(known).join(", ")}`);
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
    most < Infinity ? `a whole number from ${least} to ${most}` : `a whole number of at least ${least}`,
  );

const moment = (option, value) =>
  refuseUnless(
    Number.isInteger(value) && 0 <= value && value <= LATEST_TIME,
    option,
    value,
    `a whole number from 0 to ${LATEST_TIME}; times are Unix seconds, not milliseconds${meant(value)}`,
  );

// Seconds or parts of them, a number or not, or a date: which present time they stand for.
function meant(value) {
  let seconds = NaN;
  if (typeof value === "string") seconds = Number(value) || Date.parse(value);
  if (typeof value === "number" || value instanceof Date) seconds = Number(value);
  if (!(EARLIEST_MEANT <= seconds && seconds < LATEST_TIME * 1e9)) return "";
  while (seconds > LATEST_TIME) seconds /= 1000;
  return `: did you mean ${Math.floor(seconds)}?`;
}

const flag = (option, value) => refuseUnless(typeof value === "boolean", option, value, "true or false");

export const nameGiven = (option, value) =>
  refuseUnless(typeof value === "string" && value && isSendable(value), option, value, "a name that a relay accepts");

const duration = (option, value) =>
  refuseUnless(
    typeof value === "number" && value > 0 && value < Infinity,
    option,
    value,
    "a number of milliseconds above 0",
  );

function durations(option, value) {
  const isPair = Array.isArray(value) && value.length === 2;
  refuseUnless(isPair, option, value, "a pair of milliseconds, the shortest and the longest");
  for (const one of value) duration(option, one);
  return refuseUnless(value[0] <= value[1], option, value, "a pair of milliseconds, the shortest and the longest");
}

function token(option, value) {
  // The value itself stays out of the message.
  const isToken = typeof value === "string" && /^[\x21-\x7e]+$/.test(value);
  if (!isToken) throw new BadArgument("a token is one word of printable ASCII characters");
  return value;
}

const abortSignal = (option, value) => refuseUnless(value instanceof AbortSignal, option, value, "an AbortSignal");
const webSocket = (option, value) => refuseUnless(typeof value === "function", option, value, "a class");

export const CLIENT_OPTIONS = {
  token,
  inOrder: flag,
  waitsForRelay: flag,
  backoffMs: durations,
  timeoutMs: duration,
  mostUnread: whole(1, Infinity),
  mostUnreadBytes: whole(1, Infinity),
  WebSocket: webSocket,
};
export const CLIENT_DEFAULTS = {
  inOrder: false,
  waitsForRelay: false,
  backoffMs: [1000, 30_000],
  timeoutMs: 30_000,
  mostUnread: 20_000,
  mostUnreadBytes: 64 * 1024 * 1024,
};
export const SUBSCRIBE_OPTIONS = {
  bars: whole(0, 5000),
  since: moment,
  throttleMs: whole(0, 60_000),
  closedOnly: flag,
  extended: flag,
};
export const INSTRUMENT_OPTIONS = { provider: nameGiven, search: nameGiven, limit: whole(1, 5000) };
export const HISTORY_OPTIONS = {
  startTime: moment,
  endTime: moment,
  limit: whole(1, 5000),
  extended: flag,
  waitS: whole(0, 60),
};
export const NEXT_OPTIONS = { signal: abortSignal };
