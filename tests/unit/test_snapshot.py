"""What a subscription starts with: the past and the live stream spliced by open time."""

from collections.abc import Iterable

import pytest

from relay.core.clock import Clock
from relay.core.model import Candle, OpenHours, PriceUpdate, StreamKey
from relay.core.spans import Span
from relay.core.trading_hours import TradingHours
from relay.history.requests import PastCandles
from relay.history.snapshot import SplicedPast, had_up_to, is_joined, is_left_open, splice
from relay.protocol.client_requests import PastWanted as Wanted
from relay.streams.gaps import SeriesGap
from relay.streams.hub import Hub
from relay.streams.series import Series
from tests.support.feeder import Feeder

KEY = StreamKey("AAA", "1m")


def candle(minute: int) -> Candle:
    return Candle(minute * 60, 1.0, 1.0, 1.0, 1.0, 0.0)


def candles(minutes: Iterable[int]) -> tuple[Candle, ...]:
    return tuple(candle(minute) for minute in minutes)


def minutes(candles: Iterable[Candle]) -> list[int]:
    return [candle.time // 60 for candle in candles]


def live(*closed: int, opened: int | None = None, promised_at: float = 600.0) -> Series:
    """A series that told these minutes as closed, and one that is open."""
    series = Series(KEY, promised_at)
    for minute in closed:
        series.accept(PriceUpdate(KEY, candle(minute), is_closed=True))
    if opened is not None:
        series.accept(PriceUpdate(KEY, candle(opened)))
    return series


@pytest.fixture
def gapped() -> Series:
    """A stream that was given up on minute 12: 10, 11 and 13 were told."""
    series = live(10, 11, 13)
    series.give_up()
    series.gaps.drain()
    assert series.gaps.left == [SeriesGap(12 * 60, 13 * 60)]
    return series


# -- candles -------------------------------------------------------------------------------------------------------


def test_what_the_stream_told_stands_over_the_answer_and_what_is_newer_comes_as_an_update() -> None:
    series = live(10, 11, opened=12)
    told = {600: candle(10)._replace(volume=9.0)}
    snapshot = splice(series, told, PastCandles(candles((8, 9, 10, 11, 12, 13)), False, True), Wanted(bars=10))
    assert minutes(snapshot.candles) == [8, 9, 10, 11, 12]
    assert (snapshot.last_is_closed, snapshot.is_complete) == (False, True)


def test_what_closed_while_the_answer_was_on_its_way_is_there_however_much_it_is() -> None:
    series = live(*range(10, 300), opened=300)
    told = {minute * 60: candle(minute) for minute in range(10, 300)}
    snapshot = splice(series, told, PastCandles(candles(range(5, 10)), True, True), Wanted(since=4 * 60))
    assert minutes(snapshot.candles) == list(range(5, 301))


def test_what_an_answer_says_nothing_of_makes_up_for_no_rows_that_are_newer_than_the_stream() -> None:
    series = live(10, 11)
    series.accept(PriceUpdate(KEY, candle(15), is_closed=True))
    # Several answers left out 12 to 14, which may be there.
    series.fill((), 15 * 60)
    assert [*series.closed] == [600, 660, 900]
    past = PastCandles(candles((15, 16, 17)), True, True)
    assert minutes(splice(series, {}, past, Wanted(bars=3)).candles) == [15]


def test_what_closed_after_the_confirmation_is_there_though_the_answer_begins_later() -> None:
    told = {minute * 60: candle(minute) for minute in (10, 11)}
    snapshot = splice(live(10, 11), told, PastCandles(candles((11,)), True, True), Wanted(bars=1), confirmed_at=650.0)
    assert minutes(snapshot.candles) == [10, 11]


def test_open_candle_of_an_answer_gives_way_to_how_it_closed() -> None:
    series = live(10, 11)
    snapshot = splice(
        series, {}, PastCandles((*candles((9,)), candle(10)._replace(volume=5.0)), False, True), Wanted(bars=3)
    )
    assert snapshot.candles == list(candles((9, 10, 11)))
    assert snapshot.last_is_closed


def test_open_candle_of_an_answer_comes_where_the_stream_has_told_all_before_it() -> None:
    past = PastCandles(candles((10, 11, 12)), False, True)
    assert splice(live(10, 11), {}, past, Wanted(bars=3)) == SplicedPast(list(past.candles), False, True, [])
    assert minutes(splice(live(10), {}, past, Wanted(bars=3)).candles) == [10]


def test_a_stream_that_told_nothing_leaves_what_it_owes_to_its_updates() -> None:
    series = Series(KEY, 10 * 60 + 30.0)
    snapshot = splice(series, {}, PastCandles(candles((8, 9, 10, 11)), True, True), Wanted(bars=4))
    assert minutes(snapshot.candles) == [8, 9]


@pytest.mark.parametrize(("bars", "expected"), [(2, [10, 11]), (1, [11]), (0, [])])
def test_bars_of_closed_candles_do_not_count_the_open_one(bars: int, expected: list[int]) -> None:
    snapshot = splice(live(10, 11, opened=12), {}, PastCandles((), True, True), Wanted(bars=bars), closed_only=True)
    assert (minutes(snapshot.candles), snapshot.last_is_closed) == (expected, True)


def test_who_waited_is_given_all_that_closed_since_the_confirmation() -> None:
    past = PastCandles(candles((8, 9)), True, True)
    snapshot = splice(live(10, 11, 12, opened=13), {}, past, Wanted(bars=1), confirmed_at=11 * 60 + 5.0)
    assert minutes(snapshot.candles) == [11, 12, 13]


def test_who_is_subscribed_already_gets_only_what_is_older(gapped: Series) -> None:
    snapshot = splice(gapped, {}, PastCandles(candles((9, 10, 11)), True, True), Wanted(bars=9), before=11 * 60)
    assert (minutes(snapshot.candles), list(snapshot.gaps)) == ([9, 10], [])


# -- gaps ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wanted", [Wanted(since=9 * 60), Wanted(since=11 * 60), Wanted(bars=4), Wanted(since=9 * 60, bars=3)]
)
def test_gap_told_while_the_past_was_fetched_is_told_with_the_snapshot(gapped: Series, wanted: Wanted) -> None:
    snapshot = splice(gapped, {}, PastCandles(candles((9, 10, 11)), True, True), wanted)
    assert list(snapshot.gaps) == [SeriesGap(12 * 60, 13 * 60)]
    assert not snapshot.is_complete


@pytest.mark.parametrize(
    ("wanted", "known"),
    [
        (Wanted(since=9 * 60), (10, 11, 12, 13)),
        (Wanted(since=12 * 60), (13,)),
        (Wanted(bars=1), (11, 13)),
        (Wanted(bars=0), ()),
    ],
)
def test_gap_that_history_filled_or_that_was_not_asked_for_is_not_told(
    gapped: Series, wanted: Wanted, known: tuple[int, ...]
) -> None:
    snapshot = splice(gapped, {}, PastCandles(candles(known), True, True), wanted)
    assert (list(snapshot.gaps), snapshot.is_complete) == ([], True)


@pytest.mark.parametrize("wanted", [Wanted(since=0), Wanted(bars=9)])
def test_what_is_not_known_is_told_as_gaps_and_a_closed_market_is_known(gapped: Series, wanted: Wanted) -> None:
    known = (Span(60, 120 + 1), Span(240, 360 + 1), Span(360 + 1, 480))
    snapshot = splice(gapped, {}, PastCandles(candles((1, 2, 4, 6)), True, False, known), wanted)
    assert minutes(snapshot.candles) == [1, 2, 4, 6, 10, 11, 13]
    assert [(gap.start // 60, gap.end // 60) for gap in snapshot.gaps] == [(3, 4), (8, 10), (12, 13)]
    assert not snapshot.is_complete


@pytest.mark.parametrize(
    ("known", "is_complete"),
    [((Span(0, 600),), True), ((Span(0, 541),), True), ((Span(0, 540),), False), ((), False)],
)
def test_a_resume_is_complete_where_everything_is_known_though_the_provider_failed(
    known: tuple[Span, ...], is_complete: bool
) -> None:
    snapshot = splice(live(10, 11), {}, PastCandles(candles((1, 2)), True, False, known), Wanted(since=0))
    assert (snapshot.is_complete, bool(snapshot.gaps)) == (is_complete, not is_complete)


@pytest.mark.parametrize(
    ("wanted", "starts"), [(Wanted(bars=9), [8]), (Wanted(since=8 * 60), []), (Wanted(bars=2), [])]
)
def test_a_row_that_cannot_be_read_is_a_gap_and_costs_no_other(wanted: Wanted, starts: list[int]) -> None:
    past = PastCandles(candles((7, 9)), True, False, unreadable=(Span(480, 540),))
    snapshot = splice(live(10, opened=11), {}, past, wanted)
    assert [gap.start // 60 for gap in snapshot.gaps] == starts
    assert minutes(snapshot.candles)[-2:] == [10, 11]


@pytest.mark.parametrize(("wanted", "known"), [(Wanted(since=9 * 60), ()), (Wanted(bars=2), (8, 9)), (Wanted(), ())])
def test_a_row_that_is_owed_and_cannot_be_read_is_a_gap_though_nothing_was_told(
    wanted: Wanted, known: tuple[int, ...]
) -> None:
    series, lost = Series(KEY, 10 * 60 + 30.0), (Span(600, 660),)
    past = PastCandles(candles(known), True, False, unreadable=lost)
    assert series.learn(past.candles, None, 720.0, lost) == []
    assert series.gaps.drain() == [SeriesGap(600, 660)]
    snapshot = splice(series, {}, past, wanted)
    assert (minutes(snapshot.candles), snapshot.gaps, snapshot.is_complete) == ([*known], [SeriesGap(600, 660)], False)
    # The updates that follow do not say it again.
    assert [one.candle.time for one in series.fill([candle(11)], None, None, lost)] == [660]
    assert series.gaps.drain() == []


def test_a_hole_that_is_not_believed_yet_makes_a_snapshot_incomplete_and_no_gap() -> None:
    series = live(10, 11, 12, opened=13)
    past = PastCandles(candles((3, 4, 7, 8, 9, 10, 11, 12)), True, True, doubted=(Span(5 * 60, 7 * 60),))
    snapshot = splice(series, {}, past, Wanted(bars=9))
    assert minutes(snapshot.candles) == [3, 4, *range(7, 14)]
    assert (snapshot.is_complete, list(snapshot.gaps)) == (False, [])
    named = splice(series, {}, past, Wanted(bars=9), names_holes=True)
    assert (named.is_complete, list(named.gaps)) == (False, [SeriesGap(5 * 60, 7 * 60)])
    # A resume begins where the client's candles end, whatever is missing there.
    assert not splice(series, {}, past._replace(candles=past.candles[2:]), Wanted(since=4 * 60)).is_complete
    assert splice(series, {}, past._replace(candles=past.candles[2:]), Wanted(since=6 * 60)).is_complete
    # It lies before what is sent, or is known by now, or the market was closed.
    assert splice(series, {}, past, Wanted(bars=7)).is_complete
    assert splice(series, {300: candle(5), 360: candle(6)}, past, Wanted(bars=11)).is_complete
    series.market = TradingHours(lambda moment: OpenHours(420, 900) if moment >= 300 else OpenHours(0, 300))
    assert splice(series, {}, past, Wanted(bars=9)).is_complete


def test_what_may_be_where_the_candles_begin_is_no_gap_however_long_ago_it_is_asked_for() -> None:
    series = live(10_010, 10_011, opened=10_012, promised_at=10_010 * 60.0)
    past = PastCandles(candles((10_008, 10_009)), True, True, doubted=(Span(1, 10_008 * 60),))
    snapshot = splice(series, {}, past, Wanted(since=0), names_holes=True)
    assert (snapshot.is_complete, list(snapshot.gaps)) == (False, [])
    assert minutes(snapshot.candles) == [*range(10_008, 10_013)]
    # Not so where there was a candle before, or for a client that was away for some time only.
    before = past._replace(candles=(candle(5000), *past.candles))
    gaps = splice(series, {}, before, Wanted(since=5000 * 60), names_holes=True).gaps
    assert list(gaps) == [SeriesGap(5001 * 60, 10_008 * 60)]
    gaps = splice(series, {}, past, Wanted(since=9990 * 60), names_holes=True).gaps
    assert list(gaps) == [SeriesGap(9991 * 60, 10_008 * 60)]


@pytest.mark.parametrize(
    ("wanted", "is_complete"),
    [(Wanted(bars=2), False), (Wanted(bars=1), True), (Wanted(bars=9, since=9 * 60), True), (Wanted(bars=0), True)],
)
def test_where_nobody_vouches_that_there_are_no_older_ones_fewer_than_asked_for_are_not_complete(
    wanted: Wanted, is_complete: bool
) -> None:
    past = PastCandles((candle(10),), False, True, doubted=(Span(0, 10 * 60),))
    snapshot = splice(live(opened=10), {}, past, wanted, names_holes=True)
    assert (snapshot.is_complete, list(snapshot.gaps)) == (is_complete, [])
    # Not so where the provider's candles begin there.
    assert splice(live(opened=10), {}, past._replace(doubted=()), wanted).is_complete


def test_what_an_answer_lacks_behind_its_last_candle_is_a_gap_until_it_is_believed() -> None:
    past = PastCandles(candles((7, 8)), True, True, doubted=(Span(9 * 60, 12 * 60 + 5),))
    series = live(promised_at=12 * 60.0)
    snapshot = splice(series, {}, past, Wanted(bars=2), names_holes=True)
    assert (snapshot.is_complete, list(snapshot.gaps)) == (False, [SeriesGap(9 * 60, 11 * 60 + 1)])
    snapshot = splice(series, {}, past._replace(doubted=()), Wanted(bars=2), names_holes=True)
    assert (snapshot.is_complete, list(snapshot.gaps)) == (True, [])
    assert splice(series, {}, past, Wanted(bars=2)).is_complete
    # An instrument that was away for long has none, but that is not known before it is believed.
    long = past._replace(doubted=(Span(9 * 60, 600 * 60),))
    snapshot = splice(live(promised_at=600 * 60.0), {}, long, Wanted(bars=2), names_holes=True)
    assert (snapshot.is_complete, list(snapshot.gaps)) == (False, [])
    # Nor is it known where two answers left it out, between whose ends no candle can open.
    twice = past._replace(doubted=(Span(9 * 60, 600 * 60 - 4), Span(600 * 60 - 1, 600 * 60 + 2)))
    snapshot = splice(live(promised_at=601 * 60 + 1.0), {}, twice, Wanted(bars=2), names_holes=True)
    assert (snapshot.is_complete, list(snapshot.gaps)) == (False, [])


def test_a_candle_is_left_open_where_the_answer_about_what_was_missed_cannot_close_it() -> None:
    series = live(9, opened=10)
    series.learn((), None, 700.0, lost=((10 * 60, 11 * 60),))
    assert [is_left_open(series, at) for at in (659.9, 660.0)] == [False, True]
    series.learn((candle(10),), None, 700.0)
    assert not is_left_open(series, 700.0)


def test_a_gap_told_to_one_client_is_kept_for_repair_once() -> None:
    series = live(10)
    series.owe(SeriesGap(120, 300))
    series.owe(SeriesGap(60, 240))
    assert series.gaps.left == [SeriesGap(120, 300), SeriesGap(60, 120)]
    assert series.gaps.drain() == []


# -- where the answer ends and the stream begins -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("times", "last_is_closed", "has_open", "is_joined_"),
    [
        ((7, 8, 9), True, False, True),
        ((7, 8), True, False, False),
        ((7, 8, 9), False, False, False),
        ((7, 8, 10), True, False, False),
        ((7, 8, 10), False, True, True),
        ((7, 8), True, True, False),
        ((), True, False, False),
    ],
)
def test_an_answer_has_to_reach_the_first_candle_that_the_stream_owes(
    times: tuple[int, ...], last_is_closed: bool, has_open: bool, is_joined_: bool
) -> None:
    series = Series(KEY, 10 * 60 + 30.0)
    past = PastCandles(candles(times), last_is_closed, True)
    assert is_joined(past, series, Wanted(bars=5), has_open=has_open) is is_joined_


def test_an_empty_resume_reaches_as_far_as_the_client_says() -> None:
    series = Series(KEY, 10 * 60 + 30.0)
    assert is_joined(PastCandles((), True, True), series, Wanted(since=9 * 60), has_open=False)
    assert not is_joined(PastCandles((), True, True), series, Wanted(since=8 * 60), has_open=False)


# -- the stream meanwhile ------------------------------------------------------------------------------------------


async def test_a_stream_is_wanted_and_its_closes_are_kept_from_the_request_on() -> None:
    hub, feeder = Hub(Clock(), flush_s=0), Feeder(clock=Clock(wall=lambda: 15 * 60.0))
    stream = hub.stream("p", KEY, "AAA", feeder)
    attachment = hub.attach(stream)
    assert feeder.calls == ["wanted"]
    hub.publish(stream, PriceUpdate(KEY, candle(15), is_closed=True))
    hub.publish(stream, PriceUpdate(KEY, candle(16)))
    assert attachment.closed == {900: candle(15)}
    other = hub.attach(stream)
    hub.detach(attachment)
    hub.detach(attachment)
    # A stream that is refused is tried again for each who wants it.
    assert feeder.calls == ["wanted", "wanted"]
    hub.detach(other)
    assert feeder.calls == ["wanted", "wanted", "unwanted"]
    hub.close()


@pytest.mark.parametrize(
    ("since", "expected"),
    [
        # The stream told 10 and 11 and has 12 open; it is 50 seconds old.
        (11 * 60, None),
        (12 * 60, None),
        (12 * 60 + 50, None),
        (13 * 60, None),
        (10**11, None),
    ],
)
def test_no_client_has_a_candle_that_is_not_over(since: int, expected: int | None) -> None:
    assert had_up_to(live(10, 11, opened=12), since, 12 * 60 + 50.0) is expected


def test_a_client_may_come_from_a_relay_that_was_ahead() -> None:
    stream = live(10, 11, opened=12)
    assert had_up_to(stream, 12 * 60, 13 * 60 - 2.0) == 12 * 60
    assert had_up_to(stream, 12 * 60, 13 * 60 + 1.0) == 12 * 60
    assert had_up_to(stream, 11 * 60, 13 * 60 + 1.0) is None
    # However far its clock is ahead, it has nothing of the minute that is open.
    assert had_up_to(stream, 10**11, 13 * 60 + 10.0) == 13 * 60 + 10 + 5 - 60
    # The market closed 20 seconds into minute 12.
    stream.market = TradingHours(lambda moment: OpenHours(0, 740) if moment < 740 else OpenHours(9000, 9999))
    assert had_up_to(stream, 12 * 60, 741.0) == 12 * 60
    assert is_left_open(stream, 740)
    assert not is_left_open(stream, 739)
    months = Series(StreamKey("AAA", "1M"), None)
    assert had_up_to(months, 2_678_400, 2_678_400 + 28 * 86_400 - 10.0) == 2_678_399


def test_what_was_repaired_is_no_gap_for_who_joins_whether_the_stream_has_told_anything_since_or_not() -> None:
    series = Series(KEY, 720.0)
    gap = SeriesGap(9 * 60, 10 * 60)
    series.owe(gap)
    (told,) = series.repair(gap, candles([9]))
    assert (told.is_revised, series.closed) == (True, {})
    past = PastCandles(candles([8, 10]), True, False, known=(Span(8 * 60, 9 * 60), Span(10 * 60, 11 * 60)))
    for wanted in (Wanted(bars=4), Wanted(since=7 * 60)):
        snapshot = splice(series, {}, past, wanted)
        assert (minutes(snapshot.candles), snapshot.gaps) == ([8, 9, 10], [SeriesGap(11 * 60, 661)])
    series.accept(PriceUpdate(KEY, candle(12)))
    snapshot = splice(series, {}, past, Wanted(since=7 * 60))
    assert (minutes(snapshot.candles), snapshot.gaps) == ([8, 9, 10, 12], [SeriesGap(11 * 60, 661)])


def test_what_was_repaired_long_before_all_that_is_known_begins_no_snapshot() -> None:
    series = live(10, 11, opened=12)
    gap = SeriesGap(3 * 60, 4 * 60)
    series.owe(gap)
    series.repair(gap, candles([3]))
    past = PastCandles(candles([9]), True, False, known=(Span(9 * 60, 10 * 60),))
    assert minutes(splice(series, {}, past, Wanted(bars=9)).candles) == [9, 10, 11, 12]
