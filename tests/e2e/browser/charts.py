"""Looks into the chart page through `window.relayCharts`, which anybody may read from a console."""

import json
from collections.abc import Awaitable, Callable
from typing import Any

from playwright.async_api import Page

from tests.e2e.browser.conftest import OpenPage

Panel = dict[str, Any]

LONG_TAP_MS = 240
"""After this time the library of the charts takes a finger for one that rests."""


async def panels(page: Page) -> list[Panel]:
    """Return what each chart shows."""
    found: list[Panel] = await page.evaluate("relayCharts.panels")
    return found


async def panel(page: Page) -> Panel:
    """Return what the first chart shows."""
    return (await panels(page))[0]


async def until(page: Page, condition: str, argument: object = None) -> None:
    """Wait until a condition on `p` (the first chart), `all` (all of them) and `x` (the argument) holds."""
    script = f"(x) => {{ const all = relayCharts.panels, p = all[0]; return {condition}; }}"
    await page.wait_for_function(script, arg=argument, polling=50)


async def loaded(page: Page, count: int = 1) -> None:
    """Wait until so many charts are there, each with candles, and the page knows the instruments."""
    is_loaded = "all.length === x && all.every((one) => one.isLoaded && one.candles.length > 0)"
    await until(page, f"relayCharts.instruments > 0 && {is_loaded}", count)


async def without_long_taps(page: Page) -> None:
    """Have charts take no finger for one that rests: on a busy machine each does, and takes the cross hair along."""
    await page.evaluate(
        """(longTapMs) => {
          const { setTimeout } = globalThis;
          globalThis.setTimeout = (call, ms, ...rest) => (ms === longTapMs ? 0 : setTimeout(call, ms, ...rest));
        }""",
        LONG_TAP_MS,
    )


async def open_with_list(
    open_page: OpenPage,
    url: str,
    *symbols: str,
    is_open: bool = True,
    before: Callable[[Page], Awaitable[None]] | None = None,
    **options: Any,
) -> Page:
    """Open an address in a browser that remembers a watch list; `before` prepares the page."""
    page = await open_page("about:blank", **options)
    if before is not None:
        await before(page)
    kept = json.dumps(json.dumps({"symbols": symbols, "isOpen": is_open}))
    # A blank page has no storage, and what the page itself remembers later is not replaced.
    await page.add_init_script(f"if (location.protocol !== 'about:') localStorage['relay-watch-list'] ??= {kept};")
    await page.goto(url)
    return page
