"""Guards of the provider author's API: what exists is documented, tested and kept; the guide's code runs as printed."""

import asyncio
import importlib
import inspect
import logging
import re
import sys
import time
import tomllib
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from aiohttp import WSMsgType, web

import relay
from relay import (
    API_MINOR,
    API_VERSION,
    BadAnswer,
    Instrument,
    Memory,
    NativeAnswer,
    NativeLive,
    NativeUpdate,
    OpenHours,
    PastChange,
    ProviderError,
    StreamKey,
    TradingCalendar,
    Watchlist,
)
from relay.app import PROVIDERS
from relay.plugins import author_api, discovery, hookspecs
from relay.plugins.loader import PluginHost
from relay.plugins.provider import Provider
from relay.testing import Report, WatchedFeed, check_provider, open_provider, sped_up
from tests.conftest import StartRelay
from tests.integration.test_plugins import opened, path_of, provider_of, tally
from tests.support.conditions import eventually
from tests.support.fake_ccxt import Exchange, fake_ccxt
from tests.support.loopback_server import loopback_server
from tests.support.moments import at
from tests.support.sandbox import Sandbox

GUIDE = (Path(__file__).parents[2] / "providers" / "README.md").read_text(encoding="utf-8")
NYSE: TradingCalendar = importlib.import_module("tests.plugins.stocks").NYSE
HOOKS = {spec.__name__: spec for spec in hookspecs.HOOKS}


def block(name: str) -> str:
    """Return the code block of the guide that begins with this file name."""
    (found,) = re.findall(rf"```python\n(# {re.escape(name)}\n.*?)```", GUIDE, re.DOTALL)
    return str(found)


# -- guards ----------------------------------------------------------------------------------------


def test_every_hook_is_in_the_tuple() -> None:
    marked = [name for name, value in vars(hookspecs).items() if hasattr(value, f"{hookspecs.PROJECT}_spec")]
    assert marked == list(HOOKS)


@pytest.mark.parametrize("name", HOOKS)
def test_every_hook_has_a_section_headed_with_its_signature(name: str) -> None:
    arguments = ", ".join(inspect.signature(HOOKS[name]).parameters)
    assert f"\n### `{name}({arguments})`\n" in GUIDE


@pytest.mark.parametrize("name", HOOKS)
def test_every_hook_has_a_test(name: str) -> None:
    assert f"test_hook_{name}" in globals()


@pytest.mark.parametrize("name", author_api.__all__)
def test_every_public_name_is_documented(name: str) -> None:
    assert re.search(rf"`[^`\n]*\b{name}\b[^`\n]*`", GUIDE)


def test_public_names_are_exactly_what_the_package_offers() -> None:
    names = author_api.__all__
    offered = {each for each, value in vars(author_api).items() if each[0] != "_" and not inspect.ismodule(value)}
    assert offered == set(names)
    assert names == sorted(names, key=lambda name: (not name.isupper(), not name[0].isupper(), name))
    assert {name: getattr(relay, name) for name in names} == {name: getattr(author_api, name) for name in names}
    with pytest.raises(ImportError, match="cannot import name 'websocket_fed' from 'relay'"):
        exec("from relay import websocket_fed")


@pytest.mark.parametrize(
    "kind", [relay.ProviderInfo, relay.OpenHours, relay.Setting, relay.Budget, relay.Instrument, relay.Candle]
)
def test_every_field_of_the_values_is_documented(kind: Any) -> None:
    for field in kind._fields:
        assert re.search(rf"`[^`\n]*\b{field}\b[^`\n]*`", GUIDE), field


@pytest.mark.parametrize("kind", [relay.Watchlist, relay.FeedCodec, relay.TradingCalendar])
def test_every_member_for_feeds_is_documented(kind: Any) -> None:
    hosts = {"add", "remove", "is_late", "bind"}
    for member in [name for name in vars(kind) if not name.startswith("_") and name not in hosts]:
        assert re.search(rf"`[^`\n]*\b{member}\b[^`\n]*`", GUIDE), member


def test_api_version() -> None:
    # Raise it when a hook or an argument is renamed, removed or changes its meaning, the minor one when one is added.
    assert (API_VERSION, API_MINOR) == (2, 1)
    assert {name: list(inspect.signature(spec).parameters) for name, spec in HOOKS.items()} == {
        "relay_provider": ["settings"],
        "relay_stream": ["watchlist", "session", "settings"],
        "relay_candles": ["symbol", "interval", "start", "end", "limit", "session", "settings"],
        "relay_instruments": ["session", "settings"],
        "relay_instrument": ["symbol", "session", "settings"],
        "relay_budgets": ["settings"],
        "relay_memory": ["memory", "settings"],
        "relay_hours": ["symbol", "moment", "settings"],
        "relay_past_changes": ["since", "session", "settings"],
        "relay_native": ["path", "query", "session", "settings"],
        "relay_native_live": ["path", "query", "settings"],
        "relay_native_stream": ["watchlist", "session", "settings"],
        "relay_clock": ["settings"],
        "relay_close": ["session", "settings"],
        "relay_origins": ["settings"],
        "relay_share": ["parts", "settings"],
    }


def test_links_within_the_guide_lead_somewhere() -> None:
    headings = re.findall(r"^#+ (.+)$", GUIDE, re.MULTILINE)
    anchors = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
    assert set(re.findall(r"\]\(#([^)]+)\)", GUIDE)) <= anchors


# -- each hook, called as the host calls it --------------------------------------------------------


def recording(calls: list[dict[str, Any]], answer: Any) -> Callable[..., Any]:
    async def hook(**arguments: Any) -> Any:
        calls.append(arguments)
        return answer

    return hook


def test_hook_relay_provider() -> None:
    host = PluginHost()
    host.load([tally()], installed=False)
    info = host.loaded["tally"].info
    assert (info.name, info.title, info.intervals) == ("tally", "Tally", ("1s",))


async def test_hook_relay_stream() -> None:
    given: list[Any] = []

    async def relay_stream(watchlist: Any, session: Any, settings: Any) -> AsyncIterator[Any]:
        given.extend((watchlist, session, settings))
        for update in list[Any]():
            yield update

    watchlist = Watchlist([StreamKey("X", "1m")])
    async with opened(provider_of(relay_stream=relay_stream)) as provider:
        assert [update async for update in provider.stream(watchlist)] == []
        assert given[0] is watchlist
        assert given[1] is provider.session
        assert given[2] == {}


async def test_hook_relay_candles() -> None:
    given: list[Any] = []

    async def relay_candles(
        symbol: Any, interval: Any, start: Any, end: Any, limit: Any, session: Any, settings: Any
    ) -> list[Any]:
        given.append((symbol, interval, start, end, limit, settings))
        return []

    async with opened(provider_of(relay_candles=relay_candles)) as provider:
        assert await provider.candles(StreamKey("X", "1h"), None, 7200, 10) == []
    assert given == [("X", "1h", None, 7200, 10, {})]


async def test_hook_relay_instruments() -> None:
    async with opened(tally()) as provider:
        (instrument,) = await provider.instruments()
    assert instrument.symbol == "TALLY"


async def test_hook_relay_instrument() -> None:
    given: list[Any] = []

    async def relay_instrument(symbol: Any, session: Any, settings: Any) -> Any:
        given.append((symbol, session.closed, settings))
        return Instrument("x", "demo", "X", "USD") if symbol == "X" else None

    async with opened(provider_of(relay_instrument=relay_instrument)) as provider:
        assert await provider.instrument("X") == Instrument("x", "demo", "X", "USD")
        assert await provider.instrument("Y") is None
    assert given == [("X", False, {}), ("Y", False, {})]


async def test_hook_relay_budgets() -> None:
    async with opened(tally()) as provider:
        (budget,) = provider.budgets()
    assert (budget.name, budget.limit, budget.used) == ("questions", 1000, 0)


async def test_hook_relay_memory() -> None:
    kept: list[bytes] = []

    async def write(body: bytes) -> bool:
        kept.append(body)
        return True

    async with opened(tally()) as provider:
        provider.remember(Memory(b"41", write))
        await provider.candles(StreamKey("TALLY", "1s"), None, int(time.time()), 2)
        (budget,) = provider.budgets()
    assert budget.used == 42
    assert kept == [b"42"]


async def test_a_plugin_that_cannot_take_its_memory_serves_on(caplog: pytest.LogCaptureFixture) -> None:
    def relay_memory(memory: Any) -> None:
        raise RuntimeError("no thanks")

    async with opened(provider_of(relay_memory=relay_memory)) as provider:
        provider.remember(Memory())
        assert provider.budgets() == ()
    assert "failed in relay_memory" in caplog.text


async def test_hook_relay_past_changes() -> None:
    given: list[Any] = []

    async def relay_past_changes(since: Any, session: Any, settings: Any) -> list[Any]:
        given.append((since, settings))
        return [PastChange(StreamKey("X", "1d"), 3600), PastChange(StreamKey("Y", "1d"), since)]

    async with opened(provider_of(relay_past_changes=relay_past_changes)) as provider:
        assert [change.before for change in await provider.past_changes(7200)] == [3600, 7200]
        with pytest.raises(BadAnswer, match="relay_past_changes: before is 0, not later than 0"):
            await provider.past_changes(0)
    assert given == [(7200, {}), (0, {})]


async def test_hook_relay_native() -> None:
    given: list[Any] = []

    async def relay_native(path: Any, query: Any, session: Any, settings: Any) -> Any:
        given.append((path, query, settings))
        return NativeAnswer(200, b"{}", 2)

    async with opened(provider_of(relay_native=relay_native)) as provider:
        assert await provider.native("/ticker", {"symbol": "X"}) == NativeAnswer(200, b"{}", 2)
    assert given == [("/ticker", {"symbol": "X"}, {})]
    async with opened(provider_of()) as provider:
        with pytest.raises(BadAnswer, match="no answers in its own protocol"):
            await provider.native("/ticker", {})


@pytest.mark.parametrize(
    "answer",
    [None, b"{}", [], NativeAnswer(500, b""), NativeAnswer(200, "{}"), NativeAnswer(200, b"", 0.5), RuntimeError("x")],  # type: ignore[arg-type]
)
async def test_a_native_answer_without_sense_is_an_error(answer: Any) -> None:
    async def relay_native() -> Any:
        if isinstance(answer, Exception):
            raise answer
        return answer

    async with opened(provider_of(relay_native=relay_native)) as provider:
        with pytest.raises(ProviderError, match="relay_native"):
            await provider.native("/ticker", {})


BOOK = NativeLive(StreamKey("X", "book"), str.encode, 5)


async def no_answers(watchlist: Any) -> AsyncIterator[Any]:
    for update in list[Any]():
        yield update


@pytest.mark.parametrize(
    ("answer", "live"),
    [(BOOK, BOOK), (None, None), (BOOK.key, None), (BOOK._replace(weight=0.5), None), (RuntimeError("x"), None)],  # type: ignore[arg-type]
)
async def test_hook_relay_native_live(answer: Any, live: NativeLive | None) -> None:
    given: list[Any] = []

    def relay_native_live(path: Any, query: Any, settings: Any) -> Any:
        given.append((path, query, settings))
        if isinstance(answer, Exception):
            raise answer
        return answer

    async with opened(provider_of(relay_native_live=relay_native_live, relay_native_stream=no_answers)) as provider:
        assert provider.native_live("/book", {"symbol": "X"}) == live
        assert provider.live_body(BOOK, "{}") == b"{}"
        assert provider.live_body(BOOK, None) is None
    assert given == [("/book", {"symbol": "X"}, {})]
    # One of the two is not enough.
    async with opened(provider_of(relay_native_live=relay_native_live)) as provider:
        assert provider.native_live("/book", {}) is None


async def test_hook_relay_native_stream() -> None:
    skipped: list[str] = []

    async def relay_native_stream(watchlist: Any, session: Any, settings: Any) -> AsyncIterator[Any]:
        assert (session.closed, settings) == (False, {})
        for key in (*watchlist.streams, StreamKey("Y", "book")):
            yield NativeUpdate(key, "{}")
        yield "nonsense"
        raise OSError("away")

    watchlist = Watchlist([BOOK.key], on_skip=skipped.append)
    seen = []

    async def read(provider: Provider) -> None:
        async for update in provider.native_stream(watchlist):
            seen.append(update)

    async with opened(provider_of(relay_native_stream=relay_native_stream)) as provider:
        with pytest.raises(ProviderError):
            await read(provider)
    assert seen == [NativeUpdate(BOOK.key, "{}")]
    assert skipped == ["relay_native_stream yielded str, not NativeUpdate"]


@pytest.mark.parametrize(
    ("answer", "origins"), [(["a", "b"], ("a", "b")), (None, ()), ([1], ()), (["a"] * 65, ()), (RuntimeError("x"), ())]
)
async def test_hook_relay_origins(answer: Any, origins: tuple[str, ...]) -> None:
    def relay_origins(settings: Any) -> Any:
        if isinstance(answer, Exception):
            raise answer
        return answer

    async with opened(provider_of(relay_origins=relay_origins)) as provider:
        assert provider.origins() == origins
    async with opened(provider_of()) as provider:
        assert provider.origins() == ()


async def test_hook_relay_share() -> None:
    told: list[Any] = []

    def relay_share(parts: Any, settings: Any) -> None:
        told.append((parts, settings))
        if parts == 1:
            raise RuntimeError("x")

    async with opened(provider_of(relay_share=relay_share)) as provider:
        provider.share(3)
        provider.share(1)
        assert told == [(3, {}), (1, {})]
        assert provider.failures.failed == 1
    async with opened(provider_of()) as provider:
        provider.share(3)


async def test_hook_relay_hours() -> None:
    given: list[Any] = []

    def relay_hours(symbol: Any, moment: Any, settings: Any) -> Any:
        given.append((symbol, moment, settings))
        return OpenHours(100, 200)

    async with opened(provider_of(relay_hours=relay_hours)) as provider:
        assert provider.market("X").opens_at(50) == 100
    assert given == [("X", 50, {})]


async def test_hook_relay_close() -> None:
    given: list[Any] = []

    async def relay_close(session: Any, settings: Any) -> None:
        given.append((session.closed, settings))

    async with open_provider(provider_of(relay_close=relay_close)):
        assert given == []
    assert given == [(False, {})]


@pytest.mark.parametrize(
    "hours",
    [(100, 200), "9 to 5", OpenHours(10, 20), OpenHours(100, 100), OpenHours(60.5, 99), RuntimeError("holiday")],  # type: ignore[arg-type]
)
async def test_hours_without_sense_are_asked_for_once_and_the_market_counts_as_open(
    hours: Any, caplog: pytest.LogCaptureFixture
) -> None:
    asked: list[int] = []

    def relay_hours(moment: int) -> Any:
        asked.append(moment)
        if isinstance(hours, Exception):
            raise hours
        return hours

    async with opened(provider_of(relay_hours=relay_hours)) as provider:
        market = provider.market("X")
        assert [market.opens_at(50), market.opens_at(51)] == [50, 51]
    assert asked == [50]
    assert caplog.text.count("failed in relay_hours") == 1


async def test_hook_relay_clock() -> None:
    given: list[Any] = []

    def relay_clock(settings: Any) -> Callable[[], float]:
        given.append(settings)
        return lambda: 1_700_000_000.0

    async with opened(provider_of(relay_clock=relay_clock)) as provider:
        assert provider.clock.now() == provider.clock.over() == 1_700_000_000.0
        assert provider.clock.observe(1_700_000_060.0, "X") == -60.0
    assert given == [{}]


@pytest.mark.parametrize("given", ["noon", RuntimeError("stopped"), lambda: "noon", lambda: 1 / 0])
async def test_a_clock_that_cannot_be_read_is_logged_once_and_the_relay_finds_out_the_time(
    given: Any, caplog: pytest.LogCaptureFixture
) -> None:
    def relay_clock() -> Any:
        if isinstance(given, Exception):
            raise given
        return given

    async with opened(provider_of(relay_clock=relay_clock)) as provider:
        assert abs(provider.clock.now() - time.time()) < 60
        assert provider.failures.failed == 1
    assert caplog.text.count("failed in relay_clock") == 1


async def test_a_provider_may_leave_the_time_to_the_relay() -> None:
    async with opened(provider_of(relay_clock=lambda: None)) as provider:
        assert abs(provider.clock.now() - time.time()) < 60
        assert provider.failures.failed == 0


async def test_a_clock_that_stops_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    moments: list[Any] = [1_700_000_000.0]
    async with opened(provider_of(relay_clock=lambda: moments.pop)) as provider:
        assert [provider.clock.now(), provider.clock.now()] == [1_700_000_000.0, 1_700_000_000.0]
    assert caplog.text.count("failed in relay_clock") == 1


async def test_memory_keeps_json_and_says_when_it_does_not() -> None:
    assert Memory(b"{nonsense").value is None
    memory = Memory()
    assert await memory.save({"a": [1, 2.5, None]}) is False
    assert memory.value == {"a": [1, 2.5, None]}
    with pytest.raises(TypeError):
        await memory.save({1, 2})
    assert memory.value == {"a": [1, 2.5, None]}


async def test_hooks_may_take_fewer_arguments() -> None:
    async def relay_candles(limit: int) -> list[Any]:
        return []

    async with opened(provider_of(relay_candles=relay_candles)) as provider:
        assert await provider.candles(StreamKey("X", "1h"), None, 7200, 10) == []


# -- the guide's examples, as printed --------------------------------------------------------------


@pytest.fixture
async def serve() -> AsyncIterator[Callable[[web.Application], Any]]:
    """Serve small venues on loopback."""
    async with AsyncExitStack() as servers:
        yield lambda app: servers.enter_async_context(loopback_server(app))


@pytest.fixture
def guide(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Write a code block of the guide to a file, and return its path."""
    monkeypatch.chdir(tmp_path)

    def write(name: str, old: str = "", new: str = "") -> str:
        text = block(name)
        assert old in text
        (tmp_path / name).write_text(text.replace(old, new) if old else text)
        return str(tmp_path / name)

    return write


class Bitstamp:
    """A tiny venue: candles whose prices are their open times, an hour and more of them."""

    def __init__(self) -> None:
        self.began = int(time.time()) // 86_400 * 86_400 - 40 * 86_400
        self.app = web.Application()
        self.app.add_routes(
            [web.get("/api/v2/ohlc/{pair}/", self.ohlc), web.get("/api/v2/trading-pairs-info/", self.pairs)]
        )

    async def pairs(self, request: web.Request) -> web.Response:
        return web.json_response(
            [{"name": "BTC/USD", "trading": "Enabled"}, {"name": "OLD/USD", "trading": "Disabled"}]
        )

    async def ohlc(self, request: web.Request) -> web.Response:
        if request.match_info["pair"] != "btcusd":
            return web.json_response({"code": "404", "errors": []}, status=404)
        step, limit = int(request.query["step"]), int(request.query["limit"])
        assert 1 <= limit <= 1000
        last = min(int(request.query.get("end", time.time())), int(time.time()))
        times = range(self.began, last + 1, step)
        if "start" in request.query:
            times = range(max(self.began, -(-int(request.query["start"]) // step) * step), last + 1, step)[:limit]
        rows = [self.row(opened, step) for opened in times[-limit:]]
        return web.json_response({"data": {"pair": "BTC/USD", "ohlc": rows}})

    def row(self, opened: int, step: int) -> dict[str, str]:
        moved = min(step, int((time.time() - opened) * 10))
        return {
            "timestamp": str(opened),
            **{"open": str(opened), "low": str(opened), "high": str(opened + moved), "close": str(opened + moved)},
            "volume": str(step / 40),
        }


async def test_polling_example_runs_in_a_relay(
    relay_with: StartRelay, serve: Callable[[web.Application], Any], guide: Callable[..., str]
) -> None:
    address = await serve(Bitstamp().app)
    tables = {"bitstamp": {"rest_url": [f"http://{address}"], "poll_seconds": 0.1}}
    running = await relay_with(plugins=(guide("bitstamp.py"),), tables=tables)
    client = await running.connect()
    await client.subscribe("BTC/USD@1m")
    update = await client.update(symbol="BTC/USD")
    assert update["candle"]["open"] == update["candle"]["time"]
    answer = await running.get("history", symbol="BTC/USD", interval="1h", limit=1500)
    times = [candle["time"] for candle in answer.body["candles"]]
    assert len(times) == 960 + (int(time.time()) % 86_400) // 3600 + 1
    assert times == list(range(times[0], times[-1] + 1, 3600))
    await client.ask("subscribe", streams=["OLD/USD@1m"])
    assert (await client.error())["code"] == "unknown_symbol"


def test_tests_of_the_guide_pass(guide: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("bitstamp", "bitstamp_standin", "test_bitstamp", "test_refusal")
    for name in names:
        monkeypatch.syspath_prepend(str(Path(guide(f"{name}.py")).parent))
        monkeypatch.delitem(sys.modules, name, raising=False)
    for name, test in (("test_bitstamp", "test_conformance"), ("test_refusal", "test_unknown_pair_is_rejected")):
        getattr(importlib.import_module(name), test)()


def test_polling_example_conforms(guide: Callable[..., str]) -> None:
    @sped_up
    async def check() -> Report:
        async with loopback_server(Bitstamp().app) as address:
            settings = {"rest_url": f"http://{address}"}
            return await check_provider(guide("bitstamp.py"), symbol="BTC/USD", interval="1m", settings=settings)

    report = check()
    assert [what.partition(":")[0] for what in report.unchecked] == ["reconnect", "speed", "values"]
    assert {"closing", "pages", "intervals", "live values of BTC/USD@1m"} <= set(report.checked)


class Okx:
    """A tiny venue: `candle1s` and others of every instrument but NOPE."""

    def __init__(self) -> None:
        self.app = web.Application()
        self.app.add_routes([web.get("/ws", self.serve)])
        self.requests: list[dict[str, Any]] = []
        self.sockets: list[web.WebSocketResponse] = []

    async def serve(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        self.sockets.append(socket)
        subscribed: dict[tuple[str, str], None] = {}
        sender = asyncio.create_task(self.send(socket, subscribed))
        try:
            async for message in socket:
                if message.type is WSMsgType.TEXT and message.data == "ping":
                    await socket.send_str("pong")
                    continue
                wanted = message.json()
                self.requests.append(wanted)
                for arg in wanted["args"]:
                    name = (arg["channel"], arg["instId"])
                    if arg["instId"] == "NOPE" or arg["instId"] == "NOSUCHSYMBOL":
                        text = f"Wrong URL or channel:{name[0]},instId:{name[1]} doesn't exist. Please use the correct"
                        await socket.send_json({"event": "error", "code": "60018", "msg": text})
                        continue
                    if wanted["op"] == "subscribe":
                        subscribed[name] = None
                    else:
                        subscribed.pop(name, None)
                    await socket.send_json({"event": wanted["op"], "arg": arg})
        finally:
            sender.cancel()
            await asyncio.gather(sender, return_exceptions=True)
        return socket

    async def send(self, socket: web.WebSocketResponse, subscribed: dict[tuple[str, str], None]) -> None:
        second = int(time.time())
        while True:
            for channel, symbol in list(subscribed):
                step = {"candle1s": 1, "candle1m": 60, "candle5m": 300, "candle15m": 900, "candle1H": 3600}[channel]
                opened, arg = second // step * step, {"channel": channel, "instId": symbol}
                states = [(opened - step, "1"), (opened, "0")] if second == opened else [(opened, "0")]
                for moment, confirm in states:
                    row = [str(moment * 1000), "1.0", "3.0", "0.5", "2.0", "7", "14", "14", confirm]
                    await socket.send_json({"arg": arg, "data": [row]})
            await asyncio.sleep(max(0.0, second + 1 - time.time()))
            second += 1


async def test_websocket_example_runs_in_a_relay(
    relay_with: StartRelay, serve: Callable[[web.Application], Any], guide: Callable[..., str]
) -> None:
    venue = Okx()
    address = await serve(venue.app)
    tables = {"okx": {"ws_url": f"ws://{address}/ws"}}
    running = await relay_with(plugins=(guide("okx.py"),), tables=tables)
    client = await running.connect()
    await client.subscribe("okx:BTC-USDT@1s", "okx:ETH-USDT@1m", "okx:NOPE@1m")
    closed = await client.update(symbol="BTC-USDT", is_closed=True)
    assert closed["candle"] | {"time": 0} == {
        "time": 0,
        "open": 1.0,
        "high": 3.0,
        "low": 0.5,
        "close": 2.0,
        "volume": 7.0,
    }
    refused = [message for message in client.received if message.get("status") == "error"]
    if not refused:
        refused = [await client.until_type("status", status="error")]
    assert refused[0]["symbol"] == "NOPE"
    assert "doesn't exist" in refused[0]["message"]
    await client.ask("unsubscribe", streams=["okx:BTC-USDT@1s"])
    await eventually(lambda: venue.requests[-1]["op"] == "unsubscribe")
    await venue.sockets[0].send_json({"event": "notice", "code": "64008", "msg": "The connection will soon be closed"})
    await eventually(lambda: len(venue.sockets) == 2)
    assert venue.requests[-1]["args"] == [{"channel": "candle1m", "instId": "ETH-USDT"}]


def test_websocket_example_conforms(guide: Callable[..., str]) -> None:
    @sped_up
    async def check() -> Report:
        async with loopback_server(Okx().app) as address:
            settings = {"ws_url": f"ws://{address}/ws"}
            return await check_provider(guide("okx.py"), symbol="BTC-USDT", interval="1m", settings=settings)

    assert {"stream", "closing", "reconnect", "speed"} <= set(check().checked)


async def test_ticks_example_runs_in_a_relay(
    relay_with: StartRelay, serve: Callable[[web.Application], Any], guide: Callable[..., str]
) -> None:
    """Trades of a second whose beginning was not seen, of the next one, none in the one after, and some later."""
    started = 0

    async def venue(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        channel = {"channel": "live_trades_btcusd"}

        async def trade(second: float, price: float, amount: float) -> None:
            stamp = round((started + second) * 1_000_000)
            data = {"microtimestamp": str(stamp), "price": price, "amount": amount}
            await socket.send_json({"event": "trade", "data": data} | channel)

        nonlocal started
        async for message in socket:
            asked = message.json()
            if asked["event"] == "bts:subscribe":
                # It is ahead: so its trades alone say what time it is, however long it takes until they are heard.
                started = int(time.time()) + 2
                await trade(0.1, 5, 1.0)
                await socket.send_json({"event": "bts:subscription_succeeded", "data": {}} | asked["data"])
                for traded in ((0.9, 5, 1.0), (1.2, 6, 0.1), (1.8, 4, 0.2), (3.5, 7, 1.0), (5.5, 8, 1.0)):
                    await trade(*traded)
        return socket

    app = web.Application()
    app.add_routes([web.get("/ws", venue)])
    tables = {"bitstamp_trades": {"ws_url": f"ws://{await serve(app)}/ws"}}
    running = await relay_with(plugins=(guide("bitstamp_trades.py"),), tables=tables)
    client = await running.connect()
    await client.subscribe("bitstamp_trades:BTC/USD@1s")
    found = [await client.update(is_closed=True) for _ in range(3)]
    assert [tuple((update["candle"] | {"time": update["candle"]["time"] - started}).values()) for update in found] == [
        (1, 6.0, 6.0, 4.0, 4.0, 0.3),
        (2, 4.0, 4.0, 4.0, 4.0, 0.0),
        (3, 7.0, 7.0, 7.0, 7.0, 1.0),
    ]


@pytest.fixture
def exchanges(monkeypatch: pytest.MonkeyPatch) -> list[Exchange]:
    """The exchanges that a library like ccxt makes in this test."""
    modules, made = fake_ccxt()
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    return made


def test_library_example_conforms(guide: Callable[..., str], exchanges: list[Exchange]) -> None:
    @sped_up
    async def check() -> Report:
        plugin = f"{guide('ccxt_exchange.py')}:CcxtExchange"
        return await check_provider(plugin, symbol="BTC/USDT", interval="1m")

    report = check()
    assert [what.partition(":")[0] for what in report.unchecked] == ["reconnect", "speed", "values", "refusal"]
    assert {"closing", "pages", "watchlist", "relay_close", "live values of BTC/USDT@1m"} <= set(report.checked)
    assert all(exchange.is_closed for exchange in exchanges)


async def test_library_example_keeps_a_failing_stream_from_the_others(
    relay_with: StartRelay, guide: Callable[..., str], exchanges: list[Exchange], caplog: pytest.LogCaptureFixture
) -> None:
    running = await relay_with(plugins=(f"{guide('ccxt_exchange.py')}:CcxtExchange",))
    client = await running.connect()
    await client.subscribe("ccxt_exchange:BTC/USDT@1m", "ccxt_exchange:ETH/USDT@1m")
    for symbol in ("BTC/USDT", "ETH/USDT"):
        await client.seen("price_update", symbol=symbol)
    (exchange,) = exchanges
    address = "GET https://exchange.example/markets 502 Bad Gateway"
    exchange.failures["ETH/USDT"] = [sys.modules["ccxt.pro"].NetworkError(address)]
    lost = await client.until_type("status", symbol="ETH/USDT", status="reconnecting")
    assert lost["message"].startswith("the exchange cannot be reached; the next attempt is at ")
    await client.update(symbol="BTC/USDT")
    await client.until_type("status", symbol="ETH/USDT", status="connected")
    states = [m["status"] for m in client.received if m["type"] == "status" and m.get("symbol") == "BTC/USDT"]
    # Where a minute ends before the first update, the candle that closed is fetched.
    assert set(states) <= {"connecting", "backfilling", "connected"}
    assert f"the exchange cannot be reached ({address})" in caplog.text
    # What concerns the whole exchange stops all of it.
    exchange.failures["ETH/USDT"] = [sys.modules["ccxt.pro"].DDoSProtection("429")]
    for symbol in ("BTC/USDT", "ETH/USDT"):
        await client.seen("status", symbol=symbol, status="throttled")
    await running.close()
    assert exchange.is_closed


async def test_instances_example_runs_in_a_relay(
    relay_with: StartRelay, guide: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    guide("clocks.py")
    (text,) = re.findall(r"```toml\n(plugins = .*?)```", GUIDE, re.DOTALL)
    file = tomllib.loads(text)
    running = await relay_with(plugins=tuple(file["plugins"]), instances=file["providers"])
    assert [*running.app[PROVIDERS]] == ["binance", "twelve_data", "tokyo", "kathmandu"]
    client = await running.connect()
    await client.subscribe("tokyo:X@1s", "kathmandu:X@1m")
    for stream, code in (("kathmandu:X@1s", "unsupported_interval"), ("clocks:X@1s", "unknown_symbol")):
        await client.ask("subscribe", streams=[stream])
        assert (await client.error())["code"] == code
    closed = await client.update(symbol="X", is_closed=True)
    assert closed["candle"]["close"] == (closed["candle"]["time"] / 3600 + 9) % 24
    tokyo, kathmandu = (running.app[PROVIDERS][name] for name in ("tokyo", "kathmandu"))
    assert (tokyo.info.title, kathmandu.info.title) == ("Clock of Tokyo", "Clock of Kathmandu")


async def test_wrapper_example_times_history(
    guide: Callable[..., str], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    module: Any = discovery.import_named(guide("slow_log.py"))
    moments = iter((0.0, 1.5))
    monkeypatch.setattr(module, "time", type("Time", (), {"monotonic": staticmethod(lambda: next(moments))}))
    async with opened(tally(), module) as provider:
        await provider.candles(StreamKey("TALLY", "1s"), None, int(time.time()), 2)
    assert caplog.messages == ["history of TALLY took 1.5 s"]


async def test_smallest_provider_is_where_the_guide_says() -> None:
    assert "`tests/plugins/clock.py`" in GUIDE
    async with open_provider(path_of("clock")) as provider, WatchedFeed(provider, [StreamKey("X", "1s")]) as feed:
        assert await feed.until(lambda: feed.updates, 3)


async def test_lines_of_the_guide_that_are_no_files_run(caplog: pytest.LogCaptureFixture) -> None:
    carries, invalidates, logs, changes = re.findall(r"```python\n(?!# \S+\.py\n)(.*?)```", GUIDE, re.DOTALL)
    row = [1_700_000_000_000, "1.0", "2.0", "0.5", "1.5", "10", 0, "15", 7, "4", "6"]
    names: dict[str, Any] = {"written_candle": relay.written_candle, "row": row, "found": []}
    exec(carries.replace("return ", "found.append(").rstrip() + ")", names)
    (candle,) = names["found"]
    assert (candle.time, candle.close, candle.trades, candle.taker_quote_volume) == (1_700_000_000, 1.5, 7, 6.0)

    told: list[Any] = []
    lines = "".join(f"    {line}\n" for line in invalidates.splitlines())
    exec(f"async def report(self, watchlist, key, split_at):\n{lines}", names)

    async def note(*values: Any, **options: Any) -> None:
        told.append((*values, options))

    author = SimpleNamespace(memory=SimpleNamespace(save=note))
    await names["report"](author, SimpleNamespace(invalidate=note), StreamKey("X", "1d"), 1_700_000_000)
    assert told == [(StreamKey("X", "1d"), 1_700_000_000, {"settle_s": 30.0}), (1_700_000_000, {})]

    async def answer(*values: Any, params: Any) -> Any:
        return SimpleNamespace(body=[{"symbol": "X", "time": params["from"]}])

    hook = {name: getattr(relay, name) for name in ("hookimpl", "PastChange", "StreamKey")}
    exec(changes, names | hook | {"ask_rest": answer, "HOSTS": None}, names)
    assert await names["relay_past_changes"](5, None) == [PastChange(StreamKey("X", "1d"), before=5)]

    exec(logs, {"logging": logging, "event": relay.event, "symbol": "X", "__name__": "made"})
    assert caplog.messages == ["no ticks of X, it is polled"]
    assert caplog.records[0].fields == {"event": "ticks_refused", "symbol": "X"}  # type: ignore[attr-defined]


def test_example_files_are_in_the_guide() -> None:
    names = re.findall(r"```python\n# (\S+)\n", GUIDE)
    assert names == [
        "bitstamp.py",
        "okx.py",
        "bitstamp_trades.py",
        "ccxt_exchange.py",
        "clocks.py",
        "xetra.py",
        "bitstamp_standin.py",
        "test_bitstamp.py",
        "test_refusal.py",
        "slow_log.py",
    ]
    assert isinstance(Sandbox, type)


async def test_calendar_example_polls_and_knows_its_hours(
    serve: Callable[[web.Application], Any], guide: Callable[..., str]
) -> None:
    async def candles(request: web.Request) -> web.Response:
        opened = int(time.time()) // 900 * 900
        return web.json_response([[opened - 900, 1, 1, 1, 1, 1, True], [opened, 1, 1, 1, 1, 1, False]])

    app = web.Application()

    async def share(request: web.Request) -> web.Response:
        status = 200 if request.match_info["symbol"] == "SAP" else 404
        return web.json_response({"name": "SAP SE"}, status=status)

    app.add_routes([web.get("/candles", candles), web.get("/shares/{symbol}", share)])
    settings = {"rest_url": f"http://{await serve(app)}"}
    key = StreamKey("SAP", "15m")
    async with open_provider(guide("xetra.py"), settings) as provider:
        market = provider.market("SAP")
        assert market.opens_at(at("2026-12-30 13:00")) == at("2027-01-04 08:00")
        assert market.end_of("1h", at("2026-07-01 15:00")) == at("2026-07-01 15:30")
        assert provider.hours.session_text("SAP") == "0900-1730 Europe/Berlin"
        found = await provider.instrument("SAP")
        assert found is not None
        assert (found.name, found.session) == ("SAP SE", "0900-1730 Europe/Berlin")
        assert await provider.instrument("NOPE") is None
        async with WatchedFeed(provider, [key]) as feed:
            assert await feed.until(lambda: len(feed.updates) > 1, timeout_s=5)


def test_the_stocks_plugin_knows_when_new_york_trades() -> None:
    assert NYSE.session_at(at("2026-11-25 21:00")) == OpenHours(at("2026-11-27 14:30"), at("2026-11-27 18:00"))


async def test_hook_relay_hours_may_return_a_calendar() -> None:
    calendars = {"STOCK": NYSE, "COIN": TradingCalendar("UTC", "24x7")}
    async with opened(provider_of(relay_hours=lambda symbol: calendars.get(symbol))) as provider:
        friday = at("2026-07-02 20:00")
        assert provider.market("STOCK").opens_at(friday) == at("2026-07-06 13:30")
        assert [provider.market(symbol).opens_at(friday) for symbol in ("COIN", "OTHER")] == [friday, friday]
        assert [provider.hours.session_text(symbol) for symbol in ("STOCK", "COIN", "OTHER")] == [
            "0930-1600 America/New_York",
            "24x7",
            None,
        ]
