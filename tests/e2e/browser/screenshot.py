"""Takes pictures of the pages with the sandbox behind them: `python -m tests.e2e.browser.screenshot [DIRECTORY]`.

Without a directory it takes the one in the README again; with one, all of them, to be looked at.
"""

import asyncio
import sys
from pathlib import Path
from typing import Any, NamedTuple

from playwright.async_api import async_playwright

from tests.e2e.browser.charts import loaded
from tests.e2e.browser.chromium import launch
from tests.support.running_relay import Running, start_relay
from tests.support.sandbox import Sandbox

CHROMIUM = "/usr/bin/chromium"
README_PICTURE = Path(__file__).parent / "chart-page.png"
FOUR = "#BTCUSDT@1m,ETHUSDT@5m,EUR/USD@1h,SOLUSDT@1d"


class Picture(NamedTuple):
    """One view of a page, and the keys pressed before the picture is taken."""

    path: str
    charts: int
    width: int
    height: int
    scheme: str = "light"
    keys: tuple[str, ...] = ()
    is_phone: bool = False


README = Picture(f"/{FOUR}", 4, 1280, 720, "dark")
PICTURES = {
    "desktop": Picture("/#BTCUSDT@1m", 1, 1280, 800),
    "desktop-dark": README,
    "eight": Picture("/#BTCUSDT@1m,ETHUSDT@1m", 8, 1600, 900, "light", ("8",)),
    "futures": Picture("/#BTCUSDT@1m,binance_usdm:BTCUSDT@1m", 2, 1280, 720, "dark"),
    "search": Picture("/#BTCUSDT@1m", 1, 1280, 800, "dark", ("/", "u", "s", "d")),
    "help": Picture("/#BTCUSDT@1m", 1, 1280, 800, "light", ("?",)),
    "watch-list": Picture(f"/{FOUR}", 4, 1440, 900, "light", ("w",)),
    "phone-watch-list": Picture(f"/{FOUR}", 4, 390, 844, "dark", ("w",), is_phone=True),
    "phone": Picture("/#BTCUSDT@1m", 1, 390, 844, "light", (), is_phone=True),
    "phone-dark": Picture("/#BTCUSDT@1m,EUR/USD@1h", 2, 390, 844, "dark", (), is_phone=True),
    "phone-search": Picture("/#BTCUSDT@1m", 1, 390, 844, "dark", ("/", "e", "u", "r"), is_phone=True),
    "status": Picture("/status.html", 0, 1280, 800),
    "status-phone-dark": Picture("/status.html", 0, 390, 844, "dark", (), is_phone=True),
}


async def main(pictures: dict[Path, Picture]) -> None:
    """Take pictures of a relay with the sandbox behind it."""
    async with Sandbox(pace_s=0.5, forex_always_open=True, futures=True) as sandbox:
        relay = await start_relay(sandbox)
        try:
            await _take(relay, pictures)
        finally:
            await relay.close()


async def _take(relay: Running, pictures: dict[Path, Picture]) -> None:
    async with async_playwright() as playwright, launch(playwright, CHROMIUM) as browser:
        for file, picture in pictures.items():
            options: dict[str, Any] = {"viewport": {"width": picture.width, "height": picture.height}}
            options |= {"color_scheme": picture.scheme, "is_mobile": picture.is_phone, "has_touch": picture.is_phone}
            page = await (await browser.new_context(**options)).new_page()
            await page.goto(relay.url + picture.path)
            if picture.charts:
                await loaded(page, picture.path.count("@"))
            for key in picture.keys:
                await page.keyboard.press(key)
            if picture.charts:
                await loaded(page, picture.charts)
            await page.wait_for_timeout(3000)
            await page.screenshot(path=file)
            await page.context.close()
            print(file)


if __name__ == "__main__":
    wanted = {README_PICTURE: README}
    if len(sys.argv) > 1:
        directory = Path(sys.argv[1])
        directory.mkdir(parents=True, exist_ok=True)
        wanted = {directory / f"{name}.png": picture for name, picture in PICTURES.items()}
    asyncio.run(main(wanted))
