"""A venue of stocks as a plugin: sessions in New York, days that open at midnight there, holidays, and no stream."""

import asyncio
import time
from bisect import bisect_left
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import date, timedelta
from functools import cache
from typing import Any

from relay import API_VERSION, Candle, Instrument, PriceUpdate, ProviderInfo, TradingCalendar, hookimpl

DAYS = 90
SYMBOLS: Mapping[str, str] = {"ACME": "0.01", "BRK.B": "0.05"}
"""The symbols and their price steps."""
_LENGTH_S = {"15m": 900, "1h": 3600, "1d": 86_400}


def holidays(today: date) -> list[str]:
    """Return the Monday and the Wednesday of the week before the last one."""
    monday = today - timedelta(days=today.weekday() + 14)
    return [monday.isoformat(), (monday + timedelta(days=2)).isoformat()]


class StockVenue:
    """The plugin. Its candles begin `DAYS` before it was made."""

    def __init__(self) -> None:
        self.today = date.fromtimestamp(time.time())
        self.calendar = TradingCalendar("America/New_York", "0930-1600", holidays=holidays(self.today))

    @cache  # noqa: B019  it lives as long as the test
    def opens(self, interval: str) -> list[int]:
        """Return the open times of all candles up to tomorrow."""
        found: list[int] = []
        first = (self.today - date(1970, 1, 1)).days - DAYS
        for number in range(first, first + DAYS + 2):
            day = self.calendar.first_day(number)
            if day.date == number:
                opens, closes = day.sessions[0]
                found += (
                    [self.calendar.midnight(number)] if interval == "1d" else range(opens, closes, _LENGTH_S[interval])
                )
        return found

    @hookimpl
    def relay_provider(self) -> ProviderInfo:
        return ProviderInfo(
            name="stock_venue",
            api=API_VERSION,
            title="Stock Venue",
            asset_classes=("stocks",),
            intervals=tuple(_LENGTH_S),
        )

    @hookimpl
    def relay_hours(self) -> TradingCalendar:
        return self.calendar

    @hookimpl
    async def relay_instruments(self) -> list[Instrument]:
        return [
            Instrument(symbol, "stocks", symbol, "USD", price_step=step, session=self.calendar.text)
            for symbol, step in SYMBOLS.items()
        ]

    @hookimpl
    async def relay_candles(self, interval: str, start: int | None, end: int, limit: int) -> Sequence[Candle]:
        opens = self.opens(interval)
        length = 23_400 + 34_200 if interval == "1d" else _LENGTH_S[interval]
        times = [at for at in opens[: bisect_left(opens, end)] if at + length <= time.time()]
        times = times[-limit:] if start is None else times[bisect_left(times, start) :][:limit]
        return [Candle(at, 10.0, 12.0, 9.5, 10.0 + at % 7 / 4, float(at % 1000)) for at in times]

    @hookimpl
    async def relay_stream(self, watchlist: Any) -> AsyncIterator[PriceUpdate]:
        await asyncio.Event().wait()
        for key in watchlist.streams:
            yield PriceUpdate(key, Candle(0, 1.0, 1.0, 1.0, 1.0))
