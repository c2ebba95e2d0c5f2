"""Spans of open times: what lies within a range of them, without a look at all of them."""

from collections.abc import Sequence
from typing import Any, overload

from hypothesis import given
from hypothesis import strategies as st

from relay.core.spans import Span, clip_spans, gaps_between, merge_spans, span_at, within

TIMES = st.integers(0, 40)
SPANS = st.lists(st.tuples(TIMES, TIMES).map(lambda pair: Span(*pair)), max_size=8).map(merge_spans)


class Watched(Sequence[Span]):
    """Spans that count how many of them somebody looks at."""

    def __init__(self, spans: list[Span]) -> None:
        self._spans = spans
        self.seen = 0

    def __len__(self) -> int:
        return len(self._spans)

    @overload
    def __getitem__(self, at: int) -> Span: ...

    @overload
    def __getitem__(self, at: slice) -> list[Span]: ...

    def __getitem__(self, at: Any) -> Any:
        found = self._spans[at]
        self.seen += len(found) if isinstance(at, slice) else 1
        return found


@given(SPANS, TIMES, TIMES)
def test_what_lies_within_is_what_clipping_leaves(spans: list[Span], start: int, end: int) -> None:
    assert within(spans, start, end) == clip_spans(spans, start, end)


@given(SPANS, TIMES, TIMES)
def test_gaps_and_spans_make_up_a_range(spans: list[Span], start: int, end: int) -> None:
    gaps = gaps_between(spans, start, end)
    inside = {time for time in range(start, end) if span_at(spans, time) is not None}
    outside = {time for gap in gaps for time in range(*gap)}
    assert inside | outside == {*range(start, end)}
    assert not inside & outside


def test_of_thousands_of_spans_only_those_of_the_range_are_looked_at() -> None:
    spans = Watched([Span(10 * number, 10 * number + 5) for number in range(5000)])
    assert within(spans, 20_002, 20_021) == [Span(20_002, 20_005), Span(20_010, 20_015), Span(20_020, 20_021)]
    assert gaps_between(spans, 20_002, 20_021) == [Span(20_005, 20_010), Span(20_015, 20_020)]
    assert spans.seen < 80
