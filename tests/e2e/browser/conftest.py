"""The pages in a real Chromium: a profile per test, watched for everything that a page must not do.

Relay and stand-ins are in the process of the test, whose timers wait through its pauses: a history that a busy machine
holds up is no answer 504.

All tests of a process share one browser: to start it and Playwright takes as long as a test. Both belong to an event
loop, so the tests and their fixtures (`async_fixture`) share that too; what a test leaves in it ends with the test, as
elsewhere with the loop.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import pytest
import pytest_asyncio
from playwright.async_api import (
    Browser,
    BrowserContext,
    ConsoleMessage,
    Page,
    Playwright,
    Request,
    Response,
    async_playwright,
    expect,
)

from tests.conftest import StartRelay
from tests.e2e.browser.chromium import chromium, launch
from tests.support.process_pauses import PauselessClock
from tests.support.running_relay import Running, relays
from tests.support.sandbox import Sandbox

OpenPage = Callable[..., Awaitable[Page]]

PATIENCE_MS = 90_000
"""Longer than a busy machine needs; only what fails takes it."""

expect.set_options(timeout=PATIENCE_MS)

async_fixture = partial(pytest_asyncio.fixture, loop_scope="session")
"""What all fixtures here that await something are marked with."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark all tests of this directory, and run them in one loop."""
    for item in items:
        if "tests/e2e/browser/" in item.nodeid:
            item.add_marker(pytest.mark.browser)
            if pytest_asyncio.is_async_test(item):
                item.add_marker(pytest.mark.asyncio(loop_scope="session"), append=False)


@async_fixture(autouse=True)
async def _loop_of_a_test() -> AsyncIterator[None]:
    """Have all of the test's own timers wait while its process does not run, and end what it leaves in the loop."""
    before = asyncio.all_tasks()
    async with PauselessClock():
        yield
    left = asyncio.all_tasks() - before - {asyncio.current_task()}
    for task in left:
        task.cancel()
    await asyncio.gather(*left, return_exceptions=True)


class Watch:
    """What a page did that it must not: errors, requests to other hosts, violations of the content policy."""

    def __init__(self) -> None:
        self.faults: list[str] = []
        self.hosts: set[str] = set()
        self._is_away = False

    @contextlib.contextmanager
    def away(self) -> Iterator[None]:
        """Expect failed requests: the relay is not there."""
        self._is_away = True
        yield
        self._is_away = False

    def follow(self, page: Page) -> None:
        page.on("console", self._on_console)
        page.on("pageerror", lambda error: self.faults.append(f"threw {error}"))
        page.on("request", self._on_request)
        page.on("websocket", lambda socket: self._on_address(socket.url))
        page.on("response", self._on_response)

    def _on_console(self, message: ConsoleMessage) -> None:
        # Chromium logs each failed request; those are judged by `_on_response` and by who is away.
        is_network = message.text.startswith(("Failed to load resource", "WebSocket connection to"))
        is_ours = message.text.startswith("Canvas2D: Multiple readback")  # a test that looks at pixels
        if message.type in ("error", "warning") and not (is_ours or (is_network and self._is_away)):
            self.faults.append(f"{message.type}: {message.text}")

    def _on_request(self, request: Request) -> None:
        self._on_address(request.url)

    def _on_address(self, url: str) -> None:
        if not url.startswith("data:"):
            self.hosts.add(urlsplit(url).hostname or "")

    def _on_response(self, response: Response) -> None:
        if response.status >= 400 and not self._is_away:
            self.faults.append(f"{response.url} answered {response.status}")


@async_fixture
async def sandbox(request: pytest.FixtureRequest) -> AsyncIterator[Sandbox]:
    """Both stand-ins, with two events a second: a chart that is drawn more often takes the time of other tests."""
    async with Sandbox(pace_s=0.5, forex_always_open=True, extra_symbols=getattr(request, "param", 0)) as running:
        yield running


@async_fixture
async def fast() -> AsyncIterator[Sandbox]:
    """Stand-ins that live four times as fast, with ten events a second."""
    async with Sandbox(speed=4, pace_s=0.1, forex_always_open=True) as running:
        yield running


@async_fixture
async def relay_with(sandbox: Sandbox) -> AsyncIterator[StartRelay]:
    """Start relays, as elsewhere, in the loop of the browser."""
    async with relays(sandbox) as start:
        yield start


@async_fixture
async def relay(relay_with: StartRelay) -> Running:
    """A relay with default settings against the stand-ins."""
    return await relay_with()


class Chromium:
    """The browser of this process; another one where it is gone."""

    def __init__(self, path: str, playwright: Playwright, stack: AsyncExitStack) -> None:
        self._path = path
        self._playwright = playwright
        self._stack = stack
        self._browser: Browser | None = None

    async def get(self) -> Browser:
        if self._browser is None or not self._browser.is_connected():
            self._browser = await self._stack.enter_async_context(launch(self._playwright, self._path))
        return self._browser


@async_fixture(scope="session")
async def _chromium(pytestconfig: pytest.Config) -> AsyncIterator[Chromium]:
    path = chromium(pytestconfig)
    async with async_playwright() as playwright, AsyncExitStack() as stack:
        yield Chromium(path, playwright, stack)


@async_fixture
async def browser(_chromium: Chromium) -> AsyncIterator[Browser]:
    """The browser; the profiles that a test makes in it end with the test."""
    browser = await _chromium.get()
    yield browser
    for context in browser.contexts:
        await context.close()


async def new_context(browser: Browser, **options: Any) -> BrowserContext:
    """Make a profile whose pages wait as long as all else here; keywords are Playwright's."""
    context = await browser.new_context(**options)
    context.set_default_timeout(PATIENCE_MS)
    return context


async def resize(page: Page, width: int, height: int) -> None:
    """Give the window another size; return when the page has it."""
    await page.set_viewport_size({"width": width, "height": height})
    has_it = "(size) => matchMedia(`(width: ${size[0]}px) and (height: ${size[1]}px)`).matches"
    await page.wait_for_function(has_it, arg=[width, height])


@async_fixture
async def watch() -> AsyncIterator[Watch]:
    """Fails the test at its end where a page did what it must not."""
    watch = Watch()
    yield watch
    assert watch.faults == []
    assert watch.hosts <= {"127.0.0.1"}


@async_fixture
async def open_page(browser: Browser, watch: Watch) -> OpenPage:
    """Open an address in a browser profile of its own; keywords are Playwright's for a context."""

    async def open_page(url: str, **options: Any) -> Page:
        options.setdefault("viewport", {"width": 1280, "height": 800})
        page = await (await new_context(browser, **options)).new_page()
        watch.follow(page)
        await page.goto(url)
        return page

    return open_page
