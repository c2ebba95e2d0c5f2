"""Calls of providers for the past: when a second one is not made."""

import asyncio

from relay.core.model import Candle
from relay.core.spans import Span
from tests.unit.test_history import KEY, Bench, FakeProvider, bench_of, finals, minute


async def test_a_call_that_ends_while_the_store_is_read_is_not_made_again() -> None:
    provider = FakeProvider([minute(n) for n in range(1000)], minute(600) + 30)
    provider.gate = asyncio.Event()
    async with bench_of(provider, Bench) as bench:
        stored: list[Candle] = list(finals(*range(100, 110)))
        await bench.store.add("fake", KEY, stored, Span(minute(100), minute(110)))
        # What is added from here on waits in memory, and nobody waits for it.
        bench.store._database.problems.note("write", "the disk is full")
        first = asyncio.create_task(bench.ask(end=minute(109), limit=20))
        await provider.entered.wait()
        async with bench.store._database.lock:
            second = asyncio.create_task(bench.ask(end=minute(109), limit=20))
            await asyncio.sleep(0)  # it knows what is stored, and cannot read it
            provider.gate.set()
            await asyncio.gather(*bench.history.calls.tasks())
        assert (await first).candles == finals(*range(90, 110))
        assert (await second).candles == finals(*range(90, 110))
        assert len(provider.calls) == 1
