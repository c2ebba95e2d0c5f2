"""The chart page as a reader uses it."""

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from playwright.async_api import Page, Route, WebSocketRoute, expect

from providers import BUILTIN
from relay import API_VERSION, Candle, Instrument, PriceUpdate, ProviderInfo, StreamKey, hookimpl
from tests.conftest import StartRelay
from tests.e2e.browser.charts import loaded, panel, panels, until
from tests.e2e.browser.conftest import OpenPage, Watch
from tests.support.conditions import LONGEST_WAIT_S, eventually
from tests.support.running_relay import Running, start_relay
from tests.support.sandbox import Sandbox

FRAMES = "new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"

Json = dict[str, Any]


@asynccontextmanager
async def proxied(relay: Running) -> AsyncIterator[str]:
    """Run a proxy that names another host than the page has, and https, to the relay; yield its address."""
    port = int(relay.url.rpartition(":")[2])

    async def pass_on(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter, to: bytes = b"", by: bytes = b""
    ) -> None:
        while data := await reader.read(65536):
            writer.write(data.replace(to, by) if to else data)
        writer.close()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        up, down = await asyncio.open_connection("127.0.0.1", port)
        said = b"Host: charts.localhost\r\nX-Forwarded-Proto: https\r\n"
        with contextlib.suppress(ConnectionError):
            await asyncio.gather(pass_on(reader, down, own, said), pass_on(up, writer))

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    own = f"Host: {address}\r\n".encode()
    try:
        yield f"http://{address}"
    finally:
        server.close()


async def test_candle_moves_and_new_ones_follow(relay: Running, open_page: OpenPage) -> None:
    page = await open_page(f"{relay.url}/#BTCUSDT@1s")
    await loaded(page)
    first = (await panel(page))["candles"][-1]
    await until(page, "p.candles.at(-1).time > x.time || p.candles.at(-1).close !== x.close", first)
    await until(page, "p.candles.at(-1).time > x + 2", first["time"])
    shown = await page.locator(".price").inner_text()
    await expect(page.locator(".price")).not_to_have_text(shown)
    await expect(page.locator(".head .state")).to_have_text("Live")
    await expect(page.locator(".head .lag")).to_have_text(re.compile(r"lag \d+(\.\d)? m?s"))
    candles = (await panel(page))["candles"]
    assert all(candle["isClosed"] for candle in candles[:-1])


async def test_restart_of_the_relay_leaves_no_hole(
    sandbox: Sandbox, relay_with: StartRelay, open_page: OpenPage, watch: Watch
) -> None:
    first = await start_relay(sandbox)
    try:
        page = await open_page(f"{first.url}/#BTCUSDT@1s")
        await loaded(page)
        await until(page, "p.lagMs !== null")
        before = (await panel(page))["candles"][-1]["time"]
    finally:
        port = int(first.url.rpartition(":")[2])
        with watch.away():
            await first.close()
            await expect(page.locator(".head .state")).to_have_text("Offline")
            await expect(page.locator(".head .lag")).to_have_text("")
            await expect(page).to_have_title("Offline BTCUSDT · market-relay")
            await expect(page.locator("#trouble")).to_contain_text("Offline: ")
            await expect(page.locator("#trouble")).to_contain_text("next attempt in")
            await expect(page.locator(".canvas")).to_have_css("opacity", "0.45")
            await asyncio.sleep(5)  # the subject: so long nothing answers
            relay = await relay_with(port=port)
            # Nobody clicks: the page may be connected again by then, and what would be clicked gone.
            await expect(page.locator("#connection")).to_have_text("Connected")
            await expect(page.locator("#trouble")).to_be_hidden()
            await expect(page.locator(".canvas")).to_have_css("opacity", "1")
    await until(page, "p.candles.at(-1).time > x", before + 8)
    shown = [candle for candle in (await panel(page))["candles"] if candle["isClosed"]]
    answer = await relay.get(
        "history", symbol="BTCUSDT", interval="1s", start_time=shown[0]["time"], end_time=shown[-1]["time"], limit=5000
    )
    fields = ("time", "open", "high", "low", "close", "volume")
    assert [{name: candle[name] for name in fields} for candle in shown] == answer.body["candles"]
    assert [candle["time"] for candle in shown] == list(range(shown[0]["time"], shown[-1]["time"] + 1))
    assert any(candle["isBackfilled"] for candle in shown if candle["time"] > before)


async def test_page_that_the_relay_sent_away_is_back_when_its_reader_tries_again(
    relay: Running, open_page: OpenPage
) -> None:
    routes: list[WebSocketRoute] = []

    def connect(route: WebSocketRoute) -> None:
        routes.append(route)
        route.connect_to_server()

    page = await open_page("about:blank")
    await page.route_web_socket("**/ws", connect)
    await page.goto(f"{relay.url}/#BTCUSDT@1s")
    await loaded(page)
    await routes[0].close(code=4001, reason="too many invalid messages")
    # A page that was sent away does not try by itself: the button stays until it is clicked.
    await expect(page.locator("#trouble")).to_contain_text("The relay refuses this page: ")
    last = (await panel(page))["candles"][-1]["time"]
    await page.get_by_role("button", name="Try now").click()
    await expect(page.locator("#connection")).to_have_text("Connected")
    await expect(page.locator("#trouble")).to_be_hidden()
    await until(page, "p.candles.at(-1).time > x", last)
    assert len(routes) == 2


async def test_fast_changes_of_the_symbol_leave_one_subscription(relay: Running, open_page: OpenPage) -> None:
    page = await open_page(f"{relay.url}/#BTCUSDT@1m")
    await loaded(page)
    symbols = ["ETHUSDT", "SOLUSDT", "XRPUSDT", "BNBUSDT", "BTCUSDT"]
    for number in range(20):
        await page.keyboard.press("/")
        await page.get_by_role("combobox").fill(symbols[number % 5] if number < 19 else "DOGEUSDT")
        await page.keyboard.press("Enter")
    await until(page, "p.stream === 'DOGEUSDT@1m' && p.isLoaded")

    # Those without a subscriber linger and end.
    await eventually(lambda: [stream.name for stream in relay.hub.streams.values()] == ["DOGEUSDT"])
    [stream] = (await relay.get("status")).body["streams"]
    assert (stream["symbol"], stream["subscribers"]) == ("DOGEUSDT", 1)
    assert await page.evaluate("relayCharts.streams") == ["DOGEUSDT@1m"]


async def test_scrolling_back_loads_older_candles_without_a_jump(relay: Running, open_page: OpenPage) -> None:
    # Of long candles, so that none is new meanwhile.
    page = await open_page(f"{relay.url}/#BTCUSDT@1d")
    await loaded(page)
    assert len((await panel(page))["candles"]) == 500
    asked, held = asyncio.Event(), asyncio.Event()

    async def hold(route: Route) -> None:
        asked.set()
        await held.wait()
        await route.continue_()

    await page.route("**/history?*", hold)
    box = await page.locator(".canvas").bounding_box()
    assert box is not None
    await page.mouse.move(box["x"] + 400, box["y"] + 300)
    async with asyncio.timeout(LONGEST_WAIT_S):
        while not asked.is_set():
            await page.mouse.wheel(-100, 0)
            await page.evaluate(FRAMES)
    before = (await panel(page))["visible"]
    held.set()
    await until(page, "p.candles.length > 500 && !p.isLoading")
    await page.evaluate(FRAMES)
    after = await panel(page)
    added = len(after["candles"]) - 500
    assert added == 1000
    assert after["visible"]["bars"]["from"] - added == pytest.approx(before["bars"]["from"], abs=0.01)
    assert after["visible"]["times"] == before["times"]
    assert after["visible"]["spacing"] == before["spacing"]
    times = [candle["time"] for candle in after["candles"]]
    assert times == list(range(times[0], times[-1] + 86_400, 86_400))


async def test_eight_charts_are_remembered_in_the_address_and_in_the_browser(
    relay: Running, open_page: OpenPage
) -> None:
    page = await open_page(f"{relay.url}/#BTCUSDT@1m,EUR/USD@5m")
    await loaded(page, 2)
    await page.get_by_role("button", name="8 charts").click()
    await loaded(page, 8)
    shown = [one["stream"] for one in await panels(page)]
    assert shown[:2] == ["BTCUSDT@1m", "EUR/USD@5m"]
    assert len(set(shown)) == 8
    await expect(page).to_have_url(f"{relay.url}/#{','.join(shown)}")
    await page.goto("about:blank")
    await page.goto(f"{relay.url}/")
    await loaded(page, 8)
    assert [one["stream"] for one in await panels(page)] == shown
    assert len(await page.evaluate("relayCharts.streams")) == 8
    await page.get_by_role("button", name="1 chart").click()
    await loaded(page, 1)
    assert await page.evaluate("relayCharts.streams") == ["BTCUSDT@1m"]


async def test_keyboard_alone_changes_symbol_interval_layout_and_theme(relay: Running, open_page: OpenPage) -> None:
    page = await open_page(f"{relay.url}/#BTCUSDT@1m", color_scheme="light")
    await loaded(page)
    await page.keyboard.press("Control+k")
    await page.keyboard.type("gbp usd 1h")
    await expect(page.get_by_role("option").first).to_contain_text("GBP/USD")
    await page.keyboard.press("Enter")
    await until(page, "p.stream === 'GBP/USD@1h' && p.candles.length > 0")
    await page.keyboard.press("]")
    await until(page, "p.stream === 'GBP/USD@2h'")
    await page.keyboard.press("2")
    await loaded(page, 2)
    await page.keyboard.press(".")
    await page.keyboard.press("[")
    await until(page, "all[1].stream.endsWith('@1m') === false")
    await page.locator(".head .symbol").first.focus()
    await page.keyboard.press("Enter")
    await expect(page.locator("#picker")).to_be_visible()
    await page.keyboard.press("Escape")
    assert await page.evaluate("document.documentElement.dataset.theme") == "light"
    await page.keyboard.press("t")
    assert await page.evaluate("document.documentElement.dataset.theme") == "dark"
    # With capitals locked, too.
    await page.keyboard.press("T")
    assert await page.evaluate("document.documentElement.dataset.theme") == "light"
    await page.keyboard.press("T")
    await page.reload()
    assert await page.evaluate("document.documentElement.dataset.theme") == "dark"


async def test_keys_are_the_page_s_again_as_soon_as_a_dialog_is_closed(relay: Running, open_page: OpenPage) -> None:
    page = await open_page(f"{relay.url}/#BTCUSDT@1m", color_scheme="light")
    await loaded(page)
    for key, field, theme in (("/", "#picker input", "dark"), ("v", "#view [name=date]", "light")):
        await page.keyboard.press(key)
        await page.locator(field).focus()
        # In one turn of the page: with the next frame the field has lost the focus.
        await page.evaluate(
            """(field) => {
              document.querySelector("dialog[open]").close();
              if (document.activeElement !== document.querySelector(field)) throw new Error("the focus is gone");
              const typed = new KeyboardEvent("keydown", { key: "t", bubbles: true, cancelable: true });
              document.activeElement.dispatchEvent(typed);
            }""",
            field,
        )
        assert await page.evaluate("document.documentElement.dataset.theme") == theme


async def test_search_finds_what_people_mean_and_says_that_an_interval_is_missing(
    relay: Running, open_page: OpenPage
) -> None:
    page = await open_page(f"{relay.url}/#EUR/USD@1h")
    await loaded(page)
    await page.keyboard.press("/")
    await page.keyboard.type("bitcoin 5m")
    await page.keyboard.press("Enter")
    await until(page, "p.stream === 'BTCUSDT@5m'")
    await page.keyboard.press("/")
    await page.keyboard.type("eurusd 1s")
    await page.keyboard.press("Enter")
    await expect(page.locator("#picker .count")).to_contain_text("EUR/USD has no candles of 1s; it has 1m, 3m, 5m")
    await page.keyboard.press("Backspace")
    await page.keyboard.type("m")
    await page.keyboard.press("Enter")
    await until(page, "p.stream === 'EUR/USD@1m'")


async def test_search_takes_other_spellings_and_an_interval_alone(relay: Running, open_page: OpenPage) -> None:
    page = await open_page(f"{relay.url}/#EUR/USD@1h")
    await loaded(page)
    for typed, stream in (
        ("btc/usdt 1H", "BTCUSDT@1h"),
        ("5 min", "BTCUSDT@5m"),
        ("", "BTCUSDT@5m"),
        ("twelve_data:EUR/USD", "EUR/USD@5m"),
    ):
        await page.keyboard.press("/")
        await page.keyboard.type(typed)
        await page.keyboard.press("Enter")
        await until(page, "p.stream === x", stream)


async def test_a_contract_is_shown_beside_what_it_is_on(relay_with: StartRelay, open_page: OpenPage) -> None:
    async with Sandbox(pace_s=0.2, futures=True) as sandbox:
        relay = await relay_with(sandbox=sandbox)
        page = await open_page(f"{relay.url}/#BTCUSDT@1m,binance_usdm:BTCUSDT@1m")
        await loaded(page, 2)
        await expect(page.locator(".head .symbol")).to_have_text(["BTCUSDT", "binance_usdm:BTCUSDT"])
        await expect(page.locator(".head .provider")).to_have_text(["binance", ""])
        spot, contract = ([candle["close"] for candle in one["candles"]] for one in await panels(page))
        assert len(spot) == len(contract)
        assert spot != contract


async def test_address_is_read_however_it_is_spelt_and_written_in_one_way(relay: Running, open_page: OpenPage) -> None:
    page = await open_page(f"{relay.url}/#btcusdt@1H,%20eur/usd@5m")
    await loaded(page, 2)
    assert await page.evaluate("location.hash") == "#BTCUSDT@1h,EUR/USD@5m"
    await expect(page.locator("#intervals [aria-pressed=true]")).to_have_text("1h")
    await expect(page.locator(".provider").first).to_have_text("binance")
    # A fourth chart, of another symbol.
    page = await open_page(f"{relay.url}/#BTCUSDT@1m,ETHUSDT@1m,EUR/USD@1h")
    await loaded(page, 4)
    assert len({one["stream"].partition("@")[0] for one in await panels(page)}) == 4
    page = await open_page(f"{relay.url}/?BTCUSDT@5m")
    await loaded(page)
    await expect(page).to_have_url(f"{relay.url}/#BTCUSDT@5m")
    page = await open_page(f"{relay.url}/?symbol=eur/usd&interval=1H&theme=dark")
    await loaded(page)
    await expect(page).to_have_url(f"{relay.url}/?theme=dark#EUR/USD@1h")
    await expect(page.locator("#unread")).to_be_hidden()
    await page.evaluate("location.hash = 'nothing'")
    await expect(page.locator("#unread")).to_contain_text("“nothing”")
    await page.wait_for_function("() => location.hash === '#EUR/USD@1h'")


async def test_search_among_thousands_of_instruments(relay_with: StartRelay, open_page: OpenPage) -> None:
    async with Sandbox(pace_s=0.5, extra_symbols=999, forex_always_open=True) as large:
        relay = await relay_with(sandbox=large)
        page = await open_page(f"{relay.url}/#BTCUSDT@1m")
        await loaded(page)
        await page.keyboard.press("/")
        await expect(page.locator("#picker .count")).to_contain_text("type more")
        await page.keyboard.type("t77")
        await expect(page.get_by_role("option").first).to_contain_text("T77")
        await page.keyboard.press("ArrowDown")
        second = await page.get_by_role("option").nth(1).locator(".symbol").inner_text()
        await page.keyboard.press("Enter")
        await until(page, "p.stream.startsWith(x)", f"{second}@")
        # Before the exchange ends: what the page asks for then cannot be had.
        await page.close()


class Thousands:
    """Lists more instruments than a page loads."""

    @hookimpl
    def relay_provider(self) -> ProviderInfo:
        return ProviderInfo(
            name="thousands", api=API_VERSION, title="Thousands", asset_classes=("stocks",), intervals=("1m", "1h")
        )

    @hookimpl
    async def relay_instruments(self) -> list[Instrument]:
        return [Instrument(f"S{n:04d}.X", "stocks", f"S{n:04d}", "USD", name=f"Company {n} plc") for n in range(6000)]

    @hookimpl
    async def relay_stream(self) -> AsyncIterator[PriceUpdate]:
        await asyncio.Event().wait()
        yield PriceUpdate(StreamKey("", ""), Candle(0, 1.0, 1.0, 1.0, 1.0))


async def test_search_among_more_instruments_than_a_page_loads_asks_the_relay(
    relay_with: StartRelay, open_page: OpenPage
) -> None:
    relay = await relay_with(builtin=[*BUILTIN, Thousands()])
    page = await open_page(f"{relay.url}/#S5990.X@1h")
    # Of a symbol in the address the page knows the intervals, although it is beyond what it loads.
    await expect(page.locator("#intervals [aria-pressed]")).to_have_count(2)
    await page.keyboard.press("/")
    await page.keyboard.type("company 5987 1m")
    await expect(page.get_by_role("option").first).to_contain_text("S5987.X")
    await expect(page.get_by_role("option").first).to_contain_text("Company 5987 plc")
    await page.keyboard.press("Enter")
    await page.wait_for_function("() => location.hash === '#S5987.X@1m'")
    await expect(page.locator(".provider").first).to_have_text("thousands")
    await page.keyboard.press("/")
    await page.keyboard.type("no such company")
    await expect(page.locator("#picker .count")).to_contain_text("Nothing found")


async def test_unknown_symbol_in_the_address_is_said_and_can_be_changed(relay: Running, open_page: OpenPage) -> None:
    page = await open_page(f"{relay.url}/#NOPE@1m")
    await expect(page.locator(".notice")).to_contain_text(
        "unknown symbol 'NOPE': no provider lists it; the search lists all"
    )
    await page.evaluate("location.hash = 'BTC-USD@1m'")
    await expect(page.locator(".notice")).to_contain_text("did you mean BTCUSDT?")
    await page.get_by_role("button", name="Choose another symbol").click()
    await expect(page.get_by_role("option").first).to_contain_text("BTCUSDT")
    await page.keyboard.press("Enter")
    await loaded(page)
    assert (await panel(page))["stream"] == "BTCUSDT@1m"
    await expect(page.locator(".notice")).to_be_hidden()


async def test_pinned_name_in_the_address_is_one_stream_with_the_bare_name(relay: Running, open_page: OpenPage) -> None:
    page = await open_page(f"{relay.url}/#binance:btcusdt@1m,BTCUSDT@1m")
    await loaded(page, 2)
    assert await page.evaluate("relayCharts.streams") == ["BTCUSDT@1m"]
    assert [one["stream"] for one in await panels(page)] == ["BTCUSDT@1m"] * 2
    await expect(page).to_have_url(f"{relay.url}/#BTCUSDT@1m,BTCUSDT@1m")


async def test_page_behind_a_proxy_that_is_not_trusted_says_the_cause_and_the_remedy(
    relay: Running, open_page: OpenPage, watch: Watch
) -> None:
    with watch.away():
        async with proxied(relay) as url:
            page = await open_page(f"{url}/#BTCUSDT@1m")
            told = page.locator("#trouble")
            await expect(told).to_contain_text("came through a proxy that the relay does not trust")
            await expect(told).to_contain_text("add the proxy to trusted_proxies")
            await expect(page.locator("#connection")).to_have_text("Refused")
            await expect(told).to_contain_text("next attempt in")
            await page.close()


async def test_token_is_asked_for_and_kept_in_the_tab(
    relay_with: StartRelay, open_page: OpenPage, watch: Watch
) -> None:
    relay = await relay_with(tokens=["sesame-open-1234567890"])
    with watch.away():
        page = await open_page(f"{relay.url}/#BTCUSDT@1m")
        await page.get_by_role("textbox", name="Token").fill("not-the-right-one-00000")
        await page.get_by_role("button", name="Connect").click()
        await expect(page.locator("#token .reason")).to_contain_text("valid token")
        await expect(page.locator("#token input")).to_have_value("")
        await page.get_by_role("textbox", name="Token").fill("sesame-open-1234567890")
        await page.get_by_role("button", name="Connect").click()
        await loaded(page)
    await page.reload()
    await loaded(page)
    assert "sesame" not in page.url
    assert "sesame" not in await page.evaluate("JSON.stringify(localStorage)")


async def test_late_refusal_of_a_wrong_token_asks_nobody_who_has_entered_another(
    relay_with: StartRelay, open_page: OpenPage, watch: Watch
) -> None:
    relay = await relay_with(tokens=["sesame-open-1234567890"])
    refused, is_loaded = asyncio.Event(), asyncio.Event()

    async def hold(route: Route) -> None:
        if "not-the-right-one" not in (route.request.headers.get("authorization") or ""):
            return await route.continue_()
        answer = await route.fetch()
        await is_loaded.wait()
        await route.fulfill(response=answer)
        refused.set()

    page = await open_page("about:blank")
    await page.route("**/instruments?*", hold)
    dialog = page.locator("#token")
    with watch.away():
        await page.goto(f"{relay.url}/#BTCUSDT@1m")
        await dialog.locator("input").fill("not-the-right-one-00000")
        await dialog.get_by_role("button", name="Connect").click()
        # The connection is refused first: the page asks again.
        await expect(dialog.locator("input")).to_have_value("")
        await dialog.locator("input").fill("sesame-open-1234567890")
        await dialog.get_by_role("button", name="Connect").click()
        await until(page, "p.isLoaded && p.candles.length > 0")
        is_loaded.set()
        await refused.wait()
        # What was refused is asked for with the token that is known by now.
        await loaded(page)
    await expect(dialog).to_be_hidden()


async def test_phone_scrolls_through_its_charts(relay: Running, open_page: OpenPage) -> None:
    page: Page = await open_page(
        f"{relay.url}/#BTCUSDT@1m,ETHUSDT@1m", viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True
    )
    await loaded(page, 2)
    assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    boxes = [await one.bounding_box() for one in await page.locator(".panel").all()]
    assert all(box is not None and box["height"] >= 300 and box["width"] > 360 for box in boxes)
