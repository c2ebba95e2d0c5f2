"""Stocks with sessions, as a plugin that polls: it says when its market is traded, and the relay does the rest."""

from relay import API_VERSION, Candle, Instrument, PriceUpdate, ProviderInfo, TradingCalendar, hookimpl

# Published by the New York Stock Exchange for 2026: https://www.nyse.com/markets/hours-calendars
NYSE = TradingCalendar(
    "America/New_York",
    "0930-1600",
    holidays=(
        "2026-01-01", "2026-01-19", "2026-02-16", "2026-04-03", "2026-05-25", "2026-06-19", "2026-07-03", "2026-09-07",
        "2026-11-26", "2026-12-25", "2027-01-01",
    ),
    special_days={"2026-11-27": "0930-1300", "2026-12-24": "0930-1300"},
)  # fmt: skip


class Stocks:
    """`venue` answers `ask(symbol, interval, start, end, limit)` with rows: a candle's values, and if it is over."""

    def __init__(self, venue, poll_s=30.0):
        self.venue = venue
        self.poll_s = poll_s

    @hookimpl
    def relay_provider(self):
        return ProviderInfo(
            name="stocks",
            api=API_VERSION,
            title="Stocks",
            asset_classes=("stocks",),
            intervals=("15m", "1h", "1d", "1w"),
            close_grace_s=5.0,
            history_has_open=True,
            has_every_candle=True,
        )

    @hookimpl
    def relay_hours(self):
        return NYSE

    @hookimpl
    async def relay_stream(self, watchlist):
        while True:
            version = watchlist.version
            for key in watchlist.to_poll():
                for values, is_over in await self.venue.ask(key.symbol, key.interval, None, None, 2):
                    yield PriceUpdate(key, Candle(*values), is_over)
                watchlist.accept([key])
            for key in watchlist.streams:
                watchlist.expect(key, self.poll_s, self.poll_s)
            await watchlist.changed(version, timeout_s=self.poll_s)

    @hookimpl
    async def relay_candles(self, symbol, interval, start, end, limit):
        rows = await self.venue.ask(symbol, interval, start, end, limit)
        return [Candle(*values) for values, _ in rows]

    @hookimpl
    async def relay_instruments(self):
        return [Instrument("ACME", "stocks", "ACME", "USD")]
