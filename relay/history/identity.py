"""Tells from candles whether a symbol still names the instrument that it named when they were stored; pure."""

from collections.abc import Sequence
from typing import NamedTuple

from relay.core.intervals import length_s
from relay.core.model import Candle

SAMPLE = 20
"""How many stored candles a comparison takes: the newest before the moment in doubt."""
HOLE_S = 5 * 86_400
"""A symbol that had no candle for so long may have been delisted, and listed again for something else, meanwhile.

No market closes for as long, so that no reopening costs a comparison.
"""
MUCH = 0.02
"""Closes of the same candle that differ by more than this share are of different instruments."""
JUMP = 0.3
"""A price that changes by more than this share between two candles next to each other is a reason for doubt."""

_DAY_S = 86_400


class Verdict(NamedTuple):
    """What a comparison showed: the same instrument (True), another one (False), or nothing at all (None).

    `begins` is the open time of the first candle that the provider has of the other one, None where it has candles of
    the time that was compared.
    """

    is_same: bool | None
    begins: int | None = None


UNKNOWN = Verdict(None)


def judge(stored: Sequence[Candle], told: Sequence[Candle]) -> Verdict:
    """Compare stored candles with what the provider has from the first one on; both oldest first.

    An empty answer, or one that lacks the stored candles but has others of their time, shows nothing.
    """
    truth = {candle.time: candle for candle in told if candle.fault() is None}
    found = [(candle, truth[candle.time]) for candle in stored if candle.time in truth]
    if found:
        differing = sum(_differ_much(one.close, other.close) for one, other in found)
        return Verdict(2 * differing <= len(found))
    begins = min(truth, default=0)
    return Verdict(False, begins) if begins > stored[-1].time else UNKNOWN


def judge_by_longer(stored: Candle, told: Sequence[Candle]) -> Verdict:
    """Judge a candle that is gone by longer ones, which a provider keeps for longer: the first that ends after it.

    An empty answer shows nothing.
    """
    if not told or told[0].fault() is not None:
        return UNKNOWN
    longer = told[0]
    if longer.time > stored.time:
        return Verdict(False, longer.time)
    return Verdict(longer.low * (1 - MUCH) <= stored.close <= longer.high * (1 + MUCH))


def follows(interval: str, last: Candle, first: Candle) -> bool:
    """Say whether a provider's candle looks like the one after the last stored one, without a reason for doubt."""
    is_near = first.time - last.time < max(HOLE_S, 3 * length_s(interval))
    return is_near and abs(first.open - last.close) <= JUMP * max(first.open, last.close)


def longer_interval(interval: str, intervals: Sequence[str]) -> str | None:
    """Return the longest of the intervals, up to a day, that is longer than this one; None if there is none."""
    longer = [one for one in intervals if length_s(interval) < length_s(one) <= _DAY_S]
    return max(longer, key=length_s, default=None)


def _differ_much(one: float, other: float) -> bool:
    return abs(one - other) > MUCH * max(abs(one), abs(other))
