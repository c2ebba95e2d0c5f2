"""Fixtures shared by the tests: stand-ins of both exchanges, and relays that run against them."""

import gc
import logging
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterator
from pathlib import Path

import aiohttp
import pytest
from hypothesis import HealthCheck, settings

from relay.server.run import COLLECTOR_THRESHOLDS
from relay.streams import fanout, group_write
from relay.web import idle_connections
from tests.support.examples import FEW, load_examples
from tests.support.lost_workers import LostWorkers
from tests.support.native_build import built_send_all
from tests.support.process_pauses import PauselessClock
from tests.support.running_relay import Reader, Running, WsClient, relays
from tests.support.sandbox import Sandbox
from tests.support.transports import TRANSPORTS, Transport
from tests.support.workers import are_unit_tests

StartRelay = Callable[..., Awaitable[Running]]

# The same examples in every run, however long a busy machine takes for one.
settings.register_profile("repeatable", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("repeatable")

# A shell that runs the tests in the background has them ignore it, and so would each process that they start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options of single test modules."""
    parser.addoption("--soak-seconds", type=float, default=30.0, metavar="N", help="how long the soak lasts")
    parser.addoption("--soak-all", action="store_true", help="let the soak draw from all kinds of faults")
    parser.addoption("--soak-seed", type=int, default=1, metavar="N", help="which random faults the soak injects")
    parser.addoption("--rude-seconds", type=float, default=8.0, metavar="N", help="how long the network is rude")
    parser.addoption(
        "--forex-weeks", action="store_true", help="run whole weeks of Twelve Data and a year of stocks, sped up"
    )
    parser.addoption("--kills", type=int, default=8, metavar="N", help="how often the writing store is killed")
    parser.addoption(
        "--cluster-kills", type=int, default=2, metavar="N", help="how often the owner among three relays is killed"
    )
    parser.addoption("--vanish", type=int, default=1000, metavar="N", help="how many clients vanish during writes")
    parser.addoption(
        "--flood-seconds", type=float, default=0.0, metavar="N", help="how long each kind of flood lasts, by itself"
    )
    parser.addoption(
        "--need-tools", action="store_true", help="fail, not skip, where a program that tests run is missing"
    )
    parser.addoption("--binary", metavar="FILE", help="test this single binary instead of building one")
    parser.addoption("--fuzz-frames", type=int, default=5000, metavar="N", help="how many frames the fuzzer sends")
    parser.addoption("--fuzz-seed", default="1", metavar="N", help="which random frames the fuzzer sends")
    parser.addoption("--fuzz-report", action="store_true", help="print what was attacked and what happened")
    parser.addoption(
        "--schemathesis-examples", type=int, default=20, metavar="N", help="how many requests it invents for a route"
    )
    parser.addoption(
        "--examples", type=float, default=FEW, metavar="N", help="try so many times a test's number of random examples"
    )
    parser.addoption("--captures", metavar="DIR", help="also play the recordings of the real exchanges in DIR")


def pytest_configure(config: pytest.Config) -> None:
    """Have the run fail that loses a worker, and tests find the number of examples that was asked for."""
    config.pluginmanager.register(LostWorkers())
    load_examples(config.getoption("--examples"))


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Tests with processes and browsers mostly wait for them, not for the processor: four workers for each.

    Unit tests wait for nothing: one for each, which takes what another has left.
    """
    processors = os.cpu_count() or 1
    if not are_unit_tests(config.args, config.invocation_params.dir):
        return min(8, 4 * processors)
    if not any(argument.startswith("--dist") for argument in config.invocation_params.args):
        config.option.dist = "worksteal"
    return processors


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Look for garbage neither while tests are collected nor later among them: they stay to the end.

    Among what tests make it is looked for as seldom as in a relay.
    """
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.set_threshold(*COLLECTOR_THRESHOLDS)
        gc.enable()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Begin with the files whose tests may take longest; give long ones the time that a soak was asked for, and more.

    Nothing is left at the end that one worker is busy with while the others have nothing to do.
    """
    seconds = max(config.getoption("--soak-seconds"), config.getoption("--rude-seconds"))
    for item in items:
        if item.get_closest_marker("long") is not None and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(seconds + 700))
    longest: dict[Path, float] = {}
    for item in items:
        longest[item.path] = max(longest.get(item.path, 0.0), _longest_s(item))
    items.sort(key=lambda item: -longest[item.path])


def _longest_s(item: pytest.Item) -> float:
    """Return how long a test says that it may take, 0 where it says nothing."""
    timeout = item.get_closest_marker("timeout")
    return 0.0 if timeout is None else float(timeout.args[0])


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave the recordings out where there are none."""
    is_of_recordings = collection_path.name in ("test_captures.py", "test_facade_captures.py")
    return True if is_of_recordings and not config.getoption("--captures") else None


@pytest.fixture(scope="module", autouse=True)
def _threads_of_others(request: pytest.FixtureRequest) -> Iterator[None]:
    """Let a command that runs in this process end although the process has threads that are not the command's."""
    with pytest.MonkeyPatch.context() as patch:
        if not request.node.nodeid.startswith("tests/e2e/test_event_loop.py"):
            patch.setattr("relay.server.event_loop._stragglers", lambda before, end_s: [])
        yield


@pytest.fixture
async def patient_loop() -> AsyncIterator[None]:
    """Have all timers of the test's loop wait through pauses of the process: for limits of a fraction of a second."""
    async with PauselessClock():
        yield


@pytest.fixture(autouse=True)
def logs_as_they_were() -> Iterator[None]:
    """Undo what a command run inside the test process does to logging: later tests read the log too."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    # Not `level =`: each logger remembers which levels are on, and only this makes it forget.
    root.setLevel(level)


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    """An HTTP session of the test's own."""
    async with aiohttp.ClientSession() as session:
        yield session


@pytest.fixture
async def sandbox(request: pytest.FixtureRequest) -> AsyncIterator[Sandbox]:
    """Both stand-ins, ten events a second on each open candle, forex always open.

    An indirect parameter adds so many synthetic pairs, `T001USDT` and so on.
    """
    async with Sandbox(pace_s=0.1, forex_always_open=True, extra_symbols=getattr(request, "param", 0)) as running:
        yield running


@pytest.fixture
async def relay_with(sandbox: Sandbox) -> AsyncIterator[StartRelay]:
    """Start relays against the stand-ins, with settings of `Config`, `builtin` and `tables`; all end with the test."""
    async with relays(sandbox) as start:
        yield start


@pytest.fixture(params=["direct", "aiohttp", "native"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """How relays of this test treat WebSockets.

    They read by their own connections, and as where aiohttp lets go of none; they write through transports, and past
    them in one call.
    """
    way: str = request.param
    send_all = built_send_all() if way == "native" else None
    monkeypatch.setattr(fanout, "new_writer", lambda _: group_write.new_writer(send_all))
    if way == "aiohttp":
        monkeypatch.setattr(idle_connections, "adopt", lambda handler: False)
    return way


@pytest.fixture
async def relay(relay_with: StartRelay) -> Running:
    """A relay with default settings against the stand-ins."""
    return await relay_with()


@pytest.fixture
async def client(relay: Running) -> WsClient:
    """A client of `relay` that has read the greeting."""
    return await relay.connect()


@pytest.fixture(params=TRANSPORTS, ids=lambda one: one.name)
def over(request: pytest.FixtureRequest) -> Transport:
    """What updates come over in this test."""
    over: Transport = request.param
    return over


@pytest.fixture
async def reader(relay: Running, over: Transport) -> Reader:
    """A client of `relay`, over each of what updates come over, for one request to subscribe."""
    return await over.reader(relay)


@pytest.fixture
async def bystander(relay: Running) -> AsyncIterator[WsClient]:
    """Another client of `relay`; the test fails if what it does to its own keeps this one's updates from it."""
    other = await relay.connect()
    await other.subscribe("BTCUSDT@1s")
    await other.update()
    yield other
    await other.settle()
    await other.update()


@pytest.fixture
async def fast() -> AsyncIterator[Sandbox]:
    """Stand-ins that live four times as fast: a candle of `1s` closes every quarter of a second."""
    async with Sandbox(speed=4, pace_s=0.05, forex_always_open=True) as running:
        yield running


@pytest.fixture
async def quick(relay_with: StartRelay, fast: Sandbox) -> Running:
    """A relay whose exchanges are `fast`."""
    return await relay_with(sandbox=fast)
