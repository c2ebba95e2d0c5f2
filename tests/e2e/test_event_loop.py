"""A plugin that harms the process: the loop goes on, and the process ends in time all the same."""

import asyncio
import re
import sys
import threading
from asyncio.subprocess import PIPE
from pathlib import Path

import aiohttp
import pytest

from relay.server.event_loop import run, without_stragglers
from tests.support.conditions import LONGEST_WAIT_S
from tests.support.relay_process import CLEAN, serving

HARMS = Path(__file__).parents[1] / "plugins" / "harms.py"


FIX = "; it must be corrected"
REFUSED = r"the plugin of harms called loop\.{}\(\), which is not allowed, in {} \(harms\.py, line \d+\)" + FIX
LEFT = r"the plugin of harms raised {} in the event loop, which continues, in {} \(.*harms\.py, line \d+\)" + FIX

RAISED = r"the plugin of harms raised ValueError in a task or callback, in {} \(.*harms\.py, line \d+\)" + FIX


def called(what: str, where: str = "harm") -> str:
    return REFUSED.format(what, where)


def left(error: str, where: str) -> str:
    return LEFT.format(error, where)


ONCE = {
    "stop": called("stop"),
    "exit": left("SystemExit", "leave"),
    "interrupt": left("KeyboardInterrupt", "leave"),
    "shut": called("shutdown_default_executor"),
    "own_executor": called("set_default_executor"),
    "factory": called("set_task_factory"),
    "handler": called("set_exception_handler"),
    "generators": called("shutdown_asyncgens"),
    "close": called("close"),
    "term": called("add_signal_handler"),
    "raise_soon": RAISED.format("fail"),
    "raise_later": RAISED.format("fail_later"),
    "raise_in_task": RAISED.format("leave"),
}
IN_EVERY_ROUND = {
    "stop_always": called("stop", "stop_always"),
    "exit_always": left("SystemExit", "exit_always"),
    "thread_always": left("SystemExit", "thread_always"),
    "task_always": left("SystemExit", "task_always"),
}


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
@pytest.mark.parametrize("ways", [ONCE, IN_EVERY_ROUND], ids=["once", "in every round"])
async def test_plugin_that_harms_the_loop_is_named_and_the_relay_goes_on(
    tmp_path: Path, ways: dict[str, str], loop: str
) -> None:
    prepare = "" if loop == "uvloop" else "sys.modules['uvloop'] = None"
    env = {"RELAY_HARMS_HOW": ",".join(ways)}
    async with serving(
        tmp_path, "--plugins", str(HARMS), "--database", "relay.db", env=env, prepare=prepare
    ) as running:
        for words in ways.values():
            await running.says(re.compile(words).search, running.err)
        async with aiohttp.ClientSession() as session:
            await assert_it_serves(session, running.url)
            async with session.get(f"{running.url}/api/v1/market-data/status") as answer:
                providers = (await answer.json())["providers"]
        assert next(one["hooks_failed"] for one in providers if one["name"] == "harms") >= len(ways)
        assert await running.stop() == 0
        for words in ways.values():
            assert 1 <= sum(re.search(words, line) is not None for line in running.err) <= 6


async def test_threads_that_a_plugin_takes_are_not_the_relays_own(tmp_path: Path) -> None:
    env = {"RELAY_HARMS_HOW": "executor"}
    async with serving(tmp_path, "--plugins", str(HARMS), "--database", "relay.db", env=env) as running:
        async with aiohttp.ClientSession() as session:
            await wait_for_harm(session, running.url)
            await assert_it_serves(session, running.url)
            await asyncio.sleep(2)
            await assert_it_serves(session, running.url)
        assert await running.stop() == 0


async def test_handler_of_a_signal_that_a_plugin_replaces_is_put_back(tmp_path: Path) -> None:
    async with serving(tmp_path, "--plugins", str(HARMS), env={"RELAY_HARMS_HOW": "signal"}) as running:
        await running.logs("a plugin replaced the handler of SIGTERM, which belongs to the relay")
        assert await running.stop() == 0


async def test_relay_whose_loop_is_blocked_for_good_ends_all_the_same(tmp_path: Path) -> None:
    prepare = (
        "import functools, relay.commands.serve as command; "
        "command.serve = functools.partial(command.serve, end_within_s=0.5)"
    )
    env = {"RELAY_HARMS_HOW": "block"}
    async with serving(tmp_path, "--plugins", str(HARMS), env=env, prepare=prepare) as running:
        (tmp_path / "block").touch()
        await running.logs("blocks the event loop")
        assert await running.stop() == 1
        assert any("did not end within 0.5 s after the signal" in line for line in running.err)


async def assert_it_serves(session: aiohttp.ClientSession, url: str) -> None:
    """It is healthy, stores what it is asked for, and streams."""
    asked = {"symbol": "BTCUSDT", "interval": "1m", "limit": "1000"}
    async with asyncio.timeout(LONGEST_WAIT_S):
        async with session.get(f"{url}/api/v1/market-data/history", params=asked) as answer:
            assert len((await answer.json())["candles"]) == 1000
        async with session.get(f"{url}/readyz") as answer:
            assert answer.status == 200, await answer.text()
        async with session.ws_connect(f"{url}/api/v1/market-data/ws") as socket:
            await socket.send_json({"action": "subscribe", "symbol": "BTCUSDT", "interval": "1s"})
            while (await socket.receive_json())["type"] != "price_update":
                pass


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("threads", r"300 threads of a plugin did not end: Thread-\d+ \(wait\) in wait \(threading\.py"),
        ("executor", r"\d+ threads of a plugin did not end: plugins_\d+ in run \(thread\.py"),
        ("task", r"stays did not end when it was cancelled; the relay ends without it"),
    ],
)
async def test_process_ends_in_time_whatever_a_plugin_leaves_behind(tmp_path: Path, how: str, words: str) -> None:
    async with serving(tmp_path, "--plugins", str(HARMS), env={"RELAY_HARMS_HOW": how}) as running:
        async with aiohttp.ClientSession() as session:
            await wait_for_harm(session, running.url)
        assert await running.stop() == 0
        assert re.search(words, "\n".join(running.err))


@pytest.mark.parametrize("command", ["plugins", "check-config"])
async def test_command_ends_although_a_plugin_starts_threads_at_import(tmp_path: Path, command: str) -> None:
    file = tmp_path / "starts.py"
    file.write_text("import threading\nthreading.Thread(target=threading.Event().wait).start()\n")
    (tmp_path / "relay.toml").write_text(f'plugins = ["{file}"]\n')
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "relay", command), cwd=tmp_path, env=CLEAN, stdout=PIPE, stderr=PIPE
    )
    try:
        async with asyncio.timeout(LONGEST_WAIT_S):
            out, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 1, out


async def wait_for_harm(session: aiohttp.ClientSession, url: str) -> None:
    """Wait until the plugin has listed its instrument."""
    async with asyncio.timeout(LONGEST_WAIT_S):
        while True:
            async with session.get(f"{url}/api/v1/market-data/symbols", params={"asset_class": "demo"}) as answer:
                if await answer.text() != "[]":
                    return
            await asyncio.sleep(0.05)


def test_what_the_work_raises_is_raised_and_its_result_ends_the_loop() -> None:
    async def fail() -> None:
        raise LookupError("nothing")

    async def work() -> None:
        await asyncio.sleep(0)

    run(work())
    with pytest.raises(LookupError, match="nothing"):
        run(fail())


def test_threads_that_end_are_waited_for() -> None:
    ended = threading.Event()

    def work() -> None:
        ended.wait(0.05)
        ended.set()

    with without_stragglers(end_s=30):
        threading.Thread(target=work).start()
    assert ended.is_set()
