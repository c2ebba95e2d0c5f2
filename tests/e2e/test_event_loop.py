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
from tests.support.relay_process import CLEAN, serving

HARMS = Path(__file__).parents[1] / "plugins" / "harms.py"


STOPPED = r"a plugin ended the event loop, which goes on.*relay_instruments \(harms\.py, line \d+\)"
LEFT = r"a plugin ended the event loop, which goes on.*harms\.py.*{}: leaves a task"


@pytest.mark.parametrize(
    ("how", "words", "loop"),
    [
        ("stop", STOPPED, "uvloop"),
        ("exit", LEFT.format("SystemExit"), "uvloop"),
        ("interrupt", LEFT.format("KeyboardInterrupt"), "uvloop"),
        ("stop", STOPPED, "asyncio"),
        ("exit", LEFT.format("SystemExit"), "asyncio"),
    ],
)
async def test_loop_that_a_plugin_ends_goes_on(tmp_path: Path, how: str, words: str, loop: str) -> None:
    prepare = "" if loop == "uvloop" else "sys.modules['uvloop'] = None"
    env = {"RELAY_HARMS_HOW": how}
    async with serving(tmp_path, "--plugins", str(HARMS), env=env, prepare=prepare) as running:
        await running.says(lambda line: re.search(words, line), running.err)
        async with aiohttp.ClientSession() as session, session.get(f"{running.url}/healthz") as answer:
            assert answer.status == 200
        async with asyncio.timeout(10):
            assert await running.stop() == 0


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("threads", r"300 threads of a plugin's did not end: Thread-\d+ \(wait\) in wait \(threading\.py"),
        ("executor", r"\d+ threads of a plugin's did not end: relay_\d+ in run \(thread\.py"),
        ("task", r"stays does not end when it is cancelled; it is left"),
    ],
)
async def test_process_ends_in_time_whatever_a_plugin_leaves_behind(tmp_path: Path, how: str, words: str) -> None:
    async with serving(tmp_path, "--plugins", str(HARMS), env={"RELAY_HARMS_HOW": how}) as running:
        async with aiohttp.ClientSession() as session:
            await wait_for_harm(session, running.url)
        async with asyncio.timeout(10):
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
        async with asyncio.timeout(60):
            out, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 1, out


async def wait_for_harm(session: aiohttp.ClientSession, url: str) -> None:
    """Wait until the plugin has listed its instrument."""
    async with asyncio.timeout(20):
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
