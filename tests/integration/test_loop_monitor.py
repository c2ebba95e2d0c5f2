"""A blocked loop is noticed from outside and laid at the door of the plugin that blocks it."""

import asyncio
import itertools
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from providers.binance import BinanceProvider
from providers.twelve_data import TwelveDataProvider
from relay.app import PROVIDERS
from relay.plugins.discovery import import_named
from relay.telemetry.loop_monitor import Blocks, CodePlace, LoopMonitor, names_of, owners, place_of, waits_for_processor
from tests.conftest import StartRelay
from tests.integration.test_plugins import path_of
from tests.support.conditions import eventually

# Threads watch the loop.
pytestmark = pytest.mark.real_time


def line_of(text: str, after: str = "") -> int:
    """Return the number of the first line of the plugin that holds a text, below a line that holds another."""
    lines = Path(path_of("blocks")).read_text().splitlines()
    first = next(number for number, line in enumerate(lines) if after in line)
    return next(number for number, line in enumerate(lines, 1) if number > first and text in line)


async def test_plugin_that_blocks_is_named_in_log_and_status_and_the_others_go_on(
    relay_with: StartRelay, caplog: pytest.LogCaptureFixture
) -> None:
    running = await relay_with(plugins=(path_of("blocks"),), tables={"blocks": {"where": "decode"}})
    client = await running.connect()
    await client.subscribe("blocks:X@1m", "BTCUSDT@1m")
    await client.seen("price_update", symbol="X")
    await eventually(lambda: running.app[PROVIDERS]["blocks"].blocks.longest_s > 1)
    await client.update(symbol="BTCUSDT")
    status = (await running.get("status")).body
    told = {provider["name"]: provider["blocked_loop"] for provider in status["providers"]}
    line = line_of("time.sleep", after="def decode(where)")
    assert told["blocks"]["count"] >= 1
    assert 1.0 < told["blocks"]["longest_s"] < 10
    assert told["blocks"]["last"]["place"] == f"decode (blocks.py, line {line})"
    assert told["binance"] == {"count": 0, "longest_s": 0.0, "last": None}
    lines = [record.getMessage() for record in caplog.records if record.name == "relay.telemetry.loop_monitor"]
    assert lines == [
        f"provider blocks blocks the event loop for more than 1 s, in decode (blocks.py, line {line}), and "
        "everything else waits; its plugin needs asyncio.to_thread there"
    ]


def place_during(call: Callable[[Callable[[], None]], Any], owner_of: Callable[[str], str | None]) -> CodePlace | None:
    """Run a function that calls back once; return the place of the stack of that moment."""
    found: list[CodePlace | None] = []
    call(lambda: found.append(place_of(sys._getframe(1), owner_of)))
    return found[0]


def nobody(file: str) -> None:
    return None


def test_library_that_a_plugin_calls_is_the_plugins_doing(monkeypatch: pytest.MonkeyPatch) -> None:
    module: Any = import_named(path_of("blocks"))

    def call(back: Callable[[], None]) -> None:
        monkeypatch.setattr(module, "time", SimpleNamespace(sleep=lambda _: back()))
        module.decode("library")

    place = place_during(call, owners({"blocks": module}))
    assert place == CodePlace("blocks", "decode", "blocks.py", line_of("time.sleep", after="def decode(self"))


def test_frames_of_nobody_are_the_relays_own() -> None:
    place = place_during(lambda back: back(), nobody)
    assert place is not None
    assert (place.owner, place.file) == (None, "test_loop_monitor.py")


def test_library_function_as_a_hook_is_the_doing_of_the_provider_it_is_bound_to() -> None:
    hosted: dict[str, Any] = {"__name__": "relay.plugins.hook_calls"}
    source = "class HookCalls:\n    name = 'made'\n    def ask(self, hook):\n        return hook()\n"
    exec(compile(source, "hook_calls.py", "exec"), hosted)
    place = place_during(lambda back: hosted["HookCalls"]().ask(back), nobody)
    assert place is not None
    assert place.owner == "made"


def test_waiting_for_events_is_not_being_blocked() -> None:
    names: dict[str, Any] = {}
    exec(compile("def select(back):\n    back()\n", "/usr/lib/python3/selectors.py", "exec"), names)
    assert place_during(names["select"], nobody) is None


def test_files_belong_to_their_module_and_to_the_only_plugin_of_their_package(tmp_path: Path) -> None:
    module = import_named(path_of("clock"))
    folder = Path(__file__).parents[2] / "providers"
    owner_of = owners({"clock": module, "binance": BinanceProvider()})
    assert owner_of(path_of("clock")) == "clock"
    assert owner_of(str(folder / "elsewhere.py")) == "binance"
    assert owner_of(path_of("tally")) is None
    shared = owners({"binance": BinanceProvider(), "twelve_data": TwelveDataProvider()})
    assert shared(str(folder / "elsewhere.py")) is None
    assert shared(str(folder / "binance" / "codec.py")) == "binance"
    assert shared(str(folder / "twelve_data" / "polling.py")) == "twelve_data"


def test_code_of_several_instances_is_of_all_of_them_unless_one_was_asked(tmp_path: Path) -> None:
    module: Any = import_named(path_of("clock"))
    folder = Path(__file__).parents[2] / "providers" / "twelve_data"
    owner_of = owners({"first": module, "second": module, "a": TwelveDataProvider(), "b": TwelveDataProvider()})
    assert (owner_of(path_of("clock")), owner_of(str(folder / "polling.py"))) == ("first and second", "a and b")
    assert names_of(owner_of(path_of("clock"))) == ["first", "second"]
    assert names_of(None) == []

    # A task that a plugin started says no more; a call of a hook says for whom it is.
    plugin: dict[str, Any] = {}
    exec(compile("def work(back):\n    back()\n", path_of("clock"), "exec"), plugin)
    hosted: dict[str, Any] = {"__name__": "relay.plugins.hook_calls"}
    source = "class HookCalls:\n    name = 'second'\n    def ask(self, hook, back):\n        return hook(back)\n"
    exec(compile(source, "hook_calls.py", "exec"), hosted)
    places = [
        place_during(plugin["work"], owner_of),
        place_during(lambda back: hosted["HookCalls"]().ask(plugin["work"], back), owner_of),
    ]
    assert [place.owner for place in places if place is not None] == ["first and second", "second"]


@pytest.mark.parametrize(("wakes", "count"), [(2, 0), (6, 1)])
def test_time_in_which_the_process_stood_still_blames_nobody(wakes: int, count: int) -> None:
    blocks = Blocks()
    watch: Any = LoopMonitor(lambda file: "test" if file == __file__ else None, {"test": blocks})
    woken = iter([False] * wakes + [True])
    watch._ended = SimpleNamespace(wait=lambda _: next(woken))
    watch._thread_id = threading.get_ident()
    watch._waited_s = lambda: 0.0
    watch._watch()
    assert blocks.count == count


@pytest.mark.parametrize(("waits_s", "count"), [(0.0, 1), (0.2, 0)])
async def test_time_in_which_other_programs_had_the_processor_blames_nobody(waits_s: float, count: int) -> None:
    blocks = Blocks()
    waited_s = itertools.count(50.0, waits_s)
    watch: Any = LoopMonitor(
        lambda file: "test" if file == __file__ else None,
        {"test": blocks},
        processor_waits=lambda thread: lambda: next(waited_s),
    )
    woken = iter([False] * 12 + [True])
    watch._ended = SimpleNamespace(wait=lambda _: next(woken), set=lambda: None)
    async with watch:
        watch._thread.join()
        watch._beat()
    assert blocks.count == count
    # Twelve ticks and a beat of a quarter of a second; of each tick it waited for so long.
    assert watch.longest_blocked_s == pytest.approx(12 * (0.25 - waits_s) - 0.25)


def test_a_thread_that_sleeps_waits_for_no_processor_and_one_that_nobody_knows_neither() -> None:
    waited_s = waits_for_processor(threading.get_native_id())
    before = waited_s()
    assert 0.0 <= before <= waited_s()
    assert waits_for_processor(2**31 - 1)() == 0.0


async def test_blocked_time_is_counted_by_ticks_and_cpu_and_not_by_the_clock() -> None:
    monitor: Any = LoopMonitor(beat_s=0.05, tick_s=0.01)
    async with monitor:
        # The thread ticks no more: all of the process stands still, and the clock goes on.
        monitor._ended.set()
        await asyncio.to_thread(monitor._thread.join)
        time.sleep(0.3)  # noqa: ASYNC251
        await eventually(lambda: monitor.longest_recent_s > 0.2)
        assert monitor.longest_blocked_s < 0.1
        monitor._ticked_s += 1.0
        await eventually(lambda: monitor.longest_blocked_s > 0.9)


async def test_loop_that_beats_is_left_alone_and_the_thread_ends(caplog: pytest.LogCaptureFixture) -> None:
    blocks = Blocks()
    owner_of = {__file__: "test"}.get
    async with LoopMonitor(owner_of, {"test": blocks}, beat_s=0.01, tick_s=0.01, blocked_s=0.2) as watch:
        await asyncio.sleep(0.1)
        before = blocks.count
        for _ in range(2):
            deadline = time.monotonic() + 20
            while not watch._is_noticed and time.monotonic() < deadline:
                time.sleep(0.01)  # noqa: ASYNC251 - that is what is noticed
            await eventually(lambda: not watch._is_noticed)
    assert before == 0
    assert blocks.count == 2
    assert blocks.last is not None
    assert blocks.last.function == "test_loop_that_beats_is_left_alone_and_the_thread_ends"
    assert len(caplog.records) == 1
    assert not watch._thread.is_alive()
