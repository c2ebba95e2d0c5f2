"""A plugin lets go of what it made with settings: once, after the last feed and call with them, and in bounded time."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing
from typing import Any

import pytest

from relay import (
    API_VERSION,
    Candle,
    PriceUpdate,
    ProviderInfo,
    ProviderUnavailable,
    Secret,
    Setting,
    StreamKey,
    Watchlist,
    hookimpl,
)
from relay.testing import open_provider
from tests.support.conditions import eventually

A = StreamKey("A", "1m")
CANDLE = Candle(1_764_000_000, 1.0, 1.0, 1.0, 1.0)


class Client:
    """A provider that keeps a client of a library for each key, as `clients`, until it is told to let go of it."""

    def __init__(self) -> None:
        self.clients: list[str] = []
        self.closed: list[str] = []
        self.may_answer = asyncio.Event()

    def _open(self, settings: Mapping[str, Any]) -> None:
        if settings["key"].reveal() not in self.clients:
            self.clients.append(settings["key"].reveal())

    @hookimpl
    def relay_provider(self) -> ProviderInfo:
        return ProviderInfo(
            name="client", api=(API_VERSION, 1), title="Client", asset_classes=("demo",), intervals=("1m",),
            settings=(Setting("key", "secret"),),
        )  # fmt: skip

    @hookimpl
    async def relay_stream(self, watchlist: Watchlist, settings: Mapping[str, Any]) -> AsyncIterator[PriceUpdate]:
        self._open(settings)
        while True:
            for key in watchlist.streams:
                yield PriceUpdate(key, CANDLE)
            await watchlist.changed(watchlist.version)

    @hookimpl
    async def relay_candles(self, settings: Mapping[str, Any]) -> list[Candle]:
        self._open(settings)
        await self.may_answer.wait()
        return []

    @hookimpl
    async def relay_close(self, session: Any, settings: Mapping[str, Any]) -> None:
        assert not session.closed
        await asyncio.sleep(0.5)
        self.clients.remove(settings["key"].reveal())
        self.closed.append(settings["key"].reveal())


async def test_everything_is_let_go_of_once_at_the_end() -> None:
    plugin = Client()
    async with open_provider(plugin, {"key": "first"}) as provider:
        async with aclosing(provider.stream(Watchlist([A]))) as updates:
            await anext(updates)
        assert (plugin.clients, plugin.closed) == (["first"], [])
    await provider.close()
    assert (plugin.clients, plugin.closed) == ([], ["first"])


async def test_earlier_settings_are_let_go_of_when_the_last_feed_and_call_with_them_have_ended() -> None:
    plugin = Client()
    async with open_provider(plugin, {"key": "first"}) as provider:
        updates = provider.stream(Watchlist([A]))
        await anext(updates)
        call = asyncio.create_task(provider.candles(A, None, 1, 1))
        await asyncio.sleep(1)
        provider.reconfigure({"key": Secret("second")})
        second = provider.stream(Watchlist([A]))
        await anext(second)
        assert plugin.clients == ["first", "second"]
        await updates.aclose()
        await asyncio.sleep(1)
        assert plugin.closed == []
        plugin.may_answer.set()
        await call
        await eventually(lambda: plugin.closed == ["first"])
        assert plugin.clients == ["second"]
        await second.aclose()
        await asyncio.sleep(1)
        assert plugin.closed == ["first"]
        # Nothing ran with these.
        provider.reconfigure({"key": Secret("third")})
        await eventually(lambda: plugin.closed == ["first", "second"])
        plugin.clients.append("third")
    assert plugin.closed == ["first", "second", "third"]


async def test_settings_that_come_back_while_something_runs_with_them_are_not_let_go_of() -> None:
    plugin = Client()
    async with open_provider(plugin, {"key": "first"}) as provider:
        updates = provider.stream(Watchlist([A]))
        await anext(updates)
        provider.reconfigure({"key": Secret("second")})
        plugin.clients.append("second")
        provider.reconfigure({"key": Secret("first")})
        again = provider.stream(Watchlist([A]))
        await anext(again)
        await updates.aclose()
        await asyncio.sleep(1)
        assert plugin.clients == ["first"]
        await again.aclose()
    assert plugin.closed == ["second", "first"]


async def test_settings_are_a_key_by_which_a_plugin_keeps_what_it_made_of_them() -> None:
    kept: dict[Mapping[str, Any], str] = {}

    class Keeping(Client):
        @hookimpl
        async def relay_candles(self, settings: Mapping[str, Any]) -> list[Candle]:
            kept[settings] = settings["key"].reveal()
            return []

        @hookimpl
        async def relay_close(self, settings: Mapping[str, Any]) -> None:  # type: ignore[override]
            self.closed.append(kept.pop(settings))

    plugin = Keeping()
    async with open_provider(plugin, {"key": "first"}) as provider:
        for _ in range(2):
            await provider.candles(A, None, 1, 1)
        provider.reconfigure({"key": Secret("second")})
        await provider.candles(A, None, 1, 1)
        await eventually(lambda: plugin.closed == ["first"])
        assert [*kept.values()] == ["second"]
    assert (plugin.closed, kept) == (["first", "second"], {})


async def test_a_feed_that_fails_lets_go_of_its_settings(caplog: pytest.LogCaptureFixture) -> None:
    plugin = Client()
    async with open_provider(plugin, {"key": "first"}) as provider:
        updates = provider.stream(Watchlist([A]))
        await anext(updates)
        provider.reconfigure({"key": Secret("second")})
        with pytest.raises(ProviderUnavailable, match="ZeroDivisionError"):
            await updates.athrow(ZeroDivisionError)
        await eventually(lambda: plugin.closed == ["first"])
        plugin.clients.append("second")


class Stubborn(Client):
    """One that lets go of nothing in time, or fails."""

    def __init__(self, error: BaseException | None = None) -> None:
        super().__init__()
        self.error = error

    @hookimpl
    async def relay_close(self, session: Any, settings: Mapping[str, Any]) -> None:
        if self.error is not None:
            raise self.error
        while True:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                continue


async def test_a_plugin_that_does_not_let_go_is_ended_in_time_and_named(caplog: pytest.LogCaptureFixture) -> None:
    loop = asyncio.get_running_loop()
    async with open_provider(Stubborn(), {"key": "first"}) as provider:
        began = loop.time()
    assert loop.time() - began <= 4
    assert provider.killed == 1
    assert "relay_close of client did not end within 2 s and is cancelled" in caplog.text
    assert "relay_close of client did not end when it was cancelled and was killed" in caplog.text


@pytest.mark.parametrize(
    "error", [ConnectionResetError("no"), SystemExit(1), asyncio.CancelledError(), GeneratorExit()]
)
async def test_a_plugin_that_fails_to_let_go_is_named_and_the_session_is_closed(
    error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_provider(Stubborn(error), {"key": "first"}) as provider:
        session = provider.session
    assert session.closed
    assert "relay_close of client failed: " in caplog.text


async def test_a_plain_function_may_let_go_too_and_returns_nothing(caplog: pytest.LogCaptureFixture) -> None:
    class Plain(Client):
        @hookimpl
        def relay_close(self, settings: Mapping[str, Any]) -> object:  # type: ignore[override]
            self.closed.append(settings["key"].reveal())
            return 7 if len(self.closed) > 1 else None

    plugin = Plain()
    async with open_provider(plugin, {"key": "first"}) as provider:
        provider.reconfigure({"key": Secret("second")})
        await eventually(lambda: plugin.closed == ["first"])
        assert caplog.text == ""
    assert plugin.closed == ["first", "second"]
    assert "relay_close returned int; it returns nothing" in caplog.text
