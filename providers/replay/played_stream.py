"""What happened in one recorded stream, moment by moment: no more of a candle than was known then.

Of a candle a recording knows four prices and the volume, not when each price was. While it is open only its open is
told, and what shorter recorded candles of the symbol show that are over. High, low, close and volume are told when its
interval is over. No price is made up.
"""

from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from contextlib import aclosing
from typing import Any, NamedTuple, Protocol

from relay import Candle, ExtendedCandle, PriceUpdate, StreamKey, next_open

PAGE = 500
_COUNTED = ("quote_volume", "trades", "taker_volume", "taker_quote_volume")
_DAY_S = 86_400


class RecordedBounds(Protocol):
    """The open times of the first and the last candle of a stream, in Unix seconds."""

    @property
    def first(self) -> int: ...
    @property
    def last(self) -> int: ...


class Recording(Protocol):
    """The recorded candles of all providers."""

    @property
    def streams(self) -> Mapping[str, Mapping[StreamKey, RecordedBounds]]: ...

    async def read(
        self, provider: str, key: StreamKey, start: int | None, end: int, limit: int
    ) -> Sequence[Candle]:  # fmt: skip
        """Return candles with `start` ≤ open time < `end`, oldest first.

        They are the first `limit`, or without a start the last. Raises `ProviderError`.
        """


class Lasting(NamedTuple):
    """A candle and when it is over: with its interval, or when the next candle opens if that is sooner."""

    candle: Candle
    end: int


class Event(NamedTuple):
    """What happens at a moment, in Unix seconds. At the same moment candles close before others open or move."""

    moment: float
    is_open: bool
    update: PriceUpdate


class StreamRecording:
    """The candles of one stream as they are recorded."""

    def __init__(self, recording: Recording, provider: str, key: StreamKey) -> None:
        self.key = key
        self.bounds = recording.streams[provider][key]
        self._recording = recording
        self._provider = provider

    async def read(self, start: int | None, end: int, limit: int) -> Sequence[Candle]:
        """Return candles as `Recording.read` does."""
        return await self._recording.read(self._provider, self.key, start, end, limit)

    async def lasting(self, start: int, end: int | None = None) -> AsyncGenerator[Lasting, None]:
        """Yield the candles with `start` ≤ open time < `end`, page by page."""
        end = self.bounds.last + 1 if end is None else end
        waiting: Candle | None = None
        while True:
            page = await self.read(start, end, PAGE)
            for candle in page:
                if waiting is not None:
                    yield self.until(waiting, candle)
                waiting = candle
            if len(page) < PAGE:
                break
            start = page[-1].time + 1
        if waiting is not None:
            yield self.until(waiting, None)

    async def within(self, start: int, end: int) -> AsyncGenerator[Lasting, None]:
        """Yield the candles from an open time on that are over before `end`."""
        async with aclosing(self.lasting(start, end)) as candles:
            async for one in candles:
                if one.end >= end:
                    return
                yield one

    def until(self, candle: Candle, following: Candle | None) -> Lasting:
        """Return a candle with its end; `following` is the next one that is recorded."""
        end = next_open(self.key.interval, candle.time)
        return Lasting(candle, end if following is None else min(end, following.time))


class PlayedStream:
    """What is known of one stream at a moment, and what happens in it. `alike` are the streams of its symbol."""

    def __init__(self, recording: Recording, provider: str, key: StreamKey, alike: Iterable[StreamKey]) -> None:
        self.key = key
        self.recorded = StreamRecording(recording, provider, key)
        self._shorter = [
            StreamRecording(recording, provider, one)
            for one in sorted(alike, key=_length, reverse=True)
            if _is_part(one, key)
        ]

    @property
    def ends_at(self) -> int:
        """When the last recorded candle is over, in Unix seconds."""
        return next_open(self.key.interval, self.recorded.bounds.last)

    async def events(self, since: float) -> AsyncGenerator[Event, None]:
        """Yield what is known at `since` of the candle that is open then, and all that happens later."""
        before = await self.recorded.read(None, int(since) + 1, 1)
        first = before[0].time if before else self.recorded.bounds.first
        async with aclosing(self.recorded.lasting(first)) as candles:
            async for candle, end in candles:
                if end <= since:
                    continue
                at = max(since, await self._opens_at(candle, end))
                known, reached = await self._known(candle, end, at)
                yield self._moved(at, known)
                if self._shorter:
                    # The shortest ones show most.
                    async with aclosing(self._shorter[-1].within(reached, end)) as parts:
                        async for part, moment in parts:
                            known = grown(known, part)
                            yield self._moved(moment, known)
                yield Event(end, False, PriceUpdate(self.key, candle, is_closed=True, ts_event_ms=end * 1000))

    def _moved(self, moment: float, candle: Candle) -> Event:
        return Event(moment, True, PriceUpdate(self.key, candle, ts_event_ms=int(moment * 1000)))

    async def known_at(self, now: float, start: int | None, end: int, limit: int) -> list[Candle]:
        """Return what was known at a moment of candles with `start` ≤ open time < `end`, the open one as it was.

        The first `limit` from a start, or without one the last.
        """
        # Of the last ones there is one more if the newest is not known yet.
        more = start is None
        page = [*await self.recorded.read(start, min(end, int(now) + 1), limit + more)]
        if page:
            # Of those that have opened only the last one can be open.
            following = await self.recorded.read(page[-1].time + 1, self.recorded.bounds.last + 1, 1)
            candle, over_at = self.recorded.until(page[-1], following[0] if following else None)
            if over_at > now:
                is_known = now >= await self._opens_at(candle, over_at)
                page[-1:] = [(await self._known(candle, over_at, now))[0]] if is_known else []
        return page[-limit:]

    async def _opens_at(self, candle: Candle, end: int) -> int:
        """Return from when on a candle is known: there may be no trade before the first shorter one in it."""
        first = await self._shorter[-1].read(candle.time, end, 1) if self._shorter else ()
        return first[0].time if first else candle.time

    async def _known(self, candle: Candle, end: int, now: float) -> tuple[Candle, int]:
        """Return what is known at a moment of a candle that is open then, and up to which open time that tells.

        The longer ones among the shorter candles are looked at first: then there are few.
        """
        known, reached = opened(candle), candle.time
        for stream in self._shorter:
            async with aclosing(stream.within(reached, end)) as parts:
                async for part, moment in parts:
                    # Where longer ones are missing shorter ones may be there.
                    if moment > now or (part.time != reached and stream is not self._shorter[-1]):
                        break
                    known, reached = grown(known, part), moment
        return known, reached


def opened(candle: Candle) -> Candle:
    """Return a candle as it is known when it opens: its first price, and no volume."""
    counted = {name: 0 for name in _COUNTED if getattr(candle, name) is not None}
    return _candle(Candle(candle.time, candle.open, candle.open, candle.open, candle.open), counted)


def grown(known: Candle, part: Candle) -> Candle:
    """Return an open candle after a shorter one in it is over; what it carries is known if both carry it."""
    high, low, volume = max(known.high, part.high), min(known.low, part.low), known.volume + part.volume
    both = {name: (getattr(known, name), getattr(part, name)) for name in _COUNTED}
    sums = {name: one + other for name, (one, other) in both.items() if one is not None and other is not None}
    return _candle(Candle(known.time, known.open, high, low, part.close, volume), sums)


def _candle(candle: Candle, carried: Mapping[str, Any]) -> Candle:
    return ExtendedCandle(*candle, **carried) if carried else candle


def _is_part(one: StreamKey, key: StreamKey) -> bool:
    """Say whether candles of one stream lie each within a candle of another."""
    length, longer = _length(one), _length(key)
    if key.interval == "1M":
        return length <= _DAY_S
    return one.interval != "1M" and length < longer and not longer % length


def _length(key: StreamKey) -> int:
    return next_open(key.interval, 0)
