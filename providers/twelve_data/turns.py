"""Whose turn it is to be polled, and when: the plan applied to what is known of each stream; pure but for a promise."""

from collections.abc import Callable, Mapping, Sequence
from math import inf
from typing import NamedTuple

from providers.twelve_data.credits import Credits, CreditUse
from providers.twelve_data.forex import Hours, expected, has_same_day
from providers.twelve_data.polled import SETTLE_S, PolledStream
from providers.twelve_data.schedule import (
    CHECK_EVERY_S,
    DELAY_S,
    Means,
    PollLine,
    aligned,
    closing_polls,
    is_slow,
    next_check,
    periods,
    promised,
)
from relay import StreamKey, next_open

HOLIDAY_POLL_S = 3600.0
"""Our choice: so often a stream is asked for on a holiday; once it has brought a candle, as on any day."""
MOST_SPARE = 1 << 40
"""Our choice: more credits than any plan has."""


class CreditTurn(NamedTuple):
    """When a stream is to be polled next, by the monotonic clock, and how often it is from now on.

    `opens` is when its market opens, None while that is open.
    """

    key: StreamKey
    due: float
    every_s: float
    opens: int | None = None


class Planner:
    """Shares the credits of polls among streams; promises the part of the day that history has to leave.

    `spare` is how many credits polls may spend before the sessions that end today are over: the rest is for their last
    candles.
    """

    def __init__(
        self,
        streams: Mapping[StreamKey, PolledStream],
        limits: Credits,
        poll_s: float,
        hours: Callable[[str], Hours],
    ) -> None:
        self._streams = streams
        self._limits = limits
        self._poll_s = poll_s
        self._hours = hours
        self.spare = MOST_SPARE

    def feeders(self, keys: Sequence[StreamKey], at: float, now: float) -> dict[StreamKey, StreamKey]:
        """Return from which stream another one of the same symbol can be built; `now` is the provider's time."""
        smallest: dict[str, StreamKey] = {}
        for key in keys:
            before = smallest.get(key.symbol)
            if before is None or next_open(key.interval, 0) < next_open(before.interval, 0):
                smallest[key.symbol] = key
        feeders = {}
        for key in keys:
            feeder = smallest[key.symbol]
            stream = self._streams[key]
            if (
                feeder != key
                and stream.can_be_built(key, self._streams[feeder], feeder.interval, at)
                and stream.newest is not None
                # After a change of clocks the provider says where candles open.
                and has_same_day(stream.newest.time, now, self._hours(key.symbol))
            ):
                feeders[key] = feeder
        return feeders

    def turns(
        self, wished: Mapping[StreamKey, float], feeders: Mapping[StreamKey, StreamKey], at: float, now: float
    ) -> dict[StreamKey, CreditTurn]:
        """Return the turn of each stream; `wished` says since when it is wanted, by the monotonic clock `at`.

        Streams that are built from others have a turn when they are compared with the provider's candles.
        """
        lines = {
            key: PollLine(key.interval, expected(self._hours(key.symbol), now, self._streams[key].newest))
            for key in wished
        }
        own = {key: line for key, line in lines.items() if key not in feeders}
        means = Means(
            self._limits.per_minute - self._limits.per_minute // 4,
            self._limits.left_today(CreditUse.POLL) if self._limits.is_day_limited else None,
            self._poll_s,
        )
        chosen = list(own.values())
        self.spare = MOST_SPARE if means.today is None else max(0, means.today - closing_polls([*lines.values()], now))
        self._limits.promise(promised(chosen, self._limits.per_day, self._poll_s, now))
        every_s = dict(zip(own, periods(chosen, means, now), strict=True))
        return {key: self._turn(key, line, every_s.get(key), wished[key], at, now) for key, line in lines.items()}

    def rank(self, turn: CreditTurn, at: float) -> tuple[bool, int, float, int]:
        """Order those that are due: what is late by a whole round, then finer candles, then who waits longest."""
        stream = self._streams[turn.key]
        is_late = stream.anchor is None or at - turn.due > turn.every_s
        # Among those asked together the order of that call decides, else a part of them would fall behind each time.
        return not is_late, next_open(turn.key.interval, 0), stream.asked, stream.place

    def _turn(
        self, key: StreamKey, line: PollLine, every_s: float | None, wished: float, at: float, now: float
    ) -> CreditTurn:
        """Return when a stream is polled next; it lies after the weekend when there is one."""
        stream = self._streams[key]
        opens, close = line.hours.session_at(now)
        usual_s = self._poll_s if every_s is None else every_s
        if now < opens:
            resume = opens + DELAY_S
            is_asked = stream.anchor is not None and stream.answered >= stream.asked
            if not is_asked and stream.newest is None and now < line.hours.last_close(now) + line.length_s:
                # The candle in which the market closed may still be open: nobody else would close it.
                return CreditTurn(key, max(stream.asked + stream.pause_s(self._poll_s), wished), usual_s, opens)
            if stream.newest is not None and not stream.is_closed:
                # Its last candle has still to be fetched once more, as it is when everything is over.
                over = max(line.hours.last_close(now), next_open(key.interval, stream.newest.time))
                resume = min(resume, over + SETTLE_S)
            due = max(stream.asked + stream.pause_s(self._poll_s), at + resume - now)
            if self._hours(key.symbol).week.is_open(now):
                # That it is a holiday is assumed.
                due = min(due, stream.asked + HOLIDAY_POLL_S)
            return CreditTurn(key, max(due, wished), usual_s, opens)
        earliest = max(stream.asked + self._poll_s, wished, at + opens + DELAY_S - now)
        if not self.spare and self._limits.left_today(CreditUse.POLL) > 0:
            return CreditTurn(key, max(earliest, at + close - now + SETTLE_S), inf)
        if stream.anchor is None or every_s == inf:
            return CreditTurn(key, earliest, usual_s)
        if stream.newest is None:
            return CreditTurn(key, max(earliest, stream.anchor + usual_s), usual_s)
        if every_s is not None and stream.asked < at + opens - now:
            # The first price after the opening is worth more than anybody's second.
            return CreditTurn(key, earliest, self._poll_s)
        if every_s is None:
            unchecked = min(stream.built, default=stream.newest.time)
            due = at - now + next_check(unchecked, key.interval, stream.checked)
            return CreditTurn(key, max(earliest, due, stream.asked + stream.pause_s(self._poll_s)), line.length_s)
        # A month is no fixed number of seconds, but then only the next close is near.
        ends = at - now + next_open(key.interval, stream.newest.time)
        if line.length_s >= CHECK_EVERY_S and not is_slow(key.interval, every_s):
            # A close costs a credit or, where no candle follows, two: a stream that is called live has it.
            for moment in (ends + DELAY_S, ends + SETTLE_S)[: 1 if stream.is_closed else 2]:
                if stream.asked < moment:
                    return CreditTurn(key, max(earliest, moment), every_s)
        due = aligned(stream.anchor + every_s, every_s, ends + DELAY_S, line.length_s, earliest, self._poll_s)
        return CreditTurn(key, due, every_s)
