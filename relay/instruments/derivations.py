"""Which intervals the relay builds of an instrument's shorter ones, and how; pure but for the provider's hours."""

from collections.abc import Mapping
from functools import lru_cache
from types import MappingProxyType

from relay.core.derived_intervals import Derivation, GridOfHours, bases, derived_intervals
from relay.core.model import Instrument, StreamKey
from relay.core.periods import Periods
from relay.core.session_text import ALWAYS
from relay.core.trading_calendar import TradingCalendar
from relay.plugins.provider import Provider

_DAY_S = 86_400
_NONE: Mapping[str, str] = MappingProxyType({})


def derivable(provider: Provider, symbol: str, instrument: Instrument | None) -> Mapping[str, str]:
    """Return the intervals that can be built, in order, each with the one that it is built of.

    There are none without history: a candle would lack what was traded before it was asked for.
    """
    if not provider.has_history:
        return _NONE
    intervals = intervals_of(provider, instrument)
    if not bases(intervals, _DAY_S):
        # Of the most that any hours allow.
        return _NONE
    return derived_intervals(intervals, _grid_of(provider, symbol, instrument), int(provider.clock.now()))


def is_available(provider: Provider, symbol: str, interval: str, instrument: Instrument | None) -> bool:
    """Say whether candles of an interval can be had, from the provider or built."""
    return interval in intervals_of(provider, instrument) or interval in derivable(provider, symbol, instrument)


def derivation_of(provider: Provider, key: StreamKey, instrument: Instrument | None) -> Derivation | None:
    """Return how the candles of a stream are built, None if the provider has them or cannot have them."""
    if key.interval in intervals_of(provider, instrument):
        return None
    base = derivable(provider, key.symbol, instrument).get(key.interval)
    if base is None:
        return None
    grid = _grid_of(provider, key.symbol, instrument)
    market = provider.market(key.symbol) if provider.hours.is_stated else None
    expires_at = None if instrument is None or market is not None else instrument.expires_at
    periods = Periods(
        key.interval,
        base,
        calendar=grid.calendar,
        market=market,
        is_utc_grid=grid.is_utc_grid,
        expires_at=expires_at,
    )
    return Derivation(base, periods, None if instrument is None else instrument.listed_at)


def intervals_of(provider: Provider, instrument: Instrument | None) -> tuple[str, ...]:
    """Return the intervals that a provider itself has of an instrument."""
    return (instrument.intervals if instrument else None) or provider.info.intervals


def _grid_of(provider: Provider, symbol: str, instrument: Instrument | None) -> GridOfHours:
    is_utc_grid = provider.info.is_utc_grid
    if is_utc_grid:
        return GridOfHours(is_utc_grid=True)
    if not provider.hours.is_stated:
        session = None if instrument is None else instrument.session
        return GridOfHours(None if session is None else _calendar_of(session))
    calendar = provider.hours.calendar(symbol)
    if calendar is None:
        return GridOfHours(market=provider.market(symbol))
    return GridOfHours(None if calendar.is_always_open else calendar)


@lru_cache(256)
def _calendar_of(session: str) -> TradingCalendar | None:
    """Return the calendar that the session of an instrument says, which has no holidays."""
    hours, _, zone = session.rpartition(" ")
    if session == ALWAYS:
        return None
    try:
        return TradingCalendar(zone, hours)
    except ValueError:
        return None
