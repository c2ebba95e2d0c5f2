"""A relay without sockets around one venue that is slow and untidy, in virtual time, and clients that are judged.

Hub, supervisor, history and store are the relay's own. `faults_of` performs a play and returns what was wrong.
"""

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any, NamedTuple

from hypothesis import strategies as st

from relay import (
    API_VERSION,
    Candle,
    Instrument,
    PriceUpdate,
    ProviderInfo,
    ProviderUnavailable,
    RateLimited,
    TradingCalendar,
    Watchlist,
    hookimpl,
    unreadable,
)
from relay.core.clock import Clock
from relay.core.model import StreamKey
from relay.history.joining import Joining
from relay.history.live_edge import live_of
from relay.history.requests import HistoryRequest
from relay.instruments.directory import Target
from relay.protocol.client_requests import PastWanted, Request, SubscribeOptions
from relay.streams.subscriptions import Stream
from relay.web.ws.subscriptions import ClientSubscriptions
from tests.support.played_relay import START, ClientWire, PlayedRelay, clock_of, played_relay
from tests.support.soak import StreamCheck
from tests.support.untidy import Values
from tests.support.virtual_time import VirtualLoop, run

DAY_S = 86_400
LENGTH_S = {"1s": 1, "1m": 60, "3m": 180}
GRACE_S = 5.0
ALL = (0, 5000)
LAST_S = 90.0
"""So long everything behaves at the end, for what is owed to come."""


class Call(NamedTuple):
    """What becomes of one call for history."""

    takes_s: float = 0.0
    is_computed_late: bool = False
    failure: str = ""


class Join(NamedTuple):
    """One client: when it asks, what it wants, and when it leaves."""

    at_s: float
    bars: int | None = None
    since_s: int | None = None
    closed_only: bool = False
    throttle_ms: int = 0
    stays_s: float = 1000.0
    again_s: float | None = None
    """So long after it joined it subscribes again, for a longer past."""
    keeps_options: bool = False
    """Whether it then has the same throttle as before."""
    leaves_first: bool = False
    """Whether it unsubscribes right before."""
    resumes: bool = False
    """Whether it then asks for what follows what it has."""


class Play(NamedTuple):
    """A venue, what happens to its feed and calls, and who comes when."""

    interval: str
    begins_s: float
    lasts_s: float
    joins: tuple[Join, ...]
    is_closed_only: bool = False
    lag_s: float = 0.0
    opens_after_s: float = 0.1
    lives_s: tuple[float, ...] = ()
    calls: tuple[Call, ...] = ()
    asks_s: tuple[float, ...] = ()
    every_s: float = 2.0
    mute_s: tuple[float, float] = (0.0, 0.0)
    broken_s: tuple[float, float] = (0.0, 0.0)
    lacks_s: tuple[float, float] = (0.0, 0.0)
    """When answers leave out rows, for less than the grace: what is missing for longer is taken not to be there."""
    lacks: tuple[int, int] = ALL
    """Which rows those are: from the first number to the second, counted back from the newest."""
    spoils_s: tuple[float, float] = (0.0, 0.0)
    """When a row cannot be read."""
    spoilt: int = 3
    """Which row that is, counted back from the one that is open."""
    linger_s: float = 5.0
    base: str = ""
    """The interval that the venue has instead of the one that clients ask for."""
    quiet: int = 0
    """In so many of ten shorter candles nothing is traded."""
    hours: str = ""
    """The hours of a day of trading, in UTC, if days are built; the venue tells of other hours as well."""


class Truth:
    """What really was: one candle an interval, which changes twice a second while it is open."""

    def __init__(self, interval: str, quiet: int = 0) -> None:
        self.length_s = LENGTH_S[interval]
        self._quiet = quiet
        self._finals: dict[int, Sequence[Values]] = {}

    def times_between(self, after: int, before: int) -> Sequence[int]:
        first = after + 1 + (-(after + 1 - START)) % self.length_s
        times, length_s, quiet = range(first, before, self.length_s), self.length_s, self._quiet
        return [time for time in times if time // length_s * 7919 % 10 >= quiet] if quiet else times

    def is_traded(self, time: int) -> bool:
        return time // self.length_s * 7919 % 10 >= self._quiet

    def ends_at(self, time: int) -> float:
        return time + self.length_s

    def final(self, time: int) -> Sequence[Values]:
        # Asked for again and again: each candle is judged by all who have it.
        if (final := self._finals.get(time)) is None:
            final = self._finals[time] = [self.state(time, float(time + self.length_s))[1:6]]
        return final

    def state(self, time: int, moment: float) -> Candle:
        steps = int(min(max(moment - time, 0.0), self.length_s) * 2)
        opened = 1000.0 + time % 9973
        return Candle(time, opened, opened + steps, opened, opened + steps, 1.0 + steps)

    def opened(self, moment: float) -> int:
        return int(moment) - (int(moment) - START) % self.length_s


class BuiltTruth(Truth):
    """What candles of a longer interval really were: added up as whole numbers, one by one."""

    def __init__(self, base: Truth, interval: str) -> None:
        super().__init__(interval)
        self._base = base

    def times_between(self, after: int, before: int) -> Sequence[int]:
        times = super().times_between(after, before)
        return [time for time in times if self._base.times_between(time - 1, time + self.length_s)]

    def _parts(self, time: int, moment: float) -> list[Candle]:
        times = self._base.times_between(time - 1, time + self.length_s)
        return [self._base.state(one, moment) for one in times if one <= moment]

    def state(self, time: int, moment: float) -> Candle:
        parts = self._parts(time, moment)
        highs, lows = [one.high for one in parts], [one.low for one in parts]
        return Candle(
            time, parts[0].open, max(highs), min(lows), parts[-1].close, float(sum(int(one.volume) for one in parts))
        )


class DayTruth(BuiltTruth):
    """What days of trading really were: of a minute outside the hours of a calendar nothing is in them.

    As far back as the venue has candles.
    """

    def __init__(self, base: Truth, hours: str) -> None:
        super().__init__(base, "1m")
        self._calendar = TradingCalendar("UTC", hours)
        self._days = [self._calendar.day_of(START + number * DAY_S).sessions[0] for number in (-2, -1, 0, 1)]
        self.length_s = self._days[0].closes - self._days[0].opens

    def times_between(self, after: int, before: int) -> Sequence[int]:
        return [day.opens for day in self._days if after < day.opens < before]

    def ends_at(self, time: int) -> float:
        return self._calendar.day_of(time).sessions[0].closes

    def opened(self, moment: float) -> int:
        return max(day.opens for day in self._days if day.opens <= moment)


class Venue:
    """The provider: tells candles as they are while its feed lives, and history as the play says."""

    def __init__(self, play: Play, truth: Truth, clock: Clock) -> None:
        self._play = play
        self._truth = truth
        self._now = clock.wall
        self._calls = list(play.calls)
        self._lives = list(play.lives_s)
        self.is_calm = False

    @hookimpl
    def relay_provider(self) -> ProviderInfo:
        return ProviderInfo(
            "venue",
            API_VERSION,
            "Venue",
            ("demo",),
            (self._play.base,) if self._play.base else ("1s", "1m"),
            close_grace_s=GRACE_S,
            history_has_open=not self._play.is_closed_only and not self._play.lag_s,
            # Where nobody says so, a row that is left out may be an interval without trades.
            has_every_candle=self._play.lacks_s != (0.0, 0.0),
        )

    @hookimpl
    async def relay_stream(self, watchlist: Watchlist) -> AsyncGenerator[PriceUpdate, None]:
        await asyncio.sleep(self._play.opens_after_s)
        truth, begun = self._truth, self._now()
        ends_at = begun + (self._lives.pop(0) if self._lives else 1e9)
        watchlist.accept(watchlist.streams)
        following = truth.opened(begun) + truth.length_s
        while True:
            now = self._now()
            await asyncio.sleep(min(self._play.every_s, following + 0.01 - now))
            now = self._now()
            if now >= ends_at and not self.is_calm:
                raise ProviderUnavailable("the connection was lost")
            if now >= following:
                at, is_closed = following - truth.length_s, True
                following += truth.length_s
            else:
                at, is_closed = following - truth.length_s, False
            if not truth.is_traded(at):
                continue
            for key in watchlist.streams if not self._is_within(self._play.mute_s) else ():
                yield PriceUpdate(key, truth.state(at, now), is_closed, int(now * 1000))

    @hookimpl
    async def relay_candles(self, start: int | None, end: int, limit: int) -> list[Candle]:
        call = self._calls.pop(0) if self._calls and not self.is_calm else Call()
        if not call.is_computed_late:
            rows = self._rows(start, end, limit)
        await asyncio.sleep(call.takes_s)
        if call.failure == "limited":
            raise RateLimited("the budget is used up", 3.0)
        if call.failure or self._is_within(self._play.broken_s):
            raise ProviderUnavailable("broken")
        return self._rows(start, end, limit) if call.is_computed_late else rows

    def _is_within(self, span_s: tuple[float, float]) -> bool:
        since_s = self._now() - START - self._play.begins_s
        return span_s[0] <= since_s < span_s[1] and not self.is_calm

    def _rows(self, start: int | None, end: int, limit: int) -> list[Candle]:
        truth, now = self._truth, self._now()
        opened = truth.opened(now)
        last = truth.opened(now - self._play.lag_s) if self._play.is_closed_only else opened + 1
        low = last - 4000 * truth.length_s if start is None else start
        times = truth.times_between(low - 1, min(last, end))
        times = times[-limit:] if start is None else times[:limit]
        if self._is_within(self._play.lacks_s):
            newer, older = (max(0, len(times) - count) for count in self._play.lacks)
            times = [*times[:older], *times[newer:]]
        spoilt = opened - self._play.spoilt * truth.length_s if self._is_within(self._play.spoils_s) else None
        return [unreadable(time) if time == spoilt else truth.state(time, now) for time in times]


class VenueWithHours(Venue):
    """One whose instrument has hours, as its list says, and which tells of others as well."""

    @hookimpl
    async def relay_instruments(self) -> list[Instrument]:
        return [Instrument("X", "demo", "X", "USD", session=f"{self._play.hours} UTC")]


class Wire(ClientWire):
    """A client's side of a connection: what it was sent, as messages, with the moment of each."""

    def __init__(self, loop: VirtualLoop, check: StreamCheck, since: int | None) -> None:
        self.messages: list[tuple[float, dict[str, Any]]] = []
        self.repeated: list[int] = []
        self.outdated: list[str] = []
        self.is_asking_again = False
        self.bars: int | None = None
        """So many candles it has asked for, at most."""
        self._sent: set[int] = set()
        self._is_confirmed = False
        self._since = since
        self._loop = loop
        self._check = check
        self._seq = -1

    def _check_seq(self, message: dict[str, Any]) -> None:
        """Note what an earlier message covers: a snapshot all that was told up to its `seq`."""
        seq, is_snapshot = message["seq"], message["type"] == "snapshot"
        if seq < self._seq or (seq == self._seq and not is_snapshot):
            self.outdated.append(f"{message['type']} {seq} after {self._seq}")
        self._seq = seq

    def take(self, message: dict[str, Any]) -> None:
        if "seq" in message:
            self._check_seq(message)
        if message.get("action") == "unsubscribe":
            # What comes after it is a subscription of its own.
            self._is_confirmed, self._since = False, None
            for told in (self.messages, self._sent, self._check.gaps):
                told.clear()
        elif message["type"] == "subscription":
            if not self._is_confirmed:
                self._check.subscribed(START + self._loop.now, self._since)
            self._is_confirmed = True
        elif message["type"] == "snapshot" and self.is_asking_again and not message.get("replaces"):
            # What a second subscription brings lies before all that was sent.
            times = {candle["time"] for candle in message["candles"]}
            self.repeated += sorted(times & self._sent)
            self._sent |= times
            return
        else:
            self._check.take(message)
            if message.get("replaces"):
                self._sent.clear()
                message["bars"] = self.bars
        self.messages.append((self._loop.now, message))
        if message["type"] == "snapshot":
            self._sent |= {candle["time"] for candle in message["candles"]}
        elif message["type"] == "price_update" and not message.get("revised"):
            # A revision may be of a candle that only others were told of.
            self._sent.add(message["candle"]["time"])


class Scene:
    """The relay's parts around one venue, and the clients of a play."""

    def __init__(self, loop: VirtualLoop, play: Play, relay: PlayedRelay, venue: Venue, truth: Truth) -> None:
        self.loop = loop
        self.play = play
        self.relay = relay
        self.venue = venue
        self.truth = truth
        self.key = StreamKey("X", play.interval)
        self.faults: list[str] = []
        self.checks: list[tuple[StreamCheck, Wire, bool]] = []

    async def run(self) -> None:
        """Play it, then let everything settle."""
        tasks = [asyncio.create_task(self._client(join)) for join in self.play.joins]
        tasks += [asyncio.create_task(self._ask(at_s)) for at_s in self.play.asks_s]
        await asyncio.sleep(self.play.lasts_s)
        self.venue.is_calm = True
        await asyncio.sleep(LAST_S)
        now = START + self.loop.now
        for check, wire, has_left in self.checks:
            if not has_left:
                check.finish(now - GRACE_S - self.truth.length_s)
                self.faults += [f"gap {gap} is not repaired" for gap in check.gaps if not self._is_repaired(check, gap)]
                stays = [message["status"] for _, message in wire.messages if message["type"] == "status"]
                # Where often nothing is traded, a stream may well be silent, or ask whether something was.
                if stays and stays[-1] != "connected" and not self.play.quiet:
                    self.faults.append(f"the state at the end is {stays[-1]}")
            self.faults += check.violations
            self._judge_rest(wire, has_left=has_left)
            if wire.repeated:
                self.faults.append(f"subscribing again brought again {wire.repeated}")
            if wire.outdated:
                self.faults.append(f"told what was covered already: {wire.outdated}")
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks)

    def _is_repaired(self, check: StreamCheck, gap: tuple[int, int]) -> bool:
        return all(time in check.closed for time in self.truth.times_between(gap[0] - 1, gap[1]))

    async def _client(self, join: Join) -> None:
        await asyncio.sleep(join.at_s)
        check = StreamCheck(f"{join}", self.truth)
        since = None
        if join.since_s is not None:
            # A client resumes from a candle that is over, though this relay may not have told it yet.
            since = self.truth.opened(START + self.loop.now) - self.truth.length_s - join.since_s
        # With `bars` as well, not all that opened since has to come.
        wire = Wire(self.loop, check, since if join.bars is None else None)
        subscriber, subscribing = self.relay.connect(wire)
        options = SubscribeOptions(join.throttle_ms, join.closed_only)
        target = Target(self.relay.provider, self.key, "X")
        past = PastWanted(join.bars, since)
        wire.bars = join.bars if since is None else None
        place = len(self.checks)
        rests: list[asyncio.Task[None]] = []
        self.checks.append((check, wire, False))
        try:
            joining = subscribing.subscribe(target, Request("subscribe", names=(), options=options, past=past))
            if joining is not None:
                await joining.run()
                self._judge_first(wire, join, since)
                rests.append(asyncio.create_task(self._run_rest(subscribing, joining)))
            if join.again_s is not None:
                await asyncio.sleep(join.again_s)
                if join.leaves_first:
                    subscribing.unsubscribe(None, None, "X", self.play.interval)
                wire.is_asking_again = not join.leaves_first
                if not join.keeps_options:
                    options = options._replace(throttle_ms=500 if join.throttle_ms == 0 else 0)
                past = PastWanted((join.bars or 0) + 20, None)
                if join.resumes and check.last_closed is not None and not join.leaves_first:
                    past = PastWanted(None, check.last_closed)
                else:
                    wire.bars = past.bars
                joining = subscribing.subscribe(target, Request("subscribe", names=(), options=options, past=past))
                if joining is not None:
                    await joining.run()
                    rests.append(asyncio.create_task(self._run_rest(subscribing, joining)))
            await asyncio.sleep(join.stays_s)
            self.checks[place] = (check, wire, True)
        except asyncio.CancelledError:
            pass
        finally:
            for rest in rests:
                rest.cancel()
            await asyncio.wait(rests) if rests else None
            self.relay.context.hub.leave(subscriber)

    async def _run_rest(self, subscribing: ClientSubscriptions, joining: Joining) -> None:
        """Send what was late, as a connection does: meanwhile the client may ask again."""
        rest = subscribing.rest_of(joining)
        while rest is not None:
            await rest.run()
            rest = subscribing.rest_of(rest)

    def _judge_first(self, wire: Wire, join: Join, since: int | None) -> None:
        snapshots = [message for _, message in wire.messages if message["type"] == "snapshot"]
        if len(snapshots) != 1:
            self.faults.append(f"{len(snapshots)} snapshots")
            return
        # Of one whose rest is still to come the rest is judged.
        bars = None if join.since_s is not None or snapshots[0].get("pending") else join.bars
        if snapshots[0].get("pending") and snapshots[0]["complete"]:
            self.faults.append("complete, and the rest is still to come")
        if join.bars != 0:
            self._judge_end(snapshots[0], since, self.loop.now)
        gaps = [message for _, message in wire.messages if message["type"] == "gap"]
        if since is not None and join.bars is None and gaps and not snapshots[0]["candles"]:
            before = self.truth.times_between(since, gaps[0]["from"])
            if before:
                self.faults.append(f"no gap, and lacks {list(before)}")
        self._judge_count(snapshots[0], bars, self.loop.now)

    def _judge_rest(self, wire: Wire, *, has_left: bool) -> None:
        """Judge what followed a snapshot that came before the provider had answered."""
        is_to_come = False
        for at_s, message in wire.messages:
            if message["type"] != "snapshot":
                continue
            if message.get("replaces"):
                is_to_come = False
                self._judge_end(message, None, at_s)
                self._judge_count(message, message["bars"], at_s)
            is_to_come = is_to_come or message.get("pending", False)
        if is_to_come and not has_left:
            self.faults.append("what was still to come of a snapshot never came")

    def _judge_end(self, snapshot: dict[str, Any], since: int | None, at_s: float) -> None:
        """What is over for some seconds is either there, or the snapshot says that something is missing."""
        if not snapshot["complete"]:
            return
        now = START + at_s
        candles = snapshot["candles"]
        reached = candles[-1]["time"] if candles else since
        until = int(now - 2 * GRACE_S) - 2 * self.truth.length_s
        missing = [] if reached is None else list(self.truth.times_between(reached, until))
        if missing:
            self.faults.append(f"complete, and lacks {missing}")
        opened = candles[-1]["time"] if candles and not snapshot["last_is_closed"] else int(now)
        if self.truth.ends_at(opened) <= now - 2 * GRACE_S:
            self.faults.append(f"complete, and {opened} is still open")

    def _judge_count(self, snapshot: dict[str, Any], bars: int | None, at_s: float) -> None:
        lacks_some = self.play.lacks_s != (0.0, 0.0)
        if bars is None or (lacks_some and self.play.lacks != ALL):
            return  # an answer with some rows is how a provider says where its candles begin
        count, is_complete = len(snapshot["candles"]), snapshot["complete"]
        may_fail = self.play.broken_s[0] < self.play.broken_s[1] or any(one.failure for one in self.play.calls)
        there_are = bars
        if self.play.hours:
            now = START + at_s - 2 * GRACE_S
            there_are = sum(self.truth.ends_at(one) <= now for one in self.truth.times_between(0, int(now)))
        if count < min(bars, there_are) and (is_complete or not (may_fail or lacks_some)):
            self.faults.append(f"{count} candles of {bars}, complete: {is_complete}")

    async def _ask(self, at_s: float) -> None:
        """Ask for history beside the stream; a row that is given as closed has its final values."""
        await asyncio.sleep(at_s)

        def find() -> Stream | None:
            return self.relay.stream(self.key)

        try:
            past = await self.relay.history.candles(
                HistoryRequest(
                    self.relay.provider, self.key, start=None, end=None, limit=20, live=lambda: live_of(find())
                )
            )
        except (ProviderUnavailable, RateLimited, asyncio.CancelledError):
            return
        closed = past.candles if past.last_is_closed else past.candles[:-1]
        for candle in closed:
            if candle[1:] not in self.truth.final(candle.time):
                self.faults.append(f"history gives {candle} as closed")


async def perform(loop: VirtualLoop, play: Play) -> list[str]:
    """Return what was wrong."""
    clock = clock_of(loop)
    parts = Truth(play.base or play.interval, play.quiet)
    truth = BuiltTruth(parts, play.interval) if play.base and not play.hours else parts
    if play.hours:
        truth = DayTruth(parts, play.hours)
    await asyncio.sleep(play.begins_s)
    venue = (VenueWithHours if play.hours else Venue)(play, parts, clock)
    async with played_relay(venue, clock, linger_s=play.linger_s) as relay:
        if play.hours:
            await relay.context.directory.start()
            await relay.context.directory.lists_settled()
        scene = Scene(loop, play, relay, venue, truth)
        await scene.run()
        await relay.context.directory.close()
    return scene.faults


def faults_of(play: Play) -> list[str]:
    return run(lambda loop: perform(loop, play))


SLOW = Call(takes_s=1.5)
PLAYS: Mapping[str, Play] = {
    "forming candle while history is slow": Play(
        "1m", 40.0, 30.0, (Join(0.0),), asks_s=(18.8, 19.2, 19.6), calls=(SLOW, SLOW, SLOW)
    ),
    "closed only, a minute ends while history answers": Play(
        "1m", 59.5, 5.0, (Join(0.0, bars=5),), is_closed_only=True, calls=(Call(0.8),)
    ),
    "closed only, seconds end while history answers": Play(
        "1s", 10.3, 8.0, (Join(0.0, bars=5),), is_closed_only=True, calls=(Call(3.5),)
    ),
    "closed only, a resume": Play("1s", 10.3, 8.0, (Join(0.0, since_s=30),), is_closed_only=True, calls=(Call(3.5),)),
    "one candle, all that history answered is owed to the stream": Play(
        "1s", 10.3, 8.0, (Join(0.0, bars=1),), opens_after_s=5.0, calls=(Call(3.5, is_computed_late=True),)
    ),
    "one candle, a second begins while history answers": Play(
        "1s", 10.95, 8.0, (Join(0.0, bars=1),), opens_after_s=1.0, calls=(Call(1.5),) * 6
    ),
    "history lags": Play("1s", 10.3, 8.0, (Join(0.0, bars=5),), is_closed_only=True, lag_s=2.0),
    "the stream is lost for minutes, and somebody joins": Play(
        "1m", 5.0, 400.0, (Join(0.0), Join(250.0, bars=30)), lives_s=(60.0, *[0.0] * 200)
    ),
    "the budget is used up for a moment": Play(
        "1m", 5.0, 100.0, (Join(0.0, since_s=600),), calls=(Call(failure="limited"), Call(failure="limited"))
    ),
    "silent, while history fails": Play(
        "1s",
        10.0,
        150.0,
        (Join(0.0), Join(90.0, bars=30), Join(91.0, since_s=20), Join(105.0, bars=30)),
        mute_s=(20.0, 140.0),
        broken_s=(15.0, 100.0),
    ),
    "lost, and history is slow": Play(
        "1s",
        10.0,
        100.0,
        (Join(0.0), Join(33.0, since_s=20), Join(33.0, bars=5)),
        lives_s=(30.0, 30.0),
        opens_after_s=25.0,
        calls=(Call(), *[Call(20.0)] * 4),
    ),
    "subscribing again after the candle closed that was open at first": Play(
        "1m", 40.0, 60.0, (Join(0.0, again_s=25.0), Join(1.0, closed_only=True, again_s=25.0))
    ),
    "subscribing again after the gaps of a resume were repaired": Play(
        "1s",
        3.5,
        60.0,
        (Join(11.3, since_s=143, again_s=25.0),),
        lives_s=(17.0,),
        opens_after_s=4.2,
        every_s=0.25,
        broken_s=(1.0, 20.0),
    ),
    "a resume from a moment that is no open time, right after a close": Play(
        "1m", 62.0, 60.0, (Join(0.0, since_s=1),), is_closed_only=True, lag_s=4.0
    ),
    "the same while history fails": Play("1m", 62.0, 90.0, (Join(0.0, since_s=1),), broken_s=(0.0, 60.0)),
    "left out right before what the stream told to somebody else": Play(
        "1s",
        10.3,
        30.0,
        (Join(0.0, bars=30, stays_s=2.0), Join(4.0, bars=30)),
        is_closed_only=True,
        linger_s=0.3,
        calls=(Call(), Call(0.1)),
        lacks_s=(4.05, 4.5),
    ),
    "left out and in doubt, and a gap": Play(
        "1s",
        10.3,
        40.0,
        (Join(0.0, bars=30, stays_s=2.0), Join(6.0, bars=30)),
        is_closed_only=True,
        linger_s=0.3,
        lacks_s=(5.5, 7.0),
    ),
    "left out of a resume before the stream is open": Play(
        "1s", 0.0, 30.0, (Join(0.0), Join(1.0, since_s=7)), opens_after_s=5.0, lacks_s=(0.5, 2.0), every_s=0.25
    ),
    "nothing of what is owed first": Play(
        "1s", 0.0, 30.0, (Join(0.8),), opens_after_s=0.2, calls=(Call(takes_s=3.5),), lacks_s=(0.0, 6.5)
    ),
    "left out of what was missed while the stream was lost": Play(
        "1s", 10.0, 60.0, (Join(0.0),), opens_after_s=12.0, lives_s=(10.0,), lacks_s=(33.0, 38.0)
    ),
    "a row that cannot be read, of what the stream left open": Play(
        "1m",
        40.0,
        90.0,
        (Join(0.0), Join(50.0, since_s=60)),
        is_closed_only=True,
        lives_s=(10.0, *[0.0] * 200),
        broken_s=(12.0, 49.5),
        spoils_s=(49.0, 52.0),
        spoilt=1,
    ),
    "nothing at all right before the candle that is open": Play(
        "1m",
        22.7,
        60.0,
        (Join(2.3, since_s=3),),
        opens_after_s=0.0,
        calls=(Call(3.1, is_computed_late=True), Call(0.1)),
        asks_s=(0.0,),
        every_s=0.25,
        lacks_s=(0.0, 4.0),
    ),
    "nothing at all of what was asked for": Play("1m", 25.2, 30.0, (Join(3.0, bars=7),), lacks_s=(2.1, 6.1)),
    "nothing at all of what somebody else asked for a while before": Play(
        "1m", 25.2, 30.0, (Join(18.0, bars=7, closed_only=True),), asks_s=(5.5,), lacks_s=(2.1, 6.1)
    ),
    "owed long before the answer, which ends before that": Play(
        "1s", 10.0, 60.0, (Join(0.0), Join(29.0, since_s=15)), opens_after_s=40.0, lacks_s=(28.0, 38.0), lacks=(0, 30)
    ),
    "joining while a throttle holds an update": Play(
        "1m", 5.0, 60.0, (Join(0.0, throttle_ms=10_000), Join(17.0, bars=3, throttle_ms=10_000)), every_s=1.0
    ),
    "subscribing again while the own throttle holds an update": Play(
        "1m", 5.0, 60.0, (Join(0.0, throttle_ms=10_000, again_s=15.0, keeps_options=True),), every_s=7.0
    ),
    "a past that is late, and the same is asked for meanwhile, and more": Play(
        "1m", 5.0, 60.0, (Join(0.0, bars=10, again_s=0.0), Join(0.0, bars=10, again_s=3.0)), calls=(Call(20.0),) * 3
    ),
    "a past that is late, and what follows is asked for meanwhile": Play(
        "1s", 5.0, 60.0, (Join(0.0, bars=10, again_s=3.0, resumes=True),), opens_after_s=2.0, calls=(Call(20.0),) * 3
    ),
    "told while a late past was on its way, more than was asked for": Play(
        "1s",
        8.3,
        60.0,
        (Join(1.4, closed_only=True), Join(1.8, bars=14), Join(20.0, stays_s=2.0, again_s=0.0)),
        is_closed_only=True,
        lag_s=2.0,
        opens_after_s=3.5,
        lives_s=(16.0, 15.0, 21.0),
        calls=(Call(9.0, is_computed_late=True), Call(11.4, is_computed_late=True)),
        every_s=0.25,
    ),
    "a late past of which the client had the beginning": Play(
        "1s",
        24.2,
        60.0,
        (Join(28.3, bars=26, again_s=0.0, keeps_options=True), Join(11.1)),
        lag_s=2.0,
        opens_after_s=3.8,
        lives_s=(21.0, 7.0),
        calls=(Call(3.8, is_computed_late=True), Call(19.3, is_computed_late=True)),
        asks_s=(2.1, 0.7),
        every_s=0.25,
    ),
    "an answer that somebody else asked for long before": Play(
        "1s",
        55.1,
        60.0,
        (Join(34.0, again_s=0.0, leaves_first=True), Join(25.0, bars=39, closed_only=True)),
        is_closed_only=True,
        opens_after_s=2.6,
        lives_s=(21.0,),
        calls=(Call(16.1), Call(3.9, failure="limited"), Call(3.9, failure="limited")),
        every_s=0.25,
        linger_s=0.3,
    ),
    "open when a slow venue was asked, and long over when it answers": Play(
        "1m",
        50.2,
        60.0,
        (Join(26.9, closed_only=True), Join(7.7, bars=26), Join(23.7, since_s=229, closed_only=True)),
        opens_after_s=4.3,
        lives_s=(34.0,),
        calls=(Call(19.7), Call(3.1), Call(3.7, is_computed_late=True), Call(19.7, failure="broken")),
        asks_s=(3.4,),
        every_s=4.0,
    ),
    "leaving and subscribing again while the own throttle holds an update": Play(
        "1m", 5.0, 60.0, (Join(0.0, throttle_ms=10_000, again_s=15.0, leaves_first=True),), every_s=7.0
    ),
}


seconds = st.integers(0, 50).map(lambda tenths: tenths / 10)
calls = st.builds(
    Call,
    seconds | st.integers(30, 200).map(lambda tenths: tenths / 10),
    st.booleans(),
    st.sampled_from(["", "", "", "", "broken", "limited"]),
)
joins = st.builds(
    Join,
    at_s=st.integers(0, 400).map(lambda tenths: tenths / 10),
    bars=st.none() | st.integers(0, 40),
    since_s=st.none() | st.integers(0, 300),
    closed_only=st.booleans(),
    throttle_ms=st.sampled_from([0, 0, 700, 5000]),
    stays_s=st.sampled_from([1000.0, 1000.0, 5.0, 2.0]),
    again_s=st.none() | st.sampled_from([0.0, 3.0, 25.0]),
    keeps_options=st.booleans(),
    leaves_first=st.booleans(),
    resumes=st.booleans(),
)
plays = st.builds(
    Play,
    interval=st.sampled_from(["1s", "1m"]),
    begins_s=st.integers(0, 600).map(lambda tenths: tenths / 10),
    lasts_s=st.just(60.0),
    joins=st.lists(joins, min_size=1, max_size=3).map(tuple),
    is_closed_only=st.booleans(),
    lag_s=st.sampled_from([0.0, 0.0, 0.4, 2.0]),
    opens_after_s=seconds,
    lives_s=st.lists(st.integers(0, 40).map(float), max_size=3).map(tuple),
    calls=st.lists(calls, max_size=6).map(tuple),
    asks_s=st.lists(st.integers(0, 500).map(lambda tenths: tenths / 10), max_size=3).map(tuple),
    every_s=st.sampled_from([0.25, 2.0, 4.0]),
    mute_s=st.tuples(st.integers(0, 40).map(float), st.sampled_from([0.0, 0.0, 60.0])),
    broken_s=st.tuples(st.integers(0, 40).map(float), st.sampled_from([0.0, 0.0, 60.0])),
    lacks_s=st.just((0.0, 0.0)) | st.integers(0, 400).map(lambda tenths: (tenths / 10, tenths / 10 + 4)),
    lacks=st.sampled_from([ALL, (0, 3), (2, 4), (1, 9)]),
    spoils_s=st.just((0.0, 0.0)) | st.integers(0, 400).map(lambda tenths: (tenths / 10, tenths / 10 + 4)),
    linger_s=st.sampled_from([5.0, 0.3]),
    base=st.just(""),
    quiet=st.just(0),
    hours=st.just(""),
)
