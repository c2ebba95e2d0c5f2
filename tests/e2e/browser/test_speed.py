"""Eight charts at twenty updates a second beside a whole watch list: what they cost, and how many frames are shown."""

import asyncio
import itertools
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from providers import BUILTIN
from relay import API_VERSION, Candle, Instrument, PriceUpdate, ProviderInfo, Watchlist, hookimpl
from tests.conftest import StartRelay
from tests.e2e.browser.charts import loaded, open_with_list
from tests.e2e.browser.conftest import OpenPage

SYMBOLS = tuple(f"BUSY{number}" for number in range(50))
STREAMS = tuple(f"{symbol}@1m" for symbol in SYMBOLS[:8])
UPDATES_A_SECOND = 20
SECONDS = 4


class Busy:
    """A provider whose prices move twenty times a second, those in no chart as often as a list shows it."""

    @hookimpl
    def relay_provider(self) -> ProviderInfo:
        return ProviderInfo(name="busy", api=API_VERSION, title="Busy", asset_classes=("demo",), intervals=("1m",))

    @hookimpl
    async def relay_instruments(self) -> list[Instrument]:
        return [Instrument(symbol=symbol, asset_class="demo", base=symbol, quote="USD") for symbol in SYMBOLS]

    @hookimpl
    async def relay_candles(self, start: int | None, end: int | None, limit: int) -> list[Candle]:
        open_time = int(time.time()) // 60 * 60
        bound = open_time if end is None else min(end, open_time)
        first = bound - 60 * limit if start is None else start
        return [candle(at, 100 + at // 60 % 17) for at in range(first - first % -60, bound, 60)][:limit]

    @hookimpl
    async def relay_stream(self, watchlist: Watchlist) -> AsyncIterator[PriceUpdate]:
        for count in itertools.count():
            await asyncio.sleep(1 / UPDATES_A_SECOND)
            now = time.time()
            for key in watchlist.streams:
                if f"{key.symbol}@1m" not in STREAMS and count % UPDATES_A_SECOND:
                    continue
                moved = candle(int(now) // 60 * 60, 105 + count % 40 / 10)
                yield PriceUpdate(key=key, candle=moved, is_closed=False, ts_event_ms=int(now * 1000))


def candle(time: int, price: float) -> Candle:
    return Candle(time=time, open=price, high=price + 1, low=price - 1, close=price + 0.5, volume=3.0)


FRAMES = f"""(expected) => new Promise((done) => {{
  const start = performance.now(), received = relayCharts.received;
  let frames = 0;
  const step = (now) => {{
    frames += 1;
    const updates = relayCharts.received - received;
    if (now - start < {SECONDS * 1000} || updates < expected / 2) return requestAnimationFrame(step);
    const seconds = (now - start) / 1000;
    done({{ seconds, frames: frames / seconds, updates }});
  }};
  requestAnimationFrame(step);
}})"""


async def test_eight_busy_charts_cost_two_thirds_of_a_core_at_most(
    relay_with: StartRelay,
    open_page: OpenPage,
    capsys: pytest.CaptureFixture[str],
) -> None:
    relay = await relay_with(builtin=[*BUILTIN, Busy()])
    page = await open_with_list(open_page, f"{relay.url}/#{','.join(STREAMS)}", *SYMBOLS)
    await loaded(page, 8)
    await page.locator("#board li").last.get_by_text(".").wait_for()
    # What is in a chart is in the list without a stream of its own, the others have an update a second.
    expected = SECONDS * (len(STREAMS) * UPDATES_A_SECOND + len(SYMBOLS) - len(STREAMS))
    devtools = await page.context.new_cdp_session(page)
    # Processor time of the page's thread, which a busy machine does not stretch as it does the clock.
    await devtools.send("Performance.setTimeDomain", {"timeDomain": "threadTicks"})
    await devtools.send("Performance.enable")

    async def spent() -> dict[str, float]:
        answer: dict[str, Any] = await devtools.send("Performance.getMetrics")
        return {one["name"]: one["value"] for one in answer["metrics"]}

    before = await spent()
    shown = await page.evaluate(FRAMES, expected)
    after = await spent()
    # For as many updates as come where nothing pauses the machine.
    seconds = shown["updates"] / expected * SECONDS
    cost = {name: (after[name] - before[name]) / seconds for name in ("TaskDuration", "ScriptDuration")}
    with capsys.disabled():
        print(
            f"\n8 charts and a list of 50, {shown['updates'] / shown['seconds']:.0f} updates/s: "
            f"{shown['frames']:.1f} frames/s, "
            f"main thread busy {cost['TaskDuration']:.0%}, of it scripts {cost['ScriptDuration']:.0%}"
        )
    # The frames are reported, not asserted: without a graphics processor they say more about the machine, where the
    # painting takes most. What the scripts take is the page's own: a third of a core on a quiet machine; waits
    # for caches that others use are charged to it too.
    assert cost["ScriptDuration"] < 2 / 3
