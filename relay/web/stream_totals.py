"""Sums over the streams of each provider, for metrics and the status: taken in slices, updates go on meanwhile."""

import asyncio
from collections import Counter
from collections.abc import Iterable

from relay.streams.hub import Hub
from relay.streams.subscriptions import COUNTED, Stream

AT_A_TIME = 200


class StreamTotals:
    """What the streams of one provider are and have counted; `counts` has those that were removed too.

    `counts["told"]` is how many updates were sent on.
    """

    def __init__(self, removed: dict[str, int]) -> None:
        self.counts = Counter(removed)
        self.states: Counter[str] = Counter()
        self.streams = 0
        self.open_gaps = 0
        self.subscriptions = 0

    def add(self, stream: Stream) -> None:
        """Count one stream."""
        for name, count in zip(COUNTED, stream.counts(), strict=True):
            self.counts[name] += count
        self.counts["told"] += stream.seq
        self.states[stream.status] += 1
        self.streams += 1
        self.open_gaps += len(stream.series.gaps.left)
        self.subscriptions += stream.subscriber_count


async def take_tallies(hub: Hub, providers: Iterable[str]) -> dict[str, StreamTotals]:
    """Return the sums of the providers that feed the hub, by name."""
    # Both at the same moment: a stream that is removed meanwhile counts once.
    stream_totals = {name: StreamTotals(hub.removed_counts(name)) for name in providers}
    for place, stream in enumerate([*hub.streams.values()], 1):
        stream_totals[stream.provider].add(stream)
        if place % AT_A_TIME == 0:
            await asyncio.sleep(0)
    return stream_totals
