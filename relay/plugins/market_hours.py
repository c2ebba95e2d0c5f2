"""When the symbols of one provider are traded, as its plugin says it; one that fails is not asked again."""

from collections import deque
from collections.abc import Callable, Mapping
from weakref import WeakValueDictionary

from relay.core.clock import ProviderClock
from relay.core.model import Instrument, OpenHours
from relay.core.trading_calendar import TradingCalendar
from relay.core.trading_hours import TradingHours
from relay.plugins.failure_judge import FailureJudge
from relay.plugins.hook_calls import HookCalls
from relay.plugins.validation import fault_of_hours

_MOST_MARKETS = 4096
"""So many are kept that nobody else has."""


class MarketHours:
    """The hours of a provider's symbols. `is_stated` says whether the plugin has any to state.

    All who ask for a symbol share its hours, so what is learnt of it reaches those who have them already.
    """

    def __init__(self, calls: HookCalls, failures: FailureJudge, clock: Callable[[], ProviderClock]) -> None:
        self._calls = calls
        self._failures = failures
        self._clock = clock
        self._is_asked = self.is_stated = calls.has("relay_hours")
        self._markets: WeakValueDictionary[str, TradingHours] = WeakValueDictionary()
        self._kept: deque[TradingHours] = deque(maxlen=_MOST_MARKETS)
        self._instruments: tuple[Mapping[str, Instrument], ...] = ()

    def forget(self) -> None:
        """Have symbols asked for anew: with other settings a plugin may say something else.

        Whoever has hours from before has to ask for the symbol again.
        """
        self._markets.clear()
        self._kept.clear()

    def note_instruments(self, *sources: Mapping[str, Instrument]) -> None:
        """Take what is known of the provider's instruments now, by symbol in upper case; the first source counts.

        Trading ends when an instrument expires, also if it has left the list since. The mappings are kept: they are
        never changed, but replaced by another call.
        """
        self._instruments = sources
        for symbol, market in [*self._markets.items()]:
            instrument = self._instrument(symbol)
            if instrument is not None:
                market.expires_at = instrument.expires_at

    def market(self, symbol: str) -> TradingHours:
        """Return when a symbol is traded: always, as far as is known, if the plugin does not say."""
        market = self._markets.get(symbol)
        if market is None:
            instrument = self._instrument(symbol)
            expires_at = None if instrument is None else instrument.expires_at
            if self._is_asked:
                market = TradingHours(lambda moment: self._open(symbol, moment), expires_at)
            else:
                market = TradingHours(expires_at=expires_at)
            self._markets[symbol] = market
            self._kept.append(market)
        return market

    def _instrument(self, symbol: str) -> Instrument | None:
        name = symbol.upper()
        return next((one for source in self._instruments if (one := source.get(name)) is not None), None)

    def session_text(self, symbol: str) -> str | None:
        """Return the weekly hours of a symbol as text, `0930-1600 America/New_York`; None if no calendar says them."""
        calendar = self.calendar(symbol)
        return None if calendar is None else calendar.text

    def calendar(self, symbol: str) -> TradingCalendar | None:
        """Return the calendar of a symbol, None if the plugin has none."""
        calendar = self._asked(symbol, int(self._clock().now())) if self._is_asked else None
        return calendar if isinstance(calendar, TradingCalendar) else None

    def _open(self, symbol: str, moment: int) -> OpenHours | None:
        hours = self._asked(symbol, moment)
        if isinstance(hours, TradingCalendar):
            return None if hours.is_always_open else hours.session_at(moment)
        return hours

    def _asked(self, symbol: str, moment: int) -> TradingCalendar | OpenHours | None:
        if not self._is_asked:
            return None
        hours: TradingCalendar | OpenHours | None
        try:
            hours = self._calls.ask("relay_hours", symbol=symbol, moment=moment)
            if hours is not None and (fault := fault_of_hours(hours, moment)) is not None:
                raise ValueError(f"relay_hours {fault}")
        except BaseException as error:  # noqa: BLE001 - a plugin is isolated here
            # Asked for each candle: once is enough to know.
            self._is_asked = False
            self._failures.judged("relay_hours", error)
            return None
        return hours
