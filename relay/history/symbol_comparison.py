"""Asks a provider what it has now in the place of a few stored candles of a symbol that is checked."""

import asyncio
from collections.abc import Sequence

from relay.core.errors import ProviderError, StoreError
from relay.core.intervals import length_s
from relay.core.model import Candle, StreamKey
from relay.history.identity import SAMPLE, UNKNOWN, Verdict, judge, judge_by_longer, longer_interval
from relay.history.requests import CandleSource
from relay.history.symbol_check import SymbolCheck
from relay.storage.set_aside import CHECKING, aside_name
from relay.storage.store import Store

_PLACES = 2


class SymbolComparison:
    """Compares stored candles with the provider's, for a few symbols at a time."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._places = asyncio.Semaphore(_PLACES)

    async def compare(self, check: SymbolCheck) -> Verdict:
        """Ask the provider for a few stored candles, with one call a sample, two where they are gone."""
        found = Verdict(True)
        name, symbol = check.identity
        seen = self._store.look()
        if check.is_faint and is_tight(check.source):
            return UNKNOWN
        try:
            async with self._places:
                for interval, stored in await self._samples(check):
                    verdict = await compare_sample(check.source, StreamKey(check.symbol, interval), stored)
                    if not seen.is_same(name, symbol):
                        # What was read is not its past any more.
                        return UNKNOWN
                    if verdict.is_same is False:
                        check.differs_at = interval
                        return verdict
                    if verdict.is_same is None:
                        found = verdict
        except (ProviderError, StoreError):
            return UNKNOWN
        return found

    async def _samples(self, check: SymbolCheck) -> list[tuple[str, list[Candle]]]:
        """Return the stored candles to compare: the newest before what gave the sign, else both ends of all intervals.

        Raises `StoreError`.
        """
        name = check.source.name
        stored_as = aside_name(check.symbol, CHECKING) if check.is_aside else check.symbol
        intervals = [
            key.interval
            for provider, key in await self._store.streams()
            if (provider, key.symbol) == (name, stored_as) and key.interval in check.source.info.intervals
        ]
        samples = []
        for interval in sorted(intervals, key=length_s):
            if check.interval not in (None, interval):
                continue
            key = StreamKey(stored_as, interval)
            newest = await self._store.read(name, key, 0, check.before, SAMPLE, newest=True)
            samples.append((interval, newest))
            if check.interval is None:
                oldest = await self._store.read(name, key, 0, check.before, SAMPLE)
                if oldest != newest:
                    samples.append((interval, oldest))
        return [sample for sample in samples if sample[1]]


async def compare_sample(source: CandleSource, key: StreamKey, stored: Sequence[Candle]) -> Verdict:
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


def is_tight(source: CandleSource) -> bool:
    """Say whether a provider's budget is so far used that a comparison would be felt."""
    return any(budget.limit - budget.used < max(4, budget.limit // 5) for budget in source.budgets())
