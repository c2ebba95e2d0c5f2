"""What history says of candles that are known already: whether it is a revision, or another instrument's past; pure."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from relay.core.model import Candle, has_other_extras, is_bare, is_widened

FAR = 0.05
"""Prices that lie further apart than this part of them are no revision of one another."""


class Comparison(NamedTuple):
    """What became of candles that an answer and the store both had to say something about.

    `changed` are those whose values differ, as the answer has them, and `found` those of which it was believed that
    there are none. Of others `refined` carry other extras than known, and `filled` carry some where none were known.
    With `is_other` most of them are so far off that the answer must be about something else.
    """

    compared: int
    changed: tuple[Candle, ...]
    found: tuple[Candle, ...]
    is_other: bool
    refined: tuple[Candle, ...] = ()
    filled: tuple[Candle, ...] = ()


def compare(known: Mapping[int, Candle], answered: Sequence[Candle]) -> Comparison:
    """Hold final candles of an answer against those that are known, by open time; what it leaves out says nothing.

    Nor does a candle that had to be widened of one that is known.
    """
    found = tuple(candle for candle in answered if candle.time not in known)
    again = [candle for candle in answered if candle.time in known and not is_widened(candle)]
    changed = tuple(candle for candle in again if known[candle.time] != candle)
    far = sum(_is_far(known[candle.time], candle) for candle in changed)
    same = [candle for candle in again if known[candle.time] == candle]
    return Comparison(
        len(again),
        changed,
        found,
        far > 1 and 2 * far > len(again),
        refined=tuple(candle for candle in same if has_other_extras(known[candle.time], candle)),
        filled=tuple(candle for candle in same if is_bare(known[candle.time]) and not is_bare(candle)),
    )


def _is_far(one: Candle, other: Candle) -> bool:
    apart = max(one.low - other.high, other.low - one.high)
    return apart > FAR * max(abs(one.close), abs(other.close))
