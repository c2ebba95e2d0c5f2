"""What is known of recorded candles moment by moment: everything in order, and nothing of the future."""

from collections.abc import Sequence
from contextlib import aclosing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from providers.replay.played_stream import Event, PlayedStream, grown, opened
from relay.core.intervals import next_open
from relay.core.model import Candle, CandleExtras, ExtendedCandle, StreamKey
from tests.support.recordings import START, MemoryRecording, Streams, longer, walk
from tests.support.virtual_time import run

M1, M3, M5, H1, D1, MONTH = (StreamKey("BTCUSDT", name) for name in ("1m", "3m", "5m", "1h", "1d", "1M"))


def played(streams: Streams, key: StreamKey = M1) -> PlayedStream:
    return PlayedStream(MemoryRecording(streams), "binance", key, streams)


async def events_of(stream: PlayedStream, since: float) -> list[Event]:
    async with aclosing(stream.events(since)) as events:
        return [event async for event in events]


def closed(events: Sequence[Event]) -> list[Candle]:
    return [event.update.candle for event in events if event.update.is_closed]


# -- what happens ----------------------------------------------------------------------------------


async def test_each_candle_is_told_with_its_open_and_closed_when_its_interval_is_over() -> None:
    first, second = walk(2)
    events = await events_of(played({M1: [first, second]}), START)
    assert [(event.moment, event.is_open, event.update.candle) for event in events] == [
        (START, True, opened(first)),
        (START + 60, False, first),
        (START + 60, True, opened(second)),
        (START + 120, False, second),
    ]
    assert [event.update.ts_event_ms for event in events] == [
        int(event.moment * 1000) for event in events
    ]  # fmt: skip


async def test_shorter_candles_make_the_open_one_and_the_recorded_values_close_it() -> None:
    minutes = walk(10)
    revised = longer(minutes, "5m")[0]._replace(volume=77.0)
    events = await events_of(played({M1: minutes, M5: [revised]}, M5), START)
    known, told = opened(revised), [opened(revised)]
    for minute in minutes[:4]:
        known = grown(known, minute)
        told.append(known)
    assert [event.moment - START for event in events] == [0, 60, 120, 180, 240, 300]
    assert [event.update.candle for event in events] == [*told, revised]
    assert told[-1].high == max(minute.high for minute in minutes[:4])
    assert told[-1].close == minutes[3].close


async def test_a_candle_is_known_from_its_first_trade_on_where_shorter_ones_show_it() -> None:
    minutes = walk(20)
    quiet = [*minutes[:5], *minutes[8:]]
    stream = played({M1: quiet, M5: longer(quiet, "5m")}, M5)
    events = await events_of(stream, START)
    assert [event.moment - START for event in events if event.update.candle.time == START + 300] == [480, 540, 600]
    second = longer(quiet, "5m")[1]
    assert [one.time for one in await stream.known_at(START + 479, None, 1 << 40, 9)] == [START]
    assert (await stream.known_at(START + 480, None, 1 << 40, 9))[1:] == [opened(second)]


async def test_intervals_that_do_not_fit_into_the_longer_one_show_nothing_of_it() -> None:
    minutes = walk(30)
    stream = played({M3: longer(minutes, "3m"), M5: longer(minutes, "5m")}, M5)
    assert len(await events_of(stream, START)) == 2 * 6


async def test_a_month_grows_by_days_and_not_by_weeks() -> None:
    november = 1_730_419_200
    days = walk(30, "1d", start=november)
    week = [Candle(november + 3 * 86_400, 1.0, 9.0, 1.0, 5.0, 1e6)]
    month = Candle(november, days[0].open, 500.0, 0.5, days[-1].close, 1.0)
    stream = played({D1: days, StreamKey("BTCUSDT", "1w"): week, MONTH: [month]}, MONTH)
    events = await events_of(stream, november)
    assert len(events) == 1 + 29 + 1
    assert events[-1].moment == next_open("1M", november)
    assert await stream.known_at(november + 10 * 86_400, None, 1 << 40, 1) == [events[10].update.candle]


async def test_a_hole_is_silent_and_a_short_day_ends_with_the_next_one() -> None:
    candles = walk(10)
    events = await events_of(played({M1: [*candles[:3], *candles[7:]]}), START)
    assert [event.moment - START for event in events if event.is_open] == [0, 60, 120, 420, 480, 540]
    day = 86_400
    days = [
        candle._replace(time=START + at) for candle, at in zip(walk(3, "1d"), (0, day - 3600, 2 * day), strict=True)
    ]
    events = await events_of(played({D1: days}, D1), START)
    assert [event.moment - START for event in events if not event.is_open] == [day - 3600, 2 * day - 3600, 3 * day]


async def test_it_begins_with_the_candle_that_is_open_then() -> None:
    minutes = walk(200)
    hours = longer(minutes, "1h")
    stream = played({M1: minutes, H1: hours}, H1)
    whole = await events_of(stream, START)
    for since in (START + 60 * 75, START + 60 * 75 + 0.5, START + 3600):
        events = await events_of(stream, since)
        assert events[0].moment == since
        assert events[0].update.candle.high == max(
            [hours[1].open, *(one.high for one in minutes[60:75] if one.time + 60 <= since)]
        )
        assert events[1:] == [event for event in whole if event.moment > since]


async def test_there_is_nothing_after_the_end_and_everything_before_the_beginning() -> None:
    stream = played({M1: walk(3)})
    assert await events_of(stream, START + 180) == []
    assert stream.ends_at == START + 180
    assert closed(await events_of(stream, START - 9999)) == walk(3)


async def test_a_long_recording_is_read_in_pages() -> None:
    candles = walk(1234)
    recording = MemoryRecording({M1: candles})
    stream = PlayedStream(recording, "binance", M1, [M1])
    assert closed(await events_of(stream, START)) == candles
    assert 3 <= len(recording.asked) <= 5


def test_a_candle_opens_with_its_first_price_alone() -> None:
    assert opened(Candle(START, 5.0, 9.0, 1.0, 7.0, 8.0)) == Candle(START, 5.0, 5.0, 5.0, 5.0, 0.0)


# -- what is carried beside prices -----------------------------------------------------------------


async def test_what_candles_carry_is_summed_where_all_carry_it() -> None:
    minutes = walk(5, extended=True)
    whole = ExtendedCandle(*longer(minutes, "5m")[0], quote_volume=5.0, trades=9)
    events = await events_of(played({M1: minutes, M5: [whole]}, M5), START)
    first, fourth = events[0].update.candle, events[4].update.candle
    assert first.extras == CandleExtras(0, 0)
    assert fourth.trades == sum(minute.trades or 0 for minute in minutes[:4])
    assert fourth.quote_volume == pytest.approx(sum(minute.quote_volume or 0 for minute in minutes[:4]))
    assert fourth.taker_volume is None
    assert events[-1].update.candle.extras == whole.extras
    bare = await events_of(played({M1: walk(5), M5: [whole]}, M5), START)
    assert bare[4].update.candle.trades is None


# -- history ---------------------------------------------------------------------------------------


async def test_history_ends_with_what_is_known_of_the_open_candle() -> None:
    minutes = walk(10)
    stream = played({M1: minutes})
    assert await stream.known_at(START + 300, None, 1 << 40, 3) == [*minutes[3:5], opened(minutes[5])]
    assert await stream.known_at(START + 300, START, 1 << 40, 2) == minutes[:2]
    assert await stream.known_at(START + 359.9, START + 300, START + 301, 5) == [opened(minutes[5])]
    assert await stream.known_at(START + 360, START + 300, START + 301, 5) == [minutes[5]]
    assert await stream.known_at(START + 300, START + 360, 1 << 40, 5) == []
    assert await stream.known_at(START - 1, None, 1 << 40, 5) == []
    assert await stream.known_at(START + 9999, None, 1 << 40, 500) == minutes


async def test_history_looks_at_few_of_many_short_candles() -> None:
    seconds = walk(86_400, "1s")
    minutes = longer(seconds, "1m")
    hours = longer(minutes, "1h")
    streams = {StreamKey("BTCUSDT", "1s"): seconds, M1: minutes, H1: hours, D1: longer(hours, "1d")}
    recording = MemoryRecording(streams)
    (known,) = await PlayedStream(recording, "binance", D1, streams).known_at(START + 80_000, None, 1 << 40, 1)
    assert len(recording.asked) < 12
    assert known.high == max(second.high for second in seconds[:80_000])
    assert known.close == seconds[79_999].close
    assert known.volume == pytest.approx(sum(second.volume for second in seconds[:80_000]))


async def test_shorter_candles_stand_in_where_longer_ones_are_missing() -> None:
    minutes = walk(180)
    hours = longer(minutes, "1h")
    day = longer(minutes, "1d")
    stream = played({M1: minutes, H1: [hours[0], hours[2]], D1: day}, D1)
    (known,) = await stream.known_at(START + 170 * 60, None, 1 << 40, 1)
    assert known.high == max(minute.high for minute in minutes[:170])
    assert known.volume == pytest.approx(sum(minute.volume for minute in minutes[:170]))


# -- properties ------------------------------------------------------------------------------------


@st.composite
def recordings(draw: st.DrawFn) -> Streams:
    """Minutes with holes, and longer candles that need not fit them."""
    minutes = walk(draw(st.integers(1, 150)), seed=draw(st.integers(0, 9)), extended=draw(st.booleans()))
    kept = [one for one in minutes if draw(st.integers(0, 9))] or minutes[:1]
    hours = [one._replace(volume=one.volume + draw(st.integers(0, 3))) for one in longer(minutes, "1h")]
    streams: dict[StreamKey, Sequence[Candle]] = {H1: hours}
    if draw(st.booleans()):
        streams[M1] = kept
    if draw(st.booleans()):
        streams[M5] = longer(kept, "5m")
    return streams


@given(streams=recordings(), since=st.floats(START - 600, START + 12_000), name=st.sampled_from([M1, M5, H1]))
def test_every_candle_closes_once_in_order_and_each_moment_knows_what_history_knows(
    streams: Streams, since: float, name: StreamKey
) -> None:
    key = name if name in streams else H1
    stream = played(streams, key)

    async def play() -> None:
        events = await events_of(stream, since)
        moments = [event.moment for event in events]
        assert moments == sorted(moments)
        assert all(moment >= since for moment in moments)
        assert closed(events) == [one for one in streams[key] if next_open(key.interval, one.time) > since]
        for event in events:
            (known,) = await stream.known_at(event.moment, event.update.candle.time, event.update.candle.time + 1, 1)
            assert known[:5] == event.update.candle[:5]
            assert known.volume == pytest.approx(event.update.candle.volume)

    run(lambda _: play())


@given(streams=recordings(), at=st.integers(0, 9000), limit=st.integers(1, 9), back=st.integers(0, 90))
def test_pages_of_history_are_parts_of_all_of_it(streams: Streams, at: int, limit: int, back: int) -> None:
    now, end = START + at, START + at + 1 - 60 * back

    async def compare() -> None:
        for key in streams:
            stream = played(streams, key)
            whole = await stream.known_at(now, 0, 1 << 40, 1 << 20)
            before = [one for one in whole if one.time < end]
            assert await stream.known_at(now, None, end, limit) == before[-limit:]
            assert await stream.known_at(now, START, end, limit) == before[:limit]

    run(lambda _: compare())


@given(streams=recordings(), at=st.integers(0, 9000))
def test_what_comes_later_changes_nothing_of_what_is_known(streams: Streams, at: int) -> None:
    """Two recordings that differ only in the future say the same up to then."""
    now = START + at

    def changed(key: StreamKey, one: Candle) -> Candle:
        if one.time > now:
            return Candle(one.time, 7.0, 8.0, 6.0, 7.5, 1e6)
        if next_open(key.interval, one.time) > now:
            return ExtendedCandle(*Candle(one.time, one.open, one.high + 99, 0.01, 5.0, 1e6), trades=10**6)
        return one

    other = {key: [changed(key, one) for one in candles] for key, candles in streams.items()}

    async def told(recorded: Streams) -> list[object]:
        said: list[object] = []
        for key in recorded:
            stream = played(recorded, key)
            said += [event.update for event in await events_of(stream, START) if event.moment <= now]
            said += await stream.known_at(now, None, 1 << 40, 500)
        return said

    async def compare() -> None:
        assert await told(streams) == await told(other)

    run(lambda _: compare())
