"""The status page as an operator uses it."""

import asyncio
import re

import pytest
from playwright.async_api import Locator, Page, Route, expect

from tests.conftest import StartRelay
from tests.e2e.browser.charts import loaded
from tests.e2e.browser.conftest import OpenPage, Watch
from tests.support.conditions import eventually
from tests.support.running_relay import Running, start_relay
from tests.support.sandbox import Sandbox

pytestmark = pytest.mark.timeout(300)

STATUS_ROUTE = "/api/v1/market-data/status"


async def open_status(open_page: OpenPage, relay: Running, **options: object) -> Page:
    page = await open_page(f"{relay.url}/status.html", **options)
    await expect(page.locator("#connection")).to_have_text("Live")
    return page


def tile(page: Page, title: str) -> Locator:
    return page.locator("#tiles > div", has=page.get_by_text(title, exact=True)).locator(".figure")


def row(page: Page, name: str) -> Locator:
    return page.locator("#streams tbody tr", has=page.get_by_role("button", name=name)).locator("td")


async def test_page_follows_what_the_relay_does(sandbox: Sandbox, relay: Running, open_page: OpenPage) -> None:
    client = await relay.connect()
    await client.subscribe("BTCUSDT@1m", "EUR/USD@1m", bars=5)
    await client.update()
    client.read_on()
    page = await open_status(open_page, relay)
    await expect(tile(page, "Clients")).to_have_text("1")
    await expect(tile(page, "Live streams")).to_have_text("2 of 2")
    await expect(tile(page, "Updates in")).to_have_text(re.compile(r"[\d.]+ updates?/s"))
    await expect(page.locator("#providers tbody th")).to_have_text(["Binance", "Twelve Data"])
    await expect(page.locator("#budgets li")).to_have_count(3)
    await expect(page.locator("#clients tbody tr")).to_have_count(1)
    stream = row(page, "BTCUSDT 1m")
    await expect(stream.nth(1)).to_have_text("live")
    await expect(stream.nth(2)).to_have_text("1")
    # A second client, and a lost upstream, without loading the page again.
    other = await relay.connect()
    await other.subscribe("BTCUSDT@1m")
    other.read_on()
    sandbox.binance.faults.drop()
    await expect(tile(page, "Clients")).to_have_text("2")
    await expect(stream.nth(2)).to_have_text("2")
    await expect(stream.nth(8)).to_have_text("1")
    await expect(page.locator("#providers .wide")).to_contain_text("Reconnects: 1 × ")
    await page.get_by_role("button", name="BTCUSDT 1m").click()
    await expect(page.locator("#streams .events")).to_contain_text("lost: ")
    status = (await relay.get("status")).body
    assert status["clients"]["connected"] == 2
    assert [one["reconnects"] for one in status["streams"] if one["symbol"] == "BTCUSDT"] == [1]


async def test_one_of_a_thing_is_called_so(relay: Running, open_page: OpenPage) -> None:
    client = await relay.connect()
    await client.subscribe("BTCUSDT@1m")
    client.read_on()
    page = await open_status(open_page, relay)
    await expect(page.get_by_text("1 subscription", exact=True)).to_be_visible()
    await expect(page.get_by_text("1 upstream connection", exact=True)).to_be_visible()


async def test_a_stream_without_subscribers_says_what_it_is_kept_for(relay: Running, open_page: OpenPage) -> None:
    for _ in range(2):
        await relay.get("/udf/history?symbol=BTCUSDT&resolution=60&to=9000000000&countback=5")
    page = await open_status(open_page, relay)
    await expect(tile(page, "Answers to charting libraries (UDF)")).to_have_text("2")
    await expect(row(page, "BTCUSDT 1h").nth(2)).to_have_text("polls of charting libraries (UDF)")


async def test_how_clients_left_is_said_in_words(relay: Running, open_page: OpenPage) -> None:
    charts = await open_page(f"{relay.url}/#BTCUSDT@1m")
    await loaded(charts)
    await charts.close()
    client = await relay.connect()
    await client.socket.close()
    page = await open_status(open_page, relay)
    await expect(page.locator("#client-facts")).to_contain_text("left by closing the page 1")
    await expect(page.locator("#client-facts")).to_contain_text("closed by the program 1")


@pytest.mark.parametrize("sandbox", [220], indirect=True)
async def test_many_streams_are_sorted_filtered_and_shown_in_pages(relay: Running, open_page: OpenPage) -> None:
    client = await relay.connect()
    names = [f"T{number:03d}USDT@1m" for number in range(1, 200)]
    await client.ask("subscribe", streams=names[:100])
    await client.ask("subscribe", streams=names[100:])
    other = await relay.connect()
    await other.ask("subscribe", streams=["T150USDT@1m", "T201USDT@1m", "EUR/USD@1m"])
    for one in (client, other):
        one.read_on()
    await eventually(lambda: len(relay.hub.streams) == 201)
    page = await open_status(open_page, relay)
    rows = page.locator("#streams tbody tr")
    await expect(page.locator("#shown")).to_have_text("201")
    await expect(rows).to_have_count(200)
    await expect(rows.first).to_contain_text("EUR/USD")
    await page.get_by_role("button", name="Show 1 more of 1").click()
    await expect(rows).to_have_count(201)
    await page.get_by_role("button", name="Subscribers").click()
    await expect(rows.first).to_contain_text("T150USDT")
    await expect(page.locator("#streams th[aria-sort=descending]")).to_have_text("Subscribers")
    await page.get_by_role("button", name="Stream", exact=True).click()
    await page.get_by_role("button", name="Stream", exact=True).click()
    await expect(rows.first).to_contain_text("T201USDT")
    await page.locator("#filter").fill("t19 @1m")
    await expect(page.locator("#shown")).to_have_text("10 of 201")
    await expect(rows).to_have_count(10)
    await page.locator("#filter").fill("twelve")
    await expect(rows).to_have_count(1)
    await page.locator("#filter").fill("no such stream")
    await expect(rows).to_have_count(0)


async def test_token_is_asked_for_and_a_wrong_one_is_told(
    relay_with: StartRelay, open_page: OpenPage, watch: Watch
) -> None:
    relay = await relay_with(tokens=["open-sesame"])
    with watch.away():
        page = await open_page(f"{relay.url}/status.html")
        await expect(page.locator("#token .reason")).to_have_text("Enter a token to see its status.")
        await page.locator("#token input").fill("wrong")
        await page.get_by_role("button", name="Connect").click()
        await expect(page.locator("#token .reason")).to_have_text("The token that was entered is not valid.")
        await page.locator("#token input").fill("open-sesame")
        await page.get_by_role("button", name="Connect").click()
        await expect(tile(page, "Live streams")).to_have_text("0 of 0")
    await expect(page.locator("#token")).to_be_hidden()
    await page.reload()
    await expect(page.locator("#connection")).to_have_text("Live")


async def test_page_says_when_the_relay_is_gone_and_goes_on_when_it_is_back(
    sandbox: Sandbox, relay_with: StartRelay, open_page: OpenPage, watch: Watch
) -> None:
    first = await start_relay(sandbox)
    try:
        page = await open_status(open_page, first)
    finally:
        with watch.away():
            await first.close()
            await expect(page.locator("#trouble")).to_contain_text("it cannot be reached")
            await expect(page.locator("#connection")).to_have_text("No answer")
            await relay_with(port=int(first.url.rpartition(":")[2]))
            await expect(page.locator("#connection")).to_have_text("Live")
    await expect(page.locator("#trouble")).to_be_hidden()


async def test_paused_page_asks_nothing(relay: Running, open_page: OpenPage) -> None:
    page = await open_status(open_page, relay)

    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url) if STATUS_ROUTE in request.url else None)
    await page.get_by_role("button", name="Pause").click()
    await expect(page.locator("#connection")).to_have_text("Paused")
    before = len(asked)
    await asyncio.sleep(2.2)  # the subject: it would have asked again
    assert asked[before:] == []
    await page.get_by_role("button", name="Pause").click()
    await expect(page.locator("#connection")).to_have_text("Live")
    assert len(asked) > before


async def test_page_fits_a_phone_and_its_tables_scroll_inside(relay: Running, open_page: OpenPage) -> None:
    client = await relay.connect()
    await client.subscribe("BTCUSDT@1m")
    client.read_on()
    page = await open_status(open_page, relay, viewport={"width": 360, "height": 740}, is_mobile=True)
    await expect(row(page, "BTCUSDT 1m").first).to_be_visible()
    assert await page.evaluate("document.documentElement.scrollWidth") == 360
    inside = "e => e.parentElement.scrollWidth > e.parentElement.clientWidth"
    assert await page.locator("#streams").evaluate(inside)


async def test_tables_end_inside_their_frames_on_a_laptop(open_page: OpenPage) -> None:
    async with Sandbox(pace_s=0.1, forex_always_open=True, futures=True) as sandbox:
        relay = await start_relay(sandbox)
        try:
            client = await relay.connect()
            await client.subscribe("BTCUSDT@1m", "EUR/USD@1m", "binance_usdm:BTCUSDT@1m")
            client.read_on()
            page = await open_status(open_page, relay, viewport={"width": 1280, "height": 800})
            await expect(row(page, "BTCUSDT 1m").first).to_be_visible()
            for table in ("#providers", "#streams", "#clients"):
                fits = "e => e.parentElement.scrollWidth <= e.parentElement.clientWidth"
                assert await page.locator(table).evaluate(fits), table
            await page.close()
        finally:
            await relay.close()


async def test_page_shows_which_relays_share_nothing_and_who_spends_a_part(
    relay_with: StartRelay, open_page: OpenPage
) -> None:
    relay = await relay_with(cluster_nats=("nats://127.0.0.1:9",), cluster_node="a")
    status = (await relay.get("status")).body
    cluster = status["cluster"]
    shards = [shard | {"owner": "a", "owners": 1, "here": "all"} for shard in cluster["shards"]]
    other = {"node": "b", "id": "other", "here": False, "shards": 1, "differs": ["twelve_data"]}
    joined = {"state": "joined", "message": "", "budget_parts": {"twelve_data": 2}, "shards": shards}
    status["cluster"] = cluster | joined | {"relays": [cluster["relays"][0] | {"shards": len(shards)}, other]}

    async def answer(route: Route) -> None:
        await route.fulfill(json=status)

    page = await open_page("about:blank")
    await page.route(f"**{STATUS_ROUTE}", answer)
    await page.goto(f"{relay.url}/status.html")
    rows = page.locator("#relays tbody tr")
    await expect(rows.nth(0)).to_contain_text("a (this one)joinedBinance, Twelve Data")
    await expect(rows.nth(1)).to_contain_text("bhas other settings1 of other settingsTwelve Data")
    await expect(rows.nth(2)).to_contain_text("1/2 of Twelve Data")
    await expect(page.locator("#budgets li").last).to_contain_text("1 of 2 parts is spent here")
    await expect(page.locator("#tiles")).to_contain_text("1 with other settings")
    await page.unroute(f"**{STATUS_ROUTE}")
    # What the relay says itself: it reaches no NATS.
    await expect(rows.nth(0)).to_contain_text("a (this one)alonefor its own clients: Binance, Twelve Data")
    await expect(rows.nth(1)).to_contain_text("this relay serves its own clients alone")
