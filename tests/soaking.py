"""What a soak needs: the truth, a checker of the candle contract, clients that come and go, and a fault schedule.

`StreamCheck` is pure: it is told what one client got of one stream, and lists what the contract forbids.
"""

import asyncio
import contextlib
import random
import time
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import aiohttp
import orjson

from providers.sandbox import BinanceStandIn
from providers.sandbox.binance_rows import row
from providers.sandbox.intervals import FIXED_MS, end_time, open_time

Values = tuple[float, float, float, float, float]
Message = dict[str, Any]


class Truth(Protocol):
    """What really was, of one stream; no candle is longer than `length_s`."""

    length_s: int

    def times_between(self, after: int, before: int) -> Sequence[int]:
        """Return the open times of the candles that exist with `after` < time < `before`."""

    def ends_at(self, time: int) -> float:
        """Return when a candle's interval is over."""

    def final(self, time: int) -> Sequence[Values]:
        """Return the values that a closed candle may have: the true ones, then its revisions; none if it never was."""


class StreamCheck:
    """Judges what one client gets of one stream, over all its connections; `violations` is empty if all is well."""

    def __init__(self, name: str, truth: Truth) -> None:
        self.name = name
        self.violations: list[str] = []
        self.closed: dict[int, Values] = {}
        self._from_before: set[int] = set()
        self.delivered = 0
        self.revised = 0
        self.gaps: list[tuple[int, int]] = []
        self.last: tuple[int, Values, bool] | None = None
        self._truth = truth
        self._known_until: int | None = None
        self._owed_after: float | None = None
        self._newest = 0
        self._states: list[tuple[int, Values]] = []

    @property
    def last_closed(self) -> int | None:
        """The open time up to which everything is there: what a client resumes from."""
        return self._known_until

    def subscribed(self, now: float, since: int | None = None) -> None:
        """Begin a subscription that was confirmed at `now`; with `since` it goes on where the last one ended."""
        if since is None:
            self.closed.clear()
        # A candle that was left out as a gap may be there when the client asks for everything after `since`.
        self._newest = 0 if since is None else since
        self._from_before = set(self.closed)
        self._known_until = since
        self._owed_after = now if since is None else None

    def take(self, message: Message) -> None:
        """Judge one message about the stream."""
        kind = message["type"]
        if kind == "snapshot":
            self._take_snapshot(message)
        elif kind == "gap":
            if message["from"] >= message["to"]:
                self._complain(f"an empty gap from {message['from']} to {message['to']}")
            self.gaps.append((message["from"], message["to"]))
        elif kind == "price_update":
            candle = message["candle"]
            self._take_update(candle["time"], _values(candle), message["is_closed"], bool(message.get("revised")))

    def finish(self, now: float) -> None:
        """Demand every candle that was over by `now`."""
        for at in self._missing(int(now) + 1, now):
            self._complain(f"{at} never came")

    def is_settled(self, now: float) -> bool:
        """Say whether everything that was over by `now` is there."""
        return not self._missing(int(now) + 1, now)

    # -- rules -------------------------------------------------------------------------------------

    def _complain(self, text: str) -> None:
        self.violations.append(f"{self.name}: {text}")

    def _take_snapshot(self, message: Message) -> None:
        times = [candle["time"] for candle in message["candles"]]
        if times != sorted(set(times)):
            self._complain("a snapshot is not in order")
        if not message["complete"]:
            # It says so itself: what is missing before its first candle is not silent.
            self._known_until, self._owed_after = None, None
        for number, candle in enumerate(message["candles"]):
            is_closed = message["last_is_closed"] or number < len(times) - 1
            self._take_update(candle["time"], _values(candle), is_closed, False)
            if is_closed:
                self._from_before.add(candle["time"])

    def _take_update(self, at: int, values: Values, is_closed: bool, is_revised: bool) -> None:
        if is_closed:
            self._check_values(at, values)
        if is_revised:
            self.revised += 1
            if not is_closed:
                self._complain(f"{at} is revised but open")
            # A snapshot comes from history, which may know a revision before the stream tells it to everybody; and
            # a revision told between two connections was missed, so that its undoing looks like nothing.
            if self.closed.get(at) == values and at not in self._from_before:
                self._complain(f"{at} is revised to what it was")
            self.closed[at] = values
            return
        if at < self._newest:
            self._complain(f"time goes back from {self._newest} to {at}")
        self._newest = max(self._newest, at)
        if self._known_until is not None and at <= self._known_until:
            self._complain(f"{at} {'closed' if is_closed else 'open'} after it was closed")
            return
        self._check_hole(at)
        self.last = (at, values, is_closed)
        if not is_closed:
            # Judged when the truth is known.
            self._states.append((at, values))
        else:
            self.delivered += 1
            for state in self._states:
                if state[0] == at and self._truth.final(at):
                    self._check_open(*state)
            self._states.clear()
            self.closed[at] = values
            self._known_until = at
            self._owed_after = None

    def _check_hole(self, before: int) -> None:
        """Complain of candles that closed between the last closed one and `before` but never came."""
        for at in self._missing(before):
            self._complain(f"{at} is missing before {before}")
            self.gaps.append((at, at + 1))  # once is enough

    def _missing(self, before: int, ended_by: float = float("inf")) -> list[int]:
        after, owed_after = self._known_until, 0.0
        if after is None:
            if self._owed_after is None:
                return []
            owed_after = self._owed_after
            after = int(owed_after) - self._truth.length_s - 1
        return [
            at
            for at in self._truth.times_between(after, before)
            if owed_after < self._truth.ends_at(at) <= ended_by
            and at not in self.closed
            and not any(start <= at < end for start, end in self.gaps)
        ]

    def _check_values(self, at: int, values: Values) -> None:
        final = self._truth.final(at)
        if not final:
            self._complain(f"{at} never was")
        elif values not in final:
            self._complain(f"{at} closed as {values}, in truth {final[0]}")

    def _check_open(self, at: int, values: Values) -> None:
        if not values[4]:
            return  # before its first trade a candle stands at the price before
        opened, high, low, _, volume = self._truth.final(at)[0]
        if values[0] != opened or values[1] > high or values[2] < low or values[4] > volume:
            self._complain(f"{at} open as {values}, in truth {opened, high, low, volume}")


def _values(candle: Message) -> Values:
    return candle["open"], candle["high"], candle["low"], candle["close"], candle["volume"]


class MarketTruth:
    """The truth of one stream of the Binance stand-in."""

    def __init__(self, stand_in: BinanceStandIn, symbol: str, interval: str) -> None:
        self._market = stand_in.market
        self._clock = stand_in.clock
        self._pair = stand_in.market.pair(symbol)
        self._interval = interval
        self.length_s = FIXED_MS[interval] // 1000
        self._final: dict[int, list[Values]] = {}
        self.revisions: dict[int, list[Values]] = {}

    def _open(self, at_ms: int) -> int:
        return open_time(self._interval, at_ms, self._pair.listed_day)

    def times_between(self, after: int, before: int) -> Sequence[int]:
        opened = self._open((after + 1) * 1000 - 1)
        times = []
        while (opened := end_time(self._interval, opened)) < before * 1000:
            if opened > after * 1000 and not self._is_hidden(opened):
                times.append(opened // 1000)
        return times

    def _is_hidden(self, opened: int) -> bool:
        return self._market.is_hidden(self._pair.symbol, opened, end_time(self._interval, opened))

    def exists(self, at_ms: int) -> bool:
        """Say whether there is a candle at that moment."""
        return not self._is_hidden(self._open(at_ms))

    def ends_at(self, time: int) -> float:
        return end_time(self._interval, time * 1000) / 1000

    def final(self, time: int) -> Sequence[Values]:
        opened = time * 1000
        if self._open(opened) != opened or self._is_hidden(opened) or self.ends_at(time) > self._clock.now():
            return []
        if time not in self._final:
            part = self._market.candle(self._pair.symbol, self._interval, opened)
            cells = row(self._pair, part, part.end - 1)
            o, h, low, c, v = (float(str(cell)) for cell in cells[1:6])
            self._final[time] = [(o, h, low, c, v)]
        return [*self._final[time], *self.revisions.get(time, [])]


class ListedTruth:
    """A truth that is written down: minute candles by open time."""

    length_s = 60

    def __init__(self, candles: dict[int, Values]) -> None:
        self._candles = candles
        self._times = sorted(candles)

    def times_between(self, after: int, before: int) -> Sequence[int]:
        return self._times[bisect_right(self._times, after) : bisect_left(self._times, before)]

    def ends_at(self, time: int) -> float:
        return time + self.length_s

    def final(self, time: int) -> Sequence[Values]:
        return [self._candles[time]] if time in self._candles else []


# -- clients ---------------------------------------------------------------------------------------


class Habit(NamedTuple):
    """How a client subscribes, and whether it resumes where it was when it comes back."""

    options: dict[str, Any]
    resumes: bool = False


HABITS = (
    Habit({}, resumes=True),
    Habit({"bars": 50}, resumes=True),
    Habit({"throttle_ms": 300}, resumes=True),
    Habit({"closed_only": True}, resumes=True),
    Habit({"bars": 20, "throttle_ms": 700}, resumes=True),
    Habit({}),
    Habit({"bars": 300}),
    Habit({"bars": 1}),
    Habit({"bars": 10, "closed_only": True}, resumes=True),
    Habit({"bars": 5000}, resumes=True),
)


class SoakClient:
    """A client that comes and goes, and checks everything it gets."""

    def __init__(
        self,
        name: str,
        url: str,
        habit: Habit,
        streams: Mapping[str, Truth],
        now: Callable[[], float],
        dice: random.Random,
    ) -> None:
        self.name = name
        self.url = url
        self.habit = habit
        self.checks = {stream: StreamCheck(f"{name} {stream}", truth) for stream, truth in streams.items()}
        self.connections = 0
        self.incomplete = 0
        self.errors: Counter[str] = Counter()
        self.messages = 0
        self.stays = False
        self._now = now
        self._dice = dice
        self._session: aiohttp.ClientSession | None = None

    async def run(self) -> None:
        """Connect, stay a while, leave or vanish, come back; until cancelled."""
        async with aiohttp.ClientSession() as session:
            while True:
                try:
                    async with asyncio.timeout(5):
                        socket = await session.ws_connect(f"{self.url}/api/v1/market-data/ws", max_msg_size=0)
                except (aiohttp.ClientError, OSError, TimeoutError):
                    await asyncio.sleep(0.2)
                    continue
                self.connections += 1
                stay_s = self._dice.uniform(1.5, 8)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(None) as limit:
                        await self._use(socket, limit, stay_s)
                if self._dice.random() < 0.5:
                    # Vanish: no closing handshake.
                    transport = socket.get_extra_info("transport")
                    if transport is not None:
                        transport.abort()
                await socket.close()
                await asyncio.sleep(self._dice.uniform(0, 1))

    async def _use(self, socket: aiohttp.ClientWebSocketResponse, limit: asyncio.Timeout, stay_s: float) -> None:
        asked: dict[str, int | None] = {}
        for stream, check in self.checks.items():
            since = check.last_closed if self.habit.resumes else None
            request = {"action": "subscribe", "streams": [stream], **self.habit.options}
            if since is not None:
                request.pop("bars", None)
                request["since"] = since
            asked[stream] = since
            await socket.send_json(request)
        leaves_at = asyncio.get_running_loop().time() + stay_s
        if not self.stays:
            limit.reschedule(leaves_at)
        async for frame in socket:
            if frame.type is not aiohttp.WSMsgType.TEXT:
                break
            self._take(orjson.loads(frame.data), asked)
            limit.reschedule(None if self.stays else leaves_at)

    def _take(self, message: Message, asked: dict[str, int | None]) -> None:
        self.messages += 1
        kind = message["type"]
        if kind == "error":
            self.errors[message["code"]] += 1
            return
        stream = f"{message.get('symbol')}@{message.get('interval')}"
        check = self.checks.get(stream)
        if check is None:
            return
        if kind == "subscription":
            check.subscribed(self._now(), asked[stream])
        else:
            self.incomplete += kind == "snapshot" and not message["complete"]
            check.take(message)

    @property
    def violations(self) -> list[str]:
        return [violation for check in self.checks.values() for violation in check.violations]


# -- faults ----------------------------------------------------------------------------------------


class Faulter:
    """Makes a Binance stand-in misbehave by a seeded schedule, one fault after the other."""

    def __init__(
        self,
        stand_in: BinanceStandIn,
        truths: dict[str, MarketTruth],
        dice: random.Random,
        is_live: Callable[[], bool],
    ) -> None:
        self.injected: Counter[str] = Counter()
        self.longest_recovery_s = 0.0
        self._is_live = is_live
        self._stand_in = stand_in
        self._truths = truths
        self._dice = dice
        self._faults = self._named("_fault_")
        self._strokes = self._named("_stroke_")

    def _named(self, prefix: str) -> dict[str, Callable[[], Any]]:
        return {name.removeprefix(prefix): getattr(self, name) for name in dir(self) if name.startswith(prefix)}

    async def run(self, until: float) -> None:
        """Inject faults until the monotonic time `until`: one that lasts after the other, each with single strokes.

        Every other time the relay gets no time to recover before the next.
        """
        faults: list[str] = []
        strokes: list[str] = []
        while time.monotonic() < until:
            stroke = self._next(strokes, self._strokes)
            self._strokes[stroke]()
            fault = self._next(faults, self._faults)
            try:
                await self._faults[fault]()
                self._strokes[self._next(strokes, self._strokes)]()
            finally:
                self._stand_in.faults.clear()
            if self._dice.random() < 0.5:
                await self._recovery()
            await asyncio.sleep(self._dice.uniform(0, 0.8))
        await self._recovery()

    async def _recovery(self) -> None:
        began = time.monotonic()
        async with asyncio.timeout(60):
            while not self._is_live():  # noqa: ASYNC110  the state of all streams has no single event
                await asyncio.sleep(0.01)
        self.longest_recovery_s = max(self.longest_recovery_s, time.monotonic() - began)

    def _next(self, left: list[str], all_of: Mapping[str, object]) -> str:
        """Draw a fault; none comes twice before all came once."""
        if not left:
            left += all_of
            self._dice.shuffle(left)
        name = left.pop()
        self.injected[name] += 1
        return name

    def _some(self, most: int = 6) -> list[str]:
        names = sorted(self._truths)
        return self._dice.sample(names, min(len(names), self._dice.randint(1, most)))

    async def _last(self, least: float, most: float) -> None:
        await asyncio.sleep(self._dice.uniform(least, most))

    async def _fault_drop(self) -> None:
        self._stand_in.faults.drop(self._dice.choice([None, None, 1001, 1008]))

    async def _fault_refuse(self) -> None:
        self._stand_in.faults.refuse(self._dice.choice([503, 403, 451]))
        self._stand_in.faults.drop()
        await self._last(0.5, 1.5)

    async def _fault_stop_listening(self) -> None:
        self._stand_in.faults.stop_listening(rest=self._dice.random() < 0.5)
        self._stand_in.faults.drop()
        await self._last(0.5, 1.5)

    async def _fault_mute_all(self) -> None:
        self._stand_in.faults.mute()
        await self._last(1, 2.5)

    async def _fault_mute_some(self) -> None:
        self._stand_in.faults.mute(*(_wire_name(name) for name in self._some()))
        await self._last(1, 2.5)

    async def _fault_half_open(self) -> None:
        self._stand_in.faults.freeze()
        await self._last(1, 2.5)
        if self._dice.random() < 0.5:
            self._stand_in.faults.drop()

    def _stroke_garbage(self) -> None:
        self._stand_in.faults.send_garbage()

    async def _fault_rest_down(self) -> None:
        self._stand_in.faults.answer_rest(self._dice.choice([500, 503]), b"{}")
        if self._dice.random() < 0.5:
            self._stand_in.faults.drop()
        else:
            self._stand_in.faults.lose_closings(times=20)
        await self._last(1.5, 3)

    async def _fault_rest_429(self) -> None:
        self._stand_in.faults.answer_rest(429, b"{}", retry_after=1, times=2)
        self._stand_in.faults.drop()
        await self._last(0.5, 1.5)

    async def _fault_rest_418(self) -> None:
        self._stand_in.faults.answer_rest(418, b"{}", retry_after=2, times=1)
        self._stand_in.faults.lose_closings(times=5)
        await self._last(1, 2)

    async def _fault_rest_nonsense(self) -> None:
        faults = self._stand_in.faults
        faults.answer_rest(200, b"<html>", times=2)
        faults.answer_rest(200, b'[["x"]]', times=2)
        faults.answer_rest(200, truncated=True, times=2)
        faults.drop()
        await self._last(0.5, 1.5)

    async def _fault_rest_slow(self) -> None:
        self._stand_in.faults.delay_rest(self._dice.uniform(0.5, 2))
        self._stand_in.faults.drop()
        await self._last(1, 2.5)

    async def _fault_cut_early(self) -> None:
        self._stand_in.faults.cut_after(self._dice.uniform(0.2, 0.8))
        await self._last(0.5, 2)

    async def _fault_lost_closings(self) -> None:
        self._stand_in.faults.lose_closings(times=self._dice.randint(1, 30))
        await self._last(1, 2.5)

    async def _fault_late_frames(self) -> None:
        self._stand_in.faults.delay_frames(self._dice.uniform(0.3, 1.2))
        await self._last(1, 2)

    async def _fault_shutdown(self) -> None:
        self._stand_in.announce_shutdown(self._dice.uniform(0.3, 1.5))
        await self._last(0.1, 1.5)

    def _stroke_outage(self) -> None:
        """Let a market stand still for some seconds that have not come yet: their candles never were."""
        now = self._stand_in.clock.now()
        for name in self._some(3):
            start = int(now) + 2 + self._dice.random()
            self._stand_in.hide(name.partition("@")[0], start, start + self._dice.uniform(1, 4))

    def _stroke_repeated_events(self) -> None:
        for name, at in self._closed_candles():
            self._inject(name, t=at * 1000, E=(at + 1) * 1000 + 5)

    def _stroke_late_events(self) -> None:
        """Send old states of candles that are closed, and old stamps for the open one."""
        for name, at in self._closed_candles():
            self._inject(name, t=at * 1000, x=False, E=at * 1000 + 500)
        for name in self._some():
            if self._truths[name].exists(self._stand_in.now_ms()):
                self._inject(name, E=self._stand_in.now_ms() - 3000)

    def _stroke_revisions(self) -> None:
        for name, at in self._closed_candles():
            truth = self._truths[name]
            if final := truth.final(at):
                opened, high, low, close, volume = final[0]
                revised = low if close != low else high
                truth.revisions.setdefault(at, []).append((opened, high, low, revised, volume))
                self._inject(name, t=at * 1000, c=f"{revised:.8f}")

    def _closed_candles(self) -> Iterable[tuple[str, int]]:
        now = int(self._stand_in.clock.now())
        for name in self._some():
            ended = [at for at in self._truths[name].times_between(now - 200, now - 3) if self._has_ended(name, at)]
            if ended:
                yield name, self._dice.choice(ended[-30:])

    def _has_ended(self, name: str, at: int) -> bool:
        return self._truths[name].ends_at(at) < self._stand_in.clock.now() - 1

    def _inject(self, name: str, **fields: object) -> None:
        # Nobody may have the stream just now.
        with contextlib.suppress(KeyError):
            self._stand_in.inject(_wire_name(name), **fields)


def _wire_name(stream: str) -> str:
    symbol, _, interval = stream.partition("@")
    return f"{symbol.lower()}@kline_{interval}"
