"""Updates as Binance's kline events; pure.

web-socket-streams.md, "Kline/Candlestick Streams for UTC", has the fields, and recorded events have their order.
"""

from typing import Any

import orjson

from relay.core.model import PriceUpdate
from relay.core.written_numbers import WrittenCandle, written_texts
from relay.protocol import frames
from relay.protocol.client_requests import UpdateForm
from relay.web.facades.binance.kline_rows import close_time_of

CLOSED_ONLY = {"1s": 2.0}
"""Of these intervals the exchange sends closed candles only, and each of them for so many seconds."""
NO_TRADE = -1
"""The id of the first and the last trade of a kline without any, and of one whose trades the relay did not see."""


class KlineEvents(UpdateForm):
    """Events, wrapped with the name of their stream or not, with times in milliseconds or microseconds."""

    def __init__(self, *, is_combined: bool, is_micro: bool) -> None:
        self._is_combined = is_combined
        self._is_micro = is_micro

    def frame(self, update: PriceUpdate, now_ms: int) -> bytes | None:
        """Return the event of an update; None where the exchange sends none, or the texts are not known.

        After an outage the relay knows the open candle from history, also where the exchange sends closed ones only.
        """
        event = _event(update, now_ms)
        if event is None:
            return None
        if self._is_micro:
            kline = event["k"]
            event["E"] *= 1000
            kline["t"] *= 1000
            kline["T"] = kline["T"] * 1000 + 999
        if self._is_combined:
            symbol, interval = update.key
            event = {"stream": f"{symbol.lower()}@kline_{interval}", "data": event}
        return frames.frame(orjson.dumps(event))


KLINE_EVENTS = {
    (is_combined, is_micro): KlineEvents(is_combined=is_combined, is_micro=is_micro)
    for is_combined in (False, True)
    for is_micro in (False, True)
}
"""All forms, by whether they are combined, and in microseconds."""


def _event(update: PriceUpdate, now_ms: int) -> dict[str, Any] | None:
    candle, (symbol, interval) = update.candle, update.key
    if interval in CLOSED_ONLY and not update.is_closed:
        return None
    texts, trades = written_texts(candle), candle.trades
    if texts is None or trades is None:
        return None
    opened, high, low, close, volume, quote_volume, taker_volume, taker_quote_volume = texts
    ids = candle.trade_ids if isinstance(candle, WrittenCandle) else None
    first, last = ids or (NO_TRADE, NO_TRADE)
    closes, ignored = close_time_of(candle, interval)
    return {
        "e": "kline",
        "E": now_ms if update.ts_event_ms is None else update.ts_event_ms,
        "s": symbol,
        "k": {
            "t": candle.time * 1000,
            "T": int(closes),
            "s": symbol,
            "i": interval,
            "f": first,
            "L": last,
            "o": opened,
            "c": close,
            "h": high,
            "l": low,
            "v": volume,
            "n": trades,
            "x": update.is_closed,
            "q": quote_volume,
            "V": taker_volume,
            "Q": taker_quote_volume,
            "B": ignored,
        },
    }
