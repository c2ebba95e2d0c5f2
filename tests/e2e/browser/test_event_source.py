"""`EventSource` in a real browser: with a token, over an outage, without a gap or a repeat."""

from playwright.async_api import Page

from tests.conftest import StartRelay
from tests.e2e.browser.conftest import OpenPage, Watch
from tests.support.conditions import eventually

FOLLOW = """
([address]) => {
  window.times = [];
  window.goodbyes = [];
  window.openings = 0;
  const source = new EventSource(address);
  source.onopen = () => { window.openings += 1; };
  source.addEventListener("close", ({ data }) => window.goodbyes.push(JSON.parse(data).code));
  source.onmessage = ({ data }) => {
    const said = JSON.parse(data);
    if (said.type === "snapshot") {
      const closed = said.last_is_closed ? said.candles : said.candles.slice(0, -1);
      window.times.push(...closed.map(({ time }) => time));
    }
    if (said.type === "price_update" && said.is_closed) window.times.push(said.candle.time);
  };
}
"""


async def times(page: Page) -> list[int]:
    found: list[int] = await page.evaluate("window.times")
    return found


async def test_event_source_resumes_where_the_relay_ended(
    relay_with: StartRelay, open_page: OpenPage, watch: Watch
) -> None:
    first = await relay_with(tokens=["opensesame"])
    port = int(first.url.rpartition(":")[2])
    page = await open_page(f"{first.url}/docs")
    await page.evaluate(FOLLOW, ["/api/v1/market-data/sse?streams=BTCUSDT@1s&bars=3&token=opensesame"])

    async def has(count: int) -> None:
        await page.wait_for_function("(count) => window.times.length >= count", arg=count, polling=50)

    await has(5)
    with watch.away():
        await first.close()
        had = len(await times(page))
        second = await relay_with(tokens=["opensesame"], port=port)
        await eventually(lambda: second.clients.event_streams == 1)
        await has(had + 3)
    assert await page.evaluate("[window.goodbyes, window.openings]") == [[1001], 2]
    found = await times(page)
    assert found == list(range(found[0], found[0] + len(found)))
