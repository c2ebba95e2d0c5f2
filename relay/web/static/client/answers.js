// @ts-check
// What the REST routes answer, as the application gets it; each function throws `TypeError` if it is no such answer.

import { candlesOf } from "./decoding.js";

/** Return candles as `history` gives them. */
export function historyOf({ symbol, interval, provider = "", candles, last_is_closed, complete = true }) {
  const lastIsClosed = Boolean(last_is_closed);
  const isComplete = complete !== false;
  return { symbol, interval, provider, candles: candlesOf(candles, lastIsClosed), lastIsClosed, isComplete };
}

/** Return names of symbols. */
export function symbolsOf(list) {
  if (!Array.isArray(list) || list.some((one) => typeof one !== "string")) throw new TypeError("no list of symbols");
  return list;
}

/** Return instruments with their details. */
export function instrumentsOf(list) {
  if (!Array.isArray(list) || list.some((one) => typeof one?.symbol !== "string"))
    throw new TypeError("no list of instruments");
  return list.map(
    ({
      asset_class: assetClass,
      derived_intervals: derivedIntervals = [],
      price_step: priceStep = null,
      volume_step: volumeStep = null,
      volume_unit: volumeUnit = null,
      listed_at: listedAt = null,
      expires_at: expiresAt = null,
      ...rest
    }) => ({
      // An older relay does not say it; its symbol may be that already.
      id: rest.symbol.startsWith(`${rest.provider}:`) ? rest.symbol : `${rest.provider}:${rest.symbol}`,
      name: null,
      session: null,
      attribution: "",
      ...rest,
      assetClass,
      derivedIntervals,
      priceStep,
      volumeStep,
      volumeUnit,
      listedAt,
      expiresAt,
    }),
  );
}

/** Return what a relay says about itself. */
export function statusOf(status) {
  if (status === null || typeof status !== "object" || Array.isArray(status)) throw new TypeError("no status");
  return status;
}
