"""Days of Twelve Data against the whole relay, sped up: `python -m tests.support.forex_week --help` has the options.

One client stays, another comes and goes and resumes where it was, and one comes when the market has just closed. What
they were told is judged by the stand-in's own market, its own hours, and its own count of credits.
"""

import argparse
import random
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tests.support.forex_judge import (
    LENGTHS_S,
    PLANS,
    Message,
    Plan,
    Scenario,
    StreamJudge,
    Told,
    Trouble,
    Truth,
    closed_candles,
    moment,
    shown,
)
from tests.support.sped_up_time import STEP_S, Time, install, run

if TYPE_CHECKING:
    from tests.support.running_relay import Running
    from tests.support.sandbox import TwelveDataStandIn

STAYS = ("EUR/USD@1m", "EUR/USD@4h", "EUR/USD@1d", "XAU/USD@1m", "XAU/USD@1h")
COMES_AND_GOES = tuple(f"{symbol}@1m" for symbol in ("AUD/USD", "GBP/USD", "NZD/USD", "USD/CAD", "USD/CHF", "USD/JPY"))
COMES_LATE = ("GBP/JPY@4h", "EUR/JPY@1d")
STAYS_S = 4 * 3600
AWAY_S = 300
LATE_S = 1800
RETRY_S = 60.0
"""So long after a refusal a client subscribes again."""
GAPS_EVERY_S = 1800.0
"""So often a client asks for what it was told is missing, as the relay's own do."""
MOST_GAPS = 50
"""So many a client may ask for when it resumes."""
QUIET_FROM_S = 3600.0
QUIET_STEP_S = 10.0
"""While the market is closed timers may be so late, from an hour after its close to an hour before it opens."""
LEAPS_AFTER_S = 5 * 3600.0
"""So long after a close the candles that hold it are over too, the longest of them at midnight of UTC."""
ORDEAL_NAMES = ("troubles", "another key", "a smaller plan", "another program", "no ticks at first")


async def simulate(now: Time, scenario: Scenario) -> tuple[list[tuple[str, str]], dict[str, object]]:
    """Run it; return what was wrong, by kind and in a sentence, and figures."""
    import asyncio

    from aiohttp import web

    from providers import BUILTIN
    from relay.app import build_app
    from relay.server.reload import Reload
    from tests.support.forex_troubles import ORDEALS, REFUSALS_ALLOWED, Ordeal
    from tests.support.running_relay import Closed, Running, config_of
    from tests.support.sandbox import StagedClock, StagedMarket
    from tests.support.untidy import UntidyTwelveData

    plan = PLANS[scenario.plan]
    market = StagedMarket(1)
    for holiday in (*scenario.holidays, *scenario.bank_holidays):
        for symbol in market.forex:
            market.hide(symbol, *(int(at) * 1000 for at in holiday))
    stand_in = UntidyTwelveData(
        market,
        StagedClock(),
        random.Random(1),
        credits_per_minute=plan.per_minute,
        credits_per_day=plan.per_day,
        stream_symbols=100,
        tick_every_s=5.0,
        most_ticks=1,
    )
    spent = _Spent(stand_in)
    troubles: list[Trouble] = []
    end = scenario.end
    judges: dict[tuple[str, str], StreamJudge] = {}
    progress: defaultdict[tuple[str, str], Progress] = defaultdict(Progress)
    spans: dict[str, list[tuple[float, float]]] = {"stays": [], "comes and goes": [], "comes late": []}

    def judge(who: str, name: str) -> StreamJudge:
        if (who, name) not in judges:
            symbol, _, interval = name.partition("@")
            truth = Truth(market, symbol, interval, is_new_york=scenario.is_new_york)
            judges[who, name] = StreamJudge(who, name, truth, scenario, troubles)
        return judges[who, name]

    async def follow(who: str, names: Sequence[str], seconds: float) -> None:
        """Be connected for so long; go on where the last connection ended."""
        client = await relay.connect(heartbeat=None)
        began = time.time()
        followed = {name: (judge(who, name), progress[who, name]) for name in names}

        async def subscribe(name: str, wait_s: float = 0.0) -> None:
            await asyncio.sleep(wait_s)
            await client.ask("subscribe", streams=[name], **followed[name][1].options())

        async def ask_for_gaps() -> None:
            while True:
                await asyncio.sleep(GAPS_EVERY_S)
                for name, (_, told) in followed.items():
                    if told.gaps():
                        await subscribe(name)

        subscribing = [*(asyncio.create_task(subscribe(name)) for name in names), asyncio.create_task(ask_for_gaps())]
        try:
            async with asyncio.timeout(seconds):
                while True:
                    message = await client.next(1e9)
                    if "symbol" in message:
                        name = f"{message['symbol']}@{message['interval']}"
                        judged, told = followed[name]
                        judged.told.append(Told(time.time(), message))
                        told.take(message)
                        if message["type"] == "error":
                            subscribing.append(asyncio.create_task(subscribe(name, RETRY_S)))
        except (TimeoutError, Closed):
            spans[who].append((began, time.time()))
        for task in subscribing:
            task.cancel()
        await client.close()

    async def come_and_go() -> None:
        while time.time() < end:
            await follow("comes and goes", COMES_AND_GOES, min(STAYS_S, end - time.time()))
            await asyncio.sleep(AWAY_S)

    async def come_late() -> None:
        """Subscribe when the market has just closed for the first time."""
        closes = [at for at, is_open in Truth(market, "GBP/JPY", "4h").changes(scenario.start, end) if not is_open]
        if closes and closes[0] + LATE_S < end:
            await asyncio.sleep(closes[0] + LATE_S - time.time())
            await follow("comes late", COMES_LATE, end - time.time())

    async def hurry_through_closed_hours() -> None:
        usual_s = now.step_s
        for at, is_open in Truth(market, "EUR/USD", "1m").changes(scenario.start, end):
            if is_open and scenario.leaps:
                await asyncio.sleep(LEAPS_AFTER_S - QUIET_FROM_S)
                now.leap(at - QUIET_FROM_S)
            await asyncio.sleep(at + (-QUIET_FROM_S if is_open else QUIET_FROM_S) - time.time())
            now.step_s = usual_s if is_open else max(usual_s, QUIET_STEP_S)

    async with stand_in:
        table = {
            "rest_url": stand_in.rest_url, "ws_url": stand_in.ws_url, "api_key": stand_in.api_key,
            "mode": scenario.mode, "credits_per_minute": plan.per_minute, "credits_per_day": plan.per_day,
        }  # fmt: skip
        config = config_of({"twelve_data": table})
        app = build_app(config, [one for one in BUILTIN if "Twelve" in one])

        def reconfigure(settings: Mapping[str, Any]) -> None:
            Reload(app, config, lambda: config_of({"twelve_data": {**table, **settings}}), None)()

        runner = web.AppRunner(app, access_log=None, shutdown_timeout=2.0, handle_signals=False)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        host, port = runner.addresses[0][:2]
        relay = Running(app, runner, f"http://{host}:{port}")
        ordeal = Ordeal(scenario, stand_in, troubles, reconfigure)
        ordeal.be_usual()
        # Until the list of symbols is there nobody knows whose they are.
        while not await _lists_symbols(relay):  # noqa: ASYNC110  another process would ask as well
            await asyncio.sleep(5.0)
        hurry = asyncio.create_task(hurry_through_closed_hours())
        suffered = [asyncio.create_task(ORDEALS[name](ordeal)) for name in sorted(scenario.ordeals)]
        clients = [follow("stays", STAYS, end - time.time()), come_late()]
        if scenario.leaves:
            clients.append(come_and_go())
        await asyncio.gather(*clients)
        for task in suffered:
            # One that failed has not shown what it is there to show.
            if task.done():
                task.result()
            task.cancel()
        hurry.cancel()
        await relay.close()
    wrong = list(spent.wrong(plan, sum(REFUSALS_ALLOWED.get(name, 0) for name in scenario.ordeals)))
    for (who, _), one in judges.items():
        if spans[who]:
            one.judge(spans[who])
        wrong += one.wrong
    figures: dict[str, object] = {
        "hours": scenario.hours,
        "troubles": len(troubles),
        "messages": sum(len(one.told) for one in judges.values()),
        "closed candles told": sum(
            1 for one in judges.values() for told in one.told for _ in closed_candles(told.message)
        ),
        "closed candles compared": sum(one.compared for one in judges.values()),
        "revised": sum(one.revised for one in judges.values()),
        "states": " ".join(sorted(set().union(*(one.states for one in judges.values())))),
        "credits": spent.total,
        "most credits in a minute": spent.most_in_minute,
        "most credits in a day": max(spent.by_day.values(), default=0),
        "refusals for credits": spent.refusals,
    }
    return wrong, figures


async def _lists_symbols(relay: "Running") -> bool:
    answer = await relay.get("symbols")
    return answer.status == 200 and "EUR/USD" in answer.body


class Progress:
    """What a client was told of one stream in all its connections: where it goes on, and what it lacks."""

    def __init__(self) -> None:
        self._closed: set[int] = set()
        self._newest = 0
        self._revision: int | None = None
        self._gaps: list[Message] = []

    def take(self, message: Message) -> None:
        """Take the next message."""
        for opened, _, _ in closed_candles(message):
            self._closed.add(opened)
            self._newest = max(self._newest, opened)
        self._revision = message.get("revision", self._revision)
        if message["type"] == "gap":
            self._gaps.append(message)

    def gaps(self) -> list[list[int]]:
        """Return from when to when candles are missing that the client has not been given since."""
        self._gaps = [gap for gap in self._gaps if not self._is_filled(gap)]
        return [[gap["from"], gap["to"]] for gap in self._gaps] if self._closed else []

    def _is_filled(self, gap: Message) -> bool:
        return self._closed.issuperset(range(gap["from"], gap["to"], LENGTHS_S[gap["interval"]]))

    def options(self) -> dict[str, Any]:
        """Return with what it subscribes again: behind its last closed candle, and what changed meanwhile."""
        if not self._closed:
            return {}
        options: dict[str, Any] = {"since": self._newest}
        if self._revision is not None:
            options["revision"] = self._revision
        gaps = self.gaps()
        return {**options, "gaps": gaps[-MOST_GAPS:]} if gaps else options


class _Spent:
    """Counts the credits that the stand-in takes, by its minute and UTC day."""

    def __init__(self, stand_in: "TwelveDataStandIn") -> None:
        self.total = 0
        self.by_day: Counter[int] = Counter()
        self._credits = stand_in.rest.credits
        self._clock = stand_in.clock
        self._spend = self._credits.spend
        self._credits.spend = self.spend  # type: ignore[method-assign]

    def spend(self, cost: int) -> None:
        self.total += cost
        self.by_day[self._clock.now_ms() // 86_400_000] += cost
        self._spend(cost)

    @property
    def most_in_minute(self) -> int:
        return self._credits.largest_in_a_minute

    @property
    def refusals(self) -> int:
        return self._credits.refusals

    def wrong(self, plan: Plan, allowed: int) -> Iterator[tuple[str, str]]:
        """Yield where the plan was exceeded; with `allowed` refusals it could not be known."""
        if self.most_in_minute > plan.per_minute and not allowed:
            yield "credits", f"{self.most_in_minute} in a minute"
        for day, cost in self.by_day.items():
            if cost > plan.per_day + allowed:
                yield "credits", f"{cost} on {shown(day * 86_400)}"
        if self.refusals > allowed:
            yield "credits", f"{self.refusals} calls were refused"


def report(wrong: Sequence[tuple[str, str]], figures: Mapping[str, object], most: int) -> None:
    """Print it all, of each kind the first few."""
    for name, value in figures.items():
        print(f"{name}: {value}")
    kinds = Counter(kind for kind, _ in wrong)
    for kind, times in kinds.most_common():
        print(f"WRONG {kind}: {times}")
        for sentence in [text for what, text in wrong if what == kind][:most]:
            print(f"    {sentence}")


def main(now: Time, scenario: Scenario, most: int) -> int:
    """Run one scenario; return 1 if anything was wrong."""
    wrong, figures = run(now, simulate(now, scenario))
    report(wrong, figures, most)
    return 1 if wrong else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--start", type=moment, default=moment("2026-10-16 12:00"), help="in UTC")
    parser.add_argument("--hours", type=float, default=60.0)
    parser.add_argument("--mode", choices=("poll", "stream"), default="poll")
    parser.add_argument("--plan", choices=tuple(PLANS), default="free")
    parser.add_argument(
        "--holiday", nargs=2, type=moment, action="append", default=[], metavar=("FROM", "TO"), help="no prices then"
    )
    parser.add_argument(
        "--bank-holiday", nargs=2, type=moment, action="append", default=[], metavar=("FROM", "TO"), help="a known one"
    )
    parser.add_argument("--stays-only", action="store_true", help="nobody comes and goes")
    parser.add_argument("--settles", type=float, default=0.0, metavar="S", help="half of the bars change until then")
    parser.add_argument("--ordeal", choices=ORDEAL_NAMES, action="append", default=[], help="what happens meanwhile")
    parser.add_argument("--new-york", action="store_true", help="candles of four hours begin with the market's day")
    parser.add_argument("--tidy", action="store_true", help="the provider answers at once, once and in order")
    parser.add_argument("--step", type=float, default=STEP_S, metavar="S", help="timers run at multiples of this")
    parser.add_argument("--leap", action="store_true", help="closed hours pass at once, but the first and the last")
    parser.add_argument("--most", type=int, default=8, help="how many of a kind are printed")
    asked = parser.parse_args()
    chosen = Scenario(
        asked.start,
        asked.hours,
        asked.mode,
        asked.plan,
        tuple((first, last) for first, last in asked.holiday),
        leaves=not asked.stays_only,
        settles_s=asked.settles,
        ordeals=frozenset(asked.ordeal),
        is_new_york=asked.new_york,
        is_tidy=asked.tidy,
        bank_holidays=tuple((first, last) for first, last in asked.bank_holiday),
        leaps=asked.leap,
    )
    sys.exit(main(install(chosen.start, asked.step), chosen, asked.most))
