"""How Chromium is started here: Debian's, without a screen, and quiet towards the network."""

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from playwright.async_api import Browser, Playwright

from tests.support.tools import tool

SHELL = "chromium-headless-shell"
"""Chromium without what is around a page: a page in it costs a sixth of the CPU time."""

FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


def chromium(config: pytest.Config) -> str:
    """Return where the shell is, or the whole Chromium. Without either the test is skipped, or fails."""
    return shutil.which(SHELL) or tool("chromium", SHELL, config)


@asynccontextmanager
async def launch(playwright: Playwright, path: str) -> AsyncIterator[Browser]:
    """Run the browser at `path` for as long as the block lasts."""
    browser = await playwright.chromium.launch(executable_path=path, headless=True, args=[*FLAGS])
    try:
        yield browser
    finally:
        await browser.close()
