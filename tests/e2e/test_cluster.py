"""Three relays and a NATS server under faults: every client of each of them is told the truth, once and in order.

Two kills of an owner by default; `--cluster-kills 20` for the long run. How long streams were not live is printed.
"""

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import aiohttp
import pytest

from relay.client import RelayClient, State, Update
from tests.support.authority import Authority
from tests.support.conditions import eventually
from tests.support.nats_server import NatsServer, nats_program, nats_running
from tests.support.relay_cluster import NAMES, ClusteredRelay, HearingClient, RelayCluster
from tests.support.sandbox import Sandbox
from tests.support.soak import MarketTruth

SYMBOLS = 30
STREAMS = tuple(
    [f"T{number:03d}USDT@1s" for number in range(1, 21)]
    + [f"T{number:03d}USDT@1m" for number in range(1, SYMBOLS + 1)]
    + [f"T{number:03d}USDT@5m" for number in range(1, 11)]
)


class Trial:
    """The relays, a client of each, and how long they were without prices after each fault."""

    def __init__(self, sandbox: Sandbox, nats: NatsServer, cluster: RelayCluster) -> None:
        self.sandbox = sandbox
        self.nats = nats
        self.cluster = cluster
        self.clients: dict[str, HearingClient] = {}
        self.waits: dict[str, list[float]] = {}
        self.tasks: list[asyncio.Task[Any]] = []
        self.truths = {name: MarketTruth(sandbox.binance, *name.split("@")) for name in STREAMS}

    def follow(self, relay: ClusteredRelay) -> None:
        """Let a client have all streams of a relay, whatever becomes of that."""
        client = self.clients[relay.name] = HearingClient(
            f"client of {relay.name}", self.truths, self.sandbox.clock.now
        )
        self.tasks.append(asyncio.create_task(client.run(relay.url)))

    async def until_live(self, kind: str, since: float, names: Iterable[str]) -> None:
        """Wait until clients of these relays hear of all lively streams again, and note how long that took."""
        lively = [name for name in STREAMS if name.endswith("@1s")]
        clients = [self.clients[name] for name in names]

        def is_live() -> bool:
            return all(client.heard.get(name, 0.0) > since for client in clients for name in lively)

        await eventually(is_live)
        self.waits.setdefault(kind, []).append(time.monotonic() - since)

    async def judge(self) -> None:
        """Wait for what is due by now at every client, and judge that all of it came, once and as it was."""
        for task in self.tasks:
            if task.done():
                task.result()
        ended = self.sandbox.clock.now() + 1
        checks = [check for client in self.clients.values() for check in client.checks.values()]
        try:
            await eventually(lambda: all(check.is_settled(ended) for check in checks))
        except TimeoutError:
            print("unsettled:", [check.name for check in checks if not check.is_settled(ended)][:10])
        for check in checks:
            check.finish(ended)
        found = [str(one) for check in checks for one in check.found]
        gaps = [(check.name, check.gaps) for check in checks if check.gaps]
        print(f"closed candles delivered: {sum(check.delivered for check in checks)}")
        for kind, waits in self.waits.items():
            print(f"not live after {kind}, s: median {median(waits):.2f}, worst {max(waits):.2f} of {len(waits)}")
        assert found == []
        assert gaps == []


@asynccontextmanager
async def trial(config: pytest.Config, folder: Path, **settings: str) -> AsyncIterator[Trial]:
    async with (
        Sandbox(pace_s=0.4, extra_symbols=SYMBOLS, forex_always_open=True) as sandbox,
        nats_running(nats_program(config), folder) as nats,
        aiohttp.ClientSession() as session,
    ):
        relays = [ClusteredRelay(name, sandbox, nats, folder, settings) for name in NAMES]
        running = Trial(sandbox, nats, RelayCluster(relays, session))
        try:
            for relay in relays[:3]:
                await relay.start()
                running.follow(relay)
            await running.until_live("start", time.monotonic(), NAMES[:3])
            await running.cluster.settle()
            yield running
        finally:
            for task in running.tasks:
                task.cancel()
            await asyncio.gather(*running.tasks, return_exceptions=True)
            for relay in relays:
                await relay.close()
                if relay.log.exists():
                    print(f"-- {relay.name}\n" + relay.log.read_text(encoding="utf-8")[-4000:])


async def kill_owner(trial: Trial, times: int) -> None:
    for _ in range(times):
        owner = await trial.cluster.owner("binance")
        others = [relay.name for relay in trial.cluster.running if relay is not owner]
        since = time.monotonic()
        await owner.kill()
        await trial.until_live("a kill of the owner", since + 0.1, others)
        await owner.start()
        await trial.cluster.settle()
        await trial.until_live("its return", time.monotonic(), [owner.name])


async def stop_owner(trial: Trial) -> None:
    owner = await trial.cluster.owner("binance")
    others = [relay.name for relay in trial.cluster.running if relay is not owner]
    since = time.monotonic()
    owner.signal(signal.SIGSTOP)
    await trial.until_live("a pause of the owner", since + 0.1, others)
    await asyncio.sleep(max(0.0, since + 5 - time.monotonic()))
    owner.signal(signal.SIGCONT)
    await trial.until_live("its end", time.monotonic(), [owner.name])
    await trial.cluster.settle()


async def cut_owner(trial: Trial) -> None:
    owner = await trial.cluster.owner("binance")
    names = [relay.name for relay in trial.cluster.running]
    since = time.monotonic()
    owner.line.hold()
    await trial.until_live("a cut between the owner and NATS", since + 0.1, names)
    await asyncio.sleep(max(0.0, since + 5 - time.monotonic()))
    await trial.cluster.until_state("alone", owner)
    await asyncio.sleep(max(0.0, since + 10 - time.monotonic()))
    owner.line.go_on()
    await trial.cluster.settle()
    await trial.until_live("its end", time.monotonic(), names)


async def lose_nats(trial: Trial) -> None:
    names = [relay.name for relay in trial.cluster.running]
    since = time.monotonic()
    await trial.nats.kill()
    await trial.until_live("the loss of NATS", since + 0.1, names)
    await asyncio.sleep(max(0.0, since + 5 - time.monotonic()))
    await trial.cluster.until_state("alone", *trial.cluster.running)
    await trial.nats.start()
    await trial.cluster.settle()
    await trial.until_live("its return without memory", time.monotonic(), names)


async def add_and_take_away(trial: Trial) -> None:
    added = trial.cluster.relays[3]
    await added.start()
    trial.follow(added)
    await trial.cluster.settle()
    await trial.until_live("a new relay", time.monotonic(), NAMES)
    leaving = await trial.cluster.owner("binance")
    others = [relay.name for relay in trial.cluster.running if relay is not leaving]
    since = time.monotonic()
    await leaving.stop()
    await trial.until_live("the leave of the owner", since, others)
    await leaving.start()
    await trial.cluster.settle()
    await trial.until_live("its return", time.monotonic(), [leaving.name])


Fault = Callable[[Trial], Coroutine[Any, Any, None]]


@pytest.mark.long
@pytest.mark.timeout(1500)
@pytest.mark.parametrize("shards", ["1", "4"])
async def test_clients_of_all_relays_are_told_the_truth_when_owners_are_killed(
    shards: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    async with trial(request.config, tmp_path, RELAY_CLUSTER_SHARDS=shards) as running:
        await kill_owner(running, request.config.getoption("--cluster-kills"))
        await running.judge()


@pytest.mark.long
@pytest.mark.parametrize("fault", [stop_owner, cut_owner, lose_nats, add_and_take_away])
async def test_clients_of_all_relays_are_told_the_truth_through(
    fault: Fault, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    async with trial(request.config, tmp_path) as running:
        await fault(running)
        await running.judge()


FOREX = ("EUR/USD@1m", "GBP/USD@1m", "EUR/USD@5m")
POLLED = {name.partition("@")[0] for name in FOREX}
WATCHED_S = 20.0


class Cost(NamedTuple):
    """What clients of relays cost upstream: credits of Twelve Data in so many seconds."""

    connections: int
    subscribed: list[str]
    credits: int
    seconds: float


async def cost_of(relays: list[ClusteredRelay], sandbox: Sandbox) -> Cost:
    """Return what clients of these relays cost, in a time in which they do poll."""

    async def read(relay: ClusteredRelay) -> None:
        async with RelayClient(relay.url, waits_for_relay=True) as client:
            await client.subscribe(*STREAMS, *FOREX)
            async for _ in client:
                pass

    readers = [asyncio.create_task(read(relay)) for relay in relays]
    try:
        # What every start costs has been paid by then.
        await asyncio.sleep(10)
        before, began = len(sandbox.twelve_data.requests), time.monotonic()

        def spent() -> int:
            # One credit a symbol.
            return sum(1 + call.query.get("symbol", "").count(",") for call in sandbox.twelve_data.requests[before:])

        await asyncio.sleep(WATCHED_S)
        await eventually(lambda: spent() > 10 and len(sandbox.binance.subscribed) == len(STREAMS))
        # For a moment there are two where a lease was not renewed in time.
        await eventually(lambda: sandbox.binance.connections == 1)
        return Cost(sandbox.binance.connections, sandbox.binance.subscribed, spent(), time.monotonic() - began)
    finally:
        for reader in readers:
            reader.cancel()
        await asyncio.gather(*readers, return_exceptions=True)


@pytest.mark.timeout(300)
async def test_three_relays_cost_the_providers_what_one_costs(request: pytest.FixtureRequest, tmp_path: Path) -> None:
    settings = {"RELAY_TWELVE_DATA_POLL_SECONDS": "1"}
    async with (
        Sandbox(pace_s=0.4, extra_symbols=SYMBOLS, forex_always_open=True) as sandbox,
        nats_running(nats_program(request.config), tmp_path) as nats,
        aiohttp.ClientSession() as session,
        AsyncExitStack() as stack,
    ):
        lone = ClusteredRelay("lone", sandbox, nats, tmp_path, {**settings, "RELAY_CLUSTER_NATS": ""})
        stack.push_async_callback(lone.close)
        await lone.start()
        of_one = await cost_of([lone], sandbox)
        await lone.stop()
        relays = [ClusteredRelay(name, sandbox, nats, tmp_path, settings) for name in NAMES[:3]]
        for relay in relays:
            stack.push_async_callback(relay.close)
            await relay.start()
        await RelayCluster(relays, session).settle()
        of_three = await cost_of(relays, sandbox)
    streams = sorted(
        f"{symbol.lower()}@kline_{interval}" for symbol, _, interval in (n.partition("@") for n in STREAMS)
    )
    for cost in (of_one, of_three):
        print(f"connections {cost.connections}, credits {cost.credits} in {cost.seconds:.0f} s")
        assert (cost.connections, cost.subscribed) == (1, streams)
        # Each second one credit a symbol, or less on a busy machine; a poll or two more may fall into the time.
        assert cost.credits <= len(POLLED) * (cost.seconds + 2)


async def test_relays_reach_nats_by_tls_and_with_a_password_that_nobody_reads(
    request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    authority = Authority(tmp_path)
    authority.issue()
    options = ("--tls", "--tlscert", str(authority.cert), "--tlskey", str(authority.key))
    program = nats_program(request.config)
    async with (
        Sandbox(forex_always_open=True) as sandbox,
        nats_running(program, tmp_path, *options, "--user", "relay", "--pass", "hush-hush") as nats,
        aiohttp.ClientSession() as session,
        AsyncExitStack() as stack,
    ):

        async def check(name: str, address: str, state: str, said: str) -> None:
            settings = {"RELAY_CLUSTER_NATS": f"tls://{address}:{nats.port}", "SSL_CERT_FILE": str(authority.root)}
            relay = ClusteredRelay(name, sandbox, nats, tmp_path, settings)
            stack.push_async_callback(relay.close)
            await relay.start()
            # Whoever is not let in may not know it for a moment, and who is may be alone until then.
            await eventually(lambda: said in relay.log.read_text(encoding="utf-8"))
            await RelayCluster([relay], session).until_state(state, relay)
            assert "hush" not in relay.log.read_text(encoding="utf-8")

        await check("a", "relay:hush-hush@127.0.0.1", "joined", "connected to NATS")
        await check("b", "relay:hush@127.0.0.1", "alone", "NATS: ")
        await check("c", "127.0.0.1", "alone", "NATS: ")


async def hear_states(url: str, stream: str, states: list[tuple[str, str]]) -> None:
    """Follow a stream until cancelled; note its states and what is said with them, and `price` for a price."""
    async with RelayClient(url, waits_for_relay=True) as client:
        await client.subscribe(stream)
        async for message in client:
            if isinstance(message, State):
                states.append((message.status, message.message))
            elif isinstance(message, Update) and states[-1:] != [("price", "")]:
                states.append(("price", ""))


BAN_S = 300
"""As long as a relay believes another one at once; longer than the test lasts."""
STREAM, OTHER_STREAM = "BTCUSDT@1s", "ETHUSDT@1s"


@asynccontextmanager
async def hearing_states(url: str, stream: str) -> AsyncIterator[list[tuple[str, str]]]:
    """Note the states of a stream, see `hear_states`."""
    states: list[tuple[str, str]] = []
    reading = asyncio.create_task(hear_states(url, stream, states))
    try:
        yield states
    finally:
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)


async def test_a_relay_does_not_connect_while_the_exchange_wants_another_one_to_wait(
    request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    async with (
        Sandbox(forex_always_open=True) as sandbox,
        nats_running(nats_program(request.config), tmp_path) as nats,
        aiohttp.ClientSession() as session,
        AsyncExitStack() as stack,
    ):
        relays = [ClusteredRelay(name, sandbox, nats, tmp_path, {}) for name in NAMES[:2]]
        for relay in relays:
            stack.push_async_callback(relay.close)
            await relay.start()
        cluster = RelayCluster(relays, session)
        await cluster.settle()
        heard = {relay: await stack.enter_async_context(hearing_states(relay.url, STREAM)) for relay in relays}
        await eventually(lambda: all(("price", "") in states for states in heard.values()))
        # Who does not know a relay believes nothing of it, and there are two connections where a lease was lost.
        await cluster.settle()
        await eventually(lambda: sandbox.binance.connections == 1)
        log, faults = sandbox.binance.connect_log, sandbox.binance.faults
        before = len(log)
        # Whoever comes is refused, and counted.
        faults.refuse(429, seconds=BAN_S, retry_after=str(BAN_S))
        faults.drop()

        async def is_throttled(why: str, *heard: list[tuple[str, str]]) -> None:
            await eventually(
                lambda: ("throttled", why) in [(what, said[: len(why)]) for one in heard for what, said in one]
            )

        for states in heard.values():
            await is_throttled("the connection was refused with HTTP 429; the next", states)
        owner, tried = await cluster.owner("binance"), len(log)
        (other,) = (relay for relay in relays if relay is not owner)
        # What the owner was told goes with it; the other relay was told, too.
        await owner.kill()
        await is_throttled(asked := "Binance asked another relay to wait; the next attempt is ", *heard.values())
        # Settings that are read again and are the same change nothing.
        other.signal(signal.SIGHUP)
        await eventually(lambda: "the configuration was read again" in other.log.read_text(encoding="utf-8"))
        await is_throttled(asked, await stack.enter_async_context(hearing_states(other.url, OTHER_STREAM)))
        assert [one.status for one in log[before:]] == [429] * (tried - before)
        assert (await cluster.status(other))["cluster"]["bus"]["invalid"] == 0
