"""What a soak needs: the truth, a checker of the candle contract, clients that come and go, and a fault schedule.

`StreamCheck` is pure: it is told what one client got of one stream, and lists what the contract forbids.
"""

import asyncio
import contextlib
import random
import time
from bisect import bisect_left, bisect_right
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol

import aiohttp
import orjson

from providers.sandbox.binance_klines import row
from providers.sandbox.intervals import FIXED_MS, end_time, open_time
from relay.client import Confirmed, Failure, Gap, RelayClient, Snapshot, Update
from tests.support.sandbox import BinanceStandIn
from tests.support.untidy import BAD_ROWS, REFUSALS, UntidyBinance, Values, refuse_rest

Message = dict[str, Any]

RECOVERY_S = 60.0
PRESENT_S = 15.0
"""A snapshot that says it is complete holds what closed longer ago than this."""
MESSAGES_BEFORE = 12
MESSAGES_AFTER = 4


class Truth(Protocol):
    """What really was, of one stream; no candle is longer than `length_s`."""

    length_s: int

    def times_between(self, after: int, before: int) -> Sequence[int]:
        """Return the open times of the candles that exist with `after` < time < `before`."""

    def ends_at(self, time: int) -> float:
        """Return when a candle's interval is over."""

    def final(self, time: int) -> Sequence[Values]:
        """Return the values that a closed candle may have: the true ones, then its revisions; none if it never was."""


class Found:
    """One violation, with when it was, the faults in force, and the messages around it."""

    def __init__(self, text: str, moment: str, before: Iterable[str]) -> None:
        self.text = text
        self.moment = moment
        self.messages = list(before)
        self.is_whole = False
        self._room = len(self.messages) + MESSAGES_AFTER

    def add(self, message: str) -> None:
        """Take down what came afterwards."""
        self.messages.append(message)
        self.is_whole = len(self.messages) >= self._room

    def __str__(self) -> str:
        return "\n    ".join([f"{self.text} ({self.moment})", *self.messages])


class StreamCheck:
    """Judges what one client gets of one stream, over all its connections; `violations` is empty if all is well.

    `moment` names the second and the faults in force, for the report.
    """

    def __init__(self, name: str, truth: Truth, moment: Callable[[], str] = str) -> None:
        self.name = name
        self.found: list[Found] = []
        self.closed: dict[int, Values] = {}
        self._from_before: set[int] = set()
        self.delivered = 0
        self.revised = 0
        self.gaps: list[tuple[int, int]] = []
        self.last: tuple[int, Values, bool] | None = None
        self._truth = truth
        self._moment = moment
        self._known_until: int | None = None
        self._owed_after: float | None = None
        self._newest = 0
        self._seq: int | None = None
        self._states: list[tuple[int, Values]] = []
        self._told: list[tuple[int, int]] = []
        self._recent: deque[str] = deque(maxlen=MESSAGES_BEFORE)

    @property
    def violations(self) -> list[str]:
        """What the contract forbids, in one sentence each."""
        return [found.text for found in self.found]

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
        self._seq = None
        self._told.clear()
        self._note(f"subscribed at {now:.2f}, since {since}")

    def take(self, message: Message, now: float = 0.0) -> None:
        """Judge one message about the stream, which came at `now`."""
        kind = message["type"]
        self._note(f"{now:.2f} {_short(message)}")
        if message.get("replaces"):
            self._begin_anew(message)
        self._check_seq(message.get("seq"))
        if kind == "snapshot":
            self._take_snapshot(message, now)
        elif kind == "gap":
            if message["from"] >= message["to"]:
                self._complain(f"an empty gap from {message['from']} to {message['to']}")
            self.gaps.append((message["from"], message["to"]))
            self._told.append((message["from"], message["to"]))
        elif kind == "price_update":
            candle = message["candle"]
            self._take_update(candle["time"], _values(candle), message["is_closed"], bool(message.get("revised")))

    def finish(self, now: float) -> None:
        """Demand every candle that was over by `now`."""
        if missing := self._missing(int(now) + 1, now):
            self._complain(f"{_listed(missing)} never came")
        if missing := self.unrepaired(now):
            self._complain(f"{_listed(missing)} told as a gap and never repaired")

    def refused(self, code: str) -> None:
        """Take that the relay refused the stream: it exists, and whoever lists it once has listed it."""
        if code == "unknown_symbol":
            self._complain("refused as unknown")

    def unrepaired(self, now: float) -> list[int]:
        """Return the candles that were over by `now`, told as gaps to this subscription, and did not come since."""
        return [
            at
            for start, end in self._told
            for at in self._truth.times_between(start - 1, end)
            if self._truth.ends_at(at) <= now and at not in self.closed and at > (self._owed_after or 0)
        ]

    def is_settled(self, now: float) -> bool:
        """Say whether everything that was over by `now` is there."""
        return not self._missing(int(now) + 1, now) and not self.unrepaired(now)

    # -- rules -------------------------------------------------------------------------------------

    def _note(self, message: str) -> None:
        for found in self.found:
            if not found.is_whole:
                found.add(message)
        self._recent.append(message)

    def _complain(self, text: str) -> None:
        self.found.append(Found(f"{self.name}: {text}", self._moment(), self._recent))

    def _check_seq(self, seq: int | None) -> None:
        if seq is None:
            return
        if self._seq is not None and seq <= self._seq:
            self._complain(f"seq {seq} after {self._seq}")
        self._seq = seq

    def _begin_anew(self, snapshot: Message) -> None:
        """Take a snapshot in the place of all that came, of which it may lack nothing."""
        times = {candle["time"] for candle in snapshot["candles"]}
        if lost := sorted(self.closed.keys() - times):
            self._complain(f"a snapshot replaces {_listed(lost)} by nothing")
        self.closed.clear()
        self._from_before.clear()
        self._newest, self._known_until, self._seq = 0, None, None

    def _take_snapshot(self, message: Message, now: float) -> None:
        times = [candle["time"] for candle in message["candles"]]
        if times != sorted(set(times)):
            self._complain("a snapshot is not in order")
        if not message["complete"]:
            # It says so itself: what is missing before its first candle is not silent.
            self._known_until, self._owed_after = None, None
        else:
            after = times[-1] if times else self._known_until
            if after is not None:
                between = self._truth.times_between(after, int(now))
                if old := [at for at in between if self._truth.ends_at(at) < now - PRESENT_S]:
                    self._complain(f"a snapshot says that it is complete and lacks {_listed(old)}")
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
        missing = self._missing(before)
        if missing:
            self._complain(f"{_listed(missing)} missing before {before}")
            self.gaps += [(at, at + 1) for at in missing]  # once is enough

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


def _listed(times: Sequence[int]) -> str:
    """Write open times, of many the ends."""
    if len(times) <= 4:
        return ", ".join(map(str, times))
    return f"{times[0]}, {times[1]} … {times[-1]} ({len(times)} candles)"


def _short(message: Message) -> str:
    """Write a message in one line; of a snapshot both ends."""
    if message["type"] == "snapshot" and len(message["candles"]) > 2:
        candles = message["candles"]
        told: Message = {**message, "candles": [candles[0], f"… {len(candles)} in all …", candles[-1]]}
    else:
        told = message
    return orjson.dumps({name: value for name, value in told.items() if name not in ("symbol", "interval")}).decode()


def _values(candle: Message) -> Values:
    return candle["open"], candle["high"], candle["low"], candle["close"], candle["volume"]


class MarketTruth:
    """The truth of one stream of the Binance stand-in; `also` is what it may say besides (`Untidy.also`)."""

    def __init__(
        self,
        stand_in: BinanceStandIn,
        symbol: str,
        interval: str,
        *,
        also: Mapping[tuple[str, int], Sequence[Values]] = MappingProxyType({}),
    ) -> None:
        self._also = also
        self._name = f"{symbol}@{interval}"
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
        return not self._market.exists(self._pair.symbol, opened, end_time(self._interval, opened))

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
        return [*self._final[time], *self.revisions.get(time, []), *self._also.get((self._name, time), [])]


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
    Habit({"bars": 30}),
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
        moment: Callable[[], str] = str,
    ) -> None:
        self.name = name
        self.url = url
        self.habit = habit
        self.checks = {stream: StreamCheck(f"{name} {stream}", truth, moment) for stream, truth in streams.items()}
        self.connections = 0
        self.incomplete = 0
        self.errors: Counter[str] = Counter()
        self.messages = 0
        self.stays = False
        self.options = habit.options
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
                # The relay may be gone while a request is written.
                with contextlib.suppress(TimeoutError, aiohttp.ClientError, OSError):
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
        requests: dict[str, Message] = {}
        for stream, check in self.checks.items():
            since = check.last_closed if self.habit.resumes else None
            request = {"action": "subscribe", "streams": [stream], **self.habit.options}
            if since is not None:
                request.pop("bars", None)
                request["since"] = since
            asked[stream] = since
            requests[stream] = request
            await socket.send_json(request)
        leaves_at = asyncio.get_running_loop().time() + stay_s
        if not self.stays:
            limit.reschedule(leaves_at)
        async for frame in socket:
            if frame.type is not aiohttp.WSMsgType.TEXT:
                break
            refused = self._take(orjson.loads(frame.data), asked)
            if refused in requests:
                await asyncio.sleep(0.5)
                await socket.send_json(requests[refused])
            limit.reschedule(None if self.stays else leaves_at)

    def _take(self, message: Message, asked: dict[str, int | None]) -> str | None:
        """Judge a message; return the name of a stream that is refused."""
        self.messages += 1
        kind = message["type"]
        stream = f"{message.get('symbol')}@{message.get('interval')}"
        if kind == "error":
            self.errors[message["code"]] += 1
            if stream in self.checks:
                self.checks[stream].refused(message["code"])
            return stream
        check = self.checks.get(stream)
        if check is None:
            return None
        if kind == "subscription":
            check.subscribed(self._now(), asked[stream])
        else:
            self.incomplete += kind == "snapshot" and not message["complete"]
            check.take(message, self._now())
        return None

    @property
    def violations(self) -> list[str]:
        return [violation for check in self.checks.values() for violation in check.violations]


class LibraryClient:
    """Judges what a client library tells its application, which sees one sequence through all reconnects."""

    def __init__(
        self, name: str, streams: Mapping[str, Truth], now: Callable[[], float], moment: Callable[[], str] = str
    ) -> None:
        self.checks = {stream: StreamCheck(f"{name} {stream}", truth, moment) for stream, truth in streams.items()}
        self.connections = 0
        self.incomplete = 0
        self.errors: Counter[str] = Counter()
        self.messages = 0
        self.stays = True
        self.options: Mapping[str, Any] = {}
        self.pause_s = 0.0
        self._confirmed: set[str] = set()
        self._now = now

    def confirm(self, stream: str) -> None:
        """Take that a stream is accepted; it is said again after each reconnect."""
        if stream not in self._confirmed:
            self._confirmed.add(stream)
            self.checks[stream].subscribed(self._now())

    def refuse(self, stream: str, code: str) -> None:
        """Take that the library gave a stream up."""
        self.errors[code] += 1
        self.checks[stream].refused(code)
        self._confirmed.discard(stream)

    async def rest(self) -> None:
        """Read nothing for `pause_s`, once."""
        pause_s, self.pause_s = self.pause_s, 0.0
        if pause_s:
            await asyncio.sleep(pause_s)

    def take(self, stream: str, message: Message) -> None:
        """Judge a message in its form on the wire."""
        self.messages += 1
        self.incomplete += message["type"] == "snapshot" and not message["complete"]
        # A library counts through epochs, in which `seq` begins anew.
        self.checks[stream].take({**message, "seq": None}, self._now())


class PythonClient(LibraryClient):
    """The Python library."""

    async def run(self, url: str | list[str], **options: Any) -> None:
        """Follow all streams until cancelled."""
        self.options = options
        async with RelayClient(url, waits_for_relay=True, backoff_s=(0.1, 1.0)) as client:
            await client.subscribe(*self.checks, **options)
            async for message in client:
                await self.rest()
                if isinstance(message, Confirmed):
                    self.confirm(str(message.key))
                elif isinstance(message, Failure) and message.key is not None and not message.is_retried:
                    self.refuse(str(message.key), message.code)
                    await asyncio.sleep(0.5)
                    await client.subscribe(message.key, **options)
                elif isinstance(message, Snapshot | Update | Gap):
                    self.take(str(message.key), dict(message.wire))


class JavaScriptClient(LibraryClient):
    """The JavaScript library, in a process of its own that `say` and `hear` reach."""

    async def run(
        self, say: Callable[[list[Any]], Awaitable[None]], hear: Callable[[], Awaitable[Message]], **options: Any
    ) -> None:
        """Follow all streams until cancelled."""
        self.options = options
        await say(["iterate"])
        await say(["subscribe", [*self.checks], options])
        while True:
            said = await hear()
            assert "fault" not in said, said
            message = said.get("message")
            if message is None:
                continue
            kind, stream = message["type"], message.get("stream")
            if kind == "confirmed":
                self.confirm(stream)
            elif kind == "failure" and stream is not None and not message["isRetried"]:
                self.refuse(stream, message["code"])
                await asyncio.sleep(0.5)
                await say(["subscribe", [stream], options])
            elif kind == "snapshot":
                fields = {"candles": message["candles"], "last_is_closed": message["lastIsClosed"]}
                self.take(stream, {"type": kind, **fields, "complete": message["isComplete"]})
            elif kind == "update":
                marks = {"is_closed": message["isClosed"], "revised": message["isRevised"]}
                self.take(stream, {"type": "price_update", "candle": message["candle"], **marks})
            elif kind == "gap":
                self.take(stream, {name: message[name] for name in ("type", "from", "to", "reason")})


Client = SoakClient | LibraryClient


# -- history ---------------------------------------------------------------------------------------


class HistoryCheck:
    """Asks for history as somebody who looks at charts does, and judges the answers."""

    def __init__(
        self,
        truths: Mapping[str, "MarketTruth"],
        now: Callable[[], float],
        dice: random.Random,
        moment: Callable[[], str],
    ) -> None:
        self.found: list[Found] = []
        self.answers: Counter[int] = Counter()
        self._truths = truths
        self._now = now
        self._dice = dice
        self._moment = moment

    async def run(self, url: str) -> None:
        """Ask until cancelled."""
        async with aiohttp.ClientSession() as session:
            while True:
                stream = self._dice.choice(sorted(self._truths))
                query: dict[str, int] = {"limit": self._dice.choice([1, 2, 50, 500])}
                if self._dice.random() < 0.5:
                    query["start_time"] = int(self._now()) - self._dice.randint(0, 600)
                if self._dice.random() < 0.3:
                    query["end_time"] = int(self._now()) - self._dice.randint(0, 20)
                if query.get("start_time", 0) <= query.get("end_time", 1 << 40):
                    with contextlib.suppress(aiohttp.ClientError, OSError):
                        await self.ask(session, url, stream, query)
                await asyncio.sleep(self._dice.uniform(0, 0.3))

    async def ask(
        self, session: aiohttp.ClientSession, url: str, stream: str, query: Mapping[str, int]
    ) -> dict[int, Values]:
        """Judge one answer; return its closed candles."""
        symbol, _, interval = stream.partition("@")
        began = self._now()
        address = f"{url}/api/v1/market-data/history"
        async with session.get(address, params={"symbol": symbol, "interval": interval, **query}) as answer:
            self.answers[answer.status] += 1
            if answer.status != 200:
                return {}
            body = orjson.loads(await answer.read())
        candles = body["candles"]
        is_closed = [True] * (len(candles) - 1) + [body["last_is_closed"]] * bool(candles)
        closed = {c["time"]: _values(c) for c, closed in zip(candles, is_closed, strict=True) if closed}
        asked = f"{stream} {dict(query)}, asked at {began:.2f}, answered at {self._now():.2f}"
        tail = [orjson.dumps(candle).decode() for candle in candles[-3:]] + [f"last_is_closed {body['last_is_closed']}"]
        times = [candle["time"] for candle in candles]
        wrong = []
        if times != sorted(set(times)):
            wrong.append("is not in order")
        for at, values in closed.items():
            final = self._truths[stream].final(at)
            if not final:
                wrong.append(f"has {at} closed, which is not over or never was")
            elif values not in final:
                wrong.append(f"has {at} closed as {values}, in truth {final[0]}")
        if body.get("complete", True) and (lacking := self._lacking(stream, query, times, began)):
            wrong.append(f"does not say that it lacks {_listed(lacking)}")
        self.found += [Found(f"history {asked} {text}", self._moment(), tail) for text in wrong]
        return closed

    def _lacking(self, stream: str, query: Mapping[str, int], times: Sequence[int], now: float) -> list[int]:
        """Return which candles are missing between those of an answer, or after the last and over for a while."""
        truth, start = self._truths[stream], query.get("start_time")
        if not times and start is None:
            return []
        is_full = len(times) >= query["limit"]
        end = times[-1] if is_full and start is not None else min(query.get("end_time", int(now)), int(now))
        after, last = (times[0], times[-1]) if times else (start or 0, 0)
        return [
            at
            for at in truth.times_between(after, end + 1)
            if at not in times and (at < last or truth.ends_at(at) < now - PRESENT_S)
        ]

    async def finish(self, url: str, began: float, ended: float, timeout_s: float = 60.0) -> None:
        """Demand, with the exchange well again, everything that was over by `ended`, of each stream."""
        deadline = time.monotonic() + timeout_s
        async with aiohttp.ClientSession() as session:
            for stream, truth in self._truths.items():
                wanted = [at for at in truth.times_between(int(began), int(ended)) if truth.ends_at(at) <= ended]
                query = {"start_time": int(began), "end_time": int(ended), "limit": 5000}
                missing = wanted
                while missing:
                    closed = await self.ask(session, url, stream, query)
                    missing = [at for at in wanted if at not in closed]
                    if not missing or time.monotonic() > deadline:
                        break
                    await asyncio.sleep(1)
                if missing:
                    text = f"history {stream} lacks {len(missing)} candles at the end: {missing[:20]}"
                    self.found.append(Found(text, self._moment(), ()))


# -- faults ----------------------------------------------------------------------------------------


USUAL = (
    *("drop", "refuse", "stop_listening", "mute_all", "mute_some", "half_open", "rest_down", "rest_nonsense"),
    *("rest_slow", "cut_early", "lost_closings", "late_frames", "shutdown", "garbage", "outage", "revisions", "slow"),
)
"""Kinds of faults that happen to every relay; `--soak-all` draws from all there are."""


class Faulter:
    """Makes a Binance stand-in misbehave by a seeded schedule, one fault after the other, of the kinds in `only`.

    `not_live` tells which streams are not live just now.
    """

    def __init__(
        self,
        stand_in: UntidyBinance,
        truths: dict[str, MarketTruth],
        dice: random.Random,
        not_live: Callable[[], Awaitable[list[str]]],
        only: Collection[str] | None = None,
    ) -> None:
        self.injected: Counter[str] = Counter()
        self.longest_recovery_s = 0.0
        self.found: list[Found] = []
        self.in_force: list[str] = []
        self._began = time.monotonic()
        self._not_live = not_live
        self._stand_in = stand_in
        self._untidy = stand_in.untidy
        self._truths = truths
        self._dice = dice
        self._habits: dict[str, Callable[[], Any]] = self._named("_habit_")
        self._strokes = self._named("_stroke_")
        self._faults = self._named("_fault_")
        # A ban of unknown length is waited out for minutes, as it should be.
        refusals = [name for name in REFUSALS if name != "418 without Retry-After"]
        self._faults |= {f"refusal: {name}": partial(self._refused, name) for name in refusals}
        self._faults |= {f"bad rows: {kind}": partial(self._spoilt, kind) for kind in BAD_ROWS}
        self._is_all = only is None
        for kinds in (self._habits, self._strokes, self._faults) if only is not None else ():
            for name in kinds.keys() - set(only or ()):
                del kinds[name]

    def _named(self, prefix: str) -> dict[str, Callable[[], Any]]:
        return {name.removeprefix(prefix): getattr(self, name) for name in dir(self) if name.startswith(prefix)}

    def revise(self) -> None:
        """Let the exchange revise some candles that closed not long ago."""
        self._stroke_revisions()

    def moment(self) -> str:
        """Name the second of the run and the faults in force."""
        return f"second {time.monotonic() - self._began:.1f}, {', '.join(self.in_force) or 'no fault'}"

    async def run(self, until: float) -> None:
        """Inject faults until the monotonic time `until`: one that lasts after the other, each with single strokes.

        Meanwhile the exchange has bad habits, others every few faults. Every third time the relay may recover before
        the next.
        """
        faults: list[str] = []
        strokes: list[str] = []
        habits: list[str] = []
        chosen: list[str] = []
        while time.monotonic() < until:
            if not chosen or self._dice.random() < 0.3:
                chosen = [self._next(habits, self._habits) for _ in range(self._dice.randint(0, 3))]
            stroke = self._next(strokes, self._strokes)
            fault = self._next(faults, self._faults)
            self.in_force = [*dict.fromkeys(chosen), stroke, fault]
            for habit in chosen:
                self._habits[habit]()
            self._strokes[stroke]()
            try:
                await self._faults[fault]()
                self._strokes[self._next(strokes, self._strokes)]()
            finally:
                self._behave()
            if self._dice.random() < 0.33:
                await self._recovery(fault)
            await asyncio.sleep(self._dice.uniform(0, 0.8))
        await self._recovery("the end")

    def _behave(self) -> None:
        self._stand_in.faults.clear()
        self._untidy.clear()
        self.in_force = [f"after {name}" for name in self.in_force if not name.startswith("after ")]

    async def _recovery(self, fault: str) -> None:
        began = time.monotonic()
        left: list[str] = []
        while time.monotonic() - began < RECOVERY_S:
            # Whoever has no budget says so, and says when it frees.
            left = [stream for stream in await self._not_live() if not stream.endswith(" throttled")]
            if not left:
                break
            await asyncio.sleep(0.05)
        else:
            text = f"not live again {RECOVERY_S:.0f} s after {fault}: {left[:10]}"
            self.found.append(Found(text, self.moment(), ()))
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
        # A refused key and a limit of unknown length are waited out for a minute and more, as they should be.
        self._stand_in.faults.refuse(
            self._dice.choice([503, 403, 451, 404, *([401, 418, 429] if self._is_all else ())])
        )
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

    async def _refused(self, name: str) -> None:
        refuse_rest(self._stand_in.faults, name, times=self._dice.choice([1, 2, None]))
        self._need_history()
        await self._last(0.5, 2)

    async def _spoilt(self, kind: str) -> None:
        self._untidy.spoil_rows(kind)
        self._need_history()
        await self._last(0.5, 2)

    def _need_history(self) -> None:
        if self._dice.random() < 0.5:
            self._stand_in.faults.drop()
        else:
            self._stand_in.faults.lose_closings(times=self._dice.randint(1, 20))

    async def _fault_empty_answers(self) -> None:
        self._untidy.answer_empty()
        self._need_history()
        await self._last(0.5, 2)

    async def _fault_busy(self) -> None:
        self._stand_in.faults.refuse_subscriptions()
        self._stand_in.faults.drop()
        await self._last(2.5, 4)

    async def _fault_all_break(self) -> None:
        self._untidy.list_as("BREAK")
        self._stand_in.faults.drop()
        await self._last(1, 3)

    async def _fault_short_list(self) -> None:
        self._untidy.list_only("LRCBTC")
        await self._last(1, 3)

    async def _fault_wrong_stamps(self) -> None:
        symbol, _ = parts_of(self._some(1)[0])
        self._untidy.stamp(symbol, self._dice.choice([7200, -7200, 30, -30, 86_400 * 30]))
        await self._last(4, 7)
        if self._dice.random() < 0.5:
            self._stand_in.faults.drop()

    async def _fault_somebody_else(self) -> None:
        symbol, _ = parts_of(self._some(1)[0])
        self._untidy.answer_for({symbol: "ETHUSDT" if symbol != "ETHUSDT" else "BTCUSDT"})
        await self._last(1, 3)

    async def _fault_other_interval(self) -> None:
        self._untidy.answer_for({}, "5m")
        await self._last(1, 2)

    async def _fault_closings_differ(self) -> None:
        self._untidy.close_otherwise(0.3)
        await self._last(1, 3)

    async def _fault_rest_nonsense(self) -> None:
        faults = self._stand_in.faults
        faults.answer_rest(200, b"<html>", times=2)
        faults.answer_rest(200, b'[["x"]]', times=2)
        faults.answer_rest(200, truncated=True, times=2)
        faults.drop()
        await self._last(0.5, 1.5)

    async def _fault_rest_slow(self) -> None:
        self._stand_in.faults.delay_rest(0, 5, computed="either")
        self._stand_in.faults.drop()
        await self._last(2, 6)

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

    # What the exchange does all the while; nothing of it changes the truth.

    def _habit_slow(self) -> None:
        self._stand_in.faults.delay_rest(0, self._dice.choice([0.8, 2.0, 5.0]), computed="either")

    def _habit_slow_once_computed(self) -> None:
        self._stand_in.faults.delay_rest(0.5, 2.0, computed="at_once")

    def _habit_closed_only(self) -> None:
        self._untidy.list_closed_only()

    def _habit_lagging(self) -> None:
        self._untidy.list_closed_only(self._dice.uniform(0.5, 5))

    def _habit_late_closings(self) -> None:
        self._untidy.close_late(0.1, 2.5)

    def _habit_repeats(self) -> None:
        self._untidy.repeat(0.3)

    def _habit_disorder(self) -> None:
        self._untidy.disorder(0.2)

    def _stroke_outage(self) -> None:
        """Let a market stand still for some seconds that have not come yet: their candles never were."""
        now = self._stand_in.clock.now()
        for name in self._some(3):
            start = int(now) + 2 + self._dice.random()
            self._stand_in.hide(parts_of(name)[0], start, start + self._dice.uniform(1, 4))

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


def parts_of(stream: str) -> tuple[str, str]:
    """Return the symbol, as its exchange calls it, and the interval of a stream."""
    symbol, _, interval = stream.partition("@")
    return symbol.rpartition(":")[2], interval


def _wire_name(stream: str) -> str:
    symbol, interval = parts_of(stream)
    return f"{symbol.lower()}@kline_{interval}"
