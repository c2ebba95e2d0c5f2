"""Steps in closed times, revisions and gaps over a lost connection: what the client asks anew, and what it tells."""

import itertools
from typing import Any

import pytest

from relay.client.messages import Gap, Message, Outdated, Update
from tests.unit.test_followed_streams import Json, Relay

BTC = "BTCUSDT@1m"
START = 1_764_000_000


@pytest.fixture
def relay() -> Relay:
    """Return a relay whose client follows one stream and had the candle of minute 0."""
    relay = Relay()
    relay.follow(BTC)
    relay.asks()
    relay.says("status", status="connected", server_time=START)
    relay.confirms(BTC, 1)
    relay.updates(BTC, START, is_closed=True)
    return relay


def candle(minute: int, close: float = 1.0) -> Json:
    return {"time": START + 60 * minute, "open": 1, "high": 9, "low": 0.5, "close": close, "volume": 1}


def update(relay: Relay, minute: int, *, is_closed: bool = True, close: float = 1.0, **marks: Any) -> list[Message]:
    return relay.says("price_update", BTC, candle=candle(minute, close), is_closed=is_closed, **marks)


def snapshot(relay: Relay, *minutes: int, last_is_closed: bool = True, **fields: Any) -> list[Message]:
    candles = [candle(minute) for minute in minutes]
    return relay.says("snapshot", BTC, candles=candles, last_is_closed=last_is_closed, **fields)


def resume(relay: Relay) -> Json:
    """Lose the connection and open another; return what the relay is asked for. It confirms that."""
    relay.following.restart()
    (request,) = relay.asks()
    relay.confirms(BTC, request["id"])
    return request


def is_asked_anew(relay: Relay) -> Json:
    """Expect that the stream is left and asked for again; return the second request, which is confirmed."""
    leave, ask = relay.asks()
    assert (leave["action"], ask["action"]) == ("unsubscribe", "subscribe")
    assert relay.confirms(BTC, leave["id"], "unsubscribe") == []
    relay.confirms(BTC, ask["id"])
    return ask


def minutes(messages: list[Message]) -> list[int]:
    return [(one.candle.time - START) // 60 for one in messages if isinstance(one, Update)]


def gaps(messages: list[Message]) -> list[tuple[int, int]]:
    return [((one.start - START) // 60, (one.end - START) // 60) for one in messages if isinstance(one, Gap)]


def test_what_a_snapshot_steps_over_is_asked_for_before_anything_later_is_told(relay: Relay) -> None:
    resume(relay)
    # Closes that came while a slow history answered: the relay calls it complete, and they are not there.
    assert minutes(snapshot(relay, 1, 4, 5, complete=True)) == [1]
    assert update(relay, 6) == []
    assert is_asked_anew(relay)["since"] == START + 60
    assert minutes(snapshot(relay, 2, 3, 4, 5, 6, complete=True)) == [2, 3, 4, 5, 6]
    assert minutes(update(relay, 7)) == [7]
    assert relay.asks() == []


@pytest.mark.parametrize("is_closed", [True, False])
def test_what_an_update_steps_over_is_asked_for_before_it_is_told(relay: Relay, is_closed: bool) -> None:
    assert update(relay, 4, is_closed=is_closed) == []
    assert is_asked_anew(relay)["since"] == START
    assert minutes(snapshot(relay, 1, 2, 3, 4, last_is_closed=is_closed, complete=True)) == [1, 2, 3, 4]


def test_candle_told_as_open_that_never_closed_is_asked_for(relay: Relay) -> None:
    relay.follow("ETHUSDT@1m")
    relay.asks()
    relay.confirms("ETHUSDT@1m", 2)
    relay.updates("ETHUSDT@1m", START)
    assert relay.updates("ETHUSDT@1m", START + 60) == []
    leave, ask = relay.asks()
    assert (leave["action"], ask["since"]) == ("unsubscribe", START - 1)


def test_a_market_that_was_closed_costs_one_question_and_is_no_gap(relay: Relay) -> None:
    assert update(relay, 2880) == []
    is_asked_anew(relay)
    assert snapshot(relay, complete=True) == []
    told = update(relay, 2880)
    assert (minutes(told), gaps(told)) == ([2880], [])
    assert minutes(update(relay, 2881)) == [2881]
    assert relay.asks() == []


def test_what_is_still_missing_after_the_question_is_told_as_a_gap(relay: Relay) -> None:
    assert update(relay, 4) == []
    is_asked_anew(relay)
    told = snapshot(relay, 4, complete=False)
    assert (gaps(told), minutes(told)) == ([(1, 4)], [4])


def test_a_step_that_a_gap_explains_is_not_asked_for(relay: Relay) -> None:
    told = relay.says("gap", BTC, **{"from": START + 60, "to": START + 240})
    told += update(relay, 4)
    assert (gaps(told), minutes(told)) == ([(1, 4)], [4])
    assert relay.asks() == []


def test_a_doubt_that_the_connection_does_not_survive_is_settled_by_the_next(relay: Relay) -> None:
    update(relay, 4)
    assert resume(relay)["since"] == START
    assert minutes(snapshot(relay, 4, complete=True)) == [4]
    assert relay.asks() == []


def test_what_a_gap_lacked_goes_back_as_revised_where_a_later_candle_was_told(relay: Relay) -> None:
    relay.says("gap", BTC, **{"from": START + 60, "to": START + 120})
    update(relay, 2, is_closed=False)
    assert resume(relay)["since"] == START
    told = snapshot(relay, 1, 2, 3, last_is_closed=False, complete=True)
    assert minutes(told) == [1, 2, 3]
    assert [one.is_revised for one in told if isinstance(one, Update)] == [True, False, False]


# -- what changed meanwhile -----------------------------------------------------------------------------------------


def test_a_resume_names_the_last_revision_and_tells_what_was_revised_since(relay: Relay) -> None:
    relay.confirms(BTC, 1)
    update(relay, 0, close=2.0, revised=True, revision=17)
    assert resume(relay)["revision"] == 17
    told = snapshot(relay, 1, complete=True, revised=[candle(0, 3.0)], revisions_known=True, revision=18)
    assert minutes(told) == [0, 1]
    assert [one.is_revised for one in told if isinstance(one, Update)] == [True, False]
    assert told[0].wire["revised"] is True
    assert resume(relay)["revision"] == 18


def test_number_comes_with_a_confirmation_or_a_snapshot_too(relay: Relay) -> None:
    relay.following.restart()
    (request,) = relay.asks()
    assert "revision" not in request
    relay.says("subscription", BTC, action="subscribe", id=request["id"], revision=5)
    assert resume(relay)["revision"] == 5
    snapshot(relay, revision=6)
    assert resume(relay)["revision"] == 6


def test_a_revision_told_twice_is_told_once(relay: Relay) -> None:
    assert minutes(update(relay, 0, close=2.0, revised=True, revision=17)) == [0]
    resume(relay)
    assert snapshot(relay, complete=True, revised=[candle(0, 2.0)]) == []
    assert minutes(update(relay, 0, close=3.0, revised=True)) == [0]


def test_a_revision_that_a_snapshot_held_is_not_told_again(relay: Relay) -> None:
    resume(relay)
    assert minutes(snapshot(relay, 1, 2, complete=True)) == [1, 2]
    assert update(relay, 1, revised=True, revision=17) == []
    assert resume(relay)["revision"] == 17
    assert minutes(snapshot(relay, complete=True, revised=[candle(1), candle(2, 3.0)])) == [2]


def test_streams_that_heard_of_other_revisions_resume_apart(relay: Relay) -> None:
    update(relay, 0, close=2.0, revised=True, revision=17)
    relay.follow("ETHUSDT@1m")
    relay.asks()
    relay.says("subscription", "ETHUSDT@1m", action="subscribe", id=2, revision=12)
    relay.updates("ETHUSDT@1m", START, is_closed=True)
    relay.following.restart()
    assert sorted((one["streams"], one["revision"]) for one in relay.asks()) == [
        (["BTCUSDT@1m"], 17),
        (["ETHUSDT@1m"], 12),
    ]


def test_it_is_told_that_revisions_are_not_known(relay: Relay) -> None:
    resume(relay)
    (told,) = snapshot(relay, complete=True, revised=[], revisions_known=False)
    assert isinstance(told, Outdated)
    assert told.before == START + 1


def test_gaps_are_asked_for_after_a_resume_and_what_comes_is_told_as_revised(relay: Relay) -> None:
    relay.says("gap", BTC, **{"from": START + 60, "to": START + 180})
    update(relay, 3)
    resume(relay)
    snapshot(relay, complete=True)
    (request,) = relay.asks()
    assert (request["action"], request["gaps"]) == ("subscribe", [(START + 60, START + 180)])
    assert relay.confirms(BTC, request["id"]) == []
    told = snapshot(relay, complete=False, revised=[candle(1)])
    assert (minutes(told), gaps(told)) == ([1], [])
    # What is left is asked for again, in growing distances, until nothing is.
    assert relay.asks() == []
    relay.now += 40
    (request,) = relay.asks()
    assert request["gaps"] == [(START + 120, START + 180)]
    relay.confirms(BTC, request["id"])
    update(relay, 2, revised=True)
    snapshot(relay, complete=True, revised=[candle(2)])
    relay.now += 4000
    assert relay.asks() == []


def test_a_gap_that_nobody_can_close_is_asked_for_less_and_less_and_no_more(relay: Relay) -> None:
    relay.says("gap", BTC, **{"from": START + 60, "to": START + 120})
    asked = []
    for _ in range(10_000):
        relay.now += 10
        for request in relay.asks():
            asked.append(relay.now)
            relay.confirms(BTC, request["id"])
            snapshot(relay, complete=True, revised=[])
    pauses = [later - earlier for earlier, later in itertools.pairwise(asked)]
    assert pauses == sorted(pauses)
    assert len(asked) == 12
    resume(relay)
    snapshot(relay, complete=True)
    assert [one["gaps"] for one in relay.asks()] == [[(START + 60, START + 120)]]


def test_a_gap_that_the_relay_repairs_by_itself_is_not_asked_for(relay: Relay) -> None:
    relay.says("gap", BTC, **{"from": START + 60, "to": START + 120})
    update(relay, 2)
    assert minutes(update(relay, 1, revised=True)) == [1]
    relay.now += 4000
    assert relay.asks() == []
