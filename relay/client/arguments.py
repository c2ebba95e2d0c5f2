"""What callers may give, checked where they give it: the relay would refuse the rest later, or never see it.

Each function returns the value as it is sent and raises `BadArgument`, which names the argument.
"""

import math
import operator
import os
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from yarl import URL

from relay.client.errors import BadArgument
from relay.client.parsing import DEFAULT_URL, is_sendable, parse_url
from relay.client.resume import StreamOptions
from relay.core.errors import RequestError
from relay.core.outward_proxies import OutwardProxies, is_this_machine
from relay.protocol.client_requests import BARS, CLOSED_ONLY, EXTENDED, SINCE, THROTTLE_MS
from relay.protocol.fields import Flag, Kind, Moment, Whole, shown

T = TypeVar("T")

_TIME, _COUNT, _WAIT = Moment(), Whole(1, 5000), Whole(0, 60)
_EXAMPLES = {"symbol": "BTCUSDT", "interval": "1m"}


def options(
    *, bars: object, since: object, throttle_ms: object, closed_only: object, extended: object
) -> StreamOptions:
    """Return what is asked of a stream."""
    return StreamOptions(
        bars=whole("bars", bars, BARS.kind),
        since=whole("since", since, SINCE.kind),
        throttle_ms=whole("throttle_ms", throttle_ms, THROTTLE_MS.kind),
        closed_only=flag(CLOSED_ONLY.name, closed_only),
        extended=flag(EXTENDED.name, extended),
    )


def history_range(
    symbol: object,
    interval: object,
    *,
    start_time: object,
    end_time: object,
    limit: object,
    extended: object,
    wait_s: object = None,
) -> Mapping[str, str | int | None]:
    """Return what history is asked for."""
    start, end = whole("start_time", start_time, _TIME), whole("end_time", end_time, _TIME)
    if start is not None and end is not None and start > end:
        raise BadArgument(f"start_time {start} is after end_time {end}")
    return {
        "symbol": text("symbol", symbol),
        "interval": text("interval", interval),
        "start_time": start,
        "end_time": end,
        "limit": whole("limit", limit, _COUNT),
        "extended": "true" if flag("extended", extended) else None,
        "wait_s": whole("wait_s", wait_s, _WAIT),
    }


def instruments_wanted(
    asset_class: object, *, provider: object, search: object, limit: object
) -> Mapping[str, str | int | None]:
    """Return which instruments are asked for."""
    return {
        "asset_class": None if asset_class is None else text("asset_class", asset_class),
        "provider": None if provider is None else text("provider", provider),
        "q": None if search is None else text("search", search),
        "limit": whole("limit", limit, _COUNT),
    }


def urls(value: str | Sequence[str]) -> tuple[URL, ...]:
    """Take the address of a relay or those of several, each once."""
    found = (value,) if isinstance(value, str) or not isinstance(value, Sequence) else tuple(value)
    if not found:
        raise BadArgument(f"there is no address in {shown(value)}; give one such as {DEFAULT_URL}")
    return tuple(dict.fromkeys(map(parse_url, found)))


def text(name: str, value: object) -> str:
    """Take a text that can be sent."""
    if not isinstance(value, str) or not value or not is_sendable(value):
        example = _EXAMPLES.get(name)
        way = f"; give one, for example {example}" if example else ""
        raise BadArgument(f"{name} {shown(value)} is not a name that a relay accepts{way}")
    return value


def flag(name: str, value: object) -> bool:
    """Take True or False."""
    return _taken(name, value, Flag())


def proxies(trust_env: object, url: URL) -> OutwardProxies:
    """Return the proxies that the environment names, if it is trusted, and the relay is on another machine."""
    found = OutwardProxies()
    if flag("trust_env", trust_env) and not is_this_machine(url.host or ""):
        try:
            found.go_by(None, os.environ)
        except ValueError as fault:
            raise BadArgument(str(fault)) from None
    return found


def whole(name: str, value: object, kind: Kind[int]) -> int | None:
    """Take a whole number within the bounds of its kind, also one of numpy; None stays None."""
    if value is None:
        return None
    if not isinstance(value, bool) and hasattr(value, "__index__"):
        value = operator.index(value)
    return _taken(name, value, kind)


def count(name: str, value: object) -> int:
    """Take a whole number from 1 on."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise BadArgument(f"{name} {shown(value)} is not a whole number of at least 1")
    return value


def seconds(name: str, value: object) -> float:
    """Take a duration: finite and above 0."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise BadArgument(f"{name} {shown(value)} is not a number of seconds above 0")
    return value


def seconds_from_to(name: str, value: object) -> tuple[float, float]:
    """Take the least and the most of a duration."""
    if isinstance(value, tuple | list) and len(value) == 2:
        least, most = (seconds(name, one) for one in value)
        if least <= most:
            return least, most
    raise BadArgument(f"{name} {shown(value)} is not a pair of seconds, the shortest and the longest")


def instance(name: str, value: object, kind: type[Any]) -> None:
    """Take an instance of a class, or None."""
    if value is not None and not isinstance(value, kind):
        raise BadArgument(f"{name} {shown(value)} is not a {kind.__module__}.{kind.__name__}")


def _taken(name: str, value: object, kind: Kind[T]) -> T:
    try:
        return kind.of_json(name, value)
    except RequestError as fault:
        raise BadArgument(str(fault)) from None
