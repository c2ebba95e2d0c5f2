"""What an answer of history leaves out, where each interval of an open market has a candle."""

from relay.core.model import OpenHours
from relay.core.spans import Span
from relay.core.trading_hours import TradingHours
from relay.supervision.missing_candles import MissingCandles, holes_in

M = 60


def minutes(*numbers: int) -> list[int]:
    return [M * number for number in numbers]


def test_a_hole_lies_before_between_or_behind_what_is_there() -> None:
    market = TradingHours()
    assert holes_in("1m", market, M * 2, minutes(2, 3, 4), M * 5) == []
    assert holes_in("1m", market, M * 2, minutes(3, 5), M * 7) == [
        Span(M * 2, M * 3),
        Span(M * 4, M * 5),
        Span(M * 6, M * 7),
    ]
    assert holes_in("1m", market, None, minutes(3, 4), None) == []
    assert holes_in("1m", market, M * 2, [], None) == []
    assert holes_in("1m", market, M * 2, [], M * 4) == [Span(M * 2, M * 4)]


def test_closed_hours_are_no_hole() -> None:
    market = TradingHours(lambda moment: OpenHours(0, M * 4) if moment < M * 4 else OpenHours(M * 8, M * 99))
    assert holes_in("1m", market, M * 2, minutes(2, 3, 8, 9), None) == []
    assert holes_in("1m", market, M * 2, minutes(2, 9), None) == [Span(M * 3, M * 4), Span(M * 8, M * 9)]


def test_a_hole_is_doubted_until_a_later_answer_agrees() -> None:
    holes, one, other = MissingCandles(5.0), Span(60, 120), Span(180, 240)
    assert holes.doubtful([one], 100.0) == [one]
    assert holes.doubtful([one, other], 104.0) == [one, other]
    assert holes.doubtful([one, other], 105.0) == [other]
    # What came meanwhile and is missing again is missing anew.
    assert holes.doubtful([other], 106.0) == [other]
    assert holes.doubtful([one, other], 109.0) == [one]
