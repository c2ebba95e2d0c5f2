"""One task for each stream: a stream that fails, hangs or does not end is alone with that."""

import asyncio
import itertools
import logging
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from relay import (
    API_VERSION,
    AuthenticationFailed,
    BadAnswer,
    PriceUpdate,
    ProviderError,
    ProviderInfo,
    ProviderUnavailable,
    RateLimited,
    StreamKey,
    UnknownSymbol,
    Watchlist,
    each_stream,
    hookimpl,
)
from relay.supervision.stream_state import SupervisedStream
from tests.support.conditions import eventually
from tests.support.supervised_provider import KEY, A, B, Rig, candle, rig_of, update

C = StreamKey("C", "1m")


class Follower:
    """What a library is asked for: each call of `follow` says what `say` puts in, and does what `scripts` tell it."""

    def __init__(self) -> None:
        self.calls: list[tuple[StreamKey, float]] = []
        self.ended: list[StreamKey] = []
        self.lines: dict[StreamKey, asyncio.Queue[PriceUpdate | BaseException | None]] = {}
        self.stuck: set[StreamKey] = set()

    def queue(self, key: StreamKey) -> "asyncio.Queue[PriceUpdate | BaseException | None]":
        return self.lines.setdefault(key, asyncio.Queue())

    def say(self, *updates: PriceUpdate) -> None:
        for one in updates:
            self.queue(one.key).put_nowait(one)

    def end(self, key: StreamKey, error: BaseException | None = None) -> None:
        self.queue(key).put_nowait(error)

    def starts(self, key: StreamKey) -> list[float]:
        return [at for called, at in self.calls if called == key]

    async def follow(self, key: StreamKey) -> AsyncGenerator[PriceUpdate, None]:
        self.calls.append((key, asyncio.get_running_loop().time()))
        try:
            while True:
                try:
                    line = await self.queue(key).get()
                except asyncio.CancelledError:
                    if key in self.stuck:
                        continue
                    raise
                if line is None:
                    return
                if isinstance(line, BaseException):
                    raise line
                yield line
        finally:
            self.ended.append(key)


class Losses:
    """A watchlist that keeps what is reported of single streams."""

    def __init__(self, *streams: StreamKey) -> None:
        self.lost: list[tuple[StreamKey, str, float]] = []
        self.rejected: list[tuple[StreamKey, str]] = []
        self.watchlist = Watchlist(
            streams,
            on_lose=lambda key, error, wait_s: self.lost.append((key, str(error), wait_s)),
            on_reject=lambda key, error: self.rejected.append((key, str(error))),
        )


@asynccontextmanager
async def feed_of(follower: Follower, losses: Losses, **limits: Any) -> AsyncIterator[list[PriceUpdate]]:
    """Run a feed and keep what it says; its failure is raised at the end."""
    found: list[PriceUpdate] = []

    async def run() -> None:
        async with aclosing(each_stream(losses.watchlist, follower.follow, **limits)) as updates:
            async for one in updates:
                found.append(one)

    task = asyncio.create_task(run())
    try:
        yield found
        if task.done():
            await task
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError, ProviderError):
            await task


async def run_to_its_end(follower: Follower, losses: Losses) -> None:
    async with feed_of(follower, losses):
        await eventually(lambda: len(follower.ended) == 2)


def others() -> list[str]:
    return [task.get_name() for task in asyncio.all_tasks() if task is not asyncio.current_task()]


async def test_streams_come_and_go_with_the_watchlist_and_nothing_is_left_at_the_end() -> None:
    follower, losses = Follower(), Losses(A)
    async with feed_of(follower, losses) as found:
        follower.say(update(A))
        await eventually(lambda: found == [update(A)])
        losses.watchlist.add(B)
        follower.say(update(B), update(A, 1))
        await eventually(lambda: len(found) == 3)
        losses.watchlist.remove(A)
        await eventually(lambda: follower.ended == [A])
        assert [key for key, _ in follower.calls] == [A, B]
    assert follower.ended == [A, B]
    assert losses.lost == []
    assert others() == []


async def test_stream_that_comes_back_is_begun_again_after_the_one_before_has_ended() -> None:
    follower, losses = Follower(), Losses(A)
    async with feed_of(follower, losses):
        await eventually(lambda: follower.calls)
        losses.watchlist.remove(A)
        losses.watchlist.add(A)
        await eventually(lambda: len(follower.calls) == 2)
        assert follower.ended == [A]


async def test_stream_that_fails_is_tried_again_alone_ever_later_and_soon_after_an_update() -> None:
    follower, losses = Follower(), Losses(A, B)
    async with feed_of(follower, losses) as found:
        for number in range(7):
            follower.end(A, ProviderUnavailable("it broke"))
            follower.say(update(B, number))
        await eventually(lambda: len(losses.lost) == 7)
        await eventually(lambda: len(found) == 7)
        assert {(key, text) for key, text, _ in losses.lost} == {(A, "it broke")}
        assert [one.key for one in found] == [B] * 7
        waits = [wait_s for _, _, wait_s in losses.lost]
        bounds = [(1, 2), (2, 4), (4, 8), (8, 16), (15, 30), (15, 30), (15, 30)]
        assert all(least <= wait_s <= most for wait_s, (least, most) in zip(waits, bounds, strict=True))
        begun = follower.starts(A)
        assert [b - a for a, b in itertools.pairwise(begun)] == pytest.approx(waits[:-1], abs=0.1)
        assert len(follower.starts(B)) == 1
        await eventually(lambda: len(follower.starts(A)) == 8)
        follower.say(update(A))
        await eventually(lambda: len(found) == 8)
        follower.end(A)
        await eventually(lambda: len(losses.lost) == 8)
        assert losses.lost[-1][1] == "A@1m ended"
        assert losses.lost[-1][2] <= 2


@pytest.mark.parametrize(
    "error", [TypeError("no such field"), SystemExit(1), GeneratorExit(), asyncio.CancelledError()]
)
async def test_mistake_in_one_stream_is_that_streams(error: BaseException, caplog: pytest.LogCaptureFixture) -> None:
    follower, losses = Follower(), Losses(A, B)
    async with feed_of(follower, losses) as found:
        follower.end(A, error)
        await eventually(lambda: losses.lost)
        follower.say(update(B))
        await eventually(lambda: found)
        await eventually(lambda: len(follower.starts(A)) == 2)
    assert losses.lost[0][:2] == (A, f"failed ({type(error).__name__} in the stream A@1m)")
    assert "failed in the stream A@1m" in caplog.text


async def test_network_errors_are_told_without_the_address() -> None:
    follower, losses = Follower(), Losses(A)
    async with feed_of(follower, losses):
        follower.end(A, ConnectionRefusedError(111, "Connect call failed ('10.0.0.1', 443)"))
        await eventually(lambda: losses.lost)
    assert losses.lost[0][1] == "cannot be reached: connection refused"


async def test_what_is_no_iterator_is_a_mistake_that_is_named(caplog: pytest.LogCaptureFixture) -> None:
    async def follow(key: StreamKey) -> None:
        return None

    losses = Losses(A)
    task = asyncio.ensure_future(anext(each_stream(losses.watchlist, follow)))  # type: ignore[arg-type]
    await eventually(lambda: losses.lost)
    assert "follow returned coroutine, not an async iterator; it needs `yield`" in caplog.text
    task.cancel()
    await asyncio.wait((task,))


async def test_unknown_symbol_rejects_its_stream() -> None:
    follower, losses = Follower(), Losses(A, B)
    async with feed_of(follower, losses) as found:
        follower.end(A, UnknownSymbol("no such coin"))
        await eventually(lambda: losses.rejected == [(A, "no such coin")])
        follower.say(update(B))
        await eventually(lambda: found)
        assert losses.watchlist.streams == (B,)
    assert losses.lost == []


@pytest.mark.parametrize("error", [AuthenticationFailed("the key was refused"), RateLimited("banned", 40.0)])
async def test_what_concerns_the_whole_provider_ends_all_streams(error: ProviderError) -> None:
    follower, losses = Follower(), Losses(A, B)
    follower.say(update(B))
    follower.end(A, error)
    with pytest.raises(type(error), match=str(error)):
        await run_to_its_end(follower, losses)
    assert sorted(follower.ended) == [A, B]
    assert losses.lost == []
    assert others() == []


async def test_starts_are_bounded_at_once_and_in_a_second() -> None:
    keys = [StreamKey(f"S{number}", "1m") for number in range(30)]
    follower, losses = Follower(), Losses(*keys)
    async with feed_of(follower, losses, starts_at_once=4, starts_per_second=100) as found:
        await asyncio.sleep(5)
        assert len(follower.calls) == 4
        # Who has brought an update has begun.
        follower.say(update(keys[0]), update(keys[1]))
        await eventually(lambda: len(found) == 2)
        await asyncio.sleep(1)
        assert len(follower.calls) == 6
        # A quiet market holds up the others for ten seconds, not for ever.
        await asyncio.sleep(60)
        assert len(follower.calls) == 30
    follower, losses = Follower(), Losses(*keys)
    async with feed_of(follower, losses, starts_at_once=100, starts_per_second=5):
        await asyncio.sleep(30)
        moments = [at for _, at in follower.calls]
        assert len(moments) == 30
        assert all(later - earlier > 1 for earlier, later in zip(moments, moments[5:], strict=False))


@pytest.mark.parametrize("limits", [{"starts_at_once": 0}, {"starts_per_second": -1}])
async def test_limits_below_one_are_refused(limits: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        await anext(each_stream(Watchlist([A]), Follower().follow, **limits))


async def test_stream_that_never_waits_does_not_fill_the_memory_nor_silence_others() -> None:
    made = 0

    async def follow(key: StreamKey) -> AsyncGenerator[PriceUpdate, None]:
        nonlocal made
        while True:
            made += 1
            yield update(key)
            if key == B:
                await asyncio.sleep(1)

    seen: list[StreamKey] = []
    async with aclosing(each_stream(Watchlist([A, B]), follow)) as updates:
        async for one in updates:
            seen.append(one.key)
            if seen.count(B) == 3:
                break
            await asyncio.sleep(0.01)
    assert made < len(seen) + 200


class Venue:
    """A provider with a task for each stream."""

    def __init__(self, **info: Any) -> None:
        self.follower = Follower()
        self._info = ProviderInfo("venue", API_VERSION, "Venue", ("demo",), ("1m",), close_grace_s=1.0)._replace(**info)

    @hookimpl
    def relay_provider(self) -> ProviderInfo:
        return self._info

    @hookimpl
    def relay_stream(self, watchlist: Watchlist) -> AsyncGenerator[PriceUpdate, None]:
        return each_stream(watchlist, self.follower.follow)


@asynccontextmanager
async def followed(venue: Venue, folder: Path, *keys: StreamKey) -> AsyncIterator[tuple[Rig, list[SupervisedStream]]]:
    """Run the slot of some streams, each of which has said a price."""
    async with rig_of(venue, folder) as rig:  # type: ignore[arg-type]
        supervised = [rig.carry(key) for key in keys]
        rig.slot(*supervised)
        venue.follower.say(*map(update, keys))
        await eventually(lambda: all(one.stream.status == "connected" for one in supervised))
        yield rig, supervised


async def test_lost_stream_says_why_and_until_when_and_the_others_stay_connected(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    venue = Venue()
    async with followed(venue, tmp_path, A, B) as (rig, (a, b)):
        failure = BadAnswer("the answer cannot be read", detail="column 7 of wss://internal.example is 'x'")
        venue.follower.end(A, failure)
        await eventually(lambda: a.stream.status == "reconnecting")
        assert a.stream.message.startswith("the answer cannot be read; the next attempt is at 20")
        assert b.stream.status == "connected"
        assert (a.stream.reconnects, b.stream.reconnects) == (1, 0)
        assert "internal.example" not in a.stream.message
        assert (
            "A@1m of feed venue 1 is lost, others continue: the answer cannot be read (column 7 of wss" in caplog.text
        )
        # It comes again, with what it missed.
        venue.follower.say(update(A))
        await eventually(lambda: a.stream.status == "connected")
        assert "all streams of feed venue 1 are delivered again" in caplog.text
        assert rig.attempts.connects == 1


async def test_an_update_just_before_a_loss_does_not_tell_that_the_stream_is_live(tmp_path: Path) -> None:
    venue = Venue()
    async with followed(venue, tmp_path, A) as (_, (a,)):
        # The library has both at once, before the relay looks.
        venue.follower.say(update(A, 0), update(A, 1))
        venue.follower.end(A, ProviderUnavailable("it broke"))
        await eventually(lambda: venue.follower.ended == [A])
        await eventually(lambda: a.received == 3)
        for _ in range(10):
            await asyncio.sleep(0)
        assert a.stream.status == "reconnecting"
        assert a.stream.message.startswith("it broke; the next attempt is at 20")


async def test_a_stream_that_left_and_came_back_is_not_lost_by_what_was_before(tmp_path: Path) -> None:
    losses, follower = Losses(A), Follower()
    async with feed_of(follower, losses) as found:
        follower.say(update(A))
        await eventually(lambda: found)
        follower.end(A, ProviderUnavailable("it broke"))
        follower.queue(A).put_nowait(update(A, 1))
        # All before the feed goes on.
        losses.watchlist.remove(A)
        losses.watchlist.add(A)
        await eventually(lambda: len(found) == 2)
    assert losses.lost == []


async def test_what_a_refusal_keeps_from_clients_is_in_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    venue = Venue()
    async with rig_of(venue, tmp_path) as rig:  # type: ignore[arg-type]
        supervisor = rig.supervisor()
        stream = rig.hub.stream("venue", A, A.symbol, supervisor)
        supervisor.wanted(stream)
        await eventually(lambda: venue.follower.calls)
        venue.follower.end(A, UnknownSymbol("it was delisted", detail="code 7 of https://internal.example/a"))
        await eventually(lambda: stream.status == "error")
        assert stream.message.startswith("Venue refused A@1m: it was delisted; the next attempt is at 20")
    assert "Venue refused A@1m: it was delisted (code 7 of https://internal.example/a)" in caplog.text


async def test_the_same_loss_of_many_streams_is_one_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    venue = Venue()
    keys = [StreamKey(f"S{number}", "1m") for number in range(9)]
    async with followed(venue, tmp_path, *keys) as (_, supervised):
        for key in keys:
            venue.follower.end(key, ProviderUnavailable("the venue is away"))
        await eventually(lambda: all(one.stream.status == "reconnecting" for one in supervised))
    assert caplog.text.count("the venue is away") == 1


async def test_each_kind_of_mistake_is_logged_once_with_its_stream_and_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    venue = Venue()
    async with followed(venue, tmp_path, A, B) as (rig, (a, b)):
        for number in range(3):
            for key in (A, B):
                venue.follower.end(key, KeyError(f"field {number}"))
        await eventually(lambda: rig.provider.failures.failed == 6)
        await eventually(lambda: "KeyError in the stream A@1m" in a.stream.message)
        assert "KeyError in the stream B@1m" in b.stream.message
    assert caplog.text.count("Traceback") == 1
    assert "provider venue failed in the stream A@1m" in caplog.text


async def test_refused_key_ends_the_feed_and_is_told_to_all_streams(tmp_path: Path) -> None:
    venue = Venue(**KEY)
    async with followed(venue, tmp_path, A, B) as (rig, _):
        venue.follower.end(B, AuthenticationFailed("the key was refused: hush-hush"))
        await eventually(lambda: len(rig.refused) == 2)
        assert rig.refused == [("A", "the key was refused: ***"), ("B", "the key was refused: ***")]
        assert sorted(venue.follower.ended) == [A, B]


async def test_stream_that_ignores_its_cancellation_is_killed_and_holds_up_no_other(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    venue = Venue()
    async with followed(venue, tmp_path, A, B) as (rig, (_, b)):
        venue.follower.stuck.add(A)
        loop, feed = asyncio.get_running_loop(), venue.follower
        began = loop.time()
        rig.slots[0].remove(A)
        feed.say(update(B, 0))
        await eventually(lambda: b.received == 2)
        await eventually(lambda: feed.ended == [A])
        assert loop.time() - began <= 3
        assert rig.provider.killed == 1
    assert "stream A@1m of venue did not end when it was cancelled and was killed" in caplog.text


async def test_feed_with_a_stuck_stream_ends_in_time_and_leaves_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    venue = Venue()
    async with followed(venue, tmp_path, A, B):
        venue.follower.stuck.add(B)
    assert sorted(venue.follower.ended) == [A, B]
    assert "pump venue 1 did not end" not in caplog.text
    assert [name for name in others() if "venue" in name] == []


async def test_a_feed_that_replaces_another_tells_no_loss_while_the_old_one_delivers(tmp_path: Path) -> None:
    venue = Venue()
    async with followed(venue, tmp_path, A, B) as (rig, (a, b)):
        rig.slots[0].renew()
        await eventually(lambda: len(venue.follower.calls) == 4)
        # Who takes it is not known: both feeds listen to the same lines.
        venue.follower.say(update(B), update(B))
        venue.follower.say(update(A), update(A))
        await eventually(lambda: rig.slots[0].open_feeds == 1)
        assert [one.stream.status for one in (a, b)] == ["connected", "connected"]
        assert candle(0) == a.stream.series.last
