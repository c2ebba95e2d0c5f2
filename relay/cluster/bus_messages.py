"""What relays tell each other, as bytes and as values; what makes no sense on arrival is None. Pure.

Anybody who may write to the bus can send anything. Here only the form is judged: that all is there, of the right type
and not too much. Whether a candle makes sense is judged where those of providers are, at the border.
"""

import math
import zlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import orjson

from relay.cluster.shards import MOST_SHARDS, Shard, parse_shard
from relay.core.errors import (
    AuthenticationFailed,
    BadAnswer,
    ProviderError,
    ProviderTimeout,
    ProviderUnavailable,
    RateLimited,
    UnknownSymbol,
)
from relay.core.intervals import INTERVALS
from relay.core.model import Candle, CandleExtras, Instrument, PriceUpdate, StreamKey, extend
from relay.core.past_change import PastChange
from relay.core.written_numbers import WrittenCandle
from relay.plugins.validation import fault_of_extras

MOST_ITEMS = 20_000
MOST_KEYS = 5_000
"""Streams of one message of wishes; more of them go in several."""
MOST_ROWS = 20_000
MOST_CLAIMS = MOST_SHARDS * 64
MOST_BYTES = 8 * 2**20
"""What an answer may unfold to."""
_LONGEST = 100
_LONGEST_TEXT = 1_000
_FOLDS_FROM = 4_096
_PLAIN, _FOLDED = b"0", b"1"
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


class HistoryCall(NamedTuple):
    """What one relay asks of another's history."""

    provider: str
    key: StreamKey
    start: int | None
    end: int
    limit: int


# -- reading -----------------------------------------------------------------------------------------


class _NoSense(Exception):
    """A value is not of the form that relays send."""


def _is(good: bool) -> None:
    if not good:
        raise _NoSense


def _text(value: Any, longest: int = _LONGEST) -> str:
    _is(isinstance(value, str) and len(value) <= longest)
    return value  # type: ignore[no-any-return]


def _whole(value: Any) -> int:
    _is(type(value) is int and -(2**62) < value < 2**62)
    return value  # type: ignore[no-any-return]


def _seconds(value: Any) -> float:
    _is(type(value) in (int, float) and -1e12 < value < 1e12)
    return float(value)


def _list(value: Any, most: int) -> list[Any]:
    _is(isinstance(value, list) and len(value) <= most)
    return value  # type: ignore[no-any-return]


def _key(symbol: Any, interval: Any) -> StreamKey:
    _is(isinstance(interval, str) and interval in INTERVALS)
    return StreamKey(_text(symbol), interval)


def _shard(value: Any) -> Shard:
    shard = parse_shard(value)
    _is(shard is not None)
    assert shard is not None
    return shard


def _loaded(body: bytes) -> list[Any]:
    _is(len(body) <= MOST_BYTES)
    return _list(orjson.loads(body), MOST_ITEMS)


def _number(value: Any) -> float:
    # NaN is null in JSON: a candle that cannot be read stays one.
    if value is None:
        return math.nan
    _is(type(value) in (int, float))
    return float(value)


def _candle(values: Sequence[Any]) -> Candle:
    time, *numbers, given = values
    candle = Candle(_whole(time), *map(_number, numbers))
    if given is None:
        return candle
    quote_volume, trades, taker_volume, taker_quote_volume, written, *trade_ids = _list(given, 7)
    for one in (quote_volume, taker_volume, taker_quote_volume):
        _is(one is None or type(one) in (int, float))
    _is(trades is None or type(trades) is int)
    extras = CandleExtras(
        quote_volume, trades, taker_volume, taker_quote_volume, None if written is None else _text(written, 400)
    )
    extended = extend(candle, extras)
    if not trade_ids or fault_of_extras(extended) is not None:
        return extended
    # The border trusts what such a candle says of itself, so it is judged here.
    found = tuple.__new__(WrittenCandle, candle)
    first, last = map(_whole, trade_ids)
    found.given, found.trade_ids = extras, (first, last)
    return found


def _row(candle: Candle) -> list[Any]:
    extras = candle.extras
    trade_ids = candle.trade_ids if isinstance(candle, WrittenCandle) else None
    return [*candle, None if extras is None else [*extras, *(trade_ids or ())]]


# -- what owners tell ----------------------------------------------------------------------------------


def news_body(sender: str, number: int, items: Iterable[tuple[StreamKey, Item]]) -> bytes:
    """Write what an owner tells of a shard."""
    rows: list[list[Any]] = []
    for (symbol, interval), item in items:
        if isinstance(item, PriceUpdate):
            rows.append([0, symbol, interval, item.is_closed, item.ts_event_ms, *_row(item.candle)])
        elif isinstance(item, StateTold):
            rows.append([1, symbol, interval, item.status, item.message[:_LONGEST_TEXT]])
        elif isinstance(item, PlanTold):
            rows.append([2, symbol, interval, item.in_s, item.every_s])
        else:
            rows.append([3, symbol, interval, item.before, item.after, item.one_interval, item.settle_s])
    return orjson.dumps([sender, number, rows])


def read_news(body: bytes) -> ShardNews | None:
    """Read what an owner tells."""
    try:
        sender, number, rows = _loaded(body)
        return ShardNews(_text(sender), _whole(number), [_read_item(row) for row in _list(rows, MOST_ITEMS)])
    except (_NoSense, ValueError, TypeError, OverflowError):
        return None


def _read_item(row: Any) -> tuple[StreamKey, Item]:
    kind, symbol, interval, *rest = _list(row, 16)
    key = _key(symbol, interval)
    match kind:
        case 0:
            is_closed, stamp_ms, *values = rest
            _is(type(is_closed) is bool)
            return key, PriceUpdate(key, _candle(values), is_closed, None if stamp_ms is None else _whole(stamp_ms))
        case 1:
            status, message = rest
            _is(isinstance(status, str) and status in _STATES)
            return key, StateTold(status, _text(message, _LONGEST_TEXT))
        case 2:
            in_s, every_s = rest
            return key, PlanTold(_seconds(in_s), None if every_s is None else _seconds(every_s))
        case 3:
            before, after, one_interval, settle_s = rest
            change = PastChange(key, before, after, one_interval, _seconds(settle_s))
            _is(type(one_interval) is bool)
            change.check()
            return key, change
        case _:
            raise _NoSense


# -- what relays tell of themselves ----------------------------------------------------------------------


def heartbeat_body(beat: Heartbeat) -> bytes:
    """Write a heartbeat."""
    claims = [[str(shard), *claim] for shard, claim in beat.claims.items()]
    return orjson.dumps([beat.id, beat.node, beat.sent_at, [*map(str, beat.able)], claims, beat.is_leaving])


def read_heartbeat(body: bytes) -> Heartbeat | None:
    """Read a heartbeat."""
    try:
        id_, node, sent_at, able, claims, is_leaving = _loaded(body)
        found = {}
        for claim in _list(claims, MOST_CLAIMS):
            shard, revision, is_live, is_held = _list(claim, 4)
            _is(type(is_live) is bool and type(is_held) is bool)
            found[_shard(shard)] = ClaimTold(_whole(revision), is_live, is_held)
        _is(type(is_leaving) is bool)
        shards = frozenset(map(_shard, _list(able, MOST_CLAIMS)))
        return Heartbeat(_text(id_), _text(node), _seconds(sent_at), shards, found, is_leaving)
    except (_NoSense, ValueError, TypeError):
        return None


def wish_bodies(
    id_: str, shard: Shard, wanted: Iterable[StreamKey], unwanted: Iterable[StreamKey] = (), *, is_new: bool
) -> list[bytes]:
    """Write wishes, in as many messages as they need."""
    rows = [*([*key, True] for key in wanted), *([*key, False] for key in unwanted)]
    return [orjson.dumps([id_, str(shard), rows[at : at + MOST_KEYS], is_new]) for at in range(0, len(rows), MOST_KEYS)]


def read_wish(body: bytes) -> Wish | None:
    """Read wishes."""
    try:
        id_, shard, rows, is_new = _loaded(body)
        _is(type(is_new) is bool)
        wanted: list[StreamKey] = []
        unwanted: list[StreamKey] = []
        for row in _list(rows, MOST_KEYS):
            symbol, interval, is_wanted = _list(row, 3)
            (wanted if is_wanted is True else unwanted).append(_key(symbol, interval))
        return Wish(_text(id_), _shard(shard), wanted, unwanted, is_new)
    except (_NoSense, ValueError, TypeError):
        return None


def ask_body(id_: str, shard: Shard) -> bytes:
    """Write that a relay asks the owner of a shard for it."""
    return orjson.dumps([id_, str(shard)])


def read_ask(body: bytes) -> tuple[str, Shard] | None:
    """Read who asks for which shard."""
    try:
        id_, shard = _loaded(body)
        return _text(id_), _shard(shard)
    except (_NoSense, ValueError, TypeError):
        return None


def memory_body(id_: str, provider: str, value: Any) -> bytes:
    """Write what a provider saved."""
    return orjson.dumps([id_, provider, value])


def read_memory(body: bytes) -> tuple[str, str, Any] | None:
    """Read what a provider of another relay saved: any JSON, as in the file of its own."""
    try:
        id_, provider, value = _loaded(body)
        return _text(id_), _text(provider), value
    except (_NoSense, ValueError, TypeError):
        return None


# -- history ---------------------------------------------------------------------------------------------

_ERRORS: dict[str, type[ProviderError]] = {
    "auth": AuthenticationFailed,
    "unavailable": ProviderUnavailable,
    "timeout": ProviderTimeout,
    "unknown": UnknownSymbol,
    "bad": BadAnswer,
}


def history_body(call: HistoryCall) -> bytes:
    """Write a question about history."""
    return orjson.dumps(["candles", call.provider, *call.key, call.start, call.end, call.limit])


def instruments_body(provider: str) -> bytes:
    """Write a question for what a provider lists."""
    return orjson.dumps(["instruments", provider])


def read_question(body: bytes) -> HistoryCall | str | None:
    """Read a question: of history, or the name of a provider whose list is asked for."""
    try:
        match _loaded(body):
            case ["candles", provider, symbol, interval, start, end, limit]:
                first = None if start is None else _whole(start)
                _is(type(limit) is int and 0 < limit <= MOST_ROWS)
                return HistoryCall(_text(provider), _key(symbol, interval), first, _whole(end), limit)
            case ["instruments", provider]:
                return _text(provider)
            case _:
                return None
    except (_NoSense, ValueError, TypeError):
        return None


def candles_answer(candles: Iterable[Candle], open_time: int | None) -> bytes:
    """Write candles, of which the one at `open_time` is open."""
    return _folded(orjson.dumps([open_time, [_row(candle) for candle in candles]]))


def instruments_answer(instruments: Iterable[Instrument]) -> bytes:
    """Write what a provider lists."""
    return _folded(orjson.dumps([None, [[*one] for one in instruments]], default=dict))


def error_answer(error: ProviderError) -> bytes:
    """Write why there is no answer, as clients may read it."""
    if isinstance(error, RateLimited):
        return _folded(orjson.dumps(["limited", str(error)[:_LONGEST_TEXT], error.retry_after]))
    name = next((name for name, kind in _ERRORS.items() if isinstance(error, kind)), "unavailable")
    return _folded(orjson.dumps([name, str(error)[:_LONGEST_TEXT], None]))


def read_candles(body: bytes) -> tuple[list[Candle], int | None]:
    """Read candles, and when the one opened that is open. Raises `ProviderError`, as the other relay did."""
    try:
        open_time, rows = _answer(body)
        candles = []
        for row in _list(rows, MOST_ROWS):
            _is(len(_list(row, 7)) == 7)
            candles.append(_candle(row))
        return candles, None if open_time is None else _whole(open_time)
    except (_NoSense, ValueError, TypeError, OverflowError, zlib.error):
        raise BadAnswer("the answer of another relay is invalid") from None


def read_instruments(body: bytes) -> list[Instrument]:
    """Read what a provider lists. Raises `ProviderError`, as the other relay did."""
    try:
        found = []
        for row in _list(_answer(body)[1], 200_000):
            _is(len(_list(row, len(Instrument._fields))) == len(Instrument._fields))
            one = Instrument(*row)
            found.append(one._replace(intervals=None if one.intervals is None else tuple(one.intervals)))
        return found
    except (_NoSense, ValueError, TypeError, zlib.error):
        raise BadAnswer("the answer of another relay is invalid") from None


def _answer(body: bytes) -> list[Any]:
    answer = orjson.loads(_unfolded(body))
    if isinstance(answer, list) and len(answer) == 3:
        name, text, retry_after = answer
        if name == "limited":
            raise RateLimited(_text(text, _LONGEST_TEXT), max(0.0, _seconds(retry_after)))
        raise _ERRORS.get(_text(name), ProviderUnavailable)(_text(text, _LONGEST_TEXT))
    found = _list(answer, 2)
    _is(len(found) == 2)
    return found


def _folded(body: bytes) -> bytes:
    return _PLAIN + body if len(body) < _FOLDS_FROM else _FOLDED + zlib.compress(body, 1)


def _unfolded(body: bytes) -> bytes:
    if not body.startswith(_FOLDED):
        return body[1:]
    unfolding = zlib.decompressobj()
    found = unfolding.decompress(body[1:], MOST_BYTES)
    _is(unfolding.eof)
    return found
