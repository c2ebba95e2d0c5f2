"""One stream that is carried: its state is told honestly, its silence judged by its habit and its feed's plans."""

from collections.abc import Callable
from itertools import permutations

import pytest

from relay.core.clock import ProviderClock
from relay.core.model import OpenHours
from relay.core.trading_hours import Market
from relay.streams.hub import Hub
from relay.streams.subscriptions import Stream
from relay.supervision.liveness import Remedy
from relay.supervision.stream_state import KEPT_EVENTS, Carried, Facts, State
from tests.supervising import MINUTE, A, Hands, update


class Feeder:
    """Stands where a supervisor does."""

    has_history = True

    close_grace_s = 5.0

    def __init__(self, hands: Hands) -> None:
        self.clock = ProviderClock(hands.clock)

    def wanted(self, stream: Stream) -> None:
        """Take no notice."""

    def unwanted(self, stream: Stream) -> None:
        """Take no notice."""


@pytest.fixture
def hands() -> Hands:
    return Hands()


@pytest.fixture
def hub(hands: Hands) -> Hub:
    return Hub(hands.clock)


@pytest.fixture
def carried(hands: Hands, hub: Hub) -> Carried:
    return Carried(hub.stream("demo", A, "A", Feeder(hands)), hub, hands.clock)


def state(carried: Carried) -> tuple[str, str]:
    return carried.stream.status, carried.stream.message


def test_a_loss_is_counted_once_however_many_feeds_fail_after_it(carried: Carried) -> None:
    carried.go_live()
    for cause in ("the connection was lost", "nobody answers"):
        carried.lose(cause)
        assert state(carried) == ("reconnecting", f"{cause}; the next attempt is under way")
    assert carried.stream.reconnects == 1
    assert [event for _, event in carried.stream.events] == ["lost: the connection was lost"]


def test_a_stream_that_never_was_live_is_still_connecting_when_its_feed_fails(carried: Carried) -> None:
    carried.lose("nobody answers")
    assert state(carried) == ("connecting", "nobody answers; the next attempt is under way")
    assert carried.stream.reconnects == 0
    assert carried.stream.events == []


def test_a_remark_is_shown_while_the_stream_is_live_and_kept_for_then(carried: Carried) -> None:
    carried.remark("polled every 5 min")
    assert state(carried)[0] == "connecting"
    carried.go_live()
    assert state(carried) == ("connected", "polled every 5 min")
    carried.remark("")
    assert state(carried) == ("connected", "live")


def test_only_the_newest_events_are_kept(carried: Carried) -> None:
    for number in range(KEPT_EVENTS + 3):
        carried.note(str(number))
    assert next(event for _, event in carried.stream.events) == "3"
    assert len(carried.stream.events) == KEPT_EVENTS


# -- one state from many facts ---------------------------------------------------------------------

CLOSED = State("market_closed", "until Sunday")
FETCHING = State("backfilling", "what was missed is being fetched")


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


def said(carried: Carried) -> list[Callable[[], None]]:
    return [
        carried.go_live,
        lambda: carried.rest(*CLOSED),
        lambda: carried.catch_up("what was missed is being fetched"),
        lambda: carried.remark("polled every 5 min"),
    ]


@pytest.mark.parametrize("order", list(permutations(range(4))))
def test_a_pause_stands_in_whatever_order_things_are_learned(hub: Hub, hands: Hands, order: tuple[int, ...]) -> None:
    carried = Carried(hub.stream("demo", A, "A", Feeder(hands)), hub, hands.clock)
    for number in order:
        said(carried)[number]()
    assert state(carried) == CLOSED
    carried.caught_up()
    assert state(carried) == CLOSED
    carried.accept()
    carried.show()
    assert state(carried) == ("connected", "polled every 5 min")


def test_a_pause_is_forgotten_by_no_loss_and_no_refusal(carried: Carried) -> None:
    carried.rest(*CLOSED)
    carried.lose("the connection was lost")
    assert state(carried)[0] == "reconnecting"
    carried.go_live()
    assert state(carried) == CLOSED
    carried.refuse("busy")
    carried.retry()
    assert state(carried)[0] == "reconnecting"
    carried.go_live()
    assert state(carried) == CLOSED
    carried.hear()
    assert state(carried) == ("connected", "live")


def test_a_stream_whose_past_waits_for_the_budget_is_throttled_until_it_was_fetched(carried: Carried) -> None:
    carried.go_live()
    carried.wait_for_budget("the budget is used up, more at 12:00")
    carried.go_live()
    assert state(carried) == ("throttled", "the budget is used up, more at 12:00")
    carried.catch_up("what was missed is being fetched")
    assert state(carried) == FETCHING
    carried.wait_for_budget("used up again")
    carried.caught_up()
    assert state(carried) == ("connected", "live")


def made_stale(carried: Carried, hands: Hands) -> None:
    carried.go_live()
    hands.now += 130
    assert carried.check_silence(hands.now) is Remedy.RESUBSCRIBE
    assert state(carried) == ("stale", "no data for 130 s")


def lose_and_accept(carried: Carried) -> None:
    carried.lose("the connection was lost")
    carried.accept()
    carried.go_live()


def refuse_and_accept(carried: Carried) -> None:
    carried.refuse("busy")
    carried.retry()
    carried.accept()
    carried.go_live()


def throttle_and_accept(carried: Carried) -> None:
    carried.rest("throttled", "the budget is used up")
    carried.accept()
    carried.show()


def fetch(carried: Carried) -> None:
    carried.catch_up("what was missed is being fetched")
    carried.wait_for_budget("the budget is used up")
    carried.caught_up()


@pytest.mark.parametrize("event", [Carried.accept, lose_and_accept, refuse_and_accept, throttle_and_accept, fetch])
def test_nothing_but_an_update_ends_a_silence(carried: Carried, hands: Hands, event: Callable[[Carried], None]) -> None:
    made_stale(carried, hands)
    event(carried)
    assert state(carried)[0] == "stale"
    hands.now += 1
    carried.check_silence(hands.now)
    assert state(carried)[0] == "stale"
    carried.hear()
    assert state(carried) == ("connected", "live")


def test_the_market_that_closes_ends_a_silence(carried: Carried, hands: Hands) -> None:
    made_stale(carried, hands)
    carried.rest(*CLOSED)
    carried.accept()
    carried.show()
    assert state(carried) == ("connected", "live")


def test_a_new_feed_has_the_time_of_its_own_before_it_is_replaced(carried: Carried, hands: Hands) -> None:
    carried.received += 1
    carried.go_live()
    carried.check_silence(hands.now)
    made_stale(carried, hands)
    carried.lose("the connection was lost")
    carried.listen_anew(hands.now)
    carried.go_live()
    assert carried.check_silence(hands.now + 119) is None


def test_feeds_that_are_lost_again_and_again_and_bring_nothing_are_a_silence(carried: Carried, hands: Hands) -> None:
    states = set[str]()
    for _ in range(20):
        carried.accept()
        carried.listen_anew(hands.now)
        carried.go_live()
        hands.now += 5
        carried.check_silence(hands.now)
        states.add(state(carried)[0])
        carried.lose("the answer is for another symbol")
        hands.now += 5
        carried.check_silence(hands.now)
        states.add(state(carried)[0])
    assert states == {"connected", "stale", "reconnecting"}
    carried.accept()
    carried.go_live()
    assert state(carried)[0] == "stale"


# -- silence ---------------------------------------------------------------------------------------


def test_a_silent_stream_is_stale_and_subscribed_anew_before_its_feed_is_replaced(
    carried: Carried, hands: Hands
) -> None:
    carried.go_live()
    tried = []
    for seconds in (100, 130, 200, 250, 400):
        hands.now = MINUTE + 30.0 + seconds
        tried.append(carried.check_silence(hands.now))
    # An unknown stream of 1m has the patience of an interval and a minute.
    assert tried == [None, Remedy.RESUBSCRIBE, None, Remedy.REPLACE_FEED, None]
    assert state(carried) == ("stale", "no data for 130 s")
    assert [event for _, event in carried.stream.events] == ["stale"]


def test_a_stream_that_was_silent_is_stale_again_after_its_gap_was_fetched(carried: Carried, hands: Hands) -> None:
    carried.go_live()
    hands.now += 130
    carried.check_silence(hands.now)
    carried.catch_up("what was missed is being fetched")
    hands.now += 5
    carried.caught_up()
    assert state(carried) == ("stale", "no data for 135 s")


def test_a_stream_that_was_heard_is_live_after_its_gap_was_fetched(carried: Carried, hands: Hands) -> None:
    carried.go_live()
    carried.catch_up("what was missed is being fetched")
    hands.now += 500
    # It cannot be blamed for silence while history is waited for.
    assert carried.check_silence(hands.now) is None
    carried.caught_up()
    assert state(carried) == ("connected", "live")


def test_silence_before_a_stream_is_live_or_while_it_rests_does_not_count(carried: Carried, hands: Hands) -> None:
    assert carried.check_silence(hands.now + 1000) is None
    carried.rest("market_closed", "until Sunday")
    assert carried.check_silence(hands.now + 2000) is None
    carried.hear()
    assert carried.check_silence(hands.now + 2100) is None
    assert carried.check_silence(hands.now + 2121) is Remedy.RESUBSCRIBE


def test_a_stream_that_waits_for_its_planned_poll_is_not_stale(carried: Carried, hands: Hands) -> None:
    carried.go_live()
    carried.expect(3600.0, 3600.0)
    # The last look before the poll is late begins to measure silence.
    for seconds, expected in ((1000, "connected"), (3610, "connected"), (3700, "connected"), (3740, "stale")):
        carried.check_silence(hands.now + seconds)
        assert state(carried)[0] == expected, seconds


@pytest.mark.parametrize(("every_s", "stale_after_s"), [(30.0, 180.0), (60.0, 240.0), (600.0, 1320.0)])
def test_a_stream_whose_polls_bring_nothing_is_stale_all_the_same(
    carried: Carried, hands: Hands, every_s: float, stale_after_s: float
) -> None:
    """An interval, two polls and a minute have to do."""
    carried.go_live()
    began, stale = hands.now, []
    while hands.now < began + 3600:
        # The next poll is always planned.
        carried.expect(every_s, every_s)
        hands.now += 1
        if carried.check_silence(hands.now) is not None:
            stale.append(hands.now - began)
    assert stale[0] == pytest.approx(stale_after_s, abs=1.1)
    assert state(carried)[0] == "stale"


def test_a_poll_with_news_is_enough_for_two_without(carried: Carried, hands: Hands) -> None:
    carried.go_live()
    for number in range(3600):
        carried.expect(60.0, 60.0)
        carried.received += number % 180 == 0
        hands.now += 1
        assert carried.check_silence(hands.now) is None
    assert state(carried)[0] == "connected"


def market_of(opens_in_s: int, hands: Hands) -> Market:
    """Return a market that is closed now and opens so many seconds from now."""
    opens = int(hands.now) + opens_in_s
    return Market(lambda moment: OpenHours(opens, opens + 86_400))


def test_silence_while_the_market_is_closed_is_not_stale(carried: Carried, hands: Hands) -> None:
    carried.stream.series.market = market_of(7200, hands)
    carried.go_live()
    for _ in range(7200):
        hands.now += 1
        assert carried.check_silence(hands.now) is None
    hands.now += 115
    assert carried.check_silence(hands.now) is None
    hands.now += 10
    assert carried.check_silence(hands.now) is Remedy.RESUBSCRIBE


def test_what_comes_late_opens_no_market(carried: Carried, hands: Hands) -> None:
    carried.stream.series.market = market_of(7200, hands)
    carried.rest("market_closed", "opens at nine")
    carried.hear()
    assert state(carried) == ("market_closed", "opens at nine")
    # The provider's clock may be a little behind.
    hands.now += 7196
    carried.hear()
    assert state(carried) == ("connected", "live")


# -- candles that nobody closed --------------------------------------------------------------------


def test_a_candle_is_overdue_when_its_grace_has_passed(carried: Carried, hub: Hub, hands: Hands) -> None:
    carried.go_live()
    hub.publish(carried.stream, update(A))
    over = MINUTE + 60.0
    assert not carried.is_overdue(over + 1.9, 2.0, hands.now)
    assert carried.is_overdue(over + 2.0, 2.0, hands.now)


def test_a_stream_without_a_candle_is_overdue_an_interval_after_it_was_wanted(carried: Carried, hands: Hands) -> None:
    carried.go_live()
    # It was wanted half a minute after MINUTE.
    assert not carried.is_overdue(MINUTE + 91.0, 2.0, hands.now)
    assert carried.is_overdue(MINUTE + 92.0, 2.0, hands.now)


def test_history_is_asked_for_an_overdue_candle_once_an_interval(carried: Carried, hands: Hands) -> None:
    carried.go_live()
    late = MINUTE + 600.0
    carried.ask_later(hands.now)
    assert not carried.is_overdue(late, 2.0, hands.now + 59)
    assert carried.is_overdue(late, 2.0, hands.now + 60)


def test_a_planned_poll_will_bring_what_is_overdue(carried: Carried, hands: Hands) -> None:
    carried.go_live()
    carried.expect(600.0, 600.0)
    assert not carried.is_overdue(MINUTE + 92.0, 2.0, hands.now)
    assert carried.is_overdue(MINUTE + 92.0, 2.0, hands.now + 620)


def test_nothing_is_overdue_while_the_stream_is_lost_or_being_caught_up(carried: Carried, hands: Hands) -> None:
    carried.go_live()
    carried.lose("the connection was lost")
    assert not carried.is_overdue(MINUTE + 600.0, 2.0, hands.now)
    carried.go_live()
    carried.stream.series.catch_up()
    assert not carried.is_overdue(MINUTE + 600.0, 2.0, hands.now)
