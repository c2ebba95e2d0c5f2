"""The clock of tests with short limits: a pause of the process uses up little of a time that a loop waits."""

import asyncio
import time

from tests.support.process_pauses import PauselessClock


def test_a_timer_waits_through_a_pause_of_the_process() -> None:
    async def wait() -> None:
        loop = asyncio.get_running_loop()
        came: list[str] = []
        async with PauselessClock():
            loop.call_later(0.3, came.append, "limit")
            loop.call_later(0.01, time.sleep, 0.5)
            loop.call_later(0.2, came.append, "who keeps to it")
            before = loop.time()
            await asyncio.sleep(0.25)
            assert came == ["who keeps to it"]
            assert loop.time() - before < 0.5
            await asyncio.sleep(0.1)
        assert came == ["who keeps to it", "limit"]

    # In a loop that waits as the clock goes, not in that of the unit tests.
    asyncio.run(wait())


def test_without_pauses_it_goes_as_the_loop_does() -> None:
    moments = iter([0.0, 0.0, 0.05, 0.1, 9.0, 9.05])
    clock = PauselessClock(lambda: next(moments))
    told = [round(clock.time(), 3) for _ in range(5)]
    assert told == [0.0, 0.05, 0.1, 0.16, 0.21]


async def test_the_loop_has_its_own_time_again_afterwards() -> None:
    loop = asyncio.get_running_loop()
    async with PauselessClock():
        pass
    assert "time" not in vars(loop)
