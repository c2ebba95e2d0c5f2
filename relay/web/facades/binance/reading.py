"""How parameters are read, and refused, as Binance does it; pure.

rest-api.md and errors.md in https://github.com/binance/binance-spot-api-docs say what is taken, and in which words the
rest is refused. In which order a request is judged was seen in recorded answers.
"""

import re
from collections.abc import Mapping, Sequence

import orjson
from aiohttp import web

from relay.web.facades.binance.refusals import BinanceRefusal, illegal, invalid, mandatory
from relay.web.facades.binance.venue_markets import VenueMarket

SYMBOL_RANGE = r"^[\w\-._&&[^a-z]]{1,50}$"
SYMBOLS_RANGE = r"""^\["[\w\-._&&[^a-z]]{1,50}"(,"[\w\-._&&[^a-z]]{1,50}")*\]$"""
NUMBER_RANGE = "^[0-9]{1,20}$"
MICROSECONDS_FROM = 10**14
"""A time of so much is in microseconds: in milliseconds it would be in the year 5138."""
_NUMBER = re.compile("[0-9]{1,20}")
_ZONE = re.compile(r"([+-]?)([0-9]{1,2})(?::([0-9]{2}))?")
_EARLIEST_ZONE_M, _LATEST_ZONE_M = -12 * 60, 14 * 60
_MINUTE_MS = 60_000


def check_names(query: Mapping[str, str], known: Sequence[str], needed: Sequence[str] = ()) -> None:
    """Refuse a parameter that is given twice, that is missing, or that the call does not know."""
    names = [*dict.fromkeys(query)]
    if len(names) < len(query):
        raise BinanceRefusal(-1101, "Duplicate values for a parameter detected.")
    for name in needed:
        if not query.get(name):
            raise mandatory(name)
    if names and not known:
        raise BinanceRefusal(-1101, f"Too many parameters; expected '0' and received '{len(names)}'.")
    read = sum(name in known for name in names)
    if read < len(names):
        said = f"Not all sent parameters were read; read '{read}' parameter(s) but was sent '{len(names)}'."
        raise BinanceRefusal(-1104, said)


def symbol_of(text: str) -> str:
    """Take what can be a symbol."""
    if not 1 <= len(text) <= 50 or not all((one.isalnum() or one in "-._") and not "a" <= one <= "z" for one in text):
        raise illegal("symbol", SYMBOL_RANGE)
    return text


def symbols_of(text: str) -> list[str]:
    """Take a JSON list of what can be symbols, each once."""
    try:
        names = orjson.loads(text)
    except orjson.JSONDecodeError:
        names = None
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise illegal("symbols", SYMBOLS_RANGE)
    if len({*names}) < len(names):
        raise BinanceRefusal(-1151, "Symbol is present multiple times in the list.")
    return names


def whole(query: Mapping[str, str], name: str) -> int | None:
    """Take digits; None without any."""
    text = query.get(name)
    if text is None:
        return None
    if not _NUMBER.fullmatch(text):
        raise illegal(name, NUMBER_RANGE)
    return int(text)


def first_second(query: Mapping[str, str], name: str) -> int | None:
    """Take a time in milliseconds or microseconds; return the first whole second from then on."""
    value = whole(query, name)
    if value is None:
        return None
    return -(-value // (1_000_000 if value >= MICROSECONDS_FROM else 1000))


def last_second(query: Mapping[str, str], name: str) -> int | None:
    """Take a time in milliseconds or microseconds; return the last whole second up to then."""
    value = whole(query, name)
    if value is None:
        return None
    return value // (1_000_000 if value >= MICROSECONDS_FROM else 1000)


def wants_microseconds(request: web.Request, market: VenueMarket) -> bool:
    """Say whether a request wants times in microseconds: rest-api.md, "General API Information"."""
    return not market.is_plain and request.headers.get("X-MBX-TIME-UNIT", "").upper() == "MICROSECOND"


def zone_ms(query: Mapping[str, str]) -> int:
    """Take a `timeZone` such as `0`, `8`, `-1:00` or `05:45`; return by how much it is ahead of UTC."""
    text = query.get("timeZone")
    if text is None:
        return 0
    found = _ZONE.fullmatch(text)
    if found is None:
        raise invalid("timeZone")
    minutes = (int(found[2]) * 60 + int(found[3] or 0)) * (-1 if found[1] == "-" else 1)
    if not _EARLIEST_ZONE_M <= minutes <= _LATEST_ZONE_M:
        raise invalid("timeZone")
    return minutes * _MINUTE_MS
