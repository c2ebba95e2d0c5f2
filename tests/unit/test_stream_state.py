"""One stream that is carried: its state is told honestly, its silence judged by its habit and its feed's plans."""

from collections.abc import Callable
from itertools import permutations

import pytest

from relay.core.model import OpenHours, StreamKey
from relay.core.trading_hours import TradingHours
from relay.streams.hub import Hub
from relay.supervision.liveness import Remedy
from relay.supervision.stream_facts import Facts, StateSaid
from relay.supervision.stream_state import KEPT_EVENTS, SupervisedStream
from tests.support.feeder import Feeder
from tests.support.supervised_provider import MINUTE, A, Hands, update


@pytest.fixture
def hands() -> Hands:
    return Hands()


@pytest.fixture
def hub(hands: Hands) -> Hub:
    return Hub(hands.clock)


@pytest.fixture
def supervised(hands: Hands, hub: Hub) -> SupervisedStream:
    return SupervisedStream(hub.stream("demo", A, "A", Feeder(clock=hands.clock)), hub, hands.clock)


def state(supervised: SupervisedStream) -> tuple[str, str]:
    return supervised.stream.status, supervised.stream.message


def test_a_loss_is_counted_once_however_many_feeds_fail_after_it(supervised: SupervisedStream) -> None:
    supervised.go_live()
    for cause in ("the connection was lost", "nobody answers"):
        supervised.lose(cause)
        assert state(supervised) == ("reconnecting", f"{cause}; the next attempt is under way")
    assert supervised.stream.reconnects == 1
    assert [event for _, event in supervised.stream.events] == ["lost: the connection was lost"]


def test_a_stream_that_never_was_live_is_still_connecting_when_its_feed_fails(supervised: SupervisedStream) -> None:
    supervised.lose("nobody answers")
    assert state(supervised) == ("connecting", "nobody answers; the next attempt is under way")
    assert supervised.stream.reconnects == 0
    assert supervised.stream.events == []


def test_a_remark_is_shown_while_the_stream_is_live_and_kept_for_then(supervised: SupervisedStream) -> None:
    supervised.remark("polled every 5 min")
    assert state(supervised)[0] == "connecting"
    supervised.go_live()
    assert state(supervised) == ("connected", "polled every 5 min")
    supervised.remark("")
    assert state(supervised) == ("connected", "live")


def test_only_the_newest_events_are_kept(supervised: SupervisedStream) -> None:
    for number in range(KEPT_EVENTS + 3):
        supervised.note(str(number))
    assert next(event for _, event in supervised.stream.events) == "3"
    assert len(supervised.stream.events) == KEPT_EVENTS


# -- one state from many facts ---------------------------------------------------------------------

CLOSED = StateSaid("market_closed", "until Sunday")
FETCHING = StateSaid("backfilling", "fetching the missed candles")


@pytest.mark.parametrize(
    ("facts", "status", "message"),
    [
        (Facts(loss="opening"), "connecting", "opening"),
        (Facts(loss="gone", was_fed=True), "reconnecting", "gone"),
        (Facts(loss="gone", was_fed=True, rest=CLOSED, past=FETCHING), "reconnecting", "gone"),
        (Facts(is_fed=True, was_fed=True), "connected", "live"),
        (Facts(is_fed=True, remark="polled"), "connected", "polled"),
        (Facts(is_fed=True, silent_s=130.4), "stale", "no data for 130 s"),
        (Facts(is_fed=True, silent_s=130.0, past=FETCHING), *FETCHING),
        (Facts(is_fed=True, past=FETCHING, rest=CLOSED), *CLOSED),
        (Facts(is_fed=True, past=FETCHING, halt="paused"), "market_closed", "paused"),
        (Facts(loss="opening", halt="paused"), "market_closed", "paused"),
        (Facts(refusal="busy", halt="paused", is_fed=True), "error", "busy"),
    ],
)
def test_the_state_follows_from_what_is_known(facts: Facts, status: str, message: str) -> None:
    assert facts.state() == (status, message)


def said(supervised: SupervisedStream) -> list[Callable[[], None]]:
    return [
        supervised.go_live,
        lambda: supervised.rest(*CLOSED),
        lambda: supervised.catch_up("fetching the missed candles"),
        lambda: supervised.remark("polled every 5 min"),
    ]


@pytest.mark.parametrize("order", list(permutations(range(4))))
def test_a_pause_stands_in_whatever_order_things_are_learned(hub: Hub, hands: Hands, order: tuple[int, ...]) -> None:
    supervised = SupervisedStream(hub.stream("demo", A, "A", Feeder(clock=hands.clock)), hub, hands.clock)
    for number in order:
        said(supervised)[number]()
    assert state(supervised) == CLOSED
    supervised.caught_up()
    assert state(supervised) == CLOSED
    supervised.accept()
    supervised.show()
    assert state(supervised) == ("connected", "polled every 5 min")


def test_a_pause_is_forgotten_by_no_loss_and_no_refusal(supervised: SupervisedStream) -> None:
    supervised.rest(*CLOSED)
    supervised.lose("the connection was lost")
    assert state(supervised)[0] == "reconnecting"
    supervised.go_live()
    assert state(supervised) == CLOSED
    supervised.refuse("busy")
    supervised.retry()
    assert state(supervised)[0] == "reconnecting"
    supervised.go_live()
    assert state(supervised) == CLOSED
    supervised.hear()
    assert state(supervised) == ("connected", "live")


def test_a_stream_whose_past_waits_for_the_budget_is_throttled_until_it_was_fetched(
    supervised: SupervisedStream,
) -> None:
    supervised.go_live()
    supervised.wait_for_budget("the budget is used up, more at 12:00")
    supervised.go_live()
    assert state(supervised) == ("throttled", "the budget is used up, more at 12:00")
    supervised.catch_up("fetching the missed candles")
    assert state(supervised) == FETCHING
    supervised.wait_for_budget("used up again")
    supervised.caught_up()
    assert state(supervised) == ("connected", "live")


def made_stale(supervised: SupervisedStream, hands: Hands) -> None:
    supervised.go_live()
    hands.now += 130
    assert supervised.check_silence(hands.now) is Remedy.RESUBSCRIBE
    assert state(supervised) == ("stale", "no data for 130 s")


def lose_and_accept(supervised: SupervisedStream) -> None:
    supervised.lose("the connection was lost")
    supervised.accept()
    supervised.go_live()


def refuse_and_accept(supervised: SupervisedStream) -> None:
    supervised.refuse("busy")
    supervised.retry()
    supervised.accept()
    supervised.go_live()


def throttle_and_accept(supervised: SupervisedStream) -> None:
    supervised.rest("throttled", "the budget is used up")
    supervised.accept()
    supervised.show()


def fetch(supervised: SupervisedStream) -> None:
    supervised.catch_up("fetching the missed candles")
    supervised.wait_for_budget("the budget is used up")
    supervised.caught_up()


@pytest.mark.parametrize(
    "event", [SupervisedStream.accept, lose_and_accept, refuse_and_accept, throttle_and_accept, fetch]
)
def test_nothing_but_an_update_ends_a_silence(
    supervised: SupervisedStream, hands: Hands, event: Callable[[SupervisedStream], None]
) -> None:
    made_stale(supervised, hands)
    event(supervised)
    assert state(supervised)[0] == "stale"
    hands.now += 1
    supervised.check_silence(hands.now)
    assert state(supervised)[0] == "stale"
    supervised.hear()
    assert state(supervised) == ("connected", "live")


def test_the_market_that_closes_ends_a_silence(supervised: SupervisedStream, hands: Hands) -> None:
    made_stale(supervised, hands)
    supervised.rest(*CLOSED)
    supervised.accept()
    supervised.show()
    assert state(supervised) == ("connected", "live")


def test_a_new_feed_has_the_time_of_its_own_before_it_is_replaced(supervised: SupervisedStream, hands: Hands) -> None:
    supervised.received += 1
    supervised.go_live()
    supervised.check_silence(hands.now)
    made_stale(supervised, hands)
    supervised.lose("the connection was lost")
    supervised.listen_anew(hands.now)
    supervised.go_live()
    assert supervised.check_silence(hands.now + 119) is None


def test_feeds_that_are_lost_again_and_again_and_bring_nothing_are_a_silence(
    supervised: SupervisedStream, hands: Hands
) -> None:
    states = set[str]()
    for _ in range(20):
        supervised.accept()
        supervised.listen_anew(hands.now)
        supervised.go_live()
        hands.now += 5
        supervised.check_silence(hands.now)
        states.add(state(supervised)[0])
        supervised.lose("the answer is for another symbol")
        hands.now += 5
        supervised.check_silence(hands.now)
        states.add(state(supervised)[0])
    assert states == {"connected", "stale", "reconnecting"}
    supervised.accept()
    supervised.go_live()
    assert state(supervised)[0] == "stale"


# -- silence ---------------------------------------------------------------------------------------


def test_a_silent_stream_is_stale_and_subscribed_anew_before_its_feed_is_replaced(
    supervised: SupervisedStream, hands: Hands
) -> None:
    supervised.go_live()
    tried = []
    for seconds in (100, 130, 200, 250, 400):
        hands.now = MINUTE + 30.0 + seconds
        tried.append(supervised.check_silence(hands.now))
    # An unknown stream of 1m has the patience of an interval and a minute.
    assert tried == [None, Remedy.RESUBSCRIBE, None, Remedy.REPLACE_FEED, None]
    assert state(supervised) == ("stale", "no data for 130 s")
    assert [event for _, event in supervised.stream.events] == ["stale"]


def test_a_stream_that_was_silent_is_stale_again_after_its_gap_was_fetched(
    supervised: SupervisedStream, hands: Hands
) -> None:
    supervised.go_live()
    hands.now += 130
    supervised.check_silence(hands.now)
    supervised.catch_up("fetching the missed candles")
    hands.now += 5
    supervised.caught_up()
    assert state(supervised) == ("stale", "no data for 135 s")


def test_a_stream_that_was_heard_is_live_after_its_gap_was_fetched(supervised: SupervisedStream, hands: Hands) -> None:
    supervised.go_live()
    supervised.catch_up("fetching the missed candles")
    hands.now += 500
    # It cannot be blamed for silence while history is waited for.
    assert supervised.check_silence(hands.now) is None
    supervised.caught_up()
    assert state(supervised) == ("connected", "live")


def test_silence_before_a_stream_is_live_or_while_it_rests_does_not_count(
    supervised: SupervisedStream, hands: Hands
) -> None:
    assert supervised.check_silence(hands.now + 1000) is None
    supervised.rest("market_closed", "until Sunday")
    assert supervised.check_silence(hands.now + 2000) is None
    supervised.hear()
    assert supervised.check_silence(hands.now + 2100) is None
    assert supervised.check_silence(hands.now + 2121) is Remedy.RESUBSCRIBE


def test_a_stream_that_waits_for_its_planned_poll_is_not_stale(supervised: SupervisedStream, hands: Hands) -> None:
    supervised.go_live()
    supervised.expect(3600.0, 3600.0)
    # The last look before the poll is late begins to measure silence.
    for seconds, expected in ((1000, "connected"), (3610, "connected"), (3700, "connected"), (3740, "stale")):
        supervised.check_silence(hands.now + seconds)
        assert state(supervised)[0] == expected, seconds


@pytest.mark.parametrize(("every_s", "stale_after_s"), [(30.0, 180.0), (60.0, 240.0), (600.0, 1320.0)])
def test_a_stream_whose_polls_bring_nothing_is_stale_all_the_same(
    supervised: SupervisedStream, hands: Hands, every_s: float, stale_after_s: float
) -> None:
    """An interval, two polls and a minute have to do."""
    supervised.go_live()
    began, stale = hands.now, []
    while hands.now < began + 3600:
        # The next poll is always planned.
        supervised.expect(every_s, every_s)
        hands.now += 1
        if supervised.check_silence(hands.now) is not None:
            stale.append(hands.now - began)
    assert stale[0] == pytest.approx(stale_after_s, abs=1.1)
    assert state(supervised)[0] == "stale"


def test_a_poll_with_news_is_enough_for_two_without(supervised: SupervisedStream, hands: Hands) -> None:
    supervised.go_live()
    for number in range(3600):
        supervised.expect(60.0, 60.0)
        supervised.received += number % 180 == 0
        hands.now += 1
        assert supervised.check_silence(hands.now) is None
    assert state(supervised)[0] == "connected"


def market_of(opens_in_s: int, hands: Hands) -> TradingHours:
    """Return a market that is closed now and opens so many seconds from now."""
    opens = int(hands.now) + opens_in_s
    return TradingHours(lambda moment: OpenHours(opens, opens + 86_400))


def test_silence_while_the_market_is_closed_is_not_stale(supervised: SupervisedStream, hands: Hands) -> None:
    supervised.stream.series.market = market_of(7200, hands)
    supervised.go_live()
    for _ in range(7200):
        hands.now += 1
        assert supervised.check_silence(hands.now) is None
    hands.now += 115
    assert supervised.check_silence(hands.now) is None
    hands.now += 10
    assert supervised.check_silence(hands.now) is Remedy.RESUBSCRIBE


def test_what_comes_late_opens_no_market(supervised: SupervisedStream, hands: Hands) -> None:
    supervised.stream.series.market = market_of(7200, hands)
    supervised.rest("market_closed", "opens at nine")
    supervised.hear()
    assert state(supervised) == ("market_closed", "the market is closed; it opens at 2025-11-24T18:00:30Z")
    # The provider's clock may be a little behind.
    hands.now += 7196
    supervised.hear()
    assert state(supervised) == ("connected", "live")


# -- hours of the market ---------------------------------------------------------------------------

CLOSES = MINUTE + 60
OPENS = MINUTE + 7260
AT_OPENING = "the market is closed; it opens at 2025-11-24T18:01:00Z"


def with_hours(supervised: SupervisedStream) -> None:
    """Let the market close half a minute from now, and open two hours later."""
    hours = [OpenHours(MINUTE - 3600, CLOSES), OpenHours(OPENS, OPENS + 3600)]
    supervised.stream.series.market = TradingHours(lambda moment: hours[moment >= CLOSES])


def states(supervised: SupervisedStream, hands: Hands, until: float) -> list[tuple[float, str, str]]:
    """Return what the state was, and since when, looked at each second."""
    found: list[tuple[float, str, str]] = []
    while hands.now < until:
        supervised.check_silence(hands.now)
        if not found or found[-1][1:] != state(supervised):
            found.append((hands.now - MINUTE, *state(supervised)))
        hands.now += 1
    return found


def test_the_hours_close_and_open_a_stream_whatever_its_feed_says(supervised: SupervisedStream, hands: Hands) -> None:
    with_hours(supervised)
    hands.now = float(MINUTE)
    supervised.go_live()
    assert states(supervised, hands, OPENS + 5) == [
        (0.0, "connected", "live"),
        (60.0, "market_closed", AT_OPENING),
        (7260.0, "connected", "live"),
    ]


def test_a_silent_stream_is_not_stale_after_the_opening_because_of_the_silence_before(
    supervised: SupervisedStream, hands: Hands
) -> None:
    made_stale(supervised, hands)
    with_hours(supervised)
    assert states(supervised, hands, OPENS + 100) == [
        (160.0, "market_closed", AT_OPENING),
        (7260.0, "connected", "live"),
    ]


def test_a_clock_that_is_set_back_a_little_closes_and_opens_nothing_again(
    supervised: SupervisedStream, hands: Hands
) -> None:
    with_hours(supervised)
    supervised.go_live()
    found = []
    for moment in (CLOSES - 2, CLOSES, CLOSES - 3, CLOSES + 1, OPENS - 1, OPENS, OPENS - 3, OPENS + 1):
        hands.now = float(moment)
        supervised.check_silence(hands.now)
        found.append(state(supervised)[0])
    assert found == ["connected"] + ["market_closed"] * 4 + ["connected"] * 3


def test_a_stream_that_is_wanted_in_closed_hours_says_so_at_once(supervised: SupervisedStream, hands: Hands) -> None:
    with_hours(supervised)
    hands.now = CLOSES + 600.0
    supervised.check_silence(hands.now)
    assert state(supervised) == ("market_closed", AT_OPENING)
    supervised.lose("nobody answers")
    assert state(supervised)[0] == "connecting"
    supervised.accept()
    supervised.show()
    assert state(supervised) == ("market_closed", AT_OPENING)
    assert supervised.is_closed_for(86_400.0)


def test_a_candle_that_opened_in_closed_hours_proves_them_wrong(
    supervised: SupervisedStream, hub: Hub, hands: Hands
) -> None:
    with_hours(supervised)
    supervised.go_live()
    hands.now = CLOSES + 5.0
    supervised.check_silence(hands.now)
    hub.publish(supervised.stream, update(A))
    supervised.hear()
    # The last candle of the session comes late.
    assert state(supervised) == ("market_closed", AT_OPENING)
    hands.now = CLOSES + 70.0
    hub.publish(supervised.stream, update(A, is_closed=True))
    hub.publish(supervised.stream, update(A, 2))
    supervised.hear()
    assert state(supervised) == ("connected", "live")


def test_what_comes_late_of_hours_that_were_proven_wrong_ends_no_later_pause(
    supervised: SupervisedStream, hub: Hub, hands: Hands
) -> None:
    with_hours(supervised)
    supervised.go_live()
    hands.now = CLOSES + 70.0
    hub.publish(supervised.stream, update(A, is_closed=True))
    hub.publish(supervised.stream, update(A, 2))
    supervised.hear()
    assert state(supervised) == ("connected", "live")
    # The feed knows hours of the week beside, in which nothing is traded on a usual day either.
    hands.now = CLOSES + 190.0
    supervised.rest("market_closed", "the daily pause")
    hub.publish(supervised.stream, update(A, 2, is_closed=True))
    supervised.hear()
    assert state(supervised)[0] == "market_closed"
    hands.now = CLOSES + 250.0
    hub.publish(supervised.stream, update(A, 5))
    supervised.hear()
    assert state(supervised) == ("connected", "live")


def test_a_pause_for_the_market_ends_with_the_opening_although_nothing_comes(
    supervised: SupervisedStream, hands: Hands
) -> None:
    with_hours(supervised)
    hands.now = CLOSES + 5.0
    supervised.rest("market_closed", "until nine")
    assert states(supervised, hands, OPENS + 3)[-1] == (7260.0, "connected", "live")


def test_it_is_known_for_how_long_the_market_has_been_closed(supervised: SupervisedStream, hands: Hands) -> None:
    with_hours(supervised)
    supervised.go_live()
    assert not supervised.is_closed_for(0.0)
    hands.now = float(CLOSES)
    assert [supervised.is_closed_for(seconds) for seconds in (0.0, 60.0)] == [True, False]
    hands.now = CLOSES + 60.0
    assert supervised.is_closed_for(60.0)


def test_history_is_asked_for_the_last_candle_of_a_session_and_no_other(
    supervised: SupervisedStream, hub: Hub, hands: Hands
) -> None:
    with_hours(supervised)
    supervised.go_live()
    hub.publish(supervised.stream, update(A))
    asked = []
    while hands.now < OPENS + 65:
        supervised.check_silence(hands.now)
        if supervised.is_overdue(hands.now, 2.0, hands.now):
            asked.append(hands.now - CLOSES)
            supervised.ask_later(hands.now)
            if len(asked) == 3:
                hub.publish(supervised.stream, update(A, is_closed=True))
        hands.now += 1
    # It was still open there at first; the pauses grow.
    assert asked == [2.0, 62.0, 182.0, 7262.0]


def overdue_from(supervised: SupervisedStream, hands: Hands, until: float, *, is_answered: bool = True) -> list[float]:
    """Return when history is asked while nothing comes, in seconds after the close."""
    asked = []
    while hands.now < until:
        supervised.check_silence(hands.now)
        if supervised.is_overdue(hands.now, 2.0, hands.now):
            asked.append(hands.now - CLOSES)
            supervised.ask_later(hands.now)
            if is_answered:
                supervised.note_answer()
        hands.now += 1
    return asked


@pytest.mark.parametrize(
    ("is_answered", "asked"), [(True, [600.0, 660.0]), (False, [600.0, 660.0, 780.0, 1020.0, 1500.0, 2460.0, 4380.0])]
)
def test_history_is_asked_for_the_end_of_a_session_of_which_no_feed_told_anything(
    supervised: SupervisedStream, hands: Hands, is_answered: bool, asked: list[float]
) -> None:
    with_hours(supervised)
    supervised.go_live()
    supervised.lose("the connection was lost")
    hands.now = CLOSES + 600.0
    supervised.rest("market_closed", "until nine")
    # Its next poll comes when the market opens.
    supervised.expect(OPENS - hands.now, None)
    assert overdue_from(supervised, hands, OPENS - 1, is_answered=is_answered) == asked


def test_a_long_candle_is_asked_for_when_it_ends_also_if_the_stream_was_wanted_after_the_close(
    hub: Hub, hands: Hands
) -> None:
    hands.now = CLOSES + 600.0
    hour = StreamKey(A.symbol, "1h")
    supervised = SupervisedStream(hub.stream("demo", hour, "A", Feeder(clock=hands.clock)), hub, hands.clock)
    with_hours(supervised)
    supervised.rest("market_closed", "until nine")
    supervised.expect(OPENS - hands.now, None)
    ends = (CLOSES // 3600 + 1) * 3600 - CLOSES
    assert overdue_from(supervised, hands, OPENS - 1)[0] == ends + 2.0


def test_nothing_is_asked_for_a_stream_that_is_wanted_when_nothing_of_the_session_is_open(
    supervised: SupervisedStream, hands: Hands
) -> None:
    with_hours(supervised)
    hands.now = supervised.stream.series.promised_at = CLOSES + 600.0
    supervised.rest("market_closed", "until nine")
    assert overdue_from(supervised, hands, OPENS - 1) == []


def test_a_poll_that_is_planned_for_closed_hours_closes_the_last_candle(
    supervised: SupervisedStream, hub: Hub, hands: Hands
) -> None:
    with_hours(supervised)
    supervised.go_live()
    hub.publish(supervised.stream, update(A))
    supervised.expect(3600.0, None)
    assert overdue_from(supervised, hands, CLOSES + 3500) == []


# -- candles that nobody closed --------------------------------------------------------------------


def test_a_candle_is_overdue_when_its_grace_has_passed(supervised: SupervisedStream, hub: Hub, hands: Hands) -> None:
    supervised.go_live()
    hub.publish(supervised.stream, update(A))
    over = MINUTE + 60.0
    assert not supervised.is_overdue(over + 1.9, 2.0, hands.now)
    assert supervised.is_overdue(over + 2.0, 2.0, hands.now)


def test_a_stream_without_a_candle_is_overdue_an_interval_after_it_was_wanted(
    supervised: SupervisedStream, hands: Hands
) -> None:
    supervised.go_live()
    # It was wanted half a minute after MINUTE.
    assert not supervised.is_overdue(MINUTE + 91.0, 2.0, hands.now)
    assert supervised.is_overdue(MINUTE + 92.0, 2.0, hands.now)


def test_history_is_asked_for_an_overdue_candle_once_an_interval(supervised: SupervisedStream, hands: Hands) -> None:
    supervised.go_live()
    late = MINUTE + 600.0
    supervised.ask_later(hands.now)
    assert not supervised.is_overdue(late, 2.0, hands.now + 59)
    assert supervised.is_overdue(late, 2.0, hands.now + 60)


def test_a_planned_poll_will_bring_what_is_overdue(supervised: SupervisedStream, hands: Hands) -> None:
    supervised.go_live()
    supervised.expect(600.0, 600.0)
    assert not supervised.is_overdue(MINUTE + 92.0, 2.0, hands.now)
    assert supervised.is_overdue(MINUTE + 92.0, 2.0, hands.now + 620)


def test_nothing_is_overdue_while_the_stream_is_lost_or_being_caught_up(
    supervised: SupervisedStream, hands: Hands
) -> None:
    supervised.go_live()
    supervised.lose("the connection was lost")
    assert not supervised.is_overdue(MINUTE + 600.0, 2.0, hands.now)
    supervised.go_live()
    supervised.stream.series.catch_up()
    assert not supervised.is_overdue(MINUTE + 600.0, 2.0, hands.now)
