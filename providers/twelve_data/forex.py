"""The currency market: its hours, its currencies, its well-known pairs; pure."""

from collections.abc import Iterable
from datetime import date, datetime, timedelta
from enum import Enum
from itertools import combinations
from zoneinfo import ZoneInfo

from relay import Candle, next_open

# The market's convention, Sunday to Friday at 17:00 in New York; the recorded bars of gold agree.
_NEW_YORK = ZoneInfo("America/New_York")
_FRIDAY = 4
"""Our notation, as `date.weekday` counts."""
_FOREVER = 1 << 40
"""Our choice: later than any moment that is asked for, in Unix seconds."""

METALS = ("XAU", "XAG", "XPT", "XPD")

# In the order in which the market quotes them: the earlier one is the base.
_MAJORS = ("EUR", "GBP", "AUD", "NZD", "USD", "CAD", "CHF", "JPY")
_AGAINST_DOLLAR_AND_EURO = (
    "SEK", "NOK", "DKK", "PLN", "CZK", "HUF", "RON", "TRY", "ZAR", "MXN", "BRL", "SGD", "HKD", "CNY", "INR", "KRW",
    "THB", "IDR", "PHP", "MYR", "TWD", "ILS",
)  # fmt: skip
_CURRENCIES = frozenset(  # ISO 4217, retired ones too, and the offshore yuan
    """
    AED AFN ALL AMD ANG AOA ARS AUD AWG AZN BAM BBD BDT BGN BHD BIF BMD BND BOB BRL BSD BTN BWP BYN BZD CAD CDF CHF
    CLF CLP CNH CNY COP CRC CUP CVE CZK DJF DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GGP GHS GIP GMD GNF GTQ GYD
    HKD HNL HRK HTG HUF IDR ILS IMP INR IQD IRR ISK JEP JMD JOD JPY KES KGS KHR KMF KPW KRW KWD KYD KZT LAK LBP LKR
    LRD LSL LYD MAD MDL MGA MKD MMK MNT MOP MRU MUR MVR MWK MXN MYR MZN NAD NGN NIO NOK NPR NZD OMR PAB PEN PGK PHP
    PKR PLN PYG QAR RON RSD RUB RWF SAR SBD SCR SDG SEK SGD SHP SLE SLL SOS SRD SSP STN SVC SYP SZL THB TJS TMT TND
    TOP TRY TTD TWD TZS UAH UGX USD UYU UZS VES VND VUV WST XAF XCD XOF XPF YER ZAR ZMW ZWL
    """.split()  # noqa: SIM905 - a list of 160 quoted codes is harder to read and to check
)


def known_pairs() -> list[str]:
    """Return the symbols of the pairs that everybody trades, and of gold and silver."""
    pairs = list(combinations(_MAJORS, 2))
    pairs += [("USD", other) for other in _AGAINST_DOLLAR_AND_EURO]
    pairs += [("EUR", other) for other in _AGAINST_DOLLAR_AND_EURO]
    return [f"{base}/{quote}" for base, quote in [*pairs, ("XAU", "USD"), ("XAG", "USD")]]


class Hours(Enum):
    """When a symbol is traded."""

    MONEY = "money"
    """From Sunday to Friday, 17:00 New York time."""
    METAL = "metal"
    """From Sunday to Friday as well, each day from 18:00 to 17:00 of the next, with a pause of an hour between."""
    ALWAYS = "always"

    @property
    def session(self) -> str:
        """The hours as one text, by the relay's and TradingView's notation: Monday begins on Sunday evening."""
        return _SESSIONS[self]


_SESSIONS = {
    Hours.MONEY: "1700-1700 America/New_York",
    Hours.METAL: "1800-1700 America/New_York",
    Hours.ALWAYS: "24x7",
}
"""The same hours as `session_at` computes; a market that never closes has no zone."""


def hours_of(symbol: str) -> Hours:
    """Return the hours of a symbol: gold pauses every day, money at weekends, and BTC/USD never."""
    base, _, quote = symbol.partition("/")
    if not {base, quote} <= _CURRENCIES | set(METALS):
        return Hours.ALWAYS
    return Hours.METAL if base in METALS or quote in METALS else Hours.MONEY


def session_at(moment: float, hours: Hours = Hours.MONEY) -> tuple[int, int]:
    """Return open and close of the session that holds a moment, or else of the next one.

    17:00 in New York is 21:00 UTC in the summer of the United States, else 22:00; the clocks change on Sundays while
    the market is closed.
    """
    if hours is Hours.ALWAYS:
        return 0, _FOREVER
    day = datetime.fromtimestamp(moment, _NEW_YORK).date()
    while True:
        weekday = day.weekday()
        if hours is Hours.MONEY:
            day += timedelta(days=(_FRIDAY - weekday) % 7)
        elif weekday > _FRIDAY:
            day += timedelta(days=7 - weekday)
        close = _at(day, 17)
        if close > moment:
            break
        day += timedelta(days=1)
    if hours is Hours.MONEY:
        return _at(day - timedelta(days=5), 17), close
    return _at(day - timedelta(days=1), 18), close


def _at(day: date, hour: int) -> int:
    return int(datetime(day.year, day.month, day.day, hour, tzinfo=_NEW_YORK).timestamp())


def last_close(moment: float, hours: Hours = Hours.MONEY) -> int:
    """Return the end of trading before a moment: the moment itself, rounded up, while the market is open."""
    opens, _ = session_at(moment, hours)
    if moment > opens or hours is Hours.ALWAYS:
        return int(-(-moment // 1))
    # The pause before is an hour or, at weekends, two days and an hour more or less.
    for back_s in (2 * 3600, 3 * 86_400):
        close = session_at(opens - back_s, hours)[1]
        if close < opens:
            return close
    raise AssertionError(f"no session ends before {opens}")


def has_same_day(one: float, other: float, hours: Hours = Hours.MONEY) -> bool:
    """Say whether the market's day begins at the same hour in UTC at two moments: no change of clocks lies between.

    Closed hours belong to the session that follows. Candles of some hours may begin with that day.
    """
    return (session_at(one, hours)[0] - session_at(other, hours)[0]) % 86_400 == 0


def after_trading(start: int, seconds: int, hours: Hours = Hours.MONEY) -> int:
    """Return when the market will have been open for so long, counted from a start."""
    opens, close = session_at(start, hours)
    start = max(start, opens)
    while close - start < seconds:
        seconds -= close - start
        start, close = session_at(close, hours)
    return start + seconds


def before_trading(end: int, seconds: int, hours: Hours = Hours.MONEY) -> int:
    """Return since when the market has been open for so long, counted back from an end."""
    if hours is Hours.ALWAYS:
        return end - seconds
    end = last_close(end, hours)
    opens = session_at(end - 1, hours)[0]
    while end - opens < seconds:
        seconds -= end - opens
        end = last_close(opens, hours)
        opens = session_at(end - 1, hours)[0]
    return end - seconds


def trading_between(start: float, end: float, hours: Hours) -> float:
    """Return how many seconds of a span the market is open."""
    total = 0.0
    at = start
    while at < end:
        opens, close = session_at(at, hours)
        total += max(0.0, min(close, end) - max(opens, at))
        at = close
    return total


def without_padding(candles: Iterable[Candle], interval: str, hours: Hours = Hours.MONEY) -> list[Candle]:
    """Drop the candles, oldest first, no moment of which lies in market hours: the provider pads closed hours.

    The clock alone decides, never the values: padded bars are almost flat, and so are those of a quiet hour. A candle
    that trading touches is kept as the provider gives it, such as the day of a Sunday or the four hours in which a
    Friday ends; a Saturday never is.
    """
    kept = []
    opens = close = -1
    for candle in candles:
        if candle.time >= close:
            opens, close = session_at(candle.time, hours)
        if candle.time >= opens or next_open(interval, candle.time) > opens:
            kept.append(candle)
    return kept
