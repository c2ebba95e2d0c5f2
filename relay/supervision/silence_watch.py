"""How long one stream is silent, and whether that means something: not while its feed planned so; pure."""

from typing import NamedTuple

from relay.core.intervals import length_s
from relay.supervision.liveness import UNKNOWN_PATIENCE_S, Liveness, Remedy

LATE_S = 20.0
"""A poll that a feed announced may be so late, since it waits for an answer, before silence counts."""


class Planned(NamedTuple):
    """When a polled stream is asked for next, by the monotonic clock, and how often it is."""

    at: float
    every_s: float | None


class SilenceWatch:
    """Measures the silence of one stream; times are of the monotonic clock, `received` counts what came.

    `planned` is what its feed said of the next poll. `since` is when it was heard last, once it is silent beyond its
    habit, else None.
    """

    __slots__ = ("_interval", "_listened_after", "_liveness", "_news_at", "_news_count", "_pace_s", "planned", "since")

    def __init__(self, interval: str, now: float) -> None:
        self.planned: Planned | None = None
        self.since: float | None = None
        self._interval = interval
        self._liveness = Liveness(interval, now)
        self._news_at = now
        self._news_count = 0
        # How many updates had come when silence was measured anew; None: it is to be, whatever came.
        self._listened_after: int | None = None
        self._pace_s = 0.0

    def expect(self, now: float, in_s: float, every_s: float | None) -> None:
        """Take a plan of the feed: until then the stream is silent on purpose."""
        self.planned = Planned(now + in_s, every_s)
        self._pace_s = in_s if every_s is None else every_s

    def rest(self) -> None:
        """Note that the stream is paused: how silent it was before says nothing of what follows."""
        self._listened_after = None

    def end(self) -> None:
        """Note that the market is closed, or trading paused: that ends a silence, too."""
        self.since = self._listened_after = None

    def listen_anew(self, now: float, received: int) -> None:
        """Begin to measure silence now: a feed opened or a pause is over. Not after a feed that brought nothing."""
        if received != self._listened_after:
            self._listened_after = received
            self._news_at = now
            self._liveness.restart(now)

    def is_meant(self, now: float, received: int, *, is_closed: bool, is_planned: bool) -> bool:
        """Say whether silence means nothing: the market is closed, or polls had no time yet to bring something.

        A plan to ask again does not excuse answers without news for ever: an interval and two polls have to do.
        """
        if is_closed or received != self._news_count:
            self._news_count, self._news_at = received, now
        if is_closed:
            return True
        patience_s = length_s(self._interval) + 2 * self._pace_s + UNKNOWN_PATIENCE_S
        return is_planned and now < self._news_at + patience_s

    def excuse(self, now: float) -> None:
        """Begin to measure now: what was silent so far had a reason."""
        self._liveness.restart(now)

    def excuse_polls(self) -> None:
        """Begin to measure at the last news: the polls since then were on time."""
        self._liveness.restart(self._news_at)

    def over_s(self, now: float, received: int) -> float | None:
        """Return how long the stream is silent beyond its habit, None while that is normal; once about each second."""
        return self._liveness.tick(now, received)

    def begin(self) -> bool:
        """Note that the stream is silent beyond its habit; return whether that is news."""
        is_news = self.since is None
        if is_news:
            self.since = self._liveness.heard_at
        return is_news

    def remedy(self, over_s: float) -> Remedy | None:
        """Return what to try about a silence that lasts `over_s` too long, None while the last try may still help."""
        return self._liveness.warn(over_s)
