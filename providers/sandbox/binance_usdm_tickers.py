"""The further market data of the simulated USD-M futures: tickers, order books, trades and mark prices."""

from collections.abc import Callable, Sequence

from providers.sandbox.binance_klines import written
from providers.sandbox.binance_parameters import Refusal, check_duplicates, check_names, check_symbol, number, required
from providers.sandbox.binance_tickers import Query, Tickers, Weight
from providers.sandbox.contracts import ContractMarket
from providers.sandbox.listings import HOUR_MS, Pair

_DEPTHS = (5, 10, 20, 50, 100, 500, 1000)
"""The `limit` of "Order Book" of USD-M: https://developers.binance.com/docs/derivatives."""


def one_or_all(one: int, every: int) -> Weight:
    """Weigh a call that names a symbol, and one that asks for all."""
    return lambda query: one if "symbol" in query else every


def depth_weight(query: Query) -> int:
    """Weigh an order book by its levels."""
    text = query.get("limit", "500")
    limit = int(text) if text.isdigit() else 500
    return 2 if limit <= 50 else 5 if limit <= 100 else 10 if limit <= 500 else 20


class ContractTickers(Tickers):
    """Answer calls about the present of contracts."""

    _market: ContractMarket

    def _calls(self) -> dict[str, tuple[Weight, Callable[[Query], object]]]:
        return {
            "/fapi/v1/ticker/24hr": (one_or_all(1, 40), self._statistics),
            "/fapi/v1/ticker/price": (one_or_all(1, 2), self._prices),
            "/fapi/v1/ticker/bookTicker": (one_or_all(2, 5), self._best),
            "/fapi/v1/depth": (depth_weight, self._depth),
            "/fapi/v1/trades": (lambda query: 5, self._trades),
            "/fapi/v1/aggTrades": (lambda query: 20, self._together),
        }

    def _each(self, query: Query, names: Sequence[str], make: Callable[[Pair], object], *, needs_one: bool) -> object:
        """Give one entry for `symbol`, else those of all contracts that are traded."""
        check_duplicates(query)
        check_names(query, ("symbol", *names))
        if "symbol" in query:
            return make(self._pair(query["symbol"]))
        now = self._clock.now_ms()
        return [make(pair) for pair in self._market.crypto.values() if self._market.status(pair, now) == "TRADING"]

    def _pair(self, symbol: str) -> Pair:
        # Lower case was measured to be taken.
        check_symbol(symbol.upper())
        return super()._pair(symbol.upper())

    def _statistics(self, query: Query) -> object:
        def make(pair: Pair) -> object:
            return self._changes(pair, 24 * HOUR_MS, {})[1] | {"lastQty": self._amount_of(pair)}

        return self._each(query, (), make, needs_one=False)

    def _amount_of(self, pair: Pair) -> str:
        return self._levels(pair, 1)[0][0][1]

    def _prices(self, query: Query) -> object:
        def make(pair: Pair) -> object:
            now = self._clock.now_ms()
            return {"symbol": pair.symbol, "price": written(pair, self._last(pair), pair.price_decimals), "time": now}

        return self._each(query, (), make, needs_one=False)

    def _best(self, query: Query) -> object:
        def make(pair: Pair) -> object:
            bid, ask = self._best_of(pair)
            said = {"symbol": pair.symbol, "bidPrice": bid[0], "bidQty": bid[1], "askPrice": ask[0], "askQty": ask[1]}
            return {**said, "time": self._clock.now_ms(), "lastUpdateId": self._clock.now_ms()}

        return self._each(query, (), make, needs_one=False)

    def _depth(self, query: Query) -> object:
        check_duplicates(query)
        symbol = required(query, "symbol")
        check_names(query, ("symbol", "limit"))
        pair, limit, now = self._pair(symbol), number(query, "limit", 500), self._clock.now_ms()
        if limit not in _DEPTHS:
            raise Refusal(-4021, f"{limit} is not valid depth limit")
        bids, asks = self._levels(pair, limit)
        return {"lastUpdateId": now, "E": now, "T": now - 5, "bids": bids, "asks": asks}

    def _trades(self, query: Query) -> object:
        found = super()._trades(query)
        assert isinstance(found, list)
        for trade in found:
            del trade["isBestMatch"]
        return found

    def _together(self, query: Query) -> object:
        found = super()._together(query)
        assert isinstance(found, list)
        for trade in found:
            del trade["M"]
        return found
