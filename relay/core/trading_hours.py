"""When one symbol is traded, for whoever asks what cannot exist or need not be waited for; pure but for its source."""

from collections.abc import Callable

from relay.core.intervals import length_s, next_open
from relay.core.model import OpenHours

_HOUR_S = 3600


def _always(moment: int) -> OpenHours | None:
    return None


class TradingHours:
    """The hours of one symbol. `hours` gives those that hold a moment, or else the next ones; None: it never closes.

    Moments are the provider's time in Unix seconds. The hours asked for last are remembered.
    """

    __slots__ = ("_hours", "_known", "_known_since")

    def __init__(self, hours: Callable[[int], OpenHours | None] = _always) -> None:
        self._hours = hours
        self._known: OpenHours | None = None
        self._known_since = 0

    def _at(self, moment: int) -> OpenHours | None:
        known = self._known
        if known is None or not self._known_since <= moment < known.closes:
            known = self._known = self._hours(moment)
            if known is not None:
                self._known_since = min(moment, known.opens)
        return known

    def opens_at(self, moment: int) -> int:
        """Return the first moment from this one on at which it is open."""
        hours = self._at(moment)
        return moment if hours is None else max(moment, hours.opens)

    def is_closed(self, start: int, end: int) -> bool:
        """Say whether nothing is traded from `start` until before `end`."""
        return self.opens_at(start) >= end

    def closes_early(
        self, interval: str, opened: int, moment: float, *, slack_s: float = 0.0, is_utc_grid: bool = False
    ) -> bool:
        """Say whether a candle opened at `opened` cannot be over at `moment`: its interval and its session go on.

        `slack_s` is how far the clock may be behind. A candle of more than an hour may end an hour early, unless the
        provider counts in UTC: clocks of its zone may have been set forward meanwhile.
        """
        end = next_open(interval, opened)
        if not is_utc_grid and length_s(interval) > _HOUR_S:
            end -= _HOUR_S
        latest = moment + slack_s
        return end > latest and not self.is_closed(int(latest), end)

    def open_parts(self, start: int, end: int, candle_s: int) -> list[tuple[int, int]]:
        """Return the parts of a span of open times, ends excluded, in which candles so long have trading in them."""
        parts: list[tuple[int, int]] = []
        at = start
        while at < end:
            hours = self._at(at)
            if hours is None:
                return [*parts, (at, end)]
            # Long candles open where the provider says, at most a candle before the market does.
            opens = hours.opens - (hours.opens % candle_s if candle_s <= _HOUR_S else candle_s - 1)
            first, last = max(start, opens), min(end, hours.closes)
            if parts and first <= parts[-1][1]:
                parts[-1] = (parts[-1][0], last)
            elif first < last:
                parts.append((first, last))
            at = hours.closes
        return parts
