"""The built-in providers; they come in by the same door as anybody's."""

from providers.binance import BinanceProvider
from providers.twelve_data import TwelveDataProvider

BUILTIN = (BinanceProvider, TwelveDataProvider)
