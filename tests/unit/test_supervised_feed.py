"""One feed: what it says reaches the hub if it makes sense, and what it reports is taken at its word."""

import asyncio
import logging
from pathlib import Path

import pytest

from relay import (
    AuthenticationFailed,
    BadAnswer,
    OpenHours,
    PriceUpdate,
    ProviderError,
    ProviderTimeout,
    ProviderUnavailable,
    RateLimited,
    StreamKey,
    hookimpl,
)
from relay.core.intervals import length_s, next_open
from relay.core.trading_hours import TradingHours
from relay.history.requests import HistoryRequest
from relay.supervision.attempts import CAUSES
from relay.supervision.stream_state import SupervisedStream
from tests.support.conditions import eventually
from tests.support.supervised_provider import (
    KEY,
    MINUTE,
    A,
    B,
    Remembering,
    Rig,
    Scripted,
    candle,
    fed_stream,
    rig_of,
    update,
)


async def test_updates_make_a_stream_live(tmp_path: Path) -> None:
    plugin = Scripted()
    async with rig_of(plugin, tmp_path) as rig:
        supervised, feed = await fed_stream(rig, plugin)
        assert not feed.is_live(A)
        plugin.feeds[0].say(update(A))
        await eventually(lambda: rig.counters.updates == 1)
        assert feed.is_live(A)
        assert feed.ready.is_set()
        assert (supervised.stream.status, supervised.received) == ("connected", 1)
        assert supervised.stream.series.last == candle(0)


async def test_a_candle_from_another_time_is_counted_and_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    plugin = Scripted()
    async with rig_of(plugin, tmp_path) as rig:
        supervised, _ = await fed_stream(rig, plugin)
        caplog.set_level(logging.WARNING)
        # Two minutes ahead, and fifty days ago.
        plugin.feeds[0].say(update(A, 2), update(A, -72_000), update(A))
        await eventually(lambda: rig.counters.updates == 1)
        assert rig.counters.skipped == 2
        assert supervised.stream.series.last == candle(0)
        assert caplog.text.count("is invalid") == 1


async def test_a_date_two_hours_behind_hides_no_candle_of_a_provider_without_stamps(tmp_path: Path) -> None:
    plugin = Remembering()
    plugin.known = [candle(-2), candle(-1), candle(0)]
    async with rig_of(plugin, tmp_path) as rig:
        rig.provider.clock.observe(rig.hands.now - 7200)
        assert rig.provider.clock.now() == rig.hands.now - 7200
        past = await rig.history.candles(HistoryRequest(rig.provider, A, start=MINUTE - 120, end=None, limit=5))
        assert [one.time for one in past.candles] == [MINUTE - 120, MINUTE - 60, MINUTE]
        supervised, _ = await fed_stream(rig, plugin)
        plugin.feeds[0].say(update(A))
        await eventually(lambda: rig.counters.updates + rig.counters.skipped)
        await eventually(lambda: supervised.stream.series.last == candle(0))
        assert rig.counters.skipped == 0


async def test_a_stamp_tells_the_lag_of_its_stream(tmp_path: Path) -> None:
    plugin = Scripted()
    async with rig_of(plugin, tmp_path) as rig:
        supervised, _ = await fed_stream(rig, plugin)
        now_ms = int(rig.hands.now * 1000)
        plugin.feeds[0].say(
            PriceUpdate(A, candle(0), False, now_ms), PriceUpdate(A, candle(0, 2.0), False, now_ms - 40)
        )
        await eventually(lambda: rig.counters.lag.count == 2)
        assert supervised.stream.lag_ms == pytest.approx(40)


async def test_what_is_stamped_long_ago_changes_no_candle_that_is_closed(tmp_path: Path) -> None:
    plugin = Scripted()
    async with rig_of(plugin, tmp_path) as rig:
        await fed_stream(rig, plugin)
        now_ms = int(rig.hands.now * 1000)
        plugin.feeds[0].say(
            PriceUpdate(A, candle(-1), False, now_ms - 100),
            PriceUpdate(A, candle(-1), True, now_ms - 30_000),
            PriceUpdate(A, candle(0), False, now_ms),
            # The same minute's close again, as stamped then, with values of another one; and a revision of now.
            PriceUpdate(A, candle(-1, 9.0), True, now_ms - 29_000),
            PriceUpdate(A, candle(-1, 2.0), True, now_ms + 1),
        )
        await eventually(lambda: rig.counters.skipped + rig.counters.updates == 5)
        assert [(one.candle, one.is_revised) for one in rig.closed] == [(candle(-1), False), (candle(-1, 2.0), True)]


@pytest.mark.parametrize("has_stamp", [True, False])
@pytest.mark.parametrize("interval", ["1m", "1h"])
async def test_a_close_before_the_end_of_its_interval_is_counted_logged_once_and_told_as_open(
    interval: str, has_stamp: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    plugin = Scripted(intervals=("1m", "1h"))
    key = StreamKey("C", interval)
    async with rig_of(plugin, tmp_path) as rig:
        rig.feed({key: rig.carry(key)})
        await eventually(lambda: plugin.feeds)
        rig.provider.clock.observe(rig.hands.now)
        caplog.set_level(logging.WARNING)
        stamp_ms = int(rig.hands.now * 1000) if has_stamp else None
        opened = candle(0)._replace(time=MINUTE // length_s(interval) * length_s(interval))
        plugin.feeds[0].say(*(PriceUpdate(key, opened._replace(volume=n), True, stamp_ms) for n in (1.0, 2.0)))
        await eventually(lambda: rig.counters.updates == 2)
        assert rig.closed == []
        assert (rig.counters.skipped, caplog.text.count("closes a candle before its end")) == (2, 1)
        end = next_open(interval, opened.time)
        rig.hands.now = end + 1.0
        plugin.feeds[0].say(
            PriceUpdate(key, opened._replace(volume=3.0), True, None if stamp_ms is None else end * 1000)
        )
        await eventually(lambda: rig.closed)
        assert [one.candle.volume for one in rig.closed] == [3.0]


async def test_the_short_last_candle_of_a_session_closes_with_it(tmp_path: Path) -> None:
    plugin = Scripted(intervals=("1h",))
    key = StreamKey("C", "1h")
    async with rig_of(plugin, tmp_path) as rig:
        supervised = rig.carry(key)
        hour = MINUTE // 3600 * 3600
        # It closes at half past, until the next day.
        supervised.stream.series.market = TradingHours(
            lambda moment: (
                OpenHours(hour, hour + 1800) if moment < hour + 1800 else OpenHours(hour + 86_400, hour + 90_000)
            )
        )
        rig.feed({key: supervised})
        await eventually(lambda: plugin.feeds)
        for rig.hands.now in (hour + 1500.0, hour + 1801.0):
            rig.provider.clock.observe(rig.hands.now)
            plugin.feeds[0].say(PriceUpdate(key, candle(0)._replace(time=hour, volume=rig.hands.now), True))
            await eventually(lambda: rig.counters.updates == (1 if rig.hands.now < hour + 1800 else 2))
        assert [one.candle.volume for one in rig.closed] == [hour + 1801.0]
        assert rig.counters.skipped == 1


async def test_a_stream_does_not_begin_with_what_was_over_long_before_it_was_wanted(tmp_path: Path) -> None:
    plugin = Remembering()
    async with rig_of(plugin, tmp_path) as rig:
        supervised = rig.carry(A)
        rig.feed({A: supervised, B: rig.carry(B)})
        await eventually(lambda: plugin.feeds)
        now_ms = int(rig.hands.now * 1000)
        plugin.feeds[0].say(
            PriceUpdate(B, candle(0), False, now_ms),
            PriceUpdate(A, candle(-120), True, now_ms - 7_200_000),
            PriceUpdate(A, candle(-1), False, now_ms - 32_000),
            PriceUpdate(A, candle(0), False, now_ms),
        )
        await eventually(lambda: rig.counters.skipped + rig.counters.updates == 4)
        assert supervised.received == 1
        assert supervised.stream.series.last == candle(0)


async def test_what_was_said_before_a_silence_does_not_end_it(tmp_path: Path) -> None:
    plugin = Scripted()
    async with rig_of(plugin, tmp_path) as rig:
        supervised, feed = await fed_stream(rig, plugin)
        plugin.feeds[0].say(update(A, -1, is_closed=True), update(A))
        await eventually(lambda: supervised.received == 2)
        supervised.check_silence(rig.hands.now)
        rig.hands.now += 130
        supervised.check_silence(rig.hands.now)
        assert supervised.stream.status == "stale"
        plugin.feeds[0].say(update(A, -1, is_closed=True), update(A))
        other = rig.feed({A: supervised})
        await eventually(lambda: len(plugin.feeds) == 2)
        plugin.feeds[1].say(update(A))
        await eventually(lambda: other.is_live(A))
        assert (supervised.received, supervised.stream.status) == (2, "stale")
        plugin.feeds[0].say(PriceUpdate(A, candle(0, volume=2.0), False))
        await eventually(lambda: supervised.stream.status == "connected")
        assert feed.is_live(A)


async def test_an_update_of_another_time_makes_no_stream_live(tmp_path: Path) -> None:
    plugin = Remembering()
    plugin.may_answer.clear()
    async with rig_of(plugin, tmp_path) as rig:
        supervised, _ = await fed_stream(rig, plugin)
        plugin.feeds[0].say(update(A, 5))
        await eventually(lambda: plugin.asked)
        assert supervised.stream.status == "connecting"
        plugin.may_answer.set()
        await eventually(lambda: not supervised.stream.series.is_catching_up)
        await asyncio.sleep(0)
        assert supervised.stream.status == "connecting"


async def test_a_feed_is_ready_when_each_of_its_streams_is_live_resting_or_refused(tmp_path: Path) -> None:
    plugin = Scripted()
    other = StreamKey("C", "1m")
    async with rig_of(plugin, tmp_path) as rig:
        streams = {key: rig.carry(key) for key in (A, B, other)}
        feed = rig.feed(streams)
        await eventually(lambda: plugin.feeds)
        watchlist = plugin.feeds[0].watchlist
        watchlist.accept([A])
        watchlist.pause(B, "market_closed", "until Sunday")
        assert not feed.ready.is_set()
        watchlist.reject(other, "unknown")
        assert feed.ready.is_set()
        assert [one.stream.status for one in streams.values()] == ["connected", "market_closed", "connecting"]
        assert rig.refused == [("C", "Scripted refused C@1m: unknown")]


async def test_a_stream_that_is_subscribed_anew_is_live_meanwhile(tmp_path: Path) -> None:
    plugin = Scripted()
    async with rig_of(plugin, tmp_path) as rig:
        feed = rig.feed({A: rig.carry(A)})
        await eventually(lambda: plugin.feeds)
        watchlist = plugin.feeds[0].watchlist
        watchlist.accept([A])
        wish = watchlist.wanted_since(A)
        feed.resubscribe(A)
        assert watchlist.wanted_since(A) > wish
        assert feed.is_live(A)
        feed.remove(A)
        assert watchlist.streams == ()
        assert not feed.is_live(A)


async def test_reports_about_a_stream_that_is_carried_no_more_change_nothing(tmp_path: Path) -> None:
    plugin = Scripted()
    async with rig_of(plugin, tmp_path) as rig:
        supervised = rig.carry(A)
        streams: dict[StreamKey, SupervisedStream] = {A: supervised}
        rig.feed(streams)
        await eventually(lambda: plugin.feeds)
        # As for a plugin that does not end: its slot is gone, its watchlist is as it was.
        streams.clear()
        watchlist = plugin.feeds[0].watchlist
        watchlist.accept([A])
        watchlist.pause(A, "market_closed", "until Sunday")
        watchlist.expect(A, 60.0)
        watchlist.remark(A, "polled")
        watchlist.reject(A, "unknown")
        assert supervised.stream.status == "connecting"
        assert supervised.planned is None
        assert rig.refused == []


async def ended(rig: Rig, plugin: Scripted, *lines: PriceUpdate, error: ProviderError | None) -> tuple[str, str]:
    feed = rig.feed({A: rig.carry(A)})
    await eventually(lambda: plugin.feeds)
    plugin.feeds[0].say(*lines)
    plugin.feeds[0].end(error)
    await feed.task
    return feed.cause, feed.reason


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (RateLimited("slow down", 1.0), "rate_limited"),
        (ProviderTimeout("no answer"), "timeout"),
        (ProviderUnavailable("refused"), "unavailable"),
        (BadAnswer("no JSON"), "bad_answer"),
        (AuthenticationFailed("wrong key"), "failed"),
    ],
)
async def test_a_feed_that_fails_says_how_in_a_word_and_in_a_sentence(
    tmp_path: Path, error: ProviderError, cause: str
) -> None:
    plugin = Scripted(**KEY)
    async with rig_of(plugin, tmp_path) as rig:
        assert await ended(rig, plugin, error=error) == (cause, str(error))
    assert cause in CAUSES


async def test_a_connection_that_delivered_was_lost_one_that_did_not_was_unavailable(tmp_path: Path) -> None:
    plugin = Scripted()
    async with rig_of(plugin, tmp_path) as rig:
        told = await ended(rig, plugin, update(A), error=ProviderUnavailable("the connection was lost"))
        assert told == ("lost", "the connection was lost")


async def test_a_feed_that_simply_ends_was_closed_by_the_upstream(tmp_path: Path) -> None:
    plugin = Scripted()
    async with rig_of(plugin, tmp_path) as rig:
        assert await ended(rig, plugin, error=None) == ("closed", "the provider closed the connection")


async def test_a_pause_that_is_reported_during_a_backfill_stands_when_that_ends(tmp_path: Path) -> None:
    plugin = Remembering()
    plugin.known = [candle(0), candle(1), candle(2)]
    plugin.may_answer.clear()
    async with rig_of(plugin, tmp_path) as rig:
        supervised = rig.carry(A)
        supervised.go_live()
        rig.hub.publish(supervised.stream, update(A))
        supervised.lose("the connection was lost")
        rig.hands.now += 120.0
        rig.feed({A: supervised})
        await eventually(lambda: plugin.feeds)
        plugin.feeds[0].watchlist.accept([A])
        await eventually(lambda: plugin.asked == 1)
        plugin.feeds[0].watchlist.pause(A, "market_closed", "until Sunday")
        plugin.may_answer.set()
        await eventually(lambda: rig.backfill.fetched == 1 and not supervised.stream.series.is_catching_up)
        assert (supervised.stream.status, supervised.stream.message) == ("market_closed", "until Sunday")
        supervised.check_silence(rig.hands.now + 10_000)
        plugin.feeds[0].watchlist.remark(A, "polled")
        assert supervised.stream.status == "market_closed"
        plugin.feeds[0].say(update(A, 2))
        await eventually(lambda: supervised.stream.status == "connected")


async def test_the_last_candle_of_a_session_may_be_closed_before_its_interval_ends(tmp_path: Path) -> None:
    """It is half a minute past `MINUTE`: without hours a candle of that minute cannot be over."""
    plugin = Scripted()
    async with rig_of(plugin, tmp_path) as rig:
        supervised, _ = await fed_stream(rig, plugin)
        series = supervised.stream.series
        closing = update(A, is_closed=True)._replace(ts_event_ms=(MINUTE + 25) * 1000)
        plugin.feeds[0].say(closing)
        await eventually(lambda: rig.counters.updates == 1)
        assert (series.last, series.last_is_closed) == (candle(0), False)
        hours = [OpenHours(MINUTE - 3600, MINUTE + 20), OpenHours(MINUTE + 7200, MINUTE + 9999)]
        series.market = TradingHours(lambda moment: hours[moment >= MINUTE + 20])
        plugin.feeds[0].say(closing._replace(ts_event_ms=(MINUTE + 26) * 1000))
        await eventually(lambda: rig.counters.updates == 2)
        assert (series.last, series.last_is_closed) == (candle(0), True)


class WithHours(Scripted):
    """A provider whose hours may change, as settings do."""

    def __init__(self) -> None:
        super().__init__()
        self.hours: OpenHours | None = None

    @hookimpl
    def relay_hours(self) -> OpenHours | None:
        return self.hours


async def test_other_settings_are_other_hours_at_once(tmp_path: Path) -> None:
    plugin = WithHours()
    plugin.hours = OpenHours(MINUTE - 60, MINUTE + 86_400)
    async with rig_of(plugin, tmp_path) as rig:
        supervisor = rig.supervisor()
        stream = rig.hub.stream("scripted", A, "A", supervisor)
        supervisor.wanted(stream)
        assert stream.series.market.opens_at(MINUTE) == MINUTE
        plugin.hours = OpenHours(MINUTE + 7200, MINUTE + 86_400)
        rig.provider.reconfigure({})
        supervisor.renew()
        assert stream.series.market.opens_at(MINUTE) == MINUTE + 7200
