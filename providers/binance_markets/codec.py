"""The codecs of Binance's streams on one combined connection: messages in, values out; pure."""

from abc import abstractmethod
from collections.abc import Sequence
from operator import itemgetter
from typing import Any, ClassVar

import orjson

from providers.binance_markets.remainder import USUAL, remainder
from relay import (
    Accepted,
    Candle,
    Closing,
    FeedCodec,
    Hosts,
    PriceUpdate,
    Rejected,
    StreamKey,
    decimals,
    next_open,
    written_candle,
)

_MESSAGE_BYTES = 4000
"""No page says how large a message may be; beyond some 4,090 bytes the server was measured to answer nothing
(https://github.com/binance/binance-connector-rust/issues/27, https://github.com/JKorf/Binance.Net/issues/884)."""

_PRICES_AND_VOLUME = itemgetter("o", "h", "l", "c", "v")
_NUMBERS = itemgetter("o", "h", "l", "c", "v", "q", "V", "Q")
"""web-socket-streams.md, "Kline/Candlestick Streams for UTC": prices, volume, quote volume, and what takers bought."""


class CombinedCodec(FeedCodec):
    """Streams on one combined connection: `{"stream":…,"data":…}`, and bare events too.

    A market's own codec says the `path` of such a connection, and how many messages a second it takes. A stream is
    called as its symbol, `kind` and the interval of its key.
    """

    path: ClassVar[str]
    kind: ClassVar[str] = "@"
    keys_per_message = 100
    """Our choice; `_MESSAGE_BYTES` bounds it too."""

    def __init__(self, hosts: Hosts) -> None:
        self._hosts = hosts
        self._host = hosts.current
        self._asked: dict[int, tuple[StreamKey, ...]] = {}
        self._newest: dict[StreamKey, int] = {}
        self._last_id = 0

    @property
    def url(self) -> str:
        """A combined connection that starts with no stream."""
        return self._host + self.path

    def connect_failed(self, status: int | None) -> None:
        """Leave the host to others, unless it only asked for patience."""
        if status not in (418, 429):
            self._hosts.failed(self._host)

    def subscribe(self, keys: Sequence[StreamKey]) -> list[str]:
        """Ask for these streams, below 4 KiB a message."""
        messages = []
        for batch in self._batches(keys):
            messages.append(self._request("SUBSCRIBE", batch))
            self._asked[self._last_id] = batch
            for key in batch:
                self._enter(key)
                self._newest[key] = self._last_id
        return messages

    def unsubscribe(self, keys: Sequence[StreamKey]) -> list[str]:
        """End these streams; what still arrives of them is ignored."""
        for key in keys:
            self._leave(key)
            self._newest.pop(key, None)
        return [self._request("UNSUBSCRIBE", batch) for batch in self._batches(keys)]

    @abstractmethod
    def _enter(self, key: StreamKey) -> None:
        """Take what comes of a stream from now on, as of a new one."""

    @abstractmethod
    def _leave(self, key: StreamKey) -> None:
        """Take nothing of a stream any more."""

    def _request(self, method: str, keys: Sequence[StreamKey]) -> str:
        self._last_id += 1
        params = [self._name(key) for key in keys]
        return orjson.dumps({"method": method, "params": params, "id": self._last_id}).decode()

    def _name(self, key: StreamKey) -> str:
        return f"{key.symbol.lower()}{self.kind}{key.interval}"

    def _answer(self, message: dict[str, Any]) -> Sequence[Accepted | Rejected]:
        """Read an answer to SUBSCRIBE or UNSUBSCRIBE; errors come nested, and flat in the documents."""
        error = message.get("error")
        if error is None and "code" in message:
            error = message
        if error is None and "result" not in message:
            if "stream" in message and self.kind not in message["stream"]:
                return ()  # a bookTicker, for one, does not say what it is
            raise ValueError("neither an event nor an answer")
        keys = self._asked.pop(message["id"], ()) if type(message.get("id")) is int else ()
        newest = tuple(key for key in keys if self._newest.get(key) == message["id"])
        if error is not None:
            reason = error.get("msg")
            if not newest:
                raise ValueError(f"the provider refused a message: {reason}")
            for key in newest:
                self._leave(key)
            return (Rejected(newest, f"the provider refused the stream: {reason}"),)
        return (Accepted(newest),) if newest else ()

    def _batches(self, keys: Sequence[StreamKey]) -> list[tuple[StreamKey, ...]]:
        """Split streams so that each message stays below the venue's 4 KiB."""
        batches: list[tuple[StreamKey, ...]] = []
        batch: list[StreamKey] = []
        size = 0
        for key in keys:
            length = len(self._name(key).encode()) + 3
            if batch and size + length > _MESSAGE_BYTES - 80:
                batches.append(tuple(batch))
                batch, size = [], 0
            batch.append(key)
            size += length
        if batch:
            batches.append(tuple(batch))
        return batches


class KlineCodec(CombinedCodec):
    """Kline streams."""

    kind = "@kline_"

    def __init__(self, hosts: Hosts) -> None:
        super().__init__(hosts)
        # By the name at the exchange: the stream, its symbol and interval, and how many milliseconds it lasts at most.
        self._named: dict[str, tuple[StreamKey, str, str, int]] = {}

    def _enter(self, key: StreamKey) -> None:
        self._named[self._name(key)] = (key, key.symbol, key.interval, next_open(key.interval, 0) * 1000)

    def _leave(self, key: StreamKey) -> None:
        self._named.pop(self._name(key), None)

    def decode(self, raw: str | bytes) -> Sequence[PriceUpdate | Accepted | Rejected | Closing]:
        """Return the candle of a kline event, or what an answer says; other events mean nothing here."""
        message = orjson.loads(raw)
        event = message.get("data", message)
        kind = event.get("e")
        if kind != "kline":
            if kind is None:
                return self._answer(message)
            return (Closing("the provider announced a shutdown"),) if kind == "serverShutdown" else ()
        kline = event["k"]
        symbol = kline["s"]
        try:
            key, own, interval, most_ms = self._named[message["stream"]]
        except KeyError:
            known = None if "stream" in message else self._named.get(self._name(StreamKey(symbol, kline["i"])))
            if known is None:
                return ()
            key, own, interval, most_ms = known
        if symbol != own or kline["i"] != interval or event["s"] != own:
            raise ValueError(f"stream {key}: the event is for {event['s']}, its kline for {symbol}@{kline['i']}")
        open_ms, close_ms, sent_ms, is_closed = kline["t"], kline["T"], event["E"], kline["x"]
        if open_ms % 1000 or not 0 <= close_ms - open_ms < most_ms:
            raise ValueError(f"stream {key}: a kline from {open_ms} to {close_ms} does not fit the interval")
        if type(is_closed) is not bool:
            raise TypeError("x is neither true nor false")
        if sent_ms < close_ms:
            # Closed is what is over: all closing events on record were sent after the last millisecond of the candle.
            is_closed = False
        # Whether the values make a candle the relay judges.
        try:
            is_usual = close_ms - open_ms == most_ms - 1 and kline.get("B") == USUAL
            rest = "" if is_usual else remainder(interval, open_ms, close_ms, kline.get("B"))
            ids = (kline.get("f"), kline.get("L"))
            candle: Candle = written_candle(open_ms // 1000, _NUMBERS(kline), kline["n"], rest, ids)
        except (LookupError, TypeError, ValueError):
            # The prices may be sound where the rest is not.
            candle = Candle(open_ms // 1000, *decimals(_PRICES_AND_VOLUME(kline)))
        return (PriceUpdate(key, candle, is_closed, sent_ms),)
