"""What relays tell each other, as bytes and as values; what is malformed on arrival is None. Pure.

Anybody who may write to the bus can send anything. Here only the form is judged: that all is there, of the right type
and not too much. Whether a candle makes sense is judged where those of providers are, at the border.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import orjson

from relay.cluster.shards import MOST_SHARDS, Shard
from relay.cluster.wire.parts import bodies_within
from relay.cluster.wire.wire_values import (
    LONGEST_TEXT,
    MOST_ITEMS,
    Malformed,
    candle_row,
    loaded,
    need,
    read_candle,
    read_key,
    read_list,
    read_seconds,
    read_shard,
    read_text,
    read_whole,
)
from relay.core.model import PriceUpdate, StreamKey
from relay.core.past_change import PastChange

MOST_KEYS = 5_000
"""Streams of one message of wishes; more of them go in several."""
MOST_CLAIMS = MOST_SHARDS * 64
_STATES = frozenset(
    {"connecting", "connected", "reconnecting", "backfilling", "stale", "market_closed", "throttled", "error"}
)


class StateTold(NamedTuple):
    """The state of a stream at its owner: a status of the contract, and its message."""

    status: str
    message: str


class PlanTold(NamedTuple):
    """In how many seconds the owner polls a stream next, and how often it does."""

    in_s: float
    every_s: float | None


Item = PriceUpdate | StateTold | PlanTold | PastChange
"""What an owner tells about one stream."""


class ShardNews(NamedTuple):
    """One message of an owner: its `number` counts those of this shard, so that lost ones are noticed."""

    sender: str
    number: int
    items: list[tuple[StreamKey, Item]]


class ClaimTold(NamedTuple):
    """What a relay says of a shard that it carries for all: whether its streams are live, and of its lease.

    Without the lease it waits for the next owner to be live.
    """

    revision: int
    is_live: bool
    is_held: bool


class Heartbeat(NamedTuple):
    """What a relay says of itself: its `id` is of this run, `node` its name, `able` the shards that it could own."""

    id: str
    node: str
    sent_at: float
    able: frozenset[Shard]
    claims: Mapping[Shard, ClaimTold]
    is_leaving: bool = False


class Wish(NamedTuple):
    """Streams that a relay wants of a shard from now on, and wants no more; `is_new`: it lacks what they told last."""

    id: str
    shard: Shard
    wanted: list[StreamKey]
    unwanted: list[StreamKey]
    is_new: bool


# -- what owners tell ----------------------------------------------------------------------------------


def news_body(sender: str, number: int, items: Iterable[tuple[StreamKey, Item]]) -> bytes:
    """Write what an owner tells of a shard."""
    rows: list[list[Any]] = []
    for (symbol, interval), item in items:
        if isinstance(item, PriceUpdate):
            rows.append([0, symbol, interval, item.is_closed, item.ts_event_ms, *candle_row(item.candle)])
        elif isinstance(item, StateTold):
            rows.append([1, symbol, interval, item.status, item.message[:LONGEST_TEXT]])
        elif isinstance(item, PlanTold):
            rows.append([2, symbol, interval, item.in_s, item.every_s])
        else:
            rows.append([3, symbol, interval, item.before, item.after, item.one_interval, item.settle_s])
    return orjson.dumps([sender, number, rows])


def read_news(body: bytes) -> ShardNews | None:
    """Read what an owner tells."""
    try:
        sender, number, rows = loaded(body)
        return ShardNews(
            read_text(sender), read_whole(number), [_read_item(row) for row in read_list(rows, MOST_ITEMS)]
        )
    except (Malformed, ValueError, TypeError, OverflowError):
        return None


def _read_item(row: Any) -> tuple[StreamKey, Item]:
    kind, symbol, interval, *rest = read_list(row, 16)
    key = read_key(symbol, interval)
    match kind:
        case 0:
            is_closed, stamp_ms, *values = rest
            need(type(is_closed) is bool)
            return key, PriceUpdate(
                key, read_candle(values), is_closed, None if stamp_ms is None else read_whole(stamp_ms)
            )
        case 1:
            status, message = rest
            need(isinstance(status, str) and status in _STATES)
            return key, StateTold(status, read_text(message, LONGEST_TEXT))
        case 2:
            in_s, every_s = rest
            return key, PlanTold(read_seconds(in_s), None if every_s is None else read_seconds(every_s))
        case 3:
            before, after, one_interval, settle_s = rest
            change = PastChange(key, before, after, one_interval, read_seconds(settle_s))
            need(type(one_interval) is bool)
            change.check()
            return key, change
        case _:
            raise Malformed


# -- what relays tell of themselves ----------------------------------------------------------------------


def heartbeat_body(beat: Heartbeat) -> bytes:
    """Write a heartbeat."""
    claims = [[str(shard), *claim] for shard, claim in beat.claims.items()]
    return orjson.dumps([beat.id, beat.node, beat.sent_at, [*map(str, beat.able)], claims, beat.is_leaving])


def read_heartbeat(body: bytes) -> Heartbeat | None:
    """Read a heartbeat."""
    try:
        id_, node, sent_at, able, claims, is_leaving = loaded(body)
        found = {}
        for claim in read_list(claims, MOST_CLAIMS):
            shard, revision, is_live, is_held = read_list(claim, 4)
            need(type(is_live) is bool and type(is_held) is bool)
            found[read_shard(shard)] = ClaimTold(read_whole(revision), is_live, is_held)
        need(type(is_leaving) is bool)
        # It is shown in logs and terminals.
        need(isinstance(node, str) and node.isprintable())
        shards = frozenset(map(read_shard, read_list(able, MOST_CLAIMS)))
        return Heartbeat(read_text(id_), read_text(node), read_seconds(sent_at), shards, found, is_leaving)
    except (Malformed, ValueError, TypeError):
        return None


def wish_bodies(
    id_: str,
    shard: Shard,
    wanted: Iterable[StreamKey],
    unwanted: Iterable[StreamKey] = (),
    *,
    is_new: bool,
    most_bytes: int,
) -> list[bytes]:
    """Write wishes, in as many messages of at most `most_bytes` as they need."""

    def body(rows: Sequence[list[Any]]) -> bytes:
        return orjson.dumps([id_, str(shard), rows, is_new])

    rows = [*([*key, True] for key in wanted), *([*key, False] for key in unwanted)]
    parts = (rows[at : at + MOST_KEYS] for at in range(0, len(rows), MOST_KEYS))
    return [one for part in parts for one in bodies_within(part, body, most_bytes)]


def read_wish(body: bytes) -> Wish | None:
    """Read wishes."""
    try:
        id_, shard, rows, is_new = loaded(body)
        need(type(is_new) is bool)
        wanted: list[StreamKey] = []
        unwanted: list[StreamKey] = []
        for row in read_list(rows, MOST_KEYS):
            symbol, interval, is_wanted = read_list(row, 3)
            (wanted if is_wanted is True else unwanted).append(read_key(symbol, interval))
        return Wish(read_text(id_), read_shard(shard), wanted, unwanted, is_new)
    except (Malformed, ValueError, TypeError):
        return None


def ask_body(id_: str, shard: Shard) -> bytes:
    """Write that a relay asks the owner of a shard for it."""
    return orjson.dumps([id_, str(shard)])


def read_ask(body: bytes) -> tuple[str, Shard] | None:
    """Read who asks for which shard."""
    try:
        id_, shard = loaded(body)
        return read_text(id_), read_shard(shard)
    except (Malformed, ValueError, TypeError):
        return None


def wait_body(id_: str, shard: Shard, seconds: float) -> bytes:
    """Write for how long a provider asked a relay to wait; the shard says of which provider, with which settings."""
    # Never too short: whoever hears it would ask a moment too early.
    return orjson.dumps([id_, str(shard), math.ceil(seconds * 10) / 10])


def read_wait(body: bytes) -> tuple[str, Shard, float] | None:
    """Read who was asked to wait, of what, and for how long."""
    try:
        id_, shard, seconds = loaded(body)
        return read_text(id_), read_shard(shard), read_seconds(seconds)
    except (Malformed, ValueError, TypeError):
        return None


def memory_body(id_: str, provider: str, value: Any) -> bytes:
    """Write what a provider saved."""
    return orjson.dumps([id_, provider, value])


def read_memory(body: bytes) -> tuple[str, str, Any] | None:
    """Read what a provider of another relay saved: any JSON, as in the file of its own."""
    try:
        id_, provider, value = loaded(body)
        return read_text(id_), read_text(provider), value
    except (Malformed, ValueError, TypeError):
        return None
