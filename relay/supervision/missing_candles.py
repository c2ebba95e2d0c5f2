"""What an answer of history leaves out where there should be candles: believed when a later one agrees; pure."""

from collections.abc import Iterable, Iterator

from relay.core.intervals import length_s, next_open
from relay.core.spans import Span
from relay.core.trading_hours import TradingHours


def holes_in(
    interval: str, market: TradingHours, begin: int | None, times: Iterable[int], until: int | None
) -> list[Span]:
    """Return where candles are missing between open times, which ascend; market hours without any are no holes.

    `begin` is the first open time that should be there, None: the first that is. `until` ends what was asked for.
    """

    times = list(times)

    def parts() -> Iterator[tuple[int, int]]:
        expected = begin
        for time in times:
            if expected is not None and expected < time:
                yield expected, time
            if expected is None or time >= expected:
                expected = next_open(interval, time)
        if expected is not None and until is not None and expected < until:
            yield expected, until

    length, an_open = length_s(interval), times[0] if times else begin
    return [Span(*part) for start, end in parts() for part in market.open_parts(start, end, length, an_open)]


class MissingCandles:
    """What answers about one stream leave out, and since when they do."""

    def __init__(self, wait_s: float) -> None:
        self._wait_s = wait_s
        self._since: dict[Span, float] = {}

    def doubtful(self, holes: Iterable[Span], asked_at: float) -> list[Span]:
        """Return those that no answer has left out so long before: they are to be asked for again."""
        seen = {hole: self._since.get(hole, asked_at) for hole in holes}
        self._since = seen
        return [hole for hole, since in seen.items() if asked_at < since + self._wait_s]
