"""The currency market: its hours, its currencies, its well-known pairs; pure."""

from collections.abc import Iterable
from datetime import date, datetime, timedelta
from itertools import combinations
from zoneinfo import ZoneInfo

from relay import Candle, next_open

_NEW_YORK = ZoneInfo("America/New_York")
_FRIDAY = 4
_DAY_S = 86_400

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


def keeps_hours(symbol: str) -> bool:
    """Say whether a symbol trades in the market's hours: money and metals do, BTC/USD does not."""
    base, _, quote = symbol.partition("/")
    return (base in _CURRENCIES or base in METALS) and (quote in _CURRENCIES or quote in METALS)


def session_at(moment: float) -> tuple[int, int]:
    """Return open and close of the week's session that holds a moment, or else of the next one.

    It lasts from Sunday to Friday, 17:00 New York time: 21:00 UTC in the summer of the United States, else 22:00.
    """
    day = datetime.fromtimestamp(moment, _NEW_YORK).date()
    friday = day + timedelta(days=(_FRIDAY - day.weekday()) % 7)
    close = _at_17(friday)
    if close <= moment:
        friday += timedelta(days=7)
        close = _at_17(friday)
    return _at_17(friday - timedelta(days=5)), close


def _at_17(day: date) -> int:
    return int(datetime(day.year, day.month, day.day, 17, tzinfo=_NEW_YORK).timestamp())


def last_close(moment: float) -> int:
    """Return the end of trading before a moment: the moment itself, rounded up, while the market is open."""
    opens, _ = session_at(moment)
    if moment > opens:
        return int(-(-moment // 1))
    return session_at(opens - 3 * _DAY_S)[1]


def after_trading(start: int, seconds: int) -> int:
    """Return when the market will have been open for so long, counted from a start."""
    opens, close = session_at(start)
    start = max(start, opens)
    while close - start < seconds:
        seconds -= close - start
        start, close = session_at(close)
    return start + seconds


def before_trading(end: int, seconds: int) -> int:
    """Return since when the market has been open for so long, counted back from an end."""
    end = last_close(end)
    opens = session_at(end - 1)[0]
    while end - opens < seconds:
        seconds -= end - opens
        end = last_close(opens)
        opens = session_at(end - 1)[0]
    return end - seconds


def without_padding(candles: Iterable[Candle], interval: str) -> list[Candle]:
    """Drop the candles, oldest first, no moment of which lies in market hours."""
    kept = []
    opens = close = -1
    for candle in candles:
        if candle.time >= close:
            opens, close = session_at(candle.time)
        if candle.time >= opens or next_open(interval, candle.time) > opens:
            kept.append(candle)
    return kept
