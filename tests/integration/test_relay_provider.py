"""A relay as the provider of another one: the root has the stand-ins as its upstreams, the leaf has the root."""

import asyncio
import time
from typing import Any

import pytest

from providers.relay import RelayProvider
from relay import API_VERSION, Candle, Instrument, PriceUpdate, ProviderInfo, StreamKey, Watchlist, hookimpl
from relay.testing import check_provider
from tests.conftest import StartRelay
from tests.support.conditions import eventually
from tests.support.free_ports import free_port
from tests.support.running_relay import Running
from tests.support.sandbox import Sandbox

LEAF = (("providers.relay:RelayProvider", "if used"),)


def upstream(*urls: str, **settings: Any) -> dict[str, Any]:
    return {"upstream": {"uses": "relay", "urls": list(urls), **settings}}


async def leaf_of(relay_with: StartRelay, *urls: str, **settings: Any) -> Running:
    """Start a relay whose only provider is another one."""
    return await relay_with(builtin=LEAF, with_stand_ins=False, instances=upstream(*urls, **settings))


async def test_it_conforms(relay_with: StartRelay) -> None:
    async with Sandbox(pace_s=1.0) as sandbox:
        root = await relay_with(sandbox=sandbox)
        settings = {"urls": [root.url]}
        report = await check_provider(RelayProvider, symbol="BTCUSDT", interval="1m", settings=settings)
    assert {"stream", "closing", "reconnect", "history", "pages", "intervals", "refusal"} <= set(report.checked)


async def test_clients_of_the_leaf_get_what_clients_of_the_root_get(relay_with: StartRelay) -> None:
    root = await relay_with()
    leaf = await leaf_of(relay_with, root.url)
    clients = [await one.connect() for one in (root, leaf)]
    for client in clients:
        await client.subscribe("BTCUSDT@1s", "EUR/USD@1m", bars=20, extended=True)
    told: list[dict[int, Any]] = []
    until = int(time.time()) + 4
    for client in clients:
        await client.update(symbol="BTCUSDT", is_closed=True)
        await client.until(lambda m: m["type"] == "price_update" and m["candle"]["time"] >= until)
        snapshot = await client.seen("snapshot", symbol="BTCUSDT")
        live = [one["candle"] for one in client.updates if one["is_closed"] and one["symbol"] == "BTCUSDT"]
        candles = [*snapshot["candles"][:-1], *live]
        told.append({one["time"]: one for one in candles})
        times = [one["time"] for one in candles]
        assert times == list(range(times[0], times[0] + len(times)))
    both = told[0].keys() & told[1].keys()
    assert len(both) >= 20
    assert {at: told[0][at] for at in both} == {at: told[1][at] for at in both}
    query: dict[str, Any] = {
        "symbol": "BTCUSDT",
        "interval": "1h",
        "limit": 50,
        "extended": "true",
        "end_time": until - 7200,
    }
    answers = [(await one.get("history", **query)).body["candles"] for one in (root, leaf)]
    assert len(answers[1]) == 50
    assert answers[0] == answers[1]


async def test_programs_for_binance_are_told_that_a_leaf_has_no_texts_of_binance(relay_with: StartRelay) -> None:
    root = await relay_with()
    binance = {"binance": {"uses": "relay", "urls": [root.url]}}
    leaf = await relay_with(builtin=LEAF, with_stand_ins=False, instances=binance)
    await eventually_listed(leaf, "BTCUSDT")
    why = "This operation is not supported. (the provider binance of this relay gives no texts of Binance)"
    for path in ("klines?symbol=BTCUSDT&interval=1m", "exchangeInfo", "exchangeInfo?symbol=BTCUSDT"):
        answer = await leaf.get(f"/api/v3/{path}")
        assert (answer.status, answer.body) == (400, {"code": -1020, "msg": why})


async def test_instruments_are_those_of_the_root_under_its_names(relay_with: StartRelay) -> None:
    root = await relay_with()
    leaf = await leaf_of(relay_with, root.url)
    await eventually_listed(leaf, "EUR/USD")
    of_root = {one["symbol"]: one for one in (await root.get("instruments")).body}
    of_leaf = {one["symbol"]: one for one in (await leaf.get("instruments")).body}
    assert of_leaf.keys() == of_root.keys()
    for symbol, mine in of_leaf.items():
        theirs = of_root[symbol]
        assert mine["provider"] == "upstream"
        assert set(mine["intervals"]) == {*theirs["intervals"], *theirs["derived_intervals"]}
        same = ("name", "asset_class", "base", "quote", "price_step", "volume_step", "session", "status")
        assert [mine[name] for name in same] == [theirs[name] for name in same]


async def eventually_listed(relay: Running, symbol: str) -> None:
    async def is_listed() -> bool:
        return symbol in (await relay.get("symbols")).body

    await eventually(is_listed)


@pytest.mark.parametrize("refusal", ["token", "symbol"])
async def test_refusals_of_the_root_reach_clients_of_the_leaf(relay_with: StartRelay, refusal: str) -> None:
    root = await relay_with(tokens=("one-token-for-this-test",) if refusal == "token" else ())
    leaf = await leaf_of(relay_with, root.url)
    client = await leaf.connect()
    if refusal == "token":
        await client.ask("subscribe", streams=["upstream:BTCUSDT@1m"])
        refused = await client.error()
        assert (refused["code"], "needs another token" in refused["message"]) == ("provider_unavailable", True)
        return
    await eventually_listed(leaf, "BTCUSDT")
    await client.ask("subscribe", streams=["NOPE@1m"])
    assert (await client.error())["code"] == "unknown_symbol"


class Shares:
    """A share whose past changes and whose market closes when a test says so."""

    __name__ = "shares"

    def __init__(self) -> None:
        self.price = 100.0
        self.reports: list[Any] = []
        self.again: list[Candle] = []

    @hookimpl
    def relay_provider(self) -> ProviderInfo:
        return ProviderInfo(
            name="shares", api=API_VERSION, title="Shares", asset_classes=("stocks",), intervals=("1s",),
            close_grace_s=0.5,
        )  # fmt: skip

    @hookimpl
    async def relay_candles(self, symbol: str, interval: str, start: int | None, end: int, limit: int) -> list[Candle]:
        first = max(int(time.time()) - 600, start or 0)
        times = range(first, min(end, int(time.time()) + 1))
        return [self._candle(opened) for opened in (times[-limit:] if start is None else times[:limit])]

    def _candle(self, opened: int) -> Candle:
        return Candle(opened, self.price, self.price, self.price, self.price, 1.0)

    @hookimpl
    async def relay_instruments(self) -> list[Instrument]:
        return [Instrument("SHARE", "stocks", "SHARE", "USD")]

    @hookimpl
    async def relay_stream(self, watchlist: Watchlist) -> Any:
        opened = int(time.time())
        while True:
            await watchlist.changed(watchlist.version, timeout_s=0.05)
            while self.reports:
                self.reports.pop()(watchlist)
            while self.again:
                candle = self.again.pop()
                for key in watchlist.streams:
                    yield PriceUpdate(key, candle, is_closed=True)
            while time.time() >= opened + 1:
                for key in watchlist.streams:
                    yield PriceUpdate(key, self._candle(opened), is_closed=True)
                opened += 1


async def test_changed_pasts_and_states_are_passed_on(relay_with: StartRelay) -> None:
    shares = Shares()
    root = await relay_with(builtin=(shares,), with_stand_ins=False)
    leaf = await leaf_of(relay_with, root.url, asset_classes=["stocks"])
    await eventually_listed(leaf, "SHARE")
    client = await leaf.connect()
    await client.subscribe("SHARE@1s")
    for _ in range(3):
        await client.update(is_closed=True)
    before = client.closed_times
    shares.price = 50.0
    shares.reports.append(lambda watchlist: watchlist.invalidate(StreamKey("SHARE", "1s")))
    await client.until_type("outdated")
    revised: dict[int, float] = {}
    while not set(before) <= revised.keys():
        message = await client.until(lambda m: m.get("revised") or m.get("replaces"))
        candles = message["candles"] if message.get("replaces") else [message["candle"]]
        revised |= {one["time"]: one["close"] for one in candles}
    assert {revised[at] for at in before} == {50.0}
    shares.reports.append(
        lambda watchlist: watchlist.pause(StreamKey("SHARE", "1s"), "throttled", "the budget is used up until noon")
    )
    state = await client.until_type("status", status="throttled")
    assert state["message"] == "the budget is used up until noon"


async def test_a_candle_from_before_the_stream_that_the_root_revises_is_revised_at_the_leaf(
    relay_with: StartRelay,
) -> None:
    shares = Shares()
    root = await relay_with(builtin=(shares,), with_stand_ins=False)
    leaf = await leaf_of(relay_with, root.url, asset_classes=["stocks"])
    await eventually_listed(leaf, "SHARE")
    first = await leaf.connect()
    await first.subscribe("SHARE@1s")
    await first.update(is_closed=True)
    client = await leaf.connect()
    await client.subscribe("SHARE@1s", bars=200)
    old = (await client.until_type("snapshot"))["candles"][2]["time"]
    at_root = await root.connect()
    await at_root.subscribe("SHARE@1s", bars=200)
    assert (await at_root.until_type("snapshot"))["candles"][5]["time"] > old
    shares.again.append(Candle(old, 50.0, 50.0, 50.0, 50.0, 1.0))
    told = await client.update(revised=True)
    assert (told["candle"]["time"], told["candle"]["close"]) == (old, 50.0)
    await first.settle()
    assert not [update for update in first.updates if update.get("revised")]


@pytest.mark.parametrize("ring", [1, 2])
async def test_a_relay_that_is_its_own_upstream_says_so(relay_with: StartRelay, ring: int) -> None:
    ports = [free_port() for _ in range(ring)]
    urls = [f"http://127.0.0.1:{port}" for port in ports]
    relays = [
        await relay_with(builtin=LEAF, with_stand_ins=False, port=port, instances=upstream(urls[(place + 1) % ring]))
        for place, port in enumerate(ports)
    ]
    for relay in relays:
        for _ in range(600):
            answer = await relay.get("history", symbol="upstream:BTCUSDT", interval="1m")
            if "this relay is its own upstream" in answer.body["detail"]:
                break
            await asyncio.sleep(1.0)
        assert (answer.status, "setting urls" in answer.body["detail"]) == (503, True), answer.body
