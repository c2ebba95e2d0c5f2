"""The single binary does the relay's main job in an environment without Python: marker `binary`, run by .ci/run.

`--binary FILE` takes one that is built already; without it one is built, which takes a minute.
"""

import asyncio
import contextlib
import re
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest

from relay.core.version import VERSION
from relay.packaging.binary import name

pytestmark = [pytest.mark.binary, pytest.mark.timeout(600)]

MOST_BYTES = 45_000_000
SAYS = re.compile(r"market-relay serves (http://\S+)")
PREFIX = "/api/v1/market-data"

DROP_IN = """
import asyncio, calendar, colorsys, ftplib, imaplib, itertools, plistlib, shelve, smtplib, time, wave
import xml.etree.ElementTree, xmlrpc.client
from relay import API_VERSION, Candle, PriceUpdate, ProviderInfo, hookimpl

@hookimpl
def relay_provider():
    title = xml.etree.ElementTree.fromstring("<title>Dropped in</title>").text
    return ProviderInfo(name="dropped", api=API_VERSION, title=title, asset_classes=("demo",), intervals=("1s",))

@hookimpl
async def relay_stream(watchlist):
    for _ in itertools.count():
        await asyncio.sleep(0.1)
        for key in watchlist.streams:
            candle = Candle(int(time.time()), 42.0, 42.0, 42.0, 42.0, 0.0)
            yield PriceUpdate(key=key, candle=candle, is_closed=False)
"""


@pytest.fixture(scope="session")
def binary(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The binary that was named, or one built now."""
    given = request.config.getoption("--binary")
    if given:
        return Path(given).resolve()
    folder = tmp_path_factory.mktemp("binary")
    subprocess.run(
        [sys.executable, "-m", "relay.packaging.binary", "--out", str(folder)], cwd=folder, check=True, timeout=500
    )
    return folder / name()


class Binary:
    """Runs the binary with nothing on PATH and nothing else in the environment."""

    def __init__(self, path: Path, folder: Path) -> None:
        self.path = path
        self.folder = folder

    async def start(self, *words: str) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            str(self.path),
            *words,
            cwd=self.folder,
            env={"PATH": "/nonexistent", "HOME": str(self.folder), "LANG": "C.UTF-8"},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )

    async def run(self, *words: str) -> str:
        process = await self.start(*words)
        async with asyncio.timeout(60):
            out, err = await process.communicate()
        assert process.returncode == 0, err.decode()
        return out.decode()

    @contextlib.asynccontextmanager
    async def serve(self, *words: str) -> AsyncIterator[str]:
        """Serve until the end of the block, which has to be a quiet one; gives the address."""
        began = time.monotonic()
        process = await self.start("serve", "--port", "0", "--log-level", "warning", *words)
        assert process.stdout
        try:
            async with asyncio.timeout(60):
                line = (await process.stdout.readline()).decode()
            print(f"ready after {time.monotonic() - began:.2f} s")
            found = SAYS.match(line)
            assert found, line + (await process.communicate())[1].decode()
            yield found[1]
            process.send_signal(signal.SIGTERM)
            async with asyncio.timeout(60):
                _, err = await process.communicate()
            assert (process.returncode, err.decode()) == (0, "")
        finally:
            if process.returncode is None:
                # Not killed: the binary is two processes, and only the first would end.
                process.terminate()
                await process.communicate()


@pytest.fixture
def relay(binary: Path, tmp_path: Path) -> Binary:
    return Binary(binary, tmp_path)


async def updates(http: aiohttp.ClientSession, url: str, stream: str, count: int) -> list[dict[str, Any]]:
    """Return the first updates of a stream."""
    found: list[dict[str, Any]] = []
    async with http.ws_connect(f"{url}{PREFIX}/ws") as ws, asyncio.timeout(60):
        await ws.send_json({"action": "subscribe", "streams": [stream]})
        while len(found) < count:
            message = await ws.receive_json()
            assert message["type"] != "error", message
            if message["type"] == "price_update":
                found.append(message)
    return found


def test_binary_is_small_and_named_for_its_machine(binary: Path) -> None:
    assert re.fullmatch(rf"relay-{re.escape(VERSION)}-linux-\w+", binary.name)
    size = binary.stat().st_size
    print(f"{size / 1e6:.1f} MB")
    assert size <= MOST_BYTES


async def test_binary_does_the_main_job_without_python(relay: Binary) -> None:
    assert (await relay.run("--version")).strip() == f"market-relay {VERSION}"
    async with (
        relay.serve("--sandbox", "--forex-always-open", "--database", "relay.db") as url,
        aiohttp.ClientSession() as http,
    ):
        live = await updates(http, url, "BTCUSDT@1s", 3)
        times = [one["candle"]["time"] for one in live]
        assert times == sorted(times)
        forex = await updates(http, url, "EUR/USD@1m", 1)
        assert forex[0]["candle"]["high"] >= forex[0]["candle"]["low"] > 0
        query = {"symbol": "BTCUSDT", "interval": "1m", "limit": "50"}
        async with http.get(f"{url}{PREFIX}/history", params=query) as answer:
            candles = (await answer.json())["candles"]
        assert [one["time"] for one in candles] == [candles[0]["time"] + 60 * n for n in range(50)]
        for path in (
            "/",
            "/status.html",
            "/client.js",
            "/docs",
            "/openapi.json",
            "/asyncapi.json",
            "/metrics",
            "/readyz",
        ):
            async with http.get(url + path) as answer:
                assert (answer.status, bool(await answer.read())) == (200, True), path
        tail = await relay.start("tail", "BTCUSDT@1s", "--url", url, "--json")
        assert tail.stdout
        async with asyncio.timeout(60):
            assert "type" in orjson.loads(await tail.stdout.readline())
        # Its stream is there at least as long as it follows it.
        assert "BTCUSDT" in await relay.run("status", "--url", url)
        tail.terminate()
        await tail.communicate()
        history = (await relay.run("history", "BTCUSDT", "1h", "--url", url, "--limit", "3", "--csv")).splitlines()
        # The head, and three that are closed.
        assert len(history) == 4
        assert "BTCUSDT" in (await relay.run("symbols", "--url", url)).splitlines()
    assert (relay.folder / "relay.db").is_file()


async def test_binary_says_what_it_consists_of(relay: Binary) -> None:
    listed = (await relay.run("licenses")).splitlines()
    names = {line.split()[0] for line in listed}
    assert {"market-relay", "aiohttp", "multidict", "nats-py", "Python", "OpenSSL"} <= names
    assert not {"pyinstaller", "pip", "pytest"} & names
    assert "Permission is hereby granted" in await relay.run("licenses", "--texts")


async def test_binary_writes_a_provider_project_and_loads_it(relay: Binary) -> None:
    assert len((await relay.run("plugins", "new", "my_venue")).splitlines()) == 5
    assert "my_venue" in await relay.run("plugins", "--plugins", "./my_venue/market_relay_my_venue.py")


async def test_provider_file_beside_the_binary_is_served_whatever_it_imports(relay: Binary) -> None:
    (relay.folder / "dropped.py").write_text(DROP_IN, encoding="utf-8")
    assert "dropped" in await relay.run("plugins", "--plugins", "./dropped.py")
    async with (
        relay.serve("--plugins", "./dropped.py", "--sandbox", "--log-level", "error") as url,
        aiohttp.ClientSession() as http,
    ):
        live = await updates(http, url, "dropped:ANY@1s", 2)
    assert [one["candle"]["close"] for one in live] == [42.0, 42.0]
