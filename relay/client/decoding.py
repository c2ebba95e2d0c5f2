"""Messages of the relay into values; no state, no I/O."""

import math
from typing import Any, Literal, NamedTuple, TypeAlias, cast

import orjson

from relay.client.messages import Connected, Gap, Outdated, Snapshot, State, Update
from relay.core.errors import Code, code_of
from relay.core.model import EXTRA_FIELDS, Candle, ExtendedCandle, StreamKey
from relay.protocol.server_messages import StreamState

MALFORMED = (LookupError, TypeError, ValueError, AttributeError, ArithmeticError)
"""What reading something else than expected raises."""
# In the year 6325: calendars end somewhat later.
_LATEST = 2**37


class Unreadable(Exception):
    """What came is no message of a relay."""


class Acceptance(NamedTuple):
    """The relay took a stream of a request, or its end; `key` is the canonical name."""

    request_id: int | None
    key: StreamKey
    action: Literal["subscribe", "unsubscribe"]
    wire: dict[str, Any]


class RefusedRequest(NamedTuple):
    """The relay refused a request, or one stream of it: then `key` is its name as the relay spells it."""

    request_id: int | None
    key: StreamKey | None
    code: Code | str
    message: str
    retry_after_s: float
    wire: dict[str, Any]


Said: TypeAlias = Connected | Acceptance | RefusedRequest | State | Snapshot | Update | Gap | Outdated


def decode(text: str) -> Said | None:
    """Return what a message says, None for one that this client does not know. Raises `Unreadable`."""
    try:
        wire = orjson.loads(text)
        if not isinstance(wire, dict):
            raise TypeError("a message is an object")
        return _read(wire)
    except MALFORMED as fault:
        raise Unreadable from fault


def read_candle(value: Any) -> Candle:
    """Return a candle as it stands in messages and answers. Raises `MALFORMED`."""
    candle = Candle(
        time=_moment(value["time"]),
        open=float(value["open"]),
        high=float(value["high"]),
        low=float(value["low"]),
        close=float(value["close"]),
        volume=float(value.get("volume") or 0.0),
    )
    if "trades" not in value:
        return candle
    trades = value["trades"]
    return ExtendedCandle(
        *candle,
        quote_volume=_number(value.get("quote_volume")),
        trades=None if trades is None else int(trades),
        taker_volume=_number(value.get("taker_volume")),
        taker_quote_volume=_number(value.get("taker_quote_volume")),
    )


def candle_object(candle: Candle) -> dict[str, float | None]:
    """Return a candle as it stands in messages."""
    fields: dict[str, float | None] = candle._asdict()
    if candle.extras is not None:
        fields |= {name: getattr(candle, name) for name in EXTRA_FIELDS}
    return fields


def _number(value: Any) -> float | None:
    return None if value is None else float(value)


def _read(wire: dict[str, Any]) -> Said | None:
    match wire.get("type"):
        case "price_update":
            return Update(
                key=_key(wire),
                candle=read_candle(wire["candle"]),
                is_closed=wire["is_closed"] is True,
                is_backfilled=wire.get("backfilled") is True,
                is_revised=wire.get("revised") is True,
                ts_event_ms=_whole(wire, "ts_event"),
                seq=_whole(wire, "seq"),
                wire=wire,
            )
        case "snapshot":
            return Snapshot(
                key=_key(wire),
                candles=tuple(map(read_candle, wire["candles"])),
                last_is_closed=bool(wire.get("last_is_closed")),
                is_complete=wire.get("complete") is not False,
                seq=_whole(wire, "seq"),
                wire=wire,
                revised=tuple(map(read_candle, wire.get("revised") or ())),
            )
        case "status" if wire.get("symbol") is not None:
            # A newer relay may have others; a client takes them as they are.
            return State(_key(wire), cast(StreamState, str(wire["status"])), str(wire.get("message") or ""), wire)
        case "status" if wire.get("status") == "connected":
            return Connected(str(wire.get("epoch") or ""), _moment(wire["server_time"]), wire)
        case "subscription":
            action: Literal["subscribe", "unsubscribe"] = (
                "unsubscribe" if wire.get("action") == "unsubscribe" else "subscribe"
            )
            return Acceptance(_whole(wire, "id"), _key(wire), action, wire)
        case "gap":
            return Gap(_key(wire), _moment(wire["from"]), _moment(wire["to"]), str(wire.get("reason") or ""), wire)
        case "outdated":
            return Outdated(_key(wire), _moment(wire["before"]), wire, _moment(wire.get("from") or 0))
        case "error":
            return RefusedRequest(
                request_id=_whole(wire, "id"),
                key=_key({"interval": "", **wire}) if wire.get("symbol") is not None else None,
                code=code_of(str(wire.get("code") or "")),
                message=str(wire.get("message") or ""),
                retry_after_s=_wait_s(wire.get("retry_after")),
                wire=wire,
            )
        case _:
            return None


def _key(wire: dict[str, Any]) -> StreamKey:
    symbol, interval = wire["symbol"], wire["interval"]
    if not isinstance(symbol, str) or not isinstance(interval, str):
        raise TypeError("a stream is named by two strings")
    return StreamKey(symbol, interval)


def _whole(wire: dict[str, Any], field: str) -> int | None:
    value = wire.get(field)
    return value if isinstance(value, int) else None


def _moment(value: Any) -> int:
    time = int(value)
    if not 0 <= time < _LATEST:
        raise ValueError("not a valid time")
    return time


def _wait_s(value: Any) -> float:
    wait_s = float(value or 0.0)
    if not math.isfinite(wait_s):
        raise ValueError("not a finite number of seconds")
    return max(0.0, wait_s)
