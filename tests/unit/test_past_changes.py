"""A past that its provider changed, part by part: what it concerns, and what streams and clients make of it."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from relay.client.messages import Outdated, Snapshot, Update
from relay.client.resume import Progress, StreamOptions
from relay.core.clock import Clock
from relay.core.errors import RateLimited
from relay.core.model import Candle, PriceUpdate, StreamKey
from relay.core.past_change import PastChange
from relay.core.periods import Periods
from relay.core.spans import FOREVER, Span
from relay.core.trading_calendar import TradingCalendar
from relay.history.live_edge import live_of
from relay.history.requests import PastCandles
from relay.history.settling import Settling
from relay.history.snapshot import splice
from relay.protocol.client_requests import PastWanted, SubscribeOptions
from relay.streams.hub import Hub
from relay.streams.outdated import change_past
from relay.streams.series import Series
from relay.streams.subscriptions import Stream
from relay.streams.told_candles import REMEMBERED
from tests.support.feeder import Feeder
from tests.support.moments import at as moment
from tests.support.supervised_provider import MINUTE, A, Remembering, rig_of

KEY = StreamKey("AAA", "1m")


def at(minute: int, price: float = 8.0) -> Candle:
    return Candle(60 * minute, price, price, price, price, 1.0)


def update(minute: int, price: float = 8.0, *, is_closed: bool = True, key: StreamKey = KEY) -> PriceUpdate:
    return PriceUpdate(key, at(minute, price), is_closed)


def told(series: Series, *closed: int, opened: int | None = None) -> Series:
    for minute in closed:
        series.accept(update(minute))
    if opened is not None:
        series.accept(update(opened, is_closed=False))
    return series


# -- what it concerns ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("interval", "span"),
    [("1m", Span(3541, 7200)), ("1h", Span(1, 7200)), ("1d", Span(0, 7200)), ("1M", Span(0, 7200))],
)
def test_candles_that_hold_a_part_of_the_time_are_concerned(interval: str, span: Span) -> None:
    assert PastChange(KEY, 7200, after=3600).span(interval) == span


@pytest.mark.parametrize(
    ("interval", "opens", "ends"),
    [
        ("4h", "2026-10-24 22:00:00", "2026-10-25 03:00:00"),
        ("1d", "2026-10-24 22:00:00", "2026-10-25 23:00:00"),
        ("3d", "2026-10-22 22:00:00", "2026-10-25 23:00:00"),
        ("1w", "2026-10-18 22:00:00", "2026-10-25 23:00:00"),
        ("1M", "2026-09-30 22:00:00", "2026-10-31 23:00:00"),
    ],
)
def test_a_candle_in_which_clocks_are_set_back_is_concerned_to_its_last_hour(
    interval: str, opens: str, ends: str
) -> None:
    span = PastChange(KEY, after=moment(ends) - 60).span(interval)
    assert span.start <= moment(opens) < span.end


def test_without_bounds_all_of_it_is() -> None:
    assert PastChange(KEY).span("1m") == Span(0, FOREVER)
    assert len(PastChange(KEY).spans()) == 16
    assert list(PastChange(KEY, one_interval=True).spans()) == ["1m"]


# -- a series --------------------------------------------------------------------------------------------------------


def test_void_candles_are_told_again_by_history_only() -> None:
    series = told(Series(KEY, 600.0), 10, 11, 12, opened=13)
    series.invalidate(Span(0, 720))
    assert series.void == {600, 660}
    # It may be from before the change, and said again.
    assert list(series.accept(update(11, 2.0))) == []
    updates, has_gone = series.restate([at(10, 2.0), at(11, 2.0), at(12, 2.0)], 800.0)
    assert [(one.candle, one.is_revised, one.is_closed) for one in updates] == [
        (at(10, 2.0), True, True),
        (at(11, 2.0), True, True),
    ]
    assert (has_gone, series.void, series.closed[720]) == (False, set(), at(12))
    assert list(series.accept(update(11, 2.0))) == []
    assert next(iter(series.accept(update(13)))).is_revised is False


def test_what_history_leaves_out_is_gone_unless_that_is_unsure() -> None:
    series = told(Series(KEY, 600.0), 10, 11, 12)
    series.invalidate(Span(0, FOREVER))
    updates, has_gone = series.restate([at(10, 2.0)], 800.0, [Span(720, 780)])
    assert ([one.candle for one in updates], has_gone) == ([at(10, 2.0)], True)
    assert sorted(series.closed) == [600, 720]
    assert series.void == {720}
    updates, has_gone = series.restate([at(12, 2.0)], 900.0)
    assert ([one.candle for one in updates], has_gone, series.void) == ([at(12, 2.0)], False, set())
    assert series.last == at(12, 2.0)


def test_an_open_candle_keeps_its_place_and_is_closed_in_its_turn() -> None:
    series = told(Series(KEY, 600.0), 10, opened=11)
    series.invalidate(Span(0, FOREVER))
    assert series.void == {600, 660}
    (again,) = series.accept(update(11, is_closed=False))
    assert again.is_revised is False, "the same value is news"
    assert series.void == {600}
    (closing,) = series.accept(update(11, 2.0))
    assert (closing.is_closed, closing.is_revised) == (True, False)


def test_a_provider_without_history_says_it_by_its_stream() -> None:
    series = told(Series(KEY, None), 10, 11)
    series.invalidate(Span(0, FOREVER))
    (again,) = series.accept(update(11, 2.0))
    assert again.is_revised
    assert list(series.accept(update(11, 2.0))) == []


def test_nothing_void_is_remembered_for_longer_than_the_candle() -> None:
    series = told(Series(KEY, 600.0), *range(10, 14))
    series.invalidate(Span(0, FOREVER))
    told(series, *range(14, 14 + REMEMBERED))
    assert series.void == set()
    assert len(series.closed) == REMEMBERED


def test_what_waits_for_history_is_asked_for_instead() -> None:
    series = told(Series(KEY, 600.0), 10)
    assert list(series.accept(update(14))) == []
    assert series.is_catching_up
    series.invalidate(Span(0, 900))
    missing = series.missing(1000.0)
    assert missing is not None
    assert (missing.start, missing.end) == (601, None)


# -- what is joined and answered with it -----------------------------------------------------------------------------


def stream_of(hub: Hub) -> Stream:
    feeder = Feeder(clock=Clock(wall=lambda: 800.0, monotonic=lambda: 800.0))
    stream = hub.stream("p", KEY, "AAA", feeder)
    hub.set_state(stream, "connected")
    for minute in (10, 11, 12):
        hub.publish(stream, update(minute))
    return stream


async def test_nothing_old_is_given_to_who_comes_next() -> None:
    hub = Hub(Clock())
    stream = stream_of(hub)
    attachment = hub.attach(stream)
    hub.publish(stream, update(13))
    assert live_of(stream) is not None
    assert stream.last_frame_for(SubscribeOptions()) is not None
    other = hub.stream("p", StreamKey("BBB", "1m"), "BBB", stream.feeder)
    change = PastChange(KEY)
    assert list(change_past(hub, "p", change)) == [stream]
    assert live_of(stream) is None
    assert stream.last_frame_for(SubscribeOptions()) is None
    assert attachment.closed == {}
    assert other.outdated is None
    past = PastCandles((at(10, 2.0), at(11, 2.0)), True, True)
    spliced = splice(stream.series, attachment.closed, past, PastWanted(bars=9))
    assert [candle.close for candle in spliced.candles] == [2.0, 2.0]
    hub.publish(stream, update(14, 2.0, is_closed=False))
    assert live_of(stream) is not None
    hub.detach(attachment)
    hub.close()


SUNDAY, MONDAY = moment("2026-03-08 00:00:00"), moment("2026-03-09 00:00:00")


@pytest.mark.parametrize("one_interval", [False, True])
async def test_a_built_week_is_void_of_which_only_a_day_before_its_open_time_changed(one_interval: bool) -> None:
    hub = Hub(Clock())
    feeder = Feeder(clock=Clock(wall=lambda: MONDAY + 20 * 86_400.0, monotonic=lambda: 800.0))
    days = hub.stream("p", StreamKey("EUR", "1d"), "EUR", feeder)
    weeks = hub.stream("p", StreamKey("EUR", "1w"), "EUR", feeder)
    forex = TradingCalendar("America/New_York", "1700-1700")
    weeks.base, weeks.periods = days, Periods("1w", "1d", calendar=forex)
    for week in range(-1, 2):
        hub.publish(weeks, PriceUpdate(weeks.key, Candle(MONDAY + week * 7 * 86_400, 1, 1, 1, 1, 1.0), is_closed=True))
    # Sunday of currencies is a part of the week that follows.
    assert weeks.periods.holding(SUNDAY).opens == MONDAY
    change_past(hub, "p", PastChange(days.key, before=MONDAY, after=SUNDAY, one_interval=one_interval))
    assert weeks.outdated is not None
    assert weeks.outdated.start <= MONDAY < weeks.outdated.end
    # The week before ended on Friday, but may hold a part of that time as far as anybody knows.
    assert weeks.series.void == {MONDAY, MONDAY - 7 * 86_400}
    hub.close()


# -- for how long ----------------------------------------------------------------------------------------------------


def test_history_is_left_alone_while_it_settles() -> None:
    now = 0.0
    settling = Settling(Clock(monotonic=lambda: now))
    settling.begin("p", PastChange(KEY, 6000, settle_s=30.0))
    settling.begin("p", PastChange(KEY, 600, settle_s=60.0))
    with pytest.raises(RateLimited) as caught:
        settling.check("p", "AAA", "1m", Span(0, 700))
    assert caught.value.retry_after == 60.0
    settling.check("p", "AAA", "1m", Span(6000, FOREVER))
    settling.check("p", "BBB", "1m", Span(0, FOREVER))
    # The same again begins anew, and without a wait it is over.
    settling.begin("p", PastChange(KEY, 600))
    now = 29.9
    with pytest.raises(RateLimited):
        settling.check("p", "AAA", "1h", Span(0, 700))
    now = 30.0
    settling.check("p", "AAA", "1m", Span(0, FOREVER))


async def test_a_report_is_written_when_it_is_awaited_and_a_cancelled_wait_ends_nothing(tmp_path: Path) -> None:
    plugin = Remembering()
    async with rig_of(plugin, tmp_path) as rig:
        plugin.known = [Candle(MINUTE + 60 * n, 4.0, 4.0, 4.0, 4.0, 1.0) for n in range(-3, 0)]
        first = asyncio.ensure_future(rig.past_changes.take(PastChange(A, MINUTE)))
        await asyncio.sleep(0)
        first.cancel()
        for number in range(100):
            rig.past_changes.take(PastChange(A, MINUTE + number % 7))
        await rig.past_changes.take(PastChange(A, MINUTE))
        assert rig.past_changes.count == 102
        assert rig.past_changes._unwritten is None


# -- clients ---------------------------------------------------------------------------------------------------------


def heard(minute: int, price: float = 8.0, *, is_revised: bool = False, **wire: Any) -> Update:
    return Update(KEY, at(minute, price), True, False, is_revised, None, None, wire)


def snapshot(*candles: Candle, **wire: Any) -> Snapshot:
    return Snapshot(KEY, candles, True, True, 9, wire)


def test_client_takes_what_is_told_again_even_if_it_is_the_same() -> None:
    progress = Progress("1m", StreamOptions())
    progress.confirm(600)
    assert progress.take_update(heard(10))
    assert not progress.take_update(heard(10, is_revised=True))
    progress.take_outdated(0, 660)
    assert progress.take_update(heard(10, is_revised=True, revision=7))
    assert progress.request()["revision"] == 7


def test_client_that_is_cut_off_before_the_new_prices_asks_for_them() -> None:
    progress = Progress("1m", StreamOptions())
    progress.confirm(600)
    progress.take_update(heard(10))
    progress.take_revision(5)
    progress.take_outdated(0, 660)
    # Of a candle that is not concerned.
    assert progress.take_update(heard(11))
    assert progress.take_update(heard(11, 9.0, is_revised=True, revision=8))
    assert progress.request()["revision"] == 5
    told = progress.take_snapshot(
        Snapshot(KEY, (), True, True, 9, {"revision": 9, "revisions_known": False}, (at(10, 2.0),)), 700
    )
    assert [type(message) for message in told] == [Update, Outdated]
    assert progress.request()["revision"] == 9


def test_client_begins_anew_with_a_snapshot_for_which_it_did_not_ask() -> None:
    progress = Progress("1m", StreamOptions(bars=3))
    progress.confirm(600)
    progress.take_snapshot(snapshot(at(8), at(9), at(10)), 660)
    progress.take_outdated(0, 660)
    progress.take_renewed(snapshot(at(8, 2.0), at(9, 2.0), at(10, 2.0), at(11, 2.0), replaces=True, revision=7))
    assert progress.request() == {"since": 660, "revision": 7}
    assert not progress.take_update(heard(10, 2.0, is_revised=True))
    assert not progress.take_update(heard(11, 2.0))
    assert progress.take_update(heard(12, 2.0))
