"""Several exchanges by one provider: what it says of itself depends on the setting that names the exchange."""

import time

from relay import Budget, Candle, Instrument, PriceUpdate, ProviderInfo, Setting, hookimpl

INTERVALS = {"kraken": ("1m", "1h"), "coinbase": ("1m",)}


class Exchanges:
    made = 0

    def __init__(self):
        type(self).made += 1
        self.asked = 0

    @hookimpl
    def relay_provider(self, settings):
        exchange = settings["exchange"]
        return ProviderInfo(
            name="exchanges",
            api=2,
            title=f"Exchanges: {exchange}",
            asset_classes=("crypto",),
            intervals=INTERVALS.get(exchange, ("1m",)),
            settings=(
                Setting("exchange", "choice", None, "Which exchange", choices=("kraken", "coinbase", "nowhere")),
                Setting("api_key", "secret", help="The key", environment=("EXCHANGES_KEY",)),
                Setting("rest_url", "urls", ("https://example.org",), "Addresses"),
                Setting("quotes", "list", ("USD", "EUR"), "Currencies to list"),
                Setting("options", "table", {"retries": 3}, "What else the exchange takes"),
                Setting("testnet", "bool", False, "Use the exchange for tests"),
                Setting("depth", "int", 5, "How deep", least=1, most=9),
                Setting("pace", "float", 1.5, "How fast", least=0.1),
                Setting("note", "text", "", "For people"),
            ),
            needs_key="exchange",
            candles_per_call=0 if exchange == "nowhere" else 100,
        )

    @hookimpl
    async def relay_stream(self, watchlist, settings):
        while True:
            version = watchlist.version
            for key in watchlist.streams:
                opened = int(time.time()) // 60 * 60
                yield PriceUpdate(key, Candle(opened, *[float(settings["depth"])] * 4))
            await watchlist.changed(version, timeout_s=0.2)

    @hookimpl
    async def relay_candles(self, start, end, limit, settings):
        self.asked += 1
        times = range((start or end - 600) // 60 * 60 + 60, end, 60)[:limit]
        return [Candle(opened, *[float(settings["depth"])] * 4) for opened in times]

    @hookimpl
    async def relay_instruments(self, settings):
        return [Instrument(f"BTC/{quote}", "crypto", "BTC", quote) for quote in settings["quotes"]]

    @hookimpl
    def relay_budgets(self):
        return [Budget("calls", 100, self.asked, time.time() + 60)]


provider = Exchanges()
Exchanges.made = 0
