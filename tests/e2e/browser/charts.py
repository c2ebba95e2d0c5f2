"""Looks into the chart page through `window.relayCharts`, which anybody may read from a console."""

from typing import Any

from playwright.async_api import Page

Panel = dict[str, Any]


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
