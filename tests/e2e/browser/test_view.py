"""What the chart page says beside its candles, and how a reader changes the view of them."""

import re

from playwright.async_api import expect

from tests.e2e.browser.charts import loaded, panel, panels, until
from tests.e2e.browser.conftest import OpenPage
from tests.support.running_relay import Running


async def test_changes_say_over_what_and_the_candle_when_it_closes(relay: Running, open_page: OpenPage) -> None:
    page = await open_page(f"{relay.url}/#BTCUSDT@5m")
    await loaded(page)
    await expect(page.locator(".change")).to_have_text(re.compile(r"^[+−]\d+\.\d\d% 5m$"))
    await expect(page.locator(".day")).to_have_text(re.compile(r"^[+−]\d+\.\d\d% 24h$"))
    await expect(page.locator(".left")).to_have_text(re.compile(r"^closes in [0-4]:[0-5]\d$"))
    ago = await relay.get("history", symbol="BTCUSDT", interval="15m", limit=100)
    last, shown = (await panel(page))["candles"][-1], await page.locator(".day").inner_text()
    then = next(one for one in reversed(ago.body["candles"]) if one["time"] <= last["time"] - 86_400 + 300)
    exact = 100 * (last["close"] / then["open"] - 1)
    assert abs(float(shown.split("%")[0].replace("−", "-")) - exact) < 3


async def test_tag_of_the_last_price_stays_that_when_the_reader_looks_at_the_past(
    relay: Running, open_page: OpenPage
) -> None:
    page = await open_page(f"{relay.url}/#BTCUSDT@1m")
    await loaded(page)
    for _ in range(4):
        await page.keyboard.press("ArrowLeft")
    await until(page, "p.visible.times.to < p.candles.at(-1).time")
    await until(page, "p.marks.value === p.candles.at(-1).close")
    await until(page, "/^[1-9]\\d{0,2}(,\\d{3})+\\.\\d\\d$/.test(p.marks.tag)")


async def test_tap_shows_the_candle_and_a_second_one_the_newest_again(relay: Running, open_page: OpenPage) -> None:
    page = await open_page(
        f"{relay.url}/#BTCUSDT@1m", viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True
    )
    await loaded(page)
    for part in (".day", ".change", ".readout >> text=Vol"):
        await expect(page.locator(part)).to_be_visible()
    await expect(page.locator(".readout .time")).to_have_text("")
    await page.touchscreen.tap(150, 450)
    await expect(page.locator(".readout .time")).to_have_text(re.compile(r"^\d{4}-\d\d-\d\d \d\d:\d\d UTC$"))
    await page.wait_for_timeout(600)  # else it is a double tap
    await page.touchscreen.tap(150, 450)
    await expect(page.locator(".readout .time")).to_have_text("")


async def test_view_is_changed_and_remembered(quick: Running, open_page: OpenPage) -> None:
    page = await open_page(f"{quick.url}/#BTCUSDT@1s", timezone_id="America/New_York")
    await loaded(page)
    await expect(page.locator("#clock")).to_have_text(re.compile("UTC$"))
    await page.keyboard.press("v")
    await page.get_by_label("per cent").check()
    await page.get_by_label("local").check()
    await page.get_by_label("averages").check()
    await expect(page.locator("#clock")).to_have_text(re.compile(r"UTC−[45]$"))
    await until(page, "p.marks.scale === 'percent' && p.marks.averages === 3")
    newest = (await panel(page))["candles"][-1]["time"]
    await until(page, "p.candles.at(-1).time > x + 2", newest)
    await page.get_by_role("button", name="Copy link").click()
    await expect(page.locator("#view [role=status]")).to_contain_text("link is")
    await page.get_by_role("button", name="Close").click()
    await page.reload()
    await loaded(page)
    await until(page, "p.marks.scale === 'percent' && p.marks.averages === 3")


async def test_date_is_gone_to_and_one_too_far_back_is_said(relay: Running, open_page: OpenPage) -> None:
    page = await open_page(f"{relay.url}/#BTCUSDT@1h")
    await loaded(page)
    day = await page.evaluate("new Date((relayCharts.panels[0].candles[0].time - 30 * 86400) * 1000).toISOString()")
    await page.keyboard.press("v")
    await page.locator("#view [name=date]").fill(day[:16])
    await page.get_by_role("button", name="Go").click()
    await expect(page.locator("#view")).to_be_hidden()
    await until(page, "p.visible.times.from * 1000 < Date.parse(x) && Date.parse(x) < p.visible.times.to * 1000", day)
    await page.keyboard.press("v")
    await page.locator("#view [name=date]").fill("1999-01-01T00:00")
    await page.get_by_role("button", name="Go").click()
    await expect(page.locator("#view [role=status]")).to_contain_text("choose a longer interval")


async def test_whole_screen_is_taken_and_given_back(relay: Running, open_page: OpenPage) -> None:
    page = await open_page(f"{relay.url}/#BTCUSDT@1m")
    await loaded(page)
    await page.keyboard.press("f")
    await page.wait_for_function("document.fullscreenElement !== null")
    await page.keyboard.press("f")
    await page.wait_for_function("document.fullscreenElement === null")


async def test_what_of_an_address_cannot_be_read_is_said(relay: Running, open_page: OpenPage) -> None:
    page = await open_page(f"{relay.url}/#BTCUSDT@1m,EURUSD")
    await loaded(page)
    await expect(page.locator("#unread")).to_contain_text("Part of the address cannot be read: “EURUSD”")
    await page.locator("#unread button").click()
    await expect(page.locator("#unread")).to_be_hidden()


async def test_charts_of_a_grid_have_scales_of_one_width(relay: Running, open_page: OpenPage) -> None:
    page = await open_page(f"{relay.url}/#BTCUSDT@1m,XRPUSDT@1m,EUR/USD@1h,SOLUSDT@1d")
    await loaded(page, 4)
    await until(page, "all[0].marks.scaleWidth > 0 && new Set(all.map((one) => one.marks.scaleWidth)).size === 1")
    wide = (await panels(page))[0]["marks"]["scaleWidth"]
    await page.evaluate("location.hash = 'XRPUSDT@1m,XRPUSDT@5m'")
    await loaded(page, 2)
    await until(page, "all[0].marks.scaleWidth > 0 && all[0].marks.scaleWidth < x", wide)
