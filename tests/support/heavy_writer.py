"""Writes to a store in every way at once until it is killed, and prints what the store has acknowledged."""

import asyncio
import itertools
import random
import sys
from pathlib import Path

from relay.config.parsers import Period
from relay.core.clock import Clock
from relay.core.model import Candle, StreamKey
from relay.core.spans import Span
from relay.storage.retention import Retention
from relay.storage.store import Store

NOW = 1_764_000_000 // 60 * 60
KEPT_S = 20_000 * 60
HOLE = 7
"""Every seventh candle does not exist: coverage says that there is nothing."""


def candle(time: int, price: float = 1.0) -> Candle:
    return Candle(time, price, price + 1, price, price + 0.5, float(time % 97))


def exists(time: int) -> bool:
    return time // 60 % HOLE != 0


async def pages(store: Store, symbol: str, randomness: random.Random) -> None:
    """Pages of history in any order, so that spans are merged and windows packed in every way."""
    key = StreamKey(symbol, "1m")
    while True:
        start = NOW - 60 * randomness.randrange(1, 40_000)
        end = start + 60 * randomness.choice((10, 300, 1500))
        rows = [candle(time) for time in range(start, end, 60) if exists(time)]
        await store.add("demo", key, rows, Span(start, end))
        print(symbol, start, end, flush=True)


async def live(store: Store, symbol: str) -> None:
    """Closed candles one by one, with a revision now and then."""
    key, last = StreamKey(symbol, "1m"), None
    for time in itertools.count(NOW, 60):
        if not exists(time):
            continue
        store.put_closed("demo", key, candle(time), last)
        if time // 60 % 11 == 0:
            store.put_closed("demo", key, candle(time, price=2.0), None)
        last = time
        if time // 60 % 50 == 0:
            await store.flush()
            print(symbol, NOW, time, flush=True)


async def reads(store: Store) -> None:
    """Has chunks made and put on the disk."""
    while True:
        for symbol in "ABC":
            await store.chunks("demo", StreamKey(symbol, "1m"), 0, 1 << 40, 5000, True)
        await asyncio.sleep(0.005)


async def trims(store: Store) -> None:
    """Deletes what is older than half of what is written."""
    retention = Retention(store, Clock(wall=lambda: float(NOW)), [Period("1m", "", KEPT_S)])
    while True:
        await retention.sweep()
        await asyncio.sleep(0.01)


async def main(path: Path, seed: int) -> None:
    store = await Store.open(path, Clock(), cache_bytes=1 << 20)
    randomness = random.Random(seed)
    await asyncio.gather(
        pages(store, "A", randomness), pages(store, "B", randomness), live(store, "C"), reads(store), trims(store)
    )


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2])))
