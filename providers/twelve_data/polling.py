"""Polling streams of candles within credits: who is asked when, as planned, and what is told about it."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Iterator, Mapping, MutableMapping, Sequence
from datetime import UTC, datetime
from math import inf
from typing import NamedTuple

from providers.twelve_data.answers import KeyRefused, SeriesAnswer
from providers.twelve_data.credits import Credits, CreditUse
from providers.twelve_data.forex import Hours, expected
from providers.twelve_data.polled import PolledStream
from providers.twelve_data.schedule import is_slow, patience_s
from providers.twelve_data.turns import CreditTurn, Planner
from providers.twelve_data.waits import WAITS, Waits
from relay import Candle, PriceUpdate, ProviderError, RateLimited, StreamKey, Watchlist, event, next_open

log = logging.getLogger(__name__)

MOST_SYMBOLS = 100
"""Our choice below the 120 that the README of https://github.com/twelvedata/twelvedata-python names for a batch."""
_ABOUT_THE_SYMBOL = frozenset({400, 403, 404})
"""Error codes of https://twelvedata.com/docs; recorded ones agree. That is with words of the provider; without them
somebody in front of it refused the call, whatever it was about."""

Ask = Callable[[Sequence[str], str, int], Awaitable[Mapping[str, SeriesAnswer | KeyRefused]]]


class PollCall(NamedTuple):
    """One call: these streams of one interval, at least so many of their newest rows."""

    interval: str
    keys: tuple[StreamKey, ...]
    rows: int


class Given(NamedTuple):
    """What a call brought for one stream."""

    key: StreamKey
    candles: list[Candle]


class SeriesPolls:
    """One feed: asks for each stream when its candles close and as often as the credits last for all.

    `is_answered` says that the provider answers: streams that were polled by an earlier feed go on with it then.
    """

    def __init__(
        self,
        watchlist: Watchlist,
        streams: MutableMapping[StreamKey, PolledStream],
        ask: Ask,
        limits: Credits,
        *,
        poll_s: float,
        hours: Callable[[str], Hours],
        monotonic: Callable[[], float],
        now: Callable[[], float],
        is_answered: bool = False,
        waits: Waits = WAITS,
    ) -> None:
        self._watchlist = watchlist
        self._streams = streams
        self._ask = ask
        self._limits = limits
        self._poll_s = poll_s
        self._hours = hours
        self._monotonic = monotonic
        self._now = now
        self._planner = Planner(streams, limits, poll_s, hours)
        self._wished: dict[StreamKey, tuple[int, float]] = {}
        self._accepted: set[StreamKey] = set()
        self._paused: dict[StreamKey, tuple[str, float]] = {}
        self._is_first_round = True
        # One symbol tries first: after a failure a whole batch each time would eat the day's credits.
        self._is_probing = True
        self._is_answered = is_answered
        self._plan_again_s = waits.plan_s

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
                await asyncio.wait({changed}, timeout=min(wait_s, self._plan_again_s))
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
            stream = self._streams.setdefault(key, PolledStream())
            is_known = self._is_first_round or key in self._wished
            self._forget(key)
            self._wished[key] = (since, now)
            is_silent = stream.is_failing or stream.is_silent(key.interval, self._hours(key.symbol), self._now())
            if is_known and is_silent:
                # It is wanted anew because it is silent: what is known of it is no news, and polls go on as planned.
                continue
            if stream.newest is not None and not is_silent and now - stream.answered < self._poll_s:
                self._accept(key)
                updates.append(PriceUpdate(key, stream.newest, stream.is_closed))
            elif not self._is_first_round:
                stream.forget()
                self._watchlist.expect(key, 0.0)
        self._is_first_round = False
        return updates

    def _forget(self, key: StreamKey) -> None:
        self._wished.pop(key, None)
        self._paused.pop(key, None)
        self._accepted.discard(key)

    def _accept(self, key: StreamKey) -> None:
        """Report that a stream is delivered, unless its answers failed and none had a candle since."""
        if self._streams[key].is_failing:
            return
        rest = self._paused.pop(key, None)
        # A rest ends with an answer, even one without news, but not while the market is closed.
        hours, newest = self._hours(key.symbol), self._streams[key].newest
        is_over = rest is not None and expected(hours, self._now(), newest).is_open(self._now())
        if key not in self._accepted or is_over:
            self._accepted.add(key)
            self._watchlist.accept([key])

    # -- planning ----------------------------------------------------------------------------------

    def plan(self) -> tuple[PollCall | None, float]:
        """Return the poll to make now, or None and the seconds to wait; report what each stream has to expect."""
        at, now = self._monotonic(), self._now()
        turns = self._turns(at, now)
        ready = [turn for turn in turns.values() if turn.due <= at]
        wait_s = min((turn.due - at for turn in turns.values() if turn.due > at), default=inf)
        if not ready:
            return None, wait_s
        ready.sort(key=lambda turn: self._planner.rank(turn, at))
        room = self._limits.available(CreditUse.POLL)
        if room < 1:
            self._report_throttled(ready, at, now)
            return None, min(wait_s, self._limits.wait_for(1, CreditUse.POLL))
        return self._batch(ready, room, now), 0.0

    def _turns(self, at: float, now: float) -> dict[StreamKey, CreditTurn]:
        """Return when each stream is polled next, and report that."""
        keys = self._watchlist.streams
        feeders = self._planner.feeders(keys, at, now)
        turns = self._planner.turns({key: self._wished[key][1] for key in keys}, feeders, at, now)
        for key, turn in turns.items():
            if turn.opens is not None:
                self._pause(key, "market_closed", turn.opens, f"the market is closed; it opens at {_utc(turn.opens)}")
            shown = turns[feeders[key]] if key in feeders else turn
            if shown.due > at:
                self._watchlist.expect(key, shown.due - at, shown.every_s if shown.every_s < inf else None)
                if self._is_answered and key not in self._paused and self._streams[key].newest is not None:
                    # The feed before failed for another stream; this one's next poll brings what closed meanwhile.
                    self._accept(key)
                self._report_slow(key, shown, at, now)
        return turns

    def _batch(self, ready: Sequence[CreditTurn], room: int, now: float) -> PollCall:
        first = ready[0].key
        chosen = {first.symbol: first}
        if not self._is_probing and not self._streams[first].alone:
            for key, _, _, opens in ready[1:]:
                if len(chosen) >= min(room, MOST_SYMBOLS, room if opens is not None else self._planner.spare):
                    break
                if key.interval == first.interval and not self._streams[key].alone:
                    chosen.setdefault(key.symbol, key)
        rows = 2
        for key in chosen.values():
            opens, _ = self._hours(key.symbol).week.session_at(now)
            rows = max(rows, self._streams[key].rows_needed(key.interval, now, opens))
        return PollCall(first.interval, tuple(chosen.values()), rows)

    def _report_throttled(self, ready: Sequence[CreditTurn], at: float, now: float) -> None:
        """Report until when streams have to wait for credits, and which of them much longer than planned."""
        wait_s = self._limits.wait_for(1, CreditUse.POLL)
        why = self._limits.shortage(1, CreditUse.POLL)
        built: dict[StreamKey, list[StreamKey]] = {}
        for other, feeder in self._planner.feeders(self._watchlist.streams, at, now).items():
            built.setdefault(feeder, []).append(other)
        for key, due, every_s, opens in ready:
            for waiting in (key, *built.get(key, ())):
                self._watchlist.expect(waiting, wait_s, every_s if every_s < inf else None)
            if opens is not None:
                # It rests for a longer reason.
                continue
            is_known = self._streams[key].newest is not None
            if at + wait_s - due > (patience_s(key.interval) if is_known else self._poll_s):
                self._pause(key, "throttled", now + wait_s, f"{why}; the next poll is at {_utc(now + wait_s)}")
            elif is_known and self._is_answered and key not in self._paused:
                self._accept(key)

    def _report_slow(self, key: StreamKey, turn: CreditTurn, at: float, now: float) -> None:
        """Report a stream for which the credits allow so few polls that it is not live."""
        is_resting = key in self._paused and self._paused[key][0] == "market_closed"
        wait_s = turn.due - at
        period = wait_s if turn.every_s == inf else turn.every_s
        is_known = self._streams[key].newest is not None
        if is_resting or not (is_slow(key.interval, period) if is_known else wait_s > self._poll_s):
            return
        pace = "one more poll" if turn.every_s == inf else f"a poll every {period / 60:.0f} min"
        self._pause(
            key, "throttled", now + wait_s, f"the credits allow {pace}; the next poll is at {_utc(now + wait_s)}"
        )

    def _pause(self, key: StreamKey, status: str, until: float, message: str) -> None:
        """Report a rest once; again only when its end has moved by more than a minute."""
        before = self._paused.get(key)
        if before is None or before[0] != status or abs(before[1] - until) > 60:
            self._paused[key] = (status, until)
            self._watchlist.pause(key, status, message)

    # -- asking ------------------------------------------------------------------------------------

    def take(self, given: Iterable[Given]) -> Iterator[PriceUpdate]:
        """Yield what is new in what a call brought, unless nobody wants it any more."""
        at, now = self._monotonic(), self._now()
        # A stream may be wanted since a moment ago, and not be known yet.
        feeders = self._planner.feeders([key for key in self._watchlist.streams if key in self._wished], at, now)
        for key, candles in given:
            if key not in self._watchlist:
                continue
            # Nothing has to be asked for: the answer is here.
            self._watchlist.expect(key, self._poll_s)
            stream = self._streams[key]
            candles, is_followed = stream.readable(key, candles, now)
            if candles:
                stream.is_failing = False
            self._accept(key)
            if stream.built:
                yield from self._check(key, candles, at, now)
            if candles and stream.covered is None:
                stream.covered = stream.asked
            yield from stream.take(key, candles, now, is_followed=is_followed)
            for other in [other for other, feeder in feeders.items() if feeder == key and other in self._watchlist]:
                # Not where this answer left out a candle: the provider is asked for the larger one.
                if self._streams[other].can_be_built(other, stream, key.interval, at):
                    self._accept(other)
                    yield from self._streams[other].build(other, candles, now, key.interval, self._hours(key.symbol))

    def _check(self, key: StreamKey, candles: Sequence[Candle], at: float, now: float) -> Iterator[PriceUpdate]:
        """Compare what was built since the last time; the provider's values stand."""
        stream = self._streams[key]
        differing, has_agreed = stream.compare(key, candles)
        stream.checked = now
        yield from differing
        if not has_agreed:
            stream.wronged = at
            stream.built.clear()
            log.warning(
                "%s: candles built from smaller ones differ from the provider's; polling this stream itself",
                key,
                extra=event("built_candles_differ", provider="twelve_data", stream=str(key)),
            )

    async def ask(self, poll: PollCall) -> list[Given]:
        """Make one call; return what it brought for its streams.

        Raises what concerns all streams, except `RateLimited`: then the credits know how long to wait.
        """
        asked = self._monotonic()
        turns = self._turns(asked, self._now())
        try:
            answers = await self._ask([key.symbol for key in poll.keys], poll.interval, poll.rows)
        except RateLimited:
            return []
        except BaseException as error:
            self._is_probing = True
            if isinstance(error, ProviderError):
                # Failing calls may cost credits too, so they follow the plan.
                for key in poll.keys:
                    self._note_asked(self._streams[key], asked, turns.get(key))
                    self._fail(key)
            raise
        self._is_probing = False
        self._is_answered = True
        given: list[Given] = []
        broken: list[KeyRefused] = []
        # The same refusal for all may be about one of them: each is asked alone to find out.
        refusals = {None if isinstance(answer, SeriesAnswer) else repr(answer) for answer in answers.values()}
        is_blamed_on_all = len(poll.keys) > 1 and len(refusals) == 1
        for place, key in enumerate(poll.keys):
            answer = answers[key.symbol]
            stream = self._streams[key]
            stream.place = place
            if isinstance(answer, SeriesAnswer) or answer.is_empty:
                self._note_asked(stream, asked, turns.get(key))
                stream.answered, stream.alone = self._monotonic(), False
                if isinstance(answer, SeriesAnswer) and answer.spoilt:
                    self._watchlist.skip(f"{key}: invalid rows: {answer.spoilt}")
                given.append(Given(key, answer.candles if isinstance(answer, SeriesAnswer) else []))
            elif answer.code == 429:
                # The credits know by now how long to wait.
                continue
            elif answer.code == 401:
                raise answer.error()
            elif answer.code not in _ABOUT_THE_SYMBOL or not answer.message:
                self._note_asked(stream, asked, turns.get(key))
                self._fail(key)
                broken.append(answer)
                self._watchlist.skip(f"{key}: error {answer.code}: {answer.message}")
            elif is_blamed_on_all:
                stream.alone = True
            else:
                self._fail(key)
                self._watchlist.reject(key, f"the provider refused {key.symbol}: {answer.message}")
        if len(broken) == len(poll.keys) and not self._is_delivering():
            raise broken[0].error()
        return given

    def _fail(self, key: StreamKey) -> None:
        self._streams[key].is_failing = True

    def _is_delivering(self) -> bool:
        """Say whether some stream is answered as it should be: then what is wrong with others is no end of the feed."""
        return any(not self._streams[key].is_failing for key in self._accepted)

    def _note_asked(self, stream: PolledStream, asked: float, turn: CreditTurn | None) -> None:
        """Reckon the next poll from the planned moment, so that waiting for a close costs no credit in the long run."""
        stream.asked = asked
        stream.fruitless += 1
        every_s = 0.0 if turn is None else turn.every_s
        if stream.anchor is None or turn is None or not next_open(turn.key.interval, 0) <= every_s < inf:
            stream.anchor = asked
        else:
            stream.anchor = min(max(stream.anchor + every_s, asked - every_s / 2), asked + every_s / 2)


def _utc(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
