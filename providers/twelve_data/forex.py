"""The currency market: its hours, its currencies, its well-known pairs; pure."""

from collections.abc import Iterable
from datetime import date, timedelta
from itertools import combinations
from math import inf
from typing import NamedTuple

from relay import Candle, TradingCalendar, next_open

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


class Hours(NamedTuple):
    """When a symbol is traded: by the `week` alone, and by the `calendar`, which has holidays as well.

    Holidays are assumed: what comes on one is taken, and only what is expected goes by them. The hours of the week are
    certain, and what the provider has outside of them is padding.
    """

    week: TradingCalendar
    calendar: TradingCalendar

    @property
    def is_always_open(self) -> bool:
        """Whether it is traded at all times."""
        return self.calendar.is_always_open


def _good_friday(year: int) -> date:
    """Return the Friday before Easter Sunday, by the Gregorian calendar (the algorithm of Meeus, Jones and Butcher)."""
    century, rest = divmod(year, 100)
    moon = (19 * (year % 19) + century - century // 4 - (8 * century + 13) // 25 + 15) % 30
    sunday = (32 + 2 * (century % 4) + 2 * (rest // 4) - moon - rest % 4) % 7
    shift = (year % 19 + 11 * moon + 22 * sunday) // 451
    month, day = divmod(moon + sunday - 7 * shift + 114, 31)
    return date(year, month, day + 1) - timedelta(days=2)


_ZONE = "America/New_York"
_MONEY_HOURS = "1700-1700"
"""From Sunday to Friday, 17:00 in New York: the convention of the market, on most holidays of the United States as well
(https://www.forex.com/en-us/support/trading-hours/)."""
_METAL_HOURS = "1800-1700"
"""The same with a pause of an hour each day, by the same page; the recorded bars of gold agree."""
_BANK_HOLIDAYS = ("12-25", "01-01")
"""Shut in each year: https://markets.cboe.com/global/fx/sef/holidays_hours/. Brokers close from 17:00 in New York on
the day before to 17:00, such as https://www.zfx.com/announcement of 2023 and 2024, and bars of EUR/USD that others
recorded in 2017 and 2018 have these holes. How early some close on 24 and 31 December differs (19:00 UTC, 22:00 UTC,
not at all), so we assume usual days."""
_METAL_HOLIDAYS = (*_BANK_HOLIDAYS, *(_good_friday(year).isoformat() for year in range(1990, 2100)))
"""Metals follow the holidays of CME (the page of forex.com), which is shut on Good Friday: its notice of 16 March 2005,
https://www.cmegroup.com/media-room/press-releases. Recorded: gold rested on 2026-04-03, and the day was filled."""
_METAL_EARLY_CLOSES = {"12-24": "1800-1345"}
"""18:45 UTC, by hours that Saxo published for spot metals. On other holidays of the United States gold closes about
14:30 in New York, and is filled until 17:00 (recorded in 2026): we assume usual days."""

MONEY = Hours(TradingCalendar(_ZONE, _MONEY_HOURS), TradingCalendar(_ZONE, _MONEY_HOURS, holidays=_BANK_HOLIDAYS))
METAL = Hours(
    TradingCalendar(_ZONE, _METAL_HOURS),
    TradingCalendar(_ZONE, _METAL_HOURS, holidays=_METAL_HOLIDAYS, special_days=_METAL_EARLY_CLOSES),
)
ALWAYS = Hours(TradingCalendar("UTC", "24x7"), TradingCalendar("UTC", "24x7"))


def hours_of(symbol: str) -> Hours:
    """Return the hours of a symbol: gold pauses every day, money at weekends, and BTC/USD never."""
    base, _, quote = symbol.partition("/")
    if not {base, quote} <= _CURRENCIES | set(METALS):
        return ALWAYS
    return METAL if base in METALS or quote in METALS else MONEY


def has_same_day(one: float, other: float, hours: Hours = MONEY) -> bool:
    """Say whether the market's day begins at the same hour in UTC at two moments: no change of clocks lies between.

    Closed hours belong to the session that follows. Candles of some hours may begin with that day.
    """
    week = hours.week
    return week.offset_s(week.session_at(one).opens) == week.offset_s(week.session_at(other).opens)


def expected(hours: Hours, now: float, newest: Candle | None) -> TradingCalendar:
    """Return by what a stream is polled: not by a holiday that has brought a candle, the newest one, already."""
    is_disproved = newest is not None and newest.time >= hours.calendar.last_close(now) > 0
    return hours.week if is_disproved else hours.calendar


def without_padding(
    candles: Iterable[Candle], interval: str, hours: Hours = MONEY, *, now: float = inf
) -> list[Candle]:
    """Drop the candles, oldest first, no moment of which lies in market hours: the provider pads closed hours.

    Of one that is open only what has passed `now` counts: it may be padding until the market opens. The clock alone
    decides, never the values: padded bars are almost flat, and so are those of a quiet hour. A candle that trading
    touches is kept as the provider gives it, such as the day of a Sunday or the four hours in which a Friday ends; a
    Saturday never is.
    """
    kept = []
    opens = close = -1
    for candle in candles:
        if candle.time >= close:
            opens, close = hours.week.session_at(candle.time)
        if candle.time >= opens or min(next_open(interval, candle.time), now) > opens:
            kept.append(candle)
    return kept
