"""Paging through a venue that is asked by windows of time, holes and late listings included."""

import asyncio
from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from relay import Candle, page_candles
from tests.support.examples import examples

DAY_S = 1440


class Venue:
    """Holds candles of a minute; a "day" of it has 24 of them. Says how often it was asked."""

    def __init__(self, times: Sequence[int], page: int) -> None:
        self.times = sorted(set(times))
        self.page = page
        self.asked = 0

    async def ask(self, start: int, end: int, step_s: int) -> list[Candle]:
        assert start < end
        assert (end - start) <= self.page * step_s
        self.asked += 1
        times = sorted({at - at % step_s for at in self.times})
        # Newest first, and with a candle too many at either end, as venues do.
        return [Candle(at, 1.0, 1.0, 1.0, 1.0) for at in reversed(times) if start - step_s <= at <= end]


def paged(venue: Venue, start: int | None, end: int, limit: int, coarse_s: int | None = DAY_S) -> list[int]:
    work = page_candles(
        venue.ask, start=start, end=end, limit=limit, step_s=60, page=venue.page, oldest=0, coarse_s=coarse_s
    )
    return [candle.time for candle in asyncio.run(work)]


@settings(max_examples=examples(40))
@given(
    st.lists(st.integers(0, 3000), max_size=60),
    st.one_of(st.none(), st.integers(0, 200_000)),
    st.integers(0, 200_000),
    st.integers(1, 30),
    st.integers(2, 40),
    st.booleans(),
)
def test_pages_give_what_the_whole_past_would(
    minutes: list[int], start: int | None, end: int, limit: int, page: int, skips: bool
) -> None:
    venue = Venue([minute * 60 for minute in minutes], page)
    inside = [at for at in venue.times if (start or 0) <= at < end]
    wanted = inside[-limit:] if start is None else inside[:limit]
    assert paged(venue, start, end, limit, DAY_S if skips else None) == wanted


def test_hole_and_late_listing_cost_a_few_questions() -> None:
    late = range(1000 * DAY_S, 1010 * DAY_S, 60)
    venue = Venue([0, 60, *late], 30)
    assert paged(venue, 0, 2000 * DAY_S, 4) == [0, 60, late[0], late[1]]
    assert venue.asked < 40
    venue.asked = 0
    assert paged(venue, None, 2000 * DAY_S, len(late) + 2) == [0, 60, *late]
    assert venue.asked < 100
