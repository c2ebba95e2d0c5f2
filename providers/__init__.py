"""The built-in providers; they come in by the same door as anybody's."""

BUILTIN = (
    "providers.binance:BinanceProvider",
    "providers.twelve_data:TwelveDataProvider",
    "providers.binance_usdm:BinanceUsdmProvider",
    ("providers.relay:RelayProvider", "if used"),
    ("providers.ccxt:CcxtProvider", "if used"),
)
"""Where each is; its package has the name of the provider. One that is switched off is not imported.

One "if used" is on only where an instance uses it.
"""
