"""Polling streams of candles within credits: who is asked when, and what the answers mean for each stream."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Iterator, Mapping, MutableMapping, Sequence
from datetime import UTC, datetime
from typing import NamedTuple

from providers.credits import Credits
from providers.forex import last_close, session_at
from relay import (
    AuthenticationFailed,
    BadAnswer,
    Candle,
    PriceUpdate,
    ProviderError,
    ProviderUnavailable,
    RateLimited,
    StreamKey,
    UnknownSymbol,
    Watchlist,
    next_open,
)

# A bar of the past may still change a little after its end.
SETTLE_S = 60.0
MOST_SYMBOLS = 100
_MOST_ROWS = 5000
_LONGEST_SLEEP_S = 30.0
_REFUSED_FOR_GOOD = frozenset({400, 403, 404})


class Series(NamedTuple):
    """What one answer holds of one symbol: rows in it, the first open time, rows that made no sense, and candles."""

    rows: int
    oldest: int
    spoilt: int
    candles: list[Candle]


class Refused(NamedTuple):
    """An error instead of candles; code 0 for an answer that makes no sense."""

    code: int
    message: str

    @property
    def is_empty(self) -> bool:
        """Say whether it only means that there is nothing in the range."""
        return self.code in (400, 404, 422) and self.message.lower().startswith("no data")

    def error(self) -> ProviderError:
        """Build the error to raise when it concerns the whole request."""
        if self.code == 401:
            return AuthenticationFailed(f"the key was refused: {self.message}")
        if self.code >= 500:
            return ProviderUnavailable(f"error {self.code}: {self.message}")
        if self.code == 404:
            return UnknownSymbol(self.message)
        return BadAnswer(f"error {self.code}: {self.message}" if self.code else self.message)


Ask = Callable[[Sequence[str], str, int], Awaitable[Mapping[str, Series | Refused]]]


class PolledStream:
    """What is known of one stream between two polls; outlives the feed, so nothing between two feeds is lost."""

    __slots__ = ("alone", "answered", "asked", "is_closed", "newest", "place", "previous")

    def __init__(self) -> None:
        self.asked = float("-inf")
        self.place = 0
        self.answered = float("-inf")
        self.newest: Candle | None = None
        self.is_closed = False
        self.previous: Candle | None = None
        self.alone = False

    def rows_needed(self, interval: str, now: float, session_start: float) -> int:
        """Return how many of the newest rows reach back to the last candle seen."""
        if self.newest is None:
            return 2
        since = max(self.newest.time, session_start) if self.is_closed else self.newest.time
        length = next_open(interval, 0)
        return max(2, min(_MOST_ROWS, int((now - since) // length) + 2))

    def take(self, key: StreamKey, candles: Sequence[Candle], now: float) -> Iterator[PriceUpdate]:
        """Yield what is new in an answer (oldest first, at provider time `now`), and remember what was yielded.

        A candle is closed when a later one is there, or when its interval ended a while ago. The values of the one
        before the newest come with each answer, so a late change of it is noticed.
        """
        for place, candle in enumerate(candles):
            is_closed = place < len(candles) - 1 or now >= next_open(key.interval, candle.time) + SETTLE_S
            newest = self.newest
            if newest is None:
                if place < len(candles) - 1:
                    self.previous = candle
                    continue
            elif candle.time < newest.time:
                if self.previous is not None and candle.time == self.previous.time and candle != self.previous:
                    self.previous = candle
                    yield PriceUpdate(key, candle, is_closed=True)
                continue
            elif candle.time == newest.time and self.is_closed and (candle == newest or not is_closed):
                continue
            elif candle.time > newest.time:
                self.previous = newest
            self.newest, self.is_closed = candle, is_closed
            yield PriceUpdate(key, candle, is_closed=is_closed)


class Poll(NamedTuple):
    """One call: these streams of one interval, at least so many of their newest rows."""

    interval: str
    keys: tuple[StreamKey, ...]
    rows: int


class Given(NamedTuple):
    """What a call brought for one stream."""

    key: StreamKey
    candles: list[Candle]


class Polls:
    """One feed: asks for the stream that waited longest, with others of its interval, as credits and hours allow."""

    def __init__(
        self,
        watchlist: Watchlist,
        streams: MutableMapping[StreamKey, PolledStream],
        ask: Ask,
        limits: Credits,
        *,
        poll_s: float,
        reserve: int,
        keeps_hours: Callable[[str], bool],
        monotonic: Callable[[], float],
        now: Callable[[], float],
    ) -> None:
        self._watchlist = watchlist
        self._streams = streams
        self._ask = ask
        self._limits = limits
        self._poll_s = poll_s
        self._reserve = reserve
        self._keeps_hours = keeps_hours
        self._monotonic = monotonic
        self._now = now
        self._wished: dict[StreamKey, tuple[int, float]] = {}
        self._accepted: set[StreamKey] = set()
        self._paused: dict[StreamKey, tuple[str, float]] = {}
        self._is_first_round = True
        # One symbol tries first: after a failure a whole batch each time would eat the day's credits.
        self._is_probing = True

    async def updates(self) -> AsyncGenerator[PriceUpdate, None]:
        """Yield what the polls bring, until cancelled; raise what the supervisor has to wait for."""
        changed: asyncio.Task[int] | None = None
        try:
            while True:
                version = self._watchlist.version
                for update in self.note_wishes():
                    yield update
                poll, wait_s = self.plan()
                if poll is not None:
                    for update in self.take(await self.ask(poll)):
                        yield update
                    continue
                if changed is None or changed.done():
                    changed = asyncio.create_task(self._watchlist.changed(version))
                await asyncio.wait({changed}, timeout=min(wait_s, _LONGEST_SLEEP_S))
        finally:
            if changed is not None:
                changed.cancel()
                await asyncio.gather(changed, return_exceptions=True)

    def note_wishes(self) -> list[PriceUpdate]:
        """Notice streams that came and went; what was polled a moment ago is served again without a credit."""
        updates = []
        now = self._monotonic()
        for key in [key for key in self._wished if key not in self._watchlist]:
            self._forget(key)
        for key in self._watchlist.streams:
            since = self._watchlist.wanted_since(key)
            if key in self._wished and self._wished[key][0] == since:
                continue
            self._forget(key)
            self._wished[key] = (since, now)
            stream = self._streams.setdefault(key, PolledStream())
            if stream.newest is not None and now - stream.answered < self._poll_s:
                self._accept(key)
                updates.append(PriceUpdate(key, stream.newest, stream.is_closed))
            elif not self._is_first_round:
                # Nobody watched it meanwhile, so nobody misses what happened.
                stream.newest = stream.previous = None
        self._is_first_round = False
        return updates

    def _forget(self, key: StreamKey) -> None:
        self._wished.pop(key, None)
        self._paused.pop(key, None)
        self._accepted.discard(key)

    def _accept(self, key: StreamKey) -> None:
        self._paused.pop(key, None)
        if key not in self._accepted:
            self._accepted.add(key)
            self._watchlist.accept([key])

    def plan(self) -> tuple[Poll | None, float]:
        """Return the poll to make now, or None and the seconds to wait; report the streams that rest."""
        at, now = self._monotonic(), self._now()
        opens, _ = session_at(now)
        wait_s = float("inf")
        ready: list[tuple[PolledStream, float, StreamKey]] = []
        for key in self._watchlist.streams:
            due = self._due(key, at, now, opens)
            if due <= at:
                ready.append((self._streams[key], due, key))
            else:
                wait_s = min(wait_s, due - at)
        if not ready:
            return None, wait_s
        # Among those asked together the order of that call decides, else a part of them would fall behind each time.
        ready.sort(key=lambda entry: (entry[0].asked, entry[0].place))
        room = self._limits.available(self._reserve)
        if room < 1:
            self._report_throttled(ready, at, now)
            return None, min(wait_s, self._limits.wait_for(1, self._reserve))
        return self._batch([key for _, _, key in ready], room, now, opens), 0.0

    def _due(self, key: StreamKey, at: float, now: float, opens: int) -> float:
        """Return the moment of the next poll, by the monotonic clock; it lies after the weekend when there is one."""
        stream = self._streams[key]
        due = max(stream.asked + self._poll_s, self._wished[key][1])
        if now >= opens or not self._keeps_hours(key.symbol):
            return due
        self._pause(key, "market_closed", opens, f"the market is closed, opens {_utc(opens)}")
        resume: float = opens
        if stream.newest is not None and not stream.is_closed:
            # Its last candle has still to be fetched once more, as it is when everything is over.
            over = max(last_close(now), next_open(key.interval, stream.newest.time))
            resume = min(opens, over + SETTLE_S)
        return max(due, at + resume - now)

    def _batch(self, keys: Sequence[StreamKey], room: int, now: float, opens: int) -> Poll:
        first = keys[0]
        chosen = {first.symbol: first}
        if not self._is_probing and not self._streams[first].alone:
            for key in keys[1:]:
                if len(chosen) >= min(room, MOST_SYMBOLS):
                    break
                if key.interval == first.interval and not self._streams[key].alone:
                    chosen.setdefault(key.symbol, key)
        rows = 2
        for key in chosen.values():
            since = opens if self._keeps_hours(key.symbol) else 0
            rows = max(rows, self._streams[key].rows_needed(key.interval, now, since))
        return Poll(first.interval, tuple(chosen.values()), rows)

    def _report_throttled(self, ready: Sequence[tuple[PolledStream, float, StreamKey]], at: float, now: float) -> None:
        waits = self._limits.waits(len(ready), self._reserve)
        for place, (wait_s, (_, due, key)) in enumerate(zip(waits, ready, strict=True), start=1):
            if at + wait_s - due > self._poll_s:
                why = self._limits.shortage(place, self._reserve)
                self._pause(key, "throttled", now + wait_s, f"{why}, next poll until {_utc(now + wait_s)}")

    def _pause(self, key: StreamKey, status: str, until: float, message: str) -> None:
        """Report a rest once; again only when its end has moved by more than a minute."""
        before = self._paused.get(key)
        if before is None or before[0] != status or abs(before[1] - until) > 60:
            self._paused[key] = (status, until)
            self._watchlist.pause(key, status, message)

    def take(self, given: Iterable[Given]) -> Iterator[PriceUpdate]:
        """Yield what is new in what a call brought, unless nobody wants it any more."""
        for key, candles in given:
            if key in self._watchlist:
                self._accept(key)
                yield from self._streams[key].take(key, candles, self._now())

    async def ask(self, poll: Poll) -> list[Given]:
        """Make one call; return what it brought for its streams.

        Raises what concerns all streams, except `RateLimited`: then the credits know how long to wait.
        """
        asked = self._monotonic()
        try:
            answers = await self._ask([key.symbol for key in poll.keys], poll.interval, poll.rows)
        except RateLimited:
            return []
        except BaseException:
            self._is_probing = True
            raise
        self._is_probing = False
        given: list[Given] = []
        broken: list[Refused] = []
        # The same refusal for all may be about one of them: each is asked alone to find out.
        is_blamed_on_all = len(poll.keys) > 1 and len({repr(answer) for answer in answers.values()}) == 1
        for place, key in enumerate(poll.keys):
            answer = answers[key.symbol]
            stream = self._streams[key]
            stream.place = place
            if isinstance(answer, Series) or answer.is_empty:
                stream.asked, stream.answered, stream.alone = asked, self._monotonic(), False
                if isinstance(answer, Series) and answer.spoilt:
                    self._watchlist.skip(f"{key}: {answer.spoilt} rows made no sense")
                given.append(Given(key, answer.candles if isinstance(answer, Series) else []))
            elif answer.code == 429:
                self._limits.exhaust_minute()
            elif answer.code == 401:
                raise answer.error()
            elif answer.code not in _REFUSED_FOR_GOOD:
                stream.asked = asked
                broken.append(answer)
                self._watchlist.skip(f"{key}: error {answer.code}: {answer.message}")
            elif is_blamed_on_all:
                stream.alone = True
            else:
                self._watchlist.reject(key, f"the provider refused {key.symbol}: {answer.message}")
        if len(broken) == len(poll.keys):
            raise broken[0].error()
        return given


def _utc(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
