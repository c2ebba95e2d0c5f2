"""What of Binance's REST interface is passed on as it is, and what it weighs: public market data only."""

from collections.abc import Callable, Mapping
from typing import Any

import aiohttp
import orjson

from providers.binance.pairs import EXCHANGE_INFO_WEIGHT
from providers.binance.rest import RestCalls
from relay import BadAnswer, NativeAnswer

Query = Mapping[str, str]


def _flat(weight: int) -> Callable[[Query], int]:
    return lambda query: weight


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
    limit = query.get("limit", "100")
    rows = int(limit) if limit.isascii() and limit.isdigit() and len(limit) < 10 else 5000
    return 5 if rows <= 100 else 25 if rows <= 500 else 50 if rows <= 1000 else 250


_WEIGHTS: Mapping[str, Callable[[Query], int]] = {
    "/api/v3/exchangeInfo": _flat(EXCHANGE_INFO_WEIGHT),
    "/api/v3/klines": _flat(2),
    "/api/v3/ticker/24hr": _of_statistics,
    "/api/v3/ticker/price": _of_prices,
    "/api/v3/ticker/bookTicker": _of_prices,
    "/api/v3/ticker": _of_window,
    "/api/v3/avgPrice": _flat(2),
    "/api/v3/depth": _of_depth,
    "/api/v3/trades": _flat(25),
    "/api/v3/aggTrades": _flat(4),
}
"""rest-api.md: "Market Data endpoints", with the weight of each."""


async def native_answer(
    calls: RestCalls, path: str, query: Query, session: aiohttp.ClientSession, settings: Mapping[str, Any]
) -> NativeAnswer:
    """Return Binance's own answer. Raises `BadAnswer` for a path that is not passed on, and what `calls` raise."""
    weigh = _WEIGHTS.get(path)
    if weigh is None:
        raise BadAnswer(f"{path} is not passed on; what is passed on: {', '.join(_WEIGHTS)}")
    weight = weigh(query)
    answer = await calls.ask_natively(path, query, weight, session, settings)
    return NativeAnswer(answer.status, answer.text, weight)
