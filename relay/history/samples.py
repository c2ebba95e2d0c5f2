"""Asks a provider what it has now in the place of a few stored candles; no store."""

from collections.abc import Sequence

from relay.core.intervals import length_s
from relay.core.model import Candle, StreamKey
from relay.history.identity import Verdict, judge, judge_by_longer, longer_interval
from relay.history.range_walk import CandleSource


async def compare(source: CandleSource, key: StreamKey, stored: Sequence[Candle]) -> Verdict:
    """Ask a provider for stored candles of a stream: one call, two where they are gone. Raises `ProviderError`."""
    first, last, end = stored[0].time, stored[-1].time, int(source.clock.now()) + 1
    verdict = judge(stored, await source.candles(key, first, last + 1, len(stored) + 2))
    if verdict.is_same is not None:
        return verdict
    # They are gone, or nothing can be had now: what comes after them tells.
    longer = longer_interval(key.interval, source.info.intervals)
    if longer is None:
        return judge(stored, await source.candles(key, first, end, len(stored) + 2))
    start = last - length_s(longer) + 1
    return judge_by_longer(stored[-1], await source.candles(StreamKey(key.symbol, longer), start, end, 2))
