"""Bots beside one another against the simulated exchange, by a relay or not: what the exchange saw of all of them."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

from relay.web.facade_counts import FacadeCounts
from relay.web.facades.facade import FACADES
from tests.peers.freqtrade_bots import Addresses, Bot, configuration, trading
from tests.support.conditions import eventually
from tests.support.running_relay import start_relay
from tests.support.sandbox import Sandbox

MINUTE_MS = 60_000
AFTER_OUTAGE_S = 75.0


@dataclass
class BotRun:
    """What the exchange saw: requests and weight by path, connections and messages of WebSockets.

    By a relay `asked` is what the same requests would have weighed without it, and `polled` counts those for candles.
    `begun` is the weight until all bots had all candles.
    `faults` are sentences about candles that a bot was not shown, or shown wrong. `trades` counts filled orders.
    """

    requests: Counter[str] = field(default_factory=Counter)
    weight: Counter[str] = field(default_factory=Counter)
    connects: int = 0
    messages: int = 0
    trades: int = 0
    asked: int = 0
    polled: int = 0
    begun: int = 0
    faults: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class BotPlan:
    """How many bots trade how many pairs for how long, once all of them have begun; without streams they poll."""

    bots: int = 3
    pairs: int = 20
    seconds: float = 300.0
    most_trades: int = 3
    has_streams: bool = True

    @property
    def names(self) -> list[str]:
        """The pairs; the exchange invents them."""
        return [f"T{number:03d}/USDT" for number in range(1, self.pairs + 1)]


async def run_bots(plan: BotPlan, folder: Path, *, by_relay: bool, outage_s: float = 0.0) -> BotRun:
    """Have bots trade for a while; return what the exchange saw of them, from the first request to the last.

    They have a `folder` of their own, which is made.
    """
    async with AsyncExitStack() as stack:
        sandbox = await stack.enter_async_context(Sandbox(extra_symbols=plan.pairs))
        # ccxt sends a message for each pair at once, which the exchange would end the connection for.
        sandbox.binance.messages_per_second = None
        exchange = Addresses(sandbox.binance.rest_url, sandbox.binance.ws_url)
        counts = FacadeCounts("programs")
        if by_relay:
            relay = await start_relay(sandbox, database=str(_made(folder / "store") / "relay.db"))
            stack.push_async_callback(relay.close)
            counts = relay.app[FACADES].counts["binance"]
            exchange = Addresses(relay.url, relay.url.replace("http://", "ws://"))
        bots = []
        for number in range(plan.bots):
            own = _made(folder / f"bot{number}")
            settings = configuration(exchange, plan.names, most_trades=plan.most_trades, has_streams=plan.has_streams)
            bots.append(await stack.enter_async_context(trading(own, settings)))
        for bot in bots:
            await bot.until(lambda bot=bot: all(map(bot.rows, plan.names)))  # type: ignore[misc]
        begun = sandbox.binance.rest.spent.total()
        loop = asyncio.get_running_loop()
        ends_at = loop.time() + plan.seconds
        if outage_s:
            await outage(sandbox, outage_s)
            # freqtrade takes the last state before an outage for the candle that ended in it, until the next one ends.
            ends_at = max(ends_at, loop.time() + AFTER_OUTAGE_S)
        await asyncio.sleep(max(0.0, ends_at - loop.time()))
        run = BotRun(
            connects=sandbox.binance.connects,
            asked=counts.weight_asked,
            polled=counts.answered["klines"],
            begun=begun,
        )
        run.requests.update(call.path for call in sandbox.binance.requests)
        run.weight.update(sandbox.binance.rest.spent)
        run.messages = sum(one.kind == "text" for one in sandbox.binance.control_messages)
        run.trades = sum(bot.words.count("has been fulfilled") for bot in bots)
        for number, bot in enumerate(bots):
            for pair in plan.names:
                run.faults += [f"bot {number}, {pair}: {fault}" for fault in faults_of(sandbox, bot, pair)]
        return run


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True)
    return folder


async def outage(sandbox: Sandbox, seconds: float) -> int:
    """Cut the exchange off, streams and requests, in the middle of which a minute ends; return its open time."""
    binance = sandbox.binance
    begins_ms = MINUTE_MS - 500 * seconds
    while not begins_ms <= binance.now_ms() % MINUTE_MS < begins_ms + 1000:  # noqa: ASYNC110  as below
        await asyncio.sleep(0.1)
    minute = binance.now_ms() // MINUTE_MS * MINUTE_MS
    binance.faults.answer_rest(503)
    binance.faults.refuse(503)
    binance.faults.drop()
    await eventually(lambda: binance.connections == 0)
    while binance.now_ms() < minute + MINUTE_MS + 500 * seconds:  # noqa: ASYNC110  the minute ends by time
        await asyncio.sleep(0.2)
    binance.faults.clear()
    return minute


def faults_of(sandbox: Sandbox, bot: Bot, pair: str) -> list[str]:
    """Say which minutes a strategy was not shown as its newest candle when they were over, or shown wrong."""
    shown = bot.shown(pair)
    newest = [int(rows[-1][0]) for rows in shown]
    found = [
        f"{(minute - newest[0]) // MINUTE_MS} minutes after its first one it was shown none"
        for minute in range(newest[0], newest[-1], MINUTE_MS)
        if minute not in newest
    ]
    if newest[-1] + 2 * MINUTE_MS < sandbox.binance.now_ms() - 20_000:
        found.append("it was shown nothing lately")
    rows = shown[-1]
    truth = truth_of(sandbox, pair, "1m", int(rows[0][0]), len(rows))
    for row, other in zip(rows, truth, strict=False):
        if row != other:
            found.append(f"a candle is {row} and at the exchange {other}; the newest is of {int(rows[-1][0])}")
    return found


def truth_of(sandbox: Sandbox, pair: str, interval: str, start: int, count: int) -> Sequence[Sequence[float]]:
    """Return candles of the exchange as freqtrade holds them."""
    market = sandbox.binance.market.pair(pair.replace("/", ""))
    rows = sandbox.binance.rest.klines(market, interval, start, None, count)
    return [[float(str(value)) for value in row[:6]] for row in rows]
