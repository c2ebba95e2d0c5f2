"""The built-in providers; they come in by the same door as anybody's."""

BUILTIN = (
    "providers.binance:BinanceProvider",
    "providers.twelve_data:TwelveDataProvider",
    "uses providers.relay:RelayProvider",
)
"""Where each is; its package has the name of the provider. One that is switched off is not imported, and one behind
`uses` is on only where an instance uses it."""
