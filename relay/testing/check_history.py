"""What is checked of `relay_candles`."""

import asyncio
import time
from collections.abc import Sequence
from itertools import pairwise

from relay.core.errors import ProviderError
from relay.core.intervals import length_s, next_open
from relay.core.model import Candle
from relay.testing.check_run import CheckRun
from relay.testing.tolerances import SHOWN

_DEEP = 1500


async def _ask(run: CheckRun, start: int | None, end: int, limit: int) -> list[Candle]:
    """Ask history, and judge what holds for every answer."""
    candles = list(await run.provider.given(run.key, start, end, limit))
    asked = f"relay_candles(start={start}, end={end}, limit={limit})"
    for candle in candles:
        fault = run.provider.border.fault_of_candle(candle, run.key.interval)
        if fault is not None and not all(price != price for price in candle[1:5]):
            run.blame(f"{asked} has a candle at {candle.time}: {fault}")
            break
    times = [candle.time for candle in candles]
    if any(a >= b for a, b in pairwise(times)):
        run.blame(f"{asked} is not in order of time, oldest first, each open time once")
    if len(times) > limit:
        run.blame(f"{asked} returned {len(times)} candles, more than the limit")
    if times and (max(times) >= end or (start is not None and min(times) < start)):
        outside = next(at for at in times if at >= end or (start is not None and at < start))
        run.blame(f"{asked} returned {outside}, which is outside: start ≤ open time < end")
    return candles


async def check_history(run: CheckRun) -> None:
    """Walk the edges of ranges and limits, and compare the answers."""
    provider, key = run.provider, run.key
    if not provider.has_history:
        run.unchecked.append("history: relay_candles is not implemented")
        return
    grace_s = provider.info.close_grace_s
    present = next_open(key.interval, int(provider.clock.now())) + length_s(key.interval)
    newest = await _ask(run, None, present, 8 + int(grace_s // length_s(key.interval)))
    settled = provider.clock.now() - grace_s
    known = [candle for candle in newest if next_open(key.interval, candle.time) <= settled][-6:]
    if len(known) < 5:
        run.blame(f"relay_candles has only {len(known)} closed candles of {key}: 5 are needed for the check")
        return
    a, b, c, d, e = known[:5]
    cases: list[tuple[str, int | None, int, int, list[Candle]]] = [
        ("`start` is included, `end` is not", a.time, d.time, 100, [a, b, c]),
        ("with a `start` the first `limit` from it", a.time, e.time + 1, 2, [a, b]),
        ("with a `start` and a limit of one the first", b.time, e.time + 1, 1, [b]),
        ("without a `start` the last `limit` before `end`", None, e.time, 2, [c, d]),
        ("without a `start` and with a limit of one the last", None, d.time, 1, [c]),
        ("`start` and `end` between open times", a.time + 1, c.time + 1, 100, [b, c]),
        ("an empty range is an empty list", c.time, c.time, 100, []),
        ("a range after the newest candle is an empty list", present + 31_622_400, present + 31_708_800, 100, []),
    ]
    for meaning, start, end, limit, wanted in cases:
        found = await _ask(run, start, end, limit)
        if [candle.time for candle in found] != [candle.time for candle in wanted]:
            run.blame(
                f"relay_candles(start={start}, end={end}, limit={limit}) returned the open times "
                f"{_times(found)}, not {_times(wanted)}: {meaning}"
            )
        elif found != wanted:
            run.blame(f"relay_candles returned other values for the same closed candles of {key}")
    await _ask(run, 0, 86_400, 10)
    deep = await _ask(run, None, e.time + 1, _DEEP)
    if not deep or deep[-1].time != e.time:
        run.blame(f"relay_candles with a limit of {_DEEP} does not end with the candle before `end`")
    await _check_present(run, present)


async def _check_present(run: CheckRun, present: int) -> None:
    """The open candle belongs to history where the range reaches it."""
    if run.newest is None:
        return
    wanted = run.newest.candle.time
    deadline = time.monotonic() + run.provider.info.close_grace_s
    while True:
        found = await _ask(run, None, present, 1)
        if found and found[-1].time >= wanted:
            return
        if time.monotonic() > deadline:
            run.blame(
                f"relay_candles up to now ends with {_times(found)}, but the stream already had {wanted}: "
                "the open candle belongs to the answer"
            )
            return
        await asyncio.sleep(0.5)


async def check_unknown_symbol(run: CheckRun) -> None:
    """Ask for candles of a symbol that there is not."""
    provider = run.provider
    if not provider.has_history or not provider.lists_instruments:
        run.unchecked.append("unknown symbol in history: needs relay_candles and relay_instruments")
        return
    end = int(provider.clock.now())
    try:
        candles = await provider.candles(run.unknown, None, end, 5)
    except ProviderError as error:
        run.texts.append(str(error))
        if str(error).startswith(f"provider {provider.name} failed"):
            run.blame(f"relay_candles of an unknown symbol: {error}; raise UnknownSymbol or return no candles")
    else:
        if candles:
            run.blame(f"relay_candles returned candles of {run.unknown.symbol}, which does not exist")


async def check_cancellation(run: CheckRun) -> None:
    """Cancel calls while they run."""
    if not run.provider.has_history:
        run.unchecked.append("cancelled history: relay_candles is not implemented")
        return
    for turns in (1, 5):
        asking = asyncio.create_task(_ask(run, None, int(run.provider.clock.now()), 5))
        for _ in range(turns):
            await asyncio.sleep(0)
        # The host kills what does not end and says so in its log, which is judged at the end.
        await run.provider.end_feed(asking)


def _times(candles: Sequence[Candle]) -> str:
    shown = ", ".join(str(candle.time) for candle in candles[:SHOWN])
    return f"[{shown}{', …' if len(candles) > SHOWN else ''}]"
