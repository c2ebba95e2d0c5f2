"""Time jumps only where nothing is left to do: neither sockets nor threads are overtaken."""

import asyncio
import threading
import time
from pathlib import Path

import aiosqlite
import pytest
from aiohttp import web

from tests.support.loopback_server import app_of, loopback_server
from tests.support.own_time import OwnTimeLoop
from tests.support.sped_up_time import STEP_S, Time, run


def test_a_day_passes_at_once() -> None:
    now = Time(1_764_028_800)

    async def main() -> list[float]:
        loop = asyncio.get_running_loop()
        began = loop.time()
        woken: list[float] = []

        async def sleep(seconds: float) -> None:
            await asyncio.sleep(seconds)
            woken.append(loop.time() - began)

        await asyncio.gather(sleep(86_400), sleep(60), sleep(3600))
        return woken

    assert [round(at / STEP_S) * STEP_S for at in run(now, main())] == [60, 3600, 86_400]
    assert 86_400 <= now.wall() - 1_764_028_800 <= 86_400 + STEP_S
    assert 86_400 <= now.monotonic() - 1000 <= 86_400 + STEP_S


def test_no_time_passes_while_a_thread_works() -> None:
    now = Time(0)

    async def main() -> None:
        working = threading.Event()
        timer = asyncio.get_running_loop().call_later(1.0, working.set)
        assert not await asyncio.to_thread(working.wait, 0.05)
        timer.cancel()

    run(now, main())
    assert now.passed_s == 0


def test_no_time_passes_while_the_database_works(tmp_path: Path) -> None:
    now = Time(0)

    async def main() -> object:
        asyncio.get_running_loop().call_later(3600, lambda: None)
        async with aiosqlite.connect(tmp_path / "a.db") as database:
            count = (
                "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n LIMIT 300000) SELECT count(*) FROM n"
            )
            async with database.execute(count) as rows:
                return await rows.fetchone()

    assert run(now, main()) == (300_000,)
    assert now.passed_s == 0


def test_a_request_over_a_socket_takes_no_time_but_that_of_its_server() -> None:
    now = Time(0)

    async def main() -> str:
        from aiohttp import ClientSession

        async def answer(_: web.Request) -> web.Response:
            await asyncio.sleep(120)
            return web.Response(text="late")

        async with (
            loopback_server(app_of(answer)) as host,
            ClientSession() as session,
            session.get(f"http://{host}/") as response,
        ):
            return await response.text()

    assert run(now, main()) == "late"
    assert 120 <= now.passed_s < 300


def test_the_process_has_the_machines_time_again_when_the_loop_of_a_test_is_closed() -> None:
    real = time.time, time.monotonic
    loop = OwnTimeLoop()
    try:
        began = time.time(), time.monotonic()
        loop.run_until_complete(asyncio.sleep(86_400))
        assert time.time() - began[0] >= 86_400
        assert time.monotonic() - began[1] >= 86_400
    finally:
        loop.close()
    assert (time.time, time.monotonic) == real


async def test_a_test_with_sockets_waits_for_nothing() -> None:
    began = time.perf_counter()
    await asyncio.sleep(86_400)
    assert time.perf_counter() - began < 3600


async def test_no_program_is_raced_by_a_time_that_jumps() -> None:
    with pytest.raises(RuntimeError, match="mark the test with `real_time`"):
        await asyncio.create_subprocess_exec("true")
