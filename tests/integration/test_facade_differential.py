"""Hundreds of requests for klines: the relay answers what the exchange does, with the same status, code and rows.

`--examples 1` tries 1,500.
"""

import asyncio
import random
from collections import Counter
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest

from tests.conftest import StartRelay
from tests.support.binance_oracle import BinanceOracle
from tests.support.examples import examples
from tests.support.running_relay import Running
from tests.support.sandbox import Sandbox

HOUR_MS, DAY_MS = 3_600_000, 86_400_000
LENGTHS = {
    "1s": 1000, "1m": 60_000, "3m": 180_000, "5m": 300_000, "15m": 900_000, "30m": 1_800_000, "1h": HOUR_MS,
    "2h": 2 * HOUR_MS, "4h": 4 * HOUR_MS, "6h": 6 * HOUR_MS, "8h": 8 * HOUR_MS, "12h": 12 * HOUR_MS, "1d": DAY_MS,
    "3d": 3 * DAY_MS, "1w": 7 * DAY_MS, "1M": 30 * DAY_MS,
}  # fmt: skip
SYMBOLS = ["BTCUSDT", "LRCBTC", "NKNUSDT", "币安人生USDT"]
DELISTED, GONE_MS = "NKNUSDT", 1_751_587_200_000
LISTED_MS = {"BTCUSDT": 1_502_928_000_000, "LRCBTC": 1_513_123_200_000, "币安人生USDT": 1_759_881_600_000}
WRONG_SYMBOLS = ["NOPEUSDT", "btcusdt", "BTC/USDT", "", "BTC USDT", "A" * 51, "BTCUSDT_", "binance:BTCUSDT", "EUR/USD"]
WRONG_INTERVALS = ["1D", "1mo", "60", "1H", "", "7m", "10m", "1 m", "1y"]
LIMITS = ["1", "2", "7", "100", "499", "500", "501", "999", "1000", "1001", "5000", "007", "99999999999999999999"]
FEW = ["1", "2", "7", "100"]
"""Most ask for few: what differs does so in any row, and hundreds of rows of each answer take long to compare."""
WRONG_LIMITS = ["0", "-1", "abc", "", "1.5", "+5", "1e3", " 5", "999999999999999999999"]
WRONG_TIMES = ["-1", "abc", "", "1.7e12", "2023-01-01", " 1", "1700000000000000000000", "1_700"]
ZONES = ["0", "00:00", "-0:00", "8", "+8", "-1:00", "05:45", "-12", "14:00"]
WRONG_ZONES = ["15", "abc", "", "-13:00", "14:01", "8:0", "UTC"]
OUTAGE_MS = 1_700_000_000_000 // HOUR_MS * HOUR_MS + 40 * 60_000
"""In the middle of an hour trading stops, for an hour and a half."""
QUERIES = examples(1_500)
AT_ONCE = 8


def pairs_of(rng: random.Random, now_ms: int) -> list[tuple[str, str]]:
    """Return the parameters of one request; most are sound, so that rows are compared."""
    found: list[tuple[str, str]] = []
    is_sound = rng.random() < 0.75

    def wrong(share: float = 0.2) -> bool:
        return not is_sound and rng.random() < share

    interval, symbol = rng.choice([*LENGTHS]), rng.choice(SYMBOLS)
    if not wrong(0.1):
        found.append(("symbol", rng.choice(WRONG_SYMBOLS) if wrong() else symbol))
    if not wrong(0.1):
        found.append(("interval", rng.choice(WRONG_INTERVALS) if wrong() else interval))
    start: int | None = None
    if rng.random() < 0.6:
        start = moment_of(rng, symbol, LENGTHS[interval], now_ms)
        found.append(("startTime", rng.choice(WRONG_TIMES) if wrong() else written(rng, start)))
    if rng.random() < 0.5:
        end = moment_of(rng, symbol, LENGTHS[interval], now_ms)
        if start is not None and rng.random() < 0.7:
            end = start + rng.choice(
                [0, 1, 999, 1000, LENGTHS[interval] - 1, LENGTHS[interval], 17 * LENGTHS[interval]]
            )
        found.append(("endTime", rng.choice(WRONG_TIMES) if wrong() else written(rng, end)))
    if LENGTHS[interval] > HOUR_MS and not wrong(0.5):
        # Years of it take the simulated market long.
        found.append(("limit", rng.choice(FEW)))
    elif rng.random() < 0.85:
        found.append(("limit", rng.choice(WRONG_LIMITS if wrong() else FEW if rng.random() < 0.7 else LIMITS)))
    if rng.random() < 0.08:
        found.append(("timeZone", rng.choice(WRONG_ZONES) if wrong(0.4) else rng.choice(ZONES)))
    if wrong(0.1):
        found.append((rng.choice(["recvWindow", "fromId", "Symbol", "start_time", ""]), "1"))
    if wrong(0.1) and found:
        found.append(rng.choice(found))
    rng.shuffle(found)
    return found


def moment_of(rng: random.Random, symbol: str, length: int, now_ms: int) -> int:
    """Return a time near to one of a few places, so that the exchange is not asked for all that there ever was."""
    places = [now_ms - 40 * length, now_ms + 400 * DAY_MS]
    if symbol == DELISTED:
        places.append(GONE_MS - 3 * length)
    else:
        places += [0, LISTED_MS[symbol], OUTAGE_MS - 5 * length, OUTAGE_MS]
    return max(0, rng.choice(places) + rng.choice([0, 0, 1, -1, 500, length, length // 2]))


def written(rng: random.Random, moment: int) -> str:
    """Write a time, now and then in microseconds."""
    return f"{moment * 1000 + rng.randrange(1000)}" if moment > 10**12 and rng.random() < 0.1 else f"{moment}"


def address(parameters: list[tuple[str, str]], name: str) -> str:
    text = "&".join(f"{quote(key)}={quote(value)}" for key, value in parameters)
    return f"/api/v3/{name}?{text}"


def without_forming(rows: Any, now_ms: int) -> Any:
    """Return rows without the one that changes, of which the fields that do not change are kept."""
    if not isinstance(rows, list) or not rows or rows[-1][6] < now_ms - 3000:
        return rows
    last = rows[-1]
    return [*rows[:-1], [last[0], last[1], last[6], last[11]]]


async def compared(relay: Running, oracle: BinanceOracle, sandbox: Sandbox, path: str) -> tuple[int, str | None]:
    """Ask both; return the relay's status and how they differ. Where the clock went on meanwhile, ask them again."""
    for last in (False, False, True):
        given = await relay.get(path)
        truth = oracle.ask(path)
        now = sandbox.binance.now_ms()
        if given.status == truth.status and without_forming(given.body, now) == without_forming(truth.body, now):
            return given.status, None
        if last:
            both = f"relay    {given.status} {str(given.body)[:600]}\n   exchange {str(truth)[:600]}"
            return given.status, f"{path}\n   {both}"
        # What the relay asked a moment ago it believes for a second.
        await asyncio.sleep(1.1)
    raise AssertionError


def is_over(parameters: list[tuple[str, str]], now_ms: int) -> bool:
    """Say whether a range ends some time before now."""
    ends = [int(value[:13]) for name, value in parameters if name == "endTime" and value.isdigit()]
    return len(ends) == 1 and ends[0] < now_ms - 10_000


def every_kind(rng: random.Random, now_ms: int) -> Iterator[str]:
    for _ in range(QUERIES):
        parameters = pairs_of(rng, now_ms)
        if ("interval", "1s") in parameters and not is_over(parameters, now_ms):
            # Of these another one is over before the second answer comes.
            continue
        yield address(parameters, "klines" if rng.random() < 0.95 else "uiKlines")


@pytest.mark.timeout(600)
async def test_relay_and_exchange_answer_the_same(sandbox: Sandbox, relay_with: StartRelay) -> None:
    market = sandbox.binance.market
    market.hide("BTCUSDT", OUTAGE_MS, OUTAGE_MS + 90 * 60_000)
    relay = await relay_with()
    oracle = BinanceOracle(sandbox)
    paths = [*every_kind(random.Random(20), sandbox.binance.now_ms())]
    differing: list[str] = []
    answered: Counter[int] = Counter()

    async def work() -> None:
        while paths:
            path = paths.pop()
            status, found = await compared(relay, oracle, sandbox, path)
            answered[status] += 1
            if found is not None:
                differing.append(found)

    async with asyncio.TaskGroup() as group:
        for _ in range(AT_ONCE):
            group.create_task(work())
    assert not differing, f"{len(differing)} of {answered.total()}:\n" + "\n".join(differing[:12])
    assert answered[200] > QUERIES / 2
    assert answered[400] > QUERIES / 10
    asked = sum(call.path == "/api/v3/klines" for call in sandbox.binance.requests)
    assert asked < answered[200], "a part of it was known"
