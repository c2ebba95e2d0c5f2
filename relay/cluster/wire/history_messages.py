"""Questions of relays for history and lists, and their answers, as bytes and as values; pure."""

import zlib
from collections.abc import Iterable
from typing import Any, NamedTuple

import orjson

from relay.cluster.wire.wire_values import (
    LONGEST_TEXT,
    Malformed,
    candle_row,
    loaded,
    need,
    read_candle,
    read_key,
    read_list,
    read_seconds,
    read_text,
    read_whole,
)
from relay.core.errors import (
    AuthenticationFailed,
    BadAnswer,
    ProviderError,
    ProviderTimeout,
    ProviderUnavailable,
    RateLimited,
    UnknownSymbol,
)
from relay.core.model import Candle, Instrument, StreamKey

MOST_ROWS = 20_000
MOST_UNFOLDED_BYTES = 16 * 2**20
"""So many rows with all that a venue writes of candles take 12 MB at most."""
_FOLDS_FROM = 4_096
_PLAIN, _FOLDED = b"0", b"1"


class HistoryCall(NamedTuple):
    """What one relay asks of another's history."""

    provider: str
    key: StreamKey
    start: int | None
    end: int
    limit: int


_ERRORS: dict[str, type[ProviderError]] = {
    "auth": AuthenticationFailed,
    "unavailable": ProviderUnavailable,
    "timeout": ProviderTimeout,
    "unknown": UnknownSymbol,
    "bad": BadAnswer,
}


def history_body(call: HistoryCall) -> bytes:
    """Write a question about history."""
    return orjson.dumps(["candles", call.provider, *call.key, call.start, call.end, call.limit])


def instruments_body(provider: str) -> bytes:
    """Write a question for what a provider lists."""
    return orjson.dumps(["instruments", provider])


def read_question(body: bytes) -> HistoryCall | str | None:
    """Read a question: of history, or the name of a provider whose list is asked for."""
    try:
        match loaded(body):
            case ["candles", provider, symbol, interval, start, end, limit]:
                first = None if start is None else read_whole(start)
                need(type(limit) is int and 0 < limit <= MOST_ROWS)
                return HistoryCall(read_text(provider), read_key(symbol, interval), first, read_whole(end), limit)
            case ["instruments", provider]:
                return read_text(provider)
            case _:
                return None
    except (Malformed, ValueError, TypeError):
        return None


def candles_answer(candles: Iterable[Candle], open_time: int | None) -> bytes:
    """Write candles, of which the one at `open_time` is open."""
    return _folded(orjson.dumps([open_time, [candle_row(candle) for candle in candles]]))


def instruments_answer(instruments: Iterable[Instrument]) -> bytes:
    """Write what a provider lists."""
    return _folded(orjson.dumps([None, [[*one] for one in instruments]], default=dict))


def error_answer(error: ProviderError) -> bytes:
    """Write why there is no answer, as clients may read it."""
    if isinstance(error, RateLimited):
        return _folded(orjson.dumps(["limited", str(error)[:LONGEST_TEXT], error.retry_after]))
    name = next((name for name, kind in _ERRORS.items() if isinstance(error, kind)), "unavailable")
    return _folded(orjson.dumps([name, str(error)[:LONGEST_TEXT], None]))


def read_candles(body: bytes) -> tuple[list[Candle], int | None]:
    """Read candles, and when the one opened that is open. Raises `ProviderError`, as the other relay did."""
    try:
        open_time, rows = _answer(body)
        candles = []
        for row in read_list(rows, MOST_ROWS):
            need(len(read_list(row, 7)) == 7)
            candles.append(read_candle(row))
        return candles, None if open_time is None else read_whole(open_time)
    except (Malformed, ValueError, TypeError, OverflowError, zlib.error):
        raise BadAnswer("the answer of another relay is invalid") from None


def read_instruments(body: bytes) -> list[Instrument]:
    """Read what a provider lists. Raises `ProviderError`, as the other relay did."""
    try:
        found = []
        for row in read_list(_answer(body)[1], 200_000):
            need(len(read_list(row, len(Instrument._fields))) == len(Instrument._fields))
            one = Instrument(*row)
            found.append(one._replace(intervals=None if one.intervals is None else tuple(one.intervals)))
        return found
    except (Malformed, ValueError, TypeError, zlib.error):
        raise BadAnswer("the answer of another relay is invalid") from None


def _answer(body: bytes) -> list[Any]:
    answer = orjson.loads(_unfolded(body))
    if isinstance(answer, list) and len(answer) == 3:
        name, text, retry_after = answer
        if name == "limited":
            raise RateLimited(read_text(text, LONGEST_TEXT), max(0.0, read_seconds(retry_after)))
        raise _ERRORS.get(read_text(name), ProviderUnavailable)(read_text(text, LONGEST_TEXT))
    found = read_list(answer, 2)
    need(len(found) == 2)
    return found


def _folded(body: bytes) -> bytes:
    return _PLAIN + body if len(body) < _FOLDS_FROM else _FOLDED + zlib.compress(body, 1)


def _unfolded(body: bytes) -> bytes:
    if not body.startswith(_FOLDED):
        return body[1:]
    unfolding = zlib.decompressobj()
    found = unfolding.decompress(body[1:], MOST_UNFOLDED_BYTES)
    need(unfolding.eof)
    return found
