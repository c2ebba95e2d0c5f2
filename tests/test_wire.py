"""Client messages: what is encoded can be read by anybody, and no input breaks the checks."""

from collections.abc import Callable
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay import wire
from relay.errors import Code, RequestError
from relay.intervals import INTERVALS, parse_interval
from relay.model import Candle, PriceUpdate, StreamKey

KEY = StreamKey("BTCUSDT", "1m")
CANDLE = Candle(1_764_000_000, 1.0, 2.0, 0.5, 1.5, 10.0)


def unframed(data: bytes) -> tuple[int, bytes]:
    """Read one unmasked frame by the book (RFC 6455 section 5.2); return its first byte and its content."""
    size, at = data[1], 2
    if size == 126:
        size, at = int.from_bytes(data[2:4], "big"), 4
    elif size == 127:
        size, at = int.from_bytes(data[2:10], "big"), 10
    assert len(data) == at + size
    return data[0], data[at:]


def fault_of(parse: Callable[[Any], object], value: object) -> RequestError | None:
    try:
        parse(value)
    except RequestError as fault:
        return fault
    return None


def whole(text: bytes) -> wire.Request:
    request = wire.parse_request(wire.parse_object(text))
    for name in request.names:
        wire.parse_target(name)
    return request


def message_of(data: bytes) -> Any:
    first, text = unframed(data)
    assert first == 0x81
    return orjson.loads(text)


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 65_535, 65_536, 200_000])
def test_frame_carries_its_length_in_the_shortest_way(size: int) -> None:
    data = wire.frame(b"x" * size)
    assert unframed(data) == (0x81, b"x" * size)
    assert len(data) - size == (2 if size < 126 else 4 if size < 65_536 else 10)


def test_close_frame_carries_code_and_reason() -> None:
    assert unframed(wire.close_frame(1001, "server shutdown")) == (0x88, b"\x03\xe9server shutdown")
    assert len(wire.close_frame(4000, "x" * 200)) == 127


def test_price_update_has_the_fields_of_the_contract() -> None:
    update = PriceUpdate(KEY, CANDLE, is_closed=True, ts_event_ms=1_764_000_001_234)
    assert message_of(wire.price_update("BTCUSDT", "1m", update, 42)) == {
        "type": "price_update",
        "symbol": "BTCUSDT",
        "interval": "1m",
        "candle": {"time": 1_764_000_000, "open": 1.0, "high": 2.0, "low": 0.5, "close": 1.5, "volume": 10.0},
        "is_closed": True,
        "seq": 42,
        "ts_event": 1_764_000_001_234,
    }


def test_marks_are_there_only_when_true() -> None:
    plain = message_of(wire.price_update("X", "1m", PriceUpdate(KEY, CANDLE), 1))
    assert plain["ts_event"] is None
    assert not {"backfilled", "revised"} & set(plain)
    update = PriceUpdate(KEY, CANDLE, is_closed=True, is_backfilled=True, is_revised=True)
    marked = message_of(wire.price_update("X", "1m", update, 1))
    assert (marked["backfilled"], marked["revised"]) == (True, True)


def test_gap_snapshot_and_status_have_the_fields_of_the_contract() -> None:
    assert message_of(wire.gap("X", "1m", 60, 180, "why")) == {
        "type": "gap", "symbol": "X", "interval": "1m", "from": 60, "to": 180, "reason": "why",
    }  # fmt: skip
    snapshot = message_of(wire.snapshot("X", "1m", [CANDLE], last_is_closed=False, complete=True, seq=5))
    assert set(snapshot) == {"type", "symbol", "interval", "candles", "last_is_closed", "complete", "seq"}
    assert message_of(wire.stream_status("X", "1m", "stale", "why")) == {
        "type": "status", "status": "stale", "symbol": "X", "interval": "1m", "message": "why",
    }  # fmt: skip


@pytest.mark.parametrize("text", ["1m", "1M", "1s", *INTERVALS])
def test_canonical_intervals_stay_as_they_are(text: str) -> None:
    assert parse_interval(text) == text


@pytest.mark.parametrize(
    ("text", "name"), [("1H", "1h"), ("4H", "4h"), ("12H", "12h"), ("1D", "1d"), ("3D", "3d"), ("1W", "1w")]
)
def test_upper_case_intervals_are_taken(text: str, name: str) -> None:
    assert parse_interval(text) == name


@pytest.mark.parametrize("text", ["", "m", "3M", "15M", "01m", " 1m", "1m ", "1min", "1\u0131", "7d"])
def test_other_intervals_are_unknown(text: str) -> None:
    with pytest.raises(RequestError, match="use one of 1s 1m") as refused:
        parse_interval(text)
    assert refused.value.code is Code.UNKNOWN_INTERVAL


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        ("btcusdt", (None, "BTCUSDT")),
        ("Binance:btcusdt", ("binance", "BTCUSDT")),
        ("EUR/usd", (None, "EUR/USD")),
        ("brk.b", (None, "BRK.B")),
        ("1000sats-usd_t", (None, "1000SATS-USD_T")),
        ("币安人生usdt", (None, "币安人生USDT")),
        ("A" * 48, (None, "A" * 48)),
    ],
)
def test_symbols_are_upper_case_and_may_be_pinned(text: str, parsed: tuple[str | None, str]) -> None:
    assert wire.parse_symbol(text) == parsed


@pytest.mark.parametrize(
    "text", ["", "A" * 49, "_A", "/A", ".A", ":A", "-A", "A B", "A@B", "A\n", "A\0", "A$", "😀", "A,B", "A%2F"]
)
def test_other_texts_are_no_symbols(text: str) -> None:
    with pytest.raises(RequestError, match="48 letters") as refused:
        wire.parse_symbol(text)
    assert refused.value.code is Code.UNKNOWN_SYMBOL


@given(st.text(max_size=300))
def test_any_symbol_is_taken_or_refused_by_a_short_printable_message(text: str) -> None:
    fault = fault_of(wire.parse_symbol, text)
    if fault is None:
        assert wire.parse_symbol(text)[1] == wire.parse_symbol(text)[1].upper()
    else:
        assert fault.message.isprintable()
        assert len(fault.message) < 300


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=20),
    lambda children: st.lists(children, max_size=4) | st.dictionaries(st.text(max_size=8), children, max_size=4),
    max_leaves=12,
)
REQUESTS = st.fixed_dictionaries(
    {},
    optional={
        "action": st.sampled_from(wire.ACTIONS) | JSON,
        "id": JSON,
        "symbol": st.text(max_size=60) | JSON,
        "interval": st.sampled_from(INTERVALS) | JSON,
        "streams": st.lists(st.text(max_size=60) | JSON, max_size=5) | JSON,
        "bars": st.integers(-1, 6000) | JSON,
        "since": JSON,
        "throttle_ms": JSON,
        "closed_only": JSON,
    },
)


@given(REQUESTS | JSON)
def test_any_message_is_a_request_or_an_error_of_the_contract(value: Any) -> None:
    try:
        text = orjson.dumps(value)
    except TypeError:
        return
    fault = fault_of(whole, text)
    if fault is not None:
        answer = message_of(wire.error(fault, 7))
        assert (answer["type"], answer["id"]) == ("error", 7)
        assert answer["code"] in {
            "invalid_json", "invalid_request", "unknown_action", "unknown_symbol", "unknown_interval",
        }  # fmt: skip
        assert len(answer["message"]) < 500
    else:
        request = whole(text)
        assert request.action in wire.ACTIONS
        assert 0 <= (request.past.bars or 0) <= 5000
        assert 0 <= request.options.throttle_ms <= 60_000


@given(st.binary(max_size=100))
def test_any_bytes_are_an_object_or_an_error(data: bytes) -> None:
    fault = fault_of(wire.parse_object, data)
    assert fault is None or fault.code in (Code.INVALID_JSON, Code.INVALID_REQUEST)


def test_null_means_that_an_option_is_not_given() -> None:
    request = wire.parse_request(
        {"action": "subscribe", "symbol": "X", "interval": "1m", "bars": None, "since": None, "throttle_ms": None,
         "closed_only": None, "id": None, "streams": None}
    )  # fmt: skip
    assert request == wire.Request("subscribe", None, (("X", "1m"),))


def test_unknown_fields_are_ignored() -> None:
    assert wire.parse_request({"action": "ping", "colour": "red"}) == wire.Request("ping")


def test_a_stream_named_twice_counts_once() -> None:
    request = wire.parse_request({"action": "subscribe", "streams": ["A@1m", "A@1m", "B@1m"]})
    assert request.names == (("A@1m", ""), ("B@1m", ""))
