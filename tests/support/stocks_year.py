"""A year of stocks against the whole relay, sped up: `python -m tests.support.stocks_year --help` has the options.

The exchange is a table of days of its own, which knows nothing of the relay's calendars. One client follows a symbol at
all intervals, and what it was told is judged by that table.
"""

import argparse
import asyncio
import importlib
import sys
import time
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

from tests.support.sped_up_time import Time, install, run

NEW_YORK = ZoneInfo("America/New_York")
HOLIDAYS = (
    "2026-01-01", "2026-01-19", "2026-02-16", "2026-04-03", "2026-05-25", "2026-06-19", "2026-07-03", "2026-09-07",
    "2026-11-26", "2026-12-25", "2027-01-01",
)  # fmt: skip
HALF_DAYS = ("2026-11-27", "2026-12-24")
LENGTHS_S = {"15m": 900, "1h": 3600, "2h": 7200, "4h": 14_400}
OWN = ("15m", "1h", "1d", "1w")
BUILT = ("2h", "4h", "3d", "1M")
"""What the exchange does not have, and the relay builds."""
INTERVALS = OWN
POLL_S = 300.0
LATE_S = 430.0
"""So long after a candle's end the client has to know: a poll, and two steps of the simulated time."""
STATE_S = 3.0
"""The relay looks at the hours about once a second."""
MOST_DOUBTS = 4
"""Where the weeks before the first one begin is in doubt: that is asked four times, as everywhere."""
NEAR_S = 12
QUIET_STEP_S = 1200.0
OPEN_STEP_S = 60.0


class Outage(NamedTuple):
    """Nobody reaches the exchange from `start` to `end`, and its history from `start` to `history_end`."""

    start: int
    end: int
    history_end: int


class Asked(NamedTuple):
    """A call: when it came, whether it was for history, and how many candles it brought."""

    at: float
    is_history: bool
    brought: int


class Exchange:
    """Sessions and candles, as a table; the plugin's venue. It counts when it was asked."""

    def __init__(self, first: date, last: date, outages: Sequence[Outage], followed: Sequence[str] = INTERVALS) -> None:
        self.outages = outages
        self.followed = followed
        self.asked: list[Asked] = []
        self.sessions: list[tuple[int, int]] = []
        # Of each interval: open time and end.
        self.candles: dict[str, list[tuple[int, int]]] = {interval: [] for interval in OWN + BUILT}
        weeks: dict[int, int] = {}
        threes: dict[int, int] = {}
        months: dict[int, int] = {}
        day = first
        while day <= last:
            if day.weekday() < 5 and day.isoformat() not in HOLIDAYS:
                opens = _at(day, 9, 30)
                closes = _at(day, 13 if day.isoformat() in HALF_DAYS else 16, 0)
                self.sessions.append((opens, closes))
                for interval, length in LENGTHS_S.items():
                    self.candles[interval] += [(at, min(at + length, closes)) for at in range(opens, closes, length)]
                self.candles["1d"].append((_at(day, 0, 0), closes))
                weeks[_at(day - timedelta(days=day.weekday()), 0, 0)] = closes
                threes[_at(day - timedelta(days=(day - date(1970, 1, 1)).days % 3), 0, 0)] = closes
                months[_at(day.replace(day=1), 0, 0)] = closes
            day += timedelta(days=1)
        self.candles |= {"1w": sorted(weeks.items()), "3d": sorted(threes.items()), "1M": sorted(months.items())}

    def values(self, interval: str, opened: int, ends: int, now: float) -> tuple[float, ...]:
        """Return a candle as it is at a moment."""
        traded = sum(
            max(0, min(closes, ends, int(now)) - max(opens, opened)) for opens, closes in self._of(opened, ends)
        )
        close = 100.0 + (min(int(now), ends) // 60) % 97 / 10
        return opened, 100.0, 110.0, 100.0, close, float(traded)

    def _of(self, start: int, end: int) -> list[tuple[int, int]]:
        place = bisect_right(self.sessions, (start, 0))
        return [one for one in self.sessions[max(0, place - 1) : place + 24] if one[0] < end]

    def is_open(self, moment: float) -> bool:
        place = bisect_right(self.sessions, (int(moment), sys.maxsize)) - 1
        return place >= 0 and moment < self.sessions[place][1]

    async def ask(
        self, symbol: str, interval: str, start: int | None, end: int | None, limit: int
    ) -> list[tuple[tuple[float, ...], bool]]:
        """Return rows of candles, the newest `limit` if there is no `start`, and whether each is over."""
        now = time.time()
        if any(one.start <= now < (one.end if end is None else one.history_end) for one in self.outages):
            self.asked.append(Asked(now, end is not None, 0))
            raise ConnectionError("the exchange cannot be reached")
        assert interval in OWN, f"the exchange was asked for {interval}"
        # A candle is there from the first trade in it on.
        known = self.candles[interval]
        until = bisect_left(known, (int(now) + 1, 0))
        if until and not self._of(known[until - 1][0], int(now)):
            until -= 1
        low = 0 if start is None else bisect_left(known, (start, 0))
        high = min(until, until if end is None else bisect_left(known, (end, 0)))
        chosen = known[low:high]
        chosen = chosen[-limit:] if start is None else chosen[:limit]
        self.asked.append(Asked(now, end is not None, len(chosen)))
        return [(self.values(interval, *one, now), now >= one[1]) for one in chosen]


def _at(day: date, hour: int, minute: int) -> int:
    return int(datetime(day.year, day.month, day.day, hour, minute, tzinfo=NEW_YORK).timestamp())


class Told(NamedTuple):
    """A message of the relay, and when it came."""

    at: float
    message: Mapping[str, Any]


async def simulate(now: Time, exchange: Exchange, start: int, end: int) -> tuple[list[str], dict[str, object]]:
    """Follow the exchange; return what was wrong, and figures."""
    from aiohttp import web

    from relay.app import build_app
    from tests.support.running_relay import Closed, Running, config_of

    plugin = importlib.import_module("tests.plugins.stocks").Stocks(exchange, POLL_S)
    app = build_app(config_of({}), [plugin])
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=2.0, handle_signals=False)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0][:2]
    relay = Running(app, runner, f"http://{host}:{port}")
    told: list[Told] = []
    ended: list[str] = []

    async def hurry() -> None:
        """Look closely around openings, closes and outages, and else pass quickly."""
        edges = [*(at for one in exchange.sessions for at in one), *(at for one in exchange.outages for at in one[:2])]
        for edge in sorted(at for at in edges if at > time.time()):
            usual_s = OPEN_STEP_S if exchange.is_open(time.time()) else QUIET_STEP_S
            while (rest_s := edge - NEAR_S - time.time()) >= 1:
                # A sleep may last a step too long. Whole seconds, since time does not move by parts of a digit.
                now.step_s = max(1.0, min(usual_s, rest_s // 3))
                await asyncio.sleep(max(1.0, rest_s // 2))
            now.step_s = 1.0
            await asyncio.sleep(max(1.0, edge + NEAR_S - time.time()))
            now.step_s = OPEN_STEP_S
            await asyncio.sleep(max(1.0, edge + 3 * POLL_S - time.time()))

    async def follow() -> None:
        client = await relay.connect(heartbeat=None)
        await client.ask("subscribe", streams=[f"ACME@{interval}" for interval in exchange.followed])
        try:
            async with asyncio.timeout(end - time.time()):
                while True:
                    message = await client.next(1e9)
                    told.append(Told(time.time(), message))
        except TimeoutError:
            pass
        except Closed as closed:
            ended.append(f"{closed} at {_shown(time.time())}")
        await client.close()

    hurrying = asyncio.create_task(hurry())
    await follow()
    hurrying.cancel()
    status = (await relay.get("status")).body
    await relay.close()
    wrong = [*ended, *wrong_states(exchange, told, start, end), *wrong_candles(exchange, told, start, end)]
    idle = [*_wrong_calls(exchange, start, end)]
    wrong += idle if len(idle) > MOST_DOUBTS else []
    figures: dict[str, object] = {
        "sessions": sum(start <= one[0] < end for one in exchange.sessions),
        "messages": len(told),
        "calls": len(exchange.asked),
        "history calls": sum(one.is_history for one in exchange.asked),
        "calls for closed hours": len(idle),
        "gaps": sum(one.message["type"] == "gap" for one in told),
        "streams": len(status["streams"]),
    }
    return wrong, figures


def wrong_states(exchange: Exchange, told: Sequence[Told], start: int, end: int) -> Iterator[str]:
    """Say where a state does not fit the hours: it changes at each close and opening, and else in outages only."""
    for interval in exchange.followed:
        states = [one for one in told if one.message["type"] == "status" and one.message["interval"] == interval]
        expected: list[tuple[int, str, str]] = []
        for place, (opens, closes) in enumerate(exchange.sessions):
            following = exchange.sessions[place + 1][0] if place + 1 < len(exchange.sessions) else 0
            opening = datetime.fromtimestamp(following, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
            expected += [
                (opens, "connected", "live"),
                (closes, "market_closed", f"the market is closed; it opens at {opening}"),
            ]
        for at, status, message in expected:
            is_trouble = any(one.start - 60 < at < one.history_end + 60 for one in exchange.outages)
            if not start + 60 < at < end - 60 or is_trouble:
                continue
            near = [one for one in states if at - 5 <= one.at <= at + STATE_S]
            said = [(one.message["status"], one.message["message"]) for one in near]
            if said != [(status, message)]:
                yield f"{interval}: {said} at {_shown(at)}, not {status}: {message}"
        for one in states:
            is_due = any(at - 5 <= one.at <= at + STATE_S for at, _, _ in expected)
            is_trouble = any(out.start <= one.at <= out.history_end + 120 for out in exchange.outages)
            if one.message["status"] == "stale" or not (is_due or is_trouble or one.at < start + 60):
                yield f"{interval}: {one.message['status']} ({one.message['message']}) at {_shown(one.at)}"


def wrong_candles(exchange: Exchange, told: Sequence[Told], start: int, end: int) -> Iterator[str]:
    """Say which candle was not told once as closed with its values and in time, and which gap is none."""
    for interval in exchange.followed:
        closed: dict[int, Told] = {}
        for one in told:
            message = one.message
            if message.get("interval") != interval:
                continue
            if message["type"] == "gap":
                first, last = message["from"], message["to"]
                is_traded = any(opens <= first and last <= closes for opens, closes in exchange.sessions)
                wide = max(3600, LENGTHS_S.get(interval, 0))
                is_trouble = any(out.start - wide <= first and last <= out.end + wide for out in exchange.outages)
                if not (is_trouble and (is_traded or interval not in LENGTHS_S)):
                    yield f"{interval}: a gap from {_shown(first)} to {_shown(last)}"
            elif message["type"] == "price_update" and message["is_closed"]:
                opened = message["candle"]["time"]
                if opened in closed and not message.get("revised"):
                    yield f"{interval}: {_shown(opened)} closed twice, at {_shown(one.at)}"
                closed[opened] = one
        for opened, ends in exchange.candles[interval]:
            if not start + 60 < ends < end - 60:
                continue
            told_of = closed.pop(opened, None)
            if told_of is None:
                yield f"{interval}: {_shown(opened)} was not closed"
                continue
            candle = told_of.message["candle"]
            values = tuple(candle[name] for name in ("time", "open", "high", "low", "close", "volume"))
            if values != exchange.values(interval, opened, ends, ends):
                yield f"{interval}: {_shown(opened)} has {values}"
            troubles = [out for out in exchange.outages if out.start <= ends + LATE_S and ends < out.history_end]
            reached = max([ends, *(out.history_end + 60 for out in troubles)])
            if not ends <= told_of.at <= reached + LATE_S:
                yield f"{interval}: {_shown(opened)} was closed at {_shown(told_of.at)}, its end was {_shown(ends)}"
        for opened, one in closed.items():
            if one.at > start + 60 and one.at < end - 60:
                yield f"{interval}: {_shown(opened)} never was"
        for out in exchange.outages:
            gaps = [one.message for one in told if one.message["type"] == "gap" and one.message["interval"] == interval]
            is_told = out.history_end > out.end and interval == "15m" and start < out.start and out.end < end
            if is_told and not any(out.start - 900 <= gap["from"] < out.end for gap in gaps):
                yield f"{interval}: no gap from {_shown(out.start)} to {_shown(out.end)}"


def _wrong_calls(exchange: Exchange, start: int, end: int) -> Iterator[str]:
    """Say when the exchange was asked although it was closed, for more than what had closed before.

    What is asked while the relay ends is not judged: a stream lingers then for a step of this time.
    """
    closes = [closes for _, closes in exchange.sessions]
    for at, is_history, brought in exchange.asked:
        if is_history and brought:
            continue
        place = bisect_right(closes, at) - 1
        is_soon = place >= 0 and at <= closes[place] + 2 * POLL_S + 2 * OPEN_STEP_S
        is_trouble = any(out.start <= at <= out.end + 120 for out in exchange.outages)
        if start + 120 < at <= end and not exchange.is_open(at) and not is_soon and not is_trouble:
            yield f"{'history' if is_history else 'a poll'} at {_shown(at)}"


def _shown(moment: float) -> str:
    return datetime.fromtimestamp(moment, NEW_YORK).strftime("%a %m-%d %H:%M:%S")


def outage(
    day: date, start: tuple[int, int], end: tuple[int, int], history_end: tuple[int, int] | None = None
) -> Outage:
    """Return an outage between hours and minutes of New York; one that ends earlier in the day ends on the next day."""
    later = day if start < end else day + timedelta(days=1)
    return Outage(_at(day, *start), _at(later, *end), _at(later, *(history_end or end)))


def main(now: Time, first: date, last: date, most: int, followed: Sequence[str]) -> int:
    """Run one part from noon of its first day on; return 1 if anything was wrong."""
    now.leap(_at(first, 12, 0))
    now.step_s = 1.0
    outages = (
        # Within a session: the missing candles are a gap until history is back.
        outage(date(2026, 5, 12), (11, 20), (12, 20), (12, 50)),
        # Over a night that candles are missing before and after, and over the change of clocks.
        outage(date(2026, 9, 15), (15, 20), (10, 20), (10, 50)),
        outage(date(2026, 10, 30), (15, 20), (17, 10)),
        # In closed hours only.
        outage(date(2026, 8, 4), (20, 0), (4, 0)),
    )
    exchange = Exchange(first - timedelta(days=20), last + timedelta(days=20), outages, followed)
    start, end = int(time.time()), _at(last, 23, 0)
    wrong, figures = run(now, simulate(now, exchange, start, end))
    print(f"{first} to {last}")
    for name, value in figures.items():
        print(f"{name}: {value}")
    print(*(f"WRONG {sentence}" for sentence in wrong[:most]), sep="\n")
    return 1 if wrong else 0


def part(text: str) -> tuple[date, date]:
    """Read the first and the last day of a part."""
    first, last = map(date.fromisoformat, text.split("/"))
    return first, last


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "parts", type=part, nargs="+", metavar="FIRST/LAST",
        help="days, from noon of the first one; several follow each other in time",
    )  # fmt: skip
    parser.add_argument("--most", type=int, default=40, help="how many faults are printed")
    parser.add_argument("--built", action="store_true", help="also follow intervals that the exchange does not have")
    asked = parser.parse_args()
    followed = OWN + BUILT if asked.built else OWN
    time_of_process = install(_at(asked.parts[0][0], 12, 0))
    sys.exit(max([main(time_of_process, first, last, asked.most, followed) for first, last in asked.parts]))
