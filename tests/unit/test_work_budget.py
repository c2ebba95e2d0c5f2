"""Work of clients in rounds of the event loop: so much in each, in the order in which it was asked for."""

import asyncio

from relay.web.work_budget import WorkBudget


async def test_clients_take_turns_and_together_do_so_much_in_a_round() -> None:
    work_budget, done = WorkBudget(3), []

    async def work(name: str) -> None:
        for _ in range(3):
            await work_budget.acquire()
            done.append(name)

    tasks = [asyncio.create_task(work(name)) for name in "abcdefg"]
    counts = []
    while not all(task.done() for task in tasks):
        before = len(done)
        await asyncio.sleep(0)
        counts.append(len(done) - before)
    assert max(counts) == 3
    assert sorted(done) == sorted("abcdefg" * 3)
    # Nobody has a third turn while another waits for its first.
    assert set(done[:14]) == set("abcdefg")


async def test_nobody_waits_while_there_is_little_to_do() -> None:
    work_budget = WorkBudget(3)
    for _ in range(3):
        assert await first_step(work_budget)
    assert not await first_step(work_budget)


async def test_what_may_not_wait_begins_at_once_or_not_at_all() -> None:
    work_budget = WorkBudget(3)
    assert [work_budget.try_acquire() for _ in range(5)] == [True] * 3 + [False] * 2
    waiting = asyncio.create_task(work_budget.acquire())
    await asyncio.sleep(0)
    # In the next round those who wait come first.
    await waiting
    assert [work_budget.try_acquire() for _ in range(3)] == [True, True, False]


async def first_step(work_budget: WorkBudget) -> bool:
    """Say whether a piece of work begins without a wait."""
    step = work_budget.acquire()
    try:
        step.send(None)
    except StopIteration:
        return True
    step.close()
    return False


async def test_who_is_gone_takes_nobodys_turn() -> None:
    work_budget = WorkBudget(1)
    await work_budget.acquire()
    gone = [asyncio.create_task(work_budget.acquire()) for _ in range(5)]
    last = asyncio.create_task(work_budget.acquire())
    await asyncio.sleep(0)
    for task in gone:
        task.cancel()
    async with asyncio.timeout(30):
        await last
    await asyncio.gather(*gone, return_exceptions=True)
    assert gone[-1].cancelled()
