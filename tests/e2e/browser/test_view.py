"""What the chart page says beside its candles, and how a reader changes the view of them."""

import re
from datetime import UTC, datetime

from playwright.async_api import Page, WebSocketRoute, expect

from tests.e2e.browser.charts import loaded, panel, panels, until, without_long_taps
from tests.e2e.browser.conftest import OpenPage
from tests.support.running_relay import Running

FRAMES = "new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"

WATCH_TEXTS = """() => {
  const { fillText } = CanvasRenderingContext2D.prototype;
  globalThis.drawn = [];
  CanvasRenderingContext2D.prototype.fillText = function (text, ...rest) {
    drawn.push(text);
    fillText.call(this, text, ...rest);
  };
}"""


async def drawn(page: Page) -> set[str]:
    """Return what the charts write on their canvases when they are drawn anew."""
    await page.evaluate("drawn.length = 0")
    await draw(page)
    await page.wait_for_function("() => drawn.length > 0")
    return set(await page.evaluate("drawn"))


async def draw(page: Page) -> None:
    """Have the charts drawn anew, at the newest candle."""
    await page.keyboard.press("ArrowLeft")
    await page.keyboard.press("ArrowRight")
    await page.evaluate(FRAMES)


async def choose(page: Page, name: str) -> None:
    """Choose one thing in the view's dialog."""
    await page.keyboard.press("v")
    await page.get_by_label(name, exact=True).check()
    await page.get_by_role("button", name="Close").click()


async def test_changes_say_over_what_and_the_candle_when_it_closes(relay: Running, open_page: OpenPage) -> None:
    page = await open_page(f"{relay.url}/#BTCUSDT@5m")
    await loaded(page)
    await expect(page.locator(".change")).to_have_text(re.compile(r"^([+−]\d+\.\d\d|0\.00)% 5m$"))
    await expect(page.locator(".day")).to_have_text(re.compile(r"^([+−]\d+\.\d\d|0\.00)% 24h$"))
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
    # Of long candles, so that none moves away between two taps.
    page = await open_page(
        f"{relay.url}/#BTCUSDT@4h", viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True
    )
    await loaded(page)
    await without_long_taps(page)
    for part in (".day", ".change", ".readout >> text=Vol"):
        await expect(page.locator(part)).to_be_visible()
    await expect(page.locator(".readout .time")).to_have_text("")
    await page.touchscreen.tap(150, 450)
    await expect(page.locator(".readout .time")).to_have_text(re.compile(r"^\d{4}-\d\d-\d\d \d\d:\d\d UTC$"))
    # Else it is a double tap: the page's own timer, which began with the first one, is over before this one.
    await page.evaluate("new Promise((done) => setTimeout(done, 600))")
    await page.touchscreen.tap(150, 450)
    await expect(page.locator(".readout .time")).to_have_text("")


async def test_view_is_changed_and_remembered(relay: Running, open_page: OpenPage) -> None:
    page = await open_page(f"{relay.url}/#BTCUSDT@1s", timezone_id="America/New_York")
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
    await page.locator("#view [name=date]").fill("2999-01-01T00:00")
    await page.get_by_role("button", name="Go").click()
    await expect(page.locator("#view [role=status]")).to_have_text("That is in the future.")


async def test_date_is_gone_to_however_long_the_next_frames_take(relay: Running, open_page: OpenPage) -> None:
    page = await open_page(f"{relay.url}/#BTCUSDT@1h")
    await loaded(page)
    day = await page.evaluate("new Date((relayCharts.panels[0].candles[0].time - 30 * 86400) * 1000).toISOString()")
    await page.keyboard.press("v")
    await page.locator("#view [name=date]").fill(day[:16])
    # No frame before the dialog says that it is there.
    await page.evaluate(
        """() => {
          const frames = [], { requestAnimationFrame } = globalThis, dialog = document.querySelector("#view");
          globalThis.requestAnimationFrame = (draw) => frames.push(draw);
          dialog.addEventListener("close", () => {
            globalThis.requestAnimationFrame = requestAnimationFrame;
            frames.forEach((draw) => requestAnimationFrame(draw));
          });
          dialog.querySelector("form").requestSubmit();
        }"""
    )
    await until(page, "p.visible.times.from * 1000 < Date.parse(x) && Date.parse(x) < p.visible.times.to * 1000", day)


async def test_whole_screen_is_taken_and_given_back(relay: Running, open_page: OpenPage) -> None:
    page = await open_page(f"{relay.url}/#BTCUSDT@1m")
    await loaded(page)
    await page.keyboard.press("f")
    await page.wait_for_function("() => document.fullscreenElement !== null")
    await page.keyboard.press("f")
    await page.wait_for_function("() => document.fullscreenElement === null")


async def test_browser_without_a_whole_screen_is_said(relay: Running, open_page: OpenPage) -> None:
    page = await open_page(f"{relay.url}/#BTCUSDT@1m")
    await loaded(page)
    await page.evaluate("() => { delete Element.prototype.requestFullscreen; }")
    await page.keyboard.press("f")
    await expect(page.locator("#view [role=status]")).to_contain_text("does not allow full screen")


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


async def test_axis_has_the_days_of_the_zone_that_is_chosen_last(relay: Running, open_page: OpenPage) -> None:
    page = await open_page(f"{relay.url}/#BTCUSDT@1h", timezone_id="Asia/Kolkata")
    await page.evaluate(WATCH_TEXTS)
    await loaded(page)
    newest = (await panel(page))["candles"][-1]["time"]
    # The first of a month is named by the month.
    days = {str(datetime.fromtimestamp(newest - back * 86_400, UTC).day) for back in (2, 3, 4)} - {"1"}
    assert days <= await drawn(page)
    where = (await panel(page))["visible"]["bars"]["from"]
    await choose(page, "local")
    await until(page, "Math.abs(p.visible.bars.from - x) < 1", where)
    texts = await drawn(page)
    assert days <= texts
    assert "05:30" not in texts  # which is midnight in UTC, and no whole hour
    await page.keyboard.press("+")
    await page.keyboard.press("+")
    assert {text[-3:] for text in await drawn(page) if re.fullmatch(r"\d\d:\d\d", text)} == {":30"}
    await page.evaluate("location.hash = 'BTCUSDT@1d'")
    await until(page, "p.stream === 'BTCUSDT@1d' && p.isLoaded")
    assert not [text for text in await drawn(page) if "30" in text and ":" in text]
    await page.evaluate("location.hash = 'BTCUSDT@1h'")
    await until(page, "p.stream === 'BTCUSDT@1h' && p.isLoaded")
    await choose(page, "UTC")
    texts = await drawn(page)
    assert days <= texts
    assert not [text for text in texts if text.endswith(":30")]


async def test_market_without_volume_has_no_average_of_it(relay: Running, open_page: OpenPage) -> None:
    page = await open_page(f"{relay.url}/#EUR/USD@1m")
    await loaded(page)
    await choose(page, "averages of 20 and 50 candles, of the volume of 20")
    await until(page, "p.marks.averages === 2")
    await page.evaluate("location.hash = 'BTCUSDT@1m'")
    await until(page, "p.stream === 'BTCUSDT@1m' && p.marks.averages === 3")


WATCH_LINES = """() => {
  const { beginPath, lineTo, stroke } = CanvasRenderingContext2D.prototype;
  let path = [];
  globalThis.lines = {};
  Object.assign(CanvasRenderingContext2D.prototype, {
    beginPath() {
      path = [];
      beginPath.call(this);
    },
    lineTo(x, y) {
      path.push(y);
      lineTo.call(this, x, y);
    },
    stroke() {
      lines[this.strokeStyle] = path;
      stroke.call(this);
    },
  });
}"""
AVERAGE_OF_50 = "#7a4fe0"


async def test_averages_are_where_the_candles_are_on_the_scale_of_per_cent_too(
    relay: Running, open_page: OpenPage
) -> None:
    page = await open_page(f"{relay.url}/#EUR/USD@1d", color_scheme="light")
    await page.evaluate(WATCH_LINES)
    await loaded(page)
    await choose(page, "averages of 20 and 50 candles, of the volume of 20")
    found = []
    for scale in ("normal", "per cent"):
        await choose(page, scale)
        await until(page, "p.marks.scale === x", "percent" if scale == "per cent" else scale)
        await draw(page)
        found.append(await page.evaluate("(color) => lines[color].slice(-100)", AVERAGE_OF_50))
    plain, shifted = found
    # The scales are as wide as their texts, so that one more candle may be in sight.
    assert max(abs(one - other) for one, other in zip(plain, shifted, strict=True)) < 8


async def test_zero_on_the_scale_of_per_cent_has_no_sign(relay: Running, open_page: OpenPage) -> None:
    page = await open_page(f"{relay.url}/#BTCUSDT@1h")
    await page.evaluate(WATCH_TEXTS)
    await loaded(page)
    await choose(page, "per cent")
    texts = {text for text in await drawn(page) if text.endswith("%")}
    assert "0.00%" in texts
    assert all(re.fullmatch(r"0\.00%|[+−]\d+\.\d\d%", text) for text in texts), texts


async def test_prices_and_their_scale_are_no_finer_than_the_instrument(relay: Running, open_page: OpenPage) -> None:
    page = await open_page("about:blank")

    def connect(route: WebSocketRoute) -> None:
        server = route.connect_to_server()
        server.on_message(lambda text: route.send(re.sub(r'("(?:open|high|low|close)":\d+)\.\d+', r"\1", str(text))))

    await page.route_web_socket("**/ws", connect)
    await page.goto(f"{relay.url}/#BTCUSDT@1m")
    await page.evaluate(WATCH_TEXTS)
    await loaded(page)
    await expect(page.locator(".price")).to_have_text(re.compile(r"^[1-9]\d{0,2}(,\d{3})+$"))
    prices = {text for text in await drawn(page) if "," in text}
    assert len(prices) > 3
    assert not [text for text in prices if "." in text]


async def test_time_to_the_close_stays_while_the_pointer_rests_on_the_open_candle(
    relay: Running, open_page: OpenPage
) -> None:
    # Of a long candle, so that none takes its place meanwhile.
    page = await open_page(f"{relay.url}/#BTCUSDT@1d")
    await loaded(page)
    for x in range(1200, 1100, -2):
        await page.mouse.move(x, 400)
        await page.evaluate(FRAMES)
        if await page.locator(".readout .time").inner_text():
            break
    await expect(page.locator(".kind-of")).to_have_text("open")
    await expect(page.locator(".left")).to_have_text(re.compile(r"^closes in "))


async def test_way_into_the_future_ends_at_the_newest_candle(relay: Running, open_page: OpenPage) -> None:
    page = await open_page(f"{relay.url}/#BTCUSDT@1m")
    await loaded(page)
    for _ in range(6):
        await page.keyboard.press("ArrowRight")
    await until(page, "p.visible.bars.to < p.candles.length + 8")
    await expect(page.get_by_role("button", name="Newest")).to_be_hidden()
    # By the pointer it can be left behind to the left too.
    await page.mouse.move(1150, 400)
    await page.mouse.down()
    await page.mouse.move(50, 400, steps=5)
    await page.mouse.up()
    await page.get_by_role("button", name="Newest").click()
    await until(page, "p.visible.bars.to < p.candles.length + 8")


async def test_finger_on_the_only_chart_reaches_the_footer_of_a_phone_on_its_side(
    relay: Running, open_page: OpenPage
) -> None:
    page = await open_page(
        f"{relay.url}/#BTCUSDT@1m", viewport={"width": 844, "height": 390}, has_touch=True, is_mobile=True
    )
    await loaded(page)
    session = await page.context.new_cdp_session(page)
    await without_long_taps(page)
    for kind, y in (
        ("touchStart", 300),
        *(("touchMove", 300 - 10 * step) for step in range(1, 20)),
        ("touchEnd", None),
    ):
        points = [] if y is None else [{"x": 300, "y": y}]
        await session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
    await expect(page.locator(".bottom")).to_be_in_viewport(ratio=1)
