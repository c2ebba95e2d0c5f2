"""The watchlist: what a feed is asked to carry, and what it reports."""

import asyncio
from collections.abc import Awaitable
from typing import Any

import pytest

from relay import PastChange, ProviderError, ProviderUnavailable, StreamKey, UnknownSymbol, Watchlist
from relay.upstream.watchlist import Done

A, B, C = (StreamKey(name, "1m") for name in "ABC")


class Host:
    """Who runs a feed and keeps one secret."""

    name = "host"

    def conceal(self, text: str) -> str:
        return text.replace("secret", "***")

    def tell(self, text: str) -> str:
        return self.conceal(text).replace("https://a.example", "somewhere")

    def judge_stream(self, key: StreamKey, error: BaseException) -> ProviderError:
        known = isinstance(error, UnknownSymbol)
        return UnknownSymbol(self.tell(str(error))) if known else ProviderUnavailable("failed")

    async def end_stream(self, task: asyncio.Task[Any]) -> None:
        task.cancel()


class Reports:
    """A watchlist with everything that was reported to it."""

    def __init__(self, *streams: StreamKey) -> None:
        self.found: list[tuple[Any, ...]] = []
        self.watchlist = Watchlist(
            streams,
            on_accept=lambda key: self.found.append(("accept", key)),
            on_reject=lambda key, error: self.found.append(("reject", key, str(error))),
            on_lose=lambda key, error, wait_s: self.found.append(("lose", key, str(error), wait_s)),
            on_skip=lambda reason: self.found.append(("skip", reason)),
            on_closing=lambda reason: self.found.append(("closing", reason)),
            on_pause=lambda key, status, message: self.found.append(("pause", key, status, message)),
            on_expect=lambda key, in_s, every_s: self.found.append(("expect", key, in_s, every_s)),
            on_invalidate=self._invalidate,
        )

    def _invalidate(self, change: PastChange) -> Awaitable[None]:
        self.found.append(("invalidate", *change))
        return Done()


def test_streams_are_in_the_order_of_the_wishes() -> None:
    watchlist = Watchlist([B, A])
    watchlist.add(C)
    watchlist.remove(B)
    watchlist.add(B)
    assert watchlist.streams == (A, C, B)
    assert len(watchlist) == 3
    assert A in watchlist
    assert StreamKey("A", "1h") not in watchlist


def test_version_grows_with_each_change_and_only_then() -> None:
    watchlist = Watchlist([A])
    watchlist.add(A)
    watchlist.remove(B)
    assert watchlist.version == 0
    watchlist.add(B)
    watchlist.remove(A)
    assert watchlist.version == 2


def test_wish_that_came_back_is_told_from_the_first() -> None:
    watchlist = Watchlist([A])
    first = watchlist.wanted_since(A)
    watchlist.remove(A)
    assert watchlist.wanted_since(A) == -1
    watchlist.add(A)
    assert watchlist.wanted_since(A) > first


async def test_changed_returns_at_once_when_it_already_did() -> None:
    watchlist = Watchlist()
    watchlist.add(A)
    assert await watchlist.changed(0) == 1


async def test_changed_wakes_everybody_who_waits() -> None:
    watchlist = Watchlist()
    waiting = [asyncio.create_task(watchlist.changed(0)) for _ in range(3)]
    await asyncio.sleep(0)
    watchlist.add(A)
    watchlist.add(B)
    assert await asyncio.gather(*waiting) == [2, 2, 2]


async def test_changed_returns_after_the_timeout_with_the_old_version() -> None:
    watchlist = Watchlist([A])
    assert await watchlist.changed(0, timeout_s=0.01) == 0
    assert await watchlist.changed(0, timeout_s=-1) == 0


async def test_waiting_that_was_given_up_leaves_nothing_behind() -> None:
    watchlist = Watchlist()
    for _ in range(5):
        await watchlist.changed(0, timeout_s=0)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(watchlist.changed(0), 0.001)
    assert not watchlist._waiters


def test_reports_reach_the_host() -> None:
    reports = Reports(A, B, C)
    watchlist = reports.watchlist
    watchlist.accept([A, B])
    watchlist.pause(B, "market_closed", "opens on Sunday")
    watchlist.skip("no JSON")
    watchlist.closing("24 hours are over")
    watchlist.reject(C, "delisted")
    assert reports.found == [
        ("accept", A),
        ("accept", B),
        ("pause", B, "market_closed", "opens on Sunday"),
        ("skip", "no JSON"),
        ("closing", "24 hours are over"),
        ("reject", C, "delisted"),
    ]
    assert watchlist.streams == (A, B)


def test_reports_about_streams_that_are_not_wanted_are_ignored() -> None:
    reports = Reports(A)
    reports.watchlist.accept([B])
    reports.watchlist.reject(B, "unknown")
    reports.watchlist.pause(B, "throttled", "a minute")
    assert reports.found == []


def test_accept_of_one_stream_without_a_list_is_a_mistake_that_shows() -> None:
    with pytest.raises(TypeError, match="accept takes several streams"):
        Reports(A).watchlist.accept(A)  # type: ignore[arg-type]


def test_stream_rests_in_the_states_of_the_contract_only() -> None:
    with pytest.raises(ValueError, match="use one of market_closed, throttled"):
        Reports(A).watchlist.pause(A, "asleep", "")


def test_reasons_become_texts_and_pass_through_what_conceals_secrets() -> None:
    reports = Reports(A)
    reports.watchlist.bind(Host())
    reports.watchlist.skip(ValueError("my secret"))  # type: ignore[arg-type]
    reports.watchlist.pause(A, "throttled", "see https://a.example")
    reports.watchlist.reject(A, "not with secret at https://a.example")
    assert reports.found == [
        ("skip", "my ***"), ("pause", A, "throttled", "see somewhere"), ("reject", A, "not with *** at somewhere")
    ]  # fmt: skip


def test_lost_stream_is_told_as_its_host_judges_the_error() -> None:
    reports = Reports(A)
    reports.watchlist.lose(A, ProviderUnavailable("broken"), 3.0)
    reports.watchlist.lose(B, ProviderUnavailable("broken"), 3.0)
    reports.watchlist.bind(Host())
    reports.watchlist.lose(A, ProviderUnavailable("broken with secret"), 4.0)
    assert reports.found == [("lose", A, "broken", 3.0), ("lose", A, "failed", 4.0)]
    with pytest.raises(TypeError, match="lose takes a ProviderError, not str"):
        reports.watchlist.lose(A, "broken", 3.0)  # type: ignore[arg-type]


def test_streams_that_left_are_remembered_for_a_while() -> None:
    watchlist = Watchlist([A, B])
    watchlist.remove(A)
    watchlist.remove(B)
    watchlist.add(B)
    assert watchlist.is_late(A)
    assert not watchlist.is_late(B)
    for number in range(1000):
        key = StreamKey(str(number), "1m")
        watchlist.add(key)
        watchlist.remove(key)
    assert not watchlist.is_late(A)


def test_stream_that_goes_on_long_after_it_left_is_not_late_but_wrong() -> None:
    watchlist = Watchlist([A])
    watchlist.remove(A)
    assert [watchlist.is_late(A) for _ in range(202)] == [True] * 200 + [False] * 2
    watchlist.add(A)
    watchlist.remove(A)
    assert watchlist.is_late(A)


async def test_changed_past_is_reported_whether_the_stream_is_wanted_or_not() -> None:
    reports = Reports(A)
    await reports.watchlist.invalidate(A, 3600)
    await reports.watchlist.invalidate(B, after=60, before=120, one_interval=True, settle_s=5.0)
    assert reports.found == [("invalidate", A, 3600, None, False, 0.0), ("invalidate", B, 120, 60, True, 5.0)]
    await Watchlist().invalidate(A)


@pytest.mark.parametrize(
    ("arguments", "error", "said"),
    [
        ({"before": 3600.5}, TypeError, "before is 3600.5, not an open time in whole seconds"),
        ({"after": True}, TypeError, "after is True, not an open time"),
        ({"before": 60, "after": 60}, ValueError, "before is 60, not later than 60"),
        ({"before": 0}, ValueError, "before is 0, not later than 0"),
        ({"settle_s": -1}, ValueError, "settle_s is -1, not a number of seconds from 0 to 3600"),
        ({"settle_s": float("nan")}, ValueError, "settle_s is nan"),
    ],
)
def test_change_of_the_past_that_makes_no_sense_is_refused(
    arguments: dict[str, Any], error: type[Exception], said: str
) -> None:
    reports = Reports(A)
    with pytest.raises(error, match=said):
        reports.watchlist.invalidate(A, **arguments)
    with pytest.raises(ValueError, match="'2m' is none of the intervals"):
        reports.watchlist.invalidate(StreamKey("A", "2m"), one_interval=True)
    with pytest.raises(TypeError, match="key is 'A', not a StreamKey"):
        reports.watchlist.invalidate("A")  # type: ignore[arg-type]
    assert reports.found == []


def test_the_next_poll_is_reported_for_wanted_streams_only() -> None:
    reports = Reports(A)
    reports.watchlist.expect(A, 30.0)
    reports.watchlist.expect(A, 30.0, 120.0)
    reports.watchlist.expect(B, 5.0)
    assert reports.found == [("expect", A, 30.0, None), ("expect", A, 30.0, 120.0)]


def test_a_feed_that_polls_is_not_given_streams_whose_market_is_closed() -> None:
    closed_for: dict[StreamKey, float] = {}
    accepted: list[StreamKey] = []
    watchlist = Watchlist(
        [A, B],
        on_accept=accepted.append,
        is_closed_for=lambda key, seconds: closed_for.get(key, -1.0) >= seconds,
    )
    assert watchlist.to_poll() == (A, B)
    closed_for[A] = 20.0
    assert watchlist.to_poll() == (A, B)
    closed_for[A] = 100.0
    # Once more, whatever the time between two polls is.
    assert watchlist.to_poll() == (A, B)
    assert accepted == []
    assert watchlist.to_poll() == (B,)
    assert accepted == [A]
    closed_for[C] = 1e9
    watchlist.add(C)
    assert watchlist.to_poll() == (B, C)
    assert watchlist.to_poll() == (B,)
    watchlist.remove(C)
    watchlist.add(C)
    assert watchlist.to_poll() == (B, C)
    del closed_for[A]
    assert watchlist.to_poll() == (A, B)
    closed_for[A] = 100.0
    assert watchlist.to_poll() == (A, B)


def test_without_hours_all_streams_are_polled() -> None:
    watchlist = Watchlist([A, B])
    assert [watchlist.to_poll() for _ in range(3)] == [(A, B)] * 3
