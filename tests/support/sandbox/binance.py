"""The stand-in for Binance."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from typing import Any, Literal

import orjson
from aiohttp import web

from providers.sandbox.binance import SimulatedBinance, frame
from providers.sandbox.binance_klines import event, parse_stream
from providers.sandbox.binance_rest import BinanceRest
from providers.sandbox.binance_streams import KlineStreams
from providers.sandbox.connection import Connection
from providers.sandbox.listings import Pair
from providers.sandbox.parts import Part
from tests.support.sandbox.clock import StagedClock
from tests.support.sandbox.market import StagedMarket
from tests.support.sandbox.stand_in import StandIn

_LATE_CLOSING_SHARE = 0.88


class PlayedRest(BinanceRest):
    """The REST calls; of some symbols the klines are recorded ones. `spent` is the weight of all so far, by path."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.spent: Counter[str] = Counter()
        self._weighed = 0
        self._rows: dict[tuple[str, str], list[Sequence[object]]] = {}

    def answer(self, request: web.Request) -> web.Response:
        """Answer a request, and note what it weighs."""
        response = super().answer(request)
        self.spent[request.path] += self._weighed
        return response

    def _count(self, weight: int) -> None:
        self._weighed = weight
        super()._count(weight)

    def serve_rows(self, symbol: str, interval: str, rows: Sequence[Sequence[object]]) -> None:
        """Answer klines of a symbol and interval from these rows."""
        self._rows[symbol, interval] = sorted(rows, key=_opened)

    def klines(
        self, pair: Pair, interval: str, start: int | None, end: int | None, limit: int, shift: int = 0,
        *, microseconds: bool = False,
    ) -> list[Sequence[object]]:  # fmt: skip
        recorded = self._rows.get((pair.symbol, interval))
        if recorded is None:
            return super().klines(pair, interval, start, end, limit, shift, microseconds=microseconds)
        chosen = [r for r in recorded if (start is None or _opened(r) >= start) and (end is None or _opened(r) <= end)]
        return chosen[:limit] if start is not None else chosen[-limit:]


class TradedClosings(KlineStreams):
    """Closing events as they were in 2021: only after trades, and late."""

    def closing_at(self, end: int) -> int:
        return end + self._in_exchange_ms(self.pace_s * _LATE_CLOSING_SHARE)

    def is_told(self, part: Part) -> bool:
        return part.trades > 0


class BinanceStandIn(StandIn, SimulatedBinance):
    """Behave like Binance spot does today, but for what `faults` are told."""

    rest: PlayedRest
    rest_type: type[BinanceRest] = PlayedRest

    def __init__(
        self,
        market: StagedMarket | None = None,
        clock: StagedClock | None = None,
        *,
        closings: Literal["all", "traded"] = "all",
        **settings: Any,
    ) -> None:
        super().__init__(market, clock, **settings)
        if closings == "traded":
            self.streams = TradedClosings(self.market, self.clock, self.send_event, pace_s=self.streams.pace_s)

    def set_status(self, symbol: str, status: str) -> None:
        """Change a pair's trading status (TRADING, HALT, BREAK …); unless it trades its streams fall silent."""
        self.market.crypto[symbol] = self.market.crypto[symbol]._replace(status=status)

    def serve_rows(self, symbol: str, interval: str, rows: Sequence[Sequence[object]]) -> None:
        """Answer klines of a symbol and interval from these raw 12-element rows instead of the market."""
        if symbol not in self.market.crypto:
            self.market.add_symbols([symbol])
        self.rest.serve_rows(symbol, interval, rows)

    def inject(self, stream: str, /, **fields: object) -> None:
        """Send an event on a stream now: the forming candle, with the `k` fields given here put over it.

        It is sent even while the stream is muted. `E` sets the event time. With `t` the event starts from the true
        candle that opens then, so a closed candle is revised by `inject("btcusdt@kline_1m", t=…, c="1.0")`.
        Raises KeyError if nobody has the stream.
        """
        listeners = SimulatedBinance.listeners(self, stream)
        if not listeners:
            raise KeyError(stream)
        name = parse_stream(stream)
        assert name is not None
        assert name.interval is not None
        pair, now = self.market.crypto[name.symbol], self.now_ms()
        at = fields.get("t", now)
        assert isinstance(at, int)
        part = self.market.candle(name.symbol, name.interval, at, now, name.shift_ms)
        last_ms = self.market.last_ms(name.symbol, part.start, part.end)
        message = event(pair, name.interval, part, last_ms, now, now >= part.end)
        kline = message["k"]
        assert isinstance(kline, dict)
        kline.update({key: value for key, value in fields.items() if key != "E"})
        message["E"] = fields.get("E", now)
        for connection in listeners:
            connection.send(frame(connection, stream, message))

    def send_event(self, stream: str, event: dict[str, object]) -> None:
        """Send an event, unless it is a closing that is to be lost."""
        kline = event["k"]
        assert isinstance(kline, dict)
        if not kline["x"] or not self.faults.takes_closing(stream):
            super().send_event(stream, event)

    def change(self, connection: Connection, method: str, params: object, identity: object) -> None:
        """Subscribe or unsubscribe, unless subscriptions are to be refused."""
        refusal = self.faults.subscription_refusal() if method == "SUBSCRIBE" else None
        if refusal is None:
            super().change(connection, method, params, identity)
        else:
            self.fail(connection, 2, refusal, identity)

    def announce_shutdown(self, close_after_s: float | None = None) -> None:
        """Send `serverShutdown` on every connection; with a time, close them all that much later."""
        stamp = self.now_ms()
        raw = orjson.dumps({"e": "serverShutdown", "E": stamp})
        wrapped = orjson.dumps({"stream": "!serverShutdown", "data": {"e": "serverShutdown", "E": stamp}})
        for connection in self._open.values():
            connection.send(wrapped if connection.combined else raw)
        if close_after_s is not None:
            numbers = list(self._open)
            self._spawn(self._close_later(numbers, close_after_s))

    async def _close_later(self, numbers: list[int], seconds: float) -> None:
        await asyncio.sleep(seconds)
        for number in numbers:
            if (connection := self._open.get(number)) is not None:
                connection.close(1001, "Server shutdown")


def _opened(raw: Sequence[object]) -> int:
    assert isinstance(raw[0], int)
    return raw[0]
