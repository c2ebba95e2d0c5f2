"""A contract expires: nothing is expected of it any more, and its history stays. No sockets, no real time."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from typing import Any

import pytest

from relay import API_VERSION, Candle, Instrument, PriceUpdate, ProviderInfo, Watchlist, hookimpl
from relay.core.model import StreamKey
from relay.core.spans import FOREVER
from relay.core.trading_hours import TradingHours
from relay.history.live_edge import live_of
from relay.history.requests import HistoryRequest
from relay.instruments.directory import Target
from relay.protocol.client_requests import PastWanted, Request, SubscribeOptions
from tests.support.moments import at
from tests.support.played_relay import START, ClientWire, PlayedRelay, clock_of, played_relay
from tests.support.virtual_time import VirtualLoop, run

EXPIRES_AT = START + 240
"""In the middle of a candle of three minutes."""


class Futures:
    """A venue with one contract: its candles change every two seconds until it expires, and are then no more."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self.asked_at: list[float] = []

    @hookimpl
    def relay_provider(self) -> ProviderInfo:
        return ProviderInfo("futures", API_VERSION, "Futures", ("future",), ("1m",), close_grace_s=5.0)

    @hookimpl
    async def relay_instruments(self) -> list[Instrument]:
        return [Instrument("F_260925", "future", "F", "USDT", expires_at=EXPIRES_AT)]

    @hookimpl
    async def relay_stream(self, watchlist: Watchlist) -> AsyncGenerator[PriceUpdate, None]:
        watchlist.accept(watchlist.streams)
        opened = START
        while opened < EXPIRES_AT:
            await asyncio.sleep(2.0)
            is_closed = self._now() >= opened + 60
            for key in watchlist.streams:
                yield PriceUpdate(key, self._candle(opened), is_closed, int(self._now() * 1000))
            opened += 60 * is_closed
        await asyncio.sleep(1e9)

    @hookimpl
    async def relay_candles(self, start: int | None, end: int, limit: int) -> list[Candle]:
        self.asked_at.append(self._now())
        last = min(end, EXPIRES_AT, int(self._now()))
        times = range(START - 6000 if start is None else start + -start % 60, last, 60)
        return [self._candle(time) for time in (times[-limit:] if start is None else times[:limit])]

    def _candle(self, opened: int) -> Candle:
        return Candle(opened, 1.0, 1.0, 1.0, 1.0, 1.0)


class Wire(ClientWire):
    """A client that keeps what it is sent."""

    def __init__(self) -> None:
        self.messages: list[dict[str, Any]] = []

    def take(self, message: dict[str, Any]) -> None:
        self.messages.append(message)

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [one for one in self.messages if one["type"] == kind]


async def subscribe(relay: PlayedRelay, interval: str) -> Wire:
    wire = Wire()
    _, subscribing = relay.connect(wire)
    target = Target(relay.provider, StreamKey("F_260925", interval), "F_260925")
    past = PastWanted(5, None)
    joining = subscribing.subscribe(target, Request("subscribe", names=(), options=SubscribeOptions(0), past=past))
    if joining is not None:
        await joining.run()
    return wire


@pytest.mark.parametrize("interval", ["1m", "3m"])
def test_a_stream_ends_when_its_contract_expires(interval: str) -> None:
    async def play(loop: VirtualLoop) -> None:
        clock = clock_of(loop)
        venue = Futures(clock.wall)
        async with played_relay(venue, clock) as relay:
            await relay.context.directory.start()
            wire = await subscribe(relay, interval)
            await asyncio.sleep(250.0)
            told_before = len(wire.messages)
            await asyncio.sleep(3600.0)
            (last,) = [one for one in wire.of("price_update") if one["is_closed"]][-1:]
            assert last["candle"]["time"] == START + 180
            assert (wire.of("status")[-1]["status"], wire.of("status")[-1]["message"]) == (
                "market_closed",
                "F_260925 expired at 2025-11-24T16:04:00Z; it is not traded any more",
            )
            assert "stale" not in {one["status"] for one in wire.of("status")}
            assert (wire.of("gap"), wire.messages[told_before:]) == ([], [])
            # Each candle is compared with history once, five minutes after it closed.
            assert [moment for moment in venue.asked_at if moment > EXPIRES_AT + 301] == []
            await relay.context.directory.close()

    run(play)


def test_history_of_what_expired_is_complete_and_asks_for_nothing_later() -> None:
    async def play(loop: VirtualLoop) -> None:
        clock = clock_of(loop)
        venue = Futures(clock.wall)
        async with played_relay(venue, clock) as relay:
            await relay.context.directory.start()
            await asyncio.sleep(7200.0)
            key = StreamKey("F_260925", "1m")
            for _ in range(2):
                asked = HistoryRequest(relay.provider, key, START, None, 100, live=lambda: live_of(relay.stream(key)))
                past = await relay.history.candles(asked)
                assert [one.time for one in past.candles] == [START, START + 60, START + 120, START + 180]
                assert past.is_whole
                assert past.last_is_closed
            assert len(venue.asked_at) == 1
            wire = await subscribe(relay, "1m")
            await asyncio.sleep(600.0)
            assert [one["status"] for one in wire.of("status")][-1:] == ["market_closed"]
            assert wire.of("gap") == []
            await relay.context.directory.close()

    run(play)


def test_hours_end_with_the_contract() -> None:
    moment = at("2026-09-25 08:00:00")
    market = TradingHours(expires_at=moment)
    assert (market.opens_at(moment - 1), market.opens_at(moment)) == (moment - 1, FOREVER)
    assert market.end_of("1d", at("2026-09-25 00:00:00")) == moment
    assert market.next_due("1M", at("2026-09-01 00:00:00")) == FOREVER
    assert market.open_parts(moment - 120, moment + 120, 60) == [(moment - 120, moment)]
    assert market.session_at(moment) is None


def test_hours_learn_from_the_list_when_a_contract_expires() -> None:
    moment = at("2026-09-25 08:00:00")
    contract = Instrument("f_260925", "future", "F", "USDT", expires_at=moment)

    async def play(loop: VirtualLoop) -> None:
        async with played_relay(Futures(loop.time), clock_of(loop)) as relay:
            hours = relay.provider.hours
            market = hours.market("f_260925")
            assert market.opens_at(moment) == moment
            hours.note_instruments({"F_260925": contract})
            for other in range(5000):
                hours.market(f"F{other}")
            # Whoever has the hours learns it too, also another day, and keeps it when the contract has left the list.
            assert hours.market("f_260925") is market
            assert market.opens_at(moment) == FOREVER
            hours.note_instruments({"F_260925": contract._replace(expires_at=moment + 60)})
            hours.note_instruments({})
            assert (market.opens_at(moment), market.opens_at(moment + 60)) == (moment, FOREVER)

    run(play)


def test_what_the_list_says_of_an_expiry_counts_before_an_answer_for_the_symbol_alone() -> None:
    moment = at("2026-09-25 08:00:00")
    contract = Instrument("F", "future", "F", "USDT", expires_at=moment)

    async def play(loop: VirtualLoop) -> None:
        async with played_relay(Futures(loop.time), clock_of(loop)) as relay:
            hours = relay.provider.hours
            hours.note_instruments({}, {"F": contract})
            assert hours.market("F").opens_at(moment) == FOREVER
            hours.note_instruments({"F": contract._replace(expires_at=None)}, {"F": contract})
            assert hours.market("F").opens_at(moment) == moment

    run(play)
