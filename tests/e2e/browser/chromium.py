"""How Chromium is started here: Debian's, without a screen, and quiet towards the network."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from playwright.async_api import Browser, Playwright

FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@asynccontextmanager
async def launch(playwright: Playwright, path: str) -> AsyncIterator[Browser]:
    """Run the browser at `path` for as long as the block lasts."""
    browser = await playwright.chromium.launch(executable_path=path, headless=True, args=[*FLAGS])
    try:
        yield browser
    finally:
        await browser.close()
