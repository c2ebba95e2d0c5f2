"""What the stand-ins list: pairs with their size, volatility and liquidity; no prices over time."""

from datetime import UTC, date, datetime
from functools import cache
from typing import NamedTuple
from zoneinfo import ZoneInfo

DAY_MS = 86_400_000
HOUR_MS = 3_600_000

_NEW_YORK = ZoneInfo("America/New_York")


class Contract(NamedTuple):
    """The terms of a contract on `pair`: its `kind`, and its first and last moment; a perpetual one has no last."""

    kind: str
    pair: str
    listed_ms: int
    delivered_ms: int | None = None


class Pair(NamedTuple):
    """What the market model has to know of one symbol; prices and volumes are counted in 10**-decimals units."""

    symbol: str
    base: str
    quote: str
    price: float
    price_decimals: int
    volume_decimals: int
    daily_volume: float
    trades_per_day: int
    daily_sigma: float
    listed: date
    status: str = "TRADING"
    delisted: date | None = None
    session: str = "always"
    group: str = ""
    base_name: str = ""
    quote_name: str = ""
    contract: Contract | None = None

    @property
    def delisted_day(self) -> int | None:
        """Days from 1970-01-01 to the first day without trading, None while it trades."""
        return None if self.delisted is None else (self.delisted - date(1970, 1, 1)).days

    @property
    def listed_day(self) -> int:
        """Days from 1970-01-01 to the listing."""
        return (self.listed - date(1970, 1, 1)).days


def crypto_pairs(extra_symbols: int = 0) -> dict[str, Pair]:
    """List the crypto pairs, with as many synthetic ones (`T001USDT` and so on) as asked for."""
    # fmt: off
    pairs = [
        Pair("BTCUSDT", "BTC", "USDT", 71000.0, 2, 5, 19_000.0, 3_300_000, 0.025, date(2017, 8, 17)),
        Pair("ETHUSDT", "ETH", "USDT", 2150.0, 2, 4, 400_000.0, 3_900_000, 0.036, date(2017, 8, 17)),
        Pair("BNBUSDT", "BNB", "USDT", 630.0, 2, 3, 127_000.0, 900_000, 0.024, date(2017, 11, 6)),
        Pair("SOLUSDT", "SOL", "USDT", 96.0, 2, 3, 2_600_000.0, 1_100_000, 0.042, date(2020, 8, 11)),
        Pair("XRPUSDT", "XRP", "USDT", 1.42, 4, 1, 110_000_000.0, 700_000, 0.040, date(2018, 5, 4)),
        Pair("ADAUSDT", "ADA", "USDT", 0.2715, 4, 1, 95_000_000.0, 60_000, 0.045, date(2018, 4, 17)),
        Pair("DOGEUSDT", "DOGE", "USDT", 0.09640, 5, 0, 1_100_000_000.0, 690_000, 0.044, date(2019, 7, 5)),
        Pair("ETHBTC", "ETH", "BTC", 0.03028, 5, 4, 21_000.0, 140_000, 0.022, date(2017, 7, 14)),
        Pair("BTCEUR", "BTC", "EUR", 61200.0, 2, 5, 420.0, 110_000, 0.025, date(2020, 1, 3)),
        Pair("LRCBTC", "LRC", "BTC", 0.00000638, 8, 0, 61_000.0, 340, 0.055, date(2017, 12, 13)),
        Pair("币安人生USDT", "币安人生", "USDT", 0.1183, 4, 1, 41_000_000.0, 120_000, 0.070, date(2025, 10, 8)),
        Pair("NKNUSDT", "NKN", "USDT", 0.0182, 4, 0, 9_500_000.0, 9_000, 0.060, date(2020, 6, 5),
             status="BREAK", delisted=date(2025, 7, 4)),
    ]
    # fmt: on
    for number in range(1, extra_symbols + 1):
        pairs.append(synthetic_pair(f"T{number:03d}USDT"))
    return {pair.symbol: pair for pair in pairs}


def synthetic_pair(symbol: str) -> Pair:
    """Describe an invented pair whose size follows from its name alone."""
    dice = sum(ord(letter) * (place + 7) for place, letter in enumerate(symbol))
    price = 0.5 + dice % 977 / 10
    base, quote = (symbol[:-4], "USDT") if symbol.endswith("USDT") and len(symbol) > 4 else (symbol, "USDT")
    trades = 20_000 + dice % 13 * 5_000
    return Pair(symbol, base, quote, price, 4, 2, 40.0 * trades, trades, 0.045, date(2025, 1, 1 + dice % 28))


def forex_pairs() -> dict[str, Pair]:
    """List the currency and metal pairs; their volume exists in the model only and no stand-in shows it."""
    rows = (
        ("EUR/USD", 1.16568, 5, 62_000, 0.0046, "Major", "Euro", "US Dollar"),
        ("GBP/USD", 1.31240, 5, 58_000, 0.0052, "Major", "British Pound", "US Dollar"),
        ("USD/JPY", 155.412, 3, 64_000, 0.0058, "Major", "US Dollar", "Japanese Yen"),
        ("AUD/USD", 0.70648, 5, 41_000, 0.0058, "Major", "Australian Dollar", "US Dollar"),
        ("USD/CHF", 0.80215, 5, 39_000, 0.0047, "Major", "US Dollar", "Swiss Franc"),
        ("USD/CAD", 1.39420, 5, 40_000, 0.0039, "Major", "US Dollar", "Canadian Dollar"),
        ("NZD/USD", 0.57310, 5, 36_000, 0.0060, "Major", "New Zealand Dollar", "US Dollar"),
        ("EUR/GBP", 0.88820, 5, 38_000, 0.0034, "Minor", "Euro", "British Pound"),
        ("EUR/JPY", 181.160, 3, 52_000, 0.0055, "Minor", "Euro", "Japanese Yen"),
        ("GBP/JPY", 203.960, 3, 55_000, 0.0061, "Minor", "British Pound", "Japanese Yen"),
        ("USD/CZK", 20.8030, 5, 22_000, 0.0060, "Exotic", "US Dollar", "Czech Koruna"),
        ("COP/ARS", 0.37210, 5, 20_000, 0.0090, "Exotic-Cross", "Colombian Peso", "Argentinian Peso"),
        ("XAU/USD", 4375.59435, 5, 78_000, 0.0110, "Exotic", "Gold Spot", "US Dollar"),
        ("XAG/USD", 55.61725, 5, 70_000, 0.0170, "Exotic", "Silver Spot", "US Dollar"),
    )
    pairs = {}
    for symbol, price, decimals, ticks, sigma, group, base_name, quote_name in rows:
        base, _, quote = symbol.partition("/")
        pairs[symbol] = Pair(
            symbol, base, quote, price, decimals, 0, 3.0 * ticks, ticks, sigma, date(2020, 1, 1),
            session="metal" if base in ("XAU", "XAG") else "forex", group=group, base_name=base_name,
            quote_name=quote_name,
        )  # fmt: skip
    return pairs


@cache
def forex_break_hour(day: int) -> int:
    """Tell which hour of this UTC day is 17:00 in New York: 21 in summer there, else 22."""
    moment = datetime.fromtimestamp(day * 86_400, UTC)
    local = datetime(moment.year, moment.month, moment.day, 17, tzinfo=_NEW_YORK)
    return local.astimezone(UTC).hour


def open_hours(session: str, day: int) -> tuple[bool, ...]:
    """Tell for each hour of this UTC day whether a market with this session trades."""
    if session == "always":
        return _ALL_DAY
    weekday = (day + 3) % 7  # 1970-01-01 was a Thursday; Monday is 0
    pause = forex_break_hour(day)
    if weekday == 5:
        return _NEVER
    if weekday == 6:
        first = pause + 1 if session == "metal" else pause
        return tuple(hour >= first for hour in range(24))
    if weekday == 4:
        return tuple(hour < pause for hour in range(24))
    if session == "metal":
        return tuple(hour != pause for hour in range(24))
    return _ALL_DAY


_ALL_DAY = (True,) * 24
_NEVER = (False,) * 24
