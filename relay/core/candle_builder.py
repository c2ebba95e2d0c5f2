"""Candles that the relay builds: from ticks, and larger ones from smaller ones. Pure: no I/O, no clock."""

import math
from collections.abc import Callable, Iterable
from decimal import Decimal
from typing import NamedTuple

from relay.core.candle_sum import CandleSum
from relay.core.intervals import Opens, end_of, opens_of
from relay.core.model import Candle, is_widened

MOST_SILENT = 1000
"""Silent intervals that are told as flat candles at once; after more of them the next tick begins anew."""


def enlarge(
    candles: Iterable[Candle], interval: str, *, since: int | None = None, opens: Opens | None = None
) -> list[Candle]:
    """Merge smaller candles, oldest first, into candles of `interval`; ones that are missing add nothing.

    Whether a result is finished or whole cannot be told from its values. The last one is unfinished unless the smaller
    candles reach its end. With `since`, the moment from which on no smaller candle is missing, results that opened
    earlier are left out; otherwise the first may lack its beginning. `opens` gives open times where the provider's
    differ from UTC days, weeks from Monday and months from the first. A smaller candle has to lie within a larger one.

    The result does not depend on the steps: minutes to hours to days is minutes to days. Volumes are added as the
    decimal numbers that they are, exactly up to 15 digits, and so is what candles carry beside them: where one of them
    lacks a value, the larger one has none. Raises `ValueError` when the candles are not oldest first.
    """
    opens = opens or opens_of(interval)
    merged: list[CandleSum] = []
    newest = None
    for candle in candles:
        if newest is not None and candle.time <= newest:
            raise ValueError(f"candles are merged oldest first: {candle.time} comes after {newest}")
        newest = candle.time
        opened = opens(newest)
        if since is not None and opened < since:
            continue
        if not merged or merged[-1].opened != opened:
            merged.append(CandleSum(opened))
        merged[-1].add(candle)
    return [one.candle() for one in merged]


def _add(one: float, other: float) -> float:
    if not one or not other:
        return one or other
    return float(Decimal(repr(one)) + Decimal(repr(other)))


class Built(NamedTuple):
    """A candle as far as it is built; `stamp` is the moment of its newest tick.

    `is_whole` says that nothing of it was missed. One that is closed and not whole lacks its beginning, or a part that
    passed while no ticks came in: ask the provider for it instead of telling it as closed.
    """

    candle: Candle
    is_closed: bool
    is_whole: bool
    stamp: float


class _Growing:
    """A candle that still changes; `first` and `last` are the moments of the ticks that open and close it."""

    __slots__ = ("close", "first", "high", "is_whole", "last", "low", "open", "volume", "volumes")

    def __init__(self, moment: float, price: float, *, is_whole: bool) -> None:
        self.open = self.high = self.low = self.close = price
        self.first = self.last = moment
        self.volume = 0.0
        self.is_whole = is_whole
        # Needed to tell what the provider's state of an incomplete candle holds already.
        self.volumes: list[tuple[float, float]] = []

    def add(self, moment: float, price: float, volume: float) -> None:
        if price > self.high:
            self.high = price
        if price < self.low:
            self.low = price
        # Of ticks with the same moment the order of arrival decides.
        if moment >= self.last:
            self.last, self.close = moment, price
        if moment < self.first:
            self.first, self.open = moment, price
        if volume:
            self.volume = _add(self.volume, volume)
            if not self.is_whole:
                self.volumes.append((moment, volume))

    def complete(self, candle: Candle, moment: float, since: float) -> None:
        self.first, self.open = min(self.first, float(candle.time)), candle.open
        self.high, self.low = max(self.high, candle.high), min(self.low, candle.low)
        if moment >= self.last:
            self.last, self.close = moment, candle.close
        if not self.is_whole:
            self.volumes = [(at, volume) for at, volume in self.volumes if at > moment]
            self.volume = candle.volume
            for _, volume in self.volumes:
                self.volume = _add(self.volume, volume)
            self.is_whole = moment >= since

    def built(self, opened: int, *, is_closed: bool) -> Built:
        candle = Candle(opened, self.open, self.high, self.low, self.close, self.volume)
        return Built(candle, is_closed, self.is_whole, self.last)


class CandleBuilder:
    """Builds the candles of one stream from its ticks; what the methods return is in order, one candle at a time.

    A candle is closed once `grace_s` has passed after its end, whether or not a later tick came; a tick that belongs to
    it and arrives within the grace still counts, and nothing of a later candle is returned before. A `moment` is the
    provider's, in Unix seconds; `now` is its time, which a tick's stamp is not. All ticks stamped `since` or later are
    seen (infinity: none for sure); say so anew with `resume` when a connection was lost.

    With `closes` false nothing is closed by the time, only by `settle`.

    An interval without a tick has no candle; with `flat` it has one at the last price without volume, as long as no
    tick can have been missed. `is_open` says whether the market is open at a moment: ticks at other times are left out
    and counted in `outside`. Ticks of candles that are closed already are left out and counted in `late`.
    """

    def __init__(
        self,
        interval: str,
        since: float,
        *,
        grace_s: float = 1.0,
        closes: bool = True,
        flat: bool = False,
        opens: Opens | None = None,
        is_open: Callable[[int], bool] | None = None,
    ) -> None:
        self.interval = interval
        self.since = since
        self.late = self.outside = 0
        self._grace_s = grace_s
        self._closes = closes
        self._flat = flat
        self._opens = opens or opens_of(interval)
        self._is_open = is_open
        self._growing: dict[int, _Growing] = {}
        # Where ticks begin, nothing earlier is waited for.
        self._told_until = self._opens(int(since // 1)) if math.isfinite(since) else 0
        self._closed_until = 0
        self._last: float | None = None

    def add(self, moment: float, price: float, volume: float = 0.0, *, now: float) -> list[Built]:
        """Take one tick, stamped `moment`: its `price`, and the `volume` that was traded with it.

        Returns what `advance` does at `now`, and the candle that the tick changes unless that one has to wait.
        """
        told = self.advance(now)
        second = int(moment // 1)
        opened = self._opens(second)
        if opened < self._told_until:
            self.late += 1
            return told
        if self._is_open is not None and not self._is_open(second):
            self.outside += 1
            return told
        growing = self._growing.get(opened)
        if growing is None:
            growing = self._growing[opened] = _Growing(moment, price, is_whole=opened >= self.since)
        growing.add(moment, price, volume)
        return self._changed(told, opened, now)

    def advance(self, now: float) -> list[Built]:
        """Close what is over at `now`; a candle that waited for that, or for the grace to pass, comes behind it."""
        told: list[Built] = []
        silent = 0
        while (opened := self._oldest()) is not None and self._close_at(opened) <= now:
            growing = self._growing.pop(opened, None)
            if growing is None:
                silent += 1
                if self._last is None or silent > MOST_SILENT:
                    self._last = None
                    continue
                growing = _Growing(float(opened), self._last, is_whole=True)
            self._note_end(opened, growing.close)
            told.append(growing.built(opened, is_closed=True))
        waiting = self._oldest()
        if told or (waiting is not None and waiting > self._told_until):
            told += self._state(now)
        return told

    def due_at(self) -> float | None:
        """Return when `advance` will have something to return, in Unix seconds, None if it takes a tick."""
        opened = self._oldest()
        if opened is None:
            return None
        waits = opened > self._told_until and opened in self._growing
        due = opened + self._grace_s if waits else self._close_at(opened)
        return due if due < math.inf else None

    def complete(self, candle: Candle, moment: float, *, now: float) -> list[Built]:
        """Take the provider's own state, at `moment`, of a candle that is still open; return what it makes of ours.

        What is over at `now` is closed before. One that had to be widened is left out: what was taken into high and low
        cannot be taken out again. The candle is whole from then on if ticks were seen ever since `moment`.
        """
        told = self.advance(now)
        opened = candle.time
        if opened < self._told_until or is_widened(candle):
            return told
        growing = self._growing.get(opened)
        if growing is None:
            growing = _Growing(float(opened), candle.open, is_whole=opened >= self.since)
            self._growing[opened] = growing
        growing.complete(candle, moment, self.since)
        return self._changed(told, opened, now)

    def settle(self, candle: Candle, *, now: float) -> list[Built]:
        """Take the final values of a candle from elsewhere: neither it nor an earlier one is returned any more.

        Returns the candle that follows, as it is at `now`, if it waited for this.
        """
        if candle.time < self._closed_until:
            return []
        for opened in [opened for opened in self._growing if opened <= candle.time]:
            del self._growing[opened]
        self._note_end(candle.time, candle.close)
        return self._state(now)

    def resume(self, since: float) -> None:
        """Go on after ticks may have been missed until `since`: candles that opened earlier are not whole any more."""
        self.since = since
        self._last = None
        for opened, growing in self._growing.items():
            growing.is_whole = growing.is_whole and opened >= since

    def _changed(self, told: list[Built], opened: int, now: float) -> list[Built]:
        if opened != self._oldest():
            return told
        return [built for built in told if built.is_closed] + self._state(now)

    def _state(self, now: float) -> list[Built]:
        """Return the oldest candle that grows, unless ticks of an earlier one may still come."""
        opened = self._oldest()
        growing = None if opened is None else self._growing.get(opened)
        if opened is None or growing is None or (opened > self._told_until and now < opened + self._grace_s):
            return []
        self._told_until = opened
        return [growing.built(opened, is_closed=False)]

    def _oldest(self) -> int | None:
        """Return the open time of the candle to be closed next: one that grows, or a silent one before it."""
        opened = min(self._growing, default=None)
        silent = self._closed_until
        if not self._flat or self._last is None or silent < self.since or (opened is not None and opened <= silent):
            return opened
        # The price before the market closed says nothing of the time after it: the first tick then begins anew.
        is_open = self._is_open is None or self._is_open(silent) or self._is_open(self._end(silent) - 1)
        return silent if is_open else opened

    def _close_at(self, opened: int) -> float:
        return self._end(opened) + self._grace_s if self._closes else math.inf

    def _end(self, opened: int) -> int:
        return end_of(self.interval, self._opens, opened)

    def _note_end(self, opened: int, price: float) -> None:
        self._last = price
        self._told_until = self._closed_until = self._end(opened)
