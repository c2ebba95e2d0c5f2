"""The pages in a browser through nginx with TLS, at the top of a host and below a path of it."""

import re
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import expect

from relay.config.parsers import networks
from tests.conftest import StartRelay
from tests.e2e.browser.charts import loaded, panel, until
from tests.e2e.browser.conftest import OpenPage, Watch, resize
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
        await expect(page).to_have_url(f"{url}/#BTCUSDT@1s")
        await until(page, "p.candles.at(-1).time > x", (await panel(page))["candles"][-1]["time"])
        await expect(page.locator("#connection")).to_have_text("Connected")
        await page.get_by_role("link", name="Status", exact=True).click()
        await expect(page.locator("#providers")).to_contain_text("Binance")
        await expect(page).to_have_url(f"{url}/status.html")
        await page.get_by_role("link", name="API", exact=True).click()
        await expect(page.get_by_text(f"{url.replace('https', 'wss', 1)}/api/v1/market-data/ws")).to_be_visible()
        await page.get_by_role("link", name="Charts", exact=True).click()
        await expect(page.locator("#connection")).to_have_text("Connected")
        await expect(page).to_have_url(re.compile(f"^{re.escape(url)}/(#|$)"))
        # Before the proxy ends: what the page asks for then cannot be had.
        await page.close()


TRUST: dict[str, Any] = {"trusted_proxies": TRUSTED}
PROTO, HOST = "    proxy_set_header X-Forwarded-Proto $scheme;\n", "    proxy_set_header Host $http_host;\n"
UPGRADE = "    proxy_set_header Upgrade $http_upgrade;\n"
CONNECTION = "    proxy_set_header Connection $connection_upgrade;\n"


@pytest.mark.parametrize(
    ("settings", "instead", "words"),
    [
        ({}, {}, "came through a proxy that the relay does not trust;.* can add the proxy to trusted_proxies"),
        (
            TRUST,
            {PROTO: ""},
            "make the proxy pass X-Forwarded-Proto, .*: the page uses https, its request came by http",
        ),
        (TRUST, {HOST: ""}, "make the proxy pass Host with its port"),
        (TRUST, {HOST: "proxy_set_header Host $host;"}, "make the proxy pass Host with its port"),
        (TRUST, {HOST: "proxy_set_header Host localhost:8000;"}, "make the proxy pass Host unchanged"),
        (TRUST, {HOST: "proxy_set_header Host inside.example.org;"}, "make the proxy pass Host unchanged"),
        (TRUST, {UPGRADE: ""}, "a proxy between must pass the headers Upgrade and Connection"),
        (TRUST, {CONNECTION: ""}, "a proxy between must pass the headers Upgrade and Connection"),
    ],
    ids=["no trust", "no scheme", "no host", "no port", "other host", "other name", "no upgrade", "no connection"],
)
async def test_a_page_names_what_is_wrong_with_the_proxy_and_the_remedy(
    relay_with: StartRelay,
    open_page: OpenPage,
    watch: Watch,
    nginx: str,
    authority: Authority,
    tmp_path: Path,
    settings: dict[str, Any],
    instead: dict[str, str],
    words: str,
) -> None:
    relay = await relay_with(**settings)

    def change(example: str) -> str:
        return replaced(example, instead)

    async with proxy(nginx, "nginx", relay.url, authority, tmp_path, change=change) as url:
        with watch.away():
            page = await open_page(f"{url}/#BTCUSDT@1s", ignore_https_errors=True)
            trouble = page.locator("#trouble")
            await expect(trouble).to_contain_text(re.compile(words))
            await expect(trouble).to_be_visible()
            await resize(page, 390, 844)
            # All of it can be read, on a phone too.
            cut_off = await trouble.evaluate(
                """(bar) => {
                  const { right, width, height } = bar.getBoundingClientRect();
                  return [right - 390, bar.scrollWidth - width, bar.scrollHeight - height];
                }"""
            )
            assert max(cut_off) <= 1
            await page.close()
