"""The pages in a browser through nginx with TLS, at the top of a host and below a path of it."""

from pathlib import Path

import pytest
from playwright.async_api import expect

from relay.config.parsers import networks
from tests.conftest import StartRelay
from tests.e2e.browser.charts import loaded, panel, until
from tests.e2e.browser.conftest import OpenPage, Watch
from tests.support.authority import Authority
from tests.support.proxies import proxy, replaced
from tests.support.tools import tool

TRUSTED = networks(["127.0.0.1"])


@pytest.fixture
def nginx(request: pytest.FixtureRequest) -> str:
    return tool("nginx", "nginx", request.config)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    made = Authority(tmp_path)
    made.issue()
    return made


@pytest.mark.parametrize("is_below", [False, True], ids=["top", "below"])
async def test_pages_are_live_by_https_and_lead_to_one_another(
    relay_with: StartRelay, open_page: OpenPage, nginx: str, authority: Authority, tmp_path: Path, is_below: bool
) -> None:
    relay = await relay_with(trusted_proxies=TRUSTED)
    async with proxy(nginx, "nginx", relay.url, authority, tmp_path, is_below=is_below) as url:
        page = await open_page(f"{url}#BTCUSDT@1s", ignore_https_errors=True)
        await loaded(page)
        assert page.url == f"{url}/#BTCUSDT@1s"
        await until(page, "p.candles.at(-1).time > x", (await panel(page))["candles"][-1]["time"])
        await expect(page.locator("#connection")).to_have_text("Connected")
        await page.get_by_role("link", name="Status", exact=True).click()
        await expect(page.locator("#providers")).to_contain_text("Binance")
        assert page.url == f"{url}/status.html"
        await page.get_by_role("link", name="API", exact=True).click()
        await expect(page.get_by_text(f"{url.replace('https', 'wss', 1)}/api/v1/market-data/ws")).to_be_visible()
        await page.get_by_role("link", name="Charts", exact=True).click()
        await expect(page.locator("#connection")).to_have_text("Connected")
        assert page.url.partition("#")[0] == f"{url}/"


async def test_a_page_names_what_the_proxy_leaves_out(
    relay_with: StartRelay, open_page: OpenPage, watch: Watch, nginx: str, authority: Authority, tmp_path: Path
) -> None:
    relay = await relay_with(trusted_proxies=TRUSTED)

    def change(example: str) -> str:
        return replaced(example, {"    proxy_set_header Upgrade $http_upgrade;\n": ""})

    async with proxy(nginx, "nginx", relay.url, authority, tmp_path, change=change) as url:
        with watch.away():
            page = await open_page(f"{url}/#BTCUSDT@1s", ignore_https_errors=True)
            await expect(page.locator("#trouble")).to_contain_text(
                "a proxy between must pass the headers Upgrade and Connection"
            )
