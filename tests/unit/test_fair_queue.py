"""Whose call comes next: live streams first, clients in turn, and none gets all of a budget."""

import asyncio
from collections.abc import Sequence

import pytest

from relay.core.errors import RateLimited
from relay.core.fair_queue import FairQueue
from relay.core.model import Budget


class Venue:
    """Makes calls one after the other, as the test lets them end; each costs two units."""

    def __init__(self, most: int = 1, limit: int = 1_000_000, *, reserved: int | None = None) -> None:
        self.now = 0.0
        self.used = 0
        self.limit = limit
        self.reserved = reserved
        self.turns = FairQueue(most, self.budgets, wall=lambda: self.now)
        self.begun: list[str] = []
        self.running: list[asyncio.Event] = []

    def budgets(self) -> Sequence[Budget]:
        return (Budget("weight a minute", self.limit, self.used, 60.0 * (self.now // 60 + 1), self.reserved),)

    async def call(self, name: str, client: str | None) -> None:
        async with self.turns.turn(client):
            self.begun.append(name)
            self.used += 2
            gate = asyncio.Event()
            self.running.append(gate)
            await gate.wait()

    def start(self, name: str, client: str | None) -> asyncio.Task[None]:
        return asyncio.create_task(self.call(name, client))

    async def end_all(self) -> None:
        await settle()
        while self.running:
            self.running.pop(0).set()
            await settle()


async def settle() -> None:
    for _ in range(6):
        await asyncio.sleep(0)


async def test_clients_take_turns_whatever_they_queued() -> None:
    venue = Venue()
    calls = [venue.start(f"a{n}", "a") for n in range(4)]
    await settle()
    calls += [venue.start(f"b{n}", "b") for n in range(2)] + [venue.start("c0", "c")]
    await venue.end_all()
    assert venue.begun == ["a0", "a1", "b0", "c0", "a2", "b1", "a3"]
    await asyncio.gather(*calls)


async def test_live_streams_come_before_all_clients() -> None:
    venue = Venue()
    calls = [venue.start(f"a{n}", "a") for n in range(3)]
    await settle()
    calls += [venue.start(f"live{n}", None) for n in range(3)]
    await venue.end_all()
    assert venue.begun == ["a0", "live0", "live1", "live2", "a1", "a2"]
    await asyncio.gather(*calls)


async def test_no_more_calls_at_once_than_the_provider_takes() -> None:
    venue = Venue(most=2)
    calls = [venue.start(f"a{n}", "a") for n in range(5)]
    await settle()
    assert venue.begun == ["a0", "a1"]
    await venue.end_all()
    await asyncio.gather(*calls)


async def test_a_call_that_a_live_stream_waits_for_as_well_comes_first() -> None:
    venue = Venue()
    calls = [venue.start("a0", "a"), venue.start("a1", "a")]
    turn = venue.turns.turn("b")

    async def shared() -> None:
        async with turn:
            venue.begun.append("shared")

    calls.append(asyncio.create_task(shared()))
    await settle()
    turn.hasten("c")
    turn.hasten(None)
    await settle()
    assert venue.begun == ["a0", "shared"]
    await venue.end_all()
    await asyncio.gather(*calls)


async def test_a_cancelled_call_leaves_its_place_to_the_next() -> None:
    venue = Venue()
    running, waiting, last = (venue.start(name, "a") for name in ("running", "waiting", "last"))
    await settle()
    waiting.cancel()
    running.cancel()
    await settle()
    assert venue.begun == ["running", "last"]
    await venue.end_all()
    await last
    assert waiting.cancelled()


async def test_a_call_cancelled_as_it_was_let_go_holds_no_place() -> None:
    venue = Venue()
    first, second, third = (venue.start(name, "a") for name in ("first", "second", "third"))
    await settle()
    venue.running.pop(0).set()
    first.add_done_callback(lambda _: second.cancel())
    await settle()
    await venue.end_all()
    await third
    assert "third" in venue.begun


async def test_a_call_cancelled_as_another_ends_takes_no_place() -> None:
    venue = Venue()
    running, waiting, last = (venue.start(name, "a") for name in ("running", "waiting", "last"))
    await settle()
    # The one that ends looks for the next before the one that waits knows that it is cancelled.
    running.cancel()
    waiting.cancel()
    await venue.end_all()
    assert venue.begun == ["running", "last"]
    await last
    assert running.cancelled()
    assert waiting.cancelled()


async def spend(venue: Venue, client: str | None, most: int = 100) -> int:
    """Make calls until there are no more for a client; return how many."""
    for count in range(most):
        call = venue.start("", client)
        await venue.end_all()
        try:
            await call
        except RateLimited:
            return count
    return most


async def test_one_client_cannot_use_a_whole_budget() -> None:
    venue = Venue(limit=40, reserved=0)
    assert await spend(venue, "greedy") == 15
    assert await spend(venue, "modest", 3) == 3
    with pytest.raises(RateLimited, match="one client may use at most 75% of the weight a minute") as caught:
        await venue.call("", "greedy")
    assert caught.value.retry_after == 60.0
    venue.now, venue.used = 61.0, 0
    assert await spend(venue, "greedy", 3) == 3


async def test_the_rest_of_a_budget_is_for_live_streams() -> None:
    venue = Venue(limit=40)
    assert await spend(venue, "a", 10) == 10
    assert await spend(venue, "b") == 6
    with pytest.raises(RateLimited, match="the rest of the weight a minute is reserved for live streams"):
        await venue.call("", "c")
    assert await spend(venue, None, 4) == 4
    venue.used = 40  # as during a ban
    with pytest.raises(RateLimited, match=r"^the weight a minute is used up$"):
        await venue.call("", "c")


async def test_calls_that_say_what_they_weigh_count_so_much_for_their_client() -> None:
    venue = Venue(limit=100)
    assert await spend(venue, "alice", 1) == 1
    for _ in range(3):
        async with venue.turns.turn("alice") as turn:
            venue.used += 20
            turn.weight = 20
    # 62 of 75 are used by four calls; what the next one costs is not known before, and the smallest one cost two.
    for _ in range(6):
        async with venue.turns.turn("alice") as turn:
            turn.weight = 2
    with pytest.raises(RateLimited, match="one client may use at most 75%"):
        await venue.turns.acquire(venue.turns.turn("alice"))
    async with venue.turns.turn("bob") as turn:
        turn.weight = 20


async def test_a_ban_is_no_price_of_a_call() -> None:
    venue = Venue(limit=100)
    banned = venue.start("banned", "a")
    await settle()
    # The venue refuses it, and says that all of its budget is used until the ban is over.
    venue.used = 100
    await venue.end_all()
    await banned
    venue.used = 2
    assert await spend(venue, "a", 10) == 10


async def test_a_client_has_one_call_whatever_it_may_cost() -> None:
    venue = Venue(limit=100)
    first = venue.start("first", "a")
    await settle()
    # Somebody else used most of it meanwhile, which looks like the price of this call.
    venue.used = 79
    await venue.end_all()
    await first
    venue.now, venue.used = 60.0, 0
    assert await spend(venue, "a", 10) == 10


async def test_a_call_that_says_what_it_weighs_counts_no_more_than_that() -> None:
    venue = Venue(limit=100)
    other = venue.start("other", "a")
    await settle()
    venue.used = 30
    await venue.end_all()
    await other
    for _ in range(10):
        async with venue.turns.turn("b") as turn:
            turn.weight = 2


async def test_a_call_that_ends_after_a_budget_is_back_counts_in_the_new_period() -> None:
    venue = Venue(limit=100, reserved=0)
    async with venue.turns.turn("alice") as turn:
        venue.now, venue.used = 60.0, 30
        turn.weight = 30
    async with venue.turns.turn("alice") as turn:
        venue.used += 45
        turn.weight = 45
    with pytest.raises(RateLimited, match="one client may use at most 75%"):
        await venue.turns.acquire(venue.turns.turn("alice"))


async def test_a_call_that_another_client_waits_for_as_well_comes_in_its_turn() -> None:
    venue = Venue()
    turn = venue.turns.turn("a")

    async def shared() -> None:
        async with turn:
            venue.begun.append("shared")
            venue.running.append(asyncio.Event())
            await venue.running[-1].wait()

    calls = [venue.start(f"a{n}", "a") for n in range(4)]
    await settle()
    calls.append(asyncio.create_task(shared()))
    await settle()
    turn.hasten("b")
    turn.hasten("b")
    calls.append(venue.start("b0", "b"))
    await venue.end_all()
    assert venue.begun == ["a0", "a1", "shared", "a2", "b0", "a3"]
    await asyncio.gather(*calls)


async def test_a_call_is_made_for_whoever_has_a_share_left_of_those_who_wait_for_it() -> None:
    venue = Venue(limit=8)
    await _call(venue, "a0")
    await _call(venue, "a1")
    await _call(venue, "a2")
    busy = venue.start("c0", None)
    await settle()
    turn = venue.turns.turn("a")

    async def shared() -> None:
        async with turn:
            venue.begun.append("shared")

    waiting = asyncio.create_task(shared())
    await settle()
    turn.hasten("b")
    venue.used = 2
    await venue.end_all()
    await asyncio.gather(busy, waiting)
    assert (venue.begun[-1], turn.client) == ("shared", "b")


async def _call(venue: Venue, name: str) -> None:
    call = venue.start(name, "a")
    await venue.end_all()
    await call
