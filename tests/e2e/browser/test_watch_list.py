"""The watch list: what a reader sees in it and does with it, and what it asks the relay for."""

import re
from typing import Any

import orjson
import pytest
from playwright.async_api import Locator, Page, WebSocketRoute, expect

from tests.conftest import StartRelay
from tests.e2e.browser.charts import loaded, open_with_list, until
from tests.e2e.browser.conftest import OpenPage, Watch, resize
from tests.support.running_relay import Running

Json = dict[str, Any]

PHONE: Json = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}


class Line:
    """The page's connection: what the page asks is kept, and the test adds what a relay could have said."""

    def __init__(self) -> None:
        self.asked: list[Json] = []
        self._route: WebSocketRoute | None = None

    async def attach(self, page: Page) -> None:
        def connect(route: WebSocketRoute) -> None:
            server = route.connect_to_server()
            route.on_message(lambda text: self._pass_on(server, text))
            self._route = route

        await page.route_web_socket("**/ws", connect)

    def _pass_on(self, server: WebSocketRoute, text: str | bytes) -> None:
        self.asked.append(orjson.loads(text))
        server.send(text)

    def say(self, **message: Any) -> None:
        assert self._route is not None
        self._route.send(orjson.dumps(message).decode())


def rows(page: Page) -> Locator:
    return page.locator("#board li")


async def names(page: Page) -> list[str]:
    """Return the symbols of the list, in its order."""
    return await page.locator("#board li .name").all_inner_texts()


async def test_list_shows_prices_and_changes_and_loads_what_is_clicked_into_the_chart_in_use(
    relay: Running, open_page: OpenPage
) -> None:
    page = await open_with_list(
        open_page, f"{relay.url}/#BTCUSDT@5m,SOLUSDT@1h", "BTCUSDT", "ETHUSDT", "EUR/USD", "SOLUSDT"
    )
    await loaded(page, 2)
    await expect(rows(page)).to_have_text([re.compile(r"\d[\d,]*\.\d+[+−]\d+\.\d\d% in 24 hours")] * 4)
    await expect(rows(page).nth(0)).to_contain_text(re.compile(r"BTCUSDT\d{1,3},\d{3}\.\d\d"))
    await expect(rows(page).nth(2)).to_contain_text(re.compile(r"EUR/USD\d\.\d{5}"))
    await expect(rows(page).nth(2).locator(".board-row")).to_have_attribute("title", "EUR / USD · twelve_data")
    change, side = await rows(page).nth(0).locator("[data-side]").evaluate("(one) => [one.innerText, one.dataset.side]")
    assert side == ("up" if change.startswith("+") else "down")
    shown = await rows(page).nth(1).locator(".number").first.inner_text()
    await expect(rows(page).nth(1).locator(".number").first).not_to_have_text(shown)
    marked = page.locator("#board [aria-current]")
    await expect(marked).to_contain_text("BTCUSDT")
    await page.locator(".panel").nth(1).locator(".readout").dispatch_event("pointerdown")
    await expect(marked).to_contain_text("SOLUSDT")
    await rows(page).nth(1).click()
    await until(page, "all[0].stream === 'BTCUSDT@5m' && all[1].stream === 'ETHUSDT@1h'")
    await expect(marked).to_contain_text("ETHUSDT")
    # What is in the chart and what is in the list is one price.
    await until(page, "document.querySelectorAll('.price')[1].textContent.length > 3 && p.isLoaded")
    await page.wait_for_function(
        """() => document.querySelectorAll(".price")[1].textContent ===
          document.querySelector("#board [aria-current] .number").textContent""",
        polling=50,
    )


async def test_list_asks_for_each_symbol_once_and_for_nothing_while_it_is_not_seen(
    relay: Running, open_page: OpenPage
) -> None:
    line = Line()
    page = await open_with_list(
        open_page, f"{relay.url}/#BTCUSDT@15m", "BTCUSDT", "ETHUSDT", "EUR/USD", is_open=False, before=line.attach
    )
    await loaded(page)
    line.asked.clear()
    charts = ["BTCUSDT@15m"]
    both = ["BTCUSDT@15m", "ETHUSDT@15m", "EUR/USD@15m"]
    assert await page.evaluate("relayCharts.streams") == charts
    history: list[str] = []
    page.on("request", lambda request: history.append(request.url) if "/history" in request.url else None)
    await page.keyboard.press("w")
    await expect(rows(page)).to_have_text([re.compile("%")] * 3)
    assert await page.evaluate("relayCharts.streams") == both
    [asked] = [request for request in line.asked if request["action"] == "subscribe"]
    del asked["id"]
    wanted = {"streams": ["ETHUSDT@15m", "EUR/USD@15m"], "bars": 100, "throttle_ms": 1000}
    assert asked == {"action": "subscribe", **wanted}
    assert history == []
    for is_hidden in (True, False):
        await page.evaluate(
            """(isHidden) => {
              Object.defineProperty(document, "hidden", { value: isHidden, configurable: true });
              document.dispatchEvent(new Event("visibilitychange"));
            }""",
            is_hidden,
        )
        assert await page.evaluate("relayCharts.streams") == (charts if is_hidden else both)
    await page.keyboard.press("w")
    assert await page.evaluate("relayCharts.streams") == charts


async def test_keyboard_alone_opens_orders_shortens_and_uses_the_list_and_the_browser_remembers_it(
    relay: Running, open_page: OpenPage
) -> None:
    page = await open_page(f"{relay.url}/#BTCUSDT@5m,ETHUSDT@1m,SOLUSDT@1m")
    await loaded(page, 4)
    await page.keyboard.press("1")
    await page.keyboard.press("w")
    assert await names(page) == ["BTCUSDT"]
    await page.keyboard.press("Tab")
    await page.get_by_role("button", name="Add a symbol").press("Enter")
    await page.keyboard.type("bitcoin eur")
    await page.keyboard.press("Enter")
    await expect(rows(page)).to_have_count(2)
    for symbol in ("ETHUSDT", "SOLUSDT"):
        await page.get_by_role("button", name="Add a symbol").press("Enter")
        await page.keyboard.type(symbol)
        await page.keyboard.press("Enter")
    await expect(rows(page)).to_have_count(4)
    first, second, *others = await names(page)
    assert (first, others) == ("BTCUSDT", ["ETHUSDT", "SOLUSDT"])
    await page.locator("#board .board-row[tabindex='0']").focus()
    await page.keyboard.press("ArrowDown")
    await page.keyboard.press("Delete")
    await expect(page.locator("#board [role=status]")).to_have_text(f"{second} is removed.")
    await expect(rows(page).nth(1).locator(".board-row")).to_be_focused()
    await page.keyboard.press("Alt+ArrowDown")
    await expect(page.locator("#board [role=status]")).to_have_text("ETHUSDT is number 3 of 3.")
    await page.keyboard.press("Home")
    await page.keyboard.press("Alt+ArrowDown")
    assert await names(page) == ["SOLUSDT", "BTCUSDT", "ETHUSDT"]
    await page.keyboard.press("Home")
    await page.keyboard.press("Enter")
    await until(page, "p.stream === 'SOLUSDT@5m'")
    await page.keyboard.press("End")
    await expect(rows(page).nth(2).locator(".board-row")).to_be_focused()
    await page.reload()
    await loaded(page)
    assert await names(page) == ["SOLUSDT", "BTCUSDT", "ETHUSDT"]
    await expect(page.get_by_role("button", name="Watch list", exact=True)).to_have_attribute("aria-expanded", "true")
    await page.keyboard.press("w")
    await page.reload()
    await loaded(page)
    await expect(page.locator("#board")).to_be_hidden()


async def test_list_begins_with_what_is_on_screen_and_goes_its_own_way(relay: Running, open_page: OpenPage) -> None:
    page = await open_page(f"{relay.url}/#BTCUSDT@1m,EUR/USD@1h")
    await loaded(page, 2)
    await page.get_by_role("button", name="Watch list", exact=True).click()
    assert await names(page) == ["BTCUSDT", "EUR/USD"]
    await expect(page.get_by_role("button", name="Add BTCUSDT")).to_be_hidden()
    await page.keyboard.press("/")
    await page.keyboard.type("ethusdt")
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("button", name="Add ETHUSDT")).to_be_visible()
    assert await names(page) == ["BTCUSDT", "EUR/USD"]


async def test_pointer_adds_orders_and_shortens_the_list(relay: Running, open_page: OpenPage) -> None:
    page = await open_with_list(open_page, f"{relay.url}/#EUR/USD@5m", "BTCUSDT", "ETHUSDT", "SOLUSDT")
    await loaded(page)
    await page.get_by_role("button", name="Add EUR/USD").click()
    assert await names(page) == ["BTCUSDT", "ETHUSDT", "SOLUSDT", "EUR/USD"]
    await expect(page.get_by_role("button", name="Add EUR/USD")).to_be_hidden()

    async def drag(symbol: str, to: int, *, beyond: float) -> None:
        await rows(page).filter(has_text=symbol).hover()
        grip = await page.get_by_role("button", name=f"Move {symbol} up").bounding_box()
        row = await rows(page).nth(to).bounding_box()
        assert grip is not None
        assert row is not None
        x = grip["x"] + grip["width"] / 2
        await page.mouse.move(x, grip["y"] + grip["height"] / 2)
        await page.mouse.down()
        await page.mouse.move(x, row["y"] + row["height"] * beyond, steps=3)
        await expect(page.locator("#board [data-drop=before], #board [data-drop=after]")).to_have_count(1)
        await page.mouse.up()

    await drag("BTCUSDT", 2, beyond=0.8)
    assert await names(page) == ["ETHUSDT", "SOLUSDT", "BTCUSDT", "EUR/USD"]
    await drag("EUR/USD", 0, beyond=0.2)
    assert await names(page) == ["EUR/USD", "ETHUSDT", "SOLUSDT", "BTCUSDT"]
    await page.get_by_role("button", name="Move SOLUSDT up").click()
    await page.get_by_role("button", name="Remove ETHUSDT").click()
    assert await names(page) == ["EUR/USD", "SOLUSDT", "BTCUSDT"]
    await until(page, "p.stream === 'EUR/USD@5m'")


async def test_list_is_bounded_and_says_so(relay: Running, open_page: OpenPage) -> None:
    page = await open_with_list(open_page, f"{relay.url}/#BTCUSDT@1m", *(f"NOPE{number}" for number in range(50)))
    await loaded(page)
    await page.keyboard.press("a")
    await expect(page.locator("#board [role=status]")).to_have_text("No room for BTCUSDT: remove another symbol first.")
    await expect(page.locator("#board")).to_contain_text("50 of 50")
    await rows(page).first.hover()
    await page.get_by_role("button", name="Remove NOPE0", exact=True).click()
    await page.keyboard.press("a")
    assert (await names(page))[-1] == "BTCUSDT"
    await expect(rows(page).last).to_be_in_viewport()


async def test_charts_have_their_streams_before_the_list_where_a_client_may_have_few(
    relay_with: StartRelay, open_page: OpenPage
) -> None:
    relay = await relay_with(max_streams_per_client=5)
    page = await open_with_list(open_page, f"{relay.url}/#BTCUSDT@1m", "ADAUSDT", "XRPUSDT", "DOGEUSDT", "BNBUSDT")
    await expect(rows(page)).to_have_text([re.compile("%")] * 4)
    await page.keyboard.press("4")
    await loaded(page, 4)
    await until(page, "all.every((one) => one.status === 'connected')")
    for number, state in enumerate(("connected", "error", "error", "error")):
        await expect(rows(page).nth(number)).to_have_attribute("data-state", state)
    why = re.compile("Error: this connection has 5 streams, the maximum")
    await expect(rows(page).last.locator(".board-row")).to_have_attribute("title", why)
    await page.keyboard.press("1")
    for number in range(4):
        await expect(rows(page).nth(number)).to_have_attribute("data-state", "connected")


async def test_what_is_not_live_is_dimmed_and_says_why(relay: Running, open_page: OpenPage, watch: Watch) -> None:
    line = Line()
    page = await open_with_list(open_page, f"{relay.url}/#BTCUSDT@1m", "ETHUSDT", "NOPE", before=line.attach)
    await expect(rows(page).first).to_contain_text("% in 24 hours")
    await expect(rows(page).first).to_have_attribute("data-state", "connected")
    live = await rows(page).first.locator(".number").last.evaluate("(one) => getComputedStyle(one).color")
    for status, word in (("stale", "Stale"), ("market_closed", "Market closed"), ("reconnecting", "Reconnecting")):
        line.say(type="status", status=status, symbol="ETHUSDT", interval="15m", message="as the relay says")
        await expect(rows(page).first).to_have_attribute("data-state", status)
        row = rows(page).first.locator(".board-row")
        await expect(row).to_have_attribute("title", f"ETH / USDT · binance · {word}: as the relay says")
        await expect(row).to_have_accessible_name(re.compile(f"^ETHUSDT .* in 24 hours, {word}$"))
        await expect(row.locator(".number").last).not_to_have_css("color", live)
    await expect(rows(page).last.locator(".board-row")).to_have_attribute(
        "title", "NOPE · Error: unknown symbol 'NOPE': no provider lists it; the search lists all"
    )
    with watch.away():
        await relay.close()
        await expect(rows(page).first).to_have_attribute("data-state", "disconnected")
        await expect(rows(page).first).to_contain_text("Offline")
        await page.close()


async def test_list_changed_in_another_tab_is_the_same_here(relay: Running, open_page: OpenPage) -> None:
    page = await open_page(f"{relay.url}/#BTCUSDT@1m")
    await loaded(page)
    await page.keyboard.press("w")
    other = await page.context.new_page()
    await other.goto(f"{relay.url}/#ETHUSDT@1m")
    await loaded(other)
    await page.keyboard.press("a")
    await other.keyboard.press("a")
    assert await names(other) == ["BTCUSDT", "ETHUSDT"]
    await expect(rows(page)).to_have_count(2)


@pytest.mark.parametrize("is_on_its_side", [False, True])
async def test_phone_has_the_list_as_a_drawer_that_closes_over_what_was_tapped(
    relay: Running, open_page: OpenPage, is_on_its_side: bool
) -> None:
    width, height = (844, 390) if is_on_its_side else (390, 844)
    page = await open_with_list(
        open_page,
        f"{relay.url}/#BTCUSDT@5m",
        *(f"NOPE{number}" for number in range(20)),
        "ETHUSDT",
        "BTCUSDT",
        **{**PHONE, "viewport": {"width": width, "height": height}},
    )
    await loaded(page)
    drawer = page.get_by_role("dialog", name="Watch list")
    await expect(drawer).to_be_hidden()
    await page.get_by_role("button", name="Watch list", exact=True).tap()
    box = await drawer.bounding_box()
    assert box is not None
    assert (box["x"] + box["width"], box["y"], box["height"]) == (width, 0, height)
    assert 300 < box["width"] <= width - 44
    await expect(rows(page).filter(has_text="BTCUSDT")).to_be_in_viewport()
    await expect(drawer.get_by_text("22 of 50")).to_be_in_viewport()
    await expect(drawer.get_by_role("button", name="Remove ETHUSDT")).to_have_css("opacity", "1")
    await rows(page).filter(has_text="ETHUSDT").tap()
    await expect(drawer).to_be_hidden()
    await until(page, "p.stream === 'ETHUSDT@5m' && p.isLoaded")
    assert await page.evaluate("relayCharts.streams") == ["ETHUSDT@5m"]
    await page.get_by_role("button", name="Watch list", exact=True).tap()
    await page.touchscreen.tap(20, 200)
    await expect(drawer).to_be_hidden()
    await page.keyboard.press("w")
    await expect(drawer).to_be_visible()
    await page.keyboard.press("w")
    await expect(drawer).to_be_hidden()
    # A screen that becomes wide has it where it belongs there.
    await page.get_by_role("button", name="Watch list", exact=True).tap()
    await resize(page, 1100, 800)
    await expect(drawer).to_be_hidden()
    await expect(page.get_by_role("complementary", name="Watch list").locator("li")).to_have_count(22)
