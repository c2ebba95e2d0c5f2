"""The REST side of the simulated USD-M futures: what differs from spot."""

from collections.abc import Callable, Mapping

from aiohttp import web

from providers.sandbox.binance_klines import CONTRACT_INTERVALS
from providers.sandbox.binance_parameters import Refusal, check_duplicates, check_names, check_symbol, number, required
from providers.sandbox.binance_rest import BinanceRest, flat
from providers.sandbox.binance_tickers import Weight
from providers.sandbox.binance_usdm_tickers import ContractTickers
from providers.sandbox.contracts import ContractMarket, contract_info

# USD-M, "Kline/Candlestick Data"; a larger `limit` was measured to be refused.
_DEFAULT_ROWS = 500
_MOST_ROWS = 1500
_ADVICE = "Please use the websocket for live updates to avoid"


def klines_weight(query: Mapping[str, str]) -> int:
    """Weigh klines by their limit, as the page says; a call that is refused weighs as much."""
    text = query.get("limit", str(_DEFAULT_ROWS))
    rows = int(text) if text.isdigit() else _DEFAULT_ROWS
    return 1 if rows < 100 else 2 if rows < 500 else 5 if rows <= 1000 else 10


class BinanceUsdmRest(BinanceRest):
    """Answer the public REST calls for contracts. Refusals do not say when to come again but for bans, in words."""

    _market: ContractMarket
    tickers_type = ContractTickers

    def _routes(self) -> dict[str, tuple[Weight, Callable[[web.Request], object]]]:
        return {
            "/fapi/v1/ping": (flat(1), self._ping),
            "/fapi/v1/time": (flat(1), self._time),
            "/fapi/v1/klines": (klines_weight, self._klines),
            "/fapi/v1/exchangeInfo": (flat(1), self._exchange_info),
        }

    def too_many(self, wait_s: int) -> Refusal:
        """Refuse a call above the limit of this minute."""
        said = f"Too many requests; current limit of IP(127.0.0.1) is {self.weight_limit} requests per minute."
        return Refusal(-1003, f"{said} {_ADVICE} polling the API.", 429)

    def banned(self, now: int) -> Refusal:
        """Refuse a call of an address that is banned."""
        said = f"Way too many requests; IP(127.0.0.1) banned until {self.banned_until_ms}."
        return Refusal(-1003, f"{said} {_ADVICE} bans.", 418)

    def _time(self, request: web.Request) -> object:
        return {"serverTime": self._clock.now_ms()}

    def _klines(self, request: web.Request) -> object:
        query = request.query
        check_duplicates(query)
        symbol, interval = required(query, "symbol").upper(), required(query, "interval")
        check_names(query, ("symbol", "interval", "startTime", "endTime", "limit"))
        check_symbol(symbol)
        start, end = (number(query, name, 0) if name in query else None for name in ("startTime", "endTime"))
        limit = number(query, "limit", _DEFAULT_ROWS)
        if not 1 <= limit <= _MOST_ROWS:
            raise Refusal(-1130, "Data sent for parameter 'limit' is not valid.")
        pair = self._listed(symbol)
        if interval not in CONTRACT_INTERVALS:
            raise Refusal(-1120, "Invalid interval.")
        return self.klines(pair, interval, start, end, limit)

    def _exchange_info(self, request: web.Request) -> object:
        # It takes no parameters, and was seen to read none.
        now, margins = self._clock.now_ms(), sorted({pair.quote for pair in self._market.crypto.values()})
        return {
            "timezone": "UTC",
            "serverTime": now,
            "futuresType": "U_MARGINED",
            "rateLimits": [
                {"rateLimitType": "REQUEST_WEIGHT", "interval": "MINUTE", "intervalNum": 1, "limit": self.weight_limit},
                {"rateLimitType": "ORDERS", "interval": "MINUTE", "intervalNum": 1, "limit": 1200},
                {"rateLimitType": "ORDERS", "interval": "SECOND", "intervalNum": 10, "limit": 300},
            ],
            "exchangeFilters": [],
            "assets": [{"asset": name, "marginAvailable": True, "autoAssetExchange": "-10000"} for name in margins],
            "symbols": [contract_info(pair, self._market.status(pair, now)) for pair in self._market.crypto.values()],
        }
