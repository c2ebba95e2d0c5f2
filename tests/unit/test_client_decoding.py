"""What the client reads from messages of the relay."""

from typing import Any

import orjson
import pytest

from relay.client import Connected, Gap, Snapshot, State, Update
from relay.client.decoding import Acceptance, RefusedRequest, Unreadable, candle_object, decode
from relay.core.model import EXTRA_FIELDS, Candle, ExtendedCandle, StreamKey

BTC = StreamKey("BTCUSDT", "1m")
NAMES = {"symbol": "BTCUSDT", "interval": "1m"}
CANDLE = {"time": 60, "open": 1, "high": 2.5, "low": 0.5, "close": 2, "volume": 7}
UPDATE = {"type": "price_update", **NAMES, "candle": CANDLE, "is_closed": True, "seq": 4, "ts_event": 61_000}


def read(wire: object) -> object:
    return decode(orjson.dumps(wire).decode())


@pytest.mark.parametrize(
    ("wire", "value"),
    [
        (UPDATE, Update(BTC, Candle(60, 1.0, 2.5, 0.5, 2.0, 7.0), True, False, False, 61_000, 4, UPDATE)),
        (
            wire := {"type": "snapshot", **NAMES, "candles": [CANDLE], "last_is_closed": False, "complete": False},
            Snapshot(BTC, (Candle(60, 1.0, 2.5, 0.5, 2.0, 7.0),), False, False, None, wire),
        ),
        (
            wire := {"type": "status", "status": "stale", "message": "silent", **NAMES},
            State(BTC, "stale", "silent", wire),
        ),
        (
            wire := {"type": "status", "status": "connected", "epoch": "e1", "server_time": 9},
            Connected("e1", 9, wire),
        ),
        (wire := {"type": "gap", **NAMES, "from": 60, "to": 180, "reason": "lost"}, Gap(BTC, 60, 180, "lost", wire)),
        (
            wire := {"type": "subscription", "action": "subscribe", **NAMES, "id": 3},
            Acceptance(3, BTC, "subscribe", wire),
        ),
        (
            wire := {"type": "error", "code": "unknown_symbol", "message": "no", **NAMES, "id": 3},
            RefusedRequest(3, BTC, "unknown_symbol", "no", 0.0, wire),
        ),
        (
            wire := {"type": "error", "code": "rate_limited", "message": "slow", "retry_after": 1.5},
            RefusedRequest(None, None, "rate_limited", "slow", 1.5, wire),
        ),
        (
            wire := {"type": "error", "code": "unknown_symbol", "message": "no", "symbol": "X"},
            RefusedRequest(None, StreamKey("X", ""), "unknown_symbol", "no", 0.0, wire),
        ),
    ],
)
def test_message_becomes_a_value(wire: Any, value: object) -> None:
    assert read(wire) == value


@pytest.mark.parametrize("mark", ["is_backfilled", "is_revised"])
def test_marks_of_an_update(mark: str) -> None:
    update = read({**UPDATE, mark.removeprefix("is_"): True})
    assert isinstance(update, Update)
    assert [update.is_backfilled, update.is_revised] == [mark == "is_backfilled", mark == "is_revised"]


@pytest.mark.parametrize(
    ("extras", "values"),
    [
        ({"quote_volume": 14, "trades": 3, "taker_volume": 1.5, "taker_quote_volume": 3}, (14.0, 3, 1.5, 3.0)),
        (dict.fromkeys(EXTRA_FIELDS), (None,) * 4),
        ({"trades": 0}, (None, 0, None, None)),
    ],
)
def test_an_extended_candle_has_typed_values(extras: dict[str, Any], values: tuple[Any, ...]) -> None:
    update = read({**UPDATE, "candle": {**CANDLE, **extras}})
    assert isinstance(update, Update)
    candle = update.candle
    assert isinstance(candle, ExtendedCandle)
    found = (candle.quote_volume, candle.trades, candle.taker_volume, candle.taker_quote_volume)
    assert (found, candle) == (values, Candle(60, 1.0, 2.5, 0.5, 2.0, 7.0))
    assert [type(one) for one in found] == [type(one) for one in values]
    assert candle_object(candle) == {**candle._asdict(), **dict(zip(EXTRA_FIELDS, values, strict=True))}


def test_a_plain_candle_has_no_more_values() -> None:
    update = read(UPDATE)
    assert isinstance(update, Update)
    assert (update.candle.extras, update.candle.trades) == (None, None)
    assert candle_object(update.candle) == update.candle._asdict()


@pytest.mark.parametrize("extras", [{"trades": "x"}, {"trades": 1, "quote_volume": []}, {"trades": {}}])
def test_extras_that_are_no_numbers_are_told_apart(extras: dict[str, Any]) -> None:
    with pytest.raises(Unreadable):
        read({**UPDATE, "candle": {**CANDLE, **extras}})


def test_candle_without_volume_has_none() -> None:
    update = read({**UPDATE, "candle": {name: value for name, value in CANDLE.items() if name != "volume"}})
    assert isinstance(update, Update)
    assert update.candle.volume == 0.0


@pytest.mark.parametrize("wire", [{"type": "weather"}, {"type": "pong"}, {"type": "status", "status": "busy"}, {}])
def test_message_of_a_kind_unknown_is_nothing(wire: object) -> None:
    assert read(wire) is None


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        "null",
        '{"type":"price_update"}',
        '{"type":"snapshot","symbol":"BTCUSDT","interval":"1m"}',
        '{"type":"snapshot","symbol":"BTCUSDT","interval":"1m","candles":[[]]}',
        '{"type":"gap","symbol":"BTCUSDT","interval":1,"from":1,"to":2}',
        '{"type":"gap","symbol":"BTCUSDT","interval":"1m","from":"x","to":2}',
        '{"type":"error","symbol":["BTCUSDT"],"interval":"1m"}',
        '{"type":"status","status":"connected"}',
    ],
)
def test_message_that_makes_no_sense_is_told_apart(text: str) -> None:
    with pytest.raises(Unreadable):
        decode(text)


KINDS = ["price_update", "snapshot", "status", "subscription", "gap", "error"]
WHOLE = {**UPDATE, "candles": [CANDLE], "last_is_closed": True, "status": "connected", "server_time": 1, "from": 1}
WHOLE |= {"to": 2, "action": "subscribe", "id": 1, "code": "internal", "message": "m", "retry_after": 1}
STRANGE: list[Any] = [
    None,
    True,
    -1,
    2**64 - 1,
    1.5,
    1e308,
    "",
    "x",
    "7",
    [],
    {},
    [None],
    [[]],
    {"time": []},
    {"time": 1},
]


@pytest.mark.parametrize("kind", KINDS)
def test_whatever_stands_in_a_field_there_is_a_value_or_none_to_be_read(kind: str) -> None:
    read_somehow = 0
    for field in WHOLE:
        without = {name: value for name, value in WHOLE.items() if name != field}
        for wire in [without, *({**WHOLE, field: value} for value in STRANGE)]:
            try:
                said = read({**wire, "type": kind})
            except Unreadable:
                continue
            read_somehow += 1
            assert not isinstance(said, Update | Snapshot) or said.seq is None or isinstance(said.seq, int)
            hash(getattr(said, "key", None))
    assert read_somehow > len(WHOLE)


@pytest.mark.parametrize("kind", [{"type": "subscription", "action": "subscribe"}, {"type": "snapshot", "candles": []}])
def test_a_message_says_who_it_comes_from_where_the_relay_does(kind: dict[str, object]) -> None:
    for provider in ({}, {"provider": "binance"}):
        said = decode(orjson.dumps({**kind, **NAMES, **provider}).decode())
        assert isinstance(said, Acceptance | Snapshot)
        assert said.wire.get("provider") == provider.get("provider")
        if isinstance(said, Snapshot):
            assert said.provider == provider.get("provider", "")
