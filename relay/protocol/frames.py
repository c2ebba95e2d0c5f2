"""What the relay says on the WebSocket, as frames; no I/O."""

import math
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Literal

import orjson

from relay.core.compression import deflated
from relay.core.errors import RequestError
from relay.core.model import NO_EXTRAS, Candle, PriceUpdate
from relay.protocol.server_messages import (
    CandleObject,
    ErrorMessage,
    GapMessage,
    Greeting,
    OutdatedMessage,
    Pong,
    PriceUpdateMessage,
    SnapshotMessage,
    StreamState,
    StreamStatus,
    Subscription,
    Subscriptions,
)

MESSAGE_BYTES = 4096
PING_FRAME = b"\x89\x00"


_HEAD = struct.Struct("!BBH")
_CANDLE_END = b'},"is_closed":'
"""What follows the candle of an update; no name before it has a quotation mark."""

# -- frames ----------------------------------------------------------------------------------------


def frame(text: bytes) -> bytes:
    """Wrap a text message into one unmasked, unfragmented WebSocket frame (RFC 6455 section 5.2)."""
    return _framed(0x81, text)


def _framed(opcode: int, body: bytes) -> bytes:
    size = len(body)
    if size < 126:
        return bytes((opcode, size)) + body
    if size < 65_536:
        return _HEAD.pack(opcode, 126, size) + body
    return bytes((opcode, 127)) + size.to_bytes(8, "big") + body


def deflate(frame: bytes) -> bytes:
    """Return a text frame as a compressed one (permessage-deflate, RFC 7692), readable without any earlier frame."""
    return _framed(0xC1, deflated(text_of(frame)))


def text_of(frame: bytes) -> bytes:
    """Return the message in a frame of the relay."""
    return frame[(2, 4, 10)[max(0, frame[1] - 125)] :]


def parted(joined: bytes) -> Iterator[bytes]:
    """Yield the frames of the relay that were joined."""
    at = 0
    while at < len(joined):
        size, head = joined[at + 1], 2
        if size > 125:
            head = 4 if size == 126 else 10
            size = int.from_bytes(joined[at + 2 : at + head])
        yield joined[at : at + head + size]
        at += head + size


def close_frame(code: int, reason: str) -> bytes:
    """Return an unmasked close frame; the reason has at most 123 bytes."""
    content = code.to_bytes(2, "big") + reason.encode()[:123]
    return bytes((0x88, len(content))) + content


def pong_frame(body: bytes) -> bytes:
    """Return the answer to a ping frame, which has at most 125 bytes."""
    return _framed(0x8A, body)


def encode(message: Mapping[str, object]) -> bytes:
    """Encode one message as a frame."""
    return frame(orjson.dumps(message))


# -- updates ---------------------------------------------------------------------------------------


def price_update(symbol: str, interval: str, update: PriceUpdate, seq: int, revision: int | None = None) -> bytes:
    """Encode one update as a frame; `revision` is its number if it was revised."""
    time, opened, high, low, close, volume = update.candle
    message: PriceUpdateMessage = {
        "type": "price_update",
        "symbol": symbol,
        "interval": interval,
        "candle": {"time": time, "open": opened, "high": high, "low": low, "close": close, "volume": volume},
        "is_closed": update.is_closed,
        "seq": seq,
        "ts_event": update.ts_event_ms,
    }
    if update.is_backfilled:
        message["backfilled"] = True
    if update.is_revised:
        message["revised"] = True
        if revision is not None:
            message["revision"] = revision
    return frame(orjson.dumps(message))


def extended(update_frame: bytes, candle: Candle) -> bytes:
    """Return the frame of an update with what its candle carries beside prices and volume; null is not known."""
    before, end, behind = text_of(update_frame).partition(_CANDLE_END)
    return frame(b"".join((before, b",", orjson.dumps(_extras(candle))[1:-1], end, behind)))


def candle_of(update_frame: bytes) -> Candle:
    """Return the candle in the frame of an update, without what it may carry more."""
    return Candle(**orjson.loads(text_of(update_frame))["candle"])


def snapshot(
    symbol: str,
    interval: str,
    candles: Sequence[Candle],
    *,
    provider: str,
    last_is_closed: bool,
    complete: bool,
    seq: int,
    revision: int,
    revised: Sequence[Candle] | None = None,
    revisions_known: bool = True,
    is_extended: bool = False,
    replaces: bool = False,
    pending: bool = False,
) -> bytes:
    """Encode the candles sent first as a frame; `revised` is None where nobody asked what was revised.

    With `replaces` they take the place of those that the client has, and it did not ask. `pending` says that such a
    one follows.
    """
    as_object: Callable[[Candle], CandleObject] = _extended if is_extended else Candle._asdict  # type: ignore[assignment]  # as CandleObject has it
    message: SnapshotMessage = {
        "type": "snapshot",
        "symbol": symbol,
        "interval": interval,
        "provider": provider,
        "candles": [as_object(candle) for candle in candles],
        "last_is_closed": last_is_closed,
        "complete": complete,
        "seq": seq,
        "revision": revision,
    }
    if revised is not None:
        message["revised"] = [as_object(candle) for candle in revised]
        message["revisions_known"] = revisions_known
    if replaces:
        message["replaces"] = True
    if pending:
        message["pending"] = True
    return encode(message)


def _extras(candle: Candle) -> dict[str, float | None]:
    extras = candle.extras or NO_EXTRAS
    return {
        "quote_volume": extras.quote_volume,
        "trades": extras.trades,
        "taker_volume": extras.taker_volume,
        "taker_quote_volume": extras.taker_quote_volume,
    }


def _extended(candle: Candle) -> CandleObject:
    fields: CandleObject = candle._asdict() | _extras(candle)  # type: ignore[assignment]  # as CandleObject has it
    return fields


def stream_status(symbol: str, interval: str, status: StreamState, message: str) -> bytes:
    """Encode the state of a stream as a frame."""
    said: StreamStatus = {
        "type": "status",
        "status": status,
        "symbol": symbol,
        "interval": interval,
        "message": message,
    }
    return encode(said)


def gap(symbol: str, interval: str, start: int, end: int, reason: str) -> bytes:
    """Encode a gap as a frame: candles with `start` ≤ open time < `end` are missing."""
    message: GapMessage = {
        "type": "gap",
        "symbol": symbol,
        "interval": interval,
        "from": start,
        "to": end,
        "reason": reason,
    }
    return encode(message)


def outdated(symbol: str, interval: str, start: int, before: int, reason: str) -> bytes:
    """Encode as a frame that candles with `start` ≤ open time < `before` have other values now."""
    message: OutdatedMessage = {
        "type": "outdated",
        "symbol": symbol,
        "interval": interval,
        "from": start,
        "before": before,
        "reason": reason,
    }
    return encode(message)


# -- answers ---------------------------------------------------------------------------------------


def greeting(epoch: str, store: str, most_streams: int, server_time: int) -> bytes:
    """Encode the first message on a connection as a frame."""
    message: Greeting = {
        "type": "status",
        "status": "connected",
        "message": "market-relay",
        "server_time": server_time,
        "epoch": epoch,
        "store": store,
        "limits": {"streams": most_streams, "message_bytes": MESSAGE_BYTES},
    }
    return encode(message)


def subscription(
    action: Literal["subscribe", "unsubscribe"],
    symbol: str,
    interval: str,
    request_id: str | int | None,
    *,
    provider: str,
    revision: int | None = None,
) -> bytes:
    """Encode the confirmation of one stream as a frame; `revision` where no snapshot follows."""
    message: Subscription = {
        "type": "subscription",
        "action": action,
        "symbol": symbol,
        "interval": interval,
        "provider": provider,
        "status": "ok",
    }
    if revision is not None:
        message["revision"] = revision
    return _answer(message, request_id)


def subscriptions(names: list[str], request_id: str | int | None) -> bytes:
    """Encode the list of a client's streams as a frame."""
    message: Subscriptions = {"type": "subscriptions", "streams": names}
    return _answer(message, request_id)


def pong(server_time: int, request_id: str | int | None) -> bytes:
    """Encode the answer to a ping as a frame."""
    message: Pong = {"type": "pong", "server_time": server_time}
    return _answer(message, request_id)


def _answer(message: Subscription | Subscriptions | Pong | ErrorMessage, request_id: str | int | None) -> bytes:
    """Encode an answer as a frame; the request's id comes back if it had one."""
    if request_id is not None:
        message["id"] = request_id
    return encode(message)


def error_message(fault: RequestError) -> ErrorMessage:
    """Return an error as clients read it."""
    message: ErrorMessage = {"type": "error", "code": fault.code, "message": fault.message}
    if fault.symbol is not None:
        message["symbol"] = fault.symbol
    if fault.interval is not None:
        message["interval"] = fault.interval
    if fault.retry_after is not None:
        message["retry_after"] = math.ceil(fault.retry_after * 10) / 10
    return message


def error(fault: RequestError, request_id: str | int | None) -> bytes:
    """Encode an error as a frame."""
    return _answer(error_message(fault), request_id)


def join(frames: Iterable[bytes]) -> bytes:
    """Join frames for one write."""
    return b"".join(frames)
