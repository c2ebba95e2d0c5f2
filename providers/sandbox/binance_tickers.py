"""The further market data of the simulated Binance: tickers, average prices, order books and trades of the market."""

import re
from collections.abc import Callable, Mapping, Sequence
from hashlib import blake2b

import orjson

from providers.sandbox.binance_klines import written
from providers.sandbox.binance_parameters import Refusal, check_duplicates, check_names, check_symbol, number, required
from providers.sandbox.clock import SandboxClock
from providers.sandbox.listings import DAY_MS, HOUR_MS, Pair
from providers.sandbox.market import Market

_SYMBOLS_RANGE = r"""^\["[\w\-._&&[^a-z]]{1,50}"(,"[\w\-._&&[^a-z]]{1,50}")*\]$"""
_WINDOW = re.compile(r"([1-9][0-9]?)([mhd])")
# rest-api.md, "Rolling window price change statistics".
_UNIT_MS = {"m": 60_000, "h": HOUR_MS, "d": DAY_MS}
_MOST_SYMBOLS = 100

Query = Mapping[str, str]
Weight = Callable[[Query], int]


class Tickers:
    """Answer calls about the present; `calls` has them by path, each with what it weighs."""

    def __init__(self, market: Market, clock: SandboxClock) -> None:
        self._market = market
        self._clock = clock
        self.calls = self._calls()

    def _calls(self) -> dict[str, tuple[Weight, Callable[[Query], object]]]:
        return {
            "/api/v3/ticker/24hr": (_statistics_weight, self._statistics),
            "/api/v3/ticker/price": (_price_weight, self._prices),
            "/api/v3/ticker/bookTicker": (_price_weight, self._best),
            "/api/v3/ticker": (lambda query: min(200, 4 * max(1, len(_listed(query)))), self._window),
            "/api/v3/avgPrice": (lambda query: 2, self._average),
            "/api/v3/depth": (_depth_weight, self._depth),
            "/api/v3/trades": (lambda query: 25, self._trades),
            "/api/v3/aggTrades": (lambda query: 4, self._together),
        }

    # ---- which pairs --------------------------------------------------------------------------------------------

    def _pair(self, symbol: str) -> Pair:
        check_symbol(symbol)
        pair = self._market.crypto.get(symbol)
        if pair is None:
            raise Refusal(-1121, "Invalid symbol.")
        return pair

    def _each(self, query: Query, names: Sequence[str], make: Callable[[Pair], object], *, needs_one: bool) -> object:
        """Give one entry for `symbol`, else a list of them."""
        check_duplicates(query)
        check_names(query, ("symbol", "symbols", "symbolStatus", *names))
        if "symbol" in query and "symbols" in query:
            raise Refusal(-1128, "Combination of optional parameters invalid.")
        if "symbol" in query:
            return make(self._pair(query["symbol"]))
        if "symbols" in query:
            wanted = _listed(query)
            if not wanted:
                said = f"Illegal characters found in parameter 'symbols'; legal range is '{_SYMBOLS_RANGE}'."
                raise Refusal(-1100, said)
            return [make(self._pair(symbol)) for symbol in wanted]
        if needs_one:
            raise Refusal(-1102, "Param 'symbol' or 'symbols' must be sent, but both were empty/null!")
        return [make(pair) for pair in self._market.crypto.values()]

    # ---- tickers ------------------------------------------------------------------------------------------------

    def _statistics(self, query: Query) -> object:
        def make(pair: Pair) -> object:
            opens, said = self._changes(pair, DAY_MS, query)
            bid, ask = self._best_of(pair)
            more = {
                "prevClosePrice": written(pair, opens, pair.price_decimals),
                "lastQty": _amount(pair, 0),
                "bidPrice": bid[0], "bidQty": bid[1], "askPrice": ask[0], "askQty": ask[1],
            }  # fmt: skip
            return said | more if query.get("type", "FULL") == "FULL" else said

        return self._each(query, ("type",), make, needs_one=False)

    def _window(self, query: Query) -> object:
        found = _WINDOW.fullmatch(query.get("windowSize", "1d"))
        if found is None:
            raise Refusal(-1130, "Data sent for parameter 'windowSize' is not valid.")
        length = int(found[1]) * _UNIT_MS[found[2]]
        return self._each(
            query, ("type", "windowSize"), lambda pair: self._changes(pair, length, query)[1], needs_one=True
        )

    def _changes(self, pair: Pair, length_ms: int, query: Query) -> tuple[int, dict[str, object]]:
        """Give the price before a window that ends now, and what changed in it."""
        now = self._clock.now_ms()
        start = (now - length_ms) // 60_000 * 60_000
        part = self._market.span(pair.symbol, start, now // 1000 * 1000 + 1000)
        prices, volumes = pair.price_decimals, pair.volume_decimals
        change = part.close - part.open
        average = part.quote // part.volume if part.volume else part.close
        said: dict[str, object] = {
            "symbol": pair.symbol,
            "priceChange": ("-" if change < 0 else "") + written(pair, abs(change), prices),
            "priceChangePercent": f"{100 * change / part.open:.3f}",
            "weightedAvgPrice": written(pair, average, prices),
            "lastPrice": written(pair, part.close, prices),
            "openPrice": written(pair, part.open, prices),
            "highPrice": written(pair, part.high, prices),
            "lowPrice": written(pair, part.low, prices),
            "volume": written(pair, part.volume, volumes),
            "quoteVolume": written(pair, part.quote, prices + volumes),
            "openTime": start,
            "closeTime": now,
            "firstId": part.first_id if part.trades else -1,
            "lastId": part.last_id if part.trades else -1,
            "count": part.trades,
        }
        if query.get("type", "FULL") == "MINI":
            for name in ("priceChange", "priceChangePercent", "weightedAvgPrice"):
                del said[name]
        return part.previous, said

    def _prices(self, query: Query) -> object:
        def make(pair: Pair) -> object:
            return {"symbol": pair.symbol, "price": written(pair, self._last(pair), pair.price_decimals)}

        return self._each(query, (), make, needs_one=False)

    def _average(self, query: Query) -> object:
        check_duplicates(query)
        pair = self._pair(required(query, "symbol"))
        check_names(query, ("symbol",))
        now = self._clock.now_ms()
        part = self._market.span(pair.symbol, now // 1000 * 1000 - 300_000, now // 1000 * 1000 + 1000)
        average = part.quote // part.volume if part.volume else part.close
        return {"mins": 5, "price": written(pair, average, pair.price_decimals), "closeTime": now}

    # ---- order books --------------------------------------------------------------------------------------------

    def _last(self, pair: Pair) -> int:
        return self._market.price_at(pair.symbol, self._clock.now_ms())

    def _levels(self, pair: Pair, count: int) -> tuple[list[list[str]], list[list[str]]]:
        last = self._last(pair)
        bids = [[written(pair, last - at, pair.price_decimals), _amount(pair, at)] for at in range(min(count, last))]
        asks = [[written(pair, last + 1 + at, pair.price_decimals), _amount(pair, -1 - at)] for at in range(count)]
        return bids, asks

    def _best_of(self, pair: Pair) -> tuple[list[str], list[str]]:
        bids, asks = self._levels(pair, 1)
        return bids[0], asks[0]

    def _best(self, query: Query) -> object:
        def make(pair: Pair) -> object:
            bid, ask = self._best_of(pair)
            return {"symbol": pair.symbol, "bidPrice": bid[0], "bidQty": bid[1], "askPrice": ask[0], "askQty": ask[1]}

        return self._each(query, (), make, needs_one=False)

    def _depth(self, query: Query) -> object:
        check_duplicates(query)
        symbol = required(query, "symbol")
        check_names(query, ("symbol", "limit", "symbolStatus"))
        pair = self._pair(symbol)
        return self._book(pair, min(5000, max(1, number(query, "limit", 100))))

    def _book(self, pair: Pair, levels: int) -> dict[str, object]:
        bids, asks = self._levels(pair, levels)
        return {"lastUpdateId": self._clock.now_ms(), "bids": bids, "asks": asks}

    def book(self, symbol: str, levels: int) -> dict[str, object] | None:
        """Give the first levels of a symbol's order book; None for a symbol that does not trade, or is not there."""
        pair = self._market.crypto.get(symbol)
        return self._book(pair, levels) if pair is not None and pair.status == "TRADING" else None

    # ---- trades -------------------------------------------------------------------------------------------------

    def _ticks(self, query: Query, names: Sequence[str]) -> tuple[Pair, list[tuple[int, int, int]]]:
        """Give the wanted trades as (id, time, price), oldest first."""
        check_duplicates(query)
        symbol = required(query, "symbol")
        check_names(query, ("symbol", "limit", *names))
        pair, now = self._pair(symbol), self._clock.now_ms()
        limit = min(1000, max(1, number(query, "limit", 500)))
        first = number(query, "startTime", 0)
        if first:
            end = min(now, number(query, "endTime", first + HOUR_MS)) + 1
            ticks = self._market.ticks(symbol, first, end)[:limit] if first < end else []
            begin = self._market.span(symbol, first, first + 1).first_id
        else:
            end, length = min(now, number(query, "endTime", now)) + 1, 10_000
            ticks = self._market.ticks(symbol, end - length, end)
            while len(ticks) < limit and length < HOUR_MS:
                length *= 4
                ticks = self._market.ticks(symbol, end - length, end)
            ticks = ticks[-limit:]
            begin = self._market.span(symbol, end - 1000, end).last_id - len(ticks) + 1
        return pair, [(begin + place, at, price) for place, (at, price) in enumerate(ticks)]

    def _trades(self, query: Query) -> object:
        pair, ticks = self._ticks(query, ())
        return [
            {
                "id": number_of,
                "price": written(pair, price, pair.price_decimals),
                "qty": _amount(pair, number_of),
                "quoteQty": written(pair, price * 10**pair.volume_decimals, pair.price_decimals + pair.volume_decimals),
                "time": at,
                "isBuyerMaker": bool(number_of % 2),
                "isBestMatch": True,
            }
            for number_of, at, price in ticks
        ]

    def _together(self, query: Query) -> object:
        pair, ticks = self._ticks(query, ("fromId", "startTime", "endTime"))
        return [
            {
                "a": number_of,
                "p": written(pair, price, pair.price_decimals),
                "q": _amount(pair, number_of),
                "f": number_of,
                "l": number_of,
                "T": at,
                "m": bool(number_of % 2),
                "M": True,
            }
            for number_of, at, price in ticks
            if number_of >= number(query, "fromId", 0)
        ]


def _amount(pair: Pair, at: int) -> str:
    """Invent an amount that follows from the pair and a place."""
    dice = int.from_bytes(blake2b(f"{pair.symbol} {at}".encode(), digest_size=2).digest())
    typical = pair.daily_volume / pair.trades_per_day * 10**pair.volume_decimals
    return written(pair, max(1, round(typical * (0.2 + dice / 20_000))), pair.volume_decimals)


def _listed(query: Query) -> list[str]:
    """Read the list of symbols in a query; empty for none, and for what is no list."""
    try:
        names = orjson.loads(query.get("symbols", "[]"))
    except orjson.JSONDecodeError:
        return []
    is_list = isinstance(names, list) and all(isinstance(name, str) for name in names)
    return names[:_MOST_SYMBOLS] if is_list else []


def _statistics_weight(query: Query) -> int:
    if "symbol" in query:
        return 2
    count = len(_listed(query))
    return 80 if not count or count > 100 else 40 if count > 20 else 2


def _price_weight(query: Query) -> int:
    return 2 if "symbol" in query else 4


def _depth_weight(query: Query) -> int:
    text = query.get("limit", "100")
    limit = int(text) if text.isdigit() else 100
    return 5 if limit <= 100 else 25 if limit <= 500 else 50 if limit <= 1000 else 250
