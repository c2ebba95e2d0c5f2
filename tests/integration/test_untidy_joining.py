"""First subscribers join streams of a provider that is slow or lags: what they get is one sequence."""

import asyncio
import contextlib

import pytest

from tests.support.running_relay import Running, start_relay
from tests.support.soak import MarketTruth, StreamCheck
from tests.support.transports import TRANSPORTS, Transport
from tests.support.untidy import UntidySandbox

SYMBOLS = ("BTCUSDT", "ETHUSDT", "BNBUSDT", "SOLUSDT", "XRPUSDT", "ADAUSDT")
FOLLOWED_S = 6.0
SETTLES_S = 40.0


async def follow(
    relay: Running, sandbox: UntidySandbox, over: Transport, symbol: str, back: int, *, resumes: bool
) -> list[str]:
    """Join a stream that nobody has, with `since` or `bars`, until nothing is due any more; return what was wrong."""
    now = sandbox.clock.now
    check = StreamCheck(f"{symbol}@1s", MarketTruth(sandbox.binance, symbol, "1s"))
    client = await over.reader(relay)
    since = int(now()) - back
    await client.ask("subscribe", streams=[check.name], **({"since": since} if resumes else {"bars": back}))
    until = now() + FOLLOWED_S

    async def listen() -> None:
        while now() < until or not check.is_settled(until):
            message = await client.next()
            if message["type"] == "subscription":
                check.subscribed(now(), since if resumes else None)
            elif "symbol" in message:
                check.take(message, now())

    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(SETTLES_S):
            await listen()
    check.finish(until)
    await client.close()
    return [str(found) for found in check.found]


@pytest.mark.parametrize("resumes", [True, False], ids=["since", "bars"])
@pytest.mark.parametrize(
    ("lag_s", "least_s", "most_s"),
    [(0.0, 3.5, 3.5), (3.0, 0.0, 0.0), (3.0, 0.0, 2.0), (None, 0.0, 5.0)],
)
async def test_nothing_is_lost_between_the_past_and_the_live_stream(
    lag_s: float | None, least_s: float, most_s: float, resumes: bool
) -> None:
    async with UntidySandbox(seed=1, pace_s=0.4) as sandbox:
        relay = await start_relay(sandbox)
        try:
            await relay.get("symbols")
            if lag_s is not None:
                sandbox.binance.untidy.list_closed_only(lag_s)
            sandbox.binance.faults.delay_rest(least_s, most_s, computed="either")
            joining = [
                follow(relay, sandbox, TRANSPORTS[back % 2], symbol, back, resumes=resumes)
                for back, symbol in enumerate(SYMBOLS, start=2)
            ]
            wrong = [text for found in await asyncio.gather(*joining) for text in found]
        finally:
            await relay.close()
    assert wrong == []
