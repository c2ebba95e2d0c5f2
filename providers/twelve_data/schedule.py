"""Plans polls so that a day's credits last and candles are asked for when they close; pure: the time is passed in.

Credits are shared by the square root of the interval: of two streams, the one with candles 60 times as long has
polls 7.7 times less often. That keeps the sum of all delays, each counted in candles, as small as the credits allow.
"""

from collections.abc import Sequence
from math import ceil, inf, sqrt
from typing import NamedTuple

from providers.twelve_data.credits import DAY_S
from relay import TradingCalendar, next_open

DELAY_S = 4.0
"""Our choice: so long after its end a candle, and the one that follows, are taken to be in the provider's answers."""
CHECK_EVERY_S = 3600.0
"""Our choice: what is built of smaller candles is compared with the provider's when it closes, but not more often."""
SLOW_S = 300.0
"""Our choice: polls that are farther apart than this and two candles make a stream `throttled`."""


class PollLine(NamedTuple):
    """Candles that are polled for: a stream of their own, or one that others are built from."""

    interval: str
    hours: TradingCalendar

    @property
    def length_s(self) -> int:
        """The length of an interval."""
        return next_open(self.interval, 0)


class Means(NamedTuple):
    """What polls may spend: credits in a minute, and until midnight UTC, None for no limit."""

    per_minute: int
    today: int | None
    least_s: float


def midnight_after(now: float) -> float:
    """Return when the UTC day ends."""
    return (now // DAY_S + 1) * DAY_S


def periods(lines: Sequence[PollLine], means: Means, now: float) -> list[float]:
    """Return the seconds of trading between two polls of each line: as few as the credits last for all of them."""
    end = midnight_after(now)
    rest = {hours: hours.trading_between(now, end) for hours in {line.hours for line in lines}}
    is_open = {hours: hours.is_open(now) for hours in rest}
    roots = [sqrt(line.length_s) for line in lines]
    minute = [60.0 if is_open[line.hours] else 0.0 for line in lines]
    scale = _scale(roots, minute, means.per_minute, means.least_s)
    if means.today is not None:
        today = max(0, means.today - closing_polls(lines, now))
        scale = max(scale, _scale(roots, [rest[line.hours] for line in lines], today, means.least_s))
    return [max(means.least_s, scale * root) for root in roots]


def closing_polls(lines: Sequence[PollLine], now: float) -> int:
    """Return how many polls the sessions that end today need after their end: the last candle of each line closes."""
    end = midnight_after(now)
    closing = {
        hours: (session := hours.session_at(now)).opens < end and session.closes <= end
        for hours in {line.hours for line in lines}
    }
    return sum(closing[line.hours] for line in lines)


def _scale(roots: Sequence[float], seconds: Sequence[float], credits: float, least_s: float) -> float:
    """Return the factor of the roots at which the polls of so many seconds cost these credits.

    No line is polled more often than every `least_s`; what such a line leaves is shared among the others.
    """
    free = [place for place, span in enumerate(seconds) if span > 0]
    if free and credits <= 0:
        return inf
    scale = 0.0
    while free:
        scale = sum(seconds[place] / roots[place] for place in free) / credits
        fast = [place for place in free if scale * roots[place] < least_s]
        if not fast:
            return scale
        credits -= sum(seconds[place] / least_s for place in fast)
        free = [place for place in free if place not in fast]
        scale = 0.0
    return scale


def promised(lines: Sequence[PollLine], per_day: int, least_s: float, now: float) -> int:
    """Return how many of the day's credits history has to leave to polls: half of them, less as trading passes.

    Reckoned from the whole day's credits: half of what is left would shrink with each credit that history takes.
    """
    end = midnight_after(now)
    rest = {hours: hours.trading_between(now, end) for hours in {line.hours for line in lines}}
    whole = {hours: hours.trading_between(end - DAY_S, end) for hours in rest}
    share = max((rest[hours] / whole[hours] for hours in rest if whole[hours]), default=0.0)
    return int(min(per_day / 2 * share, sum(rest[line.hours] for line in lines) / least_s))


def aligned(ideal: float, period: float, close: float, length_s: float, earliest: float, least_s: float) -> float:
    """Return when to poll: not before `earliest`, near the ideal moment, and right after a close where that fits.

    `close` is any moment at which a candle can be had; others follow, and precede, every `length_s`. When candles are
    shorter than the period each poll is moved to the nearest close. When they are longer each close has a poll: one
    shortly before, by half a period or the least distance of two polls, is made then.
    """
    if period >= length_s:
        nearest = close + round((ideal - close) / length_s) * length_s
        if nearest < earliest:
            nearest += ceil((earliest - nearest) / length_s) * length_s
        return nearest if abs(nearest - ideal) <= period / 2 else max(ideal, earliest)
    ideal = max(ideal, earliest)
    following = close + ceil((earliest - close) / length_s) * length_s
    return following if following - ideal < max(least_s, period / 2) else ideal


def next_check(unchecked: int, interval: str, checked: float | None) -> float:
    """Return when candles that are built have to be compared with the provider's: all times are the provider's.

    `unchecked` is the open time of the first one that was not; `checked` is when that was done last, None for never:
    then the first close is looked at.
    """
    close = next_open(interval, unchecked) + DELAY_S
    length_s = next_open(interval, 0)
    if checked is None or length_s >= CHECK_EVERY_S:
        return close
    late = checked + CHECK_EVERY_S - length_s / 2 - close
    return close if late <= 0 else close + ceil(late / length_s) * length_s


def patience_s(interval: str) -> float:
    """Return how long a poll that lacks credits may be late before its stream is throttled, rather than live."""
    return min(2.0 * next_open(interval, 0), SLOW_S)


def is_slow(interval: str, period: float) -> bool:
    """Say whether a stream that is polled so rarely is throttled, rather than live."""
    return period > max(2 * next_open(interval, 0), SLOW_S)
