"""The built-in providers; they come in by the same door as anybody's."""

BUILTIN = ("providers.binance:BinanceProvider", "providers.twelve_data:TwelveDataProvider")
"""Where each is; its package has the name of the provider. One that is switched off is not imported."""
