"""The subscription table: consistent whatever the order of events, and nothing is left when everybody has gone."""

import asyncio
from typing import Any, NamedTuple

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from relay.core.clock import Clock
from relay.core.model import Candle, CandleExtras, ExtendedCandle, PriceUpdate, StreamKey
from relay.protocol import frames
from relay.protocol.client_requests import SubscribeOptions
from relay.streams.fanout import FanoutLimits
from relay.streams.groups import GatherLimits
from relay.streams.hub import Hub
from relay.streams.outbox import HIGH_WATER, Outbox
from relay.streams.slow_consumers import SlowConsumerLimits
from relay.streams.subscriptions import Stream, Subscriber
from tests.conftest import StartRelay
from tests.support.conditions import eventually
from tests.support.feeder import Feeder
from tests.support.pipe import Pipe
from tests.support.raw_socket import parsed
from tests.support.running_relay import Running
from tests.support.sandbox import Sandbox

NAMES = ("AAA", "BBB", "CCC")
OPTIONS = (
    SubscribeOptions(),
    SubscribeOptions(closed_only=True),
    SubscribeOptions(throttle_ms=60_000),
    SubscribeOptions(throttle_ms=1),
    SubscribeOptions(extended=True),
)
UNHURRIED = (SubscribeOptions(), SubscribeOptions(throttle_ms=1), SubscribeOptions(extended=True))


FILLER = frames.frame(b'{"type":"filler","x":"' + b"x" * (HIGH_WATER + 1) + b'"}')


def stall(pipe: Pipe) -> None:
    pipe.is_stalled = True
    pipe.write(FILLER)


class Follower(NamedTuple):
    """One client of the model: what it should have, and which closed candles it is owed of each stream."""

    subscriber: Subscriber
    pipe: Pipe
    options: dict[str, SubscribeOptions]
    owed: list[tuple[str, int]]
    newest: dict[str, int]


class Table:
    """The hub beside a model of it."""

    def __init__(self, flush_s: float = 0) -> None:
        # So little is done in one turn that a flush, and the gathering of groups, are interrupted all the time.
        fanout = FanoutLimits(writes_a_turn=2, gather=GatherLimits(after_s=0, subscriptions_a_turn=3))
        self.hub = Hub(Clock(), flush_s=flush_s, limits=SlowConsumerLimits(drain_every_s=0.0005), fanout=fanout)
        self.feeder = Feeder(self.hub)
        self.followers: list[Follower] = []
        self.time = 0

    def stream(self, name: str) -> Stream:
        return self.hub.stream("p", StreamKey(name, "1m"), name, self.feeder)

    def join(self) -> None:
        pipe = Pipe()
        subscriber = self.hub.join(Outbox(pipe), self._on_slow)
        self.followers.append(Follower(subscriber, pipe, {}, [], {}))

    def _on_slow(self, subscriber: Subscriber, reason: str) -> None:
        raise AssertionError(f"nobody is slow here: {reason}")

    def leave(self, follower: Follower) -> None:
        self.hub.leave(follower.subscriber)
        self.hub.leave(follower.subscriber)
        self.followers.remove(follower)

    def subscribe(self, follower: Follower, name: str, options: SubscribeOptions) -> None:
        is_new = self.hub.subscribe(follower.subscriber, self.stream(name), options)
        assert is_new == (name not in follower.options)
        follower.options[name] = options
        follower.newest.pop(name, None)

    def unsubscribe(self, follower: Follower, name: str) -> None:
        stream = self.hub.streams.get(("p", StreamKey(name, "1m")))
        had = stream is not None and self.hub.unsubscribe(follower.subscriber, stream)
        assert had == (follower.options.pop(name, None) is not None)

    def publish(self, name: str, is_closed: bool) -> None:
        stream = self.hub.streams.get(("p", StreamKey(name, "1m")))
        if stream is None:
            return
        self.time += 60
        key = StreamKey(name, "1m")
        self.hub.tell(stream, [PriceUpdate(key, Candle(self.time, 1, 1, 1, 1), is_closed=is_closed)])
        for follower in self.followers:
            options = follower.options.get(name)
            if options is not None and is_closed:
                follower.owed.append((name, self.time))
            if options in UNHURRIED or (options is not None and is_closed):
                follower.newest[name] = stream.seq

    def check(self) -> None:
        """Both lookups say the same as the model, and each group holds exactly who has its subscriptions."""
        hub = self.hub
        assert set(hub.subscribers) == {follower.subscriber for follower in self.followers}
        for follower in self.followers:
            subscriptions = follower.subscriber.subscriptions
            assert {stream.name: channel.options for stream, channel in subscriptions.items()} == follower.options
            for stream, channel in subscriptions.items():
                assert hub.streams[stream.provider, stream.key] is stream
                assert channel in stream.channels
        for stream in hub.streams.values():
            subscribed = [one.subscriber for one in self.followers if stream in one.subscriber.subscriptions]
            assert stream.subscriber_count == len(subscribed)
            for channel in stream.channels:
                assert channel.begins
                assert all(group in hub.fanout.groups for group in channel.groups)
                assert all(stream in subscriber.subscriptions for subscriber in channel.slow_consumers)
        for group in hub.fanout.groups:
            assert group.members
            for subscriber in group.members:
                assert subscriber.group is group
                channels = set(subscriber.subscriptions.values())
                assert channels == {
                    one for stream in hub.streams.values() for one in stream.channels if group in one.groups
                }
                assert group.channels in (None, channels)
                assert group.channels is not None or len(group.members) == 1
        assert self.feeder.carried == {stream for stream in hub.streams.values() if stream.subscriber_count}


async def settle() -> None:
    for _ in range(4):
        await asyncio.sleep(0)


OPERATIONS = st.one_of(
    st.tuples(st.just("join")),
    st.tuples(st.just("leave"), st.integers(0, 9)),
    st.tuples(st.just("subscribe"), st.integers(0, 9), st.sampled_from(NAMES), st.sampled_from(OPTIONS)),
    st.tuples(st.just("subscribe"), st.integers(0, 9), st.sampled_from(NAMES), st.sampled_from(OPTIONS)),
    st.tuples(st.just("unsubscribe"), st.integers(0, 9), st.sampled_from(NAMES)),
    st.tuples(st.just("publish"), st.sampled_from(NAMES), st.booleans()),
    st.tuples(st.just("publish"), st.sampled_from(NAMES), st.booleans()),
    st.tuples(st.just("stall"), st.integers(0, 9)),
    st.tuples(st.just("go on"), st.integers(0, 9)),
    st.tuples(st.just("turn")),
)


OWNERS = ("Fanout.", "FlushSchedule.", "Groups.", "SlowConsumers.", "Channel.")


def timers() -> list[str]:
    """Return what the loop has still to call of the hub and its parts."""
    waiting = [repr(timer) for timer in getattr(asyncio.get_running_loop(), "_scheduled", []) if not timer.cancelled()]
    return [timer for timer in waiting if any(owner in timer for owner in OWNERS)]


async def play(operations: list[tuple[Any, ...]]) -> None:
    table = Table()
    for _ in range(3):
        table.join()
    for kind, *rest in operations:
        if kind == "join":
            table.join()
        elif kind == "publish":
            table.publish(*rest)
        elif kind == "turn":
            await settle()
        elif table.followers:
            follower = table.followers[rest[0] % len(table.followers)]
            if kind == "leave":
                table.leave(follower)
            elif kind == "subscribe":
                table.subscribe(follower, *rest[1:])
            elif kind == "unsubscribe":
                table.unsubscribe(follower, *rest[1:])
            elif kind == "stall":
                stall(follower.pipe)
            else:
                follower.pipe.go_on()
        table.check()
    for follower in table.followers:
        follower.pipe.go_on()
    async with asyncio.timeout(30):
        while table.hub.fanout.lagging or any(map(misses, table.followers)):  # noqa: ASYNC110  the hub's timers do it
            await asyncio.sleep(0.001)
    await settle()
    for follower in table.followers:
        check_delivery(follower)
    for follower in list(table.followers):
        table.leave(follower)
    table.check()
    await settle()
    assert not table.hub.streams
    assert not table.hub.subscribers
    assert not table.hub.fanout.groups
    assert not table.feeder.carried
    assert table.hub.fanout.lagging == 0
    table.hub.close()
    assert not timers()


def updates_of(follower: Follower) -> list[dict[str, Any]]:
    return [message for message in parsed(follower.pipe.read) if message["type"] == "price_update"]


def misses(follower: Follower) -> bool:
    """Say whether the newest update of some stream is still on its way."""
    seen = {(message["symbol"], message["seq"]) for message in updates_of(follower)}
    return any((name, seq) not in seen for name, seq in follower.newest.items() if name in follower.options)


def check_delivery(follower: Follower) -> None:
    """Every closed candle arrived once and in order, and no update of a stream came after a later one."""
    updates = updates_of(follower)
    closed = [(message["symbol"], message["candle"]["time"]) for message in updates if message["is_closed"]]
    assert [pair for pair in closed if pair in follower.owed] == [pair for pair in follower.owed if pair in closed]
    assert closed == follower.owed
    for name in NAMES:
        seqs = [message["seq"] for message in updates if message["symbol"] == name]
        assert seqs == sorted(set(seqs)), name


@example(
    [
        ("subscribe", 0, "AAA", SubscribeOptions()),
        ("subscribe", 1, "AAA", SubscribeOptions(throttle_ms=60_000)),
        ("publish", "AAA", True),
        # Joins those for whom the closed candle still waits, and has had it.
        ("subscribe", 0, "AAA", SubscribeOptions(throttle_ms=60_000)),
        ("publish", "AAA", False),
    ]
)
@settings(max_examples=300)
@given(st.lists(OPERATIONS, max_size=60))
def test_table_stays_consistent_and_loses_nothing(operations: list[tuple[Any, ...]]) -> None:
    asyncio.run(play(operations))


class Gone(Pipe):
    """A connection that is closed already, as uvloop says it."""

    def write(self, data: bytes) -> None:
        raise RuntimeError("unable to perform operation; the handler is closed")


async def test_connection_that_has_just_gone_keeps_nothing_from_the_others() -> None:
    hub = Hub(Clock(), flush_s=0)
    stream = hub.stream("p", StreamKey("AAA", "1m"), "AAA", Feeder(hub))
    pipes: list[Pipe] = [Pipe(), Gone(), Pipe()]
    for pipe in pipes:
        hub.subscribe(hub.join(Outbox(pipe), lambda *_: None), stream)
    hub.publish(stream, PriceUpdate(stream.key, Candle(60, 1.0, 1.0, 1.0, 1.0, 0.0), is_closed=False))
    hub.fanout.flush()
    assert [len(parsed(pipe.read)) for pipe in pipes] == [1, 0, 1]


def extended(time: int, trades: int | None, close: float = 1.0) -> Candle:
    return ExtendedCandle(time, 1.0, 9.0, 0.5, close, 1.0, quote_volume=2.0, trades=trades)


async def test_one_stream_is_told_in_both_forms_and_without_extended_as_ever() -> None:
    said: dict[bool, bytes] = {}
    for is_shared in (False, True):
        hub = Hub(Clock(), flush_s=0)
        stream = hub.stream("p", StreamKey("AAA", "1m"), "AAA", Feeder(hub))
        plain, full, closed_only = Pipe(), Pipe(), Pipe()
        hub.subscribe(hub.join(Outbox(plain), lambda *_: None), stream)
        if is_shared:
            hub.subscribe(hub.join(Outbox(full), lambda *_: None), stream, SubscribeOptions(extended=True))
            options = SubscribeOptions(closed_only=True, extended=True)
            hub.subscribe(hub.join(Outbox(closed_only), lambda *_: None), stream, options)
        for update in (
            PriceUpdate(stream.key, extended(60, 3)),
            PriceUpdate(stream.key, extended(60, 4), is_closed=True),
            PriceUpdate(stream.key, Candle(120, 1.0, 1.0, 1.0, 1.0, 0.0)),
        ):
            hub.publish(stream, update)
        hub.fanout.flush()
        said[is_shared] = bytes(plain.read)
    assert said[True] == said[False]
    assert [list(message["candle"]) for message in parsed(plain.read)] == [list(Candle._fields)] * 3
    assert [message["candle"]["trades"] for message in parsed(full.read)] == [3, 4, None]
    assert [message["candle"]["quote_volume"] for message in parsed(full.read)] == [2.0, 2.0, None]
    assert [message["candle"]["trades"] for message in parsed(closed_only.read)] == [4]
    bare = {name: None for name in CandleExtras._fields[:4]}
    for one, other in zip(parsed(plain.read), parsed(full.read), strict=True):
        assert other["candle"].keys() - one["candle"].keys() == bare.keys()
        assert {**other, "candle": one["candle"]} == one


async def test_what_only_extended_candles_show_is_revised_for_those_who_get_them() -> None:
    hub = Hub(Clock(), flush_s=0)
    stream = hub.stream("p", StreamKey("AAA", "1m"), "AAA", Feeder(hub))
    plain, full = Pipe(), Pipe()
    hub.subscribe(hub.join(Outbox(plain), lambda *_: None), stream)
    hub.subscribe(hub.join(Outbox(full), lambda *_: None), stream, SubscribeOptions(extended=True))
    for trades, close in ((3, 1.0), (4, 1.0), (5, 2.0)):
        hub.publish(stream, PriceUpdate(stream.key, extended(60, trades, close), is_closed=True))
    hub.fanout.flush()
    revisions = [(message["candle"]["trades"], message.get("revised")) for message in parsed(full.read)]
    assert revisions == [(3, None), (4, True), (5, True)]
    closes = [(message["candle"]["close"], message.get("revised")) for message in parsed(plain.read)]
    assert closes == [(1.0, None), (2.0, True)]


@pytest.mark.parametrize("is_closed", [False, True])
async def test_who_comes_later_gets_the_last_candle_in_its_form(is_closed: bool) -> None:
    hub = Hub(Clock(), flush_s=0)
    stream = hub.stream("p", StreamKey("AAA", "1m"), "AAA", Feeder(hub))
    assert stream.last_frame_for(SubscribeOptions(extended=True)) is None
    hub.publish(stream, PriceUpdate(stream.key, extended(60, 3), is_closed=is_closed, ts_event_ms=5))
    plain, full = (stream.last_frame_for(SubscribeOptions(extended=one)) for one in (False, True))
    assert plain is not None
    assert full is not None
    (one,), (other,) = parsed(plain), parsed(full)
    assert other["candle"]["trades"] == 3
    assert {**other, "candle": one["candle"]} == one
    later = stream.last_frame_for(SubscribeOptions(closed_only=True, extended=True))
    assert (later == full) if is_closed else (later is None)


async def test_subscriber_that_caught_up_is_served_with_the_others_again() -> None:
    table = Table()
    for _ in range(2):
        table.join()
        table.subscribe(table.followers[-1], "AAA", SubscribeOptions())
    follower = table.followers[0]
    stall(follower.pipe)
    table.publish("AAA", is_closed=True)
    table.hub.fanout.flush()
    assert table.hub.fanout.lagging == 1
    follower.pipe.go_on()
    await eventually(lambda: not table.hub.fanout.lagging)
    await eventually(lambda: [len(group.members) for group in table.hub.fanout.groups] == [2])
    table.publish("AAA", is_closed=False)
    table.hub.fanout.flush()
    assert not misses(follower)


async def test_closed_hub_leaves_no_timer() -> None:
    table = Table(flush_s=60)
    for options in (SubscribeOptions(), SubscribeOptions(throttle_ms=60_000)):
        table.join()
        table.subscribe(table.followers[-1], "AAA", options)
    stall(table.followers[0].pipe)
    table.publish("AAA", is_closed=False)
    table.publish("AAA", is_closed=False)
    table.hub.fanout.flush()
    table.publish("AAA", is_closed=True)
    assert {timer.split()[2].partition(".")[0] for timer in timers()} == {
        "FlushSchedule",
        "Groups",
        "SlowConsumers",
        "Channel",
    }
    table.hub.close()
    assert not timers()


async def test_subscriber_that_left_is_sent_nothing() -> None:
    hub, pipe = Hub(Clock(), flush_s=0), Pipe()
    subscriber = hub.join(Outbox(pipe), lambda *_: None)
    hub.send(subscriber, frames.frame(b"{}"))
    hub.leave(subscriber)
    hub.send(subscriber, frames.frame(b"{}"))
    assert parsed(pipe.read) == [{}]


# -- upstreams are shared --------------------------------------------------------------------------


async def test_two_clients_of_a_stream_cause_one_upstream_subscription(
    relay_with: StartRelay, sandbox: Sandbox
) -> None:
    relay = await relay_with(linger_seconds=0.3)
    first, second = await relay.connect(), await relay.connect()
    await first.subscribe("BTCUSDT@1m")
    await second.subscribe("btcusdt@1m", throttle_ms=100)
    await first.update()
    await second.update()
    asked = [m.text for m in sandbox.binance.control_messages if "SUBSCRIBE" in m.text]
    assert len(asked) == 1
    assert sandbox.binance.subscribed == ["btcusdt@kline_1m"]
    await first.close()
    await second.update()
    await second.ask("unsubscribe", symbol="BTCUSDT", interval="1m")
    await eventually(lambda: not sandbox.binance.subscribed)
    await eventually(lambda: not relay.hub.streams)
    assert sandbox.binance.connects == 1


async def test_stream_lingers_for_whoever_comes_back(relay_with: StartRelay, sandbox: Sandbox) -> None:
    relay = await relay_with(linger_seconds=30)
    for _ in range(3):
        client = await relay.connect()
        await client.subscribe("BTCUSDT@1m")
        await client.seen("price_update")
        await client.close()
        await eventually(lambda: not relay.hub.subscribers)
    assert sandbox.binance.subscribed == ["btcusdt@kline_1m"]
    assert len([m for m in sandbox.binance.control_messages if "SUBSCRIBE" in m.text]) == 1


@pytest.mark.parametrize("sandbox", [80], indirect=True)
async def test_150_streams_use_two_connections_and_5_messages_a_second(relay: Running, sandbox: Sandbox) -> None:
    names = [f"T{number:03d}USDT@{interval}" for number in range(1, 76) for interval in ("1m", "5m")]
    client = await relay.connect()
    # One by one and in bulk, with streams leaving in between.
    for name in names[:20]:
        await client.ask("subscribe", streams=[name])
    await client.ask("subscribe", streams=names[20:100])
    await client.ask("unsubscribe", streams=names[:10])
    await client.ask("subscribe", streams=names[100:])
    await client.ask("subscribe", streams=names[:10])
    await eventually(lambda: len(sandbox.binance.subscribed) == 150, timeout_s=30)
    seen: set[str] = set()
    while len(seen) < 150:
        update = await client.update()
        seen.add(f"{update['symbol']}@{update['interval']}")
    assert sandbox.binance.connections <= 2
    assert sandbox.binance.connects <= 2
    assert sandbox.binance.max_messages_in_any_second() <= 5
    assert sandbox.binance.rate_violations == 0


@pytest.mark.parametrize("options", [SubscribeOptions(throttle_ms=30), SubscribeOptions(throttle_ms=60_000)])
async def test_who_joins_while_a_throttle_holds_an_update_is_not_sent_it_again(options: SubscribeOptions) -> None:
    table = Table()
    table.join()
    table.join()
    first, second = table.followers
    table.subscribe(first, "AAA", options)
    stream = table.stream("AAA")
    for volume in (1.0, 2.0):
        candle = Candle(60, 1, 1, 1, 1, volume)
        table.hub.tell(stream, [PriceUpdate(stream.key, candle)])
    # The second one is held, and the newcomer is sent it with its confirmation.
    assert any(channel.held is not None for channel in stream.channels)
    table.subscribe(second, "AAA", options)
    table.hub.send(second.subscriber, stream.last_frame or b"")
    await eventually(lambda: options.throttle_ms > 1000 or all(not channel.held for channel in stream.channels))
    table.publish("AAA", is_closed=True)
    table.hub.fanout.flush()
    assert [message["seq"] for message in parsed(second.pipe.read)] == [2, 3]
    assert [message["seq"] for message in parsed(first.pipe.read)][-1] == 3
    table.hub.close()


async def test_a_revision_does_not_overtake_the_candle_that_a_throttle_holds() -> None:
    table = Table()
    table.join()
    (follower,) = table.followers
    table.subscribe(follower, "AAA", SubscribeOptions(throttle_ms=30))
    stream = table.stream("AAA")
    for time_s, volume, is_revised in ((120, 1.0, False), (120, 2.0, False), (60, 5.0, True)):
        update = PriceUpdate(stream.key, Candle(time_s, 1, 1, 1, 1, volume), is_closed=is_revised)
        table.hub.tell(stream, [update._replace(is_revised=is_revised)])
    table.hub.fanout.flush()
    assert [message["seq"] for message in parsed(follower.pipe.read)] == [1]
    await eventually(lambda: len(parsed(follower.pipe.read)) == 3)
    assert [message["seq"] for message in parsed(follower.pipe.read)] == [1, 2, 3]
    table.hub.close()


async def test_who_has_candles_that_the_stream_has_not_reached_is_not_told_them_again() -> None:
    table = Table()
    table.join()
    (follower,) = table.followers
    stream = table.stream("AAA")
    table.hub.subscribe(follower.subscriber, stream, floor=120)
    for minute in (1, 2, 3):
        candle = Candle(60 * minute, 1, 1, 1, 1)
        table.hub.tell(stream, [PriceUpdate(stream.key, candle, is_closed=True)])
    table.hub.tell(stream, [PriceUpdate(stream.key, Candle(60, 1, 1, 1, 1, 9.0), is_closed=True, is_revised=True)])
    table.hub.fanout.flush()
    assert [message["candle"]["time"] for message in parsed(follower.pipe.read)] == [180, 60]
    table.hub.close()


@pytest.mark.parametrize("throttle_ms", [0, 30])
@pytest.mark.parametrize("lags", [False, True])
async def test_a_revision_reaches_only_those_who_have_the_candle(throttle_ms: int, lags: bool) -> None:
    table = Table()
    for begin in (0, 60, 120):
        table.join()
        options = SubscribeOptions(throttle_ms=throttle_ms)
        table.hub.subscribe(table.followers[-1].subscriber, table.stream("AAA"), options, begin=begin)
    stream = table.stream("AAA")
    for volume in (1.0, 2.0):
        table.hub.tell(stream, [PriceUpdate(stream.key, Candle(180, 1, 1, 1, 1, volume))])
    if lags:
        for follower in table.followers:
            stall(follower.pipe)
    for time_s in (0, 60, 120):
        candle = Candle(time_s, 1, 1, 1, 1, 5.0)
        table.hub.tell(stream, [PriceUpdate(stream.key, candle, is_closed=True, is_revised=True)])
    # Whoever asks for more of the past has it from then on.
    newest = table.followers[-1].subscriber
    assert table.hub.subscribe(newest, stream, SubscribeOptions(throttle_ms=throttle_ms), begin=60) is False
    for follower in table.followers:
        follower.pipe.go_on()
    table.hub.tell(stream, [PriceUpdate(stream.key, Candle(180, 1, 1, 1, 1, 7.0), is_closed=True)])
    candle = Candle(60, 1, 1, 1, 1, 6.0)
    table.hub.tell(stream, [PriceUpdate(stream.key, candle, is_closed=True, is_revised=True)])

    def revised(follower: Follower) -> list[tuple[int, float]]:
        told = [message for message in parsed(follower.pipe.read) if message.get("revised")]
        assert [message["seq"] for message in told] == sorted(message["seq"] for message in told)
        return [(message["candle"]["time"], message["candle"]["volume"]) for message in told]

    await eventually(lambda: all((60, 6.0) in revised(follower) for follower in table.followers))
    assert [revised(follower) for follower in table.followers] == [
        [(0, 5.0), (60, 5.0), (120, 5.0), (60, 6.0)],
        [(60, 5.0), (120, 5.0), (60, 6.0)],
        # A throttle held the revisions, and let go of them after it had asked.
        [(60, 5.0), (120, 5.0), (60, 6.0)] if throttle_ms else [(120, 5.0), (60, 6.0)],
    ]
    table.hub.close()
