"""The page of the contracts on a desk and on a phone, in both themes."""

import re

import pytest
from playwright.async_api import expect

from tests.e2e.browser.conftest import OpenPage, resize
from tests.e2e.browser.test_accessibility import faults
from tests.support.running_relay import Running


@pytest.mark.parametrize(("widths", "scheme"), [((1280, 1024), "light"), ((390, 360), "dark")])
async def test_docs_can_be_read(relay: Running, open_page: OpenPage, widths: tuple[int, ...], scheme: str) -> None:
    page = await open_page(f"{relay.url}/docs", color_scheme=scheme)
    assert await page.evaluate("document.documentElement.dataset.theme") == scheme
    for width in widths:
        await resize(page, width, 844)
        assert await page.evaluate("document.documentElement.scrollWidth") <= width
        box = await page.get_by_role("searchbox").bounding_box()
        assert box is not None
        assert box["width"] > 150
    await expect(page.get_by_role("link", name="To the top")).to_be_hidden()
    await page.get_by_text("Statuses").first.click()
    await page.get_by_text("A parameter is missing, unknown or out of bounds.").first.wait_for()
    assert await faults(page) == []
    await page.get_by_role("searchbox").fill("close code 4000 nothing")
    await expect(page.locator("#found")).to_have_text("Nothing found")
    await page.get_by_role("searchbox").fill("4000")
    await expect(page.locator("#found")).to_have_text(re.compile("^[1-3] of "))
    await expect(page.get_by_role("heading", name="How it closes")).to_be_in_viewport(ratio=1)
    await page.get_by_role("searchbox").fill("start_time csv")
    await expect(page.locator("#found")).to_have_text(re.compile("^[1-3] of "))
    await expect(page.locator("#get_history, .card:has(code:text('/history'))").first).to_be_visible()
    assert await faults(page) == []
    await expect(page.locator("#message-SubscribeMany")).to_be_hidden()
    await page.get_by_role("searchbox").fill("")
    await page.get_by_role("link", name="SubscribeMany", exact=True).click()
    await expect(page.locator("#message-SubscribeMany")).to_be_in_viewport()
    await page.get_by_role("link", name="To the top").click()
    await expect(page.get_by_role("searchbox")).to_be_in_viewport()
