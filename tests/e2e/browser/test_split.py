"""The chart page during a split: all candles of a chart follow."""

from collections.abc import AsyncIterator

from tests.conftest import StartRelay
from tests.e2e.browser.charts import loaded, panel, until
from tests.e2e.browser.conftest import OpenPage, async_fixture
from tests.support.splitting_venue import OLD, PLUGIN, SplittingVenue, splitting_venue


@async_fixture
async def venue() -> AsyncIterator[SplittingVenue]:
    async with splitting_venue() as venue:
        yield venue


async def test_chart_shows_the_new_prices_everywhere(
    relay_with: StartRelay, venue: SplittingVenue, open_page: OpenPage
) -> None:
    relay = await relay_with(plugins=(PLUGIN,), tables={"shares": {"servers": venue.servers[:1]}})
    page = await open_page(f"{relay.url}/#SHARE@1m")
    await loaded(page)
    before = (await panel(page))["candles"]
    assert all(candle["close"] >= OLD for candle in before)
    split_at = venue.split()
    await until(page, "p.candles.filter((one) => one.time < x && one.close >= 4000).length === 0", split_at)
    await until(page, "p.candles.length >= x", 500)
    shown = (await panel(page))["candles"]
    times = [candle["time"] for candle in shown]
    assert times == list(range(times[0], times[-1] + 60, 60))
    assert not any(candle["isRevised"] for candle in shown)
