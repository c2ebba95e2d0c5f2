"""Why klines of Binance cannot be given here at all: their candles have no texts of it, and never will; pure.

A recording is played by the name of its provider, and a plugin may have taken that name. Clients are told why, since to
ask again is of no use.
"""

from collections.abc import Iterable

from relay.core.model import EXTRA_FIELDS, Instrument, ProviderInfo
from relay.plugins.provider import Provider

EXTRA = "exchange_info"
"""Where an instrument of Binance keeps its entry of exchangeInfo."""
_DATABASE = "the database of a relay has them, `relay serve --replay relay.db`"


def why_no_texts(provider: Provider, instrument: Instrument) -> str | None:
    """Return why candles of an instrument are not as Binance wrote them; None where they are, as far as is known."""
    info = provider.info
    if info.is_recorded:
        what = f"the recording of {instrument.symbol} has no texts of Binance"
        return None if _has_entry(instrument) else f"{what}; {_DATABASE}"
    if provider.is_of_relays or not {*EXTRA_FIELDS} <= {*info.candle_extras}:
        return f"the provider {info.name} of this relay gives no texts of Binance"
    return None


def why_not_asked(info: ProviderInfo) -> str:
    """Say why nothing is passed on to Binance."""
    if info.is_recorded:
        return "this relay plays a recording and does not ask Binance"
    return f"the provider {info.name} of this relay passes nothing on"


def _has_entry(instrument: Instrument) -> bool:
    return instrument.extras is not None and EXTRA in instrument.extras


def recorded_intervals(symbol: str, intervals: Iterable[str]) -> str:
    """Say which intervals of a symbol a recording has."""
    return f"this recording has {symbol} at {' '.join(intervals)}"
