"""A library like ccxt: one call for each stream, errors and a close of its own; its exchange has two made-up pairs."""

import asyncio
import time
from types import ModuleType
from typing import Any

DAY_S = 86_400
STEPS = {"1m": 60, "5m": 300, "15m": 900, "1h": 3600, "4h": 14_400, "1d": DAY_S}
SYMBOLS = ("BTC/USDT", "ETH/USDT")
Row = list[float]


class BaseError(Exception):
    """Root of all errors."""


class BadSymbol(BaseError):
    """A symbol that the exchange does not have."""


class AuthenticationError(BaseError):
    """A key that was refused."""


class RateLimitExceeded(BaseError):
    """Too many requests."""


class DDoSProtection(BaseError):
    """Somebody in front of the exchange refuses."""


class NetworkError(BaseError):
    """The exchange cannot be reached."""


class Exchange:
    """Keeps a task until it is closed, as clients do. `failures` are raised by the next calls for a symbol."""

    made: list["Exchange"]

    def __init__(self, options: dict[str, Any]) -> None:
        assert options == {"newUpdates": True}
        self.made.append(self)
        self.began = int(time.time()) // DAY_S * DAY_S - 40 * DAY_S
        self.failures: dict[str, list[BaseException]] = {}
        self.watched: list[tuple[str, str]] = []
        self.is_closed = False
        self._told: dict[tuple[str, str], int] = {}
        self._keeper = asyncio.create_task(asyncio.sleep(10**9), name="a client's keeper")

    def _row(self, opened: int, step: int) -> Row:
        until = min(opened + step, int(time.time()) + 1)
        first, last = (100 + at % DAY_S / 1000 for at in (opened, until - 1))
        return [opened * 1000, first, last, first, last, float(until - opened)]

    def _check(self, symbol: str) -> None:
        assert not self.is_closed
        if self.failures.get(symbol):
            raise self.failures[symbol].pop(0)
        if symbol not in SYMBOLS:
            raise BadSymbol(f"exchange does not have market symbol {symbol}, see https://exchange.example/markets")

    async def watch_ohlcv(self, symbol: str, timeframe: str) -> list[Row]:
        """Return what is new of a stream: the last state of a candle with the first of the next one."""
        self.watched.append((symbol, timeframe))
        await asyncio.sleep(0.5)
        self._check(symbol)
        step = STEPS[timeframe]
        opened = int(time.time()) // step * step
        before = self._told.get((symbol, timeframe), opened)
        self._told[symbol, timeframe] = opened
        return [self._row(each, step) for each in sorted({before, opened})]

    async def fetch_ohlcv(self, symbol: str, timeframe: str, since: int, limit: int) -> list[Row]:
        """Return candles from a time in milliseconds on, oldest first."""
        await asyncio.sleep(0.05)
        self._check(symbol)
        assert limit <= 500
        step = STEPS[timeframe]
        first = max(self.began, -(-since // 1000 // step) * step)
        return [self._row(opened, step) for opened in range(first, int(time.time()) + 1, step)[:limit]]

    async def load_markets(self, reload: bool) -> dict[str, dict[str, Any]]:
        """Return the markets by symbol."""
        assert reload
        names = (*SYMBOLS, "OLD/USDT", "BTC/USDT:USDT")
        return {name: self._market(name) for name in names}

    def _market(self, symbol: str) -> dict[str, Any]:
        base, _, quote = symbol.partition(":")[0].partition("/")
        return {"symbol": symbol, "base": base, "quote": quote, "spot": ":" not in symbol, "active": base != "OLD"}

    async def close(self) -> None:
        """End the task."""
        self.is_closed = True
        self._keeper.cancel()


def fake_ccxt() -> tuple[dict[str, ModuleType], list[Exchange]]:
    """Return the modules `ccxt` and `ccxt.pro`, and the exchanges that are made from then on."""
    made: list[Exchange] = []
    package, pro = ModuleType("ccxt"), ModuleType("ccxt.pro")
    kinds = (BaseError, BadSymbol, AuthenticationError, RateLimitExceeded, DDoSProtection, NetworkError)
    vars(pro).update({kind.__name__: kind for kind in kinds})
    vars(pro)["kraken"] = type("kraken", (Exchange,), {"made": made})
    vars(package)["pro"] = pro
    return {"ccxt": package, "ccxt.pro": pro}, made
