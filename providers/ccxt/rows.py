"""Rows of candles as ccxt gives them, and which of them are closed; pure."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from relay import Candle, PriceUpdate, StreamKey


def read_row(row: Sequence[Any]) -> Candle:
    """Return a candle of a row: time in ms, open, high, low, close, volume; None if the exchange gives no volume.

    Raises `LookupError`, `TypeError` or `ValueError`.
    """
    time, rest = divmod(int(row[0]), 1000)
    if rest:
        raise ValueError(f"{row[0]} is not an open time in milliseconds")
    return Candle(time, float(row[1]), float(row[2]), float(row[3]), float(row[4]), float(row[5] or 0.0))


def read_rows_of(rows: Iterable[Sequence[Any]]) -> list[Candle]:
    """Return the candles of an answer, oldest first, each open time once; rows without prices are left out.

    ccxt writes None for what it cannot read, and some exchanges have rows of intervals without trades.
    """
    found = {}
    for row in rows:
        if len(row) >= 6 and None not in row[:5]:
            candle = read_row(row)
            found[candle.time] = candle
    return [found[time] for time in sorted(found)]


class FinalStates:
    """Tells which states of one stream's candles are final: those before a newer one.

    With `hears_all` the state that was heard last counts, if the newer candle comes alone: on a connection that lost
    nothing in between. Else, as with polls, only what comes together with the newer one.

    ccxt keeps what came, and gives the last rows of that. One that cannot be read, or that is older, hides the newest
    until the next candle begins: then what was heard last does not count.
    """

    def __init__(self, key: StreamKey, *, hears_all: bool) -> None:
        self._key = key
        self._hears_all = hears_all
        self._newest: Candle | None = None
        self._is_hidden = False

    def forget(self) -> None:
        """Begin anew: what was heard of the newest candle may not be all of it."""
        self._newest = None

    def take(self, candles: Sequence[Candle]) -> Iterator[PriceUpdate]:
        """Yield what is new in an answer, oldest first. The first one after a loss says nothing of earlier candles."""
        before = self._newest
        if not candles or (before is not None and candles[-1].time < before.time):
            self._is_hidden = True
            return
        self._newest = candles[-1]
        hears_all, self._is_hidden = self._hears_all and not self._is_hidden, False
        if before is not None:
            final = [candle for candle in candles[:-1] if candle.time >= before.time]
            if hears_all and candles[-1].time > before.time and (not final or final[0].time > before.time):
                final.insert(0, before)
            for candle in final:
                yield PriceUpdate(self._key, candle, is_closed=True)
        yield PriceUpdate(self._key, self._newest)
