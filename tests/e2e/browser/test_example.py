"""The example of a chart with the npm package, bundled as its reader bundles it, over outages on both sides."""

import asyncio
import shutil
import subprocess
import tarfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from playwright.async_api import Page, expect

from relay.packaging import npm_package
from tests.e2e.browser.conftest import OpenPage, Watch, async_fixture
from tests.support.conditions import LONGEST_WAIT_S
from tests.support.free_ports import free_port
from tests.support.loopback_server import loopback_server
from tests.support.relay_process import serving
from tests.support.running_relay import PREFIX
from tests.support.sandbox import Sandbox
from tests.support.tools import npm_tool

ROOT = Path(__file__).parents[3]
EXAMPLE = ROOT / "relay" / "web" / "examples" / "lightweight-charts"
LIBRARIES = ROOT / "tests" / "js" / "node_modules"
OUTAGE_S = 3

Json = dict[str, Any]


@pytest.fixture
def bundled(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A folder with the example as its reader has it after installing and bundling."""
    folder = tmp_path / "example"
    shutil.copytree(EXAMPLE, folder)
    for name in ("lightweight-charts", "fancy-canvas"):
        (folder / "node_modules").mkdir(exist_ok=True)
        (folder / "node_modules" / name).symlink_to(LIBRARIES / name)
    with tarfile.open(npm_package.make(tmp_path)) as opened:
        opened.extractall(tmp_path, filter="data")
    (tmp_path / "package").rename(folder / "node_modules" / "market-relay-client")
    command = [npm_tool("esbuild", request.config), "main.js", "--bundle", "--format=esm", "--outfile=dist/main.js"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=LONGEST_WAIT_S, check=False)
    assert done.returncode == 0, done.stderr
    return folder


@async_fixture
async def site(bundled: Path) -> AsyncIterator[str]:
    """The example on a web server of its own; its origin."""
    app = web.Application()
    app.router.add_static("/", bundled)
    async with loopback_server(app) as host:
        yield f"http://{host}"


async def shown(page: Page) -> list[Json]:
    """Return the bars of the chart's series."""
    bars: list[Json] = await page.evaluate("async () => (await import('/dist/main.js')).series.data()")
    return bars


async def shown_until(page: Page, time: int) -> None:
    """Wait until the chart has a candle that opened then or later."""
    await page.wait_for_function(
        "async (time) => (await import('/dist/main.js')).series.data().at(-1)?.time >= time", arg=time, polling=200
    )


async def test_chart_has_all_of_history_after_outages_of_the_provider_and_of_the_relay(
    sandbox: Sandbox, site: str, open_page: OpenPage, watch: Watch, tmp_path: Path
) -> None:
    port = free_port()
    arguments = ("--port", str(port), "--allowed-origins", site, "--database", str(tmp_path / "relay.db"))
    env = {"RELAY_BINANCE_WS_URL": sandbox.binance.ws_url, "RELAY_BINANCE_REST_URL": sandbox.binance.rest_url}
    async with serving(tmp_path, *arguments, env=env, is_sandbox=False) as served:
        page = await open_page(f"{site}/index.html?relay={served.url}&stream=btcusdt@1S")
        state = page.locator("#state")
        await shown_until(page, 1)
        await expect(page.locator("#stream")).to_have_text("BTCUSDT@1s")
        before_all = (await shown(page))[-1]["time"]
        sandbox.binance.faults.stop_listening(rest=True)
        sandbox.binance.faults.drop()
        await expect(state).to_contain_text("reconnecting")
        await asyncio.sleep(OUTAGE_S)  # the subject: so long nothing comes
        before_relay = (await shown(page))[-1]["time"]
        sandbox.binance.faults.clear()
        await shown_until(page, before_relay + OUTAGE_S)
        await expect(state).to_have_text("live")
        with watch.away():
            last = (await shown(page))[-1]["time"]
            served.process.kill()
            await expect(state).to_contain_text("offline")
            await asyncio.sleep(OUTAGE_S)  # the subject: so long nothing answers
            async with serving(tmp_path, *arguments, env=env, is_sandbox=False) as served:
                await shown_until(page, last + OUTAGE_S + 2)
                await expect(state).to_have_text("live")
                async with (
                    aiohttp.ClientSession() as session,
                    session.get(
                        f"{served.url}{PREFIX}/history",
                        params={"symbol": "BTCUSDT", "interval": "1s", "start_time": before_all - 100, "limit": 5000},
                    ) as answer,
                ):
                    history = await answer.json()
                closed = history["candles"][: None if history["last_is_closed"] else -1]
                await shown_until(page, closed[-1]["time"] + 1)
                bars = await shown(page)
    assert [candle["time"] for candle in closed] == list(range(before_all - 100, closed[-1]["time"] + 1))
    assert [bar for bar in bars if before_all - 100 <= bar["time"] <= closed[-1]["time"]] == [
        {name: value for name, value in candle.items() if name != "volume"} for candle in closed
    ]
