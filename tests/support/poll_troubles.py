"""Twelve Data in poll mode while its answers are of no use, sped up: `python -m tests.support.poll_troubles 1m`.

One stream, one trouble after the other: it lasts from a live stream until long after the stream is known to be silent.
Meanwhile no price comes, so nothing may say that the stream is live. What says so is printed.
"""

import asyncio
import random
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from tests.support.sped_up_time import install, run

if TYPE_CHECKING:
    from tests.support.untidy import UntidyTwelveData

START = 1_768_392_020
"""2026-01-14 12:00:20 UTC, a Wednesday."""
LASTS_S = 1200.0
RECOVERS_S = 320.0
"""A stream that was refused is tried again after so long at most."""
REFUSED = '{"code":%d,"message":"not for you","status":"error"}'


class Told(NamedTuple):
    """A state and when it was told."""

    at: float
    status: str


def kinds(stand_in: "UntidyTwelveData", symbol: str) -> Iterator[tuple[str, Callable[[], None]]]:
    """Yield what can be wrong with each answer; no answer has a candle of the stream then."""
    faults, untidy = stand_in.faults, stand_in.untidy
    no_data = '{"code":400,"message":"No data is available on the specified dates.","status":"error"}'
    yield "for another symbol", lambda: untidy.answer_for({symbol: "USD/JPY"})
    yield "empty", untidy.answer_empty
    yield "no data", partial(faults.answer_rest, 400, no_data, path="/time_series")
    yield "null", lambda: untidy.spoil_rows("null", range(START // 60 * 60 - 7200, START + 86_400, 60))
    for status in (400, 404, 503):
        yield str(status), partial(faults.answer_rest, status, REFUSED % status, path="/time_series")
    yield "frozen", lambda: untidy.freeze(time.time())


async def main(interval: str) -> list[str]:
    """Run it with one stream; return what was wrong."""
    from aiohttp import web

    from providers import BUILTIN
    from relay.app import build_app
    from tests.support.running_relay import Running, config_of
    from tests.support.sandbox import StagedClock, StagedMarket
    from tests.support.untidy import UntidyTwelveData

    wrong: list[str] = []
    told: list[Told] = []
    prices: list[float] = []
    stand_in = UntidyTwelveData(
        StagedMarket(1), StagedClock(), random.Random(1), credits_per_minute=800, credits_per_day=1_000_000
    )

    async def listen() -> None:
        while True:
            message = await client.next(1e9)
            if message["type"] == "status" and "symbol" in message:
                told.append(Told(time.time(), message["status"]))
            elif message["type"] == "price_update":
                prices.append(time.time())

    async with stand_in:
        table = {
            "rest_url": stand_in.rest_url, "ws_url": stand_in.ws_url, "api_key": stand_in.api_key,
            "credits_per_minute": 800, "credits_per_day": 1_000_000,
        }  # fmt: skip
        app = build_app(config_of({"twelve_data": table}), [one for one in BUILTIN if "Twelve" in one])
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=2.0, handle_signals=False)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        host, port = runner.addresses[0][:2]
        relay = Running(app, runner, f"http://{host}:{port}")
        client = await relay.connect(heartbeat=None)
        listening = asyncio.create_task(listen())
        await client.ask("subscribe", streams=[f"EUR/USD@{interval}"])
        for name, begin in kinds(stand_in, "EUR/USD"):
            await asyncio.sleep(RECOVERS_S)
            if told and told[-1].status != "connected":
                wrong.append(f"before {name}: the stream is {told[-1].status}")
            told.clear()
            begin()
            began = time.time()
            await asyncio.sleep(LASTS_S)
            last_price = max((at for at in prices), default=0.0)
            if not told:
                wrong.append(f"{name}: live for {LASTS_S:.0f} s")
            for one in told:
                if one.status == "connected" and one.at > last_price:
                    wrong.append(f"{name}: {one.status} after {one.at - began:.1f} s")
            stand_in.faults.clear()
            stand_in.untidy.clear()
        listening.cancel()
        await client.close()
        await relay.close()
    return wrong


if __name__ == "__main__":
    now = install(START)
    found = [f"{interval} {text}" for interval in sys.argv[1:] for text in run(now, main(interval))]
    print("\n".join(found) or "nothing was wrong")
    sys.exit(1 if found else 0)
