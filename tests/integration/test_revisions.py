"""What was revised while a client was away: numbered, kept with the candle, and brought by a resume."""

import asyncio
import time
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from providers import BUILTIN
from relay import (
    API_VERSION,
    Candle,
    PriceUpdate,
    ProviderInfo,
    ProviderUnavailable,
    StreamKey,
    Watchlist,
    hookimpl,
)
from relay.app import PROVIDERS
from relay.core.clock import Clock
from relay.core.model import Candle as StoredCandle
from relay.core.past_change import PastChange
from relay.storage.database import FileChecks
from relay.storage.revisions import MOST
from relay.storage.store import Store
from tests.conftest import StartRelay
from tests.support.conditions import eventually
from tests.support.running_relay import Message, Reader, Running, WsClient
from tests.support.transports import TRANSPORTS, Transport

KEY = StreamKey("X", "1m")


def candle(minute: int, close: float = 1.0) -> StoredCandle:
    return StoredCandle(60 * minute, 1.0, 9.0, 0.5, close, 1.0)


# -- in the store ----------------------------------------------------------------------------------


async def revised_after(store: Store, number: int) -> tuple[list[StoredCandle], bool]:
    found = await store.revisions("p", KEY, number)
    return list(found.candles), found.is_complete


def revise(store: Store, minute: int, close: float) -> int:
    number = store.put_closed("p", KEY, candle(minute, close), None, is_revised=True)
    assert number is not None
    return number


@pytest.mark.parametrize("is_written", [True, False])
async def test_revisions_after_a_number_are_the_candles_as_they_are_now(tmp_path: Path, is_written: bool) -> None:
    store = await Store.open(tmp_path / "relay.db", Clock())
    try:
        before = store.numbers.newest
        for minute in range(4):
            assert store.put_closed("p", KEY, candle(minute), None) is None
        first, second = revise(store, 2, 2.0), revise(store, 1, 3.0)
        assert before < first < second == store.numbers.newest
        third = revise(store, 2, 4.0)
        store.put_closed("p", StreamKey("Y", "1m"), candle(1, 7.0), None, is_revised=True)
        if is_written:
            await store.flush()
        assert await revised_after(store, before) == ([candle(1, 3.0), candle(2, 4.0)], True)
        assert await revised_after(store, second) == ([candle(2, 4.0)], True)
        assert await revised_after(store, third) == ([], True)
    finally:
        await store.close()


async def test_numbers_go_on_in_the_next_run_and_after_a_clock_that_went_back(tmp_path: Path) -> None:
    numbers: list[int] = []
    for wall in (2_000_000_000.0, 2_000_000_100.0, 1_900_000_000.0):
        store = await Store.open(tmp_path / "relay.db", Clock(wall=partial(float, wall)))
        try:
            if numbers:
                assert await revised_after(store, numbers[0]) == (
                    [candle(minute, 2.0) for minute in range(1, len(numbers))],
                    True,
                )
            numbers.append(revise(store, len(numbers), 2.0))
        finally:
            await store.close()
    assert numbers == sorted(numbers)


async def test_what_is_not_known_any_more_is_not_claimed(tmp_path: Path) -> None:
    store = await Store.open(tmp_path / "relay.db", Clock())
    try:
        before = store.numbers.newest
        assert await revised_after(store, before) == ([], True)
        assert (await revised_after(store, before - 10**9))[1] is False, "before the file was made"
        assert (await revised_after(store, before + 10**9))[1] is False, "of another relay"
        numbers = [revise(store, minute, 2.0) for minute in range(MOST + 1)]
        await store.flush()
        assert (await revised_after(store, before))[1] is False
        candles, is_complete = await revised_after(store, numbers[1])
        assert (len(candles), is_complete) == (MOST - 1, True)
        store.removals.void("p", PastChange(KEY, 60 * 5))
        assert (await revised_after(store, numbers[-1]))[1] is False
        assert await revised_after(store, store.numbers.newest) == ([], True)
    finally:
        await store.close()


async def test_a_file_that_took_the_place_of_another_claims_nothing_of_before(tmp_path: Path) -> None:
    path = tmp_path / "relay.db"
    store = await Store.open(path, Clock(), pace=FileChecks(check_s=0.02, absent_s=0.1))
    try:
        first = revise(store, 1, 2.0)
        await store.flush()
        path.unlink()
        await eventually(lambda: store.replacements == 1)
        assert (await revised_after(store, first - 1))[1] is False
        before = store.numbers.newest
        second = revise(store, 2, 2.0)
        assert await revised_after(store, before) == ([candle(2, 2.0)], True)
        await store.flush()
        assert await revised_after(store, second) == ([], True)
    finally:
        await store.close()


async def test_a_store_has_one_name_in_each_run_and_a_copy_of_it_another(tmp_path: Path) -> None:
    async def name_of(path: Path) -> str:
        store = await Store.open(path, Clock())
        try:
            return store.id
        finally:
            await store.close()

    path, copy = tmp_path / "relay.db", tmp_path / "copy.db"
    first = await name_of(path)
    copy.write_bytes(path.read_bytes())
    assert await name_of(path) == first
    assert len({first, await name_of(copy), await name_of(tmp_path / "other.db")}) == 3


async def test_a_file_that_took_the_place_of_another_has_another_name(tmp_path: Path) -> None:
    path = tmp_path / "relay.db"
    store = await Store.open(path, Clock(), pace=FileChecks(check_s=0.02, absent_s=0.1))
    try:
        first = store.id
        path.unlink()
        await eventually(lambda: store.replacements == 1)
        assert store.id != first
    finally:
        await store.close()


# -- in a relay ------------------------------------------------------------------------------------


class Venue:
    """A provider that sends just what a test says, and whose history is what a test says."""

    __name__ = "venue"

    def __init__(self) -> None:
        self.began = int(time.time()) - 100
        self.closes: dict[int, float] = {}
        self.hidden: set[int] = set()
        self.answers_after_s = 0.0
        self.is_mute = False
        self._waiting: list[Candle] = []

    def revise(self, opened: int, close: float, *, tells: bool = True) -> None:
        self.closes[opened] = close
        if tells:
            self._waiting.append(self.candle(opened))

    def candle(self, opened: int) -> Candle:
        return Candle(opened, 1.0, 99.0, 0.5, self.closes.get(opened, 1.0), 1.0)

    @hookimpl
    def relay_provider(self) -> ProviderInfo:
        return ProviderInfo(
            name="venue", api=API_VERSION, title="Venue", asset_classes=("demo",), intervals=("1s",),
            close_grace_s=0.2, candles_back=20,
        )  # fmt: skip

    @hookimpl
    async def relay_candles(self, symbol: str, interval: str, start: int | None, end: int, limit: int) -> list[Candle]:
        times = range(max(self.began, start or 0), min(end, int(time.time())))
        await asyncio.sleep(self.answers_after_s)
        chosen = times[-limit:] if start is None else times[:limit]
        return [self.candle(opened) for opened in chosen if opened not in self.hidden]

    @hookimpl
    async def relay_stream(self, watchlist: Watchlist) -> AsyncIterator[PriceUpdate]:
        opened = int(time.time())
        while True:
            await asyncio.sleep(0.02)
            while self._waiting:
                again = self._waiting.pop(0)
                for key in watchlist.streams:
                    yield PriceUpdate(key, again, is_closed=True)
            if time.time() >= opened + 1:
                if not self.is_mute:
                    for key in watchlist.streams:
                        yield PriceUpdate(key, self.candle(opened), is_closed=True)
                opened += 1


async def follow(relay: Running, over: Transport, **options: Any) -> tuple[Reader, list[int]]:
    """Follow `S` until three candles closed; return the client and their open times."""
    client = await over.subscriber(relay, "S@1s", **options)
    for _ in range(3):
        await client.update(is_closed=True)
    return client, client.closed_times


async def resume(relay: Running, since: int, **options: Any) -> tuple[WsClient, Message]:
    client = await relay.connect()
    await client.ask("subscribe", symbol="S", interval="1s", since=since, **options)
    return client, await client.until_type("snapshot")


def revised_in(snapshot: Message) -> list[tuple[int, float]]:
    return [(candle["time"], candle["close"]) for candle in snapshot["revised"]]


@pytest.mark.parametrize(
    ("over", "options"),
    [
        (TRANSPORTS[0], {}),
        (TRANSPORTS[1], {}),
        (TRANSPORTS[0], {"closed_only": True}),
        (TRANSPORTS[1], {"throttle_ms": 1000}),
    ],
    indirect=["over"],
)
async def test_who_was_away_hears_what_who_stayed_did(
    relay_with: StartRelay, over: Transport, options: dict[str, Any]
) -> None:
    venue = Venue()
    relay = await relay_with(builtin=(*BUILTIN, venue))
    stays, _ = await follow(relay, over)
    client, times = await follow(relay, over, **options)
    await client.close()
    venue.revise(times[0], 50.0)
    told = await stays.update(revised=True)
    assert (told["candle"]["time"], told["revision"] > client.received[1]["revision"]) == (times[0], True)
    for _ in range(2):
        back = await over.back(relay, client, "S@1s", **options)
        snapshot = await back.seen("snapshot")
        assert revised_in(snapshot) == [(times[0], 50.0)]
        assert snapshot["revisions_known"] is True
        assert all(candle["time"] > times[-1] for candle in snapshot["candles"])
    await back.update(is_closed=True)
    # From here on it has all of it.
    await back.close()
    again = await over.back(relay, back, "S@1s", **options)
    assert revised_in(await again.seen("snapshot")) == []


async def test_who_comes_back_to_the_next_run_hears_it_too_and_misses_nothing(
    relay_with: StartRelay, over: Transport, tmp_path: Path
) -> None:
    venue = Venue()
    first = await relay_with(builtin=(*BUILTIN, venue), database=tmp_path / "relay.db")
    stays, _ = await follow(first, over)
    client, times = await follow(first, over)
    await client.close()
    venue.revise(times[1], 50.0)
    await stays.update(revised=True)
    await first.close()
    second = await relay_with(builtin=(*BUILTIN, venue), database=tmp_path / "relay.db")
    back = await over.back(second, client, "S@1s")
    snapshot = await back.seen("snapshot")
    assert (revised_in(snapshot), snapshot["revisions_known"]) == ([(times[1], 50.0)], True)
    await back.update(is_closed=True)
    had = client.told("S") + back.told("S")
    assert had == list(range(had[0], had[0] + len(had)))


async def test_what_history_revises_while_nobody_follows_reaches_who_comes_back(
    relay_with: StartRelay, over: Transport
) -> None:
    venue = Venue()
    relay = await relay_with(builtin=(*BUILTIN, venue))
    client, times = await follow(relay, over)
    await client.close()
    await eventually(lambda: not relay.hub.streams)
    venue.revise(times[1], 50.0, tells=False)
    query: dict[str, Any] = {"symbol": "S", "interval": "1s", "start_time": times[-1]}
    await eventually(lambda: time.time() > times[-1] + 3)
    await relay.get("history", **query)
    back = await over.back(relay, client, "S@1s")
    assert revised_in(await back.seen("snapshot")) == [(times[1], 50.0)]


async def test_a_number_of_another_store_counts_as_none(relay_with: StartRelay, over: Transport) -> None:
    venue = Venue()
    relay = await relay_with(builtin=(*BUILTIN, venue))
    stays, times = await follow(relay, over)
    venue.revise(times[0], 50.0)
    await stays.update(revised=True)
    own = await (await over.back(relay, stays, "S@1s")).seen("snapshot")
    assert (revised_in(own), own["revisions_known"]) == ([], True)
    # One that is as large as the relay's own says nothing of what the other relay told.
    other = await (await over.back(relay, stays, "S@1s", store="5be1d2c90f7a3e64")).seen("snapshot")
    assert (revised_in(other), other["revisions_known"]) == ([(times[0], 50.0)], False)


class Settling(Venue):
    """Its candles may change for two seconds after their end."""

    @hookimpl
    def relay_provider(self) -> ProviderInfo:
        return super().relay_provider()._replace(close_grace_s=2.0)


async def test_a_candle_that_a_snapshot_gave_before_it_settled_is_revised_when_it_has(
    relay_with: StartRelay, over: Transport
) -> None:
    venue = Settling()
    relay = await relay_with(builtin=(*BUILTIN, venue))
    client = await over.subscriber(relay, "S@1s", bars=5)
    snapshot = await client.seen("snapshot")
    given = [candle["time"] for candle in snapshot["candles"] if candle["time"] < int(time.time())]
    venue.revise(given[-1], 50.0, tells=False)
    await eventually(lambda: time.time() > given[-1] + 4)
    await relay.get("history", symbol="S", interval="1s", start_time=given[0])
    told = await client.update(revised=True)
    assert (told["candle"]["time"], told["candle"]["close"]) == (given[-1], 50.0)


async def test_what_is_revised_while_a_resume_is_under_way_comes_once(relay_with: StartRelay) -> None:
    venue = Venue()
    relay = await relay_with(builtin=(*BUILTIN, venue))
    stays, times = await follow(relay, TRANSPORTS[0])
    venue.answers_after_s = 0.5
    client = await relay.connect()
    await eventually(lambda: time.time() > times[-1] + 2)
    gap, known = [times[0] - 30, times[0] - 29], stays.received[1]["revision"]
    await client.ask("subscribe", symbol="S", interval="1s", since=times[-1], revision=known, gaps=[gap])
    await asyncio.sleep(0.2)
    venue.revise(times[1], 50.0)
    await stays.update(revised=True)
    snapshot = await client.until_type("snapshot")
    assert revised_in(snapshot) == [(gap[0], 1.0), (times[1], 50.0)]
    await client.settle()
    assert not [message for message in client.updates if message.get("revised")]


async def test_a_gap_is_closed_for_who_asks_as_soon_as_history_has_it(relay_with: StartRelay) -> None:
    venue = Venue()
    relay = await relay_with(builtin=(*BUILTIN, venue))
    since = venue.began + 60
    gaps = [[since - 9, since - 7], [since - 5, since - 4], [since, since + 5]]
    venue.hidden = {since - 9, since - 8}
    _, snapshot = await resume(relay, since, gaps=gaps)
    assert [at for at, _ in revised_in(snapshot)] == [since - 5, since]
    assert [candle["time"] for candle in snapshot["candles"]][:2] == [since + 1, since + 2]


async def test_a_relay_that_does_not_know_says_so(relay_with: StartRelay, over: Transport) -> None:
    relay = await relay_with(builtin=(*BUILTIN, Venue()))
    client, _ = await follow(relay, over)
    for number, is_known in ((1, False), (None, True), (2**53, False)):
        snapshot = await (await over.back(relay, client, "S@1s", number=number)).seen("snapshot")
        assert (snapshot["revised"], snapshot["revisions_known"]) == ([], is_known)
    plain = await over.subscriber(relay, "S@1s", since=client.closed_times[-1])
    assert not {"revised", "revisions_known"} & set(await plain.seen("snapshot"))


async def test_a_revision_and_gaps_without_sense_are_refused(relay: Running) -> None:
    client = await relay.connect()
    await client.ask("subscribe", symbol="BTCUSDT", interval="1s", revision=5)
    assert "need since" in (await client.error())["message"]
    await client.ask("subscribe", symbol="BTCUSDT", interval="1s", since=5, gaps=[[9, 3]])
    assert "[from, to]" in (await client.error())["message"]


def revised(client: Reader) -> list[int]:
    return [update["candle"]["time"] for update in client.updates if update.get("revised")]


async def test_revisions_come_for_candles_that_a_client_has_and_for_no_others(
    relay_with: StartRelay, over: Transport
) -> None:
    venue = Venue()
    relay = await relay_with(builtin=(*BUILTIN, venue))
    stays, times = await follow(relay, over)
    plain = await over.subscriber(relay, "S@1s")
    bars = await over.subscriber(relay, "S@1s", bars=2)
    begin = (await bars.seen("snapshot"))["candles"][0]["time"]
    assert begin > times[0]
    resumes = await over.subscriber(relay, "S@1s", since=times[-1])
    await resumes.seen("snapshot")
    own = (await plain.update(is_closed=True))["candle"]["time"]
    for opened in (times[0], begin, own):
        venue.revise(opened, 50.0)
    for client in (stays, plain, bars, resumes):
        while (await client.update(revised=True))["candle"]["time"] != own:
            pass
    assert revised(stays) == revised(resumes) == [times[0], begin, own]
    assert revised(bars) == [begin, own]
    assert revised(plain) == [own]


async def test_more_of_the_past_on_the_same_connection_has_its_revisions_told(relay_with: StartRelay) -> None:
    venue = Venue()
    relay = await relay_with(builtin=(*BUILTIN, venue))
    _, times = await follow(relay, TRANSPORTS[0])
    client = await relay.connect()
    await client.subscribe("S@1s")
    await client.ask("subscribe", symbol="S", interval="1s", bars=30)
    assert (await client.until_type("snapshot"))["candles"][0]["time"] <= times[0]
    venue.revise(times[0], 60.0)
    assert (await client.update(revised=True))["candle"]["time"] == times[0]


async def test_a_date_two_hours_ahead_keeps_no_revision_from_who_was_told_the_candle(relay_with: StartRelay) -> None:
    venue = Venue()
    relay = await relay_with(builtin=(*BUILTIN, venue))
    relay.app[PROVIDERS]["venue"].clock.observe(time.time() + 7200)
    client = await relay.connect()
    await client.ask("subscribe", symbol="S", interval="1s")
    told = (await client.update(is_closed=True))["candle"]["time"]
    venue.revise(told, 50.0)
    assert (await client.update(revised=True))["candle"]["time"] == told


# -- candles that a client has from before the stream began ----------------------------------------------


@pytest.mark.parametrize("options", [{"bars": 40}, {"since": -50}, {"bars": 40, "closed_only": True}])
@pytest.mark.parametrize("is_in_memory", [True, False])
async def test_a_candle_that_is_older_than_the_stream_is_revised_for_who_has_it(
    relay_with: StartRelay, over: Transport, options: dict[str, Any], is_in_memory: bool
) -> None:
    venue = Venue()
    relay = await relay_with(builtin=(*BUILTIN, venue))
    plain, times = await follow(relay, over)
    if is_in_memory:
        await relay.get("history", symbol="S", interval="1s", limit=60)
    if "since" in options:
        options = {"since": times[0] - 50}
    client = await over.subscriber(relay, "S@1s", **options)
    old = (await client.seen("snapshot"))["candles"][2]["time"]
    assert old < times[0] - 5
    venue.revise(old, 1.0)
    venue.revise(old, 50.0)
    told = await client.update(revised=True)
    assert (told["candle"]["time"], told["candle"]["close"]) == (old, 50.0)
    venue.revise(old, 50.0)
    venue.revise(old, 60.0)
    told = await client.update(revised=True)
    assert (told["candle"]["time"], told["candle"]["close"]) == (old, 60.0)
    answer = await relay.get("history", symbol="S", interval="1s", start_time=old, end_time=old)
    assert [candle["close"] for candle in answer.body["candles"]] == [60.0]
    await plain.settle()
    assert revised(plain) == []
    await client.close()
    snapshot = await (await over.back(relay, client, "S@1s", number=told["revision"] - 1)).seen("snapshot")
    assert revised_in(snapshot) == [(old, 60.0)]


async def test_a_part_that_is_older_than_the_stream_revises_what_is_built_of_it(
    relay_with: StartRelay, over: Transport
) -> None:
    venue = Venue()
    venue.began -= 300
    relay = await relay_with(builtin=(*BUILTIN, venue))
    await follow(relay, over)
    client = await over.subscriber(relay, "S@1m", bars=4)
    old = (await client.seen("snapshot"))["candles"][1]
    venue.revise(old["time"] + 59, 50.0)
    told = await client.update(revised=True)
    assert told["candle"] == {**old, "close": 50.0}


@pytest.mark.parametrize("comes_back", [False, True])
async def test_a_candle_of_an_earlier_run_is_revised_for_who_has_it(
    relay_with: StartRelay, over: Transport, tmp_path: Path, comes_back: bool
) -> None:
    venue = Venue()
    first = await relay_with(builtin=(*BUILTIN, venue), database=tmp_path / "relay.db")
    gone, times = await follow(first, over)
    await first.close()
    times = gone.told("S")
    silent = Silent()
    second = await relay_with(builtin=(*BUILTIN, silent), database=tmp_path / "relay.db")
    if comes_back:
        client = await over.back(second, gone, "S@1s")
    else:
        client = await over.subscriber(second, "S@1s", bars=2)
    given = [one["time"] for one in (await client.seen("snapshot"))["candles"]]
    assert given[-1:] == ([] if comes_back else times[-1:])
    if not comes_back:
        silent.revise(times[-1], 1.0)
    silent.revise(times[-1], 50.0)
    told = await client.update()
    assert (told["candle"]["time"], told["candle"]["close"], told["revised"]) == (times[-1], 50.0, True)


class Silent(Venue):
    """It has no history, and its feed says only what was revised."""

    def __init__(self) -> None:
        super().__init__()
        self.is_mute = True

    @hookimpl
    async def relay_candles(self, symbol: str, interval: str, start: int | None, end: int, limit: int) -> list[Candle]:
        raise ProviderUnavailable("no history today")
