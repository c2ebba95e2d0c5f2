"""Compares what is stored with what providers say now: random parts of what is known, one provider call each."""

import random
import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from typing import NamedTuple

from relay.core.clock import Clock
from relay.core.errors import ProviderError, log_text
from relay.core.intervals import INTERVALS, length_s
from relay.core.model import Candle, is_widened
from relay.core.spans import Span
from relay.plugins.provider import Provider
from relay.plugins.provider_session import new_session
from relay.storage.inspect import StoredStream
from relay.storage.set_aside import is_aside

CANDLES = 100
"""How many candles a sample spans at most."""


class Sample(NamedTuple):
    """A part of what is known of a stream, and its stored candles."""

    stream: StoredStream
    span: Span
    candles: Sequence[Candle]


class Compared(NamedTuple):
    """What became of a sample: the open times where it and the provider differ, or why nobody could say."""

    sample: Sample
    lacking: Sequence[int] = ()
    unknown: Sequence[int] = ()
    different: Sequence[int] = ()
    failure: str = ""

    @property
    def is_equal(self) -> bool:
        """Say whether the provider was asked and gave the same."""
        return not (self.lacking or self.unknown or self.different or self.failure)


def draw_samples(
    connection: sqlite3.Connection, streams: Sequence[StoredStream], count: int, randomness: random.Random
) -> list[Sample]:
    """Choose so many parts: any stream that holds candles as often as any other, any moment of it as well."""
    choices = [
        stream
        for stream in streams
        if stream.first is not None and stream.key.interval in INTERVALS and not is_aside(stream.key.symbol)
    ]
    found = []
    for _ in range(count if choices else 0):
        stream = randomness.choice(choices)
        # Before the first candle coverage may reach back to 1970: nothing to compare there.
        spans = [Span(max(span.start, stream.first or 0), span.end) for span in stream.spans]
        spans = [span for span in spans if span.end > span.start]
        if not spans:
            continue
        whole = randomness.choices(spans, [span.end - span.start for span in spans])[0]
        wide = CANDLES * length_s(stream.key.interval)
        start = max(whole.start, randomness.randrange(whole.start, whole.end) - wide // 2)
        span = Span(start, min(start + wide, whole.end))
        rows = connection.execute(
            "SELECT time, open, high, low, close, volume FROM candles"
            " WHERE stream_id = ? AND time >= ? AND time < ? ORDER BY time",
            (stream.id, *span),
        )
        found.append(Sample(stream, span, [Candle._make(row) for row in rows]))
    return found


async def compare(samples: Sequence[Sample], providers: Mapping[str, Provider], clock: Clock) -> list[Compared]:
    """Ask the providers, one call after the other."""
    found = []
    async with AsyncExitStack() as stack:
        for name in {sample.stream.provider for sample in samples} & providers.keys():
            providers[name].open(new_session(providers[name].clock, providers[name].proxies))
            stack.push_async_callback(providers[name].close)
        for sample in samples:
            provider = providers.get(sample.stream.provider)
            if provider is None or not provider.has_history:
                found.append(Compared(sample, failure=f"no provider {sample.stream.provider} with history is loaded"))
                continue
            try:
                # One more than can be there: a full answer would leave open whether it was all.
                told = await provider.candles(sample.stream.key, *sample.span, CANDLES + 2)
            except ProviderError as error:
                found.append(Compared(sample, failure=log_text(error)))
            else:
                found.append(_compared(sample, told))
    return found


def _compared(sample: Sample, told: Sequence[Candle]) -> Compared:
    # What had to be widened says that there is a candle, not which.
    truth = {candle.time: candle for candle in told if sample.span.start <= candle.time < sample.span.end}
    stored = {candle.time: candle for candle in sample.candles}
    return Compared(
        sample,
        lacking=sorted(truth.keys() - stored.keys()),
        unknown=sorted(stored.keys() - truth.keys()),
        different=sorted(
            time for time in truth.keys() & stored.keys() if truth[time] != stored[time] and not is_widened(truth[time])
        ),
    )
