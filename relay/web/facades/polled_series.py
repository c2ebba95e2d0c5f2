"""Series whose newest klines are asked for again and again: they are followed live, and answered from memory."""

import asyncio
from collections.abc import Mapping
from functools import partial
from types import MappingProxyType

from relay.core.intervals import next_open
from relay.core.model import StreamKey
from relay.history.live_edge import LiveEdge, live_of
from relay.instruments.directory import Target
from relay.streams.subscriptions import Attachment, Stream
from relay.web.access.access import Caller
from relay.web.facade_counts import FacadeCounts
from relay.web.facades.facade import FacadeParts, FacadeTiming
from relay.web.facades.polls import End, Polls

LOOK_S = 0.05
_NONE: Mapping[str, float] = MappingProxyType({})


class PolledSeries:
    """Knows which series are polled, and keeps those live as long as they are.

    Of the intervals in `closed_only` only closed candles are given, and each of them for so many seconds.
    """

    def __init__(
        self,
        parts: FacadeParts,
        counts: FacadeCounts,
        closed_only: Mapping[str, float] = _NONE,
        timing: FacadeTiming | None = None,
    ) -> None:
        self._parts = parts
        self._counts = counts
        self._closed_only = closed_only
        self._timing = timing or parts.timing
        self._polls: Polls[tuple[str, StreamKey]] = Polls()

    def note(self, target: Target, caller: Caller) -> None:
        """Note that somebody asks for the newest klines of a series; follow it live when that happens again."""
        kept_s = self._timing.kept_s(target.key.interval)
        self._polls.note((target.provider.name, target.key), kept_s, partial(self._begin, target, caller))

    def touch(self, target: Target) -> None:
        """Note that somebody was given an answer of a series again."""
        self._polls.touch((target.provider.name, target.key))

    def _begin(self, target: Target, caller: Caller) -> End | None:
        hub, access = self._parts.hub, self._parts.access
        identity = (target.provider.name, target.key)
        if identity not in hub.streams:
            most = access.config.max_streams
            if len(hub.streams) >= most or not access.shares.may_open(caller.owner, hub.streams, most):
                return None
            access.shares.opened(identity, caller.owner, hub.streams)
        stream = hub.stream(*identity, target.name, self._parts.supervisors[target.provider.name])
        attachment = hub.attach(stream, polled_by=self._counts.title)
        self._counts.live_series += 1
        return partial(self._end, attachment)

    def _end(self, attachment: Attachment) -> None:
        self._parts.hub.detach(attachment)
        self._counts.live_series -= 1

    def close(self) -> None:
        """Let all series go."""
        self._polls.close()

    # -- what a live stream says of the present ----------------------------------------------------

    async def settled(self, target: Target) -> None:
        """Wait for the first event of a candle that has just begun: klines end with the forming one."""
        while self._lags_s(target) is not None:  # noqa: ASYNC110  it ends by time, too
            await asyncio.sleep(LOOK_S)

    def _lags_s(self, target: Target) -> float | None:
        """Return for how long a live stream's newest candle is over, if its next event is due any moment."""
        stream = self._stream_of(target)
        if live_of(stream) is None or stream is None:
            return None
        lag_s = self._over_for_s(stream)
        return lag_s if 0 <= lag_s < self._timing.first_event_s else None

    def edge(self, target: Target) -> LiveEdge | None:
        """Return what the live stream says of the present, None where the exchange has to be asked."""
        stream = self._stream_of(target)
        edge = live_of(stream)
        return edge if edge is not None and stream is not None and self._over_for_s(stream) < 0 else None

    def is_current(self, target: Target) -> bool:
        """Say whether an answer that a live stream gave a part of may be given again, as far as time goes."""
        stream = self._stream_of(target)
        return stream is None or live_of(stream) is None or self._over_for_s(stream) < 0

    def _stream_of(self, target: Target) -> Stream | None:
        return self._parts.hub.streams.get((target.provider.name, target.key))

    def _over_for_s(self, stream: Stream) -> float:
        """Return for how long the newest candle of a live stream is over; below 0 while it is the present one."""
        last = stream.series.last
        if last is None:
            return 0.0
        interval = stream.key.interval
        return stream.feeder.clock.now() - next_open(interval, last.time) - self._closed_only.get(interval, 0.0)
