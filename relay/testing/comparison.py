"""What is different between two accounts of one candle, in the words of an author; pure."""

from relay.core.model import Candle
from relay.testing.findings import FaultName, Finding, candle_text, utc

_PRICES = ("open", "high", "low", "close")


def is_near(one: float, other: float, part: float) -> bool:
    """Say whether two values differ by at most this part of the larger one."""
    return abs(one - other) <= part * max(abs(one), abs(other))


def compared(name: str, live: Candle, past: Candle, same: float) -> Finding | None:
    """Compare a closed candle of a stream with history's; `name` is the stream, `same` the part that may differ."""
    prices = [field for field in _PRICES if not is_near(getattr(live, field), getattr(past, field), same)]
    where = f"{name}: the closed candle of {utc(live.time)}"
    if prices:
        seen = f"{where} has another {' and '.join(prices)} in the stream than in history"
        return Finding(FaultName.LIVE_PRICES_DIFFER, seen + _about_prices(live, past), "", _both(live, past))
    if not is_near(live.volume, past.volume, same):
        seen = f"{where} has the volume {live.volume:g} in the stream, {past.volume:g} in history"
        return Finding(FaultName.LIVE_VOLUME_DIFFERS, seen + _about_volume(live, past), "", _both(live, past))
    return None


def compared_open(name: str, live: Candle, later: Candle, price: float, volume: float) -> Finding | None:
    """Compare an open candle of a stream with what history says of it later, when it can only have grown.

    A candle that is built from ticks may differ until it closes: by `price`, a part, and `volume`, a factor.
    """
    where = f"{name}: the open candle of {utc(live.time)}"
    grown = [
        field
        for field, is_off in (
            ("open", not is_near(live.open, later.open, price)),
            ("high", live.high > later.high and not is_near(live.high, later.high, price)),
            ("low", live.low < later.low and not is_near(live.low, later.low, price)),
        )
        if is_off
    ]
    if grown:
        seen = f"{where} has another {' and '.join(grown)} in the stream than in history"
        return Finding(FaultName.LIVE_PRICES_DIFFER, seen + _about_prices(live, later), "", _both(live, later))
    if live.volume > later.volume * volume:
        seen = f"{where} had the volume {live.volume:g} in the stream, and {later.volume:g} in history later"
        return Finding(FaultName.LIVE_VOLUME_DIFFERS, seen + _about_volume(live, later), "", _both(live, later))
    return None


def _both(live: Candle, past: Candle) -> str:
    return f"stream {candle_text(live)}; history {candle_text(past)}"


def _about_prices(live: Candle, past: Candle) -> str:
    if is_near(live.open, past.close, 1e-9) and is_near(live.close, past.open, 1e-9) and past.open != past.close:
        return ": open and close are swapped"
    pairs = [(one, other) for one, other in zip(live[1:5], past[1:5], strict=True) if other]
    factors = [one / other for one, other in pairs]
    if factors and all(is_near(factor, factors[0], 1e-6) for factor in factors) and not is_near(factors[0], 1, 0.01):
        return f": all prices are {factors[0]:g} times as much"
    return ""


def _about_volume(live: Candle, past: Candle) -> str:
    for one, other, where in ((live, past, "the stream"), (past, live, "history")):
        if other.volume > 0 and other.low <= one.volume / other.volume <= other.high and other.high > other.low:
            return f": the volume in {where} looks like turnover (volume × price)"
    return ""
