"""Messages of Twelve Data's tick stream: what is sent, and what is read from it; no I/O."""

import math
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import orjson

from providers.twelve_data.waits import WAITS
from relay import Accepted, Candle, FeedCodec, Hosts, PriceUpdate, Rejected, Secret, StreamKey

TICKS = "tick"
"""Stands in the place of the interval: the streams of a connection are the ticks of whole symbols."""


def ticks_of(symbol: str) -> StreamKey:
    """Return the stream of a symbol's ticks."""
    return StreamKey(symbol, TICKS)


class TickCodec(FeedCodec):
    """One connection. A tick is passed on as a candle with one price; its time is the second of the tick.

    The key travels in a header: an address with a key in it shows up in errors and logs.
    """

    heartbeat = '{"action":"heartbeat"}'

    def __init__(self, hosts: Hosts, key: Secret, heartbeat_s: float = WAITS.heartbeat_s) -> None:
        super().__init__(hosts.current)
        self.heartbeat_s = heartbeat_s
        self._hosts = hosts
        self._key = key
        self._asked: deque[tuple[StreamKey, ...]] = deque()

    @property
    def headers(self) -> Mapping[str, str]:
        """Carry the key."""
        return {"X-TD-APIKEY": self._key.reveal()}

    def subscribe(self, keys: Sequence[StreamKey]) -> list[str]:
        """Subscribe symbols; the answer does not say to which message it belongs, so the order is remembered."""
        self._asked.append(tuple(keys))
        return [_request("subscribe", keys)]

    def unsubscribe(self, keys: Sequence[StreamKey]) -> list[str]:
        """End symbols."""
        return [_request("unsubscribe", keys)]

    def decode(self, raw: str | bytes) -> Iterator[PriceUpdate | Accepted | Rejected]:
        """Read ticks and answers to subscriptions."""
        message = orjson.loads(raw)
        event = message["event"]
        if event == "price":
            yield _tick(message)
        elif event == "subscribe-status":
            yield from self._judge(message)
        elif event not in ("unsubscribe-status", "heartbeat", "reset-status"):
            raise ValueError(
                f"event {str(event)[:40]!r}: {str(message.get('messages') or message.get('message'))[:150]}"
            )

    def connect_failed(self, status: int | None) -> None:
        """Try the next address."""
        self._hosts.failed(self._url)

    def _judge(self, answer: Mapping[str, Any]) -> Iterator[Accepted | Rejected]:
        """Read which symbols were taken; either list may be empty, null or missing."""
        succeeded = _keys(answer.get("success"))
        failed = _keys(answer.get("fails"))
        named = {*succeeded, *failed}
        asked: tuple[StreamKey, ...] = ()
        if self._asked and (not named or named & set(self._asked[0])):
            asked = self._asked.popleft()
        unnamed = tuple(key for key in asked if key not in named)
        if answer.get("status") == "ok":
            succeeded |= dict.fromkeys(unnamed, "")
            unnamed = ()
        if succeeded:
            yield Accepted(tuple(succeeded))
        for key, reason in failed.items():
            yield Rejected((key,), reason or "the symbol is not in the plan or in the list of symbols")
        if unnamed and not failed:
            yield Rejected(unnamed, "the subscription was refused")
        elif unnamed:
            yield from (Rejected((key,), "the subscription was not confirmed") for key in unnamed)


def _request(action: str, keys: Sequence[StreamKey]) -> str:
    symbols = ",".join(key.symbol for key in keys)
    return orjson.dumps({"action": action, "params": {"symbols": symbols}}).decode()


def _keys(entries: object) -> dict[StreamKey, str]:
    """Return the symbols of a list in an answer, each with the message that it may carry."""
    found = {}
    for entry in entries if isinstance(entries, list) else ():
        symbol = entry.get("symbol") if isinstance(entry, dict) else entry
        message = entry.get("message") if isinstance(entry, dict) else None
        if isinstance(symbol, str):
            found[ticks_of(symbol.upper())] = message[:150] if isinstance(message, str) else ""
    return found


def _tick(message: Mapping[str, Any]) -> PriceUpdate:
    symbol, stamp, price = message["symbol"], message["timestamp"], message["price"]
    if not isinstance(symbol, str) or type(stamp) is not int or type(price) not in (int, float):
        raise TypeError("symbol, timestamp or price of a tick has the wrong type")
    price = float(price)
    if not math.isfinite(price) or price <= 0 or not 0 < stamp < 1 << 33:
        raise ValueError(f"invalid tick: price {price!r}, time {stamp!r}")
    candle = Candle(stamp, price, price, price, price)
    return PriceUpdate(ticks_of(symbol.upper()), candle, ts_event_ms=stamp * 1000)
