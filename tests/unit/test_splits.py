"""After a split is reported nothing has a price from before it, whatever was under way. No sockets, no real time."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Any, NamedTuple

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from relay import (
    API_VERSION,
    Candle,
    PriceUpdate,
    ProviderInfo,
    ProviderUnavailable,
    RateLimited,
    Watchlist,
    hookimpl,
)
from relay.core.clock import Clock
from relay.core.errors import ProviderError, StoreError
from relay.core.model import StreamKey
from relay.core.past_change import PastChange
from relay.history.live_edge import live_of
from relay.history.requests import HistoryRequest
from relay.instruments.directory import Target
from relay.protocol.client_requests import PastWanted, Request, SubscribeOptions
from relay.storage.chunks import decode
from relay.streams.subscriptions import Stream
from tests.support.examples import examples
from tests.support.played_relay import START, ClientWire, PlayedRelay, clock_of, played_relay
from tests.support.virtual_time import VirtualLoop, run

KEY = StreamKey("ACME", "1m")
OLD = 4000.0
"""Prices from before the split are this or more, and those from after it are less."""
LAST_S = 200.0


class Joiner(NamedTuple):
    """One client: when it asks, and for what."""

    at_s: float
    bars: int | None = None
    since_s: int | None = None
    closed_only: bool = False
    throttle_ms: int = 0


class Play(NamedTuple):
    """What opened before the whole minute `split_s` is a fourth of what it was from `report_after_s` later on.

    The venue says so then, and for `floods_s` goes on saying it. Its history refuses for `refuses_s`, has no budget for
    `limits_s`, and then with `limits_others` none for every other call. With `refuses_most` it refuses all but
    the first answers after the split. Its second server has old prices for `lags_s`.
    Calls take the times of `takes_s` in turn. `asks_s` are when somebody asks for history.
    """

    joiners: tuple[Joiner, ...]
    asks_s: tuple[float, ...] = ()
    takes_s: tuple[float, ...] = (0.2,)
    split_s: int = 120
    report_after_s: float = 0.5
    refuses_s: float = 0.0
    refuses_most: bool = False
    limits_s: float = 0.0
    limits_others: bool = False
    lags_s: float = 0.0
    settle_s: float = 0.0
    reports: int = 1
    floods_s: float = 0.0
    lasts_s: float = 200.0
    history_has_open: bool = True


def base(time: int) -> float:
    return 1000.0 + time // 60 % 900


class Exchange:
    """A share that is split once; its feed tells it when the play says."""

    def __init__(self, play: Play, clock: Clock) -> None:
        self.play = play
        self.now = clock.wall
        self.split_at = START + play.split_s
        self.reported_at = self.split_at + play.report_after_s
        self.is_calm = False
        self._takes = list(play.takes_s)
        self._calls = 0

    def price(self, time: int, *, is_late: bool = False) -> float:
        adjusted_at = self.reported_at + (self.play.lags_s if is_late else 0.0)
        return base(time) * (4.0 if time < self.split_at and self.now() < adjusted_at else 1.0)

    def candle(self, time: int, *, is_late: bool = False) -> Candle:
        price = self.price(time, is_late=is_late)
        return Candle(time, price, price, price, price, min(60.0, self.now() - time) // 10)

    @hookimpl
    def relay_provider(self) -> ProviderInfo:
        return ProviderInfo(
            "venue", API_VERSION, "Venue", ("demo",), ("1m", "5m"), close_grace_s=2.0,
            history_has_open=self.play.history_has_open, candles_per_call=200,
        )  # fmt: skip

    @hookimpl
    async def relay_stream(self, watchlist: Watchlist) -> AsyncGenerator[PriceUpdate, None]:
        watchlist.accept(watchlist.streams)
        opened = int(self.now()) // 60 * 60
        reports = self.play.reports
        while True:
            await asyncio.sleep(0.25)
            if self.now() >= self.reported_at and reports:
                for number in range(reports):
                    watchlist.invalidate(KEY, self.split_at + number % 2, settle_s=self.play.settle_s)
                reports = 0
            if self.reported_at <= self.now() < self.reported_at + self.play.floods_s:
                watchlist.invalidate(KEY, self.split_at)
            is_over = self.now() >= opened + 60
            for key in watchlist.streams:
                yield PriceUpdate(key, self.candle(opened), is_over)
            opened += 60 * is_over

    @hookimpl
    async def relay_candles(self, interval: str, start: int | None, end: int, limit: int) -> list[Candle]:
        self._calls += 1
        is_late = self._calls % 2 == 0
        rows = self._rows(start, end, limit, is_late)
        takes_s = self._takes[self._calls % len(self._takes)]
        await asyncio.sleep(0.1 if self.is_calm else takes_s)
        if self.reported_at <= self.now() < self.reported_at + self.play.refuses_s:
            raise ProviderUnavailable("we are adjusting prices")
        if (left_s := self.reported_at + self.play.limits_s - self.now()) > 0 and self.now() >= self.reported_at:
            raise RateLimited("the budget is used up", left_s)
        is_refused = is_late or self.now() >= self.reported_at + 3.0
        if self.play.refuses_most and self.now() >= self.reported_at and is_refused and not self.is_calm:
            raise ProviderUnavailable("we are adjusting prices")
        if self.play.limits_others and self.now() >= self.reported_at and is_late and not self.is_calm:
            raise RateLimited("the budget is used up", 3.0)
        return rows

    def _rows(self, start: int | None, end: int, limit: int, is_late: bool) -> list[Candle]:
        now = int(self.now()) + (1 if self.play.history_has_open else -60)
        first = START - 600 * 60 if start is None else max(START - 600 * 60, -(-start // 60) * 60)
        times = range(first, min(end, now), 60)
        return [self.candle(time, is_late=is_late) for time in (times[-limit:] if start is None else times[:limit])]


class Wire(ClientWire):
    """A client's side: what it holds by what it was told, and what was wrong with that."""

    def __init__(self, loop: VirtualLoop, exchange: Exchange) -> None:
        self.held: dict[int, Candle] = {}
        self.closed: set[int] = set()
        self.faults: list[str] = []
        self.messages: list[dict[str, Any]] = []
        self._loop = loop
        self._exchange = exchange
        self._newest = -1
        self._gap_from = 1 << 60

    def take(self, message: dict[str, Any]) -> None:
        self.messages.append(message)
        if message["type"] == "snapshot":
            candles = [Candle(**candle) for candle in message["candles"]]
            self.faults += faults_of(candles, self._exchange, f"a snapshot at {self._loop.now:.2f}")
            if message.get("replaces"):
                lost = [time for time in self.held if not candles or time < candles[0].time]
                if lost and self._exchange.play.refuses_most:
                    self.faults.append(f"the snapshot at {self._loop.now:.2f} replaces {len(lost)} candles by nothing")
                self.held.clear()
            elif self.held:
                self.faults.append("a second snapshot that replaces nothing")
            for number, candle in enumerate(candles, 1):
                self._hold(candle, is_closed=number < len(candles) or message["last_is_closed"])
        elif message["type"] == "price_update":
            candle, is_revised = Candle(**message["candle"]), message.get("revised", False)
            self.faults += faults_of([candle], self._exchange, f"an update at {self._loop.now:.2f}")
            if not is_revised and candle.time < self._newest:
                self.faults.append(f"time went back to {candle.time}")
            if not is_revised and candle.time in self.closed:
                self.faults.append(f"{candle.time} is told again after it was closed")
            # Of what is older than all that it asked for it may hear, too.
            if not is_revised or (self.held and candle.time >= min(self.held)) or self._gap_from <= candle.time:
                self._hold(candle, is_closed=message["is_closed"])
        elif message["type"] == "gap":
            self._gap_from = min(self._gap_from, message["from"])

    def _hold(self, candle: Candle, *, is_closed: bool) -> None:
        self.held[candle.time] = candle
        self._newest = max(self._newest, candle.time)
        if is_closed:
            self.closed.add(candle.time)

    def finish(self, joiner: Joiner) -> None:
        """Judge what it holds at the end: no hole, and all of it true."""
        times = sorted(self.held)
        expected = list(range(times[0], times[-1] + 60, 60)) if times else []
        if times != expected:
            self.faults.append(f"{joiner} lacks {sorted(set(expected) - set(times))}")
        wrong = [time for time in self.closed & self.held.keys() if self.held[time] != self._exchange.candle(time)]
        if wrong:
            self.faults.append(f"{joiner} still has {[self.held[time] for time in sorted(wrong)[:3]]}")
        states = [one["status"] for one in self.messages if one["type"] == "status"]
        if states and states[-1] != "connected":
            self.faults.append(f"{joiner} is left in the state {states[-1]}")
        self.faults += [str(one) for one in self.messages if one["type"] == "error"]
        if not times or times[-1] < START + self._loop.now - 130:
            self.faults.append(f"{joiner} hears nothing any more: {times[-1:]}")


def faults_of(candles: list[Candle], exchange: Exchange, what: str) -> list[str]:
    """Say what is wrong with what somebody is given now."""
    before = [candle for candle in candles if candle.time < exchange.split_at]
    old = [candle for candle in before if candle.close >= OLD]
    if old and len(old) < len(before):
        return [f"{what} mixes prices: {old[0]} and {next(one for one in before if one.close < OLD)}"]
    # A report takes until the next turn of the feed.
    if old and exchange.now() > exchange.reported_at + 0.3:
        return [f"{what} has {old[0]}, {exchange.now() - exchange.reported_at:.2f} s after the split was reported"]
    return []


class Scene:
    """The relay's parts around one exchange."""

    def __init__(self, loop: VirtualLoop, play: Play, exchange: Exchange, relay: PlayedRelay) -> None:
        self.loop = loop
        self.play = play
        self.exchange = exchange
        self.relay = relay
        self.faults: list[str] = []
        self.renewals: list[list[asyncio.Task[None]]] = []

    async def run(self) -> None:
        wires = [Wire(self.loop, self.exchange) for _ in self.play.joiners]
        tasks = [
            asyncio.create_task(self._join(joiner, wire)) for joiner, wire in zip(self.play.joiners, wires, strict=True)
        ]
        tasks += [asyncio.create_task(self._ask(at_s)) for at_s in self.play.asks_s]
        await asyncio.sleep(self.play.lasts_s)
        self.exchange.is_calm = True
        await asyncio.sleep(LAST_S)
        for joiner, wire in zip(self.play.joiners, wires, strict=True):
            wire.finish(joiner)
            self.faults += wire.faults
        tasks += [task for renewals in self.renewals for task in renewals]
        for task in tasks:
            task.cancel()
        for result in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(result, Exception):
                raise result

    async def _join(self, joiner: Joiner, wire: Wire) -> None:
        await asyncio.sleep(joiner.at_s)
        subscriber, subscribing = self.relay.connect(wire)
        renewals: list[asyncio.Task[None]] = []

        def renew(stream: Stream) -> None:
            if (joining := subscribing.renew(stream)) is not None:
                renewals.append(asyncio.create_task(joining.run()))

        subscriber.on_renewed = renew
        self.renewals.append(renewals)
        since = None
        if joiner.since_s is not None:
            since = int(START + self.loop.now) // 60 * 60 - 60 - joiner.since_s
        options = SubscribeOptions(joiner.throttle_ms, joiner.closed_only)
        request = Request("subscribe", names=(), options=options, past=PastWanted(joiner.bars, since))
        joining = subscribing.subscribe(Target(self.relay.provider, KEY, "ACME"), request)
        if joining is not None:
            await joining.run()
        await asyncio.sleep(1e6)

    async def _ask(self, at_s: float) -> None:
        """Ask for what spans the split, by both ways."""
        await asyncio.sleep(at_s)

        def edge() -> Any:
            return live_of(self.relay.stream(KEY))

        for way in ("text", "candles", "text"):
            asked = HistoryRequest(self.relay.provider, KEY, None, None, 300, live=edge)
            try:
                if way == "text":
                    candles = decode((await self.relay.history.text(asked)).chunk)
                else:
                    candles = list((await self.relay.history.candles(asked)).candles)
            except (ProviderError, StoreError):
                continue
            self.faults += faults_of(candles, self.exchange, f"history ({way}) at {self.loop.now:.2f}")


async def perform(loop: VirtualLoop, play: Play) -> list[str]:
    clock = clock_of(loop)
    exchange = Exchange(play, clock)
    async with played_relay(exchange, clock) as relay:
        scene = Scene(loop, play, exchange, relay)
        await scene.run()
    return scene.faults


def faults_in(play: Play) -> list[str]:
    return run(lambda loop: perform(loop, play))


EVERYBODY = (
    Joiner(0.0), Joiner(1.0, bars=300), Joiner(2.0, bars=2), Joiner(3.0, since_s=600),
    Joiner(4.0, bars=300, throttle_ms=3000), Joiner(5.0, bars=150, closed_only=True),
)  # fmt: skip
AROUND = tuple(118.0 + step / 4 for step in range(40))

PLAYS = {
    "those who follow, and history before, at and after it": Play(EVERYBODY, AROUND),
    "calls under way, each longer than the last": Play(
        EVERYBODY, AROUND, takes_s=(0.1, 0.7, 2.3, 5.1), report_after_s=1.0
    ),
    "snapshots that are asked for before and come after": Play(
        tuple(Joiner(116.0 + step / 3, bars=300) for step in range(20)), AROUND, takes_s=(3.0, 1.1), report_after_s=2.0
    ),
    "the first call for the past is under way": Play(
        (Joiner(0.0), *(Joiner(119.0 + step / 2, bars=300) for step in range(12))), AROUND, takes_s=(6.0,)
    ),
    "calls of all lengths are under way for the first time": Play(
        (Joiner(118.0), *(Joiner(119.0 + step / 2, bars=300) for step in range(12))),
        AROUND,
        takes_s=(2.0, 6.0, 0.4, 9.0),
    ),
    "who follows at once after it": Play((Joiner(0.0), *(Joiner(120.0 + step / 10) for step in range(20))), AROUND),
    "history refuses for a minute": Play(
        (*EVERYBODY, *(Joiner(121.0 + step, bars=300) for step in (0, 20, 70))), AROUND, refuses_s=60.0
    ),
    "history gives new prices only once, and then refuses for long": Play(
        (*EVERYBODY, Joiner(1.0, bars=590)), AROUND, refuses_most=True, lasts_s=900.0, takes_s=(0.2, 1.1)
    ),
    "a second server is late, and the venue says so": Play(
        EVERYBODY, AROUND, lags_s=10.0, settle_s=12.0, takes_s=(0.3, 1.5)
    ),
    "reported again and again": Play(EVERYBODY, AROUND, reports=50, takes_s=(0.4, 1.3)),
    "reported without end, more often than history answers": Play(
        (*EVERYBODY, *(Joiner(121.0 + step, bars=300) for step in (0, 5, 30))),
        AROUND,
        floods_s=40.0,
        takes_s=(0.6, 1.3),
    ),
    "the budget is used up at once after it": Play(EVERYBODY, AROUND, limits_s=20.0),
    "the budget is used up again and again": Play(EVERYBODY, AROUND, limits_others=True, takes_s=(0.2, 1.1)),
    "reported in the middle of a candle": Play(EVERYBODY, AROUND, report_after_s=31.0),
    "history without the open candle": Play(EVERYBODY, AROUND, history_has_open=False),
}


@pytest.mark.parametrize("name", PLAYS)
def test_split_leaves_no_old_price_behind(name: str) -> None:
    assert faults_in(PLAYS[name]) == []


joiners = st.builds(
    Joiner,
    at_s=st.floats(0.0, 180.0),
    bars=st.sampled_from([None, 1, 5, 150, 300]),
    since_s=st.sampled_from([None, 0, 300, 9000]),
    closed_only=st.booleans(),
    throttle_ms=st.sampled_from([0, 700]),
)
plays = st.builds(
    Play,
    # Without a feed nobody says that the past changed.
    joiners=st.lists(joiners, max_size=4).map(lambda others: (Joiner(0.0), *others)),
    asks_s=st.lists(st.floats(60.0, 180.0), max_size=8).map(tuple),
    takes_s=st.lists(st.sampled_from([0.05, 0.2, 0.6, 2.5, 7.0]), min_size=1, max_size=5).map(tuple),
    split_s=st.just(120),
    report_after_s=st.sampled_from([0.0, 0.3, 3.0, 45.0]),
    refuses_s=st.sampled_from([0.0, 4.0, 40.0]),
    limits_s=st.sampled_from([0.0, 15.0]),
    limits_others=st.booleans(),
    lags_s=st.just(0.0),
    settle_s=st.sampled_from([0.0, 5.0]),
    reports=st.sampled_from([1, 2, 9]),
    floods_s=st.sampled_from([0.0, 0.0, 10.0]),
    lasts_s=st.just(200.0),
    history_has_open=st.booleans(),
)


@settings(max_examples=examples(4), phases=(Phase.explicit, Phase.generate))
@given(plays)
def test_no_split_leaves_an_old_price_behind(play: Play) -> None:
    assert faults_in(play) == []


def test_a_venue_that_says_nothing_is_found_out_by_these_plays() -> None:
    """What the plays judge is not always right: without a report they find old prices."""
    assert faults_in(Play(EVERYBODY, AROUND, reports=0)) != []
    assert PastChange(KEY, 60).span("1m").end == 60
