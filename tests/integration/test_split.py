"""A split at a rude venue, as clients of all kinds live through it: slow, refusing, and with a server that is late."""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from relay.client import Outdated, RelayClient, Snapshot, Update
from tests.conftest import StartRelay
from tests.support.conditions import eventually
from tests.support.javascript_client import Json, StartClient, start_client
from tests.support.running_relay import Message, Reader, Running
from tests.support.splitting_venue import OLD, PLUGIN, SplittingVenue, splitting_venue
from tests.support.transports import Transport

__all__ = ["start_client"]


@pytest.fixture
async def venue() -> AsyncIterator[SplittingVenue]:
    async with splitting_venue() as venue:
        yield venue


async def start(relay_with: StartRelay, venue: SplittingVenue, *, servers: int = 2, **settings: Any) -> Running:
    table = {"servers": venue.servers[:servers], "settle_s": 0.0, **settings}
    return await relay_with(plugins=(PLUGIN,), tables={"shares": table})


def is_old(candle: dict[str, float], venue: SplittingVenue) -> bool:
    return venue.split_at is not None and candle["time"] < venue.split_at and candle["close"] >= OLD


class Held:
    """What a client holds of a stream: a snapshot replaces all, an update one candle."""

    def __init__(self) -> None:
        self.candles: dict[int, dict[str, float]] = {}
        self.snapshots = 0
        self.was_outdated = False

    def take(self, message: Json) -> None:
        if message["type"] == "snapshot":
            self.candles = {candle["time"]: candle for candle in message["candles"]}
            self.snapshots += 1
        elif message["type"] in ("update", "price_update"):
            self.candles[message["candle"]["time"]] = message["candle"]
        elif message["type"] == "outdated":
            self.was_outdated = True

    def old(self, venue: SplittingVenue) -> list[int]:
        return [time for time, candle in self.candles.items() if is_old(candle, venue)]


def as_json(message: object) -> Json:
    """Return a message of the Python client as a message of the wire."""
    match message:
        case Snapshot(candles=candles):
            return {"type": "snapshot", "candles": [candle._asdict() for candle in candles]}
        case Update(candle=candle):
            return {"type": "update", "candle": candle._asdict()}
        case Outdated():
            return {"type": "outdated"}
        case _:
            return {"type": "other"}


# A program does not hear that time jumps.
@pytest.mark.real_time
async def test_all_clients_follow_a_split_of_a_rude_venue(
    relay_with: StartRelay, venue: SplittingVenue, start_client: StartClient
) -> None:
    relay = await start(relay_with, venue, settle_s=1.5)
    answers: list[tuple[float, list[dict[str, float]]]] = []
    held = {name: Held() for name in ("python", "js", "raw", "events", "plain")}

    async def ask_on() -> None:
        for number in range(1_000_000):
            options: dict[str, Any] = {"limit": 50 + 100 * (number % 3)}
            if number % 2:
                options["start_time"] = int(time.time()) - 200
            answer = await relay.get("history", symbol="SHARE", interval="1s" if number % 5 else "1m", **options)
            if answer.status == 200:
                answers.append((time.time(), answer.body["candles"]))
            await asyncio.sleep(0.02)

    async def follow(client: RelayClient) -> None:
        async for message in client:
            held["python"].take(as_json(message))

    async def read(name: str, client: Reader) -> None:
        while True:
            held[name].take(await client.next())

    js = await start_client(relay.url)

    async def read_js() -> None:
        while True:
            said = await js.read_line()
            assert said is not None
            if "message" in said:
                held["js"].take(said["message"])

    async with RelayClient(relay.url) as python:
        await python.subscribe("SHARE@1s", bars=400)
        await js.start("subscribe", "SHARE@1s", {"bars": 400})
        raw, plain, events = await relay.connect(), await relay.connect(), relay.event_client()
        await plain.ask("subscribe", symbol="SHARE", interval="1s")
        for client in (raw, events):
            await client.ask("subscribe", symbol="SHARE", interval="1s", bars=300)
        tasks = [asyncio.create_task(work) for work in (ask_on(), follow(python), read_js())]
        clients: dict[str, Reader] = {"raw": raw, "plain": plain, "events": events}
        tasks += [asyncio.create_task(read(name, client)) for name, client in clients.items()]
        await eventually(lambda: all(len(one.candles) > 3 for one in held.values()) and len(answers) > 20)
        venue.takes_s = 0.4
        venue.is_refusing = True
        venue.split(late_s=1.2)
        await eventually(lambda: all(one.was_outdated for one in held.values()))
        reported_at = time.time()
        await asyncio.sleep(0.7)
        venue.is_refusing = False
        await eventually(lambda: not any(one.old(venue) for one in held.values()))
        await eventually(lambda: answers and len(answers[-1][1]) >= 50 and answers[-1][0] > reported_at + 2)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    assert not [at for at, candles in answers if at > reported_at and any(is_old(one, venue) for one in candles)]
    assert held.pop("plain").snapshots == 0
    assert {one.snapshots for one in held.values()} == {2}
    for name in held:
        times = sorted(held[name].candles)
        assert times == list(range(times[0], times[-1] + 1)), name
        assert len(times) >= 300, name


def replacing(message: Message) -> object:
    return message["type"] == "snapshot" and message.get("replaces")


async def test_who_was_away_during_the_split_gets_what_changed(
    relay_with: StartRelay, venue: SplittingVenue, over: Transport
) -> None:
    relay = await start(relay_with, venue, servers=1)
    client = await over.subscriber(relay, "SHARE@1s", bars=300)
    snapshot = await client.seen("snapshot")
    stays = await over.subscriber(relay, "SHARE@1s")
    last = (await client.update(is_closed=True))["candle"]["time"]
    await client.close()
    venue.split()
    await stays.until_type("outdated")
    back = await over.back(relay, client, "SHARE@1s")
    resumed = await back.seen("snapshot")
    held = {candle["time"] for candle in snapshot["candles"]} - {last + 1}
    revised = {candle["time"]: candle for candle in resumed["revised"]}
    assert held - {snapshot["candles"][-1]["time"]} <= set(revised)
    assert not [candle for candle in (*revised.values(), *resumed["candles"]) if is_old(candle, venue)]
    assert resumed["revisions_known"] is False
    # From there on it knows all of it.
    await back.update(is_closed=True)
    again = await over.back(relay, back, "SHARE@1s")
    assert (await again.seen("snapshot"))["revisions_known"] is True


async def test_extended_and_throttled_clients_get_their_snapshot_as_they_asked(
    relay_with: StartRelay, venue: SplittingVenue, over: Transport
) -> None:
    relay = await start(relay_with, venue, servers=1)
    clients = []
    for option in ({"extended": True}, {"throttle_ms": 5000}, {"closed_only": True}):
        clients.append(await over.subscriber(relay, "SHARE@1m", bars=200, **option))
        await clients[-1].seen("snapshot")
    venue.split()
    for client in clients:
        fresh = await client.until(replacing)
        assert not [candle for candle in fresh["candles"] if is_old(candle, venue)]
        assert len(fresh["candles"]) >= 200
        assert fresh["complete"]
    assert "trades" in clients[0].received[-1]["candles"][0]
    assert clients[2].received[-1]["last_is_closed"]
