"""A recorded provider as the relay sees it: its instruments, its history up to now, and feeds that are in step."""

import asyncio
from collections.abc import Callable
from contextlib import aclosing
from typing import NamedTuple

import pytest

from providers.replay import ReplayProvider, replayed
from relay.core.errors import ProviderUnavailable, UnknownSymbol
from relay.core.intervals import next_open
from relay.core.model import Instrument, PriceUpdate, StreamKey
from relay.upstream.watchlist import Watchlist
from tests.support.recordings import START, MemoryRecording, Streams, longer, walk

M1, H1 = StreamKey("BTCUSDT", "1m"), StreamKey("BTCUSDT", "1h")
ETH = StreamKey("ETHUSDT", "1m")


class Replay(NamedTuple):
    """The providers of a recording, and their time."""

    providers: list[ReplayProvider]
    now: Callable[[], float]


def replay(
    *recorded: Streams, start: int = START, speed: float = 60, takes_s: float = 0.0, known: tuple[Instrument, ...] = ()
) -> Replay:
    recording = MemoryRecording(*recorded, takes_s=takes_s)
    end = max(next_open(key.interval, rows[-1].time) for streams in recorded for key, rows in streams.items())
    return Replay(
        *replayed(
            recording=recording,
            instruments={name: {one.symbol: one for one in known} for name in recording.streams},
            start=start,
            end=end,
            speed=speed,
        )
    )


class Follower:
    """Follows one feed; `told` are its updates, each with the time of the replay when it came."""

    def __init__(self, provider: ReplayProvider, now: Callable[[], float], *keys: StreamKey) -> None:
        self.accepted: list[StreamKey] = []
        self.paused: list[tuple[StreamKey, str, str]] = []
        self.rejected: list[tuple[StreamKey, str]] = []
        self.told: list[tuple[float, PriceUpdate]] = []
        self.watchlist = Watchlist(
            keys,
            on_accept=self.accepted.append,
            on_pause=lambda *said: self.paused.append(said),
            on_reject=lambda key, error: self.rejected.append((key, str(error))),
        )
        self._provider = provider
        self._now = now
        self.task = asyncio.create_task(self._follow())

    async def _follow(self) -> None:
        async with aclosing(self._provider.relay_stream(self.watchlist)) as updates:
            async for update in updates:
                self.told.append((self._now(), update))

    def closed(self, key: StreamKey) -> list[object]:
        return [update.candle for _, update in self.told if update.key == key and update.is_closed]

    async def end(self) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)


# -- what it says of itself ------------------------------------------------------------------------


async def test_instruments_have_the_intervals_that_are_recorded() -> None:
    known = Instrument("BTCUSDT", "crypto", "BTC", "USDT", status="paused", price_step="0.01", intervals=("1s",))
    minutes = walk(60)
    streams = {H1: longer(minutes, "1h"), M1: minutes, StreamKey("EUR/USD", "1m"): minutes}
    (provider,), _ = replay(streams, known=(known,))
    assert await provider.relay_instruments() == [
        known._replace(intervals=("1m", "1h"), status="trading"),
        Instrument("EUR/USD", "recorded", "EUR", "USD", ("1m",)),
    ]
    info = provider.relay_provider()
    assert (info.name, info.asset_classes, info.intervals) == ("binance", ("crypto", "recorded"), ("1m", "1h"))


async def test_history_is_that_of_the_time_of_the_replay() -> None:
    candles = walk(10)
    (provider,), now = replay({M1: candles}, start=START + 120, speed=1)
    found = await provider.relay_candles("BTCUSDT", "1m", None, 1 << 40, 500)
    assert found[:2] == candles[:2]
    assert [one.time for one in found[2:]] == [START + 120]
    with pytest.raises(UnknownSymbol, match=r"^BTCUSDT@1h is not recorded$"):
        await provider.relay_candles("BTCUSDT", "1h", None, 1 << 40, 500)
    assert now() == START + 120


# -- feeds -----------------------------------------------------------------------------------------


async def test_time_begins_with_the_first_feed_and_each_update_comes_at_its_moment() -> None:
    candles = walk(5)
    (provider,), now = replay({M1: candles})
    await asyncio.sleep(99)
    follower = Follower(provider, now, M1)
    began = asyncio.get_running_loop().time()
    await asyncio.sleep(2.5)
    assert follower.closed(M1) == candles[:2]
    await asyncio.sleep(10)
    assert follower.closed(M1) == candles
    for at, update in follower.told:
        assert at == pytest.approx((update.ts_event_ms or 0) / 1000, abs=0.0011)
    assert asyncio.get_running_loop().time() - began == 12.5
    assert now() == START + 300
    await follower.end()


async def test_all_streams_of_all_feeds_are_in_step_however_slow_the_disk() -> None:
    minutes = walk(700)
    one = {M1: minutes, H1: longer(minutes, "1h")}
    (first, second), now = replay(one, {ETH: walk(700, seed=2)}, takes_s=0.01, speed=3600)
    order: list[PriceUpdate] = []

    followers = [Follower(first, now, M1, H1), Follower(second, now, ETH), Follower(first, now, M1)]
    for follower in followers:
        follower.told = _Shared(order)
    await asyncio.sleep(60)
    assert [len(follower.paused) for follower in followers] == [2, 1, 1]
    moments = [(update.ts_event_ms or 0, not update.is_closed) for update in order]
    assert moments == sorted(moments)
    assert [update.candle for update in order if update.key == ETH and update.is_closed] == walk(700, seed=2)
    for follower in followers:
        await follower.end()


class _Shared(list[tuple[float, PriceUpdate]]):
    """Puts what several feeds tell into one list, and lets none be told ahead of its time."""

    def __init__(self, order: list[PriceUpdate]) -> None:
        super().__init__()
        self._order = order

    def append(self, told: tuple[float, PriceUpdate]) -> None:
        at, update = told
        assert at <= (update.ts_event_ms or 0) / 1000 <= at + 0.0011, update
        self._order.append(update)


async def test_a_feed_that_ends_holds_nobody_up() -> None:
    (first, second), now = replay({M1: walk(100)}, {ETH: walk(100, seed=2)})
    one, other = Follower(first, now, M1), Follower(second, now, ETH)
    await asyncio.sleep(5.5)
    await one.end()
    await asyncio.sleep(200)
    assert len(other.closed(ETH)) == 100
    await other.end()


async def test_a_recording_that_cannot_be_read_ends_its_feed_alone() -> None:
    recording = MemoryRecording({M1: walk(1000)}, {ETH: walk(100, seed=2)})
    providers, now = replayed(
        recording=recording, instruments={"binance": {}, "other": {}}, start=START, end=START + 60_000, speed=60
    )
    one, other = Follower(providers[0], now, M1), Follower(providers[1], now, ETH)
    await asyncio.sleep(1.5)
    read = recording.read

    async def fail(provider: str, *asked: object) -> object:
        if provider == "binance":
            raise ProviderUnavailable("the recording cannot be read: the disk has an error")
        return await read(provider, *asked)  # type: ignore[arg-type]

    recording.read = fail  # type: ignore[assignment,method-assign]
    await asyncio.sleep(1000)
    assert isinstance(one.task.exception(), ProviderUnavailable)
    assert len(one.closed(M1)) < 1000
    assert len(other.closed(ETH)) == 100
    await other.end()


async def test_streams_come_and_go() -> None:
    streams = {M1: walk(20), ETH: walk(20, seed=2)}
    (provider,), now = replay(streams)
    follower = Follower(provider, now, M1)
    await asyncio.sleep(2.5)
    follower.watchlist.add(ETH)
    await asyncio.sleep(2)
    follower.watchlist.remove(M1)
    await asyncio.sleep(2)
    follower.watchlist.add(M1)
    await asyncio.sleep(60)
    assert follower.closed(ETH) == streams[ETH][2:]
    assert follower.closed(M1) == [*streams[M1][:4], *streams[M1][6:]]
    assert follower.accepted == [M1, ETH, M1]
    joined = next(update for _, update in follower.told if update.key == ETH)
    assert (joined.candle.time, joined.ts_event_ms, joined.is_closed) == (START + 120, (START + 150) * 1000, False)
    await follower.end()


async def test_the_end_is_said_of_each_stream_and_time_stands_still() -> None:
    (provider,), now = replay({M1: walk(2), ETH: walk(4, seed=2)})
    follower = Follower(provider, now, M1, ETH)
    await asyncio.sleep(3)
    assert follower.paused == [(M1, "market_closed", "its recording ends at 2024-11-24T00:02:00Z")]
    await asyncio.sleep(1000)
    assert follower.paused[1:] == [(ETH, "market_closed", "its recording ends at 2024-11-24T00:04:00Z")]
    assert now() == START + 240
    await follower.end()
    late = Follower(provider, now, M1)
    await asyncio.sleep(1)
    assert (len(late.paused), late.told) == (1, [])
    await late.end()


async def test_a_stream_that_is_not_recorded_is_refused_and_the_others_play() -> None:
    (provider,), now = replay({M1: walk(2)})
    follower = Follower(provider, now, M1, H1)
    await asyncio.sleep(5)
    assert follower.rejected == [(H1, "it is not recorded")]
    assert len(follower.closed(M1)) == 2
    await follower.end()


async def test_after_a_pause_of_the_machine_nothing_is_left_out_and_nothing_hurries() -> None:
    candles = walk(10)
    (provider,), now = replay({M1: candles})
    follower = Follower(provider, now, M1)
    loop = asyncio.get_running_loop()
    await asyncio.sleep(2.5)
    # All that has happened meanwhile is due at once.
    loop.now += 3600  # type: ignore[attr-defined]
    await asyncio.sleep(1.2)
    assert len(follower.closed(M1)) == 4
    await asyncio.sleep(20)
    assert follower.closed(M1) == candles
    await follower.end()
