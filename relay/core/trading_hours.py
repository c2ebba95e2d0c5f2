"""When one symbol is traded, for whoever asks what cannot exist or need not be waited for; pure but for its source."""

from collections.abc import Callable, Iterator

from relay.core.intervals import length_s, next_open
from relay.core.model import OpenHours
from relay.core.spans import FOREVER

_MINUTE_S = 60
_HOUR_S = 3600
_DAY_S = 86_400
_NEVER_AGAIN = OpenHours(FOREVER, FOREVER)


def _always(moment: int) -> OpenHours | None:
    return None


class TradingHours:
    """The hours of one symbol. `hours` gives those that hold a moment, or else the next ones; None: it never closes.

    From `expires_at` on nothing is traded any more, whatever the hours are; None: nobody says that it ends. Whoever
    learns that it is another moment sets it. Moments are the provider's time in Unix seconds. The hours asked for last,
    and those before, are remembered.
    """

    __slots__ = ("__weakref__", "_earlier", "_hours", "_known", "expires_at")

    def __init__(self, hours: Callable[[int], OpenHours | None] = _always, expires_at: int | None = None) -> None:
        self._hours = hours
        self.expires_at = expires_at
        # Each as long as it holds: from when on, and what.
        self._known: tuple[int, OpenHours] | None = None
        self._earlier: tuple[int, OpenHours] | None = None

    def _at(self, moment: int) -> OpenHours | None:
        """Return what `session_at` does, up to the end of trading: from then on hours that never come."""
        hours, expires_at = self.session_at(moment), self.expires_at
        if expires_at is None:
            return hours
        if moment >= expires_at or (hours is not None and hours.opens >= expires_at):
            return _NEVER_AGAIN
        return OpenHours(0, expires_at) if hours is None else OpenHours(hours.opens, min(hours.closes, expires_at))

    def session_at(self, moment: int) -> OpenHours | None:
        """Return the hours that hold a moment, or else the next ones; None: it never closes.

        They are those by which candles are counted: that the symbol expires changes nothing of them.
        """
        known = self._known
        if known is not None and known[0] <= moment < known[1].closes:
            return known[1]
        earlier = self._earlier
        if earlier is not None and earlier[0] <= moment < earlier[1].closes:
            self._known, self._earlier = earlier, known
            return earlier[1]
        hours = self._hours(moment)
        if hours is not None:
            self._known, self._earlier = (min(moment, hours.opens), hours), known
        return hours

    def opens_at(self, moment: int) -> int:
        """Return the first moment from this one on at which it is open: `FOREVER` if there is none."""
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

    def end_of(self, interval: str, opened: int) -> int:
        """Return when the candle that opened then is over: with its interval, or with the trading in it.

        The last candle of a session may be shorter than others. One without any trading lasts for its interval.
        """
        end = next_open(interval, opened)
        over, at = end, opened
        while at < end:
            hours = self._at(at)
            if hours is None or hours.opens >= end:
                break
            over = min(end, hours.closes)
            at = hours.closes
        return over

    def next_due(self, interval: str, opened: int) -> int:
        """Return when the candle that follows the one which opened then is over.

        It is the one that holds the next moment of trading; a month always does. `FOREVER` if none follows.
        """
        end = next_open(interval, opened)
        opens = self.opens_at(end)
        if opens >= FOREVER:
            return FOREVER
        if opens > end and not self._follows_session(length_s(interval), opened):
            opens -= (opens - end) % length_s(interval)
        return self.end_of(interval, opens)

    def never_closes(self, moment: int) -> bool:
        """Say whether nothing is known of closed hours at a moment."""
        return self._at(moment) is None

    def may_open(self, length: int, moment: int) -> bool:
        """Say whether a candle so long may have opened then: by the clock of UTC, or counted from the market's opening.

        Those of a day and more open on some whole minute.
        """
        return moment % min(length, _HOUR_S if length < _DAY_S else _MINUTE_S) == 0 or self._follows_session(
            length, moment
        )

    def _follows_session(self, length: int, opened: int) -> bool:
        """Say whether candles are counted from the opening of the market, as that of an open time shows."""
        hours = self.session_at(opened)
        return hours is not None and hours.opens <= opened and (opened - hours.opens) % length == 0

    def open_parts(self, start: int, end: int, candle_s: int, an_open: int | None = None) -> list[tuple[int, int]]:
        """Return the parts of a span of open times, ends excluded, in which candles so long have trading in them.

        `an_open` is any open time of such candles: if they are counted from the opening of the market, none opens
        before that.
        """
        parts: list[tuple[int, int]] = []
        for first, last in self._open_parts(start, end, candle_s, an_open):
            if parts and first <= parts[-1][1]:
                parts[-1] = (parts[-1][0], last)
            else:
                parts.append((first, last))
        return parts

    def has_open_part(self, start: int, end: int, candle_s: int, an_open: int | None = None) -> bool:
        """Say whether `open_parts` of a span are any; a span of years has many, and the first one says it."""
        return next(self._open_parts(start, end, candle_s, an_open), None) is not None

    def _open_parts(self, start: int, end: int, candle_s: int, an_open: int | None) -> Iterator[tuple[int, int]]:
        follows_session: bool | None = None
        at, is_first = start, True
        while at < end:
            hours = self._at(at)
            if hours is None:
                yield at, end
                return
            opens = hours.opens
            if opens >= end:
                break
            if at < opens or is_first:
                if follows_session is None:
                    follows_session = an_open is not None and self._follows_session(candle_s, an_open)
                if not follows_session:
                    # Long candles open where the provider says, at most a candle before the market does.
                    opens -= opens % candle_s if candle_s <= _HOUR_S else candle_s - 1
            first, last = max(start, opens), min(end, hours.closes)
            if first < last:
                is_first = False
                yield first, last
            at = hours.closes
