"""Client messages: encode what the relay says, parse and check what clients ask; no I/O."""

import re
import zlib
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import orjson

from relay.errors import Code, RequestError
from relay.intervals import parse_interval
from relay.model import Candle, PriceUpdate

MESSAGE_BYTES = 4096
DEFLATE_WINDOW_BITS = 15
MOST_STREAMS_PER_REQUEST = 100
MOST_BARS = 5000
MOST_THROTTLE_MS = 60_000
ACTIONS = ("subscribe", "unsubscribe", "list", "ping")

_SYMBOL = re.compile(r"(?!_)\w[\w./:-]{0,47}")
_WORD_LIMIT = 60


class Options(NamedTuple):
    """How one subscription wants its updates: at most one open candle per `throttle_ms`, or closed candles only."""

    throttle_ms: int = 0
    closed_only: bool = False


PLAIN = Options()


class Past(NamedTuple):
    """What a subscription wants first: the last `bars` candles, those opened after `since`, or both."""

    bars: int | None = None
    since: int | None = None


class Request(NamedTuple):
    """One request of a client. `names` are stream names as the client wrote them: (symbol, interval)."""

    action: str
    id: str | int | None = None
    names: tuple[tuple[str, str], ...] = ()
    options: Options = PLAIN
    past: Past = Past()


# -- frames ----------------------------------------------------------------------------------------


def frame(text: bytes) -> bytes:
    """Wrap a text message into one unmasked, unfragmented WebSocket frame (RFC 6455 section 5.2)."""
    return _framed(0x81, text)


def _framed(opcode: int, body: bytes) -> bytes:
    size = len(body)
    if size < 126:
        return bytes((opcode, size)) + body
    if size < 65_536:
        return bytes((opcode, 126)) + size.to_bytes(2, "big") + body
    return bytes((opcode, 127)) + size.to_bytes(8, "big") + body


def deflate(frame: bytes) -> bytes:
    """Return a text frame as a compressed one (permessage-deflate, RFC 7692), readable without any earlier frame."""
    compressor = zlib.compressobj(1, zlib.DEFLATED, -DEFLATE_WINDOW_BITS)
    text = frame[(2, 4, 10)[max(0, frame[1] - 125)] :]
    body = compressor.compress(text) + compressor.flush(zlib.Z_SYNC_FLUSH)
    return _framed(0xC1, body[:-4])


def close_frame(code: int, reason: str) -> bytes:
    """Return an unmasked close frame; the reason has at most 123 bytes."""
    content = code.to_bytes(2, "big") + reason.encode()[:123]
    return bytes((0x88, len(content))) + content


def encode(message: dict[str, Any]) -> bytes:
    """Encode one message as a frame."""
    return frame(orjson.dumps(message))


def candle_object(candle: Candle) -> dict[str, float]:
    """Return a candle as clients see it."""
    return candle._asdict()


def price_update(symbol: str, interval: str, update: PriceUpdate, seq: int) -> bytes:
    """Encode one update as a frame."""
    message: dict[str, Any] = {
        "type": "price_update",
        "symbol": symbol,
        "interval": interval,
        "candle": update.candle._asdict(),
        "is_closed": update.is_closed,
        "seq": seq,
        "ts_event": update.ts_event_ms,
    }
    if update.is_backfilled:
        message["backfilled"] = True
    if update.is_revised:
        message["revised"] = True
    return frame(orjson.dumps(message))


def snapshot(
    symbol: str, interval: str, candles: Sequence[Candle], *, last_is_closed: bool, complete: bool, seq: int
) -> bytes:
    """Encode the candles sent first as a frame."""
    return encode(
        {
            "type": "snapshot",
            "symbol": symbol,
            "interval": interval,
            "candles": [candle._asdict() for candle in candles],
            "last_is_closed": last_is_closed,
            "complete": complete,
            "seq": seq,
        }
    )


def stream_status(symbol: str, interval: str, status: str, message: str) -> bytes:
    """Encode the state of a stream as a frame."""
    return encode({"type": "status", "status": status, "symbol": symbol, "interval": interval, "message": message})


def gap(symbol: str, interval: str, start: int, end: int, reason: str) -> bytes:
    """Encode a gap as a frame: candles with `start` ≤ open time < `end` are missing."""
    return encode({"type": "gap", "symbol": symbol, "interval": interval, "from": start, "to": end, "reason": reason})


def answer(message: dict[str, Any], request_id: str | int | None) -> bytes:
    """Encode an answer as a frame; the request's id comes back if it had one."""
    if request_id is not None:
        message["id"] = request_id
    return encode(message)


def error(fault: RequestError, request_id: str | int | None) -> bytes:
    """Encode an error as a frame."""
    message: dict[str, Any] = {"type": "error", "code": str(fault.code), "message": fault.message}
    if fault.symbol is not None:
        message["symbol"] = fault.symbol
    if fault.interval is not None:
        message["interval"] = fault.interval
    if fault.retry_after is not None:
        message["retry_after"] = round(fault.retry_after, 1)
    return answer(message, request_id)


# -- names -----------------------------------------------------------------------------------------


def shown(value: object) -> str:
    """Return a client's value as an error may repeat it: short, printable, quoted."""
    text = value if isinstance(value, str) else orjson.dumps(value, default=str).decode()
    text = "".join(char if char.isprintable() else "�" for char in text)
    if len(text) > _WORD_LIMIT:
        text = text[: _WORD_LIMIT - 1] + "…"
    return repr(text) if isinstance(value, str) else text


def parse_symbol(text: str) -> tuple[str | None, str]:
    """Return (provider or None, symbol in upper case) of `BTCUSDT` or `binance:BTCUSDT`.

    Raises `RequestError` (unknown_symbol) when it cannot be a symbol at all.
    """
    if not _SYMBOL.fullmatch(text):
        raise RequestError(
            Code.UNKNOWN_SYMBOL,
            f"unknown symbol {shown(text)}; a symbol has at most 48 letters, digits and . _ / : - "
            "and starts with a letter or digit, for example BTCUSDT or EUR/USD",
            symbol=text[:48],
        )
    provider, colon, symbol = text.partition(":")
    if colon and provider and symbol:
        return provider.lower(), symbol.upper()
    return None, text.upper()


def parse_stream_name(text: str) -> tuple[str, str]:
    """Split `BTCUSDT@1m`. Raises `RequestError` (invalid_request)."""
    symbol, at, interval = text.rpartition("@")
    if not at or not symbol or not interval:
        raise RequestError(
            Code.INVALID_REQUEST, f"stream {shown(text)} is not of the form SYMBOL@INTERVAL, for example BTCUSDT@1m"
        )
    return symbol, interval


# -- requests --------------------------------------------------------------------------------------


def parse_object(text: str | bytes) -> dict[str, Any]:
    """Return the JSON object in a frame. Raises `RequestError` (invalid_json, invalid_request)."""
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError as fault:
        raise RequestError(Code.INVALID_JSON, f"not JSON: {str(fault)[:80]}; send one JSON object a frame") from None
    if not isinstance(value, dict):
        raise RequestError(
            Code.INVALID_REQUEST, f'{shown(value)} is not a JSON object; for example {{"action":"ping"}}'
        )
    return value


def parse_id(message: dict[str, Any]) -> str | int | None:
    """Return the request's id. Raises `RequestError` (invalid_request) unless it is a string or an integer."""
    value = message.get("id")
    if value is None or (isinstance(value, int | str) and not isinstance(value, bool)):
        return value
    raise RequestError(Code.INVALID_REQUEST, f"id {shown(value)} is neither a string nor an integer")


def parse_request(message: dict[str, Any]) -> Request:
    """Check a request of a client. Raises `RequestError`; stream names are checked later, one by one."""
    action = message.get("action")
    if action is None:
        raise RequestError(Code.INVALID_REQUEST, f"no action; use one of {', '.join(ACTIONS)}")
    if not isinstance(action, str) or action not in ACTIONS:
        raise RequestError(Code.UNKNOWN_ACTION, f"unknown action {shown(action)}; use one of {', '.join(ACTIONS)}")
    request_id = parse_id(message)
    if action in {"list", "ping"}:
        return Request(action, request_id)
    names = _parse_names(message)
    if action == "unsubscribe":
        return Request(action, request_id, names)
    options = Options(
        throttle_ms=_whole(message, "throttle_ms", 0, MOST_THROTTLE_MS) or 0,
        closed_only=_flag(message, "closed_only"),
    )
    past = Past(bars=_whole(message, "bars", 0, MOST_BARS), since=_whole(message, "since", 0, 2**53))
    return Request(action, request_id, names, options, past)


def _parse_names(message: dict[str, Any]) -> tuple[tuple[str, str], ...]:
    streams = message.get("streams")
    if streams is not None:
        if "symbol" in message or "interval" in message:
            raise RequestError(Code.INVALID_REQUEST, "give either streams, or symbol and interval, not both")
        if not isinstance(streams, list) or not streams:
            raise RequestError(
                Code.INVALID_REQUEST, f'streams {shown(streams)} is not a list of names such as ["BTCUSDT@1m"]'
            )
        if len(streams) > MOST_STREAMS_PER_REQUEST:
            raise RequestError(
                Code.INVALID_REQUEST,
                f"{len(streams)} streams in one request; at most {MOST_STREAMS_PER_REQUEST} are taken at a time",
            )
        for name in streams:
            if not isinstance(name, str):
                raise RequestError(
                    Code.INVALID_REQUEST, f"stream {shown(name)} is not a text of the form SYMBOL@INTERVAL"
                )
        return tuple((name, "") for name in dict.fromkeys(streams))
    return ((_text(message, "symbol", "BTCUSDT"), _text(message, "interval", "1m")),)


def _text(message: dict[str, Any], name: str, example: str) -> str:
    value = message.get(name)
    if not isinstance(value, str) or not value:
        said = f"no {name}" if value is None else f"{name} {shown(value)} is not a text"
        raise RequestError(Code.INVALID_REQUEST, f'{said}; give one, for example "{name}":"{example}"')
    return value


def _whole(message: dict[str, Any], name: str, least: int, most: int) -> int | None:
    value = message.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise RequestError(Code.INVALID_REQUEST, f"{name} {shown(value)} is not a whole number from {least} to {most}")
    return value


def _flag(message: dict[str, Any], name: str) -> bool:
    value = message.get(name)
    if value is not None and not isinstance(value, bool):
        raise RequestError(Code.INVALID_REQUEST, f"{name} {shown(value)} is not true or false")
    return bool(value)


def parse_target(name: tuple[str, str]) -> tuple[str | None, str, str]:
    """Return (provider or None, symbol, interval), canonical, of one name of a request. Raises `RequestError`."""
    symbol_text, interval_text = name
    if not interval_text:
        symbol_text, interval_text = parse_stream_name(symbol_text)
    try:
        provider, symbol = parse_symbol(symbol_text)
        interval = parse_interval(interval_text)
    except RequestError as fault:
        fault.symbol = fault.symbol or symbol_text[:48]
        fault.interval = fault.interval or interval_text[:20]
        raise
    return provider, symbol, interval


def join(frames: Iterable[bytes]) -> bytes:
    """Join frames for one write."""
    return b"".join(frames)
