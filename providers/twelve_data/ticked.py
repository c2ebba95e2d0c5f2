"""What ticks and the provider's own candles say together about one stream, in the order to tell it; pure."""

import math
from collections.abc import Callable, Iterable

from providers.twelve_data.forex import Hours, has_same_day
from providers.twelve_data.polled import PolledStream
from relay import Built, CandleBuilder, PriceUpdate, StreamKey, next_open, open_time

GRACE_S = 2.0
"""Our choice: a tick is stamped in whole seconds (recorded) and takes its time to arrive."""
PATIENCE_S = 20.0
"""Our choice: so long a candle waits for the provider's own values of what came before it."""
REST_LAG_S = 2.0
"""Our choice: the provider's state of an open candle is taken to hold everything until so long before the answer."""
_HOUR_S = 3600
"""Recorded: candles of up to an hour open at multiples of their length; longer ones where the provider says."""
_DAY_S = 86_400
"""Our choice: candles so long are not closed by ticks, but by the provider's own."""


def have_confirmed(polled: PolledStream, closed: PriceUpdate) -> None:
    """Let a first poll that comes late reach back to the first candle that was closed without one."""
    if polled.newest is None:
        polled.newest, polled.is_closed = closed.candle, True


class TickedStream:
    """Builds one stream's candles of ticks and takes the provider's own values for truth wherever they are known.

    A candle whose beginning was not seen, and one that follows an interval without ticks, wait until the provider's
    candles were asked for, at most `PATIENCE_S`; then it is told all the same, and the relay looks up what is missing.
    Candles of a day and more are closed by the provider only, ticks move them in between. `polled_in` says how soon the
    provider is asked again; `now` is its time.
    """

    def __init__(self, key: StreamKey, hours: Hours, polled_in: Callable[[], float]) -> None:
        self.key = key
        self.is_ticking = False
        self._polled_in = polled_in
        self._hours = hours
        self._session = (0, 0)
        self._anchored_in = -1
        self._length = next_open(key.interval, 0)
        self._anchor: int | None = None if self._length > _HOUR_S else 0
        self._builder = CandleBuilder(
            key.interval,
            math.inf,
            grace_s=GRACE_S,
            closes=self._length < _DAY_S,
            opens=self._opens,
            is_open=self.is_trading,
        )
        self._since = math.inf
        self._heard = -math.inf
        self._known_until = 0
        self._waiting: list[Built] = []
        self._waits_until = math.inf

    # -- what comes in -----------------------------------------------------------------------------

    def accept(self, now: float) -> None:
        """Learn that ticks come in from now on."""
        # One second more, since the clock may be that much behind the stamps.
        self._builder.resume(now + 1)
        self._since = now
        self.is_ticking = True

    def lose(self) -> None:
        """Learn that ticks may be missed from now on."""
        self._builder.resume(math.inf)
        self._since = math.inf
        self.is_ticking = False

    def tick(self, moment: float, price: float, now: float) -> list[PriceUpdate]:
        """Take a tick; return what is to be told."""
        if self._anchor is None or not self._is_anchored(moment):
            # Where such candles open is the provider's to say: by UTC or by the day of another place.
            return []
        self._heard = max(self._heard, moment)
        return self._tell(self._builder.add(moment, price, now=now), now)

    def advance(self, now: float) -> list[PriceUpdate]:
        """Return what is to be told because of the time."""
        told = self._tell(self._builder.advance(now), now)
        if now >= self._waits_until:
            told += self._give_up()
        return told

    def confirm(self, update: PriceUpdate, now: float) -> list[PriceUpdate]:
        """Take a candle of the provider's own; return what is to be told."""
        candle = update.candle
        if self._length > _HOUR_S:
            self._anchor = candle.time
        if update.is_closed:
            built = self._builder.settle(candle, now=now)
            self._know(next_open(self.key.interval, candle.time))
            told = [update]
        else:
            built = self._builder.complete(candle, now - REST_LAG_S, now=now)
            self._know(candle.time)
            told = [] if self.is_ticking else [update]
        if not self.is_ticking:
            built = [one for one in built if one.is_closed]
        # What waited comes first: it is older than what the builder says now.
        renewed = {one.candle.time for one in built}
        waiting = [one for one in self._waiting if one.is_closed or one.candle.time not in renewed]
        until = self._waits_until
        self._waiting, self._waits_until = [], math.inf
        told += self._tell([*waiting, *built], now)
        if waiting and self._waiting:
            self._waits_until = until
        return told

    # -- what goes out -----------------------------------------------------------------------------

    def _tell(self, built: Iterable[Built], now: float) -> list[PriceUpdate]:
        told = []
        for one in built:
            if one.candle.time < self._known_until:
                # The provider's own values were told meanwhile.
                continue
            if self._waiting or not self._follows(one):
                self._wait(one, now)
            else:
                told.append(self._update(one))
        return told

    def _follows(self, one: Built) -> bool:
        """Say whether a candle can be told: everything before it is known, and it lacks nothing if it is closed."""
        if one.is_closed and not one.is_whole:
            return False
        at = one.candle.time
        if at <= self._known_until:
            return True
        # Where nothing is known ticks still tell all since they came in.
        known = self._known_until or self._since
        return known < at and not self._hours.week.trading_between(known, at)

    def _update(self, one: Built) -> PriceUpdate:
        if one.is_closed:
            self._know(next_open(self.key.interval, one.candle.time))
        else:
            self._know(one.candle.time)
        # Only ticks have a stamp, the provider's candles have none.
        stamp_ms = int(one.stamp * 1000) if one.stamp <= self._heard else None
        return PriceUpdate(self.key, one.candle, one.is_closed, stamp_ms)

    def _wait(self, one: Built, now: float) -> None:
        if not self._waiting:
            self._waits_until = now + PATIENCE_S if self._polled_in() < PATIENCE_S else now
        elif self._waiting[-1].candle.time == one.candle.time:
            self._waiting.pop()
        self._waiting.append(one)

    def _give_up(self) -> list[PriceUpdate]:
        """Tell what waited without what is missing before it, except closed candles that lack something."""
        waiting, self._waiting, self._waits_until = self._waiting, [], math.inf
        told = []
        for one in waiting:
            update = self._update(one)
            if one.is_whole or not one.is_closed:
                told.append(update)
        return told

    def _know(self, until: int) -> None:
        self._known_until = max(self._known_until, until)

    # -- times -------------------------------------------------------------------------------------

    def _opens(self, moment: int) -> int:
        if self._length <= _HOUR_S or self._anchor is None:
            return moment - moment % self._length
        if self.key.interval == "1M":
            return open_time("1M", moment)
        return moment - (moment - self._anchor) % self._length

    def _is_anchored(self, moment: float) -> bool:
        """Say whether what the provider said of where candles open still holds: clocks may have changed since."""
        if self._length <= _HOUR_S or self._anchor is None:
            return True
        self.is_trading(int(moment))
        opens = self._session[0]
        if opens != self._anchored_in and has_same_day(self._anchor, moment, self._hours):
            self._anchored_in = opens
        return opens == self._anchored_in

    def is_trading(self, moment: int) -> bool:
        """Say whether the market is open by the hours of the week: ticks of a holiday are taken."""
        opens, close = self._session
        if not opens <= moment < close:
            opens, close = self._session = self._hours.week.session_at(moment)
        return opens <= moment

    def has_traded(self, now: int, seconds: float) -> bool:
        """Say whether the market has been open for so long."""
        return self._hours.calendar.trading_between(now - seconds, now) >= seconds
