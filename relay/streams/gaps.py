"""What is missing of one stream: gaps that were told, and what of them the stream has still to come to; pure."""

from collections.abc import Iterable
from typing import NamedTuple

from relay.core.intervals import next_open
from relay.core.spans import Span, clip_spans, gaps_between, merge_spans

MOST = 100
"""Gaps kept for repair; the oldest are forgotten."""


class SeriesGap(NamedTuple):
    """Closed candles that could not be had: `start` ≤ open time < `end`."""

    start: int
    end: int


class Gaps:
    """The gaps of one stream at an interval.

    `left` are those that were told and are to be repaired, the next one first, and `ahead` what was told to somebody
    who joined and the stream has still to come to.
    """

    __slots__ = ("_interval", "_new", "ahead", "left")

    def __init__(self, interval: str) -> None:
        self.left: list[SeriesGap] = []
        self.ahead: list[SeriesGap] = []
        self._interval = interval
        self._new: list[SeriesGap] = []

    def drain(self) -> list[SeriesGap]:
        """Return the gaps that came up since the last call; tell them before the updates of the same step."""
        new, self._new = self._new, []
        return new

    def leave(self, gap: SeriesGap) -> None:
        """Note a gap that is to be told."""
        if gap.end > gap.start:
            self.ahead = _cut(self.ahead, *gap)
            self.left.append(gap)
            self._new.append(gap)
            del self.left[:-MOST]

    def keep(self, gap: SeriesGap) -> None:
        """Keep a gap for repair that nobody is told of: what is remembered has a hole there."""
        self.left.append(gap)
        del self.left[:-MOST]

    def owe(self, gap: SeriesGap, reached: int) -> None:
        """Keep a gap for repair that was told to somebody who joined; nobody else hears of it.

        What opens from `reached` on, which the stream has still to come to, comes as an ordinary closing; `reach` looks
        what did not.
        """
        self.ahead.append(gap)
        self.reach(reached)

    def reach(self, reached: int) -> None:
        """Keep for repair what was told as a gap at a join and did not come before the stream came to `reached`."""
        if not self.ahead:
            return
        ahead, self.ahead = self.ahead, _cut(self.ahead, 0, reached)[-MOST:]
        for gap in ahead:
            known = merge_spans(Span(*other) for other in self.left)
            self.left += [SeriesGap(*part) for part in gaps_between(known, gap.start, min(gap.end, reached))]
        del self.left[:-MOST]

    def hold(self, time: int) -> bool:
        """Say whether the candle of an open time is in a gap that is left."""
        return any(gap.start <= time < gap.end for gap in self.left)

    def touch(self, start: int, end: int) -> bool:
        """Say whether a gap that is left has a part between two open times."""
        return any(gap.start < end and gap.end > start for gap in self.left)

    def settle(self, time: int) -> None:
        """Take a candle that is known after all out of the gaps."""
        for gaps in (self.left, self.ahead):
            for number, gap in enumerate(gaps):
                if gap.start <= time < gap.end:
                    gaps[number : number + 1] = _cut([gap], time, next_open(self._interval, time))
                    break

    def close(self, gap: SeriesGap, until: int, lost: Iterable[tuple[int, int]]) -> None:
        """End a gap up to `until`; what is `lost` of it, which may reach beyond both of its ends, stays a gap."""
        # An ordinary closing may have cut the gap shorter already.
        self.left = _cut(self.left, gap.start, until)
        # Behind the others, so that they do not wait for it.
        self.left += [SeriesGap(*part) for part in clip_spans((Span(*one) for one in lost), gap.start, until)]

    def put_off(self, gap: SeriesGap) -> None:
        """Have the others come first: this one could not be asked for."""
        self.left.sort(key=gap.__eq__)

    def forget(self, before: int) -> None:
        """Forget what opened before an open time: nobody will have it."""
        self.left, self.ahead, self._new = (_cut(gaps, 0, before) for gaps in (self.left, self.ahead, self._new))


def _cut(gaps: Iterable[SeriesGap], start: int, end: int) -> list[SeriesGap]:
    """Return gaps without the open times from `start` up to `end`."""
    parts = [
        part
        for gap in gaps
        for part in (SeriesGap(gap.start, min(gap.end, start)), SeriesGap(max(gap.start, end), gap.end))
    ]
    return [part for part in parts if part.end > part.start]
