"""Compares Binance through ccxt with the built-in provider, on the same simulated exchange.

`python -m tests.bench.ccxt_provider` prints the table of tests/bench/README.md after some minutes. Each relay has a
process of its own; the exchange and the clients are in this one, and their CPU is not counted. ccxt is that of the
environment in `.peers/`.
"""

import argparse
import asyncio
import json
import os
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import aiohttp

from providers.sandbox import Market, SandboxClock, SimulatedBinance

CCXT_RELAY = "from tests.peers.environments import find_ccxt; find_ccxt(); from relay.__main__ import run; run()"
PLAIN_RELAY = "from relay.__main__ import run; run()"
AT_ONCE = 100
"""A subscription names so many streams at most: README.md, "WebSocket"."""
INTERVAL_S = 60


class ComparedRelay:
    """A relay with one provider, `binance` or ccxt's, and a client of it."""

    def __init__(self, name: str, process: asyncio.subprocess.Process, url: str) -> None:
        self.name = name
        self.url = url
        self._process = process
        self.closed: dict[tuple[str, int], list[Any]] = {}
        self.late_ms: list[float] = []
        self.updates = 0

    @classmethod
    async def start(cls, name: str, binance: SimulatedBinance, folder: str) -> "ComparedRelay":
        """Start it and wait until it lists instruments."""
        settings = f"{folder}/{name}.toml"
        with open(settings, "w", encoding="utf-8") as file:  # noqa: ASYNC230 - a few lines
            file.write(_configuration(name, binance))
        environment = {one: value for one, value in os.environ.items() if not one.startswith("RELAY_")}
        words = ("serve", "--port", "0", "--config", settings, "--database", f"{folder}/{name}.db")
        script = CCXT_RELAY if name == "ccxt" else PLAIN_RELAY
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", script, *words, stdout=asyncio.subprocess.PIPE, env=environment
        )
        assert process.stdout is not None
        line = (await process.stdout.readline()).decode()
        return cls(name, process, next(word for word in line.split() if word.startswith("http")).rstrip("/"))

    async def listed(self, session: aiohttp.ClientSession) -> list[str]:
        """Wait for the instruments, and return the symbols of those that are traded."""
        for _ in range(300):
            async with session.get(f"{self.url}/api/v1/market-data/instruments") as answer:
                if found := await answer.json():
                    traded = [one["symbol"] for one in found if one["status"] == "trading"]
                    # In the same order, whichever sign is between both currencies.
                    return sorted(traded, key=lambda symbol: str(symbol.replace("/", "")))
            await asyncio.sleep(0.1)
        raise SystemExit(f"{self.name} lists nothing")

    async def follow(self, session: aiohttp.ClientSession, names: list[str]) -> None:
        """Subscribe to all streams at 1m, and note what comes until the connection ends."""
        async with session.ws_connect(f"{self.url}/api/v1/market-data/ws") as ws:
            for at in range(0, len(names), AT_ONCE):
                part = [f"{name}@1m" for name in names[at : at + AT_ONCE]]
                await ws.send_json({"action": "subscribe", "streams": part})
            async for message in ws:
                self._take(json.loads(message.data))

    def _take(self, message: Mapping[str, Any]) -> None:
        if message["type"] == "error":
            raise SystemExit(str(message))
        if message["type"] != "price_update":
            return
        symbol, candle = message["symbol"].replace("/", ""), message["candle"]
        self.updates += 1
        if message["is_closed"]:
            self.closed[symbol, candle["time"]] = [value for name, value in candle.items() if name != "time"]
            if not message.get("backfilled"):
                self.late_ms.append((time.time() - candle["time"] - INTERVAL_S) * 1000)

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


def streams_of(symbols: Iterable[str]) -> list[str]:
    """Return the names that the exchange has for streams at 1m."""
    return [f"{symbol.replace('/', '').lower()}@kline_1m" for symbol in symbols]


def _configuration(name: str, binance: SimulatedBinance) -> str:
    off = "".join(f"[providers.{one}]\nenabled = false\n" for one in ("twelve_data", "binance")[: 1 + (name == "ccxt")])
    head = 'log_level = "warning"\nmax_streams_per_client = 1000\n'
    if name != "ccxt":
        return f'{head}{off}[binance]\nws_url = "{binance.ws_url}"\nrest_url = "{binance.rest_url}"\n'
    return (
        f'{head}{off}[providers.through]\nuses = "ccxt"\nexchange = "binance"\n'
        f'[providers.through.options.urls.api]\npublic = "{binance.rest_url}/api/v3"\n'
        f'[providers.through.options.urls.api.ws]\nspot = "{binance.ws_url}/ws"\n'
    )


class Measured:
    """What was found of one relay, as the row of a table."""

    def __init__(self, relay: ComparedRelay, listed: int, idle_mb: float, live_s: float) -> None:
        self.relay = relay
        self.listed = listed
        self.idle_mb = idle_mb
        self.live_s = live_s
        self._cpu_s, self._updates = relay.cpu_s(), relay.updates
        relay.closed.clear()
        relay.late_ms.clear()

    def row(self, equal: str) -> str:
        """Return the row, from now."""
        relay = self.relay
        used_us = (relay.cpu_s() - self._cpu_s) / max(1, relay.updates - self._updates) * 1e6
        late = sorted(relay.late_ms) or [float("nan")]
        cells = (
            relay.name,
            f"{self.live_s:.1f} s",
            equal,
            f"{statistics.median(late):.0f} ms, {late[len(late) * 9 // 10]:.0f} ms",
            f"{used_us:.0f} µs",
            f"{self.idle_mb:.0f} MB",
            f"{relay.memory_mb():.0f} MB",
        )
        return f"| {' | '.join(cells)} |"


async def measure(streams: int, symbols: int, pace_s: float, seconds: float) -> None:
    """Print what it took."""
    async with AsyncExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        session = await stack.enter_async_context(aiohttp.ClientSession())
        market = Market()
        market = Market(extra_symbols=max(0, symbols - len(market.crypto)))
        binance = await stack.enter_async_context(SimulatedBinance(market, SandboxClock(), pace_s=pace_s))
        found = []
        for name in ("binance", "ccxt"):
            relay = await ComparedRelay.start(name, binance, folder)
            stack.push_async_callback(relay.stop)
            listed = await relay.listed(session)
            await asyncio.sleep(5)
            idle_mb = relay.memory_mb()
            begun = time.monotonic()
            task = asyncio.create_task(relay.follow(session, listed[:streams]))
            stack.callback(task.cancel)
            # A quiet symbol says nothing for a minute: the exchange knows better who is subscribed.
            while any(len(binance.listeners(one)) <= len(found) for one in streams_of(listed[:streams])):
                if task.done() or time.monotonic() - begun > 120:
                    raise SystemExit(f"{name} has not subscribed to all of {streams} streams")
                await asyncio.sleep(0.1)
            found.append((relay, len(listed), idle_mb, time.monotonic() - begun))
        await asyncio.sleep(5)
        measured = [Measured(*one) for one in found]
        await asyncio.sleep(seconds)
        plain, through = (one.relay.closed for one in measured)
        # What closed at the very end may have come to one only.
        last = min(max((opened for _, opened in one), default=0) for one in (plain, through))
        expected = {key: values for key, values in plain.items() if key[1] < last}
        equal = sum(through.get(key) == values for key, values in expected.items())
        print(f"{measured[0].listed} and {measured[1].listed} symbols, {streams} streams at 1m for {seconds:g} s\n")
        print(
            "| provider | subscribed | closes equal | close after its end, median and 90 % | CPU an update "
            "| without clients | at the end |"
        )
        print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
        print(measured[0].row("–"))
        print(measured[1].row(f"{equal} of {len(expected)}"), flush=True)
        for key, values in expected.items():
            if through.get(key) != values:
                print(f"{key}: {values} there, {through.get(key)} through ccxt")


def main() -> None:
    """Read the arguments and measure."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.ccxt_provider")
    parser.add_argument("--streams", type=int, default=200)
    parser.add_argument("--symbols", type=int, default=3000)
    parser.add_argument("--pace", type=float, default=1.0, metavar="SECONDS", help="time between updates of a stream")
    parser.add_argument("--seconds", type=float, default=200.0)
    given = parser.parse_args()
    asyncio.run(measure(given.streams, given.symbols, given.pace, given.seconds))


if __name__ == "__main__":
    main()
