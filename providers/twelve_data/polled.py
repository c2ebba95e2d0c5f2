"""What the answers of polls mean for one stream: what is new in them, and candles built from smaller ones; pure."""

from collections.abc import Iterator, Sequence

from providers.twelve_data.forex import Hours
from relay import Candle, PriceUpdate, StreamKey, enlarge, is_unreadable, is_widened, next_open

SETTLE_S = 60.0
"""Our choice: the newest bar of an answer may still change so long after its end."""
SILENT_S = 120.0
"""Our choice: after so much trading time, or a candle, without news a stream is silent."""
FUTURE_S = 60.0
"""Our choice: a candle that opens farther ahead is none."""
_MOST_ROWS = 5000
"""The most rows of one answer: `outputsize` in the OpenAPI file."""
_MOST_PAUSE_S = 3600.0
"""Our choice: polls that bring nothing are at most so far apart."""
_DAY_S = 86_400
"""Our choice: so long a bar without sense is asked for, and a stream polled itself; longer ones are not begun here."""


class PolledStream:
    """What is known of one stream between two polls; outlives the feed, so nothing between two feeds is lost.

    `asked` and `covered` are moments of the monotonic clock: the last call for this stream, and since when its answers
    follow one another without a hole. `anchor` is the moment that the next poll is reckoned from. `doubted` are the
    open times of candles that could not be read, or had to be widened, and are asked for again. `is_failing`: no answer
    since the last failure had a candle of it, so that nothing is delivered. `fruitless` is how often in a row it was
    asked for without news. Candles built from smaller ones hold them up to the one that opens at `joined`, None: what
    the provider said is not continued yet; `is_parted` says that smaller ones left a hole since.
    """

    __slots__ = (
        "alone", "anchor", "answered", "asked", "built", "checked", "covered", "doubted", "fruitless", "is_closed",
        "is_failing", "is_parted", "joined",
        "newest", "place", "previous", "wronged",
    )  # fmt: skip

    def __init__(self) -> None:
        self.asked = self.answered = self.wronged = float("-inf")
        self.anchor: float | None = None
        self.covered: float | None = None
        self.checked: float | None = None
        self.place = self.fruitless = 0
        self.newest: Candle | None = None
        self.is_closed = False
        self.previous: Candle | None = None
        self.alone = self.is_failing = self.is_parted = False
        self.joined: int | None = None
        self.built: dict[int, Candle] = {}
        self.doubted: set[int] = set()

    def forget(self) -> None:
        """Begin anew: nobody watched it meanwhile, so nobody misses what happened."""
        self.newest = self.previous = self.anchor = self.covered = self.checked = self.joined = None
        self.is_parted = False
        self.built.clear()
        self.doubted.clear()

    def ask_at_once(self) -> None:
        """Let the next poll be due now, as with a key that was never asked."""
        self.asked, self.anchor = float("-inf"), None

    def pause_s(self, least_s: float) -> float:
        """Return how long not to ask again for a candle that is due: ever longer, since it may never come.

        That is so on holidays, and where the provider loses a candle.
        """
        return max(least_s, min(_MOST_PAUSE_S, least_s * 2.0 ** (min(self.fruitless, 12) - 1)))

    def is_silent(self, interval: str, hours: Hours, now: float) -> bool:
        """Say whether the market has long been open since the newest candle's end, so that a later one is missing."""
        if self.newest is None:
            return False
        end = next_open(interval, self.newest.time)
        return hours.calendar.trading_between(end, now) > max(SILENT_S, next_open(interval, 0))

    def rows_needed(self, interval: str, now: float, session_start: float) -> int:
        """Return how many of the newest rows reach back to the last candle seen.

        They reach farther where candles were built and not compared yet, or could not be read.
        """
        if self.newest is None:
            return 2
        since: float = self.newest.time
        if self.built:
            since = min(since, *self.built)
        elif self.is_closed:
            since = max(since, session_start)
        if self.doubted:
            since = min(since, *self.doubted)
        length = next_open(interval, 0)
        return max(2, min(_MOST_ROWS, int((now - since) // length) + 2))

    def readable(self, key: StreamKey, candles: Sequence[Candle], now: float) -> tuple[list[Candle], bool]:
        """Return the candles of an answer to go on with, and whether a later one is there that cannot be read.

        Nothing is built from an answer with a candle that had to be widened: its range would stay in larger ones.
        A new candle that cannot be read is left out, and asked for in each poll of a day; later ones do not wait for it
        here: the relay looks it up in history before it tells them.
        """
        # It is the provider's own state again that smaller candles have to continue.
        self.joined, self.is_parted = None, False
        since = now - max(_DAY_S, 3 * next_open(key.interval, 0))
        self.doubted = {time for time in self.doubted if time > since}
        candles = [candle for candle in candles if candle.time <= now + FUTURE_S]
        for candle in filter(is_unreadable, candles):
            time = candle.time
            if self.newest is None or time < self.newest.time or (time == self.newest.time and self.is_closed):
                self.built.pop(time, None)
            elif candle is not candles[-1]:
                self.doubted.add(time)
                # What is built from these candles lacks one.
                self.covered = None
        if any(map(is_widened, candles)):
            self.covered = None
        kept = [candle for candle in candles if not is_unreadable(candle)]
        return kept, bool(candles) and is_unreadable(candles[-1])

    def take(
        self, key: StreamKey, candles: Sequence[Candle], now: float, *, is_followed: bool = False
    ) -> Iterator[PriceUpdate]:
        """Yield what is new in an answer (oldest first, at provider time `now`), and remember what was yielded.

        A candle is closed when a later one is there (of the last one `is_followed` says so), or when its interval ended
        a while ago. The values of the one before the newest come with each answer, so a late change of it is noticed;
        what had to be widened is none.
        """
        for place, candle in enumerate(candles):
            is_closed = (
                is_followed or place < len(candles) - 1 or now >= next_open(key.interval, candle.time) + SETTLE_S
            )
            newest = self.newest
            if newest is None:
                if place < len(candles) - 1:
                    self.previous = candle
                    continue
            elif candle.time < newest.time:
                is_previous = self.previous is not None and candle.time == self.previous.time
                is_changed = is_previous and _is_better(candle, self.previous)
                if is_changed:
                    self.previous = candle
                if is_changed or candle.time in self.doubted:
                    self._weigh(candle)
                    yield PriceUpdate(key, candle, is_closed=True)
                continue
            elif candle.time == newest.time and self.is_closed and not (is_closed and _is_better(candle, newest)):
                continue
            elif candle.time > newest.time:
                self.previous = newest
            self.newest, self.is_closed = candle, is_closed
            self.fruitless = 0
            self._weigh(candle)
            yield PriceUpdate(key, candle, is_closed=is_closed)

    def _weigh(self, candle: Candle) -> None:
        """Have a candle that is told asked for again if it had to be widened; otherwise it is in doubt no more."""
        if is_widened(candle):
            self.doubted.add(candle.time)
        else:
            self.doubted.discard(candle.time)

    # -- candles built from smaller ones -----------------------------------------------------------

    def can_be_built(self, key: StreamKey, smaller: "PolledStream", interval: str, at: float) -> bool:
        """Say whether answers of a smaller interval of the same symbol tell all that is new here.

        They do from the provider's own state of the open candle on, which was asked for while the smaller candles came
        without a hole. Volumes cannot be told apart, so what has them is not built. After a difference from the
        provider's candles this stream is polled itself for a day.
        """
        return (
            self.newest is not None
            and not self.is_parted
            and not is_widened(self.newest)
            and smaller.newest is not None
            and smaller.covered is not None
            and self.asked >= smaller.covered
            and next_open(key.interval, 0) % next_open(interval, 0) == 0
            and not self.newest.volume
            and not smaller.newest.volume
            and at >= self.wronged + _DAY_S
        )

    def build(
        self, key: StreamKey, smaller: Sequence[Candle], now: float, interval: str, hours: Hours
    ) -> Iterator[PriceUpdate]:
        """Yield what smaller candles of an `interval`, oldest first, add to this stream.

        Where they leave a hole in market hours nobody knows what is in it: what follows is the provider's to say, and
        this stream is polled itself (`is_parted`). A candle is closed when those of its end are there, however late it
        is. Candles of a day and more are continued but never begun: their beginning is the provider's to say.
        """
        newest = self.newest
        assert newest is not None
        end = next_open(key.interval, newest.time)
        length = next_open(key.interval, 0)
        is_long = length >= _DAY_S
        whole = self._unbroken(smaller, newest.time, end, interval, hours)
        wanted = [candle for candle in whole if candle.time >= newest.time and not (is_long and candle.time >= end)]
        if not wanted:
            return
        self.joined = wanted[-1].time
        grid = newest.time

        def opens(moment: int) -> int:
            return grid if is_long else moment - (moment - grid) % length

        merged = enlarge(wanted, key.interval, opens=opens)
        if merged[0].time == newest.time:
            first = merged[0]
            merged[0] = first._replace(
                open=newest.open, high=max(newest.high, first.high), low=min(newest.low, first.low)
            )
        else:
            merged.insert(0, newest)
        ends = next_open(key.interval, merged[-1].time)
        if is_long or hours.week.trading_between(next_open(interval, wanted[-1].time), ends):
            # Not closed here, however late it is.
            now = min(now, ends)
        for update in self.take(key, merged, now):
            if update.is_closed:
                self.built[update.candle.time] = update.candle
            yield update

    def _unbroken(
        self, smaller: Sequence[Candle], begin: int, end: int, interval: str, hours: Hours
    ) -> Sequence[Candle]:
        """Return the smaller candles up to the first hole in market hours behind what is known of the newest candle.

        That is from `begin` to `end`: the provider said it after the smaller ones had begun to come without a hole.
        """
        follows = end if self.joined is None else next_open(interval, self.joined)
        for place, candle in enumerate(smaller):
            if candle.time > follows and hours.week.trading_between(follows, candle.time):
                self.is_parted = True
                return smaller[:place]
            if candle.time >= begin:
                follows = next_open(interval, candle.time)
        return smaller

    def compare(self, key: StreamKey, candles: Sequence[Candle]) -> tuple[list[PriceUpdate], bool]:
        """Compare what was built with the provider's candles; return those that differ, and whether all agreed."""
        differing = []
        for candle in candles:
            mine = self.built.pop(candle.time, None)
            if mine is None or mine == candle or is_widened(candle):
                continue
            differing.append(PriceUpdate(key, candle, is_closed=True))
            if self.newest is not None and self.newest.time == candle.time:
                self.newest = candle
            if self.previous is not None and self.previous.time == candle.time:
                self.previous = candle
        unknown = [time for time in self.built if candles and candles[0].time < time < candles[-1].time]
        for time in unknown:
            del self.built[time]
        return differing, not differing and not unknown


def _is_better(candle: Candle, known: Candle | None) -> bool:
    """Say whether a candle has other values than the one that is known, and may replace it."""
    return known is not None and candle != known and (is_widened(known) or not is_widened(candle))
