"""Which relay the client asks next, and when."""

import random

import pytest

from relay.client import BadArgument, RelayClient
from relay.client.backoff import Backoff
from relay.client.rotation import Rotation


class Longest(random.Random):
    def uniform(self, a: float, b: float) -> float:
        return b


def rotation(count: int) -> Rotation:
    return Rotation(count, Backoff(1.0, 8.0, Longest()))


def test_one_relay_is_a_round() -> None:
    one = rotation(1)
    assert [one.go_on(10.0) for _ in range(4)] == [2.0, 4.0, 8.0, 8.0]
    assert one.current == 0
    one.restart()
    assert one.go_on(10.0) == 2.0


def test_pauses_come_after_rounds_and_grow_with_them() -> None:
    three = rotation(3)
    waits = [(three.go_on(0.0), three.current) for _ in range(7)]
    assert waits == [(0.0, 1), (0.0, 2), (2.0, 0), (0.0, 1), (0.0, 2), (4.0, 0), (0.0, 1)]


def test_clients_of_a_relay_that_was_lost_spread() -> None:
    two = rotation(2)
    assert two.go_on(5.0, was_open=True) == 1.0
    assert (two.current, two.next_at) == (1, 6.0)


def test_relay_that_named_a_time_is_not_asked_before_it() -> None:
    one = rotation(1)
    assert one.go_on(0.0, least_s=60.0) == 60.0
    two = rotation(2)
    two.go_on(0.0, least_s=60.0)
    # The other one is a round by itself until then.
    assert [(two.go_on(now), two.current) for now in (0.0, 10.0, 20.0)] == [(2.0, 1), (4.0, 1), (8.0, 1)]
    assert (two.go_on(59.0), two.current) == (8.0, 0)


def test_a_pause_that_no_relay_is_to_blame_for_changes_none() -> None:
    two = rotation(2)
    assert (two.stay(0.0), two.current) == (2.0, 0)
    assert (two.stay(0.0, least_s=30.0), two.current) == (30.0, 0)


async def test_clients_of_several_relays_begin_with_any_of_them_or_in_order() -> None:
    urls = ["http://a:8000", "b:8000", "http://a:8000/"]
    clients = [RelayClient(urls, jitter=random.Random(number)) for number in range(20)]
    assert {client.url.host for client in clients} == {"a", "b"}
    assert {client.urls[0].host for client in clients} == {"a"}
    ordered = [RelayClient(urls, jitter=random.Random(number), in_order=True) for number in range(20)]
    assert {client.url.host for client in ordered} == {"a"}


@pytest.mark.parametrize("urls", [[], (), [5], ["http://a", "ftp://b"]])
def test_address_that_is_none_is_an_error_of_the_call(urls: list[str]) -> None:
    with pytest.raises(BadArgument, match="address"):
        RelayClient(urls)
