"""Header, charts and footer have places of their own, on every screen that people have."""

import pytest
from playwright.async_api import Page, expect

from tests.e2e.browser.charts import loaded
from tests.e2e.browser.conftest import OpenPage, resize
from tests.support.running_relay import Running

pytestmark = pytest.mark.timeout(300)

WINDOWS = [(1440, 900), (1280, 800), (1100, 800), (1024, 768), (900, 700), (768, 1024)]
PHONES = [(390, 844), (360, 640), (844, 390), (667, 375)]
WIDE = [*(size for size in WINDOWS if size[0] >= 1000), (1180, 480)]
COUNTS = (1, 2, 4, 8)
FAULTS = """async () => {
  const found = [];
  const box = (element) => element.getBoundingClientRect();
  const header = document.querySelector("header"), main = document.querySelector("main");
  const footer = document.querySelector("footer"), bar = document.querySelector("#intervals");
  const panels = [...document.querySelectorAll(".panel")];
  const list = document.querySelector("aside:not([hidden]) #board");
  const apart = (one, other) =>
    one.right <= other.left + 1 || other.right <= one.left + 1 ||
    one.bottom <= other.top + 1 || other.bottom <= one.top + 1;
  const most = document.documentElement.scrollHeight - innerHeight;
  for (const top of [0, most / 2, most]) {
    scrollTo(0, top);
    await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
    if (Math.abs(box(header).top) > 1) found.push(`the header is at ${box(header).top} after a scroll to ${top}`);
    for (const one of list ? [header, footer, ...panels] : [])
      if (!apart(box(list), box(one))) found.push(`the list lies across ${one.className} after a scroll to ${top}`);
    if (list && box(list).bottom > innerHeight + 1) found.push(`the list is cut off after a scroll to ${top}`);
  }
  if (header.offsetHeight > 90) found.push(`the header is ${header.offsetHeight} high`);
  if (box(footer).bottom > innerHeight + 1) found.push("the footer cannot be reached");
  scrollTo(0, 0);
  if (document.documentElement.scrollWidth > innerWidth) found.push("the page is too wide");
  const places = { header, footer, ...panels };
  for (const [name, element] of Object.entries(places))
    for (const [other, second] of Object.entries(places))
      if (name < other && !apart(box(element), box(second))) found.push(`${name} lies across ${other}`);
  for (const parts of [header, ...header.querySelectorAll(".tools, #layouts")].map((one) => [...one.children]))
    for (const one of parts)
      for (const other of parts)
        if (one !== other && !apart(box(one), box(other))) found.push(`${one.id} lies across ${other.id}`);
  for (const panel of panels) {
    const head = panel.querySelector(".head"), plot = box(panel.querySelector(".plot"));
    if (head.clientHeight > 56) found.push(`a head is ${head.clientHeight} high`);
    if (plot.height < 150) found.push(`a chart is ${plot.height} high`);
    if (plot.bottom > box(panel).bottom + 1) found.push("a chart is cut off");
    if (head.scrollWidth > head.clientWidth) found.push(`${head.innerText} is cut off by ${head.scrollWidth}`);
  }
  const chosen = box(bar.querySelector("[aria-pressed=true]"));
  if (chosen.left < box(bar).left - 1 || chosen.right > box(bar).right + 1) found.push("the interval is out of sight");
  return found;
}"""


async def faults(page: Page) -> list[str]:
    """Return what lies across what, and what is out of sight; empty as it should be."""
    await page.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    found: list[str] = await page.evaluate(FAULTS)
    return found


@pytest.mark.parametrize("sizes", [WINDOWS, PHONES], ids=["windows", "phones"])
async def test_nothing_lies_across_anything(relay: Running, open_page: OpenPage, sizes: list[tuple[int, int]]) -> None:
    (width, height), is_phone = sizes[0], sizes is PHONES
    page = await open_page(
        f"{relay.url}/#BTCUSDT@1m,EUR/USD@1h",
        viewport={"width": width, "height": height},
        is_mobile=is_phone,
        has_touch=is_phone,
    )
    await loaded(page, 2)
    for count in COUNTS:
        await page.keyboard.press(str(count))
        for size in sizes:
            await resize(page, *size)
            await loaded(page, count)
            assert await faults(page) == [], (count, size)


async def test_nothing_lies_across_the_watch_list(relay: Running, open_page: OpenPage) -> None:
    width, height = WIDE[0]
    page = await open_page(f"{relay.url}/#BTCUSDT@1m,EUR/USD@1h", viewport={"width": width, "height": height})
    await loaded(page, 2)
    await page.keyboard.press("w")
    for count in COUNTS:
        await page.keyboard.press(str(count))
        for size in WIDE:
            await resize(page, *size)
            await loaded(page, count)
            assert await faults(page) == [], (count, size)
            # Each row is as wide as the list, whatever is in it.
            is_within = "document.querySelector('#board ul').scrollWidth <= innerWidth - grid.offsetWidth"
            assert await page.evaluate(is_within), (count, size)


@pytest.mark.parametrize("width", [900, 1000, 1100, 390])
async def test_the_chosen_interval_is_in_sight_wherever_it_stands(
    relay: Running, open_page: OpenPage, width: int
) -> None:
    page = await open_page(f"{relay.url}/#BTCUSDT@1s", viewport={"width": width, "height": 800})
    await loaded(page)
    for interval in ("1s", "5m", "12h", "1M"):
        await page.evaluate("(interval) => { location.hash = `BTCUSDT@${interval}` }", interval)
        await page.locator(f'#intervals [aria-pressed=true]:text-is("{interval}")').wait_for()
        assert await faults(page) == []


@pytest.mark.parametrize(("width", "height"), [(360, 640), (844, 390)])
async def test_dialogs_begin_at_their_beginning_and_end_on_the_screen(
    relay: Running, open_page: OpenPage, width: int, height: int
) -> None:
    page = await open_page(
        f"{relay.url}/#BTCUSDT@1m", viewport={"width": width, "height": height}, is_mobile=True, has_touch=True
    )
    await loaded(page)
    await page.keyboard.press("?")
    await expect(page.get_by_role("heading", name="Keys and signs")).to_be_in_viewport(ratio=1)
    await page.keyboard.press("Escape")
    await page.keyboard.press("/")
    await page.get_by_role("option").first.wait_for()
    await expect(page.locator("#picker .count")).to_be_in_viewport(ratio=1)
    assert await page.evaluate(
        "[...document.querySelectorAll('[role=option] *')].every((one) => one.scrollWidth <= one.clientWidth || "
        "getComputedStyle(one).display === 'none')"
    )


PIXELS_OF_CANDLES = """() => [...document.querySelectorAll(".panel")].map((panel) => {
  const { offsetWidth, offsetHeight } = panel.querySelector(".readout");
  const canvas = panel.querySelector(".canvas td:nth-child(2) canvas");
  const { data } = canvas.getContext("2d").getImageData(0, 0, offsetWidth, offsetHeight);
  const candles = [[10, 132, 97], [207, 48, 74]];
  let found = 0;
  for (let at = 0; at < data.length; at += 4)
    if (data[at + 3] > 200 && candles.some((one) => one.every((part, index) => Math.abs(part - data[at + index]) < 9)))
      found += 1;
  return found;
})"""


async def test_no_candle_lies_under_what_is_written_in_a_small_chart(relay: Running, open_page: OpenPage) -> None:
    page = await open_page(f"{relay.url}/#BTCUSDT@1m", viewport={"width": 1024, "height": 768}, color_scheme="light")
    await loaded(page)
    await page.keyboard.press("8")
    await loaded(page, 8)
    assert await page.evaluate("document.querySelector('.readout').offsetHeight") > 25
    await page.wait_for_function(f"() => ({PIXELS_OF_CANDLES})().every((found) => found === 0)")
