"""What is done in one turn of the event loop, counted: thousands who come at once keep nobody waiting."""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any, cast

from relay.core.clock import Clock
from relay.core.model import Candle, PriceUpdate, StreamKey
from relay.protocol import frames
from relay.server.run import COLLECTOR_THRESHOLDS
from relay.streams.fanout import FanoutLimits
from relay.streams.groups import GatherLimits
from relay.streams.hub import Hub
from relay.streams.outbox import HIGH_WATER, Outbox
from relay.streams.slow_consumers import SlowConsumerLimits
from relay.streams.subscriptions import Stream, Subscriber
from relay.web.ws.leaving import Leaving
from relay.web.ws.route import ClientPings, Clients
from tests.support.feeder import Feeder
from tests.support.pipe import Pipe
from tests.support.raw_socket import parsed
from tests.support.virtual_time import VirtualLoop


class Crowd:
    """A hub with many subscribers."""

    def __init__(self, writes_a_turn: int = 1_000, subscriptions_a_turn: int = 2_000, flush_s: float = 0.02) -> None:
        self.limits = FanoutLimits(writes_a_turn, GatherLimits(0, subscriptions_a_turn))
        self.hub = Hub(Clock(), flush_s=flush_s, fanout=self.limits)
        self.pipes: list[Pipe] = []
        self.subscribers: list[Subscriber] = []
        self._number = 0

    def stream(self, name: str) -> Stream:
        return self.hub.stream("p", StreamKey(name, "1m"), name, Feeder(self.hub))

    def come(self, count: int, *names: str) -> None:
        """Let so many subscribers of streams come."""
        for _ in range(count):
            self.pipes.append(Pipe())
            subscriber = self.hub.join(Outbox(self.pipes[-1]), self._on_slow)
            self.subscribers.append(subscriber)
            for name in names:
                self.hub.subscribe(subscriber, self.stream(name))

    def _on_slow(self, _: Subscriber, reason: str) -> None:
        raise AssertionError(reason)

    def publish(self, name: str) -> None:
        self._number += 1
        stream = self.stream(name)
        candle = Candle(60 * self._number, 1.0, 1.0, 1.0, 1.0, 0.0)
        self.hub.tell(stream, [PriceUpdate(stream.key, candle, is_closed=True)])

    async def gathered(self, groups: int) -> None:
        while len(self.hub.fanout.groups) != groups:  # noqa: ASYNC110 - no event tells
            await asyncio.sleep(0)

    def times(self, pipe: Pipe) -> list[tuple[str, int]]:
        return [(message["symbol"], message["candle"]["time"] // 60) for message in parsed(pipe.read)]


async def work_of_turns(done: Callable[[], int], total: int) -> list[int]:
    """Return how much was done in each turn until it is so much in all; each takes a tenth of a millisecond."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)
    begun, counts = done(), [0]
    while done() - begun < total:
        before = done()
        # While somebody is ready, this loop's time stands still.
        loop.now += 0.0001
        await asyncio.sleep(0)
        counts.append(done() - before)
    return counts


async def test_a_flush_writes_so_many_sockets_in_a_turn_whoever_shares_a_group() -> None:
    crowd = Crowd(writes_a_turn=100)
    crowd.come(450, "AAA")
    for number in range(150):
        crowd.come(1, "AAA", f"S{number}")
    await crowd.gathered(151)
    crowd.publish("AAA")
    counts = await work_of_turns(lambda: crowd.hub.fanout.writes_out, 600)
    assert max(counts) == 100
    assert len([count for count in counts if count]) == 6
    assert all(crowd.times(pipe) == [("AAA", 1)] for pipe in crowd.pipes)


async def test_updates_amid_a_long_flush_reach_everybody_once_and_in_order() -> None:
    crowd = Crowd(writes_a_turn=10, flush_s=0)
    crowd.come(60, "AAA", "BBB")
    crowd.come(20, "BBB")
    await crowd.gathered(2)
    for _ in range(6):
        crowd.publish("AAA")
        crowd.publish("BBB")
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    # Some leave, change what they have, or are sent something in the middle of a flush.
    for subscriber in crowd.subscribers[:5]:
        crowd.hub.send(
            subscriber, frames.price_update("X", "1m", PriceUpdate(StreamKey("X", "1m"), Candle(0, 1, 1, 1, 1)), 1)
        )
    for subscriber in crowd.subscribers[5:10]:
        crowd.hub.leave(subscriber)
    for subscriber in crowd.subscribers[10:15]:
        crowd.hub.unsubscribe(subscriber, crowd.stream("AAA"))
    for subscriber in crowd.subscribers[15:20]:
        crowd.hub.subscribe(subscriber, crowd.stream("CCC"))
    begun = [("AAA", 1), ("BBB", 2), ("AAA", 3), ("BBB", 4), ("AAA", 5), ("BBB", 6)]
    begun += [("AAA", 7), ("BBB", 8), ("AAA", 9), ("BBB", 10), ("AAA", 11), ("BBB", 12)]
    for pipe in crowd.pipes[:20]:
        assert [one for one in crowd.times(pipe) if one[0] != "X"] == begun
    crowd.publish("BBB")
    while not all(("BBB", 13) in crowd.times(pipe) for pipe in crowd.pipes[10:]):  # noqa: ASYNC110 - as above
        await asyncio.sleep(0)
    whole = [*begun, ("BBB", 13)]
    assert [crowd.times(pipe) for pipe in crowd.pipes[:5]] == [[*begun, ("X", 0), ("BBB", 13)]] * 5
    assert [crowd.times(pipe) for pipe in crowd.pipes[5:10]] == [begun] * 5
    assert [crowd.times(pipe) for pipe in crowd.pipes[10:60]] == [whole] * 50
    assert [crowd.times(pipe) for pipe in crowd.pipes[60:]] == [[one for one in whole if one[0] == "BBB"]] * 20


async def test_those_who_come_are_gathered_so_many_in_a_turn_and_served_meanwhile() -> None:
    crowd = Crowd(subscriptions_a_turn=100)
    crowd.come(400, "AAA", "BBB", "CCC")
    counts = []
    while len(crowd.hub.fanout.groups) > 1:
        before = len(crowd.hub.fanout.groups)
        await asyncio.sleep(0)
        counts.append(before - len(crowd.hub.fanout.groups))
        if len(counts) == 5:
            crowd.publish("BBB")
            crowd.hub.fanout.flush()
    # Of 100 in a turn each takes four: itself and three subscriptions.
    assert max(counts) == 25
    assert all(crowd.times(pipe) == [("BBB", 1)] for pipe in crowd.pipes)


async def test_who_joins_a_group_for_which_frames_wait_is_sent_nothing_twice_and_misses_nothing() -> None:
    crowd = Crowd(flush_s=60)
    crowd.come(3, "AAA")
    await crowd.gathered(1)
    crowd.publish("AAA")
    crowd.hub.fanout.flush()
    crowd.publish("AAA")
    crowd.come(1, "AAA")
    crowd.publish("AAA")
    await crowd.gathered(1)
    crowd.publish("AAA")
    crowd.hub.fanout.flush()
    assert [crowd.times(pipe) for pipe in crowd.pipes[:3]] == [[("AAA", 1), ("AAA", 2), ("AAA", 3), ("AAA", 4)]] * 3
    assert crowd.times(crowd.pipes[3]) == [("AAA", 3), ("AAA", 4)]


async def test_an_answer_to_one_client_writes_nobody_else() -> None:
    crowd = Crowd(flush_s=60)
    crowd.come(5, "AAA")
    await crowd.gathered(1)
    crowd.publish("AAA")
    crowd.hub.fanout.flush()
    crowd.publish("AAA")
    writes = crowd.hub.fanout.writes_out
    crowd.hub.send(crowd.subscribers[0], frames.frame(b"{}"))
    crowd.hub.send(crowd.subscribers[0], frames.frame(b"{}"))
    assert crowd.hub.fanout.writes_out - writes == 2
    assert parsed(crowd.pipes[0].read)[-2:] == [{}, {}]
    assert len(parsed(crowd.pipes[0].read)) == 4
    assert len(crowd.hub.fanout.groups) == 1
    crowd.hub.fanout.flush()
    assert len(parsed(crowd.pipes[0].read)) == 4
    assert [crowd.times(pipe) for pipe in crowd.pipes[1:]] == [[("AAA", 1), ("AAA", 2)]] * 4


async def test_slow_consumers_are_looked_at_so_many_in_a_turn_and_all_in_each_round() -> None:
    looked_at: list[int] = []

    class Stalled(Pipe):
        def get_write_buffer_size(self) -> int:
            looked_at.append(id(self))
            return super().get_write_buffer_size()

    hub = Hub(Clock(), flush_s=0, limits=SlowConsumerLimits(drain_every_s=0.001, drains_a_turn=50))
    stream = hub.stream("p", StreamKey("AAA", "1m"), "AAA", Feeder(hub))
    pipes = [Stalled() for _ in range(170)]
    for pipe in pipes:
        hub.subscribe(hub.join(Outbox(pipe), lambda *_: None), stream)
        pipe.is_stalled = True
        pipe.write(bytes(HIGH_WATER + 1))
    hub.announce(stream, frames.frame(b"{}"))
    hub.fanout.flush()
    assert hub.fanout.lagging == 170
    looked_at.clear()
    counts = await work_of_turns(lambda: len(looked_at), 3 * 170)
    assert max(counts) == 50
    assert looked_at[:170] == looked_at[170:340] == [id(pipe) for pipe in pipes]


async def test_the_heartbeat_looks_at_so_many_clients_in_a_turn_and_at_none_who_left() -> None:
    beaten: list[int] = []

    class Beaten:
        def __init__(self, number: int) -> None:
            self.number = number

        def beat(self, *_: float) -> None:
            beaten.append(self.number)

    clients = Clients(cast(Any, None), "", ClientPings(interval_s=0.004, beats_a_turn=100))
    everybody = cast(dict[Any, None], clients.connections)
    everybody.update(dict.fromkeys(map(Beaten, range(1050))))
    clients.start()
    counts = await work_of_turns(lambda: len(beaten), 150)
    everybody.pop(next(one for one in everybody if one.number == 777))
    counts += await work_of_turns(lambda: len(beaten), 899)
    assert max(counts) == 100
    assert beaten[:1049] == [number for number in range(1050) if number != 777]
    heart = clients._heart
    assert heart is not None
    heart.cancel()
    await asyncio.gather(heart, return_exceptions=True)


async def test_connections_that_end_at_once_are_let_go_so_many_in_a_turn_and_in_order() -> None:
    leaving, gone = Leaving(100), list[int]()
    for number in range(1050):
        leaving.do(partial(gone.append, number))
    # The first need not wait.
    assert gone == [*range(100)]
    counts = await work_of_turns(lambda: len(gone), 950)
    assert max(counts) == 100
    assert gone == [*range(1050)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    leaving.do(partial(gone.append, 1050))
    assert gone[-1] == 1050


async def test_a_failure_at_the_end_of_one_connection_keeps_no_other_from_ending() -> None:
    leaving, gone, failures = Leaving(2), list[int](), list[dict[str, Any]]()
    asyncio.get_running_loop().set_exception_handler(lambda _, context: failures.append(context))

    def end(number: int) -> None:
        gone.append(number)
        if number == 4:
            raise ZeroDivisionError

    for number in range(9):
        leaving.do(partial(end, number))
    await work_of_turns(lambda: len(gone), 7)
    assert gone == [*range(9)]
    assert len(failures) == 1


def test_the_collector_walks_so_many_objects_at_once_while_clients_come() -> None:
    young, middle, _ = COLLECTOR_THRESHOLDS
    assert young * (middle + 1) <= 60_000
