"""How charts call intervals: seconds with S, minutes and hours as minutes, more with D, W and M; pure."""

from collections.abc import Iterable, Sequence

from relay.core.errors import Code, RequestError
from relay.core.intervals import INTERVALS, length_s
from relay.protocol.fields import shown

_MINUTE_S, _DAY_S = 60, 86_400
LONG = frozenset(name for name in INTERVALS if length_s(name) >= _DAY_S)
"""The intervals whose bars have dates for times."""


def resolution_of(interval: str) -> str:
    """Return what charts call an interval: `1S`, `1`, `240`, `3D`, `1W`, `1M`."""
    count, unit = interval[:-1], interval[-1]
    if interval in LONG or unit == "s":
        return count + unit.upper()
    return str(length_s(interval) // _MINUTE_S)


RESOLUTIONS = {resolution_of(name): name for name in INTERVALS}
"""The intervals by what charts call them."""
_INTERVALS = RESOLUTIONS | {name[1:]: RESOLUTIONS[name] for name in ("1S", "1D", "1W", "1M")}


def interval_of(resolution: str) -> str:
    """Return the interval; `D` is `1D`, and so on. Raises `RequestError`."""
    interval = _INTERVALS.get(resolution)
    if interval is None:
        said = f"resolution {shown(resolution)} is not known; use one of {' '.join(RESOLUTIONS)}"
        raise RequestError(Code.UNKNOWN_INTERVAL, said)
    return interval


def multipliers(intervals: Iterable[str], units: Sequence[str]) -> list[str]:
    """Return, as charts want them, how many units the intervals have that are counted in one of these units."""
    return [resolution_of(name).rstrip("SDWM") for name in intervals if name[-1] in units]
