"""What clients ask on the WebSocket: which fields each request has, and how it is read; no I/O."""

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import orjson

from relay.core.errors import Code, RequestError
from relay.core.intervals import parse_interval
from relay.core.model import PriceUpdate
from relay.protocol.fields import (
    Field,
    Flag,
    Identity,
    IntervalText,
    Moment,
    Names,
    Spans,
    Text,
    Whole,
    shown,
)
from relay.protocol.symbol_names import NAME_LENGTH, SYMBOL, parse_symbol

MOST_STREAMS_PER_REQUEST = 100
MOST_GAPS_PER_REQUEST = 50
MOST_BARS = 5000

ID = Field("id", Identity(), "Returned in the answers to the request.", example=7)
SYMBOL_FIELD = Field(
    "symbol",
    Text(SYMBOL, "BTCUSDT"),
    "As the provider writes it; `binance:BTCUSDT` names the provider, too.",
    example="BTCUSDT",
)
INTERVAL_FIELD = Field("interval", IntervalText(), "Length of the candles; `1m` a minute, `1M` a month.", example="1m")
STREAMS = Field(
    "streams",
    Names(MOST_STREAMS_PER_REQUEST),
    "Several streams by name. Each gets its own answer; an error in one does not affect the others.",
    example=["BTCUSDT@1m", "EUR/USD@1h"],
)
BARS = Field("bars", Whole(0, MOST_BARS), "Start with the last N candles, including the open one.", example=300)
SINCE = Field(
    "since",
    Moment(),
    "Start with every candle that opened after this time (Unix seconds); with `bars`, at most the last N of them.",
    example=1_764_000_000,
)
REVISION = Field(
    "revision",
    Whole(0, 2**53),
    "With `since`: also candles up to it that were revised after this number, the last `revision` that was received.",
    example=1_764_000_000_000_017,
)
STORE = Field(
    "store",
    Text({"type": "string", "minLength": 1}, "5be1d2c90f7a3e64"),
    "With `revision`: the `store` that the relay named at the beginning of the connection on which the number came. "
    "If it is another relay's, all revisions count as unknown.",
    example="5be1d2c90f7a3e64",
)
GAPS = Field(
    "gaps",
    Spans(MOST_GAPS_PER_REQUEST),
    "With `since`: also candles in these gaps up to it that are available now; a gap is its `from` and `to`.",
    example=[[1_763_999_400, 1_763_999_700]],
)
THROTTLE_MS = Field(
    "throttle_ms", Whole(0, 60_000), "At most one update of an open candle in this number of milliseconds.", example=250
)
CLOSED_ONLY = Field("closed_only", Flag(), "Closed candles only.", example=True)
EXTENDED = Field(
    "extended",
    Flag(),
    "Candles also carry `quote_volume`, `trades`, `taker_volume` and `taker_quote_volume`; null if not known.",
    example=True,
)

ACTIONS: Mapping[str, tuple[Field[Any], ...]] = {
    "subscribe": (
        ID,
        SYMBOL_FIELD,
        INTERVAL_FIELD,
        STREAMS,
        BARS,
        SINCE,
        REVISION,
        STORE,
        GAPS,
        THROTTLE_MS,
        CLOSED_ONLY,
        EXTENDED,
    ),
    "unsubscribe": (ID, SYMBOL_FIELD, INTERVAL_FIELD, STREAMS),
    "list": (ID,),
    "ping": (ID,),
}
"""The requests there are, and the fields that each may have beside `action`."""

_MODIFIERS = frozenset(field.name for field in (BARS, SINCE, REVISION, STORE, GAPS, THROTTLE_MS, CLOSED_ONLY, EXTENDED))


class UpdateForm(Protocol):
    """One way to write updates in another protocol than the relay's own. There is one object of each form."""

    def frame(self, update: PriceUpdate, now_ms: int) -> bytes | None:
        """Return the frame of an update at `now_ms` of the provider's time; None where it cannot be written so."""


class SubscribeOptions(NamedTuple):
    """How one subscription wants its updates: at most one open candle per `throttle_ms`, or closed candles only.

    `extended` candles also carry what `CandleExtras` has. With a `form` of another protocol nothing else is sent but
    updates, and none of those that revise a candle.
    """

    throttle_ms: int = 0
    closed_only: bool = False
    extended: bool = False
    form: UpdateForm | None = None


PLAIN = SubscribeOptions()


class PastWanted(NamedTuple):
    """What a subscription wants first: the last `bars` candles, those opened after `since`, or both.

    Of those up to `since` it wants what was revised after the `revision` of that number, and what lies in `gaps`. The
    number was given by `store`, if it says so. What it `replaces` is all that the client has of the stream.
    """

    bars: int | None = None
    since: int | None = None
    revision: int | None = None
    gaps: tuple[tuple[int, int], ...] = ()
    store: str | None = None
    replaces: bool = False

    @property
    def wants_revised(self) -> bool:
        """Whether candles up to `since` are asked for."""
        return self.revision is not None or bool(self.gaps)


class Request(NamedTuple):
    """One request of a client. `names` are stream names as the client wrote them: (symbol, interval)."""

    action: str
    id: str | int | None = None
    names: tuple[tuple[str, str], ...] = ()
    options: SubscribeOptions = PLAIN
    past: PastWanted = PastWanted()


def parse_object(text: str | bytes, example: str = '{"action":"ping"}') -> dict[str, Any]:
    """Return the JSON object in a frame. Raises `RequestError` (invalid_json, invalid_request), with an example."""
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError as fault:
        raise RequestError(Code.INVALID_JSON, f"not JSON: {str(fault)[:80]}; send one JSON object a frame") from None
    if not isinstance(value, dict):
        raise RequestError(Code.INVALID_REQUEST, f"{shown(value)} is not a JSON object; for example {example}")
    return value


def parse_id(message: dict[str, Any]) -> str | int | None:
    """Return the request's id. Raises `RequestError` (invalid_request) unless it is a string or an integer."""
    return ID.read(message)


def parse_request(message: dict[str, Any]) -> Request:
    """Check a request of a client. Raises `RequestError`; stream names are checked later, one by one."""
    action = message.get("action")
    if action is None:
        raise RequestError(Code.INVALID_REQUEST, f"action is missing; use one of {', '.join(ACTIONS)}")
    if not isinstance(action, str) or action not in ACTIONS:
        raise RequestError(Code.UNKNOWN_ACTION, f"unknown action {shown(action)}; use one of {', '.join(ACTIONS)}")
    request_id = ID.read(message)
    if action in {"list", "ping"}:
        return Request(action, request_id)
    names = _parse_names(message)
    if action == "unsubscribe":
        return Request(action, request_id, names)
    if _MODIFIERS.isdisjoint(message):
        return Request(action, request_id, names)
    options = SubscribeOptions(
        THROTTLE_MS.read(message) or 0, CLOSED_ONLY.read(message) or False, EXTENDED.read(message) or False
    )
    past = PastWanted(
        BARS.read(message), SINCE.read(message), REVISION.read(message), GAPS.read(message) or (), STORE.read(message)
    )
    if past.since is None and past.wants_revised:
        raise RequestError(Code.INVALID_REQUEST, "revision and gaps need since")
    return Request(action, request_id, names, options, past)


def _parse_names(message: dict[str, Any]) -> tuple[tuple[str, str], ...]:
    streams = STREAMS.read(message)
    if streams is None:
        return ((SYMBOL_FIELD.need(message), INTERVAL_FIELD.need(message)),)
    if "symbol" in message or "interval" in message:
        raise RequestError(Code.INVALID_REQUEST, "give either streams, or symbol and interval, not both")
    return tuple((name, "") for name in streams)


def parse_stream_name(text: str) -> tuple[str, str]:
    """Split `BTCUSDT@1m`. Raises `RequestError` (invalid_request)."""
    symbol, at, interval = text.rpartition("@")
    if not at or not symbol or not interval:
        raise RequestError(
            Code.INVALID_REQUEST, f"stream {shown(text)} is not of the form SYMBOL@INTERVAL, for example BTCUSDT@1m"
        )
    return symbol, interval


def parse_target(name: tuple[str, str]) -> tuple[str | None, str, str]:
    """Return (provider or None, symbol, interval), canonical, of one name of a request. Raises `RequestError`."""
    symbol_text, interval_text = name
    if not interval_text:
        symbol_text, interval_text = parse_stream_name(symbol_text)
    try:
        provider, symbol = parse_symbol(symbol_text)
        interval = parse_interval(interval_text)
    except RequestError as fault:
        fault.symbol = fault.symbol or symbol_text[:NAME_LENGTH]
        fault.interval = fault.interval or interval_text[:20]
        raise
    return provider, symbol, interval
