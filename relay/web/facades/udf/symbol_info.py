"""What charts are told of an instrument: its steps, its hours, its resolutions; pure but for the provider's hours.

Names and meanings are those of `LibrarySymbolInfo`, https://www.tradingview.com/charting-library-docs.
"""

from decimal import Decimal
from typing import Any, NamedTuple

from relay.core.model import Instrument
from relay.core.session_text import ALWAYS
from relay.instruments.directory import Listed, Meant
from relay.plugins.provider import Provider
from relay.web.facades.udf.resolutions import multipliers, resolution_of
from relay.web.http.instrument_rows import session_of

UTC_ZONE = "Etc/UTC"
_TYPES = {"stocks": "stock", "future": "futures"}
"""What charts call asset classes that they have other words for."""
_NO_VOLUME = "forex"
_FEW_DECIMALS = frozenset({"JPY", "HUF", "KRW", "THB", "INR", "RUB"})
_UNKNOWN_STEPS = {"forex": "0.00001", "stocks": "0.01", "future": "0.01"}
_UNKNOWN_STEP, _UNKNOWN_VOLUME_DIGITS = "0.00000001", 8
"""Our choice where a provider names no steps: nothing that it may send is cut off."""


class PriceScale(NamedTuple):
    """A price is a multiple of `minmov / pricescale`."""

    minmov: int
    pricescale: int


def type_of(asset_class: str) -> str:
    """Return what charts call an asset class."""
    return _TYPES.get(asset_class, asset_class)


def exchange_of(provider: str) -> str:
    """Return what charts show as the exchange; with a colon before a symbol it names the provider."""
    return provider.upper()


def price_scale(step: str) -> PriceScale:
    """Return the scale of prices with such a step, a decimal text such as `0.01` or `0.25`."""
    digits = _digits(step)
    return PriceScale(int(Decimal(step).scaleb(digits)), 10**digits)


def search_row(one: Listed) -> dict[str, str]:
    """Return an instrument as a hit of a search."""
    provider, instrument = one
    symbol = instrument.symbol.upper()
    return {
        "symbol": symbol,
        "full_name": f"{exchange_of(provider.name)}:{symbol}",
        "description": description_of(instrument, symbol),
        "exchange": exchange_of(provider.name),
        "ticker": f"{provider.name}:{symbol}",
        "type": type_of(instrument.asset_class),
    }


def symbol_info(meant: Meant, now: float) -> dict[str, Any]:
    """Return what a chart has to know of an instrument before it asks for bars.

    `ticker`, by which it asks for them, is the id that always means this instrument.
    """
    provider, instrument, symbol = meant
    asset_class = provider.info.asset_classes[0] if instrument is None else instrument.asset_class
    session, zone = session_and_zone(provider, symbol, instrument)
    scale = price_scale(_step(asset_class, instrument))
    intervals = meant.intervals
    seconds, daily = multipliers(intervals, "s"), multipliers(intervals, "d")
    weekly, monthly = multipliers(intervals, "w"), multipliers(intervals, "M")
    intraday = multipliers(intervals, "mh")
    found: dict[str, Any] = {
        "name": symbol.upper(),
        "ticker": meant.id,
        "description": description_of(instrument, symbol),
        "type": type_of(asset_class),
        "exchange": exchange_of(provider.name),
        "listed_exchange": exchange_of(provider.name),
        "session": session,
        "timezone": zone,
        "minmov": scale.minmov,
        "pricescale": scale.pricescale,
        "format": "price",
        "has_seconds": bool(seconds),
        "seconds_multipliers": seconds,
        "has_intraday": bool(intraday or seconds),
        "intraday_multipliers": intraday,
        "has_daily": bool(daily),
        "daily_multipliers": daily,
        "has_weekly_and_monthly": bool(weekly or monthly),
        "weekly_multipliers": weekly,
        "monthly_multipliers": monthly,
        "supported_resolutions": [resolution_of(interval) for interval in intervals],
        "volume_precision": _volume_digits(asset_class, instrument),
        "visible_plots_set": "ohlc" if asset_class == _NO_VOLUME else "ohlcv",
        "data_status": "streaming",
    }
    if instrument is not None and instrument.quote:
        found["currency_code"] = found["original_currency_code"] = instrument.quote
    if instrument is not None and instrument.expires_at is not None:
        found["expiration_date"] = instrument.expires_at
        found["expired"] = instrument.expires_at <= now
    return found


def session_and_zone(provider: Provider, symbol: str, instrument: Instrument | None) -> tuple[str, str]:
    """Return the hours of an instrument as charts write them, and the time zone in which they are meant."""
    text = session_of(provider, symbol, instrument)
    if text is None or text == ALWAYS:
        return ALWAYS, UTC_ZONE
    session, _, zone = text.rpartition(" ")
    return session, UTC_ZONE if zone == "UTC" else zone


def description_of(instrument: Instrument | None, symbol: str) -> str:
    """Return what people call an instrument."""
    if instrument is None:
        return symbol
    pair = " / ".join(part for part in (instrument.base, instrument.quote) if part)
    return instrument.name or pair or symbol


def _step(asset_class: str, instrument: Instrument | None) -> str:
    if instrument is not None and instrument.price_step is not None:
        return instrument.price_step
    if asset_class == "forex" and instrument is not None and instrument.quote in _FEW_DECIMALS:
        return "0.001"
    return _UNKNOWN_STEPS.get(asset_class, _UNKNOWN_STEP)


def _volume_digits(asset_class: str, instrument: Instrument | None) -> int:
    if instrument is not None and instrument.volume_step is not None:
        return _digits(instrument.volume_step)
    return 0 if asset_class in _UNKNOWN_STEPS else _UNKNOWN_VOLUME_DIGITS


def _digits(step: str) -> int:
    """Return how many digits are behind the point."""
    return len(step.partition(".")[2].rstrip("0"))
