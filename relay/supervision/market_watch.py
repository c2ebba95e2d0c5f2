"""Whether the market of one stream is closed, by its hours and by what comes in spite of them."""

import math
from datetime import UTC, datetime

from relay.core.clock import Clock
from relay.core.spans import FOREVER
from relay.streams.subscriptions import Stream

CLOCK_SLACK_S = 5
"""So far the provider's clock may be behind: near the opening its market counts as open."""


class MarketWatch:
    """Follows the hours of one stream by its provider's time; `closed` says why and until when, empty: it is open.

    A candle that opened since the close proves the hours wrong (`is_disproved`). `asked` and `answered` are for who
    asks history: how often since the close, and how often it did answer.
    """

    __slots__ = (
        "_clock",
        "_closed_at",
        "_opened_early",
        "_opens_at",
        "_stream",
        "_was_open",
        "answered",
        "asked",
        "closed",
        "is_disproved",
    )

    def __init__(self, stream: Stream, clock: Clock) -> None:
        self._stream = stream
        self._clock = clock
        self.closed = ""
        self.is_disproved = False
        self.asked = self.answered = 0
        # When the market opens next, None while it is open; and the opening that came already.
        self._opens_at: int | None = None
        self._opened_early: int | None = None
        # When it was seen to close.
        self._was_open = False
        self._closed_at = -math.inf

    def _now(self) -> int:
        return int(self._stream.feeder.clock.now())

    def is_closed_by_hours(self) -> bool:
        """Say whether the hours call the market closed for some seconds yet, whatever came."""
        now = self._now()
        return self._stream.series.market.is_closed(now, now + CLOCK_SLACK_S)

    def hear(self) -> None:
        """Take it that an update opens the market if the opening is near."""
        if not self.is_closed_by_hours():
            self._opened_early = self._stream.series.market.opens_at(self._now())

    def look(self) -> bool:
        """Look at the time; return whether `closed` has changed, or the opening that it names.

        That the provider's clock is set back a little closes and opens nothing again.
        """
        series, now = self._stream.series, self._now()
        opens: int | None = series.market.opens_at(now)
        if opens == now:
            if self.closed and series.market.opens_at(now + CLOCK_SLACK_S) == self._opens_at:
                return False
            opens = None
        last = series.last
        self.is_disproved = last is not None and last.time < now and series.market.is_closed(last.time, now)
        is_closed = opens is not None and opens != self._opened_early and not self.is_disproved
        self._was_open = self._was_open or not is_closed
        if is_closed == bool(self.closed) and opens == self._opens_at:
            return False
        if opens is not None and is_closed:
            if not self.closed:
                self._closed_at = self._clock.monotonic() if self._was_open else -math.inf
                self.asked = self.answered = 0
            self.closed = f"the market is closed; it opens at {_utc(opens)}"
            if opens >= FOREVER and (expired_at := series.market.expires_at) is not None:
                self.closed = f"{series.key.symbol} expired at {_utc(expired_at)}; it is not traded any more"
        elif self.closed:
            self.closed = ""
            self._opened_early = None if self._opens_at == FOREVER else self._opens_at
        self._opens_at = opens
        return True

    def is_closed_for(self, seconds: float) -> bool:
        """Say whether it has been closed for so long, as far as it was watched: or since before that."""
        return bool(self.closed) and self._clock.monotonic() >= self._closed_at + seconds


def _utc(moment: int) -> str:
    try:
        return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (ValueError, OverflowError, OSError):
        return "an unknown time"
