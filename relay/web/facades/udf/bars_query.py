"""How a request for bars is read; pure."""

import math
import re
from collections.abc import Mapping
from typing import NamedTuple

from relay.core.errors import Code, RequestError
from relay.core.intervals import length_s
from relay.protocol.fields import LATEST_TIME, shown
from relay.protocol.symbol_names import parse_symbol
from relay.web.contract.queries import MOST_AT_ONCE
from relay.web.facades.udf.resolutions import interval_of

_NUMBER = re.compile(r"-?[0-9]{1,15}(?:\.[0-9]{1,20})?")
_SHORTEST_MONTH_S = 28 * 86_400


class BarsQuery(NamedTuple):
    """Which bars are asked for: the last `most` before `end`, none before `start`; times in Unix seconds.

    `start` None is for a client that says how many bars it wants: how far back they are is no matter then.
    """

    pin: str | None
    symbol: str
    interval: str
    start: int | None
    end: int
    most: int
    currency: str


def read_bars_query(query: Mapping[str, str]) -> BarsQuery:
    """Read the parameters; those that are not known are left alone, since versions of the client have more.

    Raises `RequestError` that names the parameter and what it takes.
    """
    pin, symbol = read_symbol(query)
    interval = interval_of(_given(query, "resolution"))
    end = _moment(query, "to")
    # Versions that want no number send 0, or nothing.
    count = int(_number(query, "countback")) if query.get("countback") else 0
    start = None
    if count <= 0:
        start = _moment(query, "from")
        if start > end:
            raise RequestError(Code.INVALID_REQUEST, f"from {start} is after to {end}")
        length = _SHORTEST_MONTH_S if interval == "1M" else length_s(interval)
        count = -(-(end - start) // length) + 1
    currency = query.get("currencyCode", "")
    return BarsQuery(pin, symbol, interval, start, end, min(count, MOST_AT_ONCE), currency)


def read_symbol(query: Mapping[str, str]) -> tuple[str | None, str]:
    """Return the symbol that is asked for, with its provider if it is named. Raises `RequestError`."""
    return parse_symbol(_given(query, "symbol"))


def _given(query: Mapping[str, str], name: str) -> str:
    text = query.get(name)
    if not text:
        raise RequestError(Code.INVALID_REQUEST, f"{name} is missing")
    return text


def _number(query: Mapping[str, str], name: str) -> float:
    text = _given(query, name)
    if not _NUMBER.fullmatch(text):
        raise RequestError(Code.INVALID_REQUEST, f"{name} {shown(text)} is not a number")
    return float(text)


def _moment(query: Mapping[str, str], name: str) -> int:
    """Read a time, which may have a fraction and lie before 1970; return the first whole second from then on."""
    value = _number(query, name)
    if value >= LATEST_TIME:
        said = f"{name} {shown(query[name])} is too large for Unix seconds; are these milliseconds?"
        raise RequestError(Code.INVALID_REQUEST, said)
    return math.ceil(value)
