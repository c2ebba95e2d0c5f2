"""What waits to be read: in order, of an open candle only the newest, and full until all is read."""

import asyncio

from relay.client.inbox import Inbox
from relay.client.messages import Gap, Lost, Message, Update
from relay.core.model import Candle, StreamKey

BTC, ETH = StreamKey("BTCUSDT", "1m"), StreamKey("ETHUSDT", "1m")
LOST = Lost("gone", None, 1.0, {})


def update(
    key: StreamKey, time: int, close: float = 1.0, *, is_closed: bool = False, is_revised: bool = False
) -> Update:
    return Update(key, Candle(time, 1, 9, 0, close), is_closed, False, is_revised, None, None, {})


def filled(*messages: Message, most: int = 100) -> Inbox:
    inbox = Inbox(most, 1000)
    for message in messages:
        inbox.put(message)
    return inbox


def taken(inbox: Inbox) -> list[Message]:
    return [inbox.pop() for _ in range(len(inbox))]


def test_open_candle_is_replaced_where_it_stands() -> None:
    inbox = filled(update(BTC, 60), update(ETH, 60), update(BTC, 60, 5.0), update(BTC, 120, 6.0))
    assert taken(inbox) == [update(BTC, 120, 6.0), update(ETH, 60)]


def test_nothing_is_replaced_across_another_message_of_its_stream_or_of_the_connection() -> None:
    messages: list[Message] = [
        update(BTC, 60),
        update(BTC, 60, is_closed=True),
        update(BTC, 120),
        Gap(BTC, 0, 60, "", {}),
        update(BTC, 120, 2.0),
        LOST,
        update(BTC, 120, 3.0),
        update(BTC, 60, 4.0, is_revised=True),
        update(BTC, 120, 5.0),
    ]
    assert taken(filled(*messages)) == messages


def test_what_was_read_is_not_replaced() -> None:
    inbox = filled(update(BTC, 60))
    inbox.pop()
    inbox.put(update(BTC, 60, 2.0))
    assert taken(inbox) == [update(BTC, 60, 2.0)]


def test_it_is_full_until_all_is_read() -> None:
    inbox = filled(LOST, LOST, most=2)
    found = [inbox.is_full]
    inbox.put(LOST)
    for _ in range(3):
        found.append(inbox.is_full)
        inbox.pop()
    assert [*found, inbox.is_full] == [False, True, True, True, False]


def test_it_is_full_beyond_a_size_too_and_what_is_replaced_or_left_counts_no_more() -> None:
    inbox = filled()
    for close in range(100):
        inbox.put(update(BTC, 60, close), 600)
    found = [inbox.is_full]
    for size in (400, 401):
        inbox.put(update(ETH, 60), size)
        found.append(inbox.is_full)
    inbox.forget({ETH})
    found.append(inbox.is_full)
    taken(inbox)
    inbox.put(update(BTC, 60), 1000)
    assert [*found, inbox.is_full] == [False, False, True, True, False]


def test_streams_that_are_left_are_forgotten() -> None:
    inbox = filled(update(BTC, 60), LOST, update(ETH, 60), update(BTC, 60), most=2)
    inbox.forget({BTC})
    assert taken(inbox) == [LOST, update(ETH, 60)]
    inbox = filled(update(BTC, 60), update(BTC, 60, is_closed=True), most=1)
    inbox.forget({BTC})
    assert not inbox.is_full


async def test_every_reader_wakes_up_for_a_change_and_the_emptied_for_the_end() -> None:
    inbox = filled()
    waiting = [asyncio.create_task(inbox.changed()) for _ in range(3)]
    await asyncio.sleep(0)
    inbox.put(LOST)
    async with asyncio.timeout(30):
        await asyncio.gather(*waiting)
    emptied = asyncio.create_task(inbox.emptied())
    await asyncio.sleep(0)
    inbox.pop()
    async with asyncio.timeout(30):
        await emptied
