"""The conformance check that authors run: it passes good providers, ours too, and names what is wrong with others."""

import asyncio
import itertools
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from types import ModuleType
from typing import Any

import pytest
from aiohttp import ClientError, WSServerHandshakeError, web

from providers.binance import BinanceProvider
from providers.binance_usdm import BinanceUsdmProvider
from providers.twelve_data import TwelveDataProvider
from relay import (
    API_VERSION,
    Budget,
    Candle,
    Instrument,
    PastChange,
    PriceUpdate,
    ProviderInfo,
    ProviderUnavailable,
    RateLimited,
    Setting,
    StreamKey,
    each_stream,
    hookimpl,
)
from relay.core.errors import ConfigError
from relay.core.intervals import length_s
from relay.plugins.cancellation import PluginTiming
from relay.testing import (
    DoesNotConform,
    FaultName,
    Report,
    Tolerances,
    WatchedFeed,
    check_provider,
    open_provider,
    sped_up,
)
from relay.testing.check_speed import typical
from relay.testing.tolerances import UNKNOWN_SYMBOL
from tests.integration.test_plugins import path_of, provider_of, tally
from tests.support.loopback_server import app_of, loopback_server
from tests.support.running_relay import settings_of
from tests.support.sandbox import Sandbox

KEY = StreamKey("X", "1m")


# Little patience.
TIMING = PluginTiming(call_grace_s=0.1, feed_grace_s=0.1, kill_grace_s=0.1)
TOLERANCES = Tolerances(end_s=0.2, settle_s=0.1, plugin=TIMING)


async def check(plugin: object, **options: Any) -> Report:
    """Check a provider soon after the beginning of a minute: no candle of its ends meanwhile.

    Candles that close are watched in `test_mutants.py`.
    """
    await asyncio.sleep(65 - time.time() % 60)
    return await check_provider(plugin, **{"tolerances": TOLERANCES, "watch_s": 0.0, **options})


async def faults_of(plugin: object, *, symbol: str = "X", interval: str = "1m", **options: Any) -> list[str]:
    """Check a bad provider; return the sentences."""
    options.setdefault("timeout_s", 0.3)
    with pytest.raises(DoesNotConform) as caught:
        await check(plugin, symbol=symbol, interval=interval, **options)
    return [finding.seen for finding in caught.value.findings]


@pytest.mark.parametrize(
    "given",
    [
        {"interval": "7m"},
        {"interval": "1m", "intervals": ("1m", "7m")},
        {"interval": "1m", "other": StreamKey("X", "7m")},
        {"interval": "1m", "expected": {StreamKey("X", "7m"): []}},
    ],
)
async def test_an_interval_that_there_is_not_is_refused_with_what_there_is(given: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="'7m' is not an interval; use one of 1s 1m 3m"):
        await check(object(), symbol="X", **given)


# -- good providers --------------------------------------------------------------------------------


VALUES = (
    "values: nothing says which values are right, if stream and history are wrong in the same way; pass candles of the "
    "venue's own chart as expected={StreamKey(symbol, interval): [Candle(…)]}"
)


@sped_up
async def conforming(plugin: object, name: str, symbol: str, interval: str, **options: Any) -> Report:
    """Check one of our own providers against its stand-in, in time that jumps."""
    async with Sandbox(pace_s=0.5, forex_always_open=True, futures=True) as sandbox:
        settings = {**settings_of(sandbox)[name], **options.pop("settings", {})}
        return await check_provider(plugin, symbol=symbol, interval=interval, settings=settings, **options)


@pytest.mark.parametrize("interval", ["1s", "1m"])
def test_binance_conforms(interval: str) -> None:
    report = conforming(BinanceProvider, "binance", "BTCUSDT", interval)
    assert [part for part in report.checked if not part.startswith("live values")] == [
        "relay_provider is pure",
        "instruments",
        "hours",
        "watchlist",
        "stream",
        "closing",
        "a second feed, closed between updates",
        "reconnect",
        "unknown symbol in a stream",
        "speed",
        "history",
        "pages",
        "intervals",
        "unknown symbol in history",
        "cancelled history",
        "budgets",
        "refusal",
    ]
    assert {"live values of BTCUSDT@1s", "live values of BTCUSDT@1m", "live values of BTCUSDT@1d"} <= set(
        report.checked
    )
    assert report.unchecked == (VALUES,)
    assert report.updates_per_cpu_s is not None
    assert report.updates_per_cpu_s > 1000


def test_futures_of_binance_conform() -> None:
    report = conforming(BinanceUsdmProvider, "binance_usdm", "BTCUSDT", "1m")
    assert {"instruments", "stream", "closing", "reconnect", "history", "pages", "intervals", "refusal"} <= {
        *report.checked
    }
    assert report.unchecked == (VALUES,)


def test_twelve_data_conforms() -> None:
    report = conforming(TwelveDataProvider, "twelve_data", "EUR/USD", "1m")
    assert report.unchecked == (
        "that each candle is closed: the feed polls by a plan (watchlist.expect), so a candle may stay open; the relay "
        "asks for its values then",
        "reconnect: the feed holds no WebSocket that could be lost",
        "speed: the provider read no messages from a WebSocket",
        VALUES,
    )
    assert {"closing", "live values of EUR/USD@1m", "history", "intervals", "refusal"} <= set(report.checked)


def test_twelve_data_with_a_tick_stream_conforms() -> None:
    report = conforming(
        TwelveDataProvider, "twelve_data", "EUR/USD", "1m", settings={"mode": "stream"}, survives_loss=True
    )
    assert {"stream", "closing", "reconnect", "speed", "history", "refusal"} <= set(report.checked)


async def test_feed_that_has_nothing_else_does_not_survive_the_loss_of_its_socket(venue: str) -> None:
    async def relay_stream(watchlist: Any, session: Any) -> AsyncIterator[PriceUpdate]:
        async with session.ws_connect(venue) as socket:
            async for update in told(socket, watchlist):
                yield update

    faults = await faults_of(provider_of(relay_stream=relay_stream), survives_loss=True)
    assert "relay_stream ended when its WebSocket was lost, although survives_loss is set" in faults


def test_clock_conforms_although_much_cannot_be_checked() -> None:
    report = sped_up(check_provider)(path_of("clock"), symbol="X", interval="1s")
    assert report.checked == (
        "relay_provider is pure",
        "hours",
        "watchlist",
        "stream",
        "closing",
        "a second feed, closed between updates",
        "budgets",
    )
    assert [what.partition(":")[0] for what in report.unchecked] == [
        "instruments",
        "live values",
        "reconnect",
        "unknown symbol in a stream",
        "speed",
        "history",
        "pages",
        "intervals",
        "values",
        "unknown symbol in history",
        "cancelled history",
        "refusal",
    ]


def test_class_with_every_hook_conforms() -> None:
    other = StreamKey("NOSUCH", "1s")
    report = sped_up(check_provider)(tally(), symbol="TALLY", interval="1s", other=other, settings={"step": 3})
    assert report.unchecked == (
        "reconnect: the feed holds no WebSocket that could be lost",
        "speed: the provider read no messages from a WebSocket",
        "intervals: there is one interval only, so none to compare with",
        VALUES,
        "refusal: the provider asks nothing through its session; use `session`",
    )
    assert "closing" in report.checked


async def test_a_change_of_the_future_is_blamed() -> None:
    async def relay_past_changes(since: int | None) -> list[PastChange]:
        return [PastChange(StreamKey("X", "1d"), int(time.time()) + 30 * 86_400)]

    seen = await faults_of(provider_of(relay_past_changes=relay_past_changes))
    assert any("relay_past_changes names a change of the future: X@1d before" in sentence for sentence in seen), seen


# -- what a relay would refuse ---------------------------------------------------------------------


async def test_plugin_that_a_relay_would_refuse_is_refused() -> None:
    with pytest.raises(DoesNotConform) as caught:
        await check(path_of("wrong_api"), symbol="X", interval="1m")
    assert caught.value.faults == (FaultName.NOT_LOADED,)
    assert await faults_of(path_of("wrong_api")) == [
        "needs provider API 3, this relay has 2.1; install a newer market-relay, or an older version of the plugin"
    ]


async def test_settings_of_a_check_decide_how_the_provider_describes_itself() -> None:
    plugin = path_of("exchanges") + ":Exchanges"
    async with open_provider(plugin, {"exchange": "kraken"}) as provider:
        assert (provider.info.title, provider.info.intervals) == ("Exchanges: kraken", ("1m", "1h"))
        assert provider.said_again() == provider.info
    with pytest.raises(DoesNotConform, match="candles_per_call is 0, not a whole number of at least 1"):
        async with open_provider(plugin, {"exchange": "nowhere"}):
            pass


async def test_plugin_that_only_wraps_is_no_provider() -> None:
    assert await faults_of(path_of("doubles")) == ["it only wraps hooks of others: there is no provider to check"]


async def test_unknown_setting_is_a_configuration_error() -> None:
    with pytest.raises(ConfigError, match=r"unknown key 'depth' in \[clock\]"):
        await check(path_of("clock"), symbol="X", interval="1s", settings={"depth": 1})


# -- streams that do not conform -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("stream_raises", "relay_stream raised KeyError: 'close'"),
        ("stream_raises_later", "relay_stream raised ZeroDivisionError: price by no volume"),
        ("stream_ends", "relay_stream ended by itself while streams were wanted"),
        (
            "stream_is_no_generator",
            "relay_stream raised BadAnswer: relay_stream returned coroutine, not an async generator; write `def`, not "
            "`async def`, around `return`",
        ),
        ("rubbish", "relay_stream: relay_stream yielded None, not PriceUpdate"),
        ("ignores_watchlist", "relay_stream does not follow the watchlist: nothing of OTHER@1m after it was added"),
        ("never_closes", "relay_stream did not end within 0.2 s after it was cancelled; let CancelledError pass"),
        ("leaves_tasks", "stream: left 1 tasks running (relay's); end every task that you create"),
    ],
)
async def test_misbehaving_stream_is_named(name: str, sentence: str) -> None:
    faults = await faults_of(path_of(name))
    if name == "leaves_tasks":
        faults = [fault.replace(fault[fault.index("(") : fault.index(")")], "(relay's") for fault in faults]
    assert sentence in faults


async def test_stream_that_swallows_cancellation_is_named() -> None:
    async def relay_stream(watchlist: Any) -> AsyncIterator[PriceUpdate]:
        try:
            while True:
                for key in watchlist.streams:
                    yield price(key)
                await asyncio.sleep(0.23)  # where the cancellation is to land
        except asyncio.CancelledError:
            return

    assert "relay_stream swallowed CancelledError; let it pass" in await faults_of(
        provider_of(relay_stream=relay_stream)
    )


async def test_stream_that_goes_on_after_it_was_removed_is_named() -> None:
    async def relay_stream(watchlist: Any) -> AsyncIterator[PriceUpdate]:
        wanted: dict[StreamKey, None] = {}
        while True:
            wanted |= dict.fromkeys(watchlist.streams)
            for key in wanted:
                yield price(key)
            await asyncio.sleep(0.01)

    assert await faults_of(provider_of(relay_stream=relay_stream)) == [
        "relay_stream does not follow the watchlist: X@1h goes on after it was removed"
    ]


async def test_silent_stream_is_named() -> None:
    assert await faults_of(provider_of()) == ["relay_stream yielded nothing for X@1m within 0.3 s"]


def minute() -> int:
    return int(time.time()) // 60 * 60


def price(key: StreamKey, opened: int | None = None, **fields: Any) -> PriceUpdate:
    present = int(time.time()) // length_s(key.interval) * length_s(key.interval)
    return PriceUpdate(key, Candle(present if opened is None else opened, 1.0, 2.0, 1.0, 2.0), **fields)


def stream_of(*updates: Callable[[StreamKey], PriceUpdate]) -> Any:
    """Make a provider that yields these for each stream, over and over."""

    async def relay_stream(watchlist: Any) -> AsyncIterator[PriceUpdate]:
        for update in itertools.cycle(updates):
            for key in watchlist.streams:
                if key.symbol != UNKNOWN_SYMBOL:
                    yield update(key)
            await asyncio.sleep(0.01)

    return provider_of(relay_stream=relay_stream)


@pytest.mark.parametrize(
    ("updates", "part"),
    [
        ([lambda key: price(key, minute() + 3600)], "opens in the future"),
        ([lambda key: price(key, minute() + 1)], "is not an open time of 1m: it is not a multiple of 60 s"),
        ([price, lambda key: price(key, minute() - 60)], "came as open after one of"),
        ([lambda key: price(key, is_closed=True), price], "is open again after it was closed"),
        ([lambda key: price(key, minute() * 1000)], "is not in Unix seconds"),
    ],
)
async def test_times_that_make_no_sense_are_named(updates: list[Callable[[StreamKey], PriceUpdate]], part: str) -> None:
    faults = await faults_of(stream_of(*updates))
    assert any(part in fault for fault in faults), faults


def test_candle_that_is_never_closed_is_named_where_there_is_no_history() -> None:
    async def relay_stream(watchlist: Any) -> AsyncIterator[PriceUpdate]:
        while True:
            for key in watchlist.streams:
                yield price(key, int(time.time()))
            await asyncio.sleep(0.1)

    def relay_provider() -> ProviderInfo:
        return ProviderInfo("made", API_VERSION, "Made", ("demo",), ("1s",), close_grace_s=0.5)

    plugin = provider_of(relay_provider=relay_provider, relay_stream=relay_stream)
    with pytest.raises(DoesNotConform) as caught:
        sped_up(check_provider)(plugin, symbol="X", interval="1s")
    assert caught.value.faults == (FaultName.NEVER_CLOSES,)
    assert "was never closed, and there is no relay_candles to ask" in str(caught.value)


async def test_blocked_event_loop_is_named() -> None:
    async def relay_stream(watchlist: Any) -> AsyncIterator[PriceUpdate]:
        while True:
            time.sleep(0.2)  # noqa: ASYNC251 - that is the point
            for key in watchlist.streams:
                yield price(key)
            await asyncio.sleep(0.01)

    tolerances = TOLERANCES._replace(blocked_s=0.05)
    with pytest.raises(DoesNotConform) as caught:
        await check(
            provider_of(relay_stream=relay_stream), symbol="X", interval="1m", timeout_s=0.3, tolerances=tolerances
        )
    assert FaultName.BLOCKS_LOOP in caught.value.faults
    assert "blocked the event loop for" in str(caught.value)


async def test_session_that_is_closed_and_answers_that_are_kept_are_named(sandbox: Sandbox) -> None:
    kept = []

    async def relay_stream(watchlist: Any, session: Any) -> AsyncIterator[PriceUpdate]:
        kept.append(await session.ws_connect(f"{sandbox.binance.ws_url}/ws"))
        while True:
            for key in watchlist.streams:
                yield price(key)
            await asyncio.sleep(0.01)

    faults = await faults_of(provider_of(relay_stream=relay_stream))
    assert "stream: left 1 connection open; use `async with` for answers and sockets" in faults

    async def closing_stream(watchlist: Any, session: Any) -> AsyncIterator[PriceUpdate]:
        async with session:
            while True:
                for key in watchlist.streams:
                    yield price(key)
                await asyncio.sleep(0.01)

    faults = await faults_of(provider_of(relay_stream=closing_stream))
    assert "stream: closed the session, which belongs to the relay" in faults


# -- upstreams that are lost, refuse or send a lot -------------------------------------------------


@pytest.fixture
async def venue() -> AsyncIterator[str]:
    """The address of a venue."""
    async with a_venue() as address:
        yield address


@asynccontextmanager
async def a_venue() -> AsyncIterator[str]:
    """A server whose WebSocket says the present minute fifty times a second; its address."""

    async def serve(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)

        async def send() -> None:
            with suppress(ConnectionError):
                while True:
                    await socket.send_json({"opened": minute()})
                    await asyncio.sleep(0.02)

        sender = asyncio.create_task(send())
        async for _ in socket:
            pass
        sender.cancel()
        return socket

    async with loopback_server(app_of(serve)) as host:
        yield f"http://{host}/"


async def told(socket: Any, watchlist: Any) -> AsyncIterator[PriceUpdate]:
    """Read a socket of the venue as a feed does."""
    async for message in socket:
        for key in watchlist.streams:
            yield price(key, message.json()["opened"])


async def test_good_feed_survives_loss_refusal_and_replay(venue: str) -> None:
    async def relay_stream(watchlist: Any, session: Any) -> AsyncIterator[PriceUpdate]:
        async with session.ws_connect(venue) as socket:
            async for update in told(socket, watchlist):
                yield update

    plugin = provider_of(relay_stream=relay_stream)
    report = await check(plugin, symbol="X", interval="1m", timeout_s=0.5)
    assert {"reconnect", "speed", "refusal"} <= set(report.checked)
    assert report.updates_per_cpu_s is not None


def a_socket_a_stream(venue: str, *, at_loss: BaseException | None = None) -> Any:
    """A provider with a connection for each stream; what it raises `at_loss`, else it ends."""

    def relay_stream(watchlist: Any, session: Any) -> AsyncGenerator[PriceUpdate, None]:
        async def follow(key: StreamKey) -> AsyncGenerator[PriceUpdate, None]:
            async with session.ws_connect(venue) as socket:
                async for message in socket:
                    yield price(key, message.json()["opened"])
            if at_loss is not None:
                raise at_loss

        return each_stream(watchlist, follow)

    return provider_of(relay_stream=relay_stream)


@sped_up
async def test_feed_of_one_connection_a_stream_survives_loss_and_refusal() -> None:
    async with a_venue() as venue:
        report = await check(a_socket_a_stream(venue), symbol="X", interval="1m", timeout_s=5)
    assert {"stream", "watchlist", "reconnect", "refusal"} <= set(report.checked)


@sped_up
async def test_stream_that_stumbles_over_its_lost_connection_is_named() -> None:
    async with a_venue() as venue:
        plugin = a_socket_a_stream(venue, at_loss=KeyError("last"))
        with pytest.raises(DoesNotConform) as caught:
            await check(plugin, symbol="X", interval="1m", timeout_s=5)
    assert caught.value.faults == (FaultName.HOOK_FAILS,)
    assert "failed in the stream X@1m" in str(caught.value)


@sped_up
async def test_stream_that_fails_from_the_beginning_is_named() -> None:
    def relay_stream(watchlist: Any) -> AsyncGenerator[PriceUpdate, None]:
        async def follow(key: StreamKey) -> AsyncGenerator[PriceUpdate, None]:
            for update in list[PriceUpdate]():
                yield update
            raise ProviderUnavailable("the venue is away")

        return each_stream(watchlist, follow)

    with pytest.raises(DoesNotConform) as caught:
        await check(provider_of(relay_stream=relay_stream), symbol="X", interval="1m", timeout_s=5)
    assert FaultName.STREAM_FAILS in caught.value.faults
    assert "relay_stream lost X@1m: ProviderUnavailable: the venue is away" in str(caught.value)


async def test_feed_that_reconnects_by_itself_is_named(venue: str) -> None:
    async def relay_stream(watchlist: Any, session: Any) -> AsyncIterator[PriceUpdate]:
        while True:
            async with session.ws_connect(venue) as socket:
                async for update in told(socket, watchlist):
                    yield update

    assert (
        "relay_stream continued after its connection was lost; let it end, the relay opens the next feed"
        in await faults_of(provider_of(relay_stream=relay_stream))
    )


async def test_feed_that_stumbles_over_a_lost_connection_is_named(venue: str) -> None:
    async def relay_stream(watchlist: Any, session: Any) -> AsyncIterator[PriceUpdate]:
        async with session.ws_connect(venue) as socket:
            async for update in told(socket, watchlist):
                yield update
            raise KeyError("last")

    faults = await faults_of(provider_of(relay_stream=relay_stream))
    assert "relay_stream raised KeyError: 'last' when its connection was lost" in faults


async def test_provider_that_hides_a_refusal_is_named(venue: str) -> None:
    async def relay_stream(watchlist: Any, session: Any) -> AsyncIterator[PriceUpdate]:
        try:
            async with session.ws_connect(venue) as socket:
                async for update in told(socket, watchlist):
                    yield update
        except ClientError:
            await asyncio.Event().wait()

    async def relay_candles(symbol: str, start: int | None, end: int, limit: int, session: Any) -> list[Candle]:
        async with session.get(venue) as answer:
            # The venue serves WebSockets only: 400, unless the check stands in its place.
            return [] if answer.status == 503 else right(symbol, start, end, limit)

    faults = await faults_of(provider_of(relay_stream=relay_stream, relay_candles=relay_candles), timeout_s=0.5)
    assert "relay_stream, when answered 503, neither raises nor reports it within 0.5 s" in faults
    assert "relay_candles raises no error when the provider answers 503" in faults


async def test_refusal_without_its_wait_or_as_a_mistake_is_named(venue: str) -> None:
    async def relay_stream(watchlist: Any, session: Any) -> AsyncIterator[PriceUpdate]:
        try:
            async with session.ws_connect(venue) as socket:
                async for update in told(socket, watchlist):
                    yield update
        except WSServerHandshakeError as error:
            if error.status == 429:
                raise RateLimited("slow down", 1) from None
            raise LookupError("no socket") from None

    faults = await faults_of(provider_of(relay_stream=relay_stream))
    assert any("when answered 503, fails as if it were mistaken" in fault for fault in faults), faults
    assert (
        "relay_stream, when answered 429, with Retry-After: 7 raises RateLimited: slow down, not RateLimited with that "
        "wait"
    ) in faults


async def test_slow_decoding_is_named(venue: str) -> None:
    async def relay_stream(watchlist: Any, session: Any) -> AsyncIterator[PriceUpdate]:
        async with session.ws_connect(venue) as socket:
            async for update in told(socket, watchlist):
                sum(range(200_000))
                yield update

    faults = await faults_of(provider_of(relay_stream=relay_stream), timeout_s=0.5)
    assert any("of CPU until its updates are there" in fault for fault in faults), faults


# -- history that does not conform -----------------------------------------------------------------


def history_of(relay_candles: Callable[..., list[Candle]]) -> Any:
    """Make a provider whose stream is fine and whose history is this."""

    async def answer(symbol: str, interval: str, start: int | None, end: int, limit: int) -> list[Candle]:
        await asyncio.sleep(0)
        if interval == "1h":
            hour = int(time.time()) // 3600 * 3600
            return [Candle(hour, 1.0, 2.0, 1.0, 2.0)] if (start or 0) <= hour < end else []
        return relay_candles(symbol, start, end, limit)

    async def relay_instruments() -> list[Instrument]:
        return [Instrument("X", "demo", "X", "Y")]

    plugin = stream_of(price)
    plugin.relay_candles = hookimpl(answer)
    plugin.relay_instruments = hookimpl(relay_instruments)
    return plugin


def right(symbol: str, start: int | None, end: int, limit: int) -> list[Candle]:
    if symbol != "X":
        return []
    end = min(end, minute() + 60)
    first = max(start or 0, minute() - 100 * 60)
    times = [opened for opened in range(-(-first // 60) * 60, end, 60)]
    times = times[-limit:] if start is None else times[:limit]
    return [Candle(opened, 1.0, 2.0, 1.0, 2.0) for opened in times]


WRONG: dict[str, tuple[Callable[..., list[Candle]], str]] = {
    "end included": (lambda s, a, b, n: right(s, a, b + 60, n), "which is outside: start ≤ open time < end"),
    "start excluded": (lambda s, a, b, n: right(s, None if a is None else a + 60, b, n), "`start` is included"),
    "newest first": (lambda s, a, b, n: right(s, a, b, n)[::-1], "is not in order of time, oldest first"),
    "limit ignored": (lambda s, a, b, n: right(s, a, b, 5000), "more than the limit"),
    "last instead of first": (
        lambda s, a, b, n: right(s, a, b, 5000)[-n:],
        "with a `start` the first `limit` from it",
    ),
    "first instead of last": (
        lambda s, a, b, n: right(s, a or 1, b, n),
        "without a `start` the last `limit` before `end`",
    ),
    "open candle missing": (
        lambda s, a, b, n: right(s, a, min(b, minute()), n),
        "the open candle belongs to the answer",
    ),
    "NaN": (lambda s, a, b, n: [c._replace(close=float("nan")) for c in right(s, a, b, n)], "not a finite number"),
    "candles of any symbol": (lambda s, a, b, n: right("X", a, b, n), "candles of NOSUCHSYMBOL, which does not exist"),
    "too little": (lambda s, a, b, n: right(s, a, b, n)[:3], "has only 3 closed candles"),
}


async def test_right_history_conforms() -> None:
    report = await check(history_of(right), symbol="X", interval="1m", other=StreamKey("X", "1h"), timeout_s=1)
    assert "history" in report.checked


@pytest.mark.parametrize("name", WRONG)
async def test_wrong_history_is_named(name: str) -> None:
    relay_candles, part = WRONG[name]
    faults = await faults_of(history_of(relay_candles))
    assert any(part in fault for fault in faults), faults


@pytest.mark.parametrize(
    ("answer", "part"),
    [
        ("none", "relay_candles returned None, not a list of Candle"),
        ("dict", "relay_candles returned dict, not a list of Candle"),
        ("raises", "failed (RuntimeError in relay_candles)"),
        ("stays", "relay_candles of wrong_history did not end when it was cancelled"),
    ],
)
async def test_misbehaving_history_is_named(answer: str, part: str) -> None:
    tolerances = TOLERANCES._replace(plugin=TIMING._replace(call_timeout_s=0.1))
    faults = await faults_of(path_of("wrong_history"), settings={"answer": answer}, tolerances=tolerances)
    assert any(part in fault for fault in faults), faults


# -- the rest --------------------------------------------------------------------------------------


async def test_wrong_instruments_are_named() -> None:
    faults = await faults_of(path_of("wrong_instruments"), symbol="GONE", settings={"answer": "mixed"})
    assert any("lists 8 invalid instruments" in fault for fault in faults)
    assert "relay_instruments does not list GONE" in faults


async def test_unknown_symbol_that_takes_the_others_along_is_named() -> None:
    async def relay_stream(watchlist: Any) -> AsyncIterator[PriceUpdate]:
        while True:
            for key in watchlist.streams:
                if key.symbol != "X":
                    raise LookupError(key.symbol)
                yield price(key)
            await asyncio.sleep(0.01)

    plugin = history_of(right)
    plugin.relay_stream = hookimpl(relay_stream)
    assert "relay_stream raised LookupError: NOSUCHSYMBOL" in await faults_of(plugin)


async def test_provider_that_changes_its_mind_and_bad_budgets_are_named() -> None:
    titles = itertools.count()

    def relay_provider() -> ProviderInfo:
        return ProviderInfo("made", API_VERSION, f"Made {next(titles)}", ("demo",), ("1m", "1h"))

    def relay_budgets() -> list[Budget]:
        return [Budget("calls", 10, -1, time.time())]

    plugin = stream_of(price)
    plugin.relay_provider = hookimpl(relay_provider)
    plugin.relay_budgets = hookimpl(relay_budgets)
    assert await faults_of(plugin) == [
        "relay_provider returns another value when it is called again",
        "the budget 'calls' has negative numbers",
    ]


async def test_secret_that_shows_is_named() -> None:
    import logging

    async def relay_stream(watchlist: Any, settings: Any) -> AsyncIterator[PriceUpdate]:
        logging.getLogger("my_exchange").warning("connecting with %s", settings["api_key"].reveal())
        while True:
            for key in watchlist.streams:
                yield price(key)
            await asyncio.sleep(0.01)

    def relay_provider() -> ProviderInfo:
        settings = (Setting("api_key", is_secret=True),)
        return ProviderInfo("made", API_VERSION, "Made", ("demo",), ("1m", "1h"), settings=settings)

    plugin = provider_of(relay_provider=relay_provider, relay_stream=relay_stream)
    faults = await faults_of(plugin, settings={"api_key": "0123456789"})
    assert faults == ["the secret api_key shows in a log line or in a text that clients see"]
    with pytest.raises(DoesNotConform) as caught:
        await check(plugin, symbol="X", interval="1m", timeout_s=0.3, settings={"api_key": "0123456789"})
    assert caught.value.faults == (FaultName.LEAKS_SECRET,)


async def test_parts_serve_tests_of_your_own() -> None:
    async with (
        open_provider(tally(), {"step": 5}) as provider,
        WatchedFeed(provider, [StreamKey("TALLY", "1s")]) as feed,
    ):
        assert await feed.until(lambda: feed.updates, 20)
        feed.watchlist.add(StreamKey("NOPE", "1s"))
        assert await feed.until(lambda: feed.rejected, 20)
        assert await feed.cancel() is None
    assert feed.rejected == {StreamKey("NOPE", "1s"): "there is no NOPE"}
    assert feed.faults == []
    assert isinstance(provider.info, ProviderInfo)
    assert not isinstance(feed, ModuleType)


def test_a_clock_that_fails_for_a_moment_makes_nothing_fast() -> None:
    assert typical([9.0, 3.0, 0.0, 3.1, 8.0, 7.0, -0.5, 3.2]) == 3.0
    assert typical([5.0]) == 5.0
    assert typical([0.0]) > 0
