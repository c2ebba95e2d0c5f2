"""Simulates a week of polling forex pairs within a plan's credits, without waiting: `python -m tests.bench.week`.

The real planner and the real counting of credits poll a model of the venue, which counts by its clock minute and UTC
day, refuses what is too much and charges for that as well. Beside it, a naive relay polls each pair every 30 seconds.
"""

import argparse
import asyncio
import sys
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import NamedTuple

from providers.twelve_data.answers import KeyRefused, SeriesAnswer
from providers.twelve_data.credits import Credits, CreditUse
from providers.twelve_data.forex import Hours, hours_of, without_padding
from providers.twelve_data.polled import PolledStream
from providers.twelve_data.polling import SeriesPolls
from relay import Candle, RateLimited, StreamKey, Watchlist, next_open

MONDAY = 1_768_176_000
"""2026-01-12 00:00 UTC."""
DAY_S = 86_400
POLL_S = 30.0
ANSWER_S = 0.2
MAJORS = ("USD", "JPY", "GBP", "CHF", "CAD", "AUD", "NZD", "SEK", "NOK", "DKK")


class Plan(NamedTuple):
    """Credits in a minute and in a day; 0: no limit a day."""

    name: str
    per_minute: int
    per_day: int


PLANS = (Plan("8 a minute, 800 a day", 8, 800), Plan("55 a minute", 55, 0))


def pairs(count: int) -> list[str]:
    """Return so many pairs of money."""
    names = [f"EUR/{quote}" for quote in MAJORS] + [f"{base}/HKD" for base in ("EUR", *MAJORS)]
    return names[:count]


class Venue:
    """The provider as far as credits and candles go; `at` is its time and everybody's."""

    def __init__(self, plan: Plan, start: float) -> None:
        self.plan = plan
        self.at = start
        self.used_this_minute = self.used_today = self.total = self.refusals = 0
        self.largest_day = self.largest_minute = 0
        self.first_refusal: float | None = None
        self._minute = self._day = -1

    def charge(self, cost: int) -> bool:
        """Charge a call, refused or not; say whether it is answered."""
        minute, day = int(self.at // 60), int(self.at // DAY_S)
        if minute != self._minute:
            self._minute, self.used_this_minute = minute, 0
        if day != self._day:
            self._day, self.used_today = day, 0
        self.used_this_minute += cost
        self.used_today += cost
        self.total += cost
        self.largest_day = max(self.largest_day, self.used_today)
        self.largest_minute = max(self.largest_minute, self.used_this_minute)
        is_within = self.used_this_minute <= self.plan.per_minute
        if self.plan.per_day:
            is_within = is_within and self.used_today <= self.plan.per_day
        self.refusals += not is_within
        if self.first_refusal is None and not is_within:
            self.first_refusal = self.at
        return is_within

    def newest(self, symbol: str, interval: str, rows: int) -> list[Candle]:
        """Return the newest candles, the open one last; closed hours are padded. The price grows with time."""
        length = next_open(interval, 0)
        opened = int(self.at // length) * length
        return [self._candle(opened - place * length, length) for place in reversed(range(rows))]

    def _candle(self, opened: int, length: int) -> Candle:
        low, high = opened / 1e9, min(opened + length, int(self.at)) / 1e9
        return Candle(opened, low, high, low, high)


class Told:
    """What one stream told: when it was polled, and how late closed candles were."""

    def __init__(self) -> None:
        self.polled: list[float] = []
        self.closed: list[int] = []
        self.delays: list[float] = []


class Result(NamedTuple):
    """One line of the table; all times in seconds."""

    relay: str
    plan: str
    pairs: int
    credits: int
    largest_day: int
    refusals: int
    first_refusal: str
    median_s: float
    worst_s: float
    delay_median_s: float
    delay_worst_s: float
    missing: int


def simulate(
    plan: Plan, names: Sequence[str], interval: str, days: float, start: float = MONDAY
) -> tuple[Venue, dict[StreamKey, Told]]:
    """Let the real polling loop run against the model."""
    venue = Venue(plan, start)
    limits = Credits(
        plan.per_minute,
        plan.per_day,
        wall=lambda: venue.at,
        monotonic=lambda: venue.at - start,
        knows_time=lambda: True,
    )

    async def ask(symbols: Sequence[str], name: str, rows: int) -> Mapping[str, SeriesAnswer | KeyRefused]:
        spent = limits.spend(len(symbols), CreditUse.POLL)
        is_answered = venue.charge(len(symbols))
        answers: dict[str, SeriesAnswer | KeyRefused] = {}
        for symbol in symbols:
            candles = venue.newest(symbol, name, rows)
            kept = without_padding(candles, name, hours_of(symbol))
            answers[symbol] = SeriesAnswer(len(candles), candles[0].time, 0, kept)
        venue.at += ANSWER_S
        limits.settle(spent, venue.used_this_minute, max(0, plan.per_minute - venue.used_this_minute))
        if not is_answered:
            limits.exhaust_minute()
            raise RateLimited("refused", 60.0)
        return answers

    keys = [StreamKey(name, interval) for name in names]
    streams: dict[StreamKey, PolledStream] = {}
    told = {key: Told() for key in keys}
    polls = SeriesPolls(
        Watchlist(keys), streams, ask, limits, poll_s=POLL_S, hours=hours_of,
        monotonic=lambda: venue.at - start, now=lambda: venue.at,
    )  # fmt: skip

    async def run() -> None:
        while venue.at < start + days * DAY_S:
            polls.note_wishes()
            poll, wait_s = polls.plan()
            if poll is None:
                venue.at += max(0.001, min(wait_s, 30.0))
                continue
            given = await polls.ask(poll)
            for one in given:
                told[one.key].polled.append(venue.at)
            for update in polls.take(given):
                if update.is_closed:
                    told[update.key].closed.append(update.candle.time)
                    told[update.key].delays.append(venue.at - next_open(interval, update.candle.time))

    asyncio.run(run())
    return venue, told


def simulate_naive(
    plan: Plan, names: Sequence[str], interval: str, days: float, start: float = MONDAY
) -> tuple[Venue, dict[StreamKey, Told]]:
    """Poll each pair every 30 seconds, come what may, and take what is answered."""
    venue = Venue(plan, start)
    told = {StreamKey(name, interval): Told() for name in names}
    length = next_open(interval, 0)
    while venue.at < start + days * DAY_S:
        for key, one in told.items():
            if not venue.charge(1):
                continue
            one.polled.append(venue.at)
            candles = without_padding(venue.newest(key.symbol, interval, 2), interval, hours_of(key.symbol))
            if candles and candles[0].time + length <= venue.at and candles[0].time not in one.closed[-1:]:
                one.closed.append(candles[0].time)
                one.delays.append(venue.at - candles[0].time - length)
        venue.at += POLL_S
    return venue, told


def open_gaps(polled: Sequence[float], hours: Hours, start: float, end: float) -> Iterator[float]:
    """Yield for how long, in market hours, what a stream showed grew older."""
    moments = [*polled, end]
    before = start
    for moment in moments:
        opens, close = hours.week.session_at(before)
        while opens < moment:
            yield min(moment, close) - max(before, opens)
            opens, close = hours.week.session_at(close)
        before = moment


def median_age(gaps: Sequence[float]) -> float:
    """Return the age that what is shown exceeds for half of the time, when it ages from 0 through each gap."""
    ordered = sorted(gaps)
    half = sum(ordered) / 2
    below = 0.0
    for place, gap in enumerate(ordered):
        left = len(ordered) - place
        if below + gap * left >= half:
            return (half - below) / left
        below += gap
    return ordered[-1] if ordered else 0.0


def summary(name: str, venue: Venue, told: Mapping[StreamKey, Told], days: float, start: float = MONDAY) -> Result:
    """Sum a run up: ages pooled over all streams, and closed candles of market hours that were never told."""
    end = start + days * DAY_S
    gaps, delays, missing = [], [], 0
    for key, one in told.items():
        hours = hours_of(key.symbol)
        gaps += list(open_gaps(one.polled, hours, start, end))
        delays += one.delays
        length = next_open(key.interval, 0)
        first, last = (one.closed[0], one.closed[-1]) if one.closed else (0, 0)
        due = [at for at in range(first, last, length) if hours.week.last_close(at + 1) == at + 1]
        missing += len(set(due) - set(one.closed))
    delays.sort()
    return Result(
        name, venue.plan.name, len(told), venue.total, venue.largest_day, venue.refusals,
        "" if venue.first_refusal is None else datetime.fromtimestamp(venue.first_refusal, UTC).strftime("%a %H:%M"),
        median_age(gaps),
        max(gaps, default=0.0), delays[len(delays) // 2] if delays else 0.0, delays[-1] if delays else 0.0, missing,
    )  # fmt: skip


def results(days: float, interval: str, counts: Sequence[int]) -> Iterator[Result]:
    """Run all plans with all numbers of pairs."""
    for plan in PLANS:
        for count in counts:
            names = pairs(count)
            yield summary("planned", *simulate(plan, names, interval, days), days)
            yield summary("every 30 s", *simulate_naive(plan, names, interval, days), days)


def shown(seconds: float) -> str:
    """Write a time as people say it."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--days", type=float, default=7.0)
    parser.add_argument("--interval", default="1m")
    parser.add_argument("--pairs", type=int, nargs="+", default=[1, 5, 20])
    options = parser.parse_args()
    heads = ("plan", "pairs", "relay", "credits", "most in a day", "refused", "first refused", "age, median", "worst",
             "closed after, median", "worst", "candles missing")  # fmt: skip
    print(f"| {' | '.join(heads)} |")
    print("| --- | ---: | --- |" + " ---: |" * (len(heads) - 3))
    for one in results(options.days, options.interval, options.pairs):
        cells = (one.plan, one.pairs, one.relay, f"{one.credits:,}", f"{one.largest_day:,}", f"{one.refusals:,}",
                 one.first_refusal or "never",
                 *map(shown, (one.median_s, one.worst_s, one.delay_median_s, one.delay_worst_s)),
                 f"{one.missing:,}")  # fmt: skip
        print(f"| {' | '.join(map(str, cells))} |")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
