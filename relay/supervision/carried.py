"""One stream that a feed carries: the state its subscribers are told, and when its silence means something."""

from typing import Final, NamedTuple

from relay.clock import Clock
from relay.hub import Hub
from relay.intervals import length_s, next_open
from relay.messages import StreamState
from relay.stream import CONNECTED, CONNECTING, Stream
from relay.supervision.liveness import UNKNOWN_PATIENCE_S, Liveness, Remedy

RECONNECTING: Final = "reconnecting"
BACKFILLING: Final = "backfilling"
STALE: Final = "stale"
THROTTLED: Final = "throttled"
ERROR: Final = "error"
MARKET_CLOSED: Final = "market_closed"

LIVE = "live"
KEPT_EVENTS = 20
LATE_S = 20.0
"""A poll that a feed announced may be so late, since it waits for an answer, before silence counts."""
LEAST_DOUBT_S = 5.0
MOST_DOUBT_S = 300.0
LEAST_PAUSE_S = 30.0
MOST_PAUSE_S = 3600.0
CLOCK_SLACK_S = 5
"""So far the provider's clock may be behind: near the opening its market counts as open."""


class Planned(NamedTuple):
    """When a polled stream is asked for next, by the monotonic clock, and how often it is."""

    at: float
    every_s: float | None


class Carried:
    """A stream from when it is wanted until it is dropped. Whoever hands on an update counts it in `received`."""

    __slots__ = (
        "_ask_at", "_clock", "_doubt_at", "_doubt_pause_s", "_hub", "_liveness", "_news_at", "_news_count", "_pace_s",
        "_remark", "_stray", "_taken", "planned", "received", "stream",
    )  # fmt: skip

    def __init__(self, stream: Stream, hub: Hub, clock: Clock) -> None:
        self.stream = stream
        self.received = 0
        self.planned: Planned | None = None
        self._hub = hub
        self._clock = clock
        self._liveness = Liveness(stream.key.interval, clock.monotonic())
        self._remark = LIVE
        self._stray = ""
        self._taken = 0
        self._doubt_at = self._doubt_pause_s = 0.0
        self._ask_at = 0.0
        self._news_at = clock.monotonic()
        self._news_count = 0
        self._pace_s = 0.0

    def note(self, event: str) -> None:
        """Keep a line for the status page; only the newest few are kept."""
        events = self.stream.events
        events.append((self._clock.wall(), event))
        del events[:-KEPT_EVENTS]

    # -- states ------------------------------------------------------------------------------------

    def go_live(self) -> None:
        """Say that updates arrive and nothing is missing before them; what comes after the close opens no market."""
        if self.stream.status != CONNECTED and not (self.stream.status == MARKET_CLOSED and self._is_market_closed()):
            self._hub.set_state(self.stream, CONNECTED, self._remark)

    def catch_up(self, message: str) -> None:
        """Say that live updates wait for what was missed."""
        self._hub.set_state(self.stream, BACKFILLING, message)

    def caught_up(self) -> None:
        """Say that nothing is missing any more: the stream is live, or as silent as it was before."""
        if self._liveness.warnings:
            self._show_silence()
        elif self._stray and self.received == self._taken:
            self._hub.set_state(self.stream, STALE, self._stray)
        else:
            self.go_live()

    def rest(self, status: StreamState, message: str) -> None:
        """Say that the feed pauses the stream; the next update ends it."""
        self._hub.set_state(self.stream, status, message)

    def lose(self, cause: str) -> None:
        """Say that no feed delivers the stream any more, and that the next one is on its way."""
        stream = self.stream
        message = f"{cause}; the next attempt is under way"
        if stream.status == CONNECTING:
            self._hub.set_state(stream, CONNECTING, message)
            return
        if stream.status != RECONNECTING:
            stream.reconnects += 1
            self.note(f"lost: {cause}")
        self._hub.set_state(stream, RECONNECTING, message)

    def refuse(self, reason: str) -> None:
        """Say that the stream is given up for good."""
        self.note(f"error: {reason}")
        self._hub.set_state(self.stream, ERROR, reason)

    def remark(self, message: str) -> None:
        """Keep what a feed says about how the stream is live, and show it if the stream is; empty ends it."""
        remark = message or LIVE
        if remark != self._remark:
            self._remark = remark
            if self.stream.status == CONNECTED:
                self._hub.set_state(self.stream, CONNECTED, remark)

    # -- silence -----------------------------------------------------------------------------------

    def expect(self, in_s: float, every_s: float | None) -> None:
        """Take a plan of the feed: until then it is silent on purpose."""
        self.planned = Planned(self._clock.monotonic() + in_s, every_s)
        self._pace_s = in_s if every_s is None else every_s

    def is_planned(self, now: float) -> bool:
        """Say whether the feed will ask for the stream by itself; only a poll that is late makes a doubt."""
        return self.planned is not None and now < self.planned.at + LATE_S

    def _is_market_closed(self) -> bool:
        now = int(self.stream.feeder.clock.now())
        return self.stream.series.market.is_closed(now, now + CLOCK_SLACK_S)

    def _is_silence_meant(self, now: float) -> bool:
        """Say whether silence means nothing: the market is closed, or polls had no time yet to bring something.

        A plan to ask again does not excuse answers without news for ever: an interval and two polls have to do.
        """
        is_closed = self._is_market_closed()
        if is_closed or self.received != self._news_count:
            self._news_count, self._news_at = self.received, now
        if is_closed:
            return True
        patience_s = length_s(self.stream.key.interval) + 2 * self._pace_s + UNKNOWN_PATIENCE_S
        return self.is_planned(now) and now < self._news_at + patience_s

    def note_stray(self, why: str) -> None:
        """Take note of an update that was left out; where nothing else comes the stream is not live."""
        self._stray = why

    def may_doubt(self, now: float) -> bool:
        """Say whether history is to be asked because updates are left out; then not for a while, ever longer."""
        if now < self._doubt_at:
            return False
        self._doubt_pause_s = min(max(LEAST_DOUBT_S, 2 * self._doubt_pause_s), MOST_DOUBT_S)
        self._doubt_at = now + self._doubt_pause_s
        return True

    def listen_anew(self, now: float) -> None:
        """Begin to measure silence now: a feed opened, or the market did."""
        self._news_at = now
        self._liveness.restart(now)

    def check_silence(self, now: float) -> Remedy | None:
        """Turn the stream stale when it is silent beyond its habit; return what to try about it.

        Call it about once a second.
        """
        self._check_stray()
        status = self.stream.status
        is_meant = status != STALE and self._is_silence_meant(now)
        if status not in (CONNECTED, STALE, BACKFILLING) or is_meant:
            self._liveness.restart(now)
            return None
        if status != STALE and self.is_planned(now):
            self._liveness.restart(self._news_at)
        over_s = self._liveness.tick(now, self.received)
        if over_s is None or status == BACKFILLING:
            return None
        remedy = self._liveness.warn(over_s)
        if remedy is Remedy.RESUBSCRIBE:
            self.note("stale")
            self._show_silence()
        return remedy

    def _check_stray(self) -> None:
        """Turn a stream stale of which nothing but updates to leave out came since the last look."""
        if self.received != self._taken:
            self._taken, self._stray, self._doubt_pause_s = self.received, "", 0.0
        elif self._stray and self.stream.status == CONNECTED:
            self.note("stale")
            self._hub.set_state(self.stream, STALE, self._stray)

    def _show_silence(self) -> None:
        silent_s = self._clock.monotonic() - self._liveness.heard_at
        self._hub.set_state(self.stream, STALE, f"no data for {silent_s:.0f} s")

    # -- candles that nobody closed ----------------------------------------------------------------

    def is_overdue(self, time_s: float, grace_s: float, now: float) -> bool:
        """Say whether a candle was over `grace_s` before the provider's time `time_s`, and no feed closed it."""
        series = self.stream.series
        if self.stream.status not in (CONNECTED, STALE) or series.is_catching_up or self.is_planned(now):
            return False
        due_at = series.due_at()
        if due_at is None:
            due_at = next_open(self.stream.key.interval, int(series.promised_at or time_s))
        return time_s >= due_at + grace_s and now >= self._ask_at

    def ask_later(self, now: float) -> None:
        """Call no candle overdue for an interval, half a minute at least: history was asked just now."""
        self._ask_at = now + max(LEAST_PAUSE_S, min(length_s(self.stream.key.interval), MOST_PAUSE_S))
