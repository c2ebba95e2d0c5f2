"""What is checked of `relay_candles`: the edges of ranges, the present, unknown symbols and cancelled calls."""

import asyncio
import time

from relay.core.counted import counted
from relay.core.errors import ProviderError
from relay.core.intervals import length_s, next_open
from relay.core.model import Candle
from relay.testing.asked_history import ask, called, in_order, times_of
from relay.testing.check_run import CheckRun
from relay.testing.findings import FaultName, candle_text, utc


async def check_history(run: CheckRun) -> None:
    """Walk the edges of ranges and limits, and compare the answers."""
    provider, key = run.provider, run.key
    if not provider.has_history:
        run.leave_out("history", "relay_candles is not implemented")
        return
    grace_s = provider.info.close_grace_s
    present = next_open(key.interval, int(provider.clock.now())) + length_s(key.interval)
    newest = await ask(run, key, None, present, 8 + int(grace_s // length_s(key.interval)))
    settled = provider.clock.now() - grace_s
    known = in_order(candle for candle in newest if next_open(key.interval, candle.time) <= settled)[-6:]
    if len(known) < 5 and run.has_invalid_candles:
        run.leave_out("history", "its candles are invalid; correct that first")
        return
    if len(known) < 5:
        said = f"relay_candles has only {len(known)} closed candles of {key}: 5 are needed for the check"
        run.blame(FaultName.TOO_FEW_CANDLES, said)
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
        found = await ask(run, key, start, end, limit)
        if [candle.time for candle in found] != [candle.time for candle in wanted]:
            run.blame(
                FaultName.WRONG_RANGE,
                f"{called(key, start, end, limit)} returned the open times {times_of(found)}, not {times_of(wanted)}: "
                f"{meaning}",
                counted(len(wanted), "candle") + (f", the first of {utc(wanted[0].time)}" if wanted else ""),
            )
        elif found != wanted:
            differing = next(pair for pair in zip(found, wanted, strict=True) if pair[0] != pair[1])
            run.blame(
                FaultName.HISTORY_CHANGES,
                f"relay_candles returned other values for the same closed candles of {key}",
                "the same values in every answer",
                " and ".join(map(candle_text, differing)),
            )
    await ask(run, key, 0, 86_400, 10)
    await _check_present(run, present)


async def _check_present(run: CheckRun, present: int) -> None:
    """The open candle belongs to history where the range reaches it."""
    if run.newest is None:
        run.leave_out("open candle in history", "the stream had no updates to compare with")
        return
    info, wanted = run.provider.info, run.newest.candle.time
    # With `history_has_open` it is there at once, as soon as the venue's clock allows for it.
    wait_s = run.tolerances.clock_s if info.history_has_open else info.close_grace_s
    deadline = time.monotonic() + wait_s
    while True:
        found = await ask(run, run.key, None, present, 1)
        if found and found[-1].time >= wanted:
            return
        if time.monotonic() > deadline:
            run.blame(
                FaultName.LACKS_OPEN,
                f"relay_candles up to now ends with {times_of(found)}, but the stream already had {wanted}: "
                "the open candle belongs to the answer",
                f"the last candle is the open one, of {utc(wanted)}",
            )
            return
        await asyncio.sleep(0.5)


async def check_unknown_symbol(run: CheckRun) -> None:
    """Ask for candles of a symbol that there is not."""
    provider = run.provider
    if not provider.has_history or not (provider.lists_instruments or provider.looks_up_instruments):
        run.leave_out("unknown symbol in history", "needs relay_candles and relay_instruments")
        return
    end = int(provider.clock.now())
    try:
        candles = await provider.candles(run.unknown, None, end, 5)
    except ProviderError as error:
        run.texts.append(str(error))
        if str(error).startswith(f"provider {provider.name} failed"):
            said = f"relay_candles of an unknown symbol: {error}; raise UnknownSymbol or return no candles"
            run.blame(FaultName.UNKNOWN_SYMBOL, said)
    else:
        if candles:
            said = f"relay_candles returned candles of {run.unknown.symbol}, which does not exist"
            run.blame(FaultName.UNKNOWN_SYMBOL, said)


async def check_cancellation(run: CheckRun) -> None:
    """Cancel calls while they run."""
    if not run.provider.has_history:
        run.leave_out("cancelled history", "relay_candles is not implemented")
        return
    for turns in (1, 5):
        asking = asyncio.create_task(ask(run, run.key, None, int(run.provider.clock.now()), 5))
        for _ in range(turns):
            await asyncio.sleep(0)
        # The host kills what does not end and says so in its log, which is judged at the end.
        await run.provider.end_feed(asking)
