"""All four clients over a network that cuts, delays, trickles and swallows, to a relay that is killed again and again.

The exchange's history lists closed candles only and answers late. `pytest -m long tests/e2e/test_rude_network.py
--rude-seconds 180 -s` kills the relay some twenty times, with readers that rest for a minute.
"""

import asyncio
import random
import signal
import sys
import time
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import AsyncIterator, Coroutine, Iterable
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest

from tests.support.conditions import eventually
from tests.support.free_ports import free_port
from tests.support.javascript_client import SUPPORT, node_of
from tests.support.relay_process import start_process
from tests.support.rude_proxy import RudeProxy
from tests.support.running_relay import WsClient, end_process
from tests.support.served_files import client_file, lay_out
from tests.support.soak import (
    Faulter,
    HistoryCheck,
    JavaScriptClient,
    LibraryClient,
    MarketTruth,
    Message,
    PythonClient,
)
from tests.support.untidy import UntidySandbox, Values

STREAMS = (*(f"{symbol}USDT@1s" for symbol in ("BTC", "ETH", "BNB", "SOL", "XRP")), "ETHBTC@1s", "BTCUSDT@1m")
SETTLES_S = 150.0
REVISED_TIMES, REVISED_EVERY_S = (3, 8), 0.6
"""So often the exchange revises candles before the relay is killed."""


class PageClient(LibraryClient):
    """The feed of the chart page, in Node: what its charts would show."""

    async def run(self, lines: AsyncIterator[bytes]) -> None:
        async for line in lines:
            said = orjson.loads(line)
            kind, stream = said["type"], said.get("stream")
            if kind == "state" and said["status"] == "connected":
                self.confirm(stream)
            elif kind == "candle":
                marks = {"is_closed": said["isClosed"], "revised": said["isRevised"]}
                self.take(stream, {"type": "price_update", "candle": said, **marks})
            elif kind == "gap":
                self.take(stream, {name: said[name] for name in ("type", "from", "to", "reason")})
            elif kind == "reset":
                self.confirm(stream)
                is_closed = all(entry["isClosed"] for entry in said["entries"])
                fields = {"candles": said["entries"], "last_is_closed": is_closed, "complete": said["isComplete"]}
                self.take(stream, {"type": "snapshot", **fields})
            elif kind == "older":
                shown = {entry["time"]: values_of(entry) for entry in said["entries"] if entry["isClosed"]}
                self.checks[stream].closed |= shown


class TailClient(LibraryClient):
    """`relay tail --json`, whose lines are the messages of the relay."""

    async def run(self, lines: AsyncIterator[bytes]) -> None:
        async for line in lines:
            await self.rest()
            said = orjson.loads(line)
            stream = f"{said.get('symbol')}@{said.get('interval')}"
            if said["type"] == "subscription":
                self.confirm(stream)
            elif said["type"] in ("snapshot", "price_update", "gap"):
                self.take(stream, said)


def values_of(candle: Message) -> Values:
    return candle["open"], candle["high"], candle["low"], candle["close"], candle["volume"]


async def lines_of(process: Process) -> AsyncIterator[bytes]:
    """Read lines of any length, and no more than a few ahead: who does not go on reading blocks the writer."""
    assert process.stdout is not None
    rest = b""
    while data := await process.stdout.read(16_384):
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            yield line
    raise AssertionError("the client's process ended")


class Audience:
    """The clients, each in the way in which people use it, all over one proxy or, without the page, over several."""

    def __init__(
        self, url: str | list[str], truths: dict[str, MarketTruth], faulter: Faulter, sandbox: UntidySandbox
    ) -> None:
        self.url = url
        self.clients: list[LibraryClient] = []
        self.processes: dict[LibraryClient, Process] = {}
        self._truths = truths
        self._now, self._moment = sandbox.clock.now, faulter.moment
        self._tasks: list[asyncio.Task[None]] = []

    def _let(self, client: LibraryClient, running: Coroutine[Any, Any, None]) -> None:
        self.clients.append(client)
        self._tasks.append(asyncio.create_task(running))

    async def come(self, node: str, tmp_path: Path) -> None:
        for name, options in (("python", {}), ("python with bars", {"bars": 50}), ("python closed", CLOSED_ONLY)):
            library = PythonClient(name, self._truths, self._now, self._moment)
            self._let(library, library.run(self.url, **options))
        script = JavaScriptClient("javascript", self._truths, self._now, self._moment)
        settings = orjson.dumps({"backoffMs": [100, 1000], "waitsForRelay": True}).decode()
        urls = self.url if isinstance(self.url, str) else orjson.dumps(self.url).decode()
        process = await start(node, SUPPORT / "js_client.mjs", client_file(), urls, settings, stdin=PIPE)
        self._take(script, process, self._run_script(script, process))
        if isinstance(self.url, str):
            await self._bring_page(node, tmp_path, self.url)
        tail = TailClient("tail", self._truths, self._now, self._moment)
        addresses = self.url if isinstance(self.url, str) else ",".join(self.url)
        asked = ("-m", "relay", "tail", *STREAMS, "--url", addresses, "--json", "--bars", "10")
        process = await start(sys.executable, *asked, limit=16_384)
        self._take(tail, process, tail.run(lines_of(process)))

    async def _bring_page(self, node: str, tmp_path: Path, url: str) -> None:
        page = PageClient("page", self._truths, self._now, self._moment)
        process = await start(node, SUPPORT / "feed_client.mjs", site_of(tmp_path, url), *STREAMS)
        self._take(page, process, page.run(lines_of(process)))

    def _take(self, client: LibraryClient, process: Process, running: Coroutine[Any, Any, None]) -> None:
        self.processes[client] = process
        self._let(client, running)

    async def _run_script(self, client: JavaScriptClient, process: Process) -> None:
        assert process.stdin is not None
        stdin, lines = process.stdin, lines_of(process)

        async def say(words: list[Any]) -> None:
            stdin.write(orjson.dumps(words) + b"\n")
            await stdin.drain()

        async def hear() -> Message:
            if client.pause_s:
                await say(["pause", client.pause_s * 1000])
                client.pause_s = 0.0
            said: Message = orjson.loads(await anext(lines))
            return said

        await client.run(say, hear, bars=20)

    async def rest(self, seconds: float) -> None:
        """Let one after the other read nothing for so long; the page is frozen, as browsers do with tabs."""
        for client in self.clients:
            if isinstance(client, PageClient):
                self.processes[client].send_signal(signal.SIGSTOP)
                await asyncio.sleep(seconds)
                self.processes[client].send_signal(signal.SIGCONT)
            else:
                client.pause_s = seconds
                await asyncio.sleep(seconds / 4)

    def check_alive(self) -> None:
        """Raise what ended one of them."""
        for task in self._tasks:
            if task.done():
                task.result()

    def has_come(self) -> bool:
        """Say whether all of them heard something of all streams; raise what ended one of them."""
        self.check_alive()
        return all(check.last is not None or check.closed for check in self.checks)

    @property
    def unsettled(self) -> list[str]:
        now = self._now()
        # A second or two may be on their way.
        return [check.name for check in self.checks if not check.is_settled(now - 3)]

    @property
    def checks(self) -> Iterable[Any]:
        return [check for client in self.clients for check in client.checks.values()]

    async def leave(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for process in self.processes.values():
            await end_process(process)


CLOSED_ONLY = {"bars": 5, "closed_only": True}


async def start(program: object, *arguments: object, limit: int = 2**16, **options: Any) -> Process:
    return await asyncio.create_subprocess_exec(
        str(program), *map(str, arguments), stdout=PIPE, stderr=DEVNULL, limit=limit, **options
    )


def site_of(tmp_path: Path, url: str) -> Path:
    """Lay the page's modules out as the relay serves them, and have them speak to `url`; return the feed."""
    client = lay_out(tmp_path / "site")
    text = client.read_text(encoding="utf-8")
    for old, new in (
        ('new URL(".", import.meta.url)', f'"{url}"'),
        ("backoffMs: [1000, 30_000]", "backoffMs: [100, 1000]"),
    ):
        assert old in text
        text = text.replace(old, new)
    client.write_text(text, encoding="utf-8")
    return client.parent / "static" / "feed.js"


@pytest.mark.long
async def test_no_network_costs_a_client_a_close_a_revision_or_the_repair_of_a_gap(
    request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    node = node_of(request.config)
    seconds, seed = request.config.getoption("--rude-seconds"), request.config.getoption("--soak-seed")
    dice, port, kills, database = random.Random(seed), free_port(), 0, tmp_path / "relay.db"
    async with (
        UntidySandbox(seed=seed, pace_s=0.4, extra_symbols=1, forex_always_open=True) as sandbox,
        RudeProxy(port, random.Random(seed + 1), hole_s=60.0 if seconds > 60 else 4.0) as proxy,
    ):
        exchange = sandbox.binance
        truths = {name: MarketTruth(exchange, *name.split("@"), also=exchange.untidy.also) for name in STREAMS}
        faulter = Faulter(exchange, truths, random.Random(seed + 2), nothing)
        process = await start_process(sandbox, port, database)
        audience = Audience(proxy.url, truths, faulter, sandbox)
        resting: asyncio.Task[None] | None = None
        try:
            await audience.come(node, tmp_path)
            # Before their first connection some of them end, as they should, where there is no relay.
            await eventually(audience.has_come, SETTLES_S)
            exchange.untidy.list_closed_only()
            exchange.faults.delay_rest(0.3, 3, computed="either")
            await proxy.set_rude(True)
            resting = asyncio.create_task(audience.rest(min(60.0, seconds / 3)))
            ends_at = time.monotonic() + seconds
            while time.monotonic() < ends_at:
                for _ in range(dice.randint(*REVISED_TIMES)):
                    await asyncio.sleep(REVISED_EVERY_S)
                    faulter.revise()
                audience.check_alive()
                # What is revised just before a kill is lost with it.
                await heard(f"http://127.0.0.1:{port}", sandbox.clock.now())
                if kills % 3 == 2:
                    # Who resumes now is told gaps.
                    exchange.faults.answer_rest(503, b"{}", times=6)
                await written(f"http://127.0.0.1:{port}")
                process.send_signal(signal.SIGKILL)
                await process.wait()
                kills += 1
                await asyncio.sleep(dice.uniform(0, 1))
                process = await start_process(sandbox, port, database)
            await resting
            exchange.untidy.clear()
            exchange.faults.clear()
            await proxy.set_rude(False)
            ended = sandbox.clock.now()
            settling_at = time.monotonic()
            try:
                await eventually(lambda: not audience.unsettled, SETTLES_S)
            except TimeoutError:
                print(f"unsettled: {audience.unsettled}")
            print(f"settled after {time.monotonic() - settling_at:.1f} s")
            audience.check_alive()
            found = [*faulter.found]
            for check in audience.checks:
                check.finish(ended - 3)
                found += check.found
            lasting = await differing(f"http://127.0.0.1:{port}", truths, audience, faulter, ended)
        finally:
            if resting is not None:
                resting.cancel()
                await asyncio.gather(resting, return_exceptions=True)
            report(kills, proxy, audience)
            await audience.leave()
            if process.returncode is None:
                process.terminate()
                await process.wait()
    print(*found[:40], sep="\n")
    assert [f"seed {seed}, {one.moment}: {one.text}" for one in found] == []
    assert lasting == []
    assert kills > 0


async def heard(url: str, moment: float) -> None:
    """Return when the relay tells an update that the exchange sent after a moment: it has all that was sent before."""
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(f"{url}/api/v1/market-data/ws", max_msg_size=0) as socket,
    ):
        client = WsClient(socket)
        await client.ask("subscribe", streams=[STREAMS[0]])
        await client.until(lambda m: m["type"] == "price_update" and m["candle"]["time"] > moment, SETTLES_S)


async def written(url: str) -> None:
    """Return when all that clients were told is in the database."""
    async with asyncio.timeout(SETTLES_S), aiohttp.ClientSession() as session:
        while True:
            async with session.get(f"{url}/api/v1/market-data/status") as answer:
                if (await answer.json())["store"].get("queued") == 0:
                    return


async def nothing() -> list[str]:
    return []


async def differing(
    url: str, truths: dict[str, MarketTruth], audience: Audience, faulter: Faulter, ended: float
) -> list[str]:
    """Return which closed candles the clients have other than `history` has them now."""
    asking = HistoryCheck(truths, lambda: ended, random.Random(1), faulter.moment)
    found = []
    async with aiohttp.ClientSession() as session:
        for stream in truths:
            known = await asking.ask(session, url, stream, {"limit": 5000, "end_time": int(ended) - 3})
            for client in audience.clients:
                check = client.checks[stream]
                others = [at for at, values in check.closed.items() if known.get(at, values) != values]
                found += [f"{check.name}: {at} is {check.closed[at]}, in history {known[at]}" for at in others]
    return found


def report(kills: int, proxy: RudeProxy, audience: Audience) -> None:
    print(f"kills: {kills}; connections: {dict(proxy.seen)}")
    for client in audience.clients:
        checks = list(client.checks.values())
        delivered, revised = sum(check.delivered for check in checks), sum(check.revised for check in checks)
        gaps = sum(len(check.gaps) for check in checks)
        print(f"{checks[0].name}: {client.messages} messages, {delivered} closed, {revised} revised, {gaps} gaps")
