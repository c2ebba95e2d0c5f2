"""Order books of Binance spot by its partial book depth streams, in the form that `depth` gives; pure."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import orjson

from providers.binance.codec import STREAMS_PATH, STREAMS_PER_SECOND
from providers.binance.weights import WEIGHTS
from providers.binance_markets.codec import CombinedCodec
from relay import Accepted, Closing, NativeLive, NativeUpdate, Rejected, StreamKey

_PATH = "/api/v3/depth"
_LEVELS = 20
"""web-socket-streams.md, "Partial Book Depth Streams": 5, 10 or 20; the first ones of 20 are those of the others."""
_STREAM = f"depth{_LEVELS}@100ms"
"""The same page: each second, or ten times. Our choice: as new as if it was asked for."""


def live_book(path: str, query: Mapping[str, str]) -> NativeLive | None:
    """Return the stream that has a book of so few levels; None for larger ones, and for other questions."""
    if path != _PATH or query.keys() != {"symbol", "limit"}:
        return None
    limit = query["limit"]
    if not (limit.isascii() and limit.isdigit() and len(limit) <= 2 and 1 <= int(limit) <= _LEVELS):
        return None
    key = StreamKey(query["symbol"], _STREAM)
    return NativeLive(key, partial(_top, levels=int(limit)), WEIGHTS["depth"](query))


def _top(book: Mapping[str, Any], levels: int) -> bytes:
    """Return the first levels of a book as `depth` gives them."""
    bids, asks = book["bids"][:levels], book["asks"][:levels]
    return orjson.dumps({"lastUpdateId": book["lastUpdateId"], "bids": bids, "asks": asks})


class BookCodec(CombinedCodec):
    """Partial book depth streams, whose events do not say of which symbol they are, nor of when."""

    path = STREAMS_PATH
    messages_per_second = STREAMS_PER_SECOND

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        # By the name at the exchange: the stream, and the number of its newest book.
        self._named: dict[str, tuple[StreamKey, int]] = {}

    def _enter(self, key: StreamKey) -> None:
        self._named[self._name(key)] = (key, -1)

    def _leave(self, key: StreamKey) -> None:
        self._named.pop(self._name(key), None)

    def decode(self, raw: str | bytes) -> Sequence[NativeUpdate | Accepted | Rejected | Closing]:
        """Return the book of an event, or what an answer says; a book that is older than the one before is none."""
        message = orjson.loads(raw)
        name, book = message.get("stream"), message.get("data", message)
        if name not in self._named:
            if book.get("e") == "serverShutdown":
                return (Closing("the provider announced a shutdown"),)
            return () if name is not None else self._answer(message)
        key, newest = self._named[name]
        number, bids, asks = book["lastUpdateId"], book["bids"], book["asks"]
        if type(number) is not int or not (_are_levels(bids) and _are_levels(asks)):
            raise ValueError(f"stream {key}: the event does not have an order book")
        if number < newest:
            return ()
        self._named[name] = (key, number)
        return (NativeUpdate(key, book),)


def _are_levels(levels: object) -> bool:
    """Say whether these are prices and amounts, as texts."""
    return type(levels) is list and all(
        type(level) is list and len(level) == 2 and type(level[0]) is str and type(level[1]) is str for level in levels
    )
