"""The pure parts of a cluster: shards, leases, duties, and messages as bytes."""

import math
import random
import zlib
from collections import Counter
from types import SimpleNamespace
from typing import Any

import orjson
import pytest

from relay import (
    BadAnswer,
    Candle,
    PriceUpdate,
    ProviderTimeout,
    ProviderUnavailable,
    RateLimited,
    StreamKey,
    UnknownSymbol,
)
from relay.cluster.duty import Duty, duty
from relay.cluster.lease import Lease, LeaseView, Move
from relay.cluster.peers import Peers
from relay.cluster.remote_history import RemoteHistory
from relay.cluster.shards import Shard, favourite, parse_shard, shard_number
from relay.cluster.wire.bus_messages import (
    ClaimTold,
    Heartbeat,
    Item,
    PlanTold,
    StateTold,
    heartbeat_body,
    news_body,
    read_heartbeat,
    read_news,
    read_wish,
    wish_bodies,
)
from relay.cluster.wire.history_messages import (
    HistoryCall,
    candles_answer,
    error_answer,
    history_body,
    read_candles,
    read_question,
)
from relay.cluster.wire.parts import PartedAnswer, bodies_within, parted_answer
from relay.cluster.wire.wire_values import Malformed
from relay.cluster.wishes import Wishes
from relay.core.model import ExtendedCandle
from relay.core.past_change import PastChange
from relay.core.written_numbers import WrittenCandle, written_candle
from tests.support.fake_bus import FakeBroker, FakeBus

A, B = StreamKey("A", "1m"), StreamKey("EUR/USD", "1M")
FREE_FOR_ME = LeaseView(None, "me")
FREE_FOR_YOU = LeaseView(None, "you")
MINE_BY_RIGHT = LeaseView("you", "me")

# -- shards ------------------------------------------------------------------------------------------


def test_streams_spread_over_shards_and_stay_where_they_are() -> None:
    keys = [StreamKey(f"S{number}", "1m") for number in range(1000)]
    counts = Counter(shard_number(key, 8) for key in keys)
    assert set(counts) == set(range(8))
    assert max(counts.values()) < 200
    assert shard_number(StreamKey("BTCUSDT", "1m"), 16) == 13


def test_a_relay_that_goes_moves_only_its_own_shards() -> None:
    shards = [Shard("binance", 64, number, "ab") for number in range(64)]
    before = {shard: favourite(shard, ["a", "b", "c"]) for shard in shards}
    after = {shard: favourite(shard, ["a", "b"]) for shard in shards}
    assert set(before.values()) == {"a", "b", "c"}
    assert all(after[shard] == before[shard] for shard in shards if before[shard] != "c")
    assert favourite(shards[0], []) is None


@pytest.mark.parametrize(
    "text",
    [
        *("binance.1.1.0f", "binance.0.0.0f", "binance.65.0.0f", "a b.1.0.0f", "binance.01.0.0f"),
        *("binance.4.3", "binance.4.3.>", "x.1", 7, ""),
    ],
)
def test_what_names_no_shard_is_refused(text: object) -> None:
    assert parse_shard(text) is None
    assert parse_shard("binance.4.3.0f") == Shard("binance", 4, 3, "0f")


# -- leases ------------------------------------------------------------------------------------------


def test_the_favourite_takes_a_free_lease_at_once_and_others_leave_it_time() -> None:
    assert Lease("me").move(5.0, FREE_FOR_ME) is Move.TAKE
    other = Lease("me")
    assert other.move(5.0, FREE_FOR_YOU) is Move.NOTHING
    assert other.move(5.2, FREE_FOR_YOU) is Move.NOTHING
    assert other.move(5.4, FREE_FOR_YOU) is Move.TAKE


def test_nobody_takes_what_nobody_could_own() -> None:
    lease = Lease("me")
    assert lease.move(0.0, LeaseView(None, None)) is Move.NOTHING
    assert lease.move(9.0, LeaseView(None, None)) is Move.NOTHING


def test_a_lease_is_renewed_in_time_and_not_trusted_longer_than_it_lasts() -> None:
    lease = Lease("me")
    lease.hold(7, asked_at=10.0)
    assert lease.move(10.4, FREE_FOR_ME) is Move.NOTHING
    assert lease.move(10.5, FREE_FOR_ME) is Move.RENEW
    assert lease.is_held(11.4)
    assert not lease.is_held(11.5)
    # It goes on to try: with luck nobody took it.
    assert lease.move(11.6, FREE_FOR_ME) is Move.RENEW
    lease.hold(8, asked_at=11.6)
    assert lease.is_held(12.0)


def test_a_favourite_asks_the_owner_after_a_while_and_then_now_and_then() -> None:
    lease = Lease("me")
    assert lease.move(10.0, MINE_BY_RIGHT) is Move.NOTHING
    assert lease.move(12.9, MINE_BY_RIGHT) is Move.NOTHING
    assert lease.move(13.0, MINE_BY_RIGHT) is Move.ASK
    assert lease.move(13.5, MINE_BY_RIGHT) is Move.NOTHING
    assert lease.move(14.1, MINE_BY_RIGHT) is Move.ASK
    assert lease.move(14.2, LeaseView("you", "you")) is Move.NOTHING
    assert lease.move(15.3, MINE_BY_RIGHT) is Move.NOTHING


def test_who_handed_a_lease_over_leaves_it_to_the_other_one() -> None:
    lease = Lease("me")
    lease.hold(7, asked_at=10.0)
    lease.hand_over(10.2)
    assert not lease.is_held(10.2)
    assert lease.move(10.3, FREE_FOR_YOU) is Move.NOTHING
    assert lease.move(11.9, FREE_FOR_YOU) is Move.NOTHING
    # The other one did not come.
    assert lease.move(12.3, FREE_FOR_YOU) is Move.TAKE


@pytest.mark.parametrize(
    ("before", "is_held", "is_alone", "is_live_elsewhere", "may_overlap", "after"),
    [
        (Duty.NONE, True, False, False, True, Duty.ALL),
        (Duty.ALL, False, False, False, True, Duty.ALL),
        (Duty.ALL, False, False, True, True, Duty.NONE),
        (Duty.ALL, False, False, False, False, Duty.NONE),
        (Duty.ALL, False, True, False, True, Duty.OWN),
        (Duty.OWN, False, False, False, True, Duty.OWN),
        (Duty.OWN, False, False, True, True, Duty.NONE),
        (Duty.NONE, False, True, True, False, Duty.OWN),
        (Duty.NONE, False, False, False, True, Duty.NONE),
    ],
)
def test_duty_follows_from_what_is_known(
    before: Duty, is_held: bool, is_alone: bool, is_live_elsewhere: bool, may_overlap: bool, after: Duty
) -> None:
    found = duty(
        before, is_held=is_held, is_alone=is_alone, is_live_elsewhere=is_live_elsewhere, may_overlap=may_overlap
    )
    assert found is after


def test_a_relay_without_the_key_carries_nothing() -> None:
    found = duty(Duty.ALL, is_held=True, is_alone=True, is_live_elsewhere=False, may_overlap=True, can_serve=False)
    assert found is Duty.NONE


# -- peers and wishes --------------------------------------------------------------------------------

SHARD = Shard("binance", 1, 0, "ab")


def beat(id_: str, revision: int, *, is_held: bool = True) -> Heartbeat:
    return Heartbeat(id_, id_, 0.0, frozenset({SHARD}), {SHARD: ClaimTold(revision, True, is_held)})


def test_the_newest_lease_comes_first_and_the_silent_are_forgotten() -> None:
    peers = Peers()
    assert peers.hear(beat("old", 3), 0.0)
    assert peers.hear(beat("new", 9), 1.0)
    assert not peers.hear(beat("new", 9), 1.1)
    assert [one.id for one in peers.claims(SHARD, 1.1)] == ["new", "old"]
    assert [one.id for one in peers.claims(SHARD, 1.5)] == ["new"]
    assert [one.id for one in peers.alive(1.9)] == ["old", "new"]
    peers.hear(beat("new", 9)._replace(is_leaving=True), 2.0)
    assert peers.alive(2.1) == []


def test_wishes_lapse_unless_they_are_said_again() -> None:
    wishes = Wishes()
    wishes.hear("a", [A, B], [], 0.0)
    wishes.hear("b", [A], [], 1.0)
    wishes.hear("a", [A], [], 10.0)
    wishes.expire(15.5)
    assert {*wishes.keys} == {A}
    wishes.forget("a")
    assert A in wishes
    wishes.hear("b", [], [A], 15.6)
    assert A not in wishes


# -- messages ----------------------------------------------------------------------------------------


def test_what_an_owner_tells_arrives_as_it_was() -> None:
    extended = ExtendedCandle(
        60,
        1.5,
        2.0,
        1.0,
        1.75,
        3.0,
        quote_volume=5.25,
        trades=7,
        taker_volume=1.0,
        taker_quote_volume=2.0,
        written=".8",
    )
    written = written_candle(60, ["1.50", "2.00", "1.00", "1.75", "3.0", "5.25", "1.0", "2.0"], 7, trade_ids=(11, 17))
    items: list[tuple[StreamKey, Item]] = [
        (A, PriceUpdate(A, Candle(60, 1.0, 2.0, 0.5, 1.5, 10.0), is_closed=True, ts_event_ms=61_000)),
        (A, PriceUpdate(A, extended)),
        (A, PriceUpdate(A, written)),
        (B, StateTold("market_closed", "opens on Monday")),
        (B, PlanTold(12.5, None)),
        (B, PastChange(B, 500, 100, True, 2.0)),
    ]
    news = read_news(news_body("me", 12, items))
    assert news is not None
    assert (news.sender, news.number) == ("me", 12)
    assert news.items == items
    found = news.items[1][1]
    assert isinstance(found, PriceUpdate)
    assert found.candle.extras == extended.extras
    found = news.items[2][1]
    assert isinstance(found, PriceUpdate)
    assert isinstance(found.candle, WrittenCandle)
    assert (found.candle.extras, found.candle.trade_ids) == (written.extras, (11, 17))


def test_what_a_candle_says_of_itself_is_not_believed_unseen() -> None:
    row = [0, "A", "1m", True, None, 60, 1.0, 1.0, 1.0, 1.0, 1.0, [-5.0, 7, 1.0, 2.0, "nonsense", 11, 17]]
    news = read_news(orjson.dumps(["me", 1, [row]]))
    assert news is not None
    found = news.items[0][1]
    assert isinstance(found, PriceUpdate)
    # The border judges it as it judges all that are not of the trusted kind.
    assert type(found.candle) is ExtendedCandle


def test_heartbeats_wishes_and_questions_arrive_as_they_were() -> None:
    told = beat("me", 7, is_held=False)
    assert read_heartbeat(heartbeat_body(told)) == told
    keys = [StreamKey(f"S{number}", "1m") for number in range(12_000)]
    wishes = [read_wish(body) for body in wish_bodies("me", SHARD, keys, [A], is_new=True, most_bytes=70_000)]
    assert len(wishes) > 3
    assert [key for wish in wishes if wish is not None for key in wish.wanted] == keys
    assert [key for wish in wishes if wish is not None for key in wish.unwanted] == [A]
    asked = HistoryCall("binance", A, None, 1 << 60, 500)
    assert read_question(history_body(asked)) == asked


def test_history_arrives_with_what_cannot_be_read_and_the_open_candle() -> None:
    rows = [Candle(60 * number, 1.0, 2.0, 0.5, 1.5, float(number)) for number in range(3000)]
    rows[5] = Candle(300, math.nan, math.nan, math.nan, math.nan)
    found, open_time = read_candles(candles_answer(rows, 179_940))
    assert open_time == 179_940
    assert found[:5] + found[6:] == rows[:5] + rows[6:]
    assert math.isnan(found[5].close)


def test_an_error_of_another_relay_is_raised_as_it_was() -> None:
    with pytest.raises(RateLimited, match="used up") as raised:
        read_candles(error_answer(RateLimited("the budget is used up", 12.5)))
    assert raised.value.retry_after == 12.5
    with pytest.raises(UnknownSymbol, match="no such"):
        read_candles(error_answer(UnknownSymbol("no such symbol")))


def test_an_answer_that_unfolds_to_too_much_is_refused() -> None:
    with pytest.raises(BadAnswer):
        read_candles(b"1" + zlib.compress(b"[" * (17 * 2**20)))
    assert [*bodies_within([], bytes, 10)] == [b""]


def put_together(messages: list[bytes]) -> bytes | None:
    answer = PartedAnswer()
    for message in messages:
        answer.take(message)
    return answer.body


def test_an_answer_that_is_too_large_for_a_message_goes_in_parts() -> None:
    body = random.Random(3).randbytes(100_001)
    parts = parted_answer(body, 1_000)
    assert max(map(len, parts)) == 1_000
    assert put_together(parts) == body
    assert put_together(parts[:-1]) is None
    assert put_together(parted_answer(b"0short", 1_000)) == b"0short"
    # What looks like a part is one, so that nobody takes it for more than it is.
    assert put_together(parted_answer(b"P" * 30, 1_000)) == b"P" * 30
    with pytest.raises(ValueError, match="too large"):
        parted_answer(b"0" * (9 * 2**20), 1_000_000)


@pytest.mark.parametrize(
    "order", [(0, 2), (1, 0, 2), (0, 0, 1, 2), (0, 1, 1, 2), (0, 11, 2), (0, 1, "0[]"), (0, 1, "P"), (0, 1, "changed")]
)
def test_parts_that_are_missing_doubled_foreign_or_changed_make_no_answer(order: tuple[int | str, ...]) -> None:
    mine, other = parted_answer(b"0" * 2_500, 1_000), parted_answer(b"1" * 2_500, 1_000)
    messages: dict[int | str, bytes] = {
        **dict(enumerate(mine)),
        **{number + 10: part for number, part in enumerate(other)},
        "0[]": b"0[]",
        "P": b"P",
        "changed": mine[2][:-1] + b"1",
    }
    with pytest.raises(Malformed):
        put_together([messages[name] for name in order])


# -- history of another relay --------------------------------------------------------------------------


class AnsweringOwner:
    """A provider as the asking relay has it, at minute 10 and 5 s, and what the owner answers."""

    name = "binance"

    def __init__(self, open_time: int | None) -> None:
        self.clock = SimpleNamespace(now=lambda: 605.0)
        rows = [Candle(540, 1.0, 1.0, 1.0, 1.0), Candle(600, 1.0, 1.0, 1.0, 1.0)]
        broker = FakeBroker()
        bus = FakeBus(broker)

        async def answer(body: bytes) -> bytes:
            return candles_answer([one for one in rows if open_time is None or one.time <= open_time], open_time)

        broker.answer("to owner", answer)
        self.history = RemoteHistory(bus, lambda id_: f"to {id_}")

    async def candles(self, owner: str | None = "owner") -> list[int] | None:
        provider: Any = self
        found = await self.history.candles(provider, lambda: owner, A, 540, 660, 5)
        return None if found is None else [one.time for one in found]


async def test_history_comes_from_the_owner_with_the_open_candle_last() -> None:
    assert await AnsweringOwner(600).candles() == [540, 600]
    assert await AnsweringOwner(None).candles() == [540, 600]
    assert await AnsweringOwner(600).candles("") is None, "the provider is asked by the owner itself"


async def test_a_candle_that_is_open_at_the_owner_and_over_here_is_not_taken() -> None:
    # It would be stored as closed, with values that are not its last ones.
    with pytest.raises(ProviderUnavailable, match="not closed there yet"):
        await AnsweringOwner(540).candles()


async def test_history_fails_when_no_relay_has_the_provider() -> None:
    with pytest.raises(ProviderUnavailable, match="no relay"):
        await AnsweringOwner(600).candles(None)
    with pytest.raises(ProviderTimeout):
        await AnsweringOwner(600).candles("nobody")
