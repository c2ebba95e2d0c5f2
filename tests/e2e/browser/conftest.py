"""The pages in a real Chromium: one browser per test, watched for everything that a page must not do.

Relay and stand-ins are in the process of the test, whose timers wait through its pauses: a history that a busy machine
holds up is no answer 504.
"""

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.async_api import Browser, ConsoleMessage, Page, Request, Response, async_playwright, expect

from tests.e2e.browser.chromium import chromium, launch

OpenPage = Callable[..., Awaitable[Page]]

PATIENCE_MS = 90_000
"""Longer than a busy machine needs; only what fails takes it."""

expect.set_options(timeout=PATIENCE_MS)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark all tests of this directory."""
    for item in items:
        if "tests/e2e/browser/" in item.nodeid:
            item.add_marker(pytest.mark.browser)


@pytest.fixture(autouse=True)
def _patience(patient_loop: None) -> None:
    """Have all of the test's own timers wait while its process does not run."""


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


@pytest.fixture
async def browser(request: pytest.FixtureRequest) -> AsyncIterator[Browser]:
    async with async_playwright() as playwright, launch(playwright, chromium(request.config)) as browser:
        yield browser


@pytest.fixture
async def watch() -> AsyncIterator[Watch]:
    """Fails the test at its end where a page did what it must not."""
    watch = Watch()
    yield watch
    assert watch.faults == []
    assert watch.hosts <= {"127.0.0.1"}


@pytest.fixture
async def open_page(browser: Browser, watch: Watch) -> OpenPage:
    """Open an address in a browser profile of its own; keywords are Playwright's for a context."""

    async def open_page(url: str, **options: Any) -> Page:
        options.setdefault("viewport", {"width": 1280, "height": 800})
        context = await browser.new_context(**options)
        page = await context.new_page()
        page.set_default_timeout(PATIENCE_MS)
        watch.follow(page)
        await page.goto(url)
        return page

    return open_page
