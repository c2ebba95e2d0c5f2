"""When the symbols of one provider are traded, as its plugin says it; one that fails is not asked again."""

from collections.abc import Callable

from relay.core.clock import ProviderClock
from relay.core.model import Instrument, OpenHours
from relay.core.trading_calendar import TradingCalendar
from relay.core.trading_hours import TradingHours
from relay.plugins.failure_judge import FailureJudge
from relay.plugins.hook_calls import HookCalls
from relay.plugins.validation import fault_of_hours

_MOST_MARKETS = 4096


def _unlisted(symbol: str) -> Instrument | None:
    return None


class MarketHours:
    """The hours of a provider's symbols. `is_stated` says whether the plugin has any to state.

    `instrument_of` gives what is listed by a symbol now: trading ends when that expires, also if it has left the list
    since.
    """

    def __init__(self, calls: HookCalls, failures: FailureJudge, clock: Callable[[], ProviderClock]) -> None:
        self._calls = calls
        self._failures = failures
        self._clock = clock
        self._is_asked = self.is_stated = calls.has("relay_hours")
        self._markets: dict[str, TradingHours] = {}
        self.instrument_of: Callable[[str], Instrument | None] = _unlisted

    def forget(self) -> None:
        """Have symbols asked for anew: with other settings a plugin may say something else."""
        self._markets.clear()

    def market(self, symbol: str) -> TradingHours:
        """Return when a symbol is traded: always, as far as is known, if the plugin does not say."""
        market = self._markets.get(symbol)
        if market is None:
            if len(self._markets) >= _MOST_MARKETS:
                self._markets.clear()
            expires_at = _Expiry(self, symbol)
            if self._is_asked:
                market = TradingHours(lambda moment: self._open(symbol, moment), expires_at)
            else:
                market = TradingHours(expires_at=expires_at)
            self._markets[symbol] = market
        return market

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


class _Expiry:
    """When an instrument expires, as it was listed last."""

    __slots__ = ("_hours", "_known", "_symbol")

    def __init__(self, hours: MarketHours, symbol: str) -> None:
        self._hours = hours
        self._symbol = symbol
        self._known: int | None = None

    def __call__(self) -> int | None:
        instrument = self._hours.instrument_of(self._symbol)
        if instrument is not None:
            self._known = instrument.expires_at
        return self._known
