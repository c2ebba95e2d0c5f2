"""Both pages against axe-core: no fault that it calls serious or critical, in both themes."""

from importlib import resources
from typing import Any

import pytest
from playwright.async_api import Page, expect

from tests.e2e.browser.charts import loaded
from tests.e2e.browser.conftest import OpenPage
from tests.support.running_relay import Running

AXE = (resources.files("axe_playwright_python") / "axe.min.js").read_text(encoding="utf-8")
TAGS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]


async def faults(page: Page) -> list[str]:
    """Return the serious faults of the page as it is now, one line each."""
    # Through the debugger, because the content policy lets no script in.
    found: dict[str, Any] = await page.evaluate(
        f"(tags) => {{ {AXE}; return axe.run({{ runOnly: tags, resultTypes: ['violations'] }}); }}", TAGS
    )
    assert found["passes"]
    return [
        f"{one['id']}: {node['target']} {node['failureSummary']}"
        for one in found["violations"]
        if one["impact"] in ("serious", "critical")
        for node in one["nodes"]
    ]


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_chart_page_has_no_serious_fault(relay: Running, open_page: OpenPage, scheme: str) -> None:
    page = await open_page(f"{relay.url}/#BTCUSDT@1m,EUR/USD@1h,EURUSD", color_scheme=scheme)
    await loaded(page, 2)
    assert await faults(page) == []
    await page.keyboard.press("/")
    await page.keyboard.type("usd")
    await expect(page.locator("#picker")).to_be_visible()
    assert await faults(page) == []
    await page.keyboard.press("Escape")
    await page.keyboard.press("?")
    await expect(page.locator("#help")).to_be_visible()
    assert await faults(page) == []
    await page.keyboard.press("Escape")
    await page.keyboard.press("v")
    await expect(page.locator("#view")).to_be_visible()
    assert await faults(page) == []


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
async def test_watch_list_has_no_serious_fault(relay: Running, open_page: OpenPage, scheme: str, width: int) -> None:
    page = await open_page(
        f"{relay.url}/#BTCUSDT@1m,NOPE@1h", color_scheme=scheme, viewport={"width": width, "height": 800}
    )
    await page.locator(".canvas canvas").first.wait_for()
    await page.keyboard.press("w")
    await page.locator("#board li").get_by_text("%").wait_for()
    await page.locator("#board li[data-state=error]").hover()
    assert await faults(page) == []
    for _ in range(2):
        await page.locator("#board .remove").last.click()
    await page.get_by_text("No symbol yet").wait_for()
    assert await faults(page) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_status_page_has_no_serious_fault(relay: Running, open_page: OpenPage, scheme: str) -> None:
    client = await relay.connect()
    await client.subscribe("BTCUSDT@1s", "EUR/USD@1h")
    client.read_on()
    page = await open_page(f"{relay.url}/status.html", color_scheme=scheme)
    await page.get_by_text("BTCUSDT").first.wait_for()
    assert await faults(page) == []


async def test_fault_is_found(relay: Running, open_page: OpenPage) -> None:
    page = await open_page(f"{relay.url}/#BTCUSDT@1m")
    await page.evaluate("document.querySelector('#help-button').removeAttribute('aria-label')")
    await page.evaluate("document.querySelector('#help-button').replaceChildren()")
    await page.evaluate("document.querySelector('#help-button').removeAttribute('title')")
    assert any(fault.startswith("button-name") for fault in await faults(page))
