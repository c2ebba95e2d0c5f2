"""A chart in a frame of a page of another origin: shown where the operator allows it, and what its address may say."""

from collections.abc import AsyncIterator

from aiohttp import web
from playwright.async_api import Browser, Frame, Page, expect

from tests.conftest import StartRelay
from tests.e2e.browser.charts import loaded
from tests.e2e.browser.conftest import OpenPage, async_fixture, new_context
from tests.support.conditions import eventually
from tests.support.loopback_server import app_of, loopback_server
from tests.support.running_relay import Running

LINK = "?symbol=BTCUSDT&interval=1s&embed=1&theme=dark"


@async_fixture
async def blog() -> AsyncIterator[str]:
    """A page that shows in a frame what its query says; its origin, which is not that of a relay."""

    async def page(request: web.Request) -> web.Response:
        frame = f'<h1>A blog</h1><iframe src="{request.query_string}" width="480" height="240"></iframe>'
        icon = '<link rel="icon" href="data:,">'
        return web.Response(text=f"<!doctype html><title>Blog</title>{icon}{frame}", content_type="text/html")

    async with loopback_server(app_of(page)) as host:
        yield f"http://{host}"


def framed(page: Page) -> Frame:
    """Return what is in the frame of a page."""
    return page.frames[1]


async def test_page_of_a_listed_origin_shows_a_live_chart(
    relay_with: StartRelay, blog: str, open_page: OpenPage
) -> None:
    relay = await relay_with(frame_ancestors=(blog,))
    page = await open_page(f"{blog}/?{relay.url}/{LINK}", color_scheme="light")
    frame = framed(page)
    await frame.wait_for_function("() => relayCharts.panels[0]?.isLoaded && relayCharts.panels[0].lagMs !== null")
    assert frame.url == f"{relay.url}/{LINK}"
    assert await frame.evaluate("relayCharts.panels.map((one) => one.stream)") == ["BTCUSDT@1s"]
    assert await frame.evaluate("document.documentElement.dataset.theme") == "dark"
    await expect(frame.locator(".head .state")).to_have_text("Live")
    await expect(frame.locator(".head .provider")).to_have_text("binance")
    # Nothing to choose by, and nothing too wide; the names that licences ask for, and the way to the whole page.
    for hidden in ("header.top", "#board-side", ".kinds", "#unread", ".elsewhere >> nth=0"):
        await expect(frame.locator(hidden)).to_be_hidden()
    await expect(frame.locator(".head .symbol")).to_be_disabled()
    await expect(frame.locator(".maker a")).to_be_visible()
    await expect(frame.locator("#source")).to_contain_text("Binance")
    await expect(frame.locator("#whole")).to_have_attribute("href", "/#BTCUSDT@1s")
    assert await frame.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert await frame.evaluate("document.documentElement.scrollHeight <= innerHeight")
    # What the reader's own chart page remembers is not touched.
    assert await frame.evaluate("localStorage.length") == 0


async def test_browser_refuses_a_page_that_is_not_listed(relay_with: StartRelay, blog: str, browser: Browser) -> None:
    relay = await relay_with(frame_ancestors=("https://blog.example",))
    page = await (await new_context(browser)).new_page()
    async with page.expect_event("console", lambda one: "frame-ancestors" in one.text):
        await page.goto(f"{blog}/?{relay.url}/{LINK}")
    # The browser says so before the frame is another one.
    await eventually(lambda: framed(page).url == "chrome-error://chromewebdata/")


async def test_wrong_values_are_said_and_nothing_is_guessed(relay: Running, open_page: OpenPage) -> None:
    page = await open_page(f"{relay.url}/?symbol=BTCUSDT&interval=hour&embed=1&theme=dark")
    wrong = page.locator("#unread")
    await expect(wrong).to_contain_text("The address is wrong: “hour” is not an interval such as 1m, 5m, 1h or 1d.")
    assert await page.evaluate("document.documentElement.dataset.theme") == "dark"
    assert await page.locator(".panel").count() == 0
    await page.goto(f"{relay.url}/?embed=1")
    await expect(wrong).to_contain_text("The address is wrong: symbol is missing, such as symbol=BTCUSDT.")
    await page.goto(f"{relay.url}/?symbol=NOPE&embed=1")
    await expect(page.locator("[data-part=text]")).to_contain_text("the search of the whole page lists all")
    await expect(page.locator("[data-part=choose]")).to_be_hidden()
    # What is wrong besides the stream is said beside the chart.
    await page.goto(f"{relay.url}/?symbol=ETHUSDT&theme=blue")
    await loaded(page)
    await expect(wrong).to_contain_text("The address is wrong: theme “blue” is neither dark nor light.")
    await wrong.get_by_role("button").click()
    await expect(wrong).to_be_hidden()


async def test_what_the_reader_chooses_goes_before_the_theme_of_a_link(relay: Running, open_page: OpenPage) -> None:
    page = await open_page(f"{relay.url}/?symbol=BTCUSDT&interval=5m&theme=dark", color_scheme="light")
    await loaded(page)
    await expect(page).to_have_url(f"{relay.url}/?theme=dark#BTCUSDT@5m")
    await page.keyboard.press("t")
    await expect(page).to_have_url(f"{relay.url}/#BTCUSDT@5m")
    await page.reload()
    assert await page.evaluate("document.documentElement.dataset.theme") == "light"
