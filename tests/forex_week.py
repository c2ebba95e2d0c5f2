"""Days of Twelve Data against the whole relay, sped up: `python -m tests.forex_week --help`; prints what was wrong.

One client stays; another comes and goes and resumes where it was. What both were told is judged by the stand-in's own
market, its own hours, and its own count of credits.
"""

import argparse
import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

from tests.sped_up import Time, install, run

if TYPE_CHECKING:
    from providers.sandbox import Market, TwelveDataStandIn
    from tests.untidy import UntidyTwelveData

Message = dict[str, Any]
Values = tuple[float, float, float, float]

STAYS = ("EUR/USD@1m", "EUR/USD@4h", "EUR/USD@1d", "XAU/USD@1m", "XAU/USD@1h")
COMES_AND_GOES = tuple(f"{symbol}@1m" for symbol in ("AUD/USD", "GBP/USD", "NZD/USD", "USD/CAD", "USD/CHF", "USD/JPY"))
LENGTHS_S = {"1m": 60, "1h": 3600, "4h": 4 * 3600, "1d": 86_400}
HOUR_S = 3600
STAYS_S = 4 * HOUR_S
AWAY_S = 300
SETTLES_S = 180.0
"""After the market closed or opened, its state may be told so much later."""
CLOSES_WITHIN_S = {"poll": 3600.0, "stream": 600.0}
FIRST_PRICE_S = {"poll": 150.0, "stream": 20.0}
"""How soon after the opening the first price is there; a poll needs credits, and one minute of them may be spent."""


TROUBLE_EVERY_S = 5400.0
RECOVERS_S = 900.0
"""So long after a trouble the state may tell of it."""


class Plan(NamedTuple):
    """Credits in a minute and in a day."""

    per_minute: int
    per_day: int


PLANS = {"free": Plan(8, 800), "large": Plan(55, 1_000_000)}


class Scenario(NamedTuple):
    """What is run: `hours` from `start` on (Unix seconds).

    On a `holiday` there are no prices although the market is open by the clock; without `leaves` nobody comes and goes.
    Half of the bars change so long after their end (`settles_s`); with troubles the provider refuses or lies at times.
    """

    start: int
    hours: float
    mode: str
    plan: str
    holiday: tuple[int, int] | None = None
    leaves: bool = True
    settles_s: float = 0.0
    has_troubles: bool = False


class Trouble(NamedTuple):
    """What was wrong with the provider, from when to when."""

    name: str
    start: float
    end: float


def moment(text: str) -> int:
    """Return Unix seconds of a moment in UTC."""
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp())


def shown(at: float) -> str:
    """Write a moment as people say it."""
    return datetime.fromtimestamp(at, UTC).strftime("%a %m-%d %H:%M:%S")


class Told(NamedTuple):
    """A message and when it came."""

    at: float
    message: Message


# -- the judge -------------------------------------------------------------------------------------


class Truth:
    """What the stand-in's market did, of one stream."""

    def __init__(self, market: "Market", symbol: str, interval: str) -> None:
        self._market = market
        self.symbol = symbol
        self.length_s = LENGTHS_S[interval]
        self._scale = 10 ** market.pair(symbol).price_decimals

    def is_open(self, at: float) -> bool:
        """Say whether the market is open by the clock."""
        return self._market.is_open(self.symbol, int(at * 1000))

    def changes(self, start: float, end: float) -> Iterator[tuple[int, bool]]:
        """Yield when the market opens (True) and closes between two moments; it does so at full hours."""
        for at in range(int(start) // HOUR_S * HOUR_S, int(end) + 1, HOUR_S):
            if start < at <= end and self.is_open(at) != self.is_open(at - 1):
                yield at, self.is_open(at)

    def exists(self, opened: int) -> bool:
        """Say whether there are prices in a candle: one hour of trading suffices."""
        end = opened + self.length_s
        return any(
            self.is_open(at) and not self._market.is_hidden(self.symbol, at * 1000, min(end, at + HOUR_S) * 1000)
            for at in range(opened, end, HOUR_S)
        )

    def between(self, start: float, end: float) -> list[int]:
        """Return the open times of the candles that begin at `start` or later and are over by `end`."""
        first = -(-int(start) // self.length_s) * self.length_s
        return [at for at in range(first, int(end) - self.length_s + 1, self.length_s) if self.exists(at)]

    def values(self, opened: int) -> Values:
        """Return open, high, low and close."""
        part = self._market.span(self.symbol, opened * 1000, (opened + self.length_s) * 1000)
        scale = self._scale
        return part.open / scale, part.high / scale, part.low / scale, part.close / scale


class StreamJudge:
    """Judges one stream of one client. `wrong` has a sentence for each fault, with its kind."""

    def __init__(self, who: str, name: str, truth: Truth, scenario: Scenario, troubles: Sequence[Trouble] = ()) -> None:
        self.name = f"{who} {name}"
        self.told: list[Told] = []
        self.wrong: list[tuple[str, str]] = []
        self.revised = 0
        self._truth = truth
        self._scenario = scenario
        self._troubles = troubles
        self._end = scenario.start + scenario.hours * HOUR_S

    def _complain(self, kind: str, text: str) -> None:
        self.wrong.append((kind, f"{self.name}: {text}"))

    def judge(self, spans: Sequence[tuple[float, float]]) -> None:
        """Judge everything; `spans` are when the client was subscribed."""
        self._judge_closes(spans)
        for start, end in spans:
            self._judge_states(start, end)
            self._judge_openings(start, end)

    def _judge_closes(self, spans: Sequence[tuple[float, float]]) -> None:
        closed: dict[int, tuple[float, Values]] = {}
        gaps: list[tuple[float, int, int]] = []
        newest = 0
        for at, message in self.told:
            if message["type"] == "gap":
                gaps.append((at, message["from"], message["to"]))
                self._judge_gap(at, message)
            for opened, values, is_revised in _closed(message):
                self.revised += is_revised
                if is_revised:
                    closed[opened] = closed.get(opened, (at, values))[0], values
                    continue
                if opened in closed:
                    self._complain("twice", f"{shown(opened)} closed again at {shown(at)}")
                elif opened < newest:
                    self._complain("order", f"{shown(opened)} closed after {shown(newest)}")
                if not self._truth.exists(opened):
                    self._complain("never was", f"{shown(opened)} closed, the market was closed")
                newest = max(newest, opened)
                closed.setdefault(opened, (at, values))
        within_s = CLOSES_WITHIN_S[self._scenario.mode]
        due = self._truth.between(spans[0][0], min(spans[-1][1], self._end) - within_s)
        missing = [opened for opened in due if opened not in closed]
        for first, last in _runs(missing, self._truth.length_s):
            is_gap = any(start <= first < end for _, start, end in gaps)
            what = "told as a gap and never repaired" if is_gap else "never closed"
            self._complain("gap" if is_gap else "missing", f"{shown(first)} to {shown(last)} {what}")
        for opened in due:
            if opened in closed:
                at, values = closed[opened]
                if values != self._truth.values(opened):
                    true = self._truth.values(opened)
                    self._complain("values", f"{shown(opened)} closed as {values}, in truth {true}")
                over = opened + self._truth.length_s
                back = min((start for start, end in spans if end >= over), default=over)
                if at > max(over, back) + within_s and not (
                    self._was_throttled(over, at) or self._is_excused(over, at)
                ):
                    self._complain("late", f"{shown(opened)} was over at {shown(over)} and closed at {shown(at)}")

    def _is_excused(self, start: float, end: float) -> bool:
        """Say whether the provider was in trouble, or has been until a moment ago."""
        return any(trouble.start < end and trouble.end + RECOVERS_S > start for trouble in self._troubles)

    def _was_throttled(self, start: float, end: float) -> bool:
        return any(message.get("status") == "throttled" and start <= at <= end for at, message in self.told)

    def _judge_gap(self, at: float, message: Message) -> None:
        start, end = message["from"], message["to"]
        closed = [hour for hour in range(start, end, min(HOUR_S, self._truth.length_s)) if not self._truth.exists(
            hour // self._truth.length_s * self._truth.length_s)]  # fmt: skip
        if closed:
            text = f"{shown(start)} to {shown(end)} told at {shown(at)} ({message['reason']}) names {shown(closed[0])}"
            self._complain("gap in closed hours", text)

    def _states(self, start: float, end: float) -> list[tuple[float, float, str]]:
        """Return what the state was from when to when: `connected` until something else is told."""
        found = [(start, "connected")]
        for at, message in self.told:
            if start <= at <= end and message["type"] == "status":
                if at == found[-1][0]:
                    found.pop()
                if not found or message["status"] != found[-1][1]:
                    found.append((at, message["status"]))
        ends = [at for at, _ in found[1:]] + [end]
        return [(at, until, status) for (at, status), until in zip(found, ends, strict=True)]

    def _judge_states(self, start: float, end: float) -> None:
        changes = [start, *(at for at, _ in self._truth.changes(start, end)), end]
        states = self._states(start, end)
        for opens, closes in pairwise(changes):
            is_open = self._truth.is_open(opens + 1)
            for at, until, status in states:
                # What is left when the first moments after each change are forgiven.
                first, last = max(at, opens + SETTLES_S), min(until, closes)
                if not is_open and status == "throttled":
                    # Its last candles are due yet.
                    first = max([first, *(at for at, told in self.told if opens <= at < closes and [*_closed(told)])])
                if last - first < 1 or self._is_excused(first, last):
                    continue
                lasted = f"from {shown(first)} to {shown(last)}"
                if not is_open and status != "market_closed":
                    self._complain(f"{status} while closed", lasted)
                elif is_open and status == "market_closed":
                    self._complain("market_closed while open", lasted)
                elif is_open and status not in ("connected", "throttled") and not self._is_holiday(first, last):
                    self._complain(f"{status} while open", lasted)
                elif is_open and status == "connected" and self._is_silent(first, last):
                    self._complain("connected without prices", lasted)

    def _is_holiday(self, start: float, end: float) -> bool:
        holiday = self._scenario.holiday
        return holiday is not None and start < holiday[1] + HOUR_S and end > holiday[0]

    def _is_silent(self, start: float, end: float) -> bool:
        holiday = self._scenario.holiday
        if holiday is None or self._truth.length_s > HOUR_S:
            return False
        return min(end, holiday[1]) - max(start, holiday[0] + 2 * HOUR_S) > 0

    def _judge_openings(self, start: float, end: float) -> None:
        within_s = FIRST_PRICE_S[self._scenario.mode]
        for opened, is_open in self._truth.changes(start, end - within_s):
            if not is_open or self._is_holiday(opened, opened + within_s) or self._is_excused(opened, opened + 1):
                continue
            first = next((at for at, message in self.told if at >= opened and _price_time(message) >= opened), None)
            if first is None or first > opened + within_s:
                came = "none" if first is None else f"{first - opened:.0f} s later"
                self._complain("first price", f"opened {shown(opened)}, first price {came}")


def _price_time(message: Message) -> int:
    """Return the end of the candle that a price belongs to, 0 where there is none."""
    if message["type"] != "price_update" or message["is_closed"]:
        return 0
    return int(message["candle"]["time"]) + LENGTHS_S[message["interval"]] - 1


def _closed(message: Message) -> Iterator[tuple[int, Values, bool]]:
    candles: Iterable[Message] = ()
    if message["type"] == "snapshot":
        candles = message["candles"] if message["last_is_closed"] else message["candles"][:-1]
    elif message["type"] == "price_update" and message["is_closed"]:
        candles = (message["candle"],)
    for candle in candles:
        values = candle["open"], candle["high"], candle["low"], candle["close"]
        yield candle["time"], values, bool(message.get("revised"))


def _runs(times: Sequence[int], length_s: int) -> Iterator[tuple[int, int]]:
    first = last = None
    for at in times:
        if first is None or last is None:
            first = at
        elif at != last + length_s:
            yield first, last
            first = at
        last = at
    if first is not None and last is not None:
        yield first, last


# -- the run ---------------------------------------------------------------------------------------


async def simulate(scenario: Scenario) -> tuple[list[tuple[str, str]], dict[str, object]]:
    """Run it; return what was wrong, by kind and in a sentence, and figures."""
    import asyncio

    from aiohttp import web

    from providers import BUILTIN
    from providers.sandbox import Market, SandboxClock
    from relay.app import build_app
    from tests.running import Closed, Running, config_of
    from tests.untidy import UntidyTwelveData

    plan = PLANS[scenario.plan]
    market = Market(1)
    if scenario.holiday is not None:
        for symbol in market.forex:
            market.hide(symbol, *(at * 1000 for at in scenario.holiday))
    stand_in = UntidyTwelveData(
        market,
        SandboxClock(),
        random.Random(1),
        credits_per_minute=plan.per_minute,
        credits_per_day=plan.per_day,
        stream_symbols=100,
        tick_every_s=5.0,
    )
    stand_in.untidy.settle_after(scenario.settles_s)
    spent = _Spent(stand_in)
    troubles: list[Trouble] = []
    end = scenario.start + scenario.hours * HOUR_S
    judges: dict[tuple[str, str], StreamJudge] = {}
    spans: dict[str, list[tuple[float, float]]] = {"stays": [], "comes and goes": []}

    def judge(who: str, name: str) -> StreamJudge:
        symbol, _, interval = name.partition("@")
        return judges.setdefault(
            (who, name), StreamJudge(who, name, Truth(market, symbol, interval), scenario, troubles)
        )

    async def follow(who: str, names: Sequence[str], seconds: float) -> None:
        """Be connected for so long; go on where the last connection ended."""
        client = await relay.connect(heartbeat=None)
        began = time.time()
        for name in names:
            since = max((_last_closed(judge(who, name).told)), default=None)
            options: dict[str, Any] = {} if since is None else {"since": since}
            await client.ask("subscribe", streams=[name], **options)
        try:
            async with asyncio.timeout(seconds):
                while True:
                    message = await client.next(1e9)
                    if "symbol" in message and message["type"] != "subscription":
                        name = f"{message['symbol']}@{message['interval']}"
                        judge(who, name).told.append(Told(time.time(), message))
        except (TimeoutError, Closed):
            spans[who].append((began, time.time()))
        await client.close()

    async def come_and_go() -> None:
        while time.time() < end:
            await follow("comes and goes", COMES_AND_GOES, min(STAYS_S, end - time.time()))
            await asyncio.sleep(AWAY_S)

    async with stand_in:
        table = {
            "rest_url": stand_in.rest_url, "ws_url": stand_in.ws_url, "api_key": stand_in.api_key,
            "mode": scenario.mode, "credits_per_minute": plan.per_minute, "credits_per_day": plan.per_day,
        }  # fmt: skip
        app = build_app(config_of({"twelve_data": table}), [one for one in BUILTIN if "Twelve" in one.__name__])
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=2.0, handle_signals=False)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        host, port = runner.addresses[0][:2]
        relay = Running(app, runner, f"http://{host}:{port}")
        both = [follow("stays", STAYS, end - time.time())]
        if scenario.leaves:
            both.append(come_and_go())
        if scenario.has_troubles:
            both.append(make_troubles(stand_in, troubles, end))
        await asyncio.gather(*both)
        await relay.close()
    wrong = list(spent.wrong(plan))
    for (who, _), one in judges.items():
        one.judge(spans[who])
        wrong += one.wrong
    figures: dict[str, object] = {
        "troubles": len(troubles),
        "messages": sum(len(one.told) for one in judges.values()),
        "closed": sum(1 for one in judges.values() for told in one.told for _ in _closed(told.message)),
        "revised": sum(one.revised for one in judges.values()),
        "credits": spent.total,
        "most credits in a minute": spent.most_in_minute,
        "most credits in a day": max(spent.by_day.values(), default=0),
    }
    return wrong, figures


async def make_troubles(stand_in: "UntidyTwelveData", troubles: list[Trouble], end: float) -> None:
    """Let one thing after the other be wrong with the provider, each for a short time; note when it was."""
    import asyncio

    from tests.untidy import REFUSALS, refuse_rest

    faults, untidy = stand_in.faults, stand_in.untidy

    def lose_ticks() -> None:
        faults.refuse(401)
        faults.drop()

    kinds: dict[str, tuple[float, Callable[[], None]]] = {
        name: (15.0, partial(refuse_rest, faults, name)) for name in REFUSALS
    }
    kinds |= {
        "a null in each answer": (90.0, lambda: untidy.spoil_rows("null")),
        "a close above high in each answer": (90.0, lambda: untidy.spoil_rows("above high")),
        "empty answers": (90.0, untidy.answer_empty),
        "answers for somebody else": (90.0, lambda: untidy.answer_for({"EUR/USD": "USD/JPY", "AUD/USD": "USD/JPY"})),
        "answers of another interval": (90.0, lambda: untidy.answer_for({}, "5min")),
        "slow answers": (600.0, lambda: faults.delay_rest(0, 5, computed="either")),
        "closed candles only": (600.0, lambda: untidy.list_closed_only(20)),
        "no tick stream": (60.0, lose_ticks),
        "a mute tick stream": (300.0, faults.mute),
        "wrong stamps": (300.0, lambda: untidy.stamp("EUR/USD", 7200)),
    }
    settles_s = untidy.settles_after_s
    while True:
        for name, (seconds, begin) in kinds.items():
            if time.time() + TROUBLE_EVERY_S + RECOVERS_S > end:
                return
            await asyncio.sleep(TROUBLE_EVERY_S)
            started = time.time()
            begin()
            await asyncio.sleep(seconds)
            faults.clear()
            untidy.clear()
            untidy.settle_after(settles_s)
            troubles.append(Trouble(name, started, time.time()))


def _last_closed(told: Sequence[Told]) -> list[int]:
    return [opened for one in told for opened, _, is_revised in _closed(one.message) if not is_revised]


class _Spent:
    """Counts the credits that the stand-in takes, by its minute and UTC day."""

    def __init__(self, stand_in: "TwelveDataStandIn") -> None:
        self.total = 0
        self.by_day: Counter[int] = Counter()
        self._credits = stand_in.rest.credits
        self._clock = stand_in.clock
        self._take = self._credits.take
        self._credits.take = self.take  # type: ignore[method-assign]

    def take(self, cost: int) -> None:
        self.total += cost
        self.by_day[self._clock.now_ms() // 86_400_000] += cost
        self._take(cost)

    @property
    def most_in_minute(self) -> int:
        return self._credits.largest_in_a_minute

    def wrong(self, plan: Plan) -> Iterator[tuple[str, str]]:
        if self.most_in_minute > plan.per_minute:
            yield "credits", f"{self.most_in_minute} in a minute"
        for day, cost in self.by_day.items():
            if cost > plan.per_day:
                yield "credits", f"{cost} on {shown(day * 86_400)}"
        if self._credits.refusals:
            yield "credits", f"{self._credits.refusals} calls were refused"


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
    wrong, figures = run(now, simulate(scenario))
    report(wrong, figures, most)
    return 1 if wrong else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--start", type=moment, default=moment("2026-10-16 12:00"), help="in UTC")
    parser.add_argument("--hours", type=float, default=60.0)
    parser.add_argument("--mode", choices=("poll", "stream"), default="poll")
    parser.add_argument("--plan", choices=tuple(PLANS), default="free")
    parser.add_argument("--holiday", nargs=2, type=moment, metavar=("FROM", "TO"), help="no prices then")
    parser.add_argument("--stays-only", action="store_true", help="nobody comes and goes")
    parser.add_argument("--settles", type=float, default=0.0, metavar="S", help="half of the bars change until then")
    parser.add_argument("--troubles", action="store_true", help="the provider refuses and lies at times")
    parser.add_argument("--most", type=int, default=8, help="how many of a kind are printed")
    asked = parser.parse_args()
    holiday = None if asked.holiday is None else (asked.holiday[0], asked.holiday[1])
    chosen = Scenario(
        asked.start, asked.hours, asked.mode, asked.plan, holiday, not asked.stays_only, asked.settles, asked.troubles
    )
    sys.exit(main(install(chosen.start), chosen, asked.most))
