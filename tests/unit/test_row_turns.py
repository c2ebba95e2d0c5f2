"""Requests of one client take turns where they would hold too many candles at once."""

import asyncio

import pytest

from relay.history.row_turns import RowTurns


class Requests:
    """Requests that hold candles until they are told to end; `began` are those that had their turn."""

    def __init__(self, most_rows: int) -> None:
        self.turns = RowTurns(most_rows)
        self.began: list[str] = []
        self.ends: dict[str, asyncio.Event] = {}
        self.tasks: dict[str, asyncio.Task[None]] = {}

    def begin(self, name: str, client: str, rows: int) -> None:
        self.ends[name] = asyncio.Event()
        self.tasks[name] = asyncio.create_task(self._hold(name, client, rows))

    async def _hold(self, name: str, client: str, rows: int) -> None:
        async with self.turns.turn(client, rows):
            self.began.append(name)
            await self.ends[name].wait()

    async def end(self, *names: str) -> None:
        for name in names:
            self.ends[name].set()
        await asyncio.gather(*(self.tasks[name] for name in names))
        await asyncio.sleep(0)


async def test_requests_of_a_client_wait_in_their_order_and_those_of_another_do_not() -> None:
    requests = Requests(10)
    for name, client, rows in (("a", "x", 6), ("b", "x", 4), ("c", "x", 9), ("d", "x", 1), ("e", "y", 10)):
        requests.begin(name, client, rows)
    await asyncio.sleep(0)
    assert requests.began == ["a", "b", "e"]
    # The ninth part of the room would do for `d`, but `c` was there before.
    await requests.end("b")
    assert requests.began == ["a", "b", "e"]
    await requests.end("a")
    assert requests.began == ["a", "b", "e", "c", "d"]
    await requests.end("c", "d", "e")
    assert not requests.turns._held
    assert not requests.turns._waiting


async def test_request_for_more_than_there_may_be_has_its_turn_alone() -> None:
    requests = Requests(10)
    requests.begin("a", "x", 1)
    requests.begin("b", "x", 5000)
    requests.begin("c", "x", 1)
    await asyncio.sleep(0)
    assert requests.began == ["a"]
    await requests.end("a")
    assert requests.began == ["a", "b"]
    await requests.end("b")
    assert requests.began == ["a", "b", "c"]
    await requests.end("c")


@pytest.mark.parametrize("is_woken", [False, True])
async def test_who_leaves_while_it_waits_holds_up_nobody(is_woken: bool) -> None:
    requests = Requests(10)
    for name, rows in (("a", 10), ("b", 10), ("c", 10)):
        requests.begin(name, "x", rows)
    await asyncio.sleep(0)
    if is_woken:
        # Its turn comes in the same moment.
        requests.ends["a"].set()
        await asyncio.sleep(0)
    requests.tasks["b"].cancel()
    await asyncio.gather(requests.tasks["b"], return_exceptions=True)
    await requests.end("a")
    assert requests.began == ["a", "c"]
    await requests.end("c")
    assert not requests.turns._held


async def test_all_who_wait_may_leave_at_once() -> None:
    requests = Requests(10)
    for name in "abcde":
        requests.begin(name, "x", 10)
    await asyncio.sleep(0)
    for name in "abcde":
        requests.tasks[name].cancel()
    done = await asyncio.gather(*requests.tasks.values(), return_exceptions=True)
    assert [type(error) for error in done] == [asyncio.CancelledError] * 5
    assert not requests.turns._held
    assert not requests.turns._waiting
