"""What a live stream knows of the present: taken in the place of a provider's answer, so that nobody is asked."""

from collections.abc import Callable
from typing import NamedTuple

from relay.core.model import Candle
from relay.streams.subscriptions import CONNECTED, Stream


class LiveEdge(NamedTuple):
    """What a live stream knows about the present: from the open time `since` on there is nothing but `candle`.

    Everything before `since` was put into the store, as far as it was delivered: `since` is the open time of the last
    closed candle plus 1. `is_current` says whether the stream would say the same now.
    """

    since: int
    candle: Candle | None
    is_closed: bool = False
    is_current: Callable[[], bool] = lambda: False


def live_of(stream: Stream | None) -> LiveEdge | None:
    """Return what a stream knows of the present, if it is live, or its market closed, and nothing is missing."""
    if stream is None or not (stream.status == CONNECTED or _is_resting(stream)):
        return None
    series, last = stream.series, stream.series.last
    if series.is_catching_up or last is None or last.time in series.void:
        return None
    due_at = series.due_at()
    if due_at is not None and stream.feeder.clock.now() > due_at + stream.feeder.close_grace_s:
        # It has been silent for so long that candles may have closed unseen.
        return None
    # From right behind the candle before, if that is known: then nothing is left to ask the provider for.
    before = None if series.last_is_closed else series.closed_before(last.time)
    seq, since = stream.seq, last.time if before is None else before + 1
    return LiveEdge(since, last, series.last_is_closed, lambda: stream.seq == seq and live_of(stream) is not None)


def _is_resting(stream: Stream) -> bool:
    """Say whether a stream is silent because its market is closed by its hours: there is nothing to be missed."""
    now = int(stream.feeder.clock.now())
    return stream.status == "market_closed" and stream.series.market.is_closed(now, now + 1)
