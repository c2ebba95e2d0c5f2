"""Binance's klines: pages of them, and the rows in a page."""

from collections.abc import Mapping, Sequence
from typing import Any

import aiohttp

from providers.binance_markets.remainder import USUAL, remainder
from providers.binance_markets.rest import RestCalls
from providers.binance_markets.rules import MarketRules
from relay import BadAnswer, Candle, decimals, next_open, read_rows, written_candle


class Klines:
    """Fetches klines page by page."""

    def __init__(self, rules: MarketRules, calls: RestCalls) -> None:
        self._calls = calls
        self._path = f"{rules.root}/klines"
        self._page_size = rules.klines_page
        self._weigh = rules.native_weights["klines"]

    async def candles(
        self,
        symbol: str,
        interval: str,
        start: int | None,
        end: int,
        limit: int,
        session: aiohttp.ClientSession,
        settings: Mapping[str, Any],
    ) -> Sequence[Candle]:
        """Return what `relay_candles` has to, page by page: forwards from `start`, else backwards from `end`."""
        query: dict[str, str | int] = {"symbol": symbol, "interval": interval}
        if start is None:
            return await self._newest(query, end, limit, session, settings)
        candles: list[Candle] = []
        while len(candles) < limit and start < end:
            size = min(self._page_size, limit - len(candles))
            window: dict[str, str | int] = {"startTime": start * 1000, "endTime": end * 1000 - 1, "limit": size}
            page, is_full = await self._page(query | window, session, settings)
            candles += page
            if not is_full:
                break
            # The next open time is the data's to say: grids have holes, and 3d differs by pair.
            start = page[-1].time + 1
        return candles

    async def _newest(
        self,
        query: Mapping[str, str | int],
        end: int,
        limit: int,
        session: aiohttp.ClientSession,
        settings: Mapping[str, Any],
    ) -> list[Candle]:
        pages: list[list[Candle]] = []
        left = limit
        while left > 0 and end > 0:
            size = min(self._page_size, left)
            window: dict[str, str | int] = {"endTime": end * 1000 - 1, "limit": size}
            page, is_full = await self._page({**query, **window}, session, settings)
            if page:
                pages.append(page)
                left -= len(page)
                end = page[0].time
            if not is_full:
                break
        return [candle for page in reversed(pages) for candle in page]

    async def _page(
        self, params: Mapping[str, str | int], session: aiohttp.ClientSession, settings: Mapping[str, Any]
    ) -> tuple[list[Candle], bool]:
        """Return the candles of one page, and whether it held as many rows as were asked for."""
        weight = self._weigh({"limit": str(params["limit"])})
        rows = await self._calls.ask(self._path, params, weight, session, settings)
        if not isinstance(rows, list):
            raise BadAnswer("klines: the answer is not a list")
        if len(rows) > int(params["limit"]):
            raise BadAnswer(f"klines: the answer has {len(rows):,} rows, more than the limit of {params['limit']}")
        interval, first, last = str(params["interval"]), int(params.get("startTime", 0)), int(params["endTime"])
        shares = [_share(row, interval) for row in rows]
        # One that is cut short may be real, several of them are of another interval.
        if 2 * shares.count(0.0) > len(rows) or (len(rows) > 1 and 1.0 not in shares):
            raise BadAnswer(f"klines: the rows do not fit the requested interval {interval}")

        def candle_of(row: Any, time: int) -> Candle:
            if not _share(row, interval):
                raise ValueError("its end does not fit its interval")
            try:
                rest = remainder(interval, row[0], row[6], row[11] if len(row) > 11 else USUAL)
                return written_candle(time, (*row[1:6], row[7], row[9], row[10]), row[8], rest)
            except (LookupError, TypeError, ValueError):
                # The prices may be sound where the rest is not.
                return Candle(time, *decimals(row[1:6]))

        candles = read_rows(rows, interval, _open_time, candle_of, is_utc_grid=True)
        inside = [candle for candle in candles if first <= candle.time * 1000 <= last]
        if candles and not inside:
            raise BadAnswer(f"klines: the rows begin at {candles[0].time}, outside of the requested range")
        return inside, len(rows) >= int(params["limit"])


def _open_time(row: Any) -> int:
    open_ms = row[0]
    if type(open_ms) is not int or open_ms % 1000:
        raise TypeError("an open time is not a whole second")
    return open_ms // 1000


def _share(row: Any, interval: str) -> float:
    """Return which part of its interval a row covers: 1, less when an outage cut it short, 0 if it is of another."""
    try:
        open_time = _open_time(row)
        share = (row[6] - row[0] + 1) / ((next_open(interval, open_time) - open_time) * 1000)
        return share if 0 < share <= 1 else 0.0
    except (TypeError, LookupError, ValueError, ArithmeticError):
        return 0.0
