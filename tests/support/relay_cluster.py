"""Several relays in processes of their own, which share the stand-ins over a NATS server."""

import asyncio
import os
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import aiohttp
import orjson

from relay.cluster.shards import favourite, parse_shard
from tests.support.conditions import LONGEST_WAIT_S, eventually
from tests.support.free_ports import free_port
from tests.support.nats_server import HoldingLine, NatsServer
from tests.support.relay_process import WITHOUT_FUTURES
from tests.support.running_relay import PREFIX, end_process
from tests.support.sandbox import Sandbox
from tests.support.soak import PythonClient

NAMES = ("a", "b", "c", "d")


class ClusteredRelay:
    """One relay: it has the same address in each of its lives, its own database, and its own line to NATS."""

    def __init__(
        self, name: str, sandbox: Sandbox, nats: NatsServer, folder: Path, settings: Mapping[str, str]
    ) -> None:
        self.name = name
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.line = HoldingLine(nats.port)
        self.process: asyncio.subprocess.Process | None = None
        self.log = folder / f"{name}.log"
        self._database = folder / f"{name}.db"
        self._sandbox = sandbox
        self._settings = settings

    async def start(self) -> None:
        """Start it, and wait until it serves."""
        if not self.line.port:
            await self.line.start()
        environ = {name: text for name, text in os.environ.items() if not name.startswith(("RELAY_", "TWELVE_"))}
        for provider, settings in self._sandbox.provider_settings().items():
            environ |= {f"RELAY_{provider}_{key}".upper(): _text(value) for key, value in settings.items()}
        if self._sandbox.binance_usdm is None:
            environ |= WITHOUT_FUTURES
        environ |= {
            "RELAY_CLUSTER_NATS": f"nats://127.0.0.1:{self.line.port}",
            "RELAY_CLUSTER_NODE": self.name,
            "RELAY_TWELVE_DATA_MARKET_HOURS": "always",
            "RELAY_LINGER_SECONDS": "1",
            **self._settings,
        }
        arguments = ("-m", "relay", "serve", "--port", str(self.port), "--database", str(self._database))
        with self.log.open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                sys.executable, *arguments, env=environ, cwd=self.log.parent, stdout=asyncio.subprocess.PIPE, stderr=log
            )
        assert self.process.stdout is not None
        async with asyncio.timeout(LONGEST_WAIT_S):
            line = await self.process.stdout.readline()
        assert line, self.log.read_text(encoding="utf-8")[-2000:]

    @property
    def is_running(self) -> bool:
        return self.process is not None and self.process.returncode is None

    async def kill(self) -> None:
        """Kill it as nothing can prevent."""
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        await self.process.wait()

    async def stop(self) -> None:
        """Ask it to end, and wait until it has."""
        assert self.process is not None
        self.process.terminate()
        await asyncio.wait_for(self.process.wait(), LONGEST_WAIT_S)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal."""
        assert self.process is not None
        self.process.send_signal(number)

    async def close(self) -> None:
        """End what is left of it."""
        if self.process is not None:
            await end_process(self.process)
        await self.line.close()


class HearingClient(PythonClient):
    """The Python library, which notes when it heard of each stream last."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.heard: dict[str, float] = {}

    def take(self, stream: str, message: dict[str, Any]) -> None:
        """Judge a message, and note its time."""
        if message["type"] == "price_update":
            self.heard[stream] = time.monotonic()
        super().take(stream, message)


class RelayCluster:
    """The relays, and what each says of itself."""

    def __init__(self, relays: list[ClusteredRelay], session: aiohttp.ClientSession) -> None:
        self.relays = relays
        self._session = session

    @property
    def running(self) -> list[ClusteredRelay]:
        """Those that run, or are stopped by a signal."""
        return [relay for relay in self.relays if relay.is_running]

    async def status(self, relay: ClusteredRelay) -> dict[str, Any]:
        """Return what a relay says of itself; nothing while it does not answer."""
        try:
            async with asyncio.timeout(5), self._session.get(f"{relay.url}{PREFIX}/status") as answer:
                said: dict[str, Any] = orjson.loads(await answer.read())
                return said
        except (aiohttp.ClientError, OSError, TimeoutError):
            return {}

    async def owners(self, provider: str) -> dict[str, list[str]]:
        """Return by shard of a provider the relays that say that they carry it for all."""
        found: dict[str, list[str]] = {}
        for relay in self.running:
            for shard in (await self.status(relay)).get("cluster", {}).get("shards", ()):
                if shard["provider"] == provider:
                    found.setdefault(shard["shard"], []).extend([relay.name] if shard["here"] == "all" else [])
        return found

    async def owner(self, provider: str) -> ClusteredRelay:
        """Return the one that carries the first shard of a provider, once there is exactly one."""
        names: list[str] = []

        async def has_one() -> bool:
            nonlocal names
            names = next(iter((await self.owners(provider)).values()), [])
            return len(names) == 1

        await eventually(has_one)
        return next(relay for relay in self.relays if relay.name == names[0])

    async def is_settled(self, provider: str = "binance") -> bool:
        """Say whether all that run see each other, and each shard of a provider is with whom it stays.

        That is so if all relays are able to carry it.
        """
        running = self.running
        nodes: dict[str, str] = {}
        for relay in running:
            state = (await self.status(relay)).get("cluster")
            if state is None or state["state"] != "joined" or len(state["relays"]) != len(running):
                return False
            nodes = {one["id"]: one["node"] for one in state["relays"]}
        return all(
            names == [nodes[favourite(shard, nodes) or ""]]
            for name, names in (await self.owners(provider)).items()
            if (shard := parse_shard(name)) is not None
        )

    async def settle(self, provider: str = "binance") -> None:
        """Wait until all is in order. Raises `TimeoutError`."""
        await eventually(lambda: self.is_settled(provider))

    async def until_state(self, state: str, *relays: ClusteredRelay) -> None:
        """Wait until each of these says that it is in this state: `joined` or `alone`. Raises `TimeoutError`."""
        for relay in relays:
            await eventually(lambda: self._is_in(state, relay))  # noqa: B023  called here

    async def _is_in(self, state: str, relay: ClusteredRelay) -> bool:
        return bool((await self.status(relay)).get("cluster", {}).get("state") == state)


def _text(value: object) -> str:
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
