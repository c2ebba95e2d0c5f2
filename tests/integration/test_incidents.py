"""The incidents of the operators' guide: each is brought about, and status and log show what the guide has of it."""

import contextlib
import logging
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from relay.commands.status import lines_of
from tests.conftest import StartRelay
from tests.support.conditions import eventually
from tests.support.metrics_page import scrape
from tests.support.raw_socket import raw_clients
from tests.support.running_relay import Running
from tests.support.sandbox import Sandbox

GUIDE = (Path(__file__).parents[2] / "relay" / "packaging" / "README.md").read_text(encoding="utf-8")
SYMBOLS = ("BTCUSDT", "ETHUSDT", "SOLUSDT", "XRPUSDT", "ADAUSDT", "DOGEUSDT", "BNBUSDT")
MANY = [f"{symbol}@{interval}" for symbol in SYMBOLS for interval in ("1s", "1m", "3m", "5m", "15m", "30m", "1h")]


def printed(heading: str) -> list[str]:
    """Return the lines that the guide shows of an incident."""
    section = GUIDE[GUIDE.index(f"\n### {heading}\n") + 1 :].partition("\n### ")[0].partition("\n## ")[0]
    return [
        line for block in re.findall(r"```text\n(.*?)```", section, re.DOTALL) for line in block.splitlines() if line
    ]


def masked(line: str) -> str:
    """Return a line with its numbers, times and widths made alike."""
    line = re.sub(r"\d[\d.,:TZ-]*(?:kB|MB|B|ms|s|m\d+s|h\d+m)?(?!\w)", "N", line)
    return re.sub(r"\s+", " ", line).strip()


class Shown:
    """What status and log said while an incident lasted."""

    def __init__(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.INFO)
        self._caplog = caplog
        self._status: list[str] = []

    async def look(self, relay: Running) -> None:
        self._status += lines_of((await relay.get("status")).body)

    def lacks(self, heading: str) -> list[str]:
        """Return the lines of the guide that nothing showed; `…` stands for anything."""
        logged = (f"{record.levelname} {record.getMessage()}" for record in self._caplog.records)
        seen = [*map(masked, self._status), *map(masked, logged)]
        lacking = []
        for line in printed(heading):
            pattern = ".*".join(re.escape(part.strip()) for part in masked(line).split("…"))
            if not any(re.fullmatch(pattern, one) for one in seen):
                lacking.append(line)
        return lacking


@pytest.fixture
def shown(caplog: pytest.LogCaptureFixture) -> Shown:
    return Shown(caplog)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MB of its own."""
    place = tmp_path / "disk"
    place.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)], capture_output=True)
    if done.returncode:
        pytest.skip("only root may mount a small file system")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


async def test_upstream_banned(relay: Running, sandbox: Sandbox, shown: Shown) -> None:
    client = await relay.connect()
    await client.subscribe("BTCUSDT@1m", "EUR/USD@1m")
    await client.update(symbol="BTCUSDT")
    sandbox.binance.faults.answer_rest(418, retry_after=300)
    sandbox.binance.faults.refuse(418)
    sandbox.binance.faults.drop()
    await client.until_type("status", status="throttled")
    await shown.look(relay)
    assert shown.lacks("Upstream banned") == []
    # What the alert goes by.
    seen = await scrape(relay)
    assert seen("relay_streams", provider="binance", state="throttled") == 1
    assert seen("relay_feeds", provider="binance") == 0


async def test_requests_refused(relay: Running, sandbox: Sandbox, shown: Shown) -> None:
    client = await relay.connect()
    await client.subscribe("BTCUSDT@1m")
    await client.update(symbol="BTCUSDT")
    client.read_on()
    sandbox.binance.faults.answer_rest(418, retry_after=300)
    answer = await relay.get("history", symbol="ETHUSDT", interval="1h", limit=5)
    assert (answer.status, answer.headers["Retry-After"]) == (503, "300")
    await shown.look(relay)
    assert shown.lacks("Requests refused") == []
    # What the alert goes by, until a request is answered.
    assert 90 < (await scrape(relay))("relay_provider_wait_seconds", provider="binance") <= 300


async def test_disk_full(relay_with: StartRelay, small_disk: Path, shown: Shown) -> None:
    relay = await relay_with(database=str(small_disk / "relay.db"))
    client = await relay.connect()
    await client.subscribe("BTCUSDT@1s")
    await client.update(is_closed=True)
    filler = small_disk / "filler"
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(b"x" * 512)

    async def becomes(status: int) -> None:
        while (await relay.get("/readyz")).status != status:
            await client.update(is_closed=True)

    await becomes(503)
    await shown.look(relay)
    filler.unlink()
    await becomes(200)
    await relay.close()
    assert shown.lacks("Disk full") == []


async def test_stream_stale(relay: Running, sandbox: Sandbox, shown: Shown) -> None:
    client = await relay.connect()
    await client.subscribe("BTCUSDT@1s")
    for _ in range(8):
        # Its rhythm has to be known.
        await client.update(is_closed=True)
    sandbox.binance.faults.mute()
    await client.until_type("status", status="stale")
    await shown.look(relay)
    await eventually(lambda: not shown.lacks("Stream stale"), 200)


async def test_slow_clients(relay_with: StartRelay, shown: Shown) -> None:
    relay = await relay_with(flush_ms=0)
    with raw_clients(relay.url, 1, *MANY) as (client,):
        await client.open()
        await eventually(lambda: relay.hub.fanout.lagging == 1, 60)
        await shown.look(relay)
        await eventually(lambda: not relay.hub.subscribers, 120)
    assert shown.lacks("Slow clients") == []


async def test_what_the_guide_prints_and_nothing_shows_is_noticed(relay: Running, shown: Shown) -> None:
    await shown.look(relay)
    assert len(shown.lacks("Upstream banned")) == len(printed("Upstream banned")) - 2
