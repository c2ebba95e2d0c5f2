"""Whose lines come next in an answer of several symbols, and what a symbol that is slow does to the others."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from itertools import pairwise
from typing import Any

import orjson
import pytest

from relay.core.clock import Clock, ProviderClock
from relay.core.errors import BadAnswer, Code, ProviderUnavailable, RateLimited, RequestError, UnknownSymbol
from relay.core.model import PriceUpdate, ProviderInfo, StreamKey
from relay.instruments.directory import Target
from relay.plugins.hookspecs import API_VERSION, hookimpl
from relay.plugins.loader import PluginHost
from relay.plugins.provider import Provider
from relay.web.http.symbol_turns import MOST_FAILURES, Failures, Finding, SymbolTurns
from tests.support.conditions import eventually

PATIENCE_S = 2.0
NOTHING: tuple[PriceUpdate, ...] = ()


class Open:
    """A provider without a list, of which nothing but the name matters here."""

    def __init__(self, name: str) -> None:
        self.__name__ = self.name = name

    @hookimpl
    def relay_provider(self) -> ProviderInfo:
        return ProviderInfo(name=self.name, api=API_VERSION, title=self.name, asset_classes=("any",), intervals=("1m",))

    @hookimpl
    async def relay_stream(self, watchlist: object) -> Any:
        for update in NOTHING:
            yield update


def bound() -> dict[str, Provider]:
    host = PluginHost()
    host.load([Open("a"), Open("b")], installed=False)
    return {name: host.bind(host.loaded[name], {}, ProviderClock(Clock())) for name in host.loaded}


class Script:
    """Symbols whose parts come when `come` says so; all that happens is in `log`."""

    def __init__(self) -> None:
        self.failures = Failures()
        self.log: list[str] = []
        self.begun: list[str] = []
        self.closed: list[str] = []
        self._providers = bound()
        self._gates: dict[str, asyncio.Queue[str | None]] = {}
        self._finding: list[Finding] = []
        self._found: dict[str, asyncio.Future[Target | RequestError]] = {}
        self.reading: asyncio.Task[None] | None = None

    def target(self, name: str) -> Target:
        """Return what a name such as `a:X` stands for; `a:X=Y` is another name of `a:Y`."""
        provider, symbol = name.split(":")
        return Target(self._providers[provider], StreamKey(symbol.partition("=")[2] or symbol, "1m"), symbol)

    def gate(self, symbol: str) -> "asyncio.Queue[str | None]":
        return self._gates.setdefault(symbol, asyncio.Queue())

    def come(self, symbol: str, *parts: str | None) -> None:
        """Let parts of a symbol come; None is its end."""
        for part in parts:
            self.gate(symbol).put_nowait(part)

    async def _lines_of(self, target: Target) -> AsyncGenerator[bytes, None]:
        symbol = target.key.symbol
        self.begun.append(symbol)
        try:
            while (part := await self.gate(symbol).get()) is not None:
                yield f"{symbol}{part}".encode()
        finally:
            self.closed.append(symbol)

    async def name(self, *names: str, late: bool = False) -> None:
        """Add names, which are found in time, or `late`."""
        for name in names:
            future: asyncio.Future[Target | RequestError] = asyncio.get_running_loop().create_future()
            self._found[name] = future

            async def find(future: asyncio.Future[Target | RequestError] = future) -> Target | RequestError:
                return await future

            self._finding.append(asyncio.create_task(find()))
            if not late:
                self.find(name)
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    def find(self, name: str) -> None:
        """Say what a name stands for; `?X` stands for nothing."""
        if name.startswith("?"):
            self._found[name].set_result(RequestError(Code.UNKNOWN_SYMBOL, name))
        else:
            self._found[name].set_result(self.target(name))

    def read(self) -> AsyncGenerator[bytes, None]:
        return SymbolTurns(self._finding, self._lines_of, self.failures, PATIENCE_S).lines()

    def start(self) -> None:
        """Read all lines into `log`."""

        async def read() -> None:
            async for line in self.read():
                self.log.append(orjson.loads(line)["message"] if line.startswith(b"{") else line.decode())

        self.reading = asyncio.create_task(read())

    async def until(self, *log: str) -> None:
        """Wait until so much came, and see that it is that."""
        await eventually(lambda: len(self.log) >= len(log))
        assert self.log == list(log)

    async def all(self) -> list[str]:
        """Read to the end."""
        if self.reading is None:
            self.start()
        assert self.reading is not None
        await self.reading
        return self.log

    async def end(self) -> None:
        tasks = [task for task in (self.reading, *self._finding) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@pytest.fixture
async def script() -> AsyncIterator[Script]:
    script = Script()
    yield script
    await script.end()


async def test_symbols_and_errors_come_in_the_order_of_their_names(script: Script) -> None:
    await script.name("a:X", "?NO", "b:Y", "a:Z", "?NONE")
    for symbol in "ZYX":
        script.come(symbol, "1", "2", None)
    assert await script.all() == ["X1", "X2", "?NO", "Y1", "Y2", "Z1", "Z2", "?NONE"]


async def test_a_stream_comes_once_by_whatever_names(script: Script) -> None:
    await script.name("a:X", "a:OTHER=X", "b:X")
    await script.name("a:THIRD=X", "a:LATE", "a:LATER=LATE", late=True)
    for _ in range(3):
        script.come("X", "1", None)
        script.come("LATE", "1", None)
    script.start()
    await script.until("X1", "X1")
    for name in ("a:THIRD=X", "a:LATE", "a:LATER=LATE"):
        script.find(name)
    assert await script.all() == ["X1", "X1", "LATE1"]
    assert script.begun == ["X", "X", "LATE"]


async def test_a_symbol_that_is_silent_holds_up_those_of_its_provider_only(script: Script) -> None:
    await script.name("a:SLOW", "a:NEXT", "b:Y", "b:Z")
    script.come("SLOW", "1")
    script.come("NEXT", "1", None)
    script.come("Y", "1", None)
    script.come("Z", "1", None)
    script.start()
    await script.until("SLOW1", "Y1", "Z1", "NEXT1")
    script.come("SLOW", "2", None)
    assert await script.all() == ["SLOW1", "Y1", "Z1", "NEXT1", "SLOW2"]


async def test_silence_is_waited_for_so_long_and_no_longer(script: Script) -> None:
    await script.name("a:SLOW", "b:Y")
    script.come("Y", "1", None)
    loop = asyncio.get_running_loop()
    loop.call_later(PATIENCE_S / 2, script.come, "SLOW", "1")
    loop.call_later(PATIENCE_S * 1.25, script.come, "SLOW", "2")
    script.start()
    await script.until("SLOW1", "SLOW2", "Y1")


async def test_what_comes_late_comes_as_it_comes(script: Script) -> None:
    await script.name("a:ONE", "b:TWO")
    script.start()
    await eventually(lambda: script.begun == ["ONE", "TWO"])
    script.come("TWO", "1")
    await script.until("TWO1")
    # Its next part is waited for, so the other one's comes after that.
    script.come("ONE", "1", None)
    script.come("TWO", "2", None)
    assert await script.all() == ["TWO1", "TWO2", "ONE1"]


async def test_all_that_spoke_have_a_turn_before_one_of_them_has_the_next(script: Script) -> None:
    await script.name("a:ONE", "b:TWO", "a:THREE")
    script.start()
    await eventually(lambda: script.begun == ["ONE", "TWO", "THREE"])
    await asyncio.sleep(3 * PATIENCE_S)
    for symbol in ("ONE", "TWO", "THREE"):
        script.come(symbol, "1")
    # While the second one is waited for, after the first one was silent for as long as is waited.
    asyncio.get_running_loop().call_later(PATIENCE_S * 1.5, script.come, "ONE", "2", None)
    await script.until("ONE1", "TWO1", "THREE1", "ONE2")
    script.come("TWO", None)
    script.come("THREE", None)
    await script.all()


async def test_so_many_symbols_of_a_provider_are_waited_for_and_no_more(script: Script) -> None:
    names = [f"a:S{number}" for number in range(6)]
    await script.name(*names)
    script.start()
    await eventually(lambda: len(script.begun) == MOST_FAILURES)
    await asyncio.sleep(3 * PATIENCE_S)
    assert script.begun == ["S0", "S1"]
    script.come("S1", "1", None)
    await eventually(lambda: len(script.begun) == MOST_FAILURES + 1)
    await asyncio.sleep(3 * PATIENCE_S)
    assert script.begun == ["S0", "S1", "S2"]
    for number in range(6):
        script.come(f"S{number}", None)
    assert await script.all() == ["S11"]
    assert script.begun == ["S0", "S1", "S2", "S3", "S4", "S5"]


async def test_a_symbol_that_may_not_begin_holds_up_none_of_another_provider(script: Script) -> None:
    await script.name("a:A0", "a:A1", "b:B0", "a:A2", "b:B1")
    script.start()
    await eventually(lambda: script.begun == ["A0", "B0", "A1", "B1"])
    for symbol in ("A0", "B0", "A1", "B1", "A2"):
        script.come(symbol, None)
    assert await script.all() == []


async def test_a_provider_that_failed_has_fewer_waited_for_and_once_given_up_all(script: Script) -> None:
    await script.name("a:S0", "a:S1", "a:S2", "a:S3")
    script.failures.note("a", ProviderUnavailable("down"))
    script.start()
    await eventually(lambda: script.begun == ["S0"])
    await asyncio.sleep(3 * PATIENCE_S)
    assert script.begun == ["S0"]
    # What is stored of the others needs no answer, so all of them begin while one is still waited for.
    script.failures.note("a", ProviderUnavailable("down"))
    script.come("S0", "1")
    await eventually(lambda: script.begun == ["S0", "S1", "S2", "S3"])
    for number in range(4):
        script.come(f"S{number}", None)
    assert await script.all() == ["S01"]


async def test_what_is_found_late_comes_after_the_rest_and_its_error_as_soon_as_it_is_known(script: Script) -> None:
    await script.name("b:LATE", "?NO", late=True)
    await script.name("a:X", "a:SLOW")
    script.come("X", "1", None)
    script.come("LATE", "1", None)
    script.start()
    await script.until("X1")
    script.find("?NO")
    await script.until("X1", "?NO")
    script.find("b:LATE")
    await script.until("X1", "?NO", "LATE1")
    script.come("SLOW", "1", None)
    assert await script.all() == ["X1", "?NO", "LATE1", "SLOW1"]


async def test_what_is_found_late_of_a_silent_provider_waits_like_the_others(script: Script) -> None:
    await script.name("a:ONE", "a:TWO")
    await script.name("a:LATE", late=True)
    script.start()
    await eventually(lambda: script.begun == ["ONE", "TWO"])
    script.find("a:LATE")
    await asyncio.sleep(3 * PATIENCE_S)
    assert script.begun == ["ONE", "TWO"]
    script.come("ONE", None)
    await eventually(lambda: script.begun == ["ONE", "TWO", "LATE"])
    script.come("TWO", None)
    script.come("LATE", None)
    assert await script.all() == []


async def test_no_part_is_asked_for_before_the_one_before_it_was_taken(script: Script) -> None:
    await script.name("a:X")
    script.come("X", "1", "2", None)
    lines = script.read()
    assert await anext(lines) == b"X1"
    for _ in range(10):
        await asyncio.sleep(0)
    assert script.gate("X").qsize() == 2
    assert [line async for line in lines] == [b"X2"]


async def test_others_have_a_turn_of_the_event_loop_between_two_parts(script: Script) -> None:
    await script.name("a:X")
    script.come("X", *map(str, range(50)), None)
    turns, at = 0, []

    async def count() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    counting = asyncio.create_task(count())
    async for _ in script.read():
        at.append(turns)
    counting.cancel()
    assert all(earlier + 2 <= later for earlier, later in pairwise(at))


async def test_who_leaves_leaves_no_symbol_behind(script: Script) -> None:
    await script.name("a:SLOW", "b:X")
    script.come("SLOW", "1")
    script.come("X", "1")
    lines = script.read()
    assert [await anext(lines), await anext(lines)] == [b"SLOW1", b"X1"]
    await lines.aclose()
    assert script.closed == ["SLOW", "X"]


async def test_a_fault_of_one_symbol_ends_all_and_leaves_none_behind(script: Script) -> None:
    async def broken(target: Target) -> AsyncGenerator[bytes, None]:
        yield b"X1"
        raise OSError

    finding = [asyncio.create_task(_given(script.target(name))) for name in ("a:SLOW", "b:X")]
    await asyncio.wait(finding)
    turns = SymbolTurns(
        finding,
        lambda target: broken(target) if target.name == "X" else script._lines_of(target),
        script.failures,
        PATIENCE_S,
    )
    with pytest.raises(OSError, match=r"^$"):
        assert [line async for line in turns.lines()] == []
    assert script.closed == ["SLOW"]


async def _given(target: Target) -> Target | RequestError:
    return target


def test_a_provider_is_given_up_after_failures_in_a_row_or_one_that_says_how_long_to_wait() -> None:
    failures = Failures()
    first, last = ProviderUnavailable("first"), ProviderUnavailable("last")
    failures.note("a", first)
    assert failures.last_of("a") is None
    failures.forget("a")
    failures.note("a", first)
    assert failures.last_of("a") is None
    failures.note("a", last)
    assert failures.last_of("a") is last
    assert failures.last_of("b") is None
    barred = RateLimited("slowly", 60.0)
    failures.note("b", barred)
    assert failures.last_of("b") is barred


@pytest.mark.parametrize("error", [UnknownSymbol("none"), BadAnswer("odd")])
def test_what_is_wrong_with_one_symbol_says_nothing_of_its_provider(error: Any) -> None:
    failures = Failures()
    for _ in range(5):
        failures.note("a", error)
    assert failures.last_of("a") is None
    assert failures.may_ask("a", MOST_FAILURES - 1)
    assert not failures.may_ask("a", MOST_FAILURES)
