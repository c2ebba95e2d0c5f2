"""Spans of open times: what is known completely of a stream; pure."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from typing import NamedTuple

FOREVER = 1 << 60
"""Later than every open time."""


class Span(NamedTuple):
    """Open times from `start` up to, not including, `end`."""

    start: int
    end: int


def merge_spans(spans: Iterable[Span]) -> list[Span]:
    """Return the same open times as the fewest spans, ascending; spans that touch become one."""
    merged: list[Span] = []
    for span in sorted(spans):
        if span.end <= span.start:
            continue
        if merged and span.start <= merged[-1].end:
            merged[-1] = Span(merged[-1].start, max(merged[-1].end, span.end))
        else:
            merged.append(Span(*span))
    return merged


def clip_spans(spans: Iterable[Span], start: int, end: int) -> list[Span]:
    """Return the spans, merged, as far as they lie between `start` and `end`."""
    return merge_spans(Span(max(span.start, start), min(span.end, end)) for span in spans)


def within(spans: Sequence[Span], start: int, end: int) -> list[Span]:
    """Return what lies between `start` and `end` of spans, which are merged; looks at no others."""
    if start >= end:
        return []
    found = [*spans[max(bisect_right(spans, (start, FOREVER)) - 1, 0) : bisect_left(spans, (end,))]]
    if found and found[0].end <= start:
        del found[0]
    if found and found[0].start < start:
        found[0] = Span(start, found[0].end)
    if found and found[-1].end > end:
        found[-1] = Span(found[-1].start, end)
    return found


def cut_spans(spans: Iterable[Span], gone: Span) -> list[Span]:
    """Return the spans, merged, without what lies in another one."""
    parts = [
        part
        for span in spans
        for part in (Span(span.start, min(span.end, gone.start)), Span(max(span.start, gone.end), span.end))
    ]
    return merge_spans(parts)


def span_at(spans: Sequence[Span], time: int) -> Span | None:
    """Return which of the spans, which are merged, holds an open time."""
    index = bisect_right(spans, (time, FOREVER)) - 1
    return spans[index] if index >= 0 and time < spans[index].end else None


def gaps_between(spans: Sequence[Span], start: int, end: int) -> list[Span]:
    """Return what lies between `start` and `end` and in none of the spans, which are merged."""
    gaps: list[Span] = []
    for span in within(spans, start, end):
        if span.start > start:
            gaps.append(Span(start, span.start))
        start = span.end
    if start < end:
        gaps.append(Span(start, end))
    return gaps
