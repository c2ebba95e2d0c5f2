"""Measures what a relay costs in everyday use: 20 clients that all have the same 30 streams, at the pace of Binance.

`python -m tests.bench.everyday` prints a line for tests/bench/README.md after a minute. The relay has a process of its
own; the exchange, which is simulated, and the clients are in this one, and their CPU is not counted.
"""

import argparse
import asyncio
import os
import signal
import sys
import tempfile
import time
from contextlib import AsyncExitStack
from pathlib import Path

import aiohttp

from providers.sandbox import Market, SandboxClock, SimulatedBinance

SYMBOLS = ("BTCUSDT", "ETHUSDT", "BNBUSDT", "SOLUSDT", "XRPUSDT", "DOGEUSDT")
INTERVALS = ("1m", "5m", "15m", "1h", "1d")
WARM_S = 10.0


class MeasuredRelay:
    """`relay serve` with its default settings, but for its provider's addresses, its port and its database."""

    def __init__(self, process: asyncio.subprocess.Process, url: str) -> None:
        self._process = process
        self.url = url

    @classmethod
    async def start(cls, binance: SimulatedBinance, folder: str) -> "MeasuredRelay":
        """Start it and wait until it serves."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith("RELAY_")}
        environment |= {
            "RELAY_BINANCE_WS_URL": binance.ws_url,
            "RELAY_BINANCE_REST_URL": binance.rest_url,
            "RELAY_BINANCE_USDM_ENABLED": "false",
            "RELAY_TWELVE_DATA_ENABLED": "false",
            "RELAY_LOG_LEVEL": "warning",
        }
        words = ("-m", "relay", "serve", "--port", "0", "--database", f"{folder}/relay.db")
        process = await asyncio.create_subprocess_exec(
            sys.executable, *words, stdout=asyncio.subprocess.PIPE, env=environment
        )
        assert process.stdout is not None
        line = (await process.stdout.readline()).decode()
        return cls(process, next(word for word in line.split() if word.startswith("http")).rstrip("/"))

    def cpu_s(self) -> float:
        """Return the CPU time of all its threads so far."""
        threads = Path(f"/proc/{self._process.pid}/task")
        return sum(int((one / "schedstat").read_text(encoding="ascii").split()[0]) for one in threads.iterdir()) / 1e9

    def memory_mb(self) -> float:
        """Return the resident memory."""
        text = Path(f"/proc/{self._process.pid}/status").read_text(encoding="ascii")
        return int(text.partition("VmRSS:")[2].split()[0]) / 1024

    async def stop(self) -> None:
        """End it."""
        self._process.send_signal(signal.SIGTERM)
        await self._process.wait()


class Readers:
    """The clients; `read` counts the updates that came to all of them."""

    def __init__(self, url: str, streams: list[str], clients: int) -> None:
        self._url = url
        self._streams = streams
        self._to_join = clients * len(streams)
        self.all_joined = asyncio.Event()
        self.read = 0

    async def follow(self, session: aiohttp.ClientSession) -> None:
        """Be one client: subscribe to all streams, and read until the connection ends."""
        async with session.ws_connect(f"{self._url}/api/v1/market-data/ws") as ws:
            await ws.send_json({"action": "subscribe", "streams": self._streams, "bars": 300})
            async for message in ws:
                kind = message.json()["type"]
                if kind == "error":
                    raise SystemExit(message.data)
                self.read += kind == "price_update"
                self._to_join -= kind == "snapshot"
                if not self._to_join:
                    self.all_joined.set()


async def measure(clients: int, streams: int, pace_s: float, seconds: float) -> None:
    """Print what it took."""
    async with AsyncExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        session = await stack.enter_async_context(aiohttp.ClientSession())
        binance = await stack.enter_async_context(SimulatedBinance(Market(), SandboxClock(), pace_s=pace_s))
        relay = await MeasuredRelay.start(binance, folder)
        stack.push_async_callback(relay.stop)
        await asyncio.sleep(WARM_S)
        idle_mb, idle_s, begun = relay.memory_mb(), relay.cpu_s(), time.monotonic()
        await asyncio.sleep(WARM_S)
        idle_share = (relay.cpu_s() - idle_s) / (time.monotonic() - begun)
        names = [f"{symbol}@{interval}" for interval in INTERVALS for symbol in SYMBOLS][:streams]
        readers = Readers(relay.url, names, clients)
        tasks = [asyncio.create_task(readers.follow(session)) for _ in range(clients)]
        for task in tasks:
            stack.callback(task.cancel)
        async with asyncio.timeout(120):
            await readers.all_joined.wait()
        await asyncio.sleep(WARM_S)
        before_s, before, begun = relay.cpu_s(), readers.read, time.monotonic()
        await asyncio.sleep(seconds)
        took = time.monotonic() - begun
        used_s, read = relay.cpu_s() - before_s, readers.read - before
        rate = read / took / clients / len(names)
        print(
            "| clients | streams | updates/s of a stream | delivered/s | CPU of one core | memory | without clients |"
        )
        print("| ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
        print(
            f"| {clients} | {len(names)} | {rate:.1f} | {read / took:,.0f} | {100 * used_s / took:.1f} % "
            f"| {relay.memory_mb():.0f} MB | {100 * idle_share:.1f} %, {idle_mb:.0f} MB |"
        )


def main() -> None:
    """Read the command line and measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, default=20)
    parser.add_argument("--streams", type=int, default=30, choices=range(1, len(SYMBOLS) * len(INTERVALS) + 1))
    parser.add_argument("--pace", type=float, default=0.6, help="seconds between two events of a stream")
    parser.add_argument("--seconds", type=float, default=60.0)
    given = parser.parse_args()
    asyncio.run(measure(given.clients, given.streams, given.pace, given.seconds))


if __name__ == "__main__":
    main()
