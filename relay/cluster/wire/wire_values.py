"""How relays write values for each other, and how each is read again: of the right type, and not too much; pure."""

import math
from collections.abc import Sequence
from typing import Any

import orjson

from relay.cluster.shards import Shard, parse_shard
from relay.core.intervals import INTERVALS
from relay.core.model import Candle, CandleExtras, StreamKey, extend
from relay.core.written_numbers import WrittenCandle
from relay.plugins.validation import fault_of_extras

MOST_ITEMS = 20_000
MOST_BYTES = 8 * 2**20
"""What a message may have, and what one may unfold to."""
LONGEST_TEXT = 1_000
_LONGEST = 100


class Malformed(Exception):
    """A value is not of the form that relays send."""


def need(good: bool) -> None:
    """Raise `Malformed` unless something holds."""
    if not good:
        raise Malformed


def read_text(value: Any, longest: int = _LONGEST) -> str:
    """Return a text that is not too long. Raises `Malformed`."""
    need(isinstance(value, str) and len(value) <= longest)
    return value  # type: ignore[no-any-return]


def read_whole(value: Any) -> int:
    """Return a whole number. Raises `Malformed`."""
    need(type(value) is int and -(2**62) < value < 2**62)
    return value  # type: ignore[no-any-return]


def read_seconds(value: Any) -> float:
    """Return a number of seconds. Raises `Malformed`."""
    need(type(value) in (int, float) and -1e12 < value < 1e12)
    return float(value)


def read_list(value: Any, most: int) -> list[Any]:
    """Return a list that is not too long. Raises `Malformed`."""
    need(isinstance(value, list) and len(value) <= most)
    return value  # type: ignore[no-any-return]


def read_key(symbol: Any, interval: Any) -> StreamKey:
    """Return the stream of a symbol and an interval. Raises `Malformed`."""
    need(isinstance(interval, str) and interval in INTERVALS)
    return StreamKey(read_text(symbol), interval)


def read_shard(value: Any) -> Shard:
    """Return the shard that a text names. Raises `Malformed`."""
    shard = parse_shard(value)
    need(shard is not None)
    assert shard is not None
    return shard


def loaded(body: bytes) -> list[Any]:
    """Return the values of a message. Raises `Malformed`, or `ValueError` where it is no JSON."""
    need(len(body) <= MOST_BYTES)
    return read_list(orjson.loads(body), MOST_ITEMS)


def _number(value: Any) -> float:
    # NaN is null in JSON: a candle that cannot be read stays one.
    if value is None:
        return math.nan
    need(type(value) in (int, float))
    return float(value)


def read_candle(values: Sequence[Any]) -> Candle:
    """Return a candle of what `candle_row` made. Raises `Malformed`, `ValueError` or `TypeError`."""
    time, *numbers, given = values
    candle = Candle(read_whole(time), *map(_number, numbers))
    if given is None:
        return candle
    quote_volume, trades, taker_volume, taker_quote_volume, written, *trade_ids = read_list(given, 7)
    for one in (quote_volume, taker_volume, taker_quote_volume):
        need(one is None or type(one) in (int, float))
    need(trades is None or type(trades) is int)
    extras = CandleExtras(
        quote_volume, trades, taker_volume, taker_quote_volume, None if written is None else read_text(written, 400)
    )
    extended = extend(candle, extras)
    if not trade_ids or fault_of_extras(extended) is not None:
        return extended
    # The border trusts what such a candle says of itself, so it is judged here.
    found = tuple.__new__(WrittenCandle, candle)
    first, last = map(read_whole, trade_ids)
    found.given, found.trade_ids = extras, (first, last)
    return found


def candle_row(candle: Candle) -> list[Any]:
    """Return a candle as values that can be written."""
    extras = candle.extras
    trade_ids = candle.trade_ids if isinstance(candle, WrittenCandle) else None
    return [*candle, None if extras is None else [*extras, *(trade_ids or ())]]
