"""The time of a replay: it stands, runs, is held by what is not told yet, and does not hurry after a pause."""

import asyncio
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from providers.replay.clock import MOST_BEHIND_S, ReplayClock
from tests.support.virtual_time import run

START = 1_700_000_000


async def test_it_stands_until_it_begins_and_runs_so_many_times_as_fast() -> None:
    clock = ReplayClock(START, START + 10_000, 60)
    await asyncio.sleep(5)
    assert clock.now() == START
    assert clock.wait_s(START + 60) == math.inf
    clock.begin()
    await asyncio.sleep(2)
    assert clock.now() == START + 120
    clock.begin()
    assert clock.now() == START + 120
    assert clock.wait_s(START + 180) == 1


async def test_it_ends_with_the_recording() -> None:
    clock = ReplayClock(START, START + 100, 60)
    clock.begin()
    await asyncio.sleep(5)
    assert clock.now() == START + 100


async def test_it_does_not_pass_what_a_feed_has_not_told() -> None:
    clock = ReplayClock(START, START + 10_000, 1)
    one, other = object(), object()
    clock.begin()
    clock.hold(one, START + 10, is_open=False)
    clock.hold(other, START + 30, is_open=False)
    await asyncio.sleep(20)
    assert START + 9.9 < clock.now() < START + 10
    clock.hold(one, START + 10, is_open=True)
    assert clock.now() == START + 10
    clock.hold(one, START + 40, is_open=True)
    assert clock.now() == START + 20
    await asyncio.sleep(20)
    assert START + 29.9 < clock.now() < START + 30
    clock.release(other)
    clock.release(other)
    assert clock.now() == START + 40
    await asyncio.sleep(5)
    assert clock.now() == START + 40


async def test_feeds_tell_in_turn_and_closes_come_first() -> None:
    clock = ReplayClock(START, START + 10_000, 1)
    told: list[tuple[float, bool]] = []

    async def feed(name: str, *events: tuple[float, bool]) -> None:
        await asyncio.sleep("abc".index(name))
        for moment, is_open in events:
            clock.hold(name, moment, is_open=is_open)
            while not clock.is_first(name):
                await clock.moved()
            told.append((moment, is_open))
            await asyncio.sleep(len(told) % 3)
        clock.release(name)

    clock.begin()
    for name in "abc":
        clock.hold(name, START, is_open=True)
    later = (START + 1, True), (START + 2, False), (START + 2, True), (START + 7, False)
    async with asyncio.timeout(100):
        await asyncio.gather(feed("a", *later), feed("b", (START, True), *later[1:]), feed("c", (START + 7, True)))
    assert told == sorted(told)
    assert len(told) == 9


async def test_who_waits_for_others_can_be_cancelled() -> None:
    clock = ReplayClock(START, START + 10_000, 1)
    waiting = asyncio.create_task(clock.moved())
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    clock.release("a")
    assert waiting.cancelled()


async def test_after_a_pause_of_the_machine_it_goes_on_from_where_it_was() -> None:
    clock, feed = ReplayClock(START, START + 100_000, 60), object()
    clock.begin()
    clock.hold(feed, START + 60, is_open=True)
    await asyncio.sleep(1 + 600)
    clock.reach(START + 60)
    clock.hold(feed, START + 120, is_open=True)
    assert clock.now() == START + 60
    assert clock.wait_s(START + 120) == 1


async def test_it_catches_up_with_a_moment_of_work() -> None:
    clock = ReplayClock(START, START + 100_000, 60)
    clock.begin()
    await asyncio.sleep(1 + MOST_BEHIND_S / 2)
    clock.reach(START + 60)
    assert clock.now() == START + 60 + 30 * MOST_BEHIND_S


async def test_a_moment_that_timers_cannot_wait_for_has_come() -> None:
    clock = ReplayClock(START, START + 100_000, 1_000_000)
    clock.begin()
    assert clock.wait_s(START + 5) == 0
    clock.reach(START + 5)
    assert clock.now() == START + 5
    assert clock.wait_s(START + 20) == pytest.approx(15e-6)


@given(
    speed=st.floats(1, 100_000),
    steps=st.lists(st.tuples(st.floats(0, 5), st.integers(0, 2), st.floats(0, 500), st.booleans()), max_size=30),
)
def test_it_never_goes_back_and_passes_no_hold(speed: float, steps: list[tuple[float, int, float, bool]]) -> None:
    async def play() -> None:
        clock = ReplayClock(START, START + 1000, speed)
        clock.begin()
        holds: dict[int, float] = {}
        last = clock.now()
        for pause_s, feed, ahead_s, is_open in steps:
            await asyncio.sleep(pause_s)
            if ahead_s < 1:
                clock.release(feed)
                holds.pop(feed, None)
            else:
                holds[feed] = last + ahead_s
                clock.hold(feed, holds[feed], is_open=is_open)
            clock.reach(last)
            now = clock.now()
            assert last <= now <= START + 1000
            assert now <= max(last, min(holds.values(), default=math.inf))
            last = now

    run(lambda _: play())
