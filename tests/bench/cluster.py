"""Measures what the bus adds to a relay, what a second core gives, and what 100,000 clients would need.

`python -m tests.bench.cluster` runs one relay by itself, then two that share a port and their work over `nats-server`,
both with 1,000 updates a second and 1,000 clients for each relay, each with 10 of 100 streams, and prints tables for
relay/packaging/README.md. CPU is that of all threads of each process, which depends little on what else a machine does;
the latency is that of a client beside the others, from the provider's update on, and does. The provider is made in the
relay's process, so what it costs to connect to one and to decode is not in it.
"""

import argparse
import asyncio
import json
import math
import os
import resource
import selectors
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from statistics import median, quantiles
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import aiohttp

from tests.support.free_ports import free_port

ROOT = Path(__file__).parents[2]
STREAMS = 100
STREAMS_OF_A_CLIENT = 10
DRAIN_EVERY_S = 0.1
SETTLES_S = 5.0
FEW = 40
"""So many have all streams, at whichever relays they are."""
PATH = "/api/v1/market-data"
UPDATE = b'"price_update"'
MANY = 100_000
HALF = 0.5
"""How much of a core is planned for: the rest is for bursts and for clients that move from a relay that stops."""
CLIENTS_OF_A_RELAY = 10_000
"""The default of `max_clients`."""
WRITE_S, UPDATE_S = 5.6e-6, 1.0e-6
"""CPU of one write to a client and of each update in it, on idle cores: 178,000 and 1,034,000 a second, README.md here.

Not from the run itself: a relay that gets too little of a core writes seldom, and then each update costs less.
"""
WRITES_A_SECOND = 50
"""Of each client at most: `flush_ms`."""


def names(number: int) -> list[str]:
    """Return the streams of one client: some of all, others than those of the next client."""
    return [f"even_pace:S{(number * 7 + at) % STREAMS:03d}@1d" for at in range(STREAMS_OF_A_CLIENT)]


# -- the clients, in a process of their own ----------------------------------------------------------


def drain(url: str, clients: int) -> None:
    """Be many clients that read and judge nothing; print how many updates came so far, once a second."""
    address = urlsplit(url)
    chosen = selectors.DefaultSelector()
    for number in range(clients):
        one = socket.create_connection((address.hostname, address.port))
        one.sendall(
            f"GET {PATH}/ws HTTP/1.1\r\nHost: {address.netloc}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        body = json.dumps({"action": "subscribe", "streams": names(number)}).encode()
        # Masked with zeros, so that it stays as it is.
        one.sendall(bytes([0x81, 0x80 | 126, len(body) >> 8, len(body) & 0xFF, 0, 0, 0, 0]) + body)
        one.setblocking(False)
        chosen.register(one, selectors.EVENT_READ)
    found, said_at = 0, time.monotonic()
    while True:
        time.sleep(DRAIN_EVERY_S)
        for ready, _ in chosen.select(0):
            sock = ready.fileobj
            assert isinstance(sock, socket.socket)
            with suppress(BlockingIOError):
                data = sock.recv(1 << 20)
                if not data:
                    raise SystemExit("a relay closed a client's connection")
                # Pings of the relay are answered: 0x89 0x00 at the end of what was read, or between frames.
                if b"\x89\x00" in data:
                    sock.send(bytes([0x8A, 0x80, 0, 0, 0, 0]))
                found += data.count(UPDATE)
        if time.monotonic() - said_at >= 1.0:
            said_at = time.monotonic()
            print(found, flush=True)


class Drain:
    """The process of clients; `read` is how many updates they have read."""

    def __init__(self) -> None:
        self.read = 0
        self._process: asyncio.subprocess.Process | None = None
        self._task: asyncio.Task[None] | None = None

    async def start(self, url: str, clients: int) -> None:
        """Connect them."""
        words = ("-m", "tests.bench.cluster", "--drain", url, "--clients", str(clients))
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, *words, stdout=asyncio.subprocess.PIPE, cwd=ROOT
        )
        self._task = asyncio.create_task(self._listen(self._process))

    async def _listen(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        while line := await process.stdout.readline():
            self.read = int(line)

    async def until_reading(self) -> None:
        """Wait until updates come."""
        async with asyncio.timeout(120):
            while not self.read:
                assert self._process is not None
                if self._process.returncode is not None:
                    raise SystemExit("the clients could not connect")
                await asyncio.sleep(0.2)

    async def stop(self) -> None:
        """Disconnect them."""
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()
        if self._task is not None:
            await self._task


# -- the processes that are measured -----------------------------------------------------------------


class Measured:
    """A process, and what it used."""

    def __init__(self, name: str, process: asyncio.subprocess.Process) -> None:
        self.name = name
        self._process = process

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
        if self._process.returncode is None:
            self._process.send_signal(signal.SIGTERM)
            await self._process.wait()


async def start_relay(name: str, port: int, folder: str, updates: int, nats: str | None) -> Measured:
    """Start a relay and wait until it serves; with the address of NATS it is one of several at the same port."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("RELAY_")}
    environment |= {
        "RELAY_PLUGINS": "tests.plugins.even_pace",
        "RELAY_EVEN_PACE_PER_SECOND": str(updates),
        "RELAY_BINANCE_ENABLED": "false",
        "RELAY_TWELVE_DATA_ENABLED": "false",
        "RELAY_MAX_CLIENTS_PER_ADDRESS": "100000",
        "RELAY_LOG_LEVEL": "warning",
        "RELAY_REUSE_PORT": "true",
    }
    if nats is not None:
        environment |= {"RELAY_CLUSTER_NATS": nats, "RELAY_CLUSTER_NODE": name}
    words = ("-m", "relay", "serve", "--port", str(port), "--database", f"{folder}/{name}.db")
    process = await asyncio.create_subprocess_exec(
        sys.executable, *words, stdout=asyncio.subprocess.PIPE, env=environment, cwd=ROOT
    )
    assert process.stdout is not None
    if not await process.stdout.readline():
        raise SystemExit(f"relay {name} did not start")
    return Measured(name, process)


class Nats(NamedTuple):
    """The server, and where it says what passed."""

    process: Measured
    url: str
    monitor: str

    async def bytes(self, session: aiohttp.ClientSession) -> tuple[int, int]:
        """Return how many bytes came in and went out."""
        async with session.get(f"{self.monitor}/varz") as answer:
            said = await answer.json()
            return said["in_bytes"], said["out_bytes"]


async def start_nats(folder: str) -> Nats:
    """Start a server."""
    program = shutil.which("nats-server") or shutil.which("nats-server", path="/usr/sbin")
    if program is None:
        raise SystemExit("nats-server is not installed")
    port, monitor = free_port(), free_port()
    words = ("-js", "-sd", f"{folder}/nats", "-a", "127.0.0.1", "-p", str(port), "-m", str(monitor))
    quiet = asyncio.subprocess.DEVNULL
    process = await asyncio.create_subprocess_exec(program, *words, stdout=quiet, stderr=quiet)
    return Nats(Measured("NATS", process), f"nats://127.0.0.1:{port}", f"http://127.0.0.1:{monitor}")


# -- measuring ---------------------------------------------------------------------------------------


@asynccontextmanager
async def probe(session: aiohttp.ClientSession, url: str, owned: bool | None) -> AsyncIterator[list[float]]:
    """Be one more client, of the owner or of another relay; collect how old updates are when they come, in ms."""
    found: list[float] = []
    for _ in range(50):
        # The port is shared: where the status is asked on a connection, the WebSocket is not; so both are asked twice.
        ws = await session.ws_connect(f"{url}{PATH}/ws", max_msg_size=0)
        epoch = (await ws.receive_json())["epoch"]
        if owned is None or await is_owner(url, epoch) is owned:
            break
        await ws.close()
    else:
        raise SystemExit("no connection came to the relay that is to be measured")

    async def read() -> None:
        await ws.send_json({"action": "subscribe", "streams": names(3)})
        async for message in ws:
            said = message.json()
            if said["type"] == "price_update":
                found.append(time.time() * 1000 - said["ts_event"])

    task = asyncio.create_task(read())
    try:
        yield found
    finally:
        task.cancel()
        await ws.close()


async def is_owner(url: str, epoch: str) -> bool:
    """Say whether the relay of this run carries the streams for all."""
    for _ in range(50):
        # A connection each: the system decides anew which relay gets it.
        async with aiohttp.ClientSession() as session, session.get(f"{url}{PATH}/status") as answer:
            said = await answer.json()
            if said["epoch"] == epoch:
                return any(one["here"] == "all" for one in said["cluster"]["shards"])
    raise SystemExit("the status of a relay was not reached")


class Sample(NamedTuple):
    """What was used in some seconds: CPU of each process in shares of a core; what clients read, and the bus took."""

    cpu: dict[str, float]
    delivered: float
    bus_bytes: float


class Run(NamedTuple):
    """Relays with `FEW` clients, who have all streams, then with many; the memory before and with the many."""

    few: Sample
    many: Sample
    empty_mb: dict[str, float]
    memory_mb: dict[str, float]
    latency: dict[str, list[float]]


async def sample(
    processes: list[Measured], nats: Nats | None, session: aiohttp.ClientSession, drains: list[Drain], seconds: float
) -> Sample:
    """Measure for so long."""

    async def read() -> tuple[list[float], int, int, float]:
        passed = 0 if nats is None else (await nats.bytes(session))[0]
        return [one.cpu_s() for one in processes], sum(one.read for one in drains), passed, time.monotonic()

    used, found, passed, begun = await read()
    await asyncio.sleep(seconds)
    used_then, found_then, passed_then, ended = await read()
    took = ended - begun
    cpu = {one.name: (then - before) / took for one, before, then in zip(processes, used, used_then, strict=True)}
    return Sample(cpu, (found_then - found) / took, (passed_then - passed) / took)


async def run(stack: AsyncExitStack, given: argparse.Namespace, relays: int) -> Run:
    """Measure so many relays."""
    folder = stack.enter_context(tempfile.TemporaryDirectory())
    session = await stack.enter_async_context(aiohttp.ClientSession())
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    nats = await start_nats(folder) if relays > 1 else None
    if nats is not None:
        stack.push_async_callback(nats.process.stop)
    measured = []
    for number in range(relays):
        name = f"relay-{number + 1}"
        measured.append(await start_relay(name, port, folder, given.updates, None if nats is None else nats.url))
        stack.push_async_callback(measured[-1].stop)
    await asyncio.sleep(SETTLES_S)
    processes = [*measured, *([nats.process] if nats else [])]
    empty = {one.name: one.memory_mb() for one in processes}
    drains: list[Drain] = []
    samples = []
    for clients in (FEW * relays, given.clients * relays):
        drains.append(Drain())
        await drains[-1].start(url, clients)
        stack.push_async_callback(drains[-1].stop)
        await drains[-1].until_reading()
        await asyncio.sleep(SETTLES_S)
        kinds: dict[str, bool | None] = {"owner": True, "other relay": False} if relays > 1 else {"one relay": None}
        async with AsyncExitStack() as probes:
            latency = {kind: await probes.enter_async_context(probe(session, url, is_)) for kind, is_ in kinds.items()}
            samples.append(await sample(processes, nats, session, drains, given.seconds))
    return Run(*samples, empty, {one.name: one.memory_mb() for one in processes}, latency)


def spread(ages: list[float]) -> str:
    """Return the middle and the 99th percentile of latencies."""
    return f"{median(ages):.0f} ms, {quantiles(ages, n=100)[98]:.0f} ms" if len(ages) > 100 else "–"


def show(given: argparse.Namespace, one: Run, two: Run) -> None:
    """Print the tables."""
    relays = [name for name in two.many.cpu if name != "NATS"]
    print(f"load of the machine: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores\n")
    print(f"| {given.updates:,} updates/s | CPU, {FEW} clients each | CPU, {given.clients:,} more | memory |")
    print("| --- | ---: | ---: | ---: |")
    for found, label in ((one, "by itself"), (two, "of two")):
        for name, share in found.many.cpu.items():
            few = 100 * found.few.cpu[name]
            print(f"| {name}, {label} | {few:.1f} % | {100 * share:.1f} % | {found.memory_mb[name]:.0f} MB |")
    for kind, ages in (*one.latency.items(), *two.latency.items()):
        print(f"\nlatency at a client of the {kind}, middle and 99th percentile: {spread(ages)}", end="")
    rate_of_one = one.many.delivered / sum(one.many.cpu.values())
    rate_of_two = two.many.delivered / sum(two.many.cpu[name] for name in relays)
    print(f"\n\nupdates delivered: {one.many.delivered:,.0f}/s by one relay, {two.many.delivered:,.0f}/s by two")
    print(f"for each second of CPU: by one {rate_of_one:,.0f}, by each of two {rate_of_two:,.0f}")
    left_of_one, left_of_two = 1 - sum(one.few.cpu.values()), sum(1 - two.few.cpu[name] for name in relays)
    times = left_of_two / left_of_one
    print(f"left for clients: {left_of_one:.2f} of one core, {left_of_two:.2f} of two, {times:.2f} times as much")
    # What a relay takes for its own part of the updates, whoever owns them.
    intake = sum(two.few.cpu[name] for name in relays) / len(relays)
    client_kb = 1024 * (sum(one.memory_mb.values()) - sum(one.empty_mb.values())) / given.clients
    bus_bytes = two.many.bus_bytes
    print(f"a relay takes {100 * intake:.1f} % of a core for the updates and {FEW} clients")
    print(f"a client takes {client_kb:.0f} KB; an update {bus_bytes / given.updates:.0f} bytes of the bus\n")
    print(f"{MANY:,} clients, half of each core used, {given.updates:,} updates/s of all streams:\n")
    print("| updates/s of a client | relays, a core each | cores used | memory | bus, out of NATS |")
    print("| ---: | ---: | ---: | ---: | ---: |")
    for rate in (1, 10, 50, 100):
        client = min(rate, WRITES_A_SECOND) * WRITE_S + rate * UPDATE_S
        count = max(math.ceil(MANY / CLIENTS_OF_A_RELAY), math.ceil(MANY * client / (HALF - intake)))
        cores = count * intake + MANY * client
        memory_gb = (MANY * client_kb + count * 1024 * one.empty_mb["relay-1"]) / 2**20
        out = f"{bus_bytes * (count - 1) * 8 / 1e6:.0f} Mbit/s"
        print(f"| {rate} | {count} | {cores:.1f} | {memory_gb:.1f} GB | {out} |")


async def measure(given: argparse.Namespace) -> None:
    """Measure one relay, then two, and print."""
    async with AsyncExitStack() as stack:
        one = await run(stack, given, 1)
    async with AsyncExitStack() as stack:
        two = await run(stack, given, 2)
    show(given, one, two)


def main() -> None:
    """Read the command line and measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, default=1000, help="for each relay")
    parser.add_argument("--updates", type=int, default=1000, help="per second, of all streams")
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--drain", help=argparse.SUPPRESS)
    given: Any = parser.parse_args()
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    if given.drain:
        drain(given.drain, given.clients)
    asyncio.run(measure(given))


if __name__ == "__main__":
    main()
