"""A stretch of one pair's market, and stretches put together; pure."""

from typing import NamedTuple


class Part(NamedTuple):
    """A stretch of one pair's market, all numbers whole units; flat at the last price when `trades` is 0.

    `quote` and `taker_quote` count price units times volume units. `end` is the first millisecond after it.
    """

    start: int
    end: int
    open: int
    high: int
    low: int
    close: int
    volume: int
    quote: int
    taker: int
    taker_quote: int
    trades: int
    first_id: int
    previous: int

    @property
    def last_id(self) -> int:
        """Tell the id of the last trade; meaningless without trades."""
        return self.first_id + self.trades - 1


def flat(start: int, end: int, price: int, next_id: int) -> Part:
    """Give a stretch without trades."""
    return Part(start, end, price, price, price, price, 0, 0, 0, 0, 0, next_id, price)


def merged(parts: list[Part], start: int, end: int) -> Part:
    """Add up neighbouring stretches, of which there is at least one."""
    if len(parts) == 1:
        part = parts[0]
        return part if part.start == start and part.end == end else part._replace(start=start, end=end)
    traded = [part for part in parts if part.trades]
    if not traded:
        return parts[0]._replace(start=start, end=end)
    return Part(
        start, end, traded[0].open, max(p.high for p in traded), min(p.low for p in traded), traded[-1].close,
        sum(p.volume for p in traded), sum(p.quote for p in traded), sum(p.taker for p in traded),
        sum(p.taker_quote for p in traded), sum(p.trades for p in traded), traded[0].first_id, parts[0].previous,
    )  # fmt: skip
