"""The kline streams of the simulated Binance: which event is due when."""

import asyncio
import time
from collections.abc import Callable
from heapq import heappop, heappush

from providers.sandbox.binance_klines import StreamName, parse_stream
from providers.sandbox.binance_klines import event as kline_event
from providers.sandbox.clock import SandboxClock
from providers.sandbox.intervals import end_time, open_time
from providers.sandbox.listings import Pair
from providers.sandbox.market import Market
from providers.sandbox.parts import Part

_CLOSING_DELAY_MS = 5
"""Recorded in 2023, for every pair."""
_FIRST_EVENT_SHARE = 1.35
"""Recorded in 2023: the first event of a candle came 2.7 s after its beginning, later ones about every 2 s."""


class KlineStream:
    """One subscribed kline stream and when its next event is due, in milliseconds of the exchange's time."""

    __slots__ = ("connections", "due", "interval", "last_state", "name", "opened", "pair", "shift_ms", "update_at")

    def __init__(self, name: str, parsed: StreamName, interval: str, pair: Pair) -> None:
        self.name = name
        self.pair = pair
        self.interval = interval
        self.shift_ms = parsed.shift_ms
        self.connections: set[int] = set()
        self.opened = 0
        self.update_at = 0
        self.due = 0
        self.last_state: tuple[int, int] | None = None


class KlineStreams:
    """Send the events of all subscribed kline streams; one task, `run`, does all of it.

    Each subscribed stream gets its closing event 5 ms after the candle.
    """

    def __init__(
        self, market: Market, clock: SandboxClock, send: Callable[[str, dict[str, object]], None], *, pace_s: float
    ) -> None:
        self._market = market
        self._clock = clock
        self._send = send
        self.pace_s = pace_s
        self._streams: dict[str, KlineStream] = {}
        self._heap: list[tuple[int, str]] = []
        self._changed = asyncio.Event()

    def join(self, name: str, connection: int) -> None:
        """Send a stream's events from now on, for a connection by its number; does nothing if it has none."""
        parsed = self.parse(name)
        if parsed is None or parsed.interval is None:
            return
        stream = self._streams.get(name)
        if stream is None:
            pair = self._market.crypto.get(parsed.symbol)
            if pair is None:
                return
            stream = self._streams[name] = KlineStream(name, parsed, parsed.interval, pair)
            now = self._clock.now_ms()
            stream.opened = open_time(stream.interval, now, pair.listed_day, stream.shift_ms)
            stream.update_at = now + self._in_exchange_ms(self.pace_s)
            self._schedule(stream)
        stream.connections.add(connection)

    def parse(self, name: str) -> StreamName | None:
        """Take a stream name apart; None if it cannot be one."""
        return parse_stream(name)

    def leave(self, name: str, connection: int) -> None:
        """Note that a connection has left a stream; the last one ends it."""
        stream = self._streams.get(name)
        if stream is not None:
            stream.connections.discard(connection)
            if not stream.connections:
                del self._streams[name]

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

    def _schedule(self, stream: KlineStream) -> None:
        end = end_time(stream.interval, stream.opened, stream.shift_ms)
        closing = self.closing_at(end)
        # One-second candles get one event each, their closing.
        due = closing if stream.interval == "1s" or stream.update_at >= end else min(stream.update_at, closing)
        stream.due = due
        if not self._heap or due < self._heap[0][0]:
            self._changed.set()
        heappush(self._heap, (due, stream.name))

    def _tick(self, stream: KlineStream, now: int) -> None:
        end = end_time(stream.interval, stream.opened, stream.shift_ms)
        if stream.due >= end:
            self._close(stream, end, now)
            stream.opened = end
            stream.last_state = None
            stream.update_at = end + self._in_exchange_ms(self.pace_s * _FIRST_EVENT_SHARE)
        else:
            part = self._market.candle(stream.pair.symbol, stream.interval, stream.opened, now, stream.shift_ms)
            state = (part.trades, part.first_id)
            # The first event of a candle comes even without a trade, later ones only for news.
            is_news = state != stream.last_state and (stream.last_state is not None or self.is_told(part))
            stream.last_state = state
            if is_news and self._exists(stream, stream.opened, min(now, end)):
                self._send(stream.name, self.event(stream, part, now, is_final=False))
            stream.update_at = now + self._in_exchange_ms(self.pace_s)
        self._schedule(stream)

    def closing_at(self, end: int) -> int:
        """Tell when the closing event of a candle is due that ends then."""
        return end + _CLOSING_DELAY_MS

    def is_told(self, part: Part) -> bool:
        """Tell whether a candle gets a first event and a closing one."""
        return True

    def _close(self, stream: KlineStream, end: int, now: int) -> None:
        part = self._market.candle(stream.pair.symbol, stream.interval, stream.opened, None, stream.shift_ms)
        if self.is_told(part) and self._exists(stream, stream.opened, end):
            self._send(stream.name, self.event(stream, part, now, is_final=True))

    def _exists(self, stream: KlineStream, start: int, end: int) -> bool:
        pair = self._market.crypto.get(stream.pair.symbol)
        if pair is None or pair.status != "TRADING":
            return False
        return self._market.exists(pair.symbol, start, max(end, start + 1))

    def event(self, stream: KlineStream, part: Part, now: int, *, is_final: bool) -> dict[str, object]:
        """Give the event that tells the state of a candle."""
        last_ms = self._market.last_ms(stream.pair.symbol, part.start, part.end)
        return kline_event(stream.pair, stream.interval, part, last_ms, now, is_final)
