"""Loads three years of one-minute candles into a store and asks a relay in a process of its own for them.

`python -m tests.bench.store` prints a table. `--candles N` loads fewer, `--keep FILE` keeps the file for the next run.
"""

import argparse
import asyncio
import os
import random
import signal
import statistics
import sys
import tempfile
import time
from pathlib import Path

import aiohttp

from relay.core.clock import Clock
from relay.core.model import Candle, StreamKey
from relay.core.spans import Span
from relay.storage.inspect import file_bytes, overview, reading
from relay.storage.store import Store
from relay.storage.verify import verify

CANDLES = 3 * 365 * 1440
KEY = StreamKey("BTCUSDT", "1m")
START = 1_660_003_200
ROUNDS = 300
PAGE = 5000


def made_up(count: int) -> list[Candle]:
    """Return a random walk with prices and volumes of as many digits as real ones have."""
    randomness = random.Random(1)
    price, found = 20_000.0, []
    for number in range(count):
        opened = price
        price = max(100.0, round(opened + randomness.gauss(0, 12), 2))
        high = round(max(opened, price) + abs(randomness.gauss(0, 5)), 2)
        low = round(min(opened, price) - abs(randomness.gauss(0, 5)), 2)
        volume = round(randomness.expovariate(0.05), 5)
        found.append(Candle(START + 60 * number, opened, high, low, price, volume))
    return found


async def load(path: Path, candles: list[Candle]) -> float:
    """Store them in the pages that a provider would give; return how long it took."""
    begun = time.perf_counter()
    store = await Store.open(path, Clock())
    for at in range(0, len(candles), PAGE):
        rows = candles[at : at + PAGE]
        await store.add("binance", KEY, rows, Span(rows[0].time, rows[-1].time + 60))
    await store.close()
    return time.perf_counter() - begun


class Relay:
    """`relay serve --sandbox` in a process of its own, with the file as its database."""

    def __init__(self, process: asyncio.subprocess.Process, url: str, session: aiohttp.ClientSession) -> None:
        self._process = process
        self._url = url
        self._session = session

    @classmethod
    async def start(cls, path: Path, session: aiohttp.ClientSession) -> "Relay":
        """Start it and wait until it serves."""
        words = ("-m", "relay", "serve", "--sandbox", "--port", "0", "--database", str(path), "--log-level", "error")
        process = await asyncio.create_subprocess_exec(sys.executable, *words, stdout=asyncio.subprocess.PIPE)
        assert process.stdout is not None
        line = (await process.stdout.readline()).decode()
        url = next(word for word in line.split() if word.startswith("http"))
        return cls(process, url.rstrip("/"), session)

    def memory_mb(self) -> float:
        """Return the resident memory."""
        text = Path(f"/proc/{self._process.pid}/status").read_text(encoding="ascii")
        line = next(line for line in text.splitlines() if line.startswith("VmRSS"))
        return int(line.split()[1]) / 1024

    async def ask(self, end: int, limit: int, form: str = "json") -> float:
        """Ask for the last `limit` candles up to `end`; return how many milliseconds until the last byte."""
        query = {"symbol": "BTCUSDT", "interval": "1m", "end_time": str(end), "limit": str(limit), "format": form}
        begun = time.perf_counter()
        async with self._session.get(f"{self._url}/api/v1/market-data/history", params=query) as answer:
            body = await answer.read()
            took = time.perf_counter() - begun
            assert answer.status == 200, body
        # Each candle begins with its time.
        assert body.count(b'"time":') == limit, (body[:100], body.count(b'"time":'))
        return took * 1000

    async def stop(self) -> None:
        """End it."""
        self._process.send_signal(signal.SIGTERM)
        await self._process.wait()


def row(name: str, took: list[float]) -> None:
    """Print the median and the 99th percentile."""
    ordered = sorted(took)
    print(f"| {name} | {statistics.median(ordered):.1f} ms | {ordered[int(len(ordered) * 0.99)]:.1f} ms |", flush=True)


async def measure(path: Path, count: int) -> None:
    """Ask for what charts ask for."""
    last = START + 60 * (count - 1)
    randomness = random.Random(2)

    def anywhere(many: int) -> int:
        return START + 60 * randomness.randrange(many, count)

    async with aiohttp.ClientSession() as session:
        relay = await Relay.start(path, session)
        for at in range(50_000, count, 50_000):
            await relay.ask(START + 60 * (at - 1), 50_000, "ndjson")
        await relay.stop()
        print(f"{file_bytes(str(path)) / 1e6:.0f} MB once all were asked for, and so are encoded\n")
        print("| asked for, over HTTP | median | 99 % |\n| --- | ---: | ---: |")
        firsts = []
        for _ in range(5):
            relay = await Relay.start(path, session)
            firsts.append(await relay.ask(last, 500))
            await relay.stop()
        row("the last 500, first request of the process", firsts)
        relay = await Relay.start(path, session)
        before = relay.memory_mb()
        await relay.ask(last, 500)
        row("the last 500", [await relay.ask(last, 500) for _ in range(ROUNDS)])
        row("500 at a random place, for the first time", [await relay.ask(anywhere(500), 500) for _ in range(ROUNDS)])
        row(
            "50,000 at a random place, newline-delimited JSON",
            [await relay.ask(anywhere(50_000), 50_000, "ndjson") for _ in range(20)],
        )
        for at in range(50_000, count, 50_000):
            await relay.ask(START + 60 * (at - 1), 50_000, "ndjson")
        print(
            f"\nmemory of the relay (with both stand-ins): {before:.0f} MB at its start, "
            f"{relay.memory_mb():.0f} MB after all candles were asked for"
        )
        await relay.stop()


async def main() -> None:
    """Load, look, measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--candles", type=int, default=CANDLES)
    parser.add_argument("--keep", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = options.keep or Path(folder) / "relay.db"
        candles = made_up(options.candles)
        if not path.exists():
            took = await load(path, candles)
            print(f"{len(candles):,} candles loaded in {took:.1f} s")
        begun = time.perf_counter()
        with reading(str(path)) as connection:
            found = overview(connection, str(path))
            looked = time.perf_counter()
            verified = verify(connection, found.streams, time.time())
        print(
            f"{found.file_bytes / 1e6:.0f} MB on disk, {found.file_bytes / len(candles):.0f} bytes each;"
            f" `relay store` {looked - begun:.1f} s, `--check` {time.perf_counter() - looked:.1f} s more,"
            f" {len(verified.faults)} faults\n"
        )
        del candles
        await measure(path, options.candles)


if __name__ == "__main__":
    print(f"Python {sys.version.split()[0]}, {os.cpu_count()} cores\n")
    asyncio.run(main())
