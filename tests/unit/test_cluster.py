"""Relays that share a venue over a hostile bus: each tells its clients every closed candle, once and as it was."""

import asyncio
from pathlib import Path

import orjson
import pytest

from relay.cluster.shards import Shard, favourite
from relay.cluster.wire.bus_messages import (
    ClaimTold,
    Heartbeat,
    heartbeat_body,
    news_body,
    read_heartbeat,
    read_wait,
    wait_body,
)
from relay.cluster.wire.history_messages import HistoryCall, history_body, read_candles
from relay.core.errors import BadAnswer, RateLimited
from relay.core.model import Candle, PriceUpdate, StreamKey
from relay.core.spans import Span
from tests.support.conditions import eventually
from tests.support.fake_bus import BusFaults, FakeBus
from tests.support.small_cluster import BEGAN, A, B, Hearer, SmallCluster, SmallRelay, price, small_cluster


def follow_all(cluster: SmallCluster) -> list[Hearer]:
    return [relay.follow(key) for relay in cluster.relays for key in (A, B)]


async def test_one_relay_carries_what_all_want(tmp_path: Path) -> None:
    async with small_cluster(tmp_path) as cluster:
        hearers = follow_all(cluster)
        await asyncio.sleep(10)
        for hearer in hearers:
            hearer.check(cluster.now())
            assert hearer.states[-1] == "connected"
        assert len(cluster.venue.open) == 1
        assert cluster.venue.subscribed == [A, B]
        assert len(cluster.owners) == 1


async def test_streams_go_on_at_another_relay_when_their_owner_dies(tmp_path: Path) -> None:
    async with small_cluster(tmp_path) as cluster:
        for _ in range(2):
            owner = cluster.owner()
            hearers = [relay.follow(key) for relay in cluster.relays if relay is not owner for key in (A, B)]
            await asyncio.sleep(5.35)
            await owner.crash()
            await asyncio.sleep(3.5)
            for hearer in hearers:
                assert hearer.stream.status == "connected"
                assert "reconnecting" in hearer.states
            cluster.relays.remove(owner)
            await cluster.settle()
            for hearer in hearers:
                hearer.check(cluster.now())
            assert cluster.venue.subscribed == [A, B]


async def test_streams_go_on_at_once_when_their_owner_leaves(tmp_path: Path) -> None:
    async with small_cluster(tmp_path) as cluster:
        owner = cluster.owner()
        hearers = [relay.follow(A) for relay in cluster.relays if relay is not owner]
        await asyncio.sleep(5.25)
        await owner.end()
        await asyncio.sleep(0.9)
        for hearer in hearers:
            assert hearer.stream.status == "connected"
        await asyncio.sleep(5)
        for hearer in hearers:
            hearer.check(cluster.now())


async def test_a_hand_over_makes_no_stream_wait(tmp_path: Path) -> None:
    async with small_cluster(tmp_path, "f") as cluster:
        hearer = cluster.relays[0].follow(A)
        for name in "bpxgcd":
            await cluster.add(name)
            await cluster.settle()
        assert cluster.owners == ["d"], "each was the favourite when it came"
        hearer.check(cluster.now())
        assert hearer.states == ["connected"]
        assert len(cluster.venue.open) == 1


@pytest.mark.parametrize(
    "faults",
    [BusFaults(lost=0.5), BusFaults(doubled=0.5), BusFaults(delay_s=2.5), BusFaults(0.3, 0.3, 1.5)],
    ids=["lost", "doubled", "late and in disorder", "all"],
)
async def test_no_closed_candle_depends_on_the_bus(tmp_path: Path, faults: BusFaults) -> None:
    async with small_cluster(tmp_path) as cluster:
        hearers = follow_all(cluster)
        await asyncio.sleep(2)
        cluster.broker.faults = faults
        await asyncio.sleep(20)
        cluster.broker.faults = BusFaults()
        await cluster.settle()
        for hearer in hearers:
            hearer.check(cluster.now())


async def test_each_relay_serves_alone_without_the_bus_and_comes_back(tmp_path: Path) -> None:
    async with small_cluster(tmp_path) as cluster:
        hearers = follow_all(cluster)
        await asyncio.sleep(3.3)
        cluster.broker.is_down = True
        await asyncio.sleep(4)
        assert all(relay.cluster.is_alone for relay in cluster.relays)
        assert {hearer.stream.status for hearer in hearers} == {"connected"}
        assert len(cluster.venue.open) == 3
        cluster.broker.forget()
        cluster.broker.is_down = False
        await cluster.settle()
        assert not any(relay.cluster.is_alone for relay in cluster.relays)
        assert len(cluster.venue.open) == 1
        for hearer in hearers:
            hearer.check(cluster.now())


async def test_a_relay_that_is_cut_off_serves_its_clients_and_the_others_go_on(tmp_path: Path) -> None:
    async with small_cluster(tmp_path) as cluster:
        hearers = follow_all(cluster)
        await asyncio.sleep(3.3)
        owner = cluster.owner()
        owner.bus.is_cut = True
        await asyncio.sleep(4)
        assert [relay.name for relay in cluster.relays if relay.cluster.is_alone] == [owner.name]
        assert {hearer.stream.status for hearer in hearers} == {"connected"}
        assert owner.name not in cluster.owners
        owner.bus.is_cut = False
        await cluster.settle()
        assert len(cluster.owners) == 1
        assert cluster.venue.subscribed == [A, B]
        for hearer in hearers:
            hearer.check(cluster.now())


async def test_an_owner_that_reaches_nothing_upstream_lets_another_relay_try(tmp_path: Path) -> None:
    async with small_cluster(tmp_path) as cluster:
        hearers = follow_all(cluster)
        await asyncio.sleep(3)
        unlucky = cluster.owner()
        unlucky.plugin.reaches_nothing = True
        await asyncio.sleep(25)
        assert cluster.owners != [unlucky.name]
        for hearer in hearers:
            assert hearer.stream.status == "connected"
            hearer.check(cluster.now())


async def test_a_lease_that_somebody_else_has_is_given_up(tmp_path: Path) -> None:
    async with small_cluster(tmp_path) as cluster:
        hearers = follow_all(cluster)
        await asyncio.sleep(2)
        # Whatever the reason is: the bucket says so.
        cluster.broker.write("lease.venue.1.0", b"another", None)
        await cluster.settle(12)
        assert len(cluster.owners) == 1
        assert len(cluster.venue.open) == 1
        for hearer in hearers:
            hearer.check(cluster.now())


async def test_shards_are_spread_and_each_stream_is_carried_once(tmp_path: Path) -> None:
    keys = [StreamKey(f"S{number}", "1s") for number in range(40)]
    async with small_cluster(tmp_path, shards=8) as cluster:
        hearers = [relay.follow(key) for relay in cluster.relays for key in keys]
        await asyncio.sleep(6)
        assert cluster.venue.subscribed == sorted(keys)
        assert len(cluster.venue.open) > 1
        for hearer in hearers:
            hearer.check(cluster.now())


async def test_what_an_owner_learns_of_the_past_is_told_at_all_relays(tmp_path: Path) -> None:
    async with small_cluster(tmp_path) as cluster:
        owner = cluster.owner()
        hearers = [relay.follow(A) for relay in cluster.relays if relay is not owner]
        await asyncio.sleep(5)
        time = hearers[0].closed[-2].time
        learnt = price(time)._replace(volume=77.0)
        owner.cluster.share_news("venue", [PriceUpdate(A, learnt, is_closed=True)])
        await asyncio.sleep(0.1)
        for hearer in hearers:
            assert [one.candle for one in hearer.told if one.is_revised] == [learnt]


@pytest.mark.parametrize("knows", ["abc", "a", "b", "c"])
async def test_a_candle_from_before_the_stream_that_comes_again_is_revised_wherever_it_is_known(
    tmp_path: Path, knows: str
) -> None:
    async with small_cluster(tmp_path) as cluster:
        hearers = {relay.name: relay.follow(A) for relay in cluster.relays}
        await asyncio.sleep(5)
        time = BEGAN - 500
        for relay in cluster.relays:
            if relay.name in knows:
                await relay.store.add("venue", A, [price(time)], Span(time, time + 1))
        changed = price(time)._replace(volume=77.0)
        for again in (price(time), changed, changed):
            cluster.venue.again = [again]
            await asyncio.sleep(3)
        for name, hearer in hearers.items():
            assert [one.candle for one in hearer.told if one.is_revised] == ([changed] if name in knows else [])
        for relay in cluster.relays:
            assert await relay.store.read("venue", A, time, time + 1) == ([changed] if relay.name in knows else [])


async def test_history_is_asked_for_once_for_all(tmp_path: Path) -> None:
    async with small_cluster(tmp_path) as cluster:
        before = len(cluster.venue.calls)
        for relay in cluster.relays:
            found = await relay.provider.candles(A, BEGAN - 500, BEGAN - 400, 100)
            assert [one.time for one in found] == [*range(BEGAN - 500, BEGAN - 400)]
        # The owner asks for itself whatever it is asked, and once for the others.
        assert len(cluster.venue.calls) - before == 2


async def test_small_messages_carry_all_that_large_ones_do(tmp_path: Path) -> None:
    async with small_cluster(tmp_path) as cluster:
        cluster.broker.on, cluster.broker.faults = "call", BusFaults(lost=0.05)
        for relay in cluster.relays:
            relay.bus.most_bytes = 400
        hearers = [
            *follow_all(cluster),
            *(relay.follow(StreamKey(f"C{at}", "1s")) for relay in cluster.relays for at in range(20)),
        ]
        await asyncio.sleep(5)
        for relay in cluster.relays:
            found = await relay.provider.candles(A, BEGAN - 900, BEGAN - 100, 800)
            assert [one.time for one in found] == [*range(BEGAN - 900, BEGAN - 100)]
            assert (relay.bus.lost, relay.cluster.document()["bus"]["lost"]) == (0, 0)
        for hearer in hearers:
            hearer.check(cluster.now())
        assert any(len(body) > 300 for subject, body in cluster.broker.heard if ".news." in subject)


async def test_no_two_relays_spend_a_budget(tmp_path: Path) -> None:
    async with small_cluster(tmp_path, "f", is_budgeted=True) as cluster:
        hearers = [cluster.relays[0].follow(A)]
        for name in "bpxgcd":
            hearers.append((await cluster.add(name)).follow(A))
            await cluster.settle()
        assert cluster.owners == ["d"], "each was the favourite when it came"
        owner = cluster.owner()
        await owner.end()
        await cluster.settle()
        assert cluster.venue.most == 1
        for hearer in hearers[:1]:
            hearer.check(cluster.now())


async def test_the_next_owner_knows_what_was_spent(tmp_path: Path) -> None:
    async with small_cluster(tmp_path, is_budgeted=True) as cluster:
        owner = cluster.owner()
        assert owner.plugin.memory is not None
        await owner.plugin.memory.save({"spent": 7})
        await asyncio.sleep(0.1)
        await owner.crash()
        await cluster.settle()
        following = cluster.owner()
        assert following.plugin.memory is not None
        assert following.plugin.memory.value == {"spent": 7}


@pytest.mark.parametrize("is_budgeted", [True, False])
async def test_nobody_asks_a_provider_that_asked_one_relay_to_wait(tmp_path: Path, is_budgeted: bool) -> None:
    async with small_cluster(tmp_path, is_budgeted=is_budgeted) as cluster:
        owner = cluster.owner()
        owner.plugin.banned_s = 120.0
        with pytest.raises(RateLimited, match="HTTP 418"):
            await owner.provider.given(A, None, int(cluster.now()), 10)
        # One that comes later is told, too.
        late = await cluster.add("late")
        await cluster.settle()
        waits = [relay.provider.requests_wait() for relay in cluster.relays]
        assert [wait is not None and 100 < wait.left_s < 120 for wait in waits] == [True] * 4
        assert "another relay" in str(late.provider.requests_wait())
        await owner.crash()
        await cluster.settle()
        asked = len(cluster.venue.calls)
        with pytest.raises(RateLimited, match="Venue asked another relay to wait"):
            await cluster.owner().provider.given(A, None, int(cluster.now()), 10)
        assert len(cluster.venue.calls) == asked
        await asyncio.sleep(120)
        assert await cluster.owner().provider.given(A, None, int(cluster.now()), 10)


def waits_of(relay: SmallRelay) -> dict[str, bool]:
    """Return by the subject of each kind of wait whether a relay keeps to one."""
    provider = relay.provider
    return {
        "mr.test.wait": provider.requests_wait() is not None,
        "mr.test.feed_wait": provider.feed_waits.left() is not None,
    }


@pytest.mark.parametrize("subject", ["mr.test.wait", "mr.test.feed_wait"])
async def test_waits_that_are_claimed_on_the_bus_silence_nobody_for_long(tmp_path: Path, subject: str) -> None:
    async with small_cluster(tmp_path, "ab") as cluster:
        one, shard = cluster.relays[0], cluster.relays[0].cluster.shares["venue"].shards.first.shard
        # It lives, and does not carry these streams.
        cluster.broker.publish("mr.test.beat", heartbeat_body(Heartbeat("idle", "idle", 0.0, frozenset(), {})))
        for body in (
            wait_body("idle", shard, 60.0),
            wait_body("stranger", shard, 60.0),
            wait_body("b", shard._replace(terms="others"), 60.0),
            orjson.dumps(["b", str(shard), "long"]),
            orjson.dumps(["b", str(shard), -60]),
            orjson.dumps(["b", str(shard), 60, "more"]),
        ):
            cluster.broker.publish(subject, body)
        await asyncio.sleep(0.1)
        assert not any(waits_of(one).values())
        assert one.cluster.document()["bus"]["invalid"] == 3
        silent = 0
        for _ in range(360):
            cluster.broker.publish(subject, wait_body("b", shard, 1e9))
            await asyncio.sleep(10)
            silent += waits_of(one)[subject]
            # One kind of wait is none of the other.
            assert sum(waits_of(one).values()) <= waits_of(one)[subject]
        assert 25 <= silent <= 65


async def refused(cluster: SmallCluster, seconds: float) -> SmallRelay:
    """Let the owner lose its feed, and be refused the next one; return it once it was."""
    owner = cluster.owner()
    tried = len(cluster.venue.tried)
    cluster.venue.refuse(seconds)
    cluster.venue.drop()
    await eventually(lambda: len(cluster.venue.tried) > tried)
    return owner


async def test_no_relay_connects_to_a_provider_that_refused_another_one(tmp_path: Path) -> None:
    async with small_cluster(tmp_path) as cluster:
        hearers = {relay.name: relay.follow(A) for relay in cluster.relays}
        await asyncio.sleep(2)
        owner = await refused(cluster, 60.0)
        until, tried = cluster.venue.refuses_until, len(cluster.venue.tried)
        # One that comes later is told, too, before it could own anything.
        late = await cluster.add("late")
        hearers["late"] = late.follow(A)
        await asyncio.sleep(1)
        await owner.crash()
        # Whoever takes the lease may hand it over to another one, which is live after 8 s at the latest.
        await cluster.settle(20)
        following = cluster.owner()
        assert following is not owner
        assert following.provider.feed_waits.told_s() == 0.0
        for relay in cluster.relays:
            if relay is not owner:
                stream = hearers[relay.name].stream
                assert stream.status == "throttled"
                assert stream.message.startswith("Venue asked another relay to wait; the next attempt is at ")
        # What is wanted meanwhile is throttled at once, and requests go on.
        other = following.follow(B)
        await asyncio.sleep(1)
        assert other.stream.status == "throttled"
        assert await following.provider.given(A, None, int(cluster.now()), 10)
        assert following.provider.requests_wait() is None
        await asyncio.sleep(until - 0.5 - asyncio.get_running_loop().time())
        assert len(cluster.venue.tried) == tried
        await asyncio.sleep(4)
        assert min(cluster.venue.tried[tried:]) >= until
        assert len(cluster.venue.tried) == tried + 1
        for name, hearer in hearers.items():
            if name != owner.name:
                assert hearer.stream.status == "connected"
                hearer.check(cluster.now())
        # Relays of an older version know one kind of wait alone, and are not told of this one.
        assert [subject for subject, _ in cluster.broker.heard if subject == "mr.test.wait"] == []


async def test_a_wait_for_requests_is_none_for_feeds(tmp_path: Path) -> None:
    async with small_cluster(tmp_path, "ab") as cluster:
        owner = cluster.owner()
        (other,) = (relay for relay in cluster.relays if relay is not owner)
        hearer = other.follow(A)
        owner.plugin.banned_s = 60.0
        with pytest.raises(RateLimited):
            await owner.provider.given(A, None, int(cluster.now()), 10)
        await owner.crash()
        await cluster.settle()
        assert other.provider.requests_wait() is not None
        assert other.provider.feed_waits.left() is None
        assert len(cluster.venue.open) == 1
        # Its prices come, and what was missed waits.
        assert hearer.stream.message.startswith("the missed candles follow in ")


async def test_relays_that_lose_the_bus_within_a_wait_keep_to_it(tmp_path: Path) -> None:
    async with small_cluster(tmp_path, "ab") as cluster:
        hearers = [relay.follow(A) for relay in cluster.relays]
        await asyncio.sleep(2)
        owner = await refused(cluster, 40.0)
        until, tried = cluster.venue.refuses_until, len(cluster.venue.tried)
        await asyncio.sleep(1)
        cluster.broker.is_down = True
        await asyncio.sleep(10)
        assert all(relay.cluster.is_alone for relay in cluster.relays)
        assert [hearer.stream.status for hearer in hearers] == ["throttled"] * 2
        await asyncio.sleep(until + 3 - asyncio.get_running_loop().time())
        # Both connect, as they are alone, and neither did within the wait.
        assert len(cluster.venue.tried) == tried + 2
        assert min(cluster.venue.tried[tried:]) >= until
        assert [hearer.stream.status for hearer in hearers] == ["connected"] * 2
        cluster.broker.is_down = False
        await cluster.settle()
        assert owner.provider.feed_waits.left() is None


async def test_a_wait_that_began_without_the_bus_is_told_once_it_is_back(tmp_path: Path) -> None:
    async with small_cluster(tmp_path, "ab") as cluster:
        owner = cluster.owner()
        (other,) = (relay for relay in cluster.relays if relay is not owner)
        owner.follow(A)
        await asyncio.sleep(2)
        cluster.broker.is_down = True
        await asyncio.sleep(3)
        cluster.venue.refuse(60.0)
        cluster.venue.drop()
        await asyncio.sleep(8)
        assert owner.provider.feed_waits.told_s() > 0
        assert other.provider.feed_waits.left() is None
        cluster.broker.is_down = False
        await cluster.settle()
        assert other.provider.feed_waits.left() is not None


async def test_a_feed_that_is_open_is_not_closed_for_an_owner_that_has_to_wait(tmp_path: Path) -> None:
    async with small_cluster(tmp_path, "b") as cluster:
        hearer = cluster.relays[0].follow(A)
        await asyncio.sleep(2)
        shard = cluster.relays[0].cluster.shares["venue"].shards.first.shard
        # As if it had been told so for another connection.
        cluster.venue.refuse(60.0)
        cluster.relays[0].provider.feed_waits.note(RateLimited("HTTP 429", 60.0, by_provider=True))
        until, tried = cluster.venue.refuses_until, len(cluster.venue.tried)
        names = [name for name in "acdefgh" if favourite(shard, ["b", name]) == name]
        new = await cluster.add(names[0])
        late = new.follow(A)
        await asyncio.sleep(30)
        assert new.duty == "all"
        assert (len(cluster.venue.open), len(cluster.venue.tried)) == (1, tried)
        assert [hearer.stream.status, late.stream.status] == ["connected", "connected"]
        await asyncio.sleep(until + 5 - asyncio.get_running_loop().time())
        assert cluster.relays[0].duty == "none"
        assert len(cluster.venue.tried) == tried + 1
        assert min(cluster.venue.tried[tried:]) >= until
        for one in (hearer, late):
            one.check(cluster.now())
            assert "reconnecting" not in one.states


async def test_an_open_feed_goes_on_where_another_one_has_to_wait(tmp_path: Path) -> None:
    async with small_cluster(tmp_path, "b", streams_per_feed=1) as cluster:
        before = cluster.relays[0]
        hearer = before.follow(A)
        await asyncio.sleep(2)
        shard = before.cluster.shares["venue"].shards.first.shard
        cluster.venue.refuse(60.0)
        cluster.venue.connects_s = 3.0
        before.provider.feed_waits.note(RateLimited("HTTP 429", 60.0, by_provider=True))
        until, tried = cluster.venue.refuses_until, len(cluster.venue.tried)
        owner = await cluster.add(next(name for name in "acdefgh" if favourite(shard, ["b", name]) == name))
        # It needs a second connection.
        waiting = owner.follow(B)
        await asyncio.sleep(30)
        assert (owner.duty, before.duty) == ("all", "all")
        assert cluster.venue.subscribed == [A]
        assert waiting.states[-1] == "throttled"
        (told,) = owner.cluster.document()["shards"]
        assert (told["owners"], told["contested"]) == (2, False)
        # The owner connects after the wait, and only once it has does the other one let go.
        await asyncio.sleep(until + 1 - asyncio.get_running_loop().time())
        assert cluster.venue.subscribed == [A]
        await asyncio.sleep(8)
        assert min(cluster.venue.tried[tried:]) >= until
        assert (owner.duty, before.duty) == ("all", "none")
        assert cluster.venue.subscribed == [A, B]
        hearer.check(cluster.now())
        assert hearer.states == ["connected"]
        assert waiting.states[-1] == "connected"


@pytest.mark.parametrize("is_known", [False, True])
async def test_no_stream_stays_throttled_after_a_wait(tmp_path: Path, is_known: bool) -> None:
    async with small_cluster(tmp_path, "ab") as cluster:
        owner = cluster.owner()
        hearers = [relay.follow(A) for relay in cluster.relays] if is_known else []
        await asyncio.sleep(2)
        cluster.venue.refuse(60.0)
        cluster.venue.drop()
        hearers = hearers or [relay.follow(A) for relay in cluster.relays]
        await asyncio.sleep(10)
        assert [hearer.stream.status for hearer in hearers] == ["throttled", "throttled"]
        # The provider is away when the wait is over.
        for relay in cluster.relays:
            relay.plugin.reaches_nothing = True
        await asyncio.sleep(60)
        assert owner.duty == "all"
        for hearer in hearers:
            assert hearer.stream.status == "reconnecting"
            assert hearer.stream.message.startswith("no route to the venue; the next attempt is at ")


async def test_a_stream_without_a_feed_stays_throttled_when_another_relay_wants_it(tmp_path: Path) -> None:
    async with small_cluster(tmp_path, "abc") as cluster:
        owner = cluster.owner()
        first, second = (relay for relay in cluster.relays if relay is not owner)
        hearers = [owner.follow(A), first.follow(A)]
        await asyncio.sleep(5)
        await refused(cluster, 60.0)
        await asyncio.sleep(5)
        before = [len(hearer.states) for hearer in hearers]
        late = second.follow(A)
        await asyncio.sleep(15)
        assert [hearer.stream.status for hearer in (*hearers, late)] == ["throttled"] * 3
        assert [len(hearer.states) for hearer in hearers] == before
        await asyncio.sleep(60)
        for hearer in (*hearers, late):
            assert hearer.stream.status == "connected"
            hearer.check(cluster.now())


async def test_a_relay_ends_within_a_wait(tmp_path: Path) -> None:
    async with small_cluster(tmp_path, "ab") as cluster:
        for relay in cluster.relays:
            relay.follow(A)
        await asyncio.sleep(2)
        owner = await refused(cluster, 600.0)
        tried = len(cluster.venue.tried)
        before = asyncio.get_running_loop().time()
        for relay in (owner, *cluster.relays):
            await relay.end()
        assert asyncio.get_running_loop().time() - before < 10
        assert len(cluster.venue.tried) == tried


async def test_relays_that_are_alone_spend_their_part_of_a_budget_and_then_all_of_it(tmp_path: Path) -> None:
    async with small_cluster(tmp_path, is_budgeted=True) as cluster:
        assert [relay.plugin.parts for relay in cluster.relays] == [[], [], []]
        cluster.broker.is_down = True
        await asyncio.sleep(4)
        assert [relay.plugin.parts for relay in cluster.relays] == [[3], [3], [3]]
        document = cluster.relays[0].cluster.document()
        assert document["budget_parts"] == {"venue": 3}
        assert document["message"].endswith("alone, and spends its part of the limits: 1/3 of venue")
        cluster.broker.is_down = False
        await cluster.settle()
        assert [relay.plugin.parts for relay in cluster.relays] == [[3, 1]] * 3
        assert cluster.relays[0].cluster.document()["budget_parts"] == {}
        # The bus is lost again before all were seen; and one that starts without it knows it of its last run.
        cluster.broker.is_down = True
        await cluster.relays[2].end()
        cluster.memories["d"] = cluster.memories["c"]
        again = await cluster.add("d")
        await asyncio.sleep(4)
        assert [cluster.relays[0].plugin.parts[-1], again.plugin.parts] == [3, [3]]


async def test_a_relay_that_is_gone_for_good_is_not_counted(tmp_path: Path) -> None:
    async with small_cluster(tmp_path, "ab", is_budgeted=True) as cluster:
        await cluster.relays[1].crash()
        await asyncio.sleep(15)
        cluster.relays[0].bus.is_cut = True
        await asyncio.sleep(4)
        assert cluster.relays[0].plugin.parts == []


async def test_an_owner_that_gives_other_candles_than_the_provider_is_noticed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with small_cluster(tmp_path, "ab", check_every_s=5.0) as cluster:
        owner = cluster.owner()
        (other,) = [relay for relay in cluster.relays if relay is not owner]
        await asyncio.sleep(6)
        found = await other.provider.candles(A, BEGAN - 500, BEGAN - 490, 10)
        assert [one.high for one in found] == [price(time).high for time in range(BEGAN - 500, BEGAN - 490)]
        calls = other.cluster.document()["history_calls"]
        assert (calls["compared"], calls["contradicted"]) == (10, 0)
        owner.plugin.lies = True
        # Not each answer is compared: this one is believed.
        found = await other.provider.candles(A, BEGAN - 600, BEGAN - 590, 10)
        assert found[0].high == price(BEGAN - 600).high + 1
        await asyncio.sleep(6)
        found = await other.provider.candles(A, BEGAN - 700, BEGAN - 690, 10)
        assert found[0] == price(BEGAN - 700)
        calls = other.cluster.document()["history_calls"]
        assert (calls["compared"], calls["contradicted"]) == (20, 10)
    assert f"relay {owner.name} gave 10 of 10 candles of A@1s that are other ones at venue itself" in caplog.text


async def test_a_false_candle_on_the_bus_is_revised_by_history(tmp_path: Path) -> None:
    async with small_cluster(tmp_path, "a", compare_after_s=(2.0,)) as cluster:
        (relay,) = cluster.relays
        hearer = relay.follow(A)
        await asyncio.sleep(3.5)
        shard, now = relay.cluster.shares["venue"].shards.first.shard, int(cluster.now())
        stranger = FakeBus(cluster.broker)
        # Somebody who may write to the bus, says that he owns the shard, and is faster than the venue.
        claims = {shard: ClaimTold(1 << 40, False, True)}
        stranger.send("mr.test.beat", heartbeat_body(Heartbeat("z", "z", 0.0, frozenset({shard}), claims)))
        await asyncio.sleep(now + 0.99 - cluster.now())
        false = price(now)._replace(high=30.0)
        stranger.send(f"mr.test.news.{shard}", news_body("z", 1, [(A, PriceUpdate(A, false, is_closed=True))]))
        await asyncio.sleep(90)
        told = [one for one in hearer.told if one.candle.time == now and one.is_closed]
        assert [(one.candle, one.is_revised) for one in told] == [(false, False), (price(now), True)]
        assert (await relay.store.read("venue", A, now, now + 1)) == [price(now)]


def lies(shard: Shard) -> list[tuple[str, bytes]]:
    """What a stranger may say on each subject."""
    now = BEGAN + 10
    wrong = [
        Candle(now, 0.0, 0.0, 0.0, 0.0),
        Candle(now, 1.0, 0.5, 2.0, 1.0),
        Candle(now, -5.0, 5.0, -6.0, 1.0, -1.0),
        Candle(now, 1.0, 1e300, 1.0, 1.0),
        Candle(now + 86_400, 1.0, 1.0, 1.0, 1.0),
        Candle(now - 86_400 * 400, 1.0, 1.0, 1.0, 1.0),
        Candle(-1, 1.0, 1.0, 1.0, 1.0),
    ]
    news = [news_body("z", n, [(A, PriceUpdate(A, one, is_closed=True))]) for n, one in enumerate(wrong)]
    bodies = [
        *(b"", b"{}", b"[]", b"\xff\x00", b"[" * 1000, b"null", orjson.dumps(["z"] * 4), orjson.dumps([{}, [], None])),
        *news,
        news_body("z", 1 << 61, [(StreamKey("NOT-WANTED", "1s"), PriceUpdate(A, wrong[0]))]),
        orjson.dumps(["z", 1, [[0, "A", "1s", "yes", 1, now, "1", [], {}, None, True, None]]]),
        orjson.dumps(["z", 1, [[0, "A", "1s", True, 1, now, 1.0, 1.0, 1.0, 1.0, 1.0, ["x", "y", 1, 2, 3]]]]),
        orjson.dumps(["z", 1, [[1, "A", "1s", "error", "gone"], [1, "A", "1s", "no such state", ""]]]),
        orjson.dumps(["z", 1, [[2, "A", "1s", 1e99, None], [3, "A", "1s", "x", None, True, 1e9]]]),
        orjson.dumps(["z", "x", 1, ["venue.1.9", "../../etc"], [[str(shard), "9", True, True]], False]),
        orjson.dumps(["z", str(shard), [["A; drop", "1s", True], ["A", "7q", True]], True]),
    ]
    subjects = ("beat", "want", "ask", "memory", f"news.{shard}")
    return [(f"mr.test.{subject}", body) for subject in subjects for body in bodies]


async def test_a_stranger_on_the_bus_changes_nothing(tmp_path: Path) -> None:
    async with small_cluster(tmp_path) as cluster:
        hearers = follow_all(cluster)
        await asyncio.sleep(3)
        for subject, body in lies(cluster.relays[0].cluster.shares["venue"].shards.first.shard):
            cluster.broker.publish(subject, body)
            await asyncio.sleep(0.05)
        await cluster.settle()
        for hearer in hearers:
            hearer.check(cluster.now())
        assert cluster.venue.subscribed == [A, B]
        for relay in cluster.relays:
            stored = await relay.store.read("venue", A, 0, 1 << 40)
            assert stored == [one for one in hearers[0].closed if one.time in {candle.time for candle in stored}]
            assert relay.cluster.document()["bus"]["invalid"] > 10


async def test_a_relay_says_what_others_are_set_to_that_does_not_fit(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with small_cluster(tmp_path, "a") as cluster:
        beat = Heartbeat("other", "a", 0.0, frozenset({Shard("venue", 4, 0, "ab")}), {})
        FakeBus(cluster.broker).send("mr.test.beat", heartbeat_body(beat))
        await asyncio.sleep(0.1)
    assert "another relay is called a too; give each its own [cluster] node" in caplog.text
    assert "relay a has 4 shards of venue and this one 1: they share none" in caplog.text


async def test_relays_whose_candles_may_differ_share_nothing_and_say_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with small_cluster(tmp_path, "", is_budgeted=True) as cluster:
        a = await cluster.add("a", hours="forex", pace=1)
        same = await cluster.add("b", hours="forex", pace=2)
        await cluster.settle()
        assert len(cluster.owners) == 1
        assert a.cluster.document()["relays"][1]["differs"] == []
        other = await cluster.add("c", hours="always")
        hearers = [relay.follow(A) for relay in (a, same, other)]
        await cluster.settle()
        # Two groups, each with an owner, and each owner with half of the budget.
        assert len(cluster.owners) == 2
        assert "c" in cluster.owners
        assert [relay.plugin.parts for relay in cluster.relays] == [[2], [2], [2]]
        assert [one["differs"] for one in other.cluster.document()["relays"]] == [[], ["venue"], ["venue"]]
        assert "give both the same plugin and the same hours" in caplog.text
        memory = cluster.owner("ab").plugin.memory
        assert memory is not None
        await memory.save({"spent": 5})
        await asyncio.sleep(0.1)
        assert other.plugin.memory is not None
        assert other.plugin.memory.value is None, "what others spent by themselves is no news"
        for hearer in hearers:
            hearer.check(cluster.now())
        # Its settings are read anew.
        other.provider.reconfigure({**other.provider.settings, "hours": "forex"})
        other.cluster.renew("venue")
        await cluster.settle()
        assert len(cluster.owners) == 1
        assert len(cluster.venue.open) == 1
        assert [relay.plugin.parts[-1] for relay in cluster.relays] == [1, 1, 1]
        for hearer in hearers:
            hearer.check(cluster.now())


def test_a_name_that_no_log_or_terminal_can_show_is_refused() -> None:
    assert read_heartbeat(heartbeat_body(Heartbeat("x", "a\x1b[2J\n", 0.0, frozenset(), {}))) is None


async def test_history_of_what_can_be_no_symbol_is_asked_of_nobody(tmp_path: Path) -> None:
    async with small_cluster(tmp_path, "a") as cluster:
        stranger, before = FakeBus(cluster.broker), len(cluster.venue.calls)
        call = HistoryCall("venue", StreamKey("../A&x=1", "1s"), None, BEGAN, 5)
        answer = await stranger.request("mr.test.call.a", history_body(call), 1.0)
        with pytest.raises(BadAnswer):
            read_candles(answer)
        assert len(cluster.venue.calls) == before


async def test_a_relay_that_is_alone_says_why(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with small_cluster(tmp_path, "a") as cluster:
        (relay,) = cluster.relays
        relay.bus.is_cut = True
        await asyncio.sleep(4)
        message = relay.cluster.document()["message"]
        relay.bus.is_cut = False
    assert message == "NATS cannot be used, cut: this relay serves its own clients alone"
    assert "NATS cannot be used, cut: this relay serves alone" in caplog.text


def test_a_wait_is_never_told_too_short() -> None:
    shard = Shard("venue", 1, 0, "5f0c12ab")
    assert read_wait(wait_body("a", shard, 10.04)) == ("a", shard, 10.1)
