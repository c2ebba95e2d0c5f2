"""When waiting frames are written: soon after a quiet moment, once in a window, and a burst in one piece."""

import asyncio
import itertools
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from relay.core.intake import Intake
from relay.streams.flush_schedule import FlushSchedule
from tests.support.virtual_time import VirtualLoop, run

WINDOW_S = 0.02


class Writes:
    """Notes frames, and what each write carried: when it began, and of how many frames; times are in milliseconds."""

    def __init__(self, loop: VirtualLoop, flush_s: float = WINDOW_S, sockets: int = 1000) -> None:
        self.loop = loop
        self.made: list[tuple[float, int]] = []
        self.intake = Intake()
        self.schedule = FlushSchedule(flush_s, self._write, lambda: sockets, self.intake)
        self.waiting = 0

    def note(self, count: int = 1) -> None:
        for _ in range(count):
            self.waiting += 1
            self.schedule.note()

    def _write(self) -> None:
        self.schedule.begin()
        self.made.append((round(self.loop.now * 1000, 1), self.waiting))
        self.waiting = 0
        self.schedule.finish(is_more=False)

    async def spread(self, count: int = 20, over_s: float = WINDOW_S) -> list[tuple[float, int]]:
        """Let a burst come in so many pieces, wait until it is quiet; return what was written, and when."""
        started = self.loop.now
        for _ in range(count):
            self.note()
            await asyncio.sleep(over_s / count)
        await asyncio.sleep(1)
        made, self.made = self.made, []
        return [(round(at - started * 1000, 1), size) for at, size in made]


class Upstream:
    """A connection of updates, each of ten bytes. What comes is read at once, or when it is let go: turns later.

    `reads` has when it was read, and how many updates that brought.
    """

    def __init__(self, writes: Writes, turns: int = 3) -> None:
        self._writes = writes
        self._turns = turns
        self._unread = 0
        self._is_held = False
        self.reads: list[tuple[float, int]] = []
        writes.intake.add(self)

    def send(self, count: int = 1) -> None:
        self._unread += count
        if not self._is_held:
            self._go_on(self._turns)

    def hold_back(self, is_held: bool, /) -> None:
        self._is_held = is_held
        if self._unread and not is_held:
            self._go_on(self._turns)

    def unread_bytes(self) -> int:
        return 10 * self._unread

    def _go_on(self, left: int) -> None:
        if left:
            asyncio.get_running_loop().call_soon(self._go_on, left - 1)
        elif self._unread and not self._is_held:
            count, self._unread = self._unread, 0
            self.reads.append((round(self._writes.loop.now * 1000, 1), count))
            self._writes.note(count)

    async def spread(self, count: int = 20, over_s: float = WINDOW_S) -> None:
        for _ in range(count):
            self.send()
            await asyncio.sleep(over_s / count)
        await asyncio.sleep(1)


def played(play: Callable[[Writes], Coroutine[Any, Any, None]], flush_s: float = WINDOW_S, sockets: int = 1000) -> None:
    run(lambda loop: play(Writes(loop, flush_s, sockets)))


def test_the_first_update_after_a_quiet_moment_is_written_at_once() -> None:
    async def play(writes: Writes) -> None:
        for moment in range(5):
            writes.note()
            await asyncio.sleep(1)
            assert writes.made[moment] == (moment * 1000, 1)

    played(play)


def test_a_burst_that_is_read_in_several_turns_is_one_write() -> None:
    async def play(writes: Writes) -> None:
        for _ in range(6):
            writes.note(10)
            await asyncio.sleep(0)
        await asyncio.sleep(1)
        assert writes.made == [(0, 60)]

    played(play)


def test_what_comes_in_every_turn_is_written_after_a_window() -> None:
    async def play(writes: Writes) -> None:
        for _ in range(100):
            writes.note()
            writes.loop.now += 0.001
            await asyncio.sleep(0)
        moments = [0.0, *(at for at, _ in writes.made)]
        assert len(moments) == 5
        assert all(20 <= later - earlier <= 22 for earlier, later in itertools.pairwise(moments))

    played(play)


def test_what_follows_waits_for_the_end_of_the_window() -> None:
    async def play(writes: Writes) -> None:
        for _ in range(50):
            writes.note()
            await asyncio.sleep(0.0041)
        assert [at for at, _ in writes.made] == pytest.approx([0, 20, 40, 60, 80, 100, 120, 140, 160, 180, 200])
        assert sum(count for _, count in writes.made) in (49, 50)

    played(play)


def test_bursts_in_pieces_are_waited_for_once_they_were_seen_to_come_so() -> None:
    async def play(writes: Writes) -> None:
        for _ in range(2):
            first, *others = await writes.spread()
            assert list(first) == [0, 1]
            assert sum(size for _, size in others) == 19
        for _ in range(5):
            ((at, size),) = await writes.spread()
            assert size == 20
            assert WINDOW_S * 1000 <= at <= 1.2 * WINDOW_S * 1000

    played(play)


def test_a_burst_that_is_waited_for_may_be_short_and_may_not_be_long() -> None:
    async def play(writes: Writes) -> None:
        for _ in range(3):
            await writes.spread()
        ((at, size),) = await writes.spread(4, 0.004)
        assert size == 4
        assert at <= 4 + 2.5 * 2
        made = await writes.spread(100, 0.1)
        assert made[0][0] <= 1.2 * WINDOW_S * 1000
        assert sum(size for _, size in made) == 100
        assert max(later - earlier for (earlier, _), (later, _) in itertools.pairwise(made)) <= WINDOW_S * 1000 + 1

    played(play)


def test_two_quiet_updates_end_the_waiting_and_each_costs_an_eighth_of_a_window() -> None:
    async def play(writes: Writes) -> None:
        for _ in range(4):
            await writes.spread()
        waits = []
        for _ in range(4):
            ((at, _),) = await writes.spread(1)
            waits.append(at)
        assert waits == [2.5, 2.5, 0, 0]

    played(play)


def test_a_burst_that_falters_at_its_begin_is_a_burst_all_the_same() -> None:
    async def play(writes: Writes) -> None:
        for _ in range(3):
            await writes.spread()
        for _ in range(5):
            writes.note()
            await asyncio.sleep(0.004)
            rest = await writes.spread(10, 0.01)
            assert len(rest) == 2
            # The first update was waited with for an eighth of a window: 1.5 ms before the others began to come.
            assert list(rest[0]) == [-1.5, 1]

    played(play)


def test_where_few_sockets_are_written_nothing_is_waited_for() -> None:
    async def play(writes: Writes) -> None:
        for _ in range(6):
            assert (await writes.spread())[0] == (0, 1)

    played(play, sockets=99)


def test_bursts_in_one_piece_are_never_waited_for() -> None:
    async def play(writes: Writes) -> None:
        for _ in range(6):
            writes.note(50)
            await asyncio.sleep(0.5)
        assert writes.made == [(moment * 500, 50) for moment in range(6)]

    played(play)


def test_no_window_writes_after_each_turn() -> None:
    async def play(writes: Writes) -> None:
        for moment in range(5):
            writes.note()
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            assert len(writes.made) == moment + 1

    played(play, flush_s=0)


def test_what_comes_while_a_long_write_goes_on_is_planned_when_it_is_done() -> None:
    async def play(writes: Writes) -> None:
        schedule = writes.schedule
        schedule.begin()
        writes.note(3)
        await asyncio.sleep(1)
        assert not writes.made
        assert schedule.finish(is_more=True) == 1
        await asyncio.sleep(0.019)
        assert not writes.made
        await asyncio.sleep(0.002)
        assert writes.made == [(1020, 3)]

    played(play)


def test_after_its_end_nothing_is_written() -> None:
    async def play(writes: Writes) -> None:
        writes.note()
        writes.schedule.close()
        writes.note()
        await asyncio.sleep(1)
        assert not writes.made

    played(play)


# -- what is read meanwhile ------------------------------------------------------------------------


def test_what_could_not_be_written_yet_is_read_in_one_go_when_it_can() -> None:
    async def play(writes: Writes) -> None:
        upstream = Upstream(writes)
        await upstream.spread()
        # The first is written, the second begins to wait, and the others come with the write.
        assert upstream.reads == [(0, 1), (1, 1), (20, 18)]
        assert writes.made == [(0, 1), (20, 20 - 1)]

    played(play, sockets=1)


def test_a_burst_that_is_waited_for_is_read_in_one_go_when_it_is_over() -> None:
    async def play(writes: Writes) -> None:
        upstream = Upstream(writes)
        for _ in range(3):
            await upstream.spread()
        for _ in range(3):
            upstream.reads.clear()
            writes.made.clear()
            began = writes.loop.now * 1000
            await upstream.spread()
            (first, one), (last, others) = upstream.reads
            assert first == pytest.approx(began, abs=0.1)
            assert (one, others) == (1, 19)
            assert WINDOW_S * 1000 <= last - began <= 1.2 * WINDOW_S * 1000
            assert writes.made == [(last, 20)]

    played(play)


def test_a_quiet_stream_is_never_held_back() -> None:
    async def play(writes: Writes) -> None:
        upstream = Upstream(writes)
        for number in range(5):
            upstream.send()
            await asyncio.sleep(0.05)
            assert upstream.reads[number:] == writes.made[number:] == [(number * 50, 1)]

    played(play)


def test_reading_does_not_keep_what_waits_from_being_written() -> None:
    async def play(writes: Writes) -> None:
        upstream = Upstream(writes)
        upstream.send()
        await asyncio.sleep(0.001)
        upstream.send()
        await asyncio.sleep(0.001)
        for _ in range(40):
            # In each turn something comes, and a turn takes a millisecond.
            upstream.send()
            writes.loop.now += 0.001
            await asyncio.sleep(0)
        assert [at for at, _ in writes.made[:2]] == [0, pytest.approx(24, abs=2)]

    played(play)


@pytest.mark.parametrize("turns", range(6))
def test_it_is_seen_that_something_is_on_its_way_however_long_that_takes(turns: int) -> None:
    async def play(writes: Writes) -> None:
        upstream = Upstream(writes, turns)
        for _ in range(4):
            writes.made.clear()
            await upstream.spread(5, 0.005)
            assert len(writes.made) <= 2
            assert sum(size for _, size in writes.made) == 5

    played(play)


def test_nobody_is_held_back_after_a_write_or_at_the_end() -> None:
    async def play(writes: Writes) -> None:
        upstream = Upstream(writes)
        for end in (writes.schedule.begin, writes.schedule.close):
            upstream.send()
            await asyncio.sleep(0.001)
            upstream.send()
            await asyncio.sleep(0.001)
            upstream.send()
            await asyncio.sleep(0.001)
            assert upstream.unread_bytes() == 10
            end()
            await asyncio.sleep(0.001)
            assert not upstream.unread_bytes()
            writes.schedule.finish(is_more=False)
            await asyncio.sleep(1)

    played(play)


def test_who_comes_while_the_others_are_held_is_held_and_who_is_gone_is_left_alone() -> None:
    class Tap:
        def __init__(self) -> None:
            self.said: list[bool] = []

        def hold_back(self, is_held: bool, /) -> None:
            self.said.append(is_held)

        def unread_bytes(self) -> int:
            return 7

    intake, first, second = Intake(), Tap(), Tap()
    assert not intake.release()
    intake.add(first)
    intake.hold()
    intake.hold()
    intake.add(second)
    assert intake.unread_bytes() == 14
    intake.remove(first)
    intake.remove(first)
    assert intake.release()
    assert not intake.release()
    assert first.said == [True]
    assert second.said == [True, False]
