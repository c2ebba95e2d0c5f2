"""Doubts: what an answer leaves out is asked for again at growing distances before it is believed."""

import pytest

from relay.core.model import OpenHours, StreamKey
from relay.core.spans import FOREVER, Span, gaps_between, merge_spans
from relay.core.trading_hours import TradingHours
from relay.history.doubts import (
    EMPTY_PAUSES_S,
    MOST,
    MOST_HOLES,
    MOST_OF_STREAM,
    ROW_PAUSES_S,
    Doubt,
    Doubts,
    holes_beside,
    holes_of,
)

KEY = StreamKey("BTCUSDT", "1m")
STREAM = ("binance", KEY)


def minutes(*numbers: int) -> list[int]:
    return [60 * number for number in numbers]


def span(first: int, end: int) -> Span:
    return Span(60 * first, 60 * end)


def test_a_full_answer_leaves_no_doubt() -> None:
    doubts = Doubts()
    assert doubts.weigh(STREAM, span(10, 13), minutes(10, 11, 12), (), 0.0) == [span(10, 13)]
    assert doubts.of(STREAM) == ()


@pytest.mark.parametrize(
    ("times", "holes"),
    [
        ([], [span(10, 20)]),
        (minutes(12, 13, 14, 15, 16, 17, 18, 19), [span(10, 12)]),
        (minutes(10, 11, 12), [span(13, 20)]),
        (minutes(10, 11, 14, 15, 16, 17, 18, 19), [span(12, 14)]),
        (minutes(11, 14, 15, 16, 17, 18), [span(10, 11), span(12, 14), span(19, 20)]),
    ],
)
def test_holes_are_where_a_candle_could_be(times: list[int], holes: list[Span]) -> None:
    assert holes_of(times, span(10, 20), "1m") == (holes, None)


def test_time_between_two_open_times_is_no_hole() -> None:
    assert holes_of(minutes(11, 12), Span(60 * 10 + 1, 60 * 12 + 1), "1m") == ([], None)
    assert holes_of([], Span(60 * 10 + 1, 60 * 11), "1m") == ([], None)
    assert holes_of([], Span(60 * 10, 60 * 10 + 1), "1m") == ([Span(60 * 10, 60 * 10 + 1)], None)


def test_holes_of_a_part_of_time_go_by_the_rows_beside_it() -> None:
    rows = minutes(10, 11, 14, 15)
    assert holes_beside(rows, Span(60 * 10 + 1, 60 * 12 + 30), "1m") == [Span(60 * 12, 60 * 12 + 30)]
    assert holes_beside(rows, Span(60 * 11 + 1, 60 * 15), "1m") == [span(12, 14)]
    assert holes_beside(rows, Span(60 * 14 + 1, 60 * 15), "1m") == []
    assert holes_beside(rows, span(8, 18), "1m") == [span(8, 10), span(12, 14), span(16, 18)]
    # Where a week opens is not known before there is one.
    monday = 1_767_571_200
    assert holes_beside([monday], Span(monday - 7 * 86_400 + 1, monday + 1), "1w") == []


def test_a_part_of_time_that_ends_before_the_first_row_is_a_hole_where_one_can_open() -> None:
    assert holes_beside([1200], Span(538, 557), "1m") == [Span(538, 557)]
    assert holes_beside([1200], Span(541, 557), "1m") == []
    assert holes_beside([1210], Span(541, 557), "1m") == [Span(541, 557)]
    assert holes_beside([], Span(541, 557), "1m") == []


def test_months_follow_one_another_without_a_hole() -> None:
    january, february, march, april = 1_767_225_600, 1_769_904_000, 1_772_323_200, 1_775_001_600
    assert holes_of([january, february, march], Span(january, april), "1M") == ([], None)
    assert holes_of([january, march], Span(january, april), "1M") == ([Span(february, march)], None)


def test_a_market_that_is_often_quiet_is_doubted_as_a_whole() -> None:
    times = [120 * number for number in range(MOST_HOLES + 2)]
    whole = Span(0, times[-1] + 60)
    assert holes_of(times, whole, "1m") == ([], Span(60, times[-1]))
    assert len(holes_of(times[:-1], Span(0, times[-2] + 60), "1m")[0]) == MOST_HOLES
    doubts, now = Doubts(), 0.0
    assert doubts.weigh(STREAM, whole, times, (), now) == [whole]
    for pause_s in EMPTY_PAUSES_S:
        assert not doubts.touch(STREAM, 0, FOREVER)
        doubts.agree(STREAM, Span(60, times[-1]), now)
        assert doubts.due(STREAM, 0, FOREVER, now + pause_s - 0.1) == []
        now += pause_s
        assert [doubt.span for doubt in doubts.due(STREAM, 0, FOREVER, now)] == [Span(60, times[-1])]
        doubts.agree(STREAM, Span(61, times[-1]), now)
        assert len(doubts.due(STREAM, 0, FOREVER, now)) == 1
        doubts.agree(STREAM, Span(60, times[-1]), now)
    assert doubts.of(STREAM) == ()


def test_a_row_that_cannot_be_read_is_never_believed_to_be_missing() -> None:
    doubts, now = Doubts(), 0.0
    for pause_s in (*ROW_PAUSES_S, ROW_PAUSES_S[-1], ROW_PAUSES_S[-1]):
        assert doubts.weigh(STREAM, Span(60, 61), [60], {60}, now) == []
        assert doubts.due(STREAM, 0, FOREVER, now + pause_s - 0.1) == []
        now += pause_s
        assert [doubt.span for doubt in doubts.due(STREAM, 0, FOREVER, now)] == [Span(60, 61)]
    assert doubts.weigh(STREAM, Span(60, 61), [60], (), now) == [Span(60, 61)]
    assert doubts.of(STREAM) == ()


def test_the_rest_of_an_answer_with_such_a_row_is_known() -> None:
    doubts = Doubts()
    assert doubts.weigh(STREAM, span(10, 13), minutes(10, 11, 12), {660}, 0.0) == [Span(600, 660), Span(661, 780)]
    assert doubts.of(STREAM) == (Doubt(Span(660, 661), True, 1, ROW_PAUSES_S[0]),)


def test_emptiness_is_believed_when_answers_some_time_apart_agree() -> None:
    doubts, now = Doubts(), 0.0
    for pause_s in EMPTY_PAUSES_S:
        assert doubts.weigh(STREAM, span(0, 10), [], (), now) == []
        now += pause_s
    assert doubts.weigh(STREAM, span(0, 10), [], (), now) == [span(0, 10)]
    assert doubts.of(STREAM) == ()


def test_answers_within_the_pause_do_not_agree() -> None:
    doubts = Doubts()
    for now in range(29):
        assert doubts.weigh(STREAM, span(0, 10), [], (), float(now)) == []
    assert doubts.of(STREAM) == (Doubt(span(0, 10), False, 1, 30.0),)


def test_a_candle_that_comes_after_all_ends_the_doubt_about_itself_only() -> None:
    doubts = Doubts()
    doubts.weigh(STREAM, span(0, 10), [], (), 0.0)
    assert doubts.weigh(STREAM, span(0, 10), minutes(4), (), 40.0) == [span(4, 5)]
    assert doubts.of(STREAM) == (Doubt(span(0, 4), False, 2, 340.0), Doubt(span(5, 10), False, 2, 340.0))


def test_an_answer_about_a_part_changes_that_part() -> None:
    doubts = Doubts()
    doubts.weigh(STREAM, span(0, 10), [], (), 0.0)
    doubts.weigh(STREAM, span(2, 4), [], (), 40.0)
    assert [(doubt.span, doubt.answers) for doubt in doubts.of(STREAM)] == [
        (span(0, 2), 1),
        (span(2, 4), 2),
        (span(4, 10), 1),
    ]


def test_emptiness_that_grows_stays_few_doubts_of_which_each_is_due_in_time() -> None:
    doubts = Doubts()
    for number in range(1000):
        now = 10.0 * number
        doubts.weigh(STREAM, span(number, number + 1), [], (), now)
        assert len(doubts.of(STREAM)) <= 5
        (due,) = doubts.due(STREAM, 0, FOREVER, now) or (None,)
        assert due is None or due.span.start == 0
        assert number < 5 or (due is not None and due.span.end >= 60 * (number - 5))


def test_emptiness_that_grows_is_believed_as_it_grows() -> None:
    doubts, believed = Doubts(), 0
    for number in range(6 * 60):
        now = 60.0 * number
        for due in doubts.due(STREAM, 0, FOREVER, now):
            for known in doubts.weigh(STREAM, due.span, [], (), now):
                assert known.start == believed
                believed = known.end
        doubts.weigh(STREAM, span(number, number + 1), [], (), now)
        assert len(doubts.of(STREAM)) <= 15
        assert believed >= now - 1.3 * sum(EMPTY_PAUSES_S)


def test_what_cannot_be_asked_for_waits_as_long_again() -> None:
    doubts = Doubts()
    doubts.weigh(STREAM, span(0, 10), [], (), 0.0)
    doubts.postpone(STREAM, span(0, 10), 10.0)
    assert doubts.of(STREAM)[0].again_at == 30.0
    doubts.postpone(STREAM, span(0, 10), 31.0)
    assert doubts.of(STREAM) == (Doubt(span(0, 10), False, 1, 61.0),)


def test_what_is_known_from_elsewhere_is_in_doubt_no_more() -> None:
    doubts = Doubts()
    doubts.weigh(STREAM, span(0, 10), minutes(8), minutes(8), 0.0)
    doubts.weigh(STREAM, span(20, 39), minutes(*range(20, 40, 2)), (), 0.0)
    *_, sparse = doubts.of(STREAM)
    doubts.leave_out(STREAM, [Span(60 * 3, 60 * 5 + 1), Span(60 * 8, 60 * 8 + 1), span(20, 40)], 10.0)
    assert doubts.of(STREAM) == (
        Doubt(span(0, 3), False, 1, 30.0),
        Doubt(Span(60 * 5 + 1, 60 * 8), False, 1, 30.0),
        Doubt(span(9, 10), False, 1, 30.0),
        sparse,
    )
    doubts.leave_out(STREAM, [Span(0, 60 * 7 + 1), Span(60 * 9, 60 * 9 + 1)], 10.0)
    assert doubts.of(STREAM) == (sparse,)


def test_the_memory_of_doubts_is_bounded_and_what_is_forgotten_is_unknown() -> None:
    doubts = Doubts()
    many = minutes(*range(2 * MOST_OF_STREAM))
    known = doubts.weigh(STREAM, Span(0, many[-1] + 60), many, set(many), 0.0)
    left = doubts.of(STREAM)
    assert len(left) == MOST_OF_STREAM
    covered = merge_spans([*known, *(doubt.span for doubt in left)])
    assert gaps_between(covered, 0, many[-1] + 60) == [Span(time, time + 1) for time in many[:MOST_OF_STREAM]]
    for number in range(MOST + 10):
        doubts.weigh(("binance", StreamKey(f"S{number}", "1m")), span(0, 1), [], (), 0.0)
    assert doubts.count("binance") <= MOST
    assert doubts.of(STREAM) == ()


def test_doubts_of_one_provider_are_not_those_of_another() -> None:
    doubts = Doubts()
    doubts.weigh(STREAM, span(0, 10), [], (), 0.0)
    assert doubts.of(("other", KEY)) == ()
    assert (doubts.count("binance"), doubts.count("other")) == (1, 0)


def test_doubts_about_a_symbol_can_be_dropped_at_all_intervals() -> None:
    doubts = Doubts()
    hourly, other = StreamKey("BTCUSDT", "1h"), StreamKey("ETHUSDT", "1m")
    for key in (KEY, hourly, other):
        doubts.weigh(("binance", key), Span(0, 36_000), [], (), 0.0)
    doubts.drop("binance", "BTCUSDT")
    assert doubts.streams() == [("binance", other)]
    assert doubts.count("binance") == 1


def test_rows_that_had_to_be_widened_are_known_and_looked_at_again_as_a_whole() -> None:
    doubts = Doubts()
    for part in (Span(60 * 12, 60 * 15 + 1), Span(60 * 13, 60 * 13 + 1)):
        doubts.look_again(STREAM, part, 0.0)
    assert doubts.weigh(STREAM, span(10, 20), minutes(*range(10, 20)), (), 0.0) == [span(10, 20)]
    (doubt,) = doubts.of(STREAM)
    assert doubt == Doubt(Span(60 * 12, 60 * 15 + 1), False, 1, EMPTY_PAUSES_S[0], is_sparse=True)
    assert not doubts.touch(STREAM, 0, 60 * 20)
    now = 0.0
    for pause_s in EMPTY_PAUSES_S:
        assert doubts.due(STREAM, 0, FOREVER, now) == []
        now += pause_s
        assert len(doubts.due(STREAM, 0, FOREVER, now)) == 1
        doubts.agree(STREAM, Span(60 * 12, 60 * 15 + 1), now)
    assert doubts.of(STREAM) == ()


def test_an_answer_without_any_row_is_told_from_one_that_says_where_candles_begin() -> None:
    doubts = Doubts()
    doubts.weigh(STREAM, span(0, 10), [], (), 0.0, is_bare=True)
    doubts.weigh(STREAM, span(10, 20), minutes(15), (), 0.0)
    assert [doubt.is_bare for doubt in doubts.of(STREAM)] == [True, False, False]
    # It stays so while all answers are alike.
    doubts.weigh(STREAM, span(0, 10), [], (), 31.0, is_bare=True)
    assert [(doubt.answers, doubt.is_bare) for doubt in doubts.of(STREAM)][:1] == [(2, True)]
    doubts.weigh(STREAM, span(0, 10), minutes(8), (), 32.0)
    assert [doubt.is_bare for doubt in doubts.of(STREAM)] == [False] * 4


def test_where_the_market_is_closed_nothing_is_in_doubt() -> None:
    """Five nights, which would be too many holes to be told one by one, and the evening behind the last row."""

    def hours(moment: int) -> OpenHours:
        opens = (moment + 1800) // 3600 * 3600
        return OpenHours(opens, opens + 1800)

    market = TradingHours(hours)
    times = [time for hour in range(6) for time in range(3600 * hour, 3600 * hour + 1800, 60)]
    doubts = Doubts()
    whole = Span(0, 6 * 3600)
    assert doubts.weigh(STREAM, whole, times, (), 0.0, market=market) == [whole]
    assert doubts.of(STREAM) == ()
    # What is missing in market hours is, and nothing else.
    del times[40:50]
    known = doubts.weigh(STREAM, whole, times, (), 0.0, market=market)
    assert [doubt.span for doubt in doubts.of(STREAM)] == [Span(4200, 4800)]
    assert known == [Span(0, 4200), Span(4800, 6 * 3600)]


def test_decades_before_the_first_candle_are_not_divided_by_sessions() -> None:
    day, asked = 86_400, []

    def hours(moment: int) -> OpenHours:
        asked.append(moment)
        opens = moment - moment % day + (0 if moment % day < day // 2 else day)
        return OpenHours(opens, opens + day // 2)

    first = 20_000 * day
    holes, _ = holes_of([first, first + 60], Span(0, first + 120), "1m", TradingHours(hours))
    assert holes == [Span(0, first)]
    # In a turn of the loop, in which everything else waits.
    assert len(asked) < 100
