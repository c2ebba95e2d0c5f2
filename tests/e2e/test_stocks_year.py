"""A year of stocks: holidays, half days, changes of clocks, outages; and its judge is shown what it has to find."""

import subprocess
import sys
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.support.moments import at
from tests.support.stocks_year import INTERVALS, Exchange, Told, outage, wrong_candles, wrong_states

ROOT = Path(__file__).parents[2]
FIRST, LAST = at("2026-03-05 12:00"), at("2026-03-07 00:00")
# All holidays, half days, changes of clocks and outages, each with a session before and one after.
CHANGES = (
    "2026-01-01/2026-01-05",
    "2026-01-16/2026-01-20",
    "2026-02-13/2026-02-17",
    "2026-03-06/2026-03-09",
    "2026-04-02/2026-04-06",
    "2026-05-11/2026-05-13",
    "2026-05-22/2026-05-26",
    "2026-06-18/2026-06-22",
    "2026-07-02/2026-07-06",
    "2026-08-04/2026-08-05",
    "2026-09-04/2026-09-08",
    "2026-09-14/2026-09-17",
    "2026-10-29/2026-11-03",
    "2026-11-25/2026-11-30",
    "2026-12-23/2026-12-31",
)
LOST = outage(date(2026, 3, 5), (11, 20), (12, 20), (12, 50))


@pytest.fixture
def exchange() -> Exchange:
    return Exchange(date(2026, 3, 2), date(2026, 3, 13), [LOST])


def state(moment: str, status: str, message: str = "live") -> list[Told]:
    return [
        Told(at(moment) + 1, {"type": "status", "interval": interval, "status": status, "message": message})
        for interval in INTERVALS
    ]


def sound() -> list[Told]:
    said = "the market is closed; it opens at "
    return [
        *state("2026-03-05 14:30", "connected"),
        *state("2026-03-05 21:00", "market_closed", f"{said}2026-03-06T14:30:00Z"),
        *state("2026-03-06 14:30", "connected"),
        # New York puts its clocks forward in between.
        *state("2026-03-06 21:00", "market_closed", f"{said}2026-03-09T13:30:00Z"),
    ]


def test_the_judge_finds_states_that_do_not_fit_the_hours(exchange: Exchange) -> None:
    def found(told: list[Told]) -> list[str]:
        return [*wrong_states(exchange, told, FIRST, LAST)]

    assert found(sound()) == []
    assert len(found(sound()[4:])) == len(INTERVALS)
    assert len(found([*sound(), *state("2026-03-06 03:00", "connected")])) == len(INTERVALS)
    assert len(found([*sound(), *state("2026-03-06 17:00", "stale")])) == len(INTERVALS)
    late = [one._replace(at=one.at + 60) for one in sound()[:4]]
    assert len(found([*late, *sound()[4:]])) == 2 * len(INTERVALS)


def closings(exchange: Exchange) -> list[Told]:
    """Return all candles closed in time."""
    told = []
    for interval, candles in exchange.candles.items():
        for opened, ends in candles:
            names = ("time", "open", "high", "low", "close", "volume")
            candle = dict(zip(names, exchange.values(interval, opened, ends, ends), strict=True))
            told.append(Told(ends + 5, closing(interval, candle)))
    return told


def closing(interval: str, candle: dict[str, float]) -> dict[str, Any]:
    return {"type": "price_update", "interval": interval, "is_closed": True, "candle": candle}


def test_the_judge_finds_candles_and_gaps_that_do_not_fit(exchange: Exchange) -> None:
    gap = {"type": "gap", "interval": "15m", "from": LOST.start // 900 * 900, "to": LOST.end // 900 * 900}
    good = [*closings(exchange), Told(LOST.end + 30, gap)]

    def found(told: list[Told]) -> list[str]:
        return [*wrong_candles(exchange, told, FIRST, LAST)]

    assert found(good) == []
    assert len(found(good[:-1])) == 1
    night = {**gap, "from": at("2026-03-05 21:00"), "to": at("2026-03-06 14:30")}
    assert len(found([*good, Told(at("2026-03-06 14:31"), night)])) == 1
    place = next(number for number, one in enumerate(good) if FIRST + 99 < one.at < LAST - 99)
    assert len(found(good[:place] + good[place + 1 :])) == 1
    assert len(found([*good, good[place]])) == 1
    assert len(found([one._replace(at=one.at + 7200) if one is good[place] else one for one in good])) == 1


def test_the_last_hour_of_a_day_is_short_in_the_table() -> None:
    exchange = Exchange(date(2026, 11, 23), date(2026, 11, 30), [])
    half_day = [one for one in exchange.candles["1h"] if at("2026-11-27") < one[0] < at("2026-11-28")]
    assert half_day[-1] == (at("2026-11-27 17:30"), at("2026-11-27 18:00"))
    assert len(exchange.sessions) == 5
    assert timedelta(seconds=exchange.sessions[0][1] - exchange.sessions[0][0]) == timedelta(hours=6.5)


def run_parts(*parts: str, options: tuple[str, ...] = ()) -> None:
    """Run parts of the year in a process of their own, one after the other; fail with what it prints."""
    program = [sys.executable, "-m", "tests.support.stocks_year", *parts, *options]
    done = subprocess.run(program, capture_output=True, text=True, cwd=ROOT, check=False)
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.long
def test_the_days_on_which_hours_change_pass_without_a_fault() -> None:
    run_parts(*CHANGES)


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_a_whole_year_passes_without_a_fault(request: pytest.FixtureRequest) -> None:
    if not request.config.getoption("--forex-weeks"):
        pytest.skip("takes minutes: --forex-weeks")
    run_parts("2026-01-01/2026-12-31")


@pytest.mark.long
def test_weeks_of_built_candles_pass_without_a_fault() -> None:
    """A holiday, and an outage over a night; the exchange has none of the intervals that are judged beside its own."""
    run_parts("2026-09-01/2026-09-25", options=("--built",))
