"""Streams that their provider refuses are tried again: ever more rarely, soon for a new subscriber, not in a loop."""

import logging
import random
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import get_args

import pytest

from relay import AuthenticationFailed, StreamKey
from relay.instruments.listing import Standing
from relay.streams.subscriptions import Stream
from relay.supervision.refusals import RefusedStream
from relay.supervision.supervisor import Supervisor
from tests.support.conditions import eventually
from tests.support.supervised_provider import KEY, A, B, Hands, Rig, Scripted, make_live, rig_of, update


def tries_within(seconds: float, *, newcomer_every_s: float | None = None) -> list[float]:
    """Return when a stream that is refused again and again is tried, looked at ten times a second."""
    refusal = RefusedStream(random.Random(1), 0)
    refusal.note("busy", 0.0)
    tried = []
    for tenth in range(1, int(seconds * 10)):
        now = tenth / 10
        if newcomer_every_s is not None and now % newcomer_every_s < 0.05:
            refusal.hurry(now)
        if now >= refusal.retry_at:
            tried.append(now)
            refusal.note("busy", now)
    return tried


def test_tries_begin_soon_and_become_as_rare_as_every_five_minutes() -> None:
    tried = tries_within(3600.0)
    assert tried[0] <= 2.1
    pauses = [after - before for before, after in pairwise(tried)]
    assert max(pauses) <= 300.2
    assert min(pauses[-3:]) >= 149
    assert len(tried) < 30


def test_subscribing_in_a_loop_makes_a_try_every_five_seconds_at_most() -> None:
    tried = tries_within(600.0, newcomer_every_s=0.2)
    assert 80 < len(tried) <= 121
    assert min(after - before for before, after in pairwise(tried[2:])) >= 4.9


class Lists:
    """The standing of every symbol, as the test sets it."""

    def __init__(self) -> None:
        self.version = 1
        self.told: Standing = "trading"

    def standing(self, provider: str, symbol: str) -> Standing:
        return self.told

    def tell(self, standing: Standing) -> None:
        assert standing in get_args(Standing)
        self.told = standing
        self.version += 1


def want(rig: Rig, supervisor: Supervisor, key: StreamKey = A) -> Stream:
    stream = rig.hub.stream("scripted", key, key.symbol, supervisor)
    supervisor.wanted(stream)
    return stream


def later(hands: Hands, supervisor: Supervisor, seconds: float) -> None:
    """Let time pass as the supervisor sees it, second by second."""
    for _ in range(round(seconds)):
        hands.now += 1.0
        supervisor.check(hands.now)


def status(stream: Stream) -> str:
    return stream.status


def refusal_of(rig: Rig) -> str | None:
    return rig.provider.refusal


def has_feeds(plugin: Scripted, count: int) -> Callable[[], bool]:
    return lambda: len(plugin.feeds) == count


def has_heard(supervisor: Supervisor, updates: int) -> Callable[[], bool]:
    return lambda: supervisor.counters.updates == updates


def wanted_by(plugin: Scripted, key: StreamKey) -> Callable[[], bool]:
    return lambda: bool(plugin.feeds) and key in plugin.feeds[-1].watchlist


async def test_a_refused_stream_rests_in_error_and_comes_back_by_itself(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    plugin = Scripted()
    caplog.set_level(logging.INFO)
    async with rig_of(plugin, tmp_path) as rig:
        supervisor = rig.supervisor()
        stream, other = want(rig, supervisor), want(rig, supervisor, B)
        await eventually(wanted_by(plugin, A))
        plugin.feeds[0].watchlist.accept([B])
        for _ in range(3):
            plugin.feeds[0].watchlist.reject(A, "busy")
            assert status(stream) == "error"
            assert stream.message.startswith("Scripted refused A@1m: busy; the next attempt is at 2025-11-24T16:")
            later(rig.hands, supervisor, 20.0)
            assert status(stream) == "connecting"
            assert A in plugin.feeds[0].watchlist
        rig.hands.now -= 60.0
        plugin.feeds[0].say(update(A))
        await eventually(lambda: status(stream) == "connected")
        assert other.status == "connected"
        later(rig.hands, supervisor, 1.0)
        said = [line.getMessage() for line in caplog.records if line.name.endswith("refused_streams")]
        assert len(said) == 2
        assert said[0].startswith("A@1m is in error: Scripted refused A@1m: busy; the next attempt is at ")
        assert said[1] == "A@1m is no longer in error: Scripted refused A@1m: busy"


async def test_a_new_subscriber_has_a_refused_stream_tried_at_once(tmp_path: Path) -> None:
    plugin = Scripted()
    async with rig_of(plugin, tmp_path) as rig:
        supervisor = rig.supervisor()
        stream = want(rig, supervisor)
        for number in range(1, 9):
            await eventually(has_feeds(plugin, number))
            plugin.feeds[-1].watchlist.reject(A, "there is no A")
            assert status(stream) == "error"
            if number < 8:
                later(rig.hands, supervisor, 301.0)
        # By now the next try is minutes away.
        later(rig.hands, supervisor, 10.0)
        assert status(stream) == "error"
        supervisor.wanted(stream)
        assert status(stream) == "error"  # what is told first is the confirmation
        await eventually(lambda: len(plugin.feeds) == 9)
        assert status(stream) == "connecting"
        plugin.feeds[-1].watchlist.reject(A, "there is no A")
        supervisor.wanted(stream)
        later(rig.hands, supervisor, 4.0)
        assert status(stream) == "error"
        later(rig.hands, supervisor, 1.0)
        await eventually(lambda: len(plugin.feeds) == 10)


async def test_a_refused_key_is_tried_again_after_a_while_for_all_streams_at_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    plugin = Scripted(**KEY)
    async with rig_of(plugin, tmp_path) as rig:
        supervisor = rig.supervisor()
        streams = [want(rig, supervisor, key) for key in (A, B)]
        await eventually(wanted_by(plugin, B))
        plugin.feeds[0].end(AuthenticationFailed("wrong key"))
        await eventually(lambda: {stream.status for stream in streams} == {"error"})
        assert refusal_of(rig) == "wrong key"
        assert "wrong key; the next attempt is at 2025-11-24T16:" in streams[0].message
        supervisor.wanted(streams[0])
        later(rig.hands, supervisor, 59.0)
        assert len(plugin.feeds) == 1
        later(rig.hands, supervisor, 62.0)
        await eventually(lambda: len(plugin.feeds) == 2)
        assert refusal_of(rig) is None
        assert plugin.feeds[1].watchlist.streams == (A, B)
        plugin.feeds[1].end(AuthenticationFailed("wrong key"))
        await eventually(lambda: refusal_of(rig))
        # Somebody changed the key.
        rig.provider.readmit()
        later(rig.hands, supervisor, 1.0)
        await eventually(lambda: len(plugin.feeds) == 3)
        plugin.feeds[2].watchlist.accept([A, B])
        assert {stream.status for stream in streams} == {"connected"}
        assert caplog.text.count("the provider refuses the relay: wrong key") == 2


async def test_a_provider_without_its_key_stays_refused(tmp_path: Path) -> None:
    async with rig_of(Scripted(), tmp_path) as rig:
        rig.provider.info = rig.provider.info._replace(needs_key="api_key")
        rig.provider.readmit()
        assert rig.provider.lacks_key
        assert "needs a key" in (rig.provider.refusal or "")
        later(rig.hands, rig.supervisor(), 2000.0)
        assert rig.provider.refusal is not None


async def test_a_stream_that_its_list_calls_paused_is_live_while_prices_come(tmp_path: Path) -> None:
    plugin = Scripted()
    async with rig_of(plugin, tmp_path) as rig:
        lists = Lists()
        supervisor = rig.supervisor(lists)
        stream = want(rig, supervisor)
        await make_live(plugin, stream)
        lists.tell("paused")
        for volume in range(5):
            later(rig.hands, supervisor, 5.0)
            plugin.feeds[0].say(update(A)._replace(candle=update(A).candle._replace(volume=volume + 2.0)))
            await eventually(has_heard(supervisor, volume + 2))
            assert status(stream) == "connected"
        later(rig.hands, supervisor, 11.0)
        assert (status(stream), stream.message) == (
            "market_closed", "Scripted has paused trading in A until the next price",
        )  # fmt: skip
        plugin.feeds[0].watchlist.accept([A])
        assert status(stream) == "market_closed"
        plugin.feeds[0].say(update(A))
        await eventually(lambda: status(stream) == "connected")
        # One list is disproved once.
        later(rig.hands, supervisor, 15.0)
        assert status(stream) == "connected"


async def test_a_new_stream_of_a_paused_symbol_rests_until_trading_goes_on(tmp_path: Path) -> None:
    plugin = Scripted()
    async with rig_of(plugin, tmp_path) as rig:
        lists = Lists()
        lists.tell("paused")
        supervisor = rig.supervisor(lists)
        stream = want(rig, supervisor)
        assert status(stream) == "market_closed"
        await eventually(wanted_by(plugin, A))
        plugin.feeds[0].watchlist.accept([A])
        assert status(stream) == "market_closed"
        lists.tell("trading")
        later(rig.hands, supervisor, 1.0)
        assert status(stream) == "connected"


async def test_a_symbol_that_left_its_list_ends_its_stream_once_it_is_silent(tmp_path: Path) -> None:
    plugin = Scripted()
    async with rig_of(plugin, tmp_path) as rig:
        lists = Lists()
        supervisor = rig.supervisor(lists)
        stream = want(rig, supervisor)
        await make_live(plugin, stream)
        lists.tell("gone")
        later(rig.hands, supervisor, 50.0)
        assert status(stream) == "connected"
        later(rig.hands, supervisor, 11.0)
        assert stream.message == "Scripted no longer lists A; the next attempt is when the symbol is listed again"
        later(rig.hands, supervisor, 1000.0)
        assert status(stream) == "error"
        lists.tell("trading")
        later(rig.hands, supervisor, 1.0)
        await eventually(lambda: len(plugin.feeds) == 2)
        assert status(stream) == "reconnecting"
