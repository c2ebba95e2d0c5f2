"""Asks `relay_candles`, and judges what holds for every answer."""

from collections.abc import Iterable, Sequence
from itertools import pairwise

from relay.core.counted import counted
from relay.core.model import Candle, StreamKey
from relay.testing.check_run import CheckRun
from relay.testing.findings import FaultName, candle_text, fault_of_candle, utc
from relay.testing.tolerances import SHOWN


async def ask(run: CheckRun, key: StreamKey, start: int | None, end: int, limit: int) -> list[Candle]:
    """Return an answer as the provider gave it, without candles that are invalid. Raises `ProviderError`."""
    given = list(await run.provider.given(key, start, end, limit))
    asked = called(key, start, end, limit)
    faults = [
        None
        if all(price != price for price in candle[1:5])
        else run.provider.border.fault_of_candle(candle, key.interval)
        for candle in given
    ]
    for candle, fault in zip(given, faults, strict=True):
        if fault is not None:
            run.blame(
                fault_of_candle(fault), f"{asked} has a candle at {candle.time}: {fault}", "", candle_text(candle)
            )
            break
    candles = [candle for candle, fault in zip(given, faults, strict=True) if fault is None]
    times = [candle.time for candle in candles]
    twice = [a for a, b in pairwise(sorted(times)) if a == b]
    if twice:
        run.blame(
            FaultName.REPEATS_CANDLE,
            f"{asked} has the open time {twice[0]} more than once",
            "each open time once",
            f"the candle of {utc(twice[0])}, number {times.index(twice[0]) + 1} of {len(times)}",
        )
    if any(a > b for a, b in pairwise(times)):
        run.blame(FaultName.NOT_IN_ORDER, f"{asked} is not in order of time, oldest first", "", times_of(candles))
    if len(given) > limit:
        run.blame(FaultName.IGNORES_LIMIT, f"{asked} returned {counted(len(given), 'candle')}, more than the limit")
    range_is = "which is outside: start ≤ open time < end"
    if times and max(times) >= end:
        run.blame(FaultName.INCLUDES_END, f"{asked} returned {max(times)} ({utc(max(times))}), {range_is}")
    if times and start is not None and min(times) < start:
        run.blame(FaultName.IGNORES_START, f"{asked} returned {min(times)} ({utc(min(times))}), {range_is}")
    # One that opens at `end` is judged as that.
    now = run.provider.clock.now()
    ahead = [at for at in times if now + run.tolerances.clock_s < at < end]
    if ahead:
        run.blame(
            FaultName.OPENS_IN_FUTURE,
            f"{asked} returned a candle that opens at {utc(ahead[0])}: it is {utc(now)}",
            "`time` is the open time in Unix seconds",
        )
    return candles


def in_order(candles: Iterable[Candle]) -> list[Candle]:
    """Return candles oldest first, without repeated ones."""
    return sorted(dict.fromkeys(candles), key=lambda candle: candle.time)


def called(key: StreamKey, start: int | None, end: int, limit: int) -> str:
    """Write a call of `relay_candles`."""
    return f"relay_candles(start={start}, end={end}, limit={limit}) of {key}"


def times_of(candles: Sequence[Candle]) -> str:
    """Write the first open times of some candles."""
    shown = ", ".join(str(candle.time) for candle in candles[:SHOWN])
    return f"[{shown}{', …' if len(candles) > SHOWN else ''}]"
