"""One stream that a feed carries: what is noted of it, and when its subscribers are told another state."""

from typing import Any

from relay.core.clock import Clock
from relay.core.intervals import length_s, next_open, open_time
from relay.core.spans import FOREVER
from relay.protocol.server_messages import StreamState
from relay.streams.hub import Hub
from relay.streams.subscriptions import CONNECTED, Stream
from relay.supervision.liveness import Remedy
from relay.supervision.market_watch import MarketWatch
from relay.supervision.silence_watch import LATE_S, Planned, SilenceWatch
from relay.supervision.stray_updates import StrayUpdates
from relay.supervision.stream_facts import (
    BACKFILLING,
    LIVE,
    MARKET_CLOSED,
    STALE,
    THROTTLED,
    Facts,
    StateSaid,
)
from relay.supervision.timing import FEED_TIMING, FeedTiming

KEPT_EVENTS = 20
MOST_ANSWERS_CLOSED = 2
"""So many answers of history after a close are enough for the session's end, if no feed told an open candle."""


class SupervisedStream:
    """A stream from when it is wanted until it is dropped. Whoever hands on an update counts it in `received`.

    Methods note facts; the state that subscribers are told follows from all of them, whatever their order was. That the
    stream is silent stands until an update, or until its market closes: that a feed carries it again, that a pause is
    over or that something was fetched brings no price.
    """

    __slots__ = (
        "_ask_at",
        "_clock",
        "_facts",
        "_halt",
        "_halted_at",
        "_hub",
        "_market",
        "_received_then",
        "_rested_at",
        "_silence",
        "_strays",
        "_timing",
        "received",
        "stream",
    )

    def __init__(
        self, stream: Stream, hub: Hub, clock: Clock, halt: str = "", *, timing: FeedTiming = FEED_TIMING
    ) -> None:
        self.stream = stream
        self.received = 0
        self._hub = hub
        self._clock = clock
        self._timing = timing
        self._silence = SilenceWatch(stream.key.interval, clock.monotonic())
        self._strays = StrayUpdates()
        self._facts = Facts(loss=stream.message, halt=halt)
        # Not told: its first subscriber has it with the confirmation.
        stream.status, stream.message = self._facts.state()
        self._halt = halt
        self._halted_at = 0.0
        self._received_then = 0
        # By the provider's time, when its feed paused it last.
        self._rested_at = 0.0
        self._ask_at = 0.0
        self._market = MarketWatch(stream, clock)

    def note(self, event: str) -> None:
        """Keep a line for the status page; only the newest few are kept."""
        events = self.stream.events
        events.append((self._clock.wall(), event))
        del events[:-KEPT_EVENTS]

    # -- what feeds report -------------------------------------------------------------------------

    def _learn(self, **facts: Any) -> None:
        self._facts = self._facts._replace(**facts)

    def show(self) -> None:
        """Tell the subscribers the state that follows from what is known, if it is another one."""
        self._look_at_market()
        since = self._silence.since
        silent_s = None if since is None else self._clock.monotonic() - since
        state = self._facts._replace(silent_s=silent_s).state()
        if not state.status == self.stream.status == STALE:
            self._hub.set_state(self.stream, *state)

    def accept(self) -> None:
        """Note that a feed delivers the stream and no pause holds; `show` is left to who knows what was missed."""
        self._learn(is_fed=True, was_fed=True, is_lost=False, rest=self._rest_left())

    def hear(self) -> None:
        """Note an update: it ends every pause and the silence, whoever spoke of them; but it opens no market."""
        self._silence.since = None
        self._halt = ""
        self._strays.end()
        self._market.hear()
        self._look_at_market()
        self._learn(is_fed=True, was_fed=True, is_lost=False, rest=self._rest_left(), halt="", stray="")
        self.show()

    def _rest_left(self) -> StateSaid | None:
        rest = self._facts.rest
        if rest is None or rest.status != MARKET_CLOSED or not self._market.is_closed_by_hours():
            return None
        return None if self._market.is_disproved and self._is_traded_since(self._rested_at) else rest

    def _is_traded_since(self, moment: float) -> bool:
        """Say whether the newest candle could have been traded after `moment`: what comes late ended before."""
        last = self.stream.series.last
        return last is not None and next_open(self.stream.key.interval, last.time) > moment

    def go_live(self) -> None:
        """Note that a feed delivers the stream."""
        self._learn(is_fed=True, was_fed=True, is_lost=False)
        self.show()

    def rest(self, status: StreamState, message: str) -> None:
        """Note that the feed pauses the stream, until `accept` or an update."""
        self._silence.rest()
        self._rested_at = self.stream.feeder.clock.now()
        if status == MARKET_CLOSED:
            self._silence.end()
        self._learn(is_fed=True, was_fed=True, is_lost=False, rest=StateSaid(status, message))
        self.show()

    def lose(self, cause: str, wait_s: float = 0.0, *, is_barred: bool = False) -> None:
        """Note that no feed delivers the stream, and when there is another attempt: after `wait_s`, or now.

        `is_barred` says that the provider asked to wait for so long.
        """
        if self._facts.is_fed:
            self.stream.reconnects += 1
            self.note(f"lost: {cause}")
        when = f"at {self._clock.utc(wait_s)}" if wait_s else "under way"
        loss = f"{cause}; the next attempt is {when}"
        self._learn(is_fed=False, loss=loss, is_lost=True, is_barred=is_barred, past=None)
        self.show()

    def remark(self, message: str) -> None:
        """Note how a feed says that the stream is live; empty ends it."""
        self._learn(remark=message or LIVE)
        self.show()

    # -- what was missed ---------------------------------------------------------------------------

    def catch_up(self, message: str) -> None:
        """Note that what was missed is fetched, until `caught_up`."""
        self._learn(past=StateSaid(BACKFILLING, message))
        self.show()

    def wait_for_budget(self, message: str) -> None:
        """Note that what was missed waits for the provider's budget, until `catch_up` or `caught_up`."""
        self._learn(past=StateSaid(THROTTLED, message))
        self.show()

    def caught_up(self) -> None:
        """Note that nothing is missing any more."""
        self._learn(past=None)
        self.show()

    # -- what the provider takes -------------------------------------------------------------------

    def refuse(self, reason: str) -> None:
        """Note that the provider refuses the stream, until `retry`; no feed carries it meanwhile."""
        self.note(f"error: {reason}")
        self._silence.planned = None
        self._learn(refusal=reason, is_fed=False, past=None)
        self.show()

    def retry(self) -> None:
        """Note that a refused stream is given to a feed again."""
        self._learn(refusal="", loss="it was refused; the next attempt is under way", is_barred=False)
        self.show()

    @property
    def is_refused(self) -> bool:
        """Whether the provider refuses the stream."""
        return bool(self._facts.refusal)

    @property
    def is_silent(self) -> bool:
        """Whether the stream is silent beyond its habit, whatever its state is called."""
        return self._silence.since is not None

    def halt(self, message: str) -> None:
        """Take what the provider's newest list says of the market: why it is paused, empty if it trades.

        The stream is paused once it is silent then: see `check_halt`. An update disproves the list.
        """
        if message and not self._halt:
            self._halted_at, self._received_then = self._clock.monotonic(), self.received
        self._halt = message
        if not message and self._facts.halt:
            self._learn(halt="")
            self.show()

    def check_halt(self, now: float) -> None:
        """Pause a stream that its provider's list calls paused once it is silent. Call it about once a second."""
        if not self._halt or self._facts.halt:
            return
        if self.received != self._received_then:
            self._halted_at, self._received_then = now, self.received
        elif now - self._halted_at >= self._timing.halt_silence_s:
            self.note("paused")
            self._silence.end()
            self._learn(halt=self._halt)
            self.show()

    # -- silence -----------------------------------------------------------------------------------

    @property
    def planned(self) -> Planned | None:
        """When the feed asks for the stream next, if it said so."""
        return self._silence.planned

    def expect(self, in_s: float, every_s: float | None) -> None:
        """Take a plan of the feed: until then it is silent on purpose."""
        self._silence.expect(self._clock.monotonic(), in_s, every_s)

    def is_planned(self, now: float) -> bool:
        """Say whether the feed will ask for the stream by itself; only a poll that is late makes a doubt."""
        planned = self._plan()
        return planned is not None and now < planned.at + LATE_S

    def _plan(self) -> Planned | None:
        """Return when a poll is planned that brings what is due."""
        return self.planned

    def is_closed_for(self, seconds: float) -> bool:
        """Say whether the market has been closed for so long by its hours, as far as it was watched."""
        if self._look_at_market():
            self.show()
        return self._market.is_closed_for(seconds)

    def _look_at_market(self) -> bool:
        """Note whether the market is closed, and until when; return whether that is news."""
        market, facts = self._market, self._facts
        if not market.look():
            return False
        if market.closed:
            self._silence.end()
        # Whoever paused it for the same reason may find nothing to say at the opening.
        is_over = facts.closed and not market.closed and facts.rest is not None and facts.rest.status == MARKET_CLOSED
        self._learn(closed=market.closed, rest=None if is_over else facts.rest)
        return True

    def note_stray(self, why: str) -> None:
        """Take note of an update that was left out; where nothing else comes the stream is not live."""
        self._strays.note(why, self.received)

    def may_doubt(self, now: float) -> bool:
        """Say whether history is to be asked because updates are left out; then not for a while, ever longer."""
        return self._strays.may_doubt(now)

    def listen_anew(self, now: float) -> None:
        """Begin to measure silence now: a feed opened or a pause is over. Not after a feed that brought nothing."""
        self._silence.listen_anew(now, self.received)

    def check_silence(self, now: float) -> Remedy | None:
        """Turn the stream stale when it is silent beyond its habit; return what to try about it.

        Call it about once a second.
        """
        self._check_stray()
        if self._look_at_market():
            self.show()
        status, silence, is_planned = self.stream.status, self._silence, self.is_planned(now)
        is_meant = status != STALE and silence.is_meant(
            now, self.received, is_closed=self._market.is_closed_by_hours(), is_planned=is_planned
        )
        if is_meant or status in (MARKET_CLOSED, THROTTLED):
            silence.excuse(now)
            return None
        if status not in (CONNECTED, STALE, BACKFILLING):
            return None
        if status != STALE and is_planned:
            silence.excuse_polls()
        over_s = silence.over_s(now, self.received)
        if over_s is None or status == BACKFILLING:
            return None
        if silence.begin():
            self.note("stale")
            self.show()
        return silence.remedy(over_s)

    def _check_stray(self) -> None:
        """Turn a stream stale of which nothing but updates to leave out came since the last look."""
        told = self._facts.stray
        stray = self._strays.look(self.received, told)
        if stray != told:
            if not told:
                self.note("stale")
            self._learn(stray=stray)
            self.show()

    # -- candles that nobody closed ----------------------------------------------------------------

    def is_overdue(self, time_s: float, grace_s: float, now: float) -> bool:
        """Say whether a candle was over `grace_s` before the provider's time `time_s`, and no feed closed it."""
        series = self.stream.series
        # What was open when trading was paused still ends.
        has_open = series.last is not None and not series.last_is_closed
        is_halted = self._facts.is_fed and bool(self._facts.halt)
        is_live = self.stream.status in (CONNECTED, STALE) or (is_halted and has_open)
        if self._facts.closed and self._facts.is_fed and not self._facts.halt:
            # The last candles of a session close after it, and no others.
            is_live = has_open or self._market.answered < MOST_ANSWERS_CLOSED
        if not is_live or series.is_catching_up or self._awaits_poll(time_s, now):
            return False
        due_at = series.due_at()
        if due_at is None:
            due_at = self._first_due(int(series.promised_at or time_s))
        return time_s >= due_at + grace_s and now >= self._ask_at

    def _awaits_poll(self, time_s: float, now: float) -> bool:
        """Say whether a poll will bring what is due; one that waits for the opening would be days late."""
        planned = self._plan()
        if planned is None or not self.is_planned(now):
            return False
        if not self._facts.closed:
            return True
        return time_s + planned.at - now < self.stream.series.market.opens_at(int(time_s))

    def _first_due(self, since: int) -> int:
        """Return when the first candle is over that a stream without any has to tell, wanted `since` then.

        While the market is open its feed may still tell where its candles open; in closed hours they are taken to
        open by UTC.
        """
        interval, market = self.stream.key.interval, self.stream.series.market
        opened = open_time(interval, since) if self._facts.closed else since
        if not market.is_closed(opened, since + 1):
            return next_open(interval, opened)
        opens_at = market.opens_at(since)
        return FOREVER if opens_at >= FOREVER else next_open(interval, opens_at)

    def note_answer(self) -> None:
        """Note that history answered what it was asked."""
        self._market.answered += 1

    def ask_later(self, now: float) -> None:
        """Call no candle overdue for about an interval: history was asked just now. Ever longer in closed hours."""
        pause_s = max(self._timing.least_ask_pause_s, length_s(self.stream.key.interval))
        if self._facts.closed:
            self._market.asked += 1
            pause_s *= 2.0 ** min(self._market.asked - 1, 10)
        self._ask_at = now + max(self._timing.least_ask_pause_s, min(pause_s, self._timing.most_ask_pause_s))
