"""What the calls of Binance spot weigh that are passed on as they are, and which these are."""

from collections.abc import Mapping

import orjson

from providers.binance_markets.rules import Query, Weigh, flat, limit_in


def _symbols_in(query: Query) -> int:
    """Return how many symbols a query names in its list, 0 without one."""
    try:
        names = orjson.loads(query.get("symbols", "[]"))
    except orjson.JSONDecodeError:
        return 1
    return len(names) if isinstance(names, list) else 1


def _of_statistics(query: Query) -> int:
    """Weigh `ticker/24hr`: one symbol 2, a list of them 2, 40 or 80, all of them 80."""
    if "symbol" in query:
        return 2
    count = _symbols_in(query)
    return 80 if not count or count > 100 else 40 if count > 20 else 2


def _of_window(query: Query) -> int:
    """Weigh `ticker`: 4 for each symbol, at most 200."""
    return min(200, 4 * max(1, _symbols_in(query)))


def _of_prices(query: Query) -> int:
    """Weigh `ticker/price` and `ticker/bookTicker`: one symbol 2, else 4."""
    return 2 if "symbol" in query else 4


def _of_depth(query: Query) -> int:
    """Weigh `depth` by its limit: 5 up to 100, then 25 up to 500, 50 up to 1,000, and 250."""
    rows = limit_in(query, 100, 5000)
    return 5 if rows <= 100 else 25 if rows <= 500 else 50 if rows <= 1000 else 250


WEIGHTS: Mapping[str, Weigh] = {
    "exchangeInfo": flat(20),
    "klines": flat(2),
    "ticker/24hr": _of_statistics,
    "ticker/price": _of_prices,
    "ticker/bookTicker": _of_prices,
    "ticker": _of_window,
    "avgPrice": flat(2),
    "depth": _of_depth,
    "trades": flat(25),
    "aggTrades": flat(4),
}
"""rest-api.md: "Market Data endpoints" and "Exchange information", with the weight of each."""
