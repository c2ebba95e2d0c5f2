"""What the relay says: any client can read it, and it has the fields of the contract."""

from typing import Any

import orjson
import pytest

from relay.core.errors import Code, RequestError
from relay.core.model import Candle, ExtendedCandle, PriceUpdate, StreamKey
from relay.protocol import frames as wire

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
    assert "revision" not in marked
    assert message_of(wire.price_update("X", "1m", update, 1, 17))["revision"] == 17


def test_gap_snapshot_and_status_have_the_fields_of_the_contract() -> None:
    assert message_of(wire.gap("X", "1m", 60, 180, "why")) == {
        "type": "gap", "symbol": "X", "interval": "1m", "from": 60, "to": 180, "reason": "why",
    }  # fmt: skip
    said: dict[str, Any] = {"provider": "p", "last_is_closed": False, "complete": True, "seq": 5, "revision": 17}
    names = {"type", "symbol", "interval", "candles", *said}
    assert set(message_of(wire.snapshot("X", "1m", [CANDLE], **said))) == names
    resumed = message_of(wire.snapshot("X", "1m", [CANDLE], **said, revised=[CANDLE], revisions_known=False))
    assert set(resumed) == {*names, "revised", "revisions_known"}
    assert (resumed["revised"], resumed["revisions_known"]) == ([CANDLE._asdict()], False)
    assert message_of(wire.stream_status("X", "1m", "stale", "why")) == {
        "type": "status", "status": "stale", "symbol": "X", "interval": "1m", "message": "why",
    }  # fmt: skip


@pytest.mark.parametrize(("wait_s", "said"), [(0.001, 0.1), (0.1, 0.1), (2.41, 2.5), (60.0, 60.0)])
def test_who_waits_as_long_as_an_error_says_has_waited_long_enough(wait_s: float, said: float) -> None:
    fault = RequestError(Code.RATE_LIMITED, "too much", retry_after=wait_s)
    assert message_of(wire.error(fault, None))["retry_after"] == said


EXTENDED = ExtendedCandle(*CANDLE, quote_volume=15.0, trades=3, taker_volume=4.0, taker_quote_volume=6.5)
FULL = CANDLE._asdict() | {"quote_volume": 15.0, "trades": 3, "taker_volume": 4.0, "taker_quote_volume": 6.5}
BARE = CANDLE._asdict() | {"quote_volume": None, "trades": None, "taker_volume": None, "taker_quote_volume": None}


@pytest.mark.parametrize("is_closed", [False, True])
def test_without_extended_a_candle_that_carries_more_is_said_as_any_other(is_closed: bool) -> None:
    plain, extended = (PriceUpdate(KEY, candle, is_closed, 5) for candle in (CANDLE, EXTENDED))
    assert wire.price_update("X", "1m", extended, 1) == wire.price_update("X", "1m", plain, 1)
    said = [
        wire.snapshot(
            "X", "1m", [one], provider="p", last_is_closed=True, complete=True, seq=1, revision=2, revised=[one]
        )
        for one in (CANDLE, EXTENDED)
    ]
    assert said[0] == said[1]


def test_extended_candles_have_four_more_values_null_where_they_are_not_known() -> None:
    update = PriceUpdate(KEY, EXTENDED, True, 5, is_revised=True)
    plain = wire.price_update("X", "1m", update, 1, 2)
    assert message_of(wire.extended(plain, EXTENDED)) == message_of(plain) | {"candle": FULL}
    assert message_of(wire.extended(plain, CANDLE)) == message_of(plain) | {"candle": BARE}
    assert list(message_of(wire.extended(plain, EXTENDED))["candle"]) == list(FULL)
    snapshot = message_of(
        wire.snapshot(
            "X", "1m", [EXTENDED, CANDLE], provider="p", last_is_closed=True, complete=True, seq=1, revision=2,
            revised=[EXTENDED], is_extended=True,
        )
    )  # fmt: skip
    assert (snapshot["candles"], snapshot["revised"]) == ([FULL, BARE], [FULL])
