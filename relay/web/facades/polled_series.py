"""Series whose newest klines are asked for again and again: they are followed live, and answered from memory."""

import asyncio
from collections import OrderedDict
from collections.abc import Mapping
from types import MappingProxyType

from relay.core.intervals import next_open
from relay.core.model import StreamKey
from relay.history.live_edge import LiveEdge, live_of
from relay.instruments.directory import Target
from relay.streams.subscriptions import Attachment, Stream
from relay.web.access.access import Caller
from relay.web.facade_counts import FacadeCounts
from relay.web.facades.facade import FacadeParts, FacadeTiming

MOST_SEEN = 4096
LOOK_S = 0.05
_NONE: Mapping[str, float] = MappingProxyType({})


class _Poll:
    # One series: when it was asked for last, and what keeps it live.
    __slots__ = ("asked_at", "attachment", "timer")

    def __init__(self, asked_at: float) -> None:
        self.asked_at = asked_at
        self.attachment: Attachment | None = None
        self.timer: asyncio.TimerHandle | None = None


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
        self._series: OrderedDict[tuple[str, StreamKey], _Poll] = OrderedDict()

    def note(self, target: Target, caller: Caller) -> None:
        """Note that somebody asks for the newest klines of a series; follow it live when that happens again."""
        identity, now = (target.provider.name, target.key), asyncio.get_running_loop().time()
        series = self._series.get(identity)
        if series is None:
            self._series[identity] = _Poll(now)
            self._forget_some()
            return
        self._series.move_to_end(identity)
        is_again = now - series.asked_at <= self._timing.kept_s(target.key.interval)
        series.asked_at = now
        if series.attachment is None and is_again:
            self._begin(identity, series, target, caller)

    def touch(self, target: Target) -> None:
        """Note that somebody was given an answer of a series again."""
        series = self._series.get((target.provider.name, target.key))
        if series is not None:
            series.asked_at = asyncio.get_running_loop().time()

    def _forget_some(self) -> None:
        while len(self._series) > MOST_SEEN:
            _, series = self._series.popitem(last=False)
            self._end(series)

    def _begin(self, identity: tuple[str, StreamKey], series: _Poll, target: Target, caller: Caller) -> None:
        hub, access = self._parts.hub, self._parts.access
        if identity not in hub.streams:
            most = access.config.max_streams
            if len(hub.streams) >= most or not access.shares.may_open(caller.owner, hub.streams, most):
                return
            access.shares.opened(identity, caller.owner, hub.streams)
        stream = hub.stream(*identity, target.name, self._parts.supervisors[target.provider.name])
        series.attachment = hub.attach(stream, keeps=False)
        self._counts.live_series += 1
        self._plan(identity, series, self._timing.kept_s(target.key.interval))

    def _plan(self, identity: tuple[str, StreamKey], series: _Poll, after_s: float) -> None:
        series.timer = asyncio.get_running_loop().call_later(after_s, self._look, identity, series)

    def _look(self, identity: tuple[str, StreamKey], series: _Poll) -> None:
        """Let a series go that nobody asked for lately."""
        series.timer = None
        kept_s = self._timing.kept_s(identity[1].interval)
        left_s = series.asked_at + kept_s - asyncio.get_running_loop().time()
        if left_s > 0:
            self._plan(identity, series, left_s)
        else:
            self._series.pop(identity, None)
            self._end(series)

    def _end(self, series: _Poll) -> None:
        if series.timer is not None:
            series.timer.cancel()
            series.timer = None
        if series.attachment is not None:
            self._parts.hub.detach(series.attachment)
            self._counts.live_series -= 1
            series.attachment = None

    def close(self) -> None:
        """Let all series go."""
        for series in self._series.values():
            self._end(series)
        self._series.clear()

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
