"""The streams that a client follows: what it asks the relay, and what of the answers its application is told."""

import random
from typing import Any

import orjson
import pytest

from relay.client.backoff import Backoff
from relay.client.decoding import decode
from relay.client.messages import Confirmed, Connected, Failure, Gap, Message, Snapshot, State, Update
from relay.client.parsing import parse_stream
from relay.client.resume import StreamOptions
from relay.client.subscriptions import FollowedStreams

Json = dict[str, Any]
CANDLE = {"time": 60, "open": 1, "high": 1, "low": 1, "close": 1, "volume": 1}


class Relay:
    """Plays the relay by hand: `asks` is what it is asked, `says` what it answers, both at the time `now`."""

    def __init__(self) -> None:
        self.now = 100.0
        self.following = FollowedStreams(Backoff(1.0, 1.0, random.Random(1)), server_ahead_s=0.0)

    def follow(self, *names: str, **options: Any) -> None:
        self.following.follow(map(parse_stream, names), StreamOptions(**options))

    def leave(self, *names: str) -> set[str]:
        return set(map(str, self.following.leave(map(parse_stream, names))))

    def asks(self) -> list[Json]:
        found = []
        while (request := self.following.next_request(self.now)) is not None:
            found.append(request)
        return found

    def says(self, kind: str, name: str = "", **fields: Any) -> list[Message]:
        names = dict(zip(("symbol", "interval"), name.split("@"), strict=True)) if name else {}
        said = decode(orjson.dumps({"type": kind, **names, **fields}).decode())
        assert said is not None
        return self.following.take(said, self.now)

    def confirms(self, name: str, request_id: int, action: str = "subscribe") -> list[Message]:
        return self.says("subscription", name, action=action, id=request_id)

    def refuses(self, code: str, name: str = "", **fields: Any) -> list[Message]:
        return self.says("error", name, code=code, message="no", **fields)

    def updates(self, name: str, time: int = 60, *, is_closed: bool = False) -> list[Message]:
        return self.says("price_update", name, candle={**CANDLE, "time": time}, is_closed=is_closed)


@pytest.fixture
def relay() -> Relay:
    return Relay()


def kinds(messages: list[Message]) -> list[type]:
    return [type(message) for message in messages]


# -- asking ---------------------------------------------------------------------------------------------------------


def test_each_stream_is_asked_for_once(relay: Relay) -> None:
    relay.follow("BTCUSDT@1m", "ETHUSDT@1m", bars=3)
    asked = {"action": "subscribe", "streams": ["BTCUSDT@1m", "ETHUSDT@1m"], "id": 1, "bars": 3}
    assert relay.asks() == [asked]
    assert relay.asks() == []
    assert relay.following.due_at == float("inf")


def test_streams_that_differ_in_options_are_asked_for_apart(relay: Relay) -> None:
    relay.follow("BTCUSDT@1m", bars=3)
    relay.follow("ETHUSDT@1m")
    relay.follow("XRPUSDT@1m", bars=3)
    assert [request["streams"] for request in relay.asks()] == [["BTCUSDT@1m", "XRPUSDT@1m"], ["ETHUSDT@1m"]]


def test_stream_of_one_provider_is_asked_for_alone(relay: Relay) -> None:
    relay.follow("BTCUSDT@1m", "binance:ETHUSDT@1m", "XRPUSDT@1m")
    names = [request["streams"] for request in relay.asks()]
    assert names == [["BTCUSDT@1m", "XRPUSDT@1m"], ["BINANCE:ETHUSDT@1m"]]


@pytest.mark.parametrize("symbol", ["X", "X" * 44, "币" * 44])
def test_requests_are_as_large_as_the_relay_takes(relay: Relay, symbol: str) -> None:
    names = [f"{symbol}{number:04}@1m" for number in range(250)]
    relay.follow(*names, bars=5000, since=1_764_000_000, throttle_ms=60_000, closed_only=True)
    requests = relay.asks()
    assert [name for request in requests for name in request["streams"]] == names
    assert max(len(orjson.dumps(request)) for request in requests) <= 4096
    assert max(len(request["streams"]) for request in requests) <= 100


def test_new_connection_is_asked_for_everything_from_where_it_stopped(relay: Relay) -> None:
    relay.follow("BTCUSDT@1m")
    relay.asks()
    relay.confirms("BTCUSDT@1m", 1)
    relay.updates("BTCUSDT@1m", is_closed=True)
    relay.following.restart()
    assert relay.asks() == [{"action": "subscribe", "streams": ["BTCUSDT@1m"], "id": 2, "since": 60}]


def test_following_again_replaces_the_options(relay: Relay) -> None:
    relay.follow("BTCUSDT@1m")
    relay.asks()
    relay.confirms("BTCUSDT@1m", 1)
    relay.follow("btcusdt@1m", throttle_ms=50)
    assert [request.get("throttle_ms") for request in relay.asks()] == [50]
    assert len(relay.following.names) == 1


# -- leaving --------------------------------------------------------------------------------------------------------


def test_stream_is_left_by_the_name_it_was_asked_by(relay: Relay) -> None:
    relay.follow("binance:BTCUSDT@1m")
    relay.asks()
    relay.confirms("BTCUSDT@1m", 1)
    assert relay.leave("BTCUSDT@1m") == {"BTCUSDT@1m"}
    assert relay.asks() == [{"action": "unsubscribe", "streams": ["BINANCE:BTCUSDT@1m"], "id": 2}]
    assert kinds(relay.confirms("BTCUSDT@1m", 2, "unsubscribe")) == [Confirmed]
    assert relay.updates("BTCUSDT@1m") == []


def test_stream_never_asked_for_on_this_connection_is_left_without_a_word(relay: Relay) -> None:
    relay.follow("BTCUSDT@1m")
    assert relay.leave("BTCUSDT@1m") == {"BTCUSDT@1m"}
    relay.follow("ETHUSDT@1m")
    relay.asks()
    relay.following.restart()
    relay.leave("ETHUSDT@1m")
    assert relay.asks() == []


def test_leaving_what_the_relay_ended_already_is_no_failure(relay: Relay) -> None:
    relay.follow("BTCUSDT@1m")
    relay.asks()
    relay.leave("BTCUSDT@1m")
    relay.asks()
    assert relay.refuses("not_subscribed", "BTCUSDT@1m", id=2) == []


def test_leaving_that_comes_too_fast_for_the_relay_is_said_again(relay: Relay) -> None:
    relay.follow("BTCUSDT@1m", "ETHUSDT@1m")
    relay.asks()
    relay.leave("BTCUSDT@1m", "ETHUSDT@1m")
    relay.asks()
    assert relay.refuses("rate_limited", id=2, retry_after=5) == []
    relay.now += 4.9
    assert relay.asks() == []
    relay.now += 0.1
    relay.follow("ETHUSDT@1m")
    assert [request["streams"] for request in relay.asks()] == [["BTCUSDT@1m"], ["ETHUSDT@1m"]]


def test_messages_of_a_subscription_that_was_left_are_not_told_to_the_next(relay: Relay) -> None:
    relay.follow("BTCUSDT@1m")
    relay.asks()
    relay.confirms("BTCUSDT@1m", 1)
    relay.leave("BTCUSDT@1m")
    relay.follow("BTCUSDT@1m")
    relay.following.restart()
    relay.asks()
    assert relay.updates("BTCUSDT@1m") == []
    assert relay.says("status", "BTCUSDT@1m", status="stale") == []
    assert relay.says("snapshot", "BTCUSDT@1m", candles=[], last_is_closed=True) == []
    relay.confirms("BTCUSDT@1m", 2)
    assert kinds(relay.updates("BTCUSDT@1m")) == [Update]


# -- answers --------------------------------------------------------------------------------------------------------


def test_what_happens_to_a_stream_is_told(relay: Relay) -> None:
    relay.follow("BTCUSDT@1m", bars=1)
    relay.asks()
    assert kinds(relay.says("status", status="connected", server_time=9)) == [Connected]
    assert kinds(relay.confirms("BTCUSDT@1m", 1)) == [Confirmed]
    assert kinds(relay.says("status", "BTCUSDT@1m", status="stale")) == [State]
    assert kinds(relay.says("snapshot", "BTCUSDT@1m", candles=[CANDLE], last_is_closed=False)) == [Snapshot]
    assert kinds(relay.updates("BTCUSDT@1m", is_closed=True)) == [Update]
    assert relay.updates("BTCUSDT@1m", is_closed=True) == []
    assert relay.updates("ETHUSDT@1m") == []


def test_what_lies_between_the_candles_of_a_resume_is_no_gap_where_the_relay_told_of_one(relay: Relay) -> None:
    relay.follow("BTCUSDT@1m")
    relay.asks()
    relay.confirms("BTCUSDT@1m", 1)
    relay.updates("BTCUSDT@1m", is_closed=True)
    relay.following.restart()
    relay.asks()
    relay.confirms("BTCUSDT@1m", 2)
    gaps = relay.says("gap", "BTCUSDT@1m", **{"from": 120, "to": 240})
    later = [{**CANDLE, "time": 240}, {**CANDLE, "time": 360}]
    gaps += relay.says("snapshot", "BTCUSDT@1m", candles=later, last_is_closed=True, complete=False)
    assert [(gap.start, gap.end) for gap in gaps if isinstance(gap, Gap)] == [(120, 240)]


def test_time_of_the_server_says_what_a_stream_owes(relay: Relay) -> None:
    relay.follow("BTCUSDT@1m", closed_only=True)
    relay.asks()
    relay.says("status", status="connected", server_time=1_764_000_000)
    relay.now += 30
    relay.confirms("BTCUSDT@1m", 1)
    relay.following.restart()
    assert relay.asks()[0]["since"] == 1_764_000_030 - 60


def test_two_spellings_end_as_one_stream_with_the_later_options(relay: Relay) -> None:
    relay.follow("BTCUSDT@1m")
    relay.follow("demo:BTCUSDT@1m", throttle_ms=50)
    relay.asks()
    relay.confirms("BTCUSDT@1m", 1)
    relay.updates("BTCUSDT@1m", is_closed=True)
    relay.confirms("BTCUSDT@1m", 2)
    assert [str(name) for name in relay.following.names] == ["BTCUSDT@1m"]
    assert relay.updates("BTCUSDT@1m", is_closed=True) == []
    relay.following.restart()
    [request] = relay.asks()
    assert (request["since"], request["throttle_ms"]) == (60, 50)


def test_refused_stream_is_told_and_forgotten(relay: Relay) -> None:
    relay.follow("BTCUSDT@1m", "NOPE@1m")
    relay.asks()
    [failure] = relay.refuses("unknown_symbol", "NOPE@1m", id=1)
    assert isinstance(failure, Failure)
    assert (str(failure.key), failure.code, failure.is_retried) == ("NOPE@1m", "unknown_symbol", False)
    assert [str(name) for name in relay.following.names] == ["BTCUSDT@1m"]


def test_refusal_of_a_whole_request_concerns_all_its_streams(relay: Relay) -> None:
    relay.follow("BTCUSDT@1m", "ETHUSDT@1m", bars=-1)
    relay.asks()
    failures = relay.refuses("invalid_request", id=1)
    assert [str(failure.key) for failure in failures if isinstance(failure, Failure)] == ["BTCUSDT@1m", "ETHUSDT@1m"]
    assert relay.following.names == ()


@pytest.mark.parametrize(
    ("code", "is_retried"),
    [
        ("provider_unavailable", True),
        ("internal", True),
        ("too_many_subscriptions", True),
        ("unknown_symbol", True),
        ("unsupported_interval", True),
        ("a_code_of_a_newer_relay", True),
        ("invalid_request", False),
    ],
)
def test_stream_that_worked_is_asked_for_again_where_time_may_help(relay: Relay, code: str, is_retried: bool) -> None:
    relay.follow("BTCUSDT@1m")
    relay.asks()
    relay.confirms("BTCUSDT@1m", 1)
    relay.following.restart()
    relay.asks()
    [failure] = relay.refuses(code, "BTCUSDT@1m", id=2)
    assert isinstance(failure, Failure)
    assert failure.is_retried == is_retried
    relay.now += 1.0
    assert bool(relay.asks()) == is_retried


def test_rate_limited_streams_wait_as_long_as_the_relay_says(relay: Relay) -> None:
    relay.follow("BTCUSDT@1m", "ETHUSDT@1m")
    relay.asks()
    relay.refuses("rate_limited", id=1, retry_after=7)
    assert relay.following.due_at == relay.now + 7
    relay.now += 6.9
    assert relay.asks() == []
    relay.now += 0.1
    assert [request["streams"] for request in relay.asks()] == [["BTCUSDT@1m", "ETHUSDT@1m"]]


def test_failure_of_no_stream_is_told_as_such(relay: Relay) -> None:
    relay.follow("BTCUSDT@1m")
    relay.asks()
    for failures in (relay.refuses("internal"), relay.refuses("unknown_symbol", "OTHER@1m", id=99)):
        [failure] = failures
        assert isinstance(failure, Failure)
        assert (failure.key, failure.is_retried) == (None, False)
    assert len(relay.following.names) == 1
