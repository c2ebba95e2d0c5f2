"""The kline streams of the Binance stand-in: what is due when, encoded once for all connections."""

import asyncio
import time
from collections.abc import Mapping
from heapq import heappop, heappush
from typing import Literal

import orjson

from providers.sandbox.binance_rows import StreamName, event, in_microseconds, parse_stream
from providers.sandbox.clock import SandboxClock
from providers.sandbox.connection import Connection
from providers.sandbox.faults import Faults
from providers.sandbox.intervals import end_time, open_time
from providers.sandbox.listings import Pair
from providers.sandbox.market import Market, Part

Closings = Literal["all", "traded"]

_CLOSING_DELAY_MS = 5
_LATE_CLOSING_SHARE = 0.88
_FIRST_EVENT_SHARE = 1.35


class _Stream:
    """One subscribed kline stream and when its next event is due, in milliseconds of the exchange's time."""

    __slots__ = ("connections", "due", "interval", "last_state", "name", "opened", "pair", "shift_ms", "update_at")

    def __init__(self, name: str, parsed: StreamName, interval: str, pair: Pair) -> None:
        self.name = name
        self.pair = pair
        self.interval = interval
        self.shift_ms = parsed.shift_ms
        self.connections: dict[int, Connection] = {}
        self.opened = 0
        self.update_at = 0
        self.due = 0
        self.last_state: tuple[int, int] | None = None


class KlineStreams:
    """Send the events of all subscribed kline streams; one task, `run`, does all of it."""

    def __init__(
        self, market: Market, clock: SandboxClock, faults: Faults, *, pace_s: float, closings: Closings
    ) -> None:
        self._market = market
        self._clock = clock
        self._faults = faults
        self.pace_s = pace_s
        self.closings: Closings = closings
        self._streams: dict[str, _Stream] = {}
        self._heap: list[tuple[int, str]] = []
        self._changed = asyncio.Event()
        self.events_sent = 0
        self.closings_sent = 0

    def join(self, name: str, connection: Connection) -> None:
        """Send a stream's events to a connection from now on; does nothing for streams that have none."""
        parsed = parse_stream(name)
        if parsed is None or parsed.interval is None:
            return
        stream = self._streams.get(name)
        if stream is None:
            pair = self._market.crypto.get(parsed.symbol)
            if pair is None:
                return
            stream = self._streams[name] = _Stream(name, parsed, parsed.interval, pair)
            now = self._clock.now_ms()
            stream.opened = open_time(stream.interval, now, pair.listed_day, stream.shift_ms)
            stream.update_at = now + self._in_exchange_ms(self.pace_s)
            self._schedule(stream)
        stream.connections[connection.number] = connection

    def leave(self, name: str, connection: Connection) -> None:
        """Stop sending a stream to a connection; the last one ends the stream."""
        stream = self._streams.get(name)
        if stream is not None:
            stream.connections.pop(connection.number, None)
            if not stream.connections:
                del self._streams[name]

    def inject(self, name: str, fields: Mapping[str, object]) -> None:
        """Send one event of a stream with some fields replaced; raises KeyError if nobody has the stream."""
        stream = self._streams[name]
        now = self._clock.now_ms()
        at = fields.get("t", now)
        assert isinstance(at, int)
        part = self._market.candle(stream.pair.symbol, stream.interval, at, now, stream.shift_ms)
        message = event(stream.pair, stream.interval, part, self._last_ms(stream, part), now, now >= part.end)
        kline = message["k"]
        assert isinstance(kline, dict)
        kline.update({key: value for key, value in fields.items() if key != "E"})
        message["E"] = fields.get("E", now)
        self._send(stream, message, is_ordered=True)

    # ---- the ticker ---------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Send what is due, for ever."""
        while True:
            now = self._clock.now_ms()
            began = time.monotonic()
            while self._heap and self._heap[0][0] <= now:
                due, name = heappop(self._heap)
                stream = self._streams.get(name)
                if stream is not None and stream.due == due:
                    self._tick(stream, now)
                # The first look at a pair walks through its whole history; others must not wait for many of those.
                if time.monotonic() - began > 0.01:
                    await asyncio.sleep(0)
                    began = time.monotonic()
            self._changed.clear()
            wait = None
            if self._heap:
                wait = max(0.0005, self._clock.real_seconds_until(self._heap[0][0] / 1000))
            try:
                async with asyncio.timeout(wait):
                    await self._changed.wait()
            except TimeoutError:
                continue

    def _in_exchange_ms(self, real_s: float) -> int:
        return max(1, round(real_s * 1000 * self._clock.speed))

    def _schedule(self, stream: _Stream) -> None:
        end = end_time(stream.interval, stream.opened, stream.shift_ms)
        closing = end + _CLOSING_DELAY_MS
        if self.closings == "traded":
            closing = end + self._in_exchange_ms(self.pace_s * _LATE_CLOSING_SHARE)
        # One-second candles get one event each, their closing.
        due = closing if stream.interval == "1s" or stream.update_at >= end else min(stream.update_at, closing)
        stream.due = due
        if not self._heap or due < self._heap[0][0]:
            self._changed.set()
        heappush(self._heap, (due, stream.name))

    def _tick(self, stream: _Stream, now: int) -> None:
        end = end_time(stream.interval, stream.opened, stream.shift_ms)
        if stream.due >= end:
            self._close(stream, end, now)
            stream.opened = end
            stream.last_state = None
            stream.update_at = max(now, end) + self._in_exchange_ms(self.pace_s * _FIRST_EVENT_SHARE)
            if self.closings == "all":
                stream.update_at = end + self._in_exchange_ms(self.pace_s * _FIRST_EVENT_SHARE)
        else:
            part = self._market.candle(stream.pair.symbol, stream.interval, stream.opened, now, stream.shift_ms)
            state = (part.trades, part.first_id)
            # The first event of a candle comes even without a trade, later ones only for news.
            is_news = state != stream.last_state and (stream.last_state is not None or self._comes_first(part))
            stream.last_state = state
            if is_news and self._exists(stream, stream.opened, min(now, end)):
                self._send(stream, event(stream.pair, stream.interval, part, self._last_ms(stream, part), now, False))
            stream.update_at = now + self._in_exchange_ms(self.pace_s)
        self._schedule(stream)

    def _comes_first(self, part: Part) -> bool:
        return self.closings == "all" or part.trades > 0

    def _close(self, stream: _Stream, end: int, now: int) -> None:
        part = self._market.candle(stream.pair.symbol, stream.interval, stream.opened, None, stream.shift_ms)
        if self.closings == "traded" and part.trades == 0:
            return
        if not self._exists(stream, stream.opened, end) or self._faults.takes_closing(stream.name):
            return
        self.closings_sent += 1
        self._send(stream, event(stream.pair, stream.interval, part, self._last_ms(stream, part), now, True))

    def _exists(self, stream: _Stream, start: int, end: int) -> bool:
        pair = self._market.crypto.get(stream.pair.symbol)
        if pair is None or pair.status != "TRADING":
            return False
        return not self._market.is_hidden(pair.symbol, start, max(end, start + 1))

    def _last_ms(self, stream: _Stream, part: Part) -> int:
        return self._market.last_ms(stream.pair.symbol, part.start, part.end)

    def _send(self, stream: _Stream, message: dict[str, object], *, is_ordered: bool = False) -> None:
        if not is_ordered and self._faults.is_muted(stream.name):
            return
        self.events_sent += 1
        frames: dict[tuple[bool, bool], bytes] = {}
        for connection in stream.connections.values():
            if not is_ordered and not connection.hears(stream.name):
                continue
            shape = (connection.combined, connection.microseconds)
            frame = frames.get(shape)
            if frame is None:
                content = in_microseconds(message) if connection.microseconds else message
                frame = orjson.dumps({"stream": stream.name, "data": content} if connection.combined else content)
                frames[shape] = frame
            connection.send(frame)
