"""The conformance check blames each faulty provider by name, and blames a good one for nothing; in time that jumps."""

import asyncio
import json
import time

import pytest

from relay import Candle, StreamKey
from relay.testing import DoesNotConform, FaultName, Report, check_provider, sped_up
from tests.support.mutants import MUTANTS, Mutant, plugin_of
from tests.support.walking_venue import START, WalkingVenue

pytestmark = pytest.mark.timeout(300)

KEY = StreamKey("AAA-BBB", "1m")
ALL_CHECKED = {
    "instruments", "stream", "watchlist", "closing", "live values of AAA-BBB@1m", "live values of AAA-BBB@1M",
    "reconnect", "unknown symbol in a stream", "speed", "history", "pages", "intervals", "values", "refusal",
}  # fmt: skip


def check(mutant: Mutant | None, venue: WalkingVenue, watch_s: float = 200.0, interval: str = "1m") -> Report:
    """Check a provider against a venue, with candles of the venue as they were two hours ago."""
    rows = venue.market("AAA-BBB").rows("1m")
    known = [Candle(*row[:6]) for opened, row in rows.items() if START - 9000 < opened < START - 7200]

    async def run() -> Report:
        async with venue:
            return await check_provider(
                plugin_of(mutant),
                symbol="AAA-BBB",
                interval=interval,
                settings=venue.settings,
                watch_s=watch_s,
                expected={KEY: known},
            )

    return sped_up(run, start=START)()


def blamed(mutant: Mutant | None, venue: WalkingVenue) -> DoesNotConform:
    with pytest.raises(DoesNotConform) as caught:
        check(mutant, venue)
    return caught.value


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_mutant_is_blamed_by_the_name_of_its_fault(mutant: Mutant) -> None:
    error = blamed(mutant, WalkingVenue())
    assert mutant.fault in error.faults, str(error)


def test_good_provider_is_blamed_for_nothing_and_everything_is_checked() -> None:
    report = check(None, WalkingVenue())
    assert set(report.checked) >= ALL_CHECKED
    assert report.unchecked == ()


def test_good_provider_of_a_slow_venue_is_blamed_for_nothing() -> None:
    report = check(None, WalkingVenue(delay_s=3.0))
    assert set(report.checked) >= ALL_CHECKED


def test_longer_candles_close_too_if_they_are_watched_for_long_enough() -> None:
    report = check(None, WalkingVenue(), watch_s=900.0, interval="5m")
    assert "closing" in report.checked
    assert not [what for what in report.unchecked if what.startswith("closing")]


@pytest.mark.parametrize("every_s", [45.0, 150.0, 900.0])
def test_thin_market_is_no_fault(every_s: float) -> None:
    report = check(None, WalkingVenue(every_s))
    assert {"history", "pages", "refusal"} <= set(report.checked)


def test_what_a_market_without_trades_keeps_from_being_checked_is_said_with_what_to_do() -> None:
    report = check(None, WalkingVenue(every_s=2000.0))
    (stream,) = [what for what in report.unchecked if what.startswith("stream: ")]
    assert "nothing of AAA-BBB@1m was traded within" in stream
    assert stream.endswith("name a symbol that moves, as `symbol`")


def test_closed_market_is_no_fault() -> None:
    report = check(None, WalkingVenue(pauses=[(START - 600, START + 7200)]))
    assert (
        "stream: by relay_hours the market of AAA-BBB is closed until 2026-03-04T12:40:17Z; check it when it is open"
    ) in report.unchecked
    assert {"history", "pages", "intervals", "refusal"} <= set(report.checked)


@pytest.mark.parametrize("after_s", [5, 97, 128, 150])
def test_market_that_closes_meanwhile_is_no_fault(after_s: int) -> None:
    # The venue closes the candles of up to an hour with it.
    check(None, WalkingVenue(pauses=[(START + after_s, START + 3700)]))


def test_final_values_that_are_in_history_later_than_declared_are_blamed_as_that() -> None:
    assert FaultName.GRACE_TOO_SHORT in blamed(None, WalkingVenue(settles_s=15.0)).faults


def test_what_is_blamed_says_what_was_seen_expected_and_where_to_look() -> None:
    (mutant,) = [one for one in MUTANTS if one.name == "open and close swapped live"]
    error = blamed(mutant, WalkingVenue())
    assert "live_prices_differ: prices of the live stream differ from history\n  seen:     AAA-BBB@1m: " in str(error)
    assert ": open and close are swapped\n" in str(error)
    assert "  look at:  the columns of live messages and of history" in str(error)
    first = json.loads(json.dumps([finding.as_json() for finding in error.findings]))[0]
    assert first["fault"] == "live_prices_differ"
    assert set(first) == {"fault", "seen", "expected", "example", "meaning", "look_at"}


def test_a_fault_in_stream_and_history_alike_is_only_found_with_expected_candles() -> None:
    (mutant,) = [one for one in MUTANTS if one.name == "turnover for volume everywhere"]

    async def run() -> Report:
        async with WalkingVenue() as venue:
            return await check_provider(plugin_of(mutant), symbol="AAA-BBB", interval="1m", settings=venue.settings)

    (values,) = sped_up(run, start=START)().unchecked
    assert values.startswith("values: nothing says which values are right")
    assert "expected={StreamKey(symbol, interval): [Candle(…)]}" in values


def test_a_candle_that_is_longer_than_the_time_of_watching_is_said_with_what_to_do() -> None:
    report = check(None, WalkingVenue(), watch_s=60.0)
    assert [what for what in report.unchecked if what.startswith("closing: ")] == [
        "closing: three candles of 1m take longer than watch_s (60 s); pass a longer watch_s, with @sped_up and a "
        "stand-in it takes seconds"
    ]


# -- time that jumps -------------------------------------------------------------------------------


def test_time_jumps_for_the_function_and_is_as_before_afterwards() -> None:
    real = time.time, time.monotonic

    @sped_up
    async def sleep(hours: int) -> tuple[float, float, float]:
        loop = asyncio.get_running_loop()
        before = time.time(), time.monotonic(), loop.time()
        await asyncio.sleep(hours * 3600)
        after = time.time(), time.monotonic(), loop.time()
        passed = tuple(b - a for a, b in zip(before, after, strict=True))
        return passed[0], passed[1], passed[2]

    assert sleep(5) == pytest.approx((18_000, 18_000, 18_000), abs=1)
    assert (time.time, time.monotonic) == real


def test_no_time_passes_while_a_thread_works_for_the_loop_and_a_busy_loop_does_not_stop_it() -> None:
    @sped_up
    async def wait() -> float:
        loop = asyncio.get_running_loop()
        began = loop.time()
        await asyncio.to_thread(time.sleep, 0.05)
        in_thread = loop.time() - began
        # Nothing ever waits here: time passes by itself after a second.
        while loop.time() - began < 0.2:  # noqa: ASYNC110
            await asyncio.sleep(0)
        return in_thread

    assert wait() < 0.2
