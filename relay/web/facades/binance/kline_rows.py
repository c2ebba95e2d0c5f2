"""Candles as the rows that Binance gives: twelve values, every number as the text in which it came; pure.

rest-api.md, "Kline/Candlestick data": open time, open, high, low, close, volume, close time, quote volume, number of
trades, what takers bought of both volumes, and a field to be ignored.
"""

from collections.abc import Mapping, Sequence

import orjson

from relay.core.intervals import INTERVALS, next_open
from relay.core.model import Candle
from relay.core.written_numbers import written_rest, written_texts
from relay.storage.chunks import CandleForm, Chunk

IGNORED = "0"
_NOT_KNOWN = b"000,null]"


class KlineRows(CandleForm):
    """Rows of one interval. A candle that lacks what a row has is `[TIME,null]`, and must not be given to anybody."""

    first = b"["
    behind = b"000,"

    def __init__(self, interval: str) -> None:
        self._interval = interval

    def text(self, candles: Sequence[Candle]) -> bytes:
        """Write rows."""
        return ",".join([_row(candle, self._interval) for candle in candles]).encode()

    def bare_times(self, chunk: Chunk) -> list[int]:
        """Return the open times of rows that are not known."""
        if _NOT_KNOWN not in chunk.text:
            return []
        return [row[0] // 1000 for row in orjson.loads(b"[%b]" % chunk.text) if row[1] is None]


KLINE_ROWS: Mapping[str, KlineRows] = {interval: KlineRows(interval) for interval in INTERVALS}


def close_time_of(candle: Candle, interval: str) -> tuple[str, str]:
    """Return the close time of a candle in Unix milliseconds, and what is to be ignored, as texts."""
    rest = written_rest(candle)
    if not rest:
        return f"{next_open(interval, candle.time) * 1000 - 1}", IGNORED
    closes, _, ignored = rest.partition(",")
    return closes, ignored or IGNORED


def _row(candle: Candle, interval: str) -> str:
    texts, trades = written_texts(candle), candle.trades
    if texts is None or trades is None:
        return f"[{candle.time}000,null]"
    opened, high, low, close, volume, quote_volume, taker_volume, taker_quote_volume = texts
    closes, ignored = close_time_of(candle, interval)
    return (
        f'[{candle.time}000,"{opened}","{high}","{low}","{close}","{volume}",{closes},"{quote_volume}",{trades},'
        f'"{taker_volume}","{taker_quote_volume}","{ignored}"]'
    )


def in_microseconds(rows: bytes) -> bytes:
    """Return rows, which are a JSON array, with times in microseconds."""
    found = orjson.loads(rows)
    for row in found:
        row[0] *= 1000
        row[6] = row[6] * 1000 + 999
    return orjson.dumps(found)
