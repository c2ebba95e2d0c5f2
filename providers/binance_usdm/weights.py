"""What the calls of Binance's USD-M futures weigh that are passed on as they are, and which these are."""

from collections.abc import Mapping

from providers.binance_markets.rules import Query, Weigh, flat, limit_in


def _of_klines(query: Query) -> int:
    """Weigh klines by their limit: below 100 rows 1, below 500 2, up to 1,000 5, and 10.

    The page says so; 100 and 500 rows were measured to weigh less, and none of it is made use of.
    """
    rows = limit_in(query, 500, 1500)
    return 1 if rows < 100 else 2 if rows < 500 else 5 if rows <= 1000 else 10


def _of_depth(query: Query) -> int:
    """Weigh `depth` by its limit, 500 where there is none: 2 up to 50, 5 up to 100, 10 up to 500, and 20."""
    rows = limit_in(query, 500, 1000)
    return 2 if rows <= 50 else 5 if rows <= 100 else 10 if rows <= 500 else 20


def _of_one_or_all(one: int, every: int) -> Weigh:
    """Weigh a call that names a symbol, and one that asks for all."""
    return lambda query: one if query.get("symbol") else every


WEIGHTS: Mapping[str, Weigh] = {
    "exchangeInfo": flat(1),
    "klines": _of_klines,
    "ticker/24hr": _of_one_or_all(1, 40),
    "ticker/price": _of_one_or_all(1, 2),
    "ticker/bookTicker": _of_one_or_all(2, 5),
    "depth": _of_depth,
    "trades": flat(5),
    "aggTrades": flat(20),
}
"""https://developers.binance.com/docs/derivatives/usds-margined-futures/market-data/rest-api, a page for each call."""
