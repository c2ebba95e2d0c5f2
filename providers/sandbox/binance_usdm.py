"""The simulated USD-M futures of Binance: what differs from spot, on loopback sockets of its own."""

from typing import Any

import orjson
from aiohttp import web

from providers.sandbox.binance import SimulatedBinance
from providers.sandbox.binance_klines import CONTRACT_INTERVALS, StreamName, parse_continuous, parse_stream
from providers.sandbox.binance_streams import KlineStream, KlineStreams
from providers.sandbox.binance_usdm_rest import BinanceUsdmRest
from providers.sandbox.clock import SandboxClock
from providers.sandbox.connection import Connection
from providers.sandbox.contracts import ContractMarket
from providers.sandbox.parts import Part

_CATEGORIES = ("/public", "/market", "/private")
_OF_KLINES = "/market"


class ContractStreams(KlineStreams):
    """Kline events of contracts, by their symbols and by their pairs and kinds."""

    def parse(self, name: str) -> StreamName | None:
        """Take a stream name apart; None for what has no klines."""
        continuous = parse_continuous(name)
        if continuous is not None:
            pair, kind, interval = continuous
            found = [one for one in self._market.crypto.values() if one.contract is not None]
            symbols = [one.symbol for one in found if one.contract is not None and one.contract[:2] == (kind, pair)]
            return StreamName(symbols[0] if symbols else "", interval, 0)
        parsed = parse_stream(name)
        is_kline = parsed is not None and parsed.interval in CONTRACT_INTERVALS and not parsed.shift_ms
        return parsed if is_kline else None

    def event(self, stream: KlineStream, part: Part, now: int, *, is_final: bool) -> dict[str, object]:
        """Give the event that tells the state of a candle."""
        said = super().event(stream, part, now, is_final=is_final)
        contract = stream.pair.contract
        if "@continuousKline_" not in stream.name or contract is None:
            return said
        kline = said["k"]
        assert isinstance(kline, dict)
        fields = {name: value for name, value in kline.items() if name != "s"}
        return {"e": "continuous_kline", "E": said["E"], "ps": contract.pair, "ct": contract.kind, "k": fields}


class SimulatedBinanceUsdm(SimulatedBinance):
    """Behave like Binance's USD-M futures since 2026-04. `pace_s` is as for spot.

    Klines are in the category `market`. Connections to another one, or to the paths of before without any, open and
    answer, and no klines come. A subscription is confirmed whatever it names.
    """

    name = "binance_usdm"
    market: ContractMarket
    rest_type = BinanceUsdmRest
    streams_type = ContractStreams
    has_books = False

    def __init__(self, market: ContractMarket, clock: SandboxClock, **settings: Any) -> None:
        usual = {"pace_s": 0.25, "weight_limit": 2400, "messages_per_second": 10, "ping_every_s": 180.0}
        super().__init__(market, clock, **(usual | {"pong_within_s": 600.0} | settings))

    def stream_path(self, request: web.Request) -> str:
        """Give the path of a request without its category."""
        category = next((one for one in _CATEGORIES if request.path.startswith(one + "/")), "")
        return request.path.removeprefix(category)

    def is_name(self, name: str) -> bool:
        """Tell whether a stream can be called so: everything is confirmed."""
        return True

    def listeners(self, stream: str) -> list[Connection]:
        """Give the connections that have klines, of those that asked for a stream."""
        return [one for one in super().listeners(stream) if one.request.path.startswith(_OF_KLINES)]

    def refuse_more(self, connection: Connection, identity: object) -> None:
        """Refuse more streams than a connection may have, and end it."""
        connection.send(orjson.dumps({"error": {"code": 4, "msg": "Too many subscriptions"}}))
        connection.close(1008, "Invalid request")
