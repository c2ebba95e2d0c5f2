"""What a reader sees of candles that came otherwise than live: backfilled, revised, missing."""

from typing import Any

import orjson
from playwright.async_api import Page, WebSocketRoute, expect

from tests.e2e.browser.charts import loaded, panel, until
from tests.e2e.browser.conftest import OpenPage
from tests.support.running_relay import Running

HOUR = 3600
COLORS = {"backfilled": (122, 79, 224), "revised": (178, 94, 0), "gap": (177, 73, 93)}

COUNT_PIXELS = """(colors) => {
  const counts = Object.fromEntries(Object.keys(colors).map((name) => [name, 0]));
  for (const canvas of document.querySelectorAll(".canvas canvas")) {
    if (!canvas.width) continue;
    const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
    for (let at = 0; at < data.length; at += 4) {
      if (data[at + 3] < 200) continue;
      for (const [name, [red, green, blue]] of Object.entries(colors)) {
        const far = Math.abs(data[at] - red) + Math.abs(data[at + 1] - green) + Math.abs(data[at + 2] - blue);
        if (far < 12) counts[name] += 1;
      }
    }
  }
  return counts;
}"""


class Line:
    """The page's connection: all passes, and the test adds what a relay could have said."""

    def __init__(self) -> None:
        self._route: WebSocketRoute | None = None

    async def attach(self, page: Page) -> None:
        def connect(route: WebSocketRoute) -> None:
            self._route = route
            route.connect_to_server()

        await page.route_web_socket("**/ws", connect)

    def say(self, kind: str, **fields: Any) -> None:
        assert self._route is not None
        self._route.send(orjson.dumps({"type": kind, "symbol": "BTCUSDT", "interval": "1h", **fields}).decode())

    def update(self, time: int, price: float, *, is_closed: bool = True, **marks: bool) -> None:
        candle = {
            "time": time,
            "open": price,
            "high": price + 90,
            "low": price - 90,
            "close": price + 60,
            "volume": 9.0,
        }
        self.say("price_update", candle=candle, is_closed=is_closed, seq=1, ts_event=time * 1000, **marks)


async def test_backfilled_and_revised_candles_and_gaps_can_be_told_apart(relay: Running, open_page: OpenPage) -> None:
    line = Line()
    page = await open_page("about:blank", color_scheme="light")
    await line.attach(page)
    await page.goto(f"{relay.url}/#BTCUSDT@1h")
    await loaded(page)
    assert await page.evaluate(COUNT_PIXELS, COLORS) == {"backfilled": 0, "revised": 0, "gap": 0}

    candles = (await panel(page))["candles"]
    last = candles[-1]
    line.update(candles[-8]["time"], candles[-8]["close"] + 100, revised=True)
    for step in range(3):
        line.update(last["time"] + step * HOUR, last["close"], backfilled=True)
    line.say("gap", **{"from": last["time"] + 3 * HOUR, "to": last["time"] + 9 * HOUR, "reason": "it is gone"})
    line.update(last["time"] + 9 * HOUR, last["close"], is_closed=False)
    await until(page, "p.candles.at(-1).time === x", last["time"] + 9 * HOUR)
    await page.wait_for_function(f"(colors) => Math.min(...Object.values(({COUNT_PIXELS})(colors))) > 20", arg=COLORS)

    after = (await panel(page))["candles"]
    assert [one["time"] for one in after if one["isBackfilled"]] == [last["time"] + step * HOUR for step in range(3)]
    assert [one["time"] for one in after if one["isRevised"]] == [candles[-8]["time"]]
    await expect(page.locator(".readout .kind-of")).to_have_text("open")

    # A candle of the gap that comes after all takes its place.
    for step in range(3, 9):
        line.update(last["time"] + step * HOUR, last["close"], revised=True)
    await until(page, "p.candles.length === x", len(candles) + 9)
    await page.wait_for_function(f"() => ({COUNT_PIXELS})({orjson.dumps(COLORS).decode()}).gap === 0")


async def test_candle_under_the_pointer_is_described_in_words(relay: Running, open_page: OpenPage) -> None:
    line = Line()
    page = await open_page("about:blank")
    await line.attach(page)
    await page.goto(f"{relay.url}/#BTCUSDT@1h")
    await loaded(page)
    candles = (await panel(page))["candles"]
    for candle in candles[:-1]:
        line.update(candle["time"], candle["close"], revised=True)
    box = await page.locator(".canvas").bounding_box()
    assert box is not None
    await page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    await expect(page.locator(".readout .kind-of")).to_have_text("closed, revised")
    await expect(page.locator(".readout .time")).to_contain_text(":00")


async def test_state_of_the_stream_is_said(relay: Running, open_page: OpenPage) -> None:
    line = Line()
    page = await open_page("about:blank")
    await line.attach(page)
    await page.goto(f"{relay.url}/#BTCUSDT@1h")
    await loaded(page)
    await expect(page.locator(".head .state")).to_have_text("Live")
    line.say("status", status="market_closed", message="the market is closed, opens 2026-11-29T22:00:00Z")
    await expect(page.locator(".head .state")).to_have_text("Market closed")
    await expect(page.locator(".words")).to_have_text("the market is closed, opens 2026-11-29 22:00 UTC")
