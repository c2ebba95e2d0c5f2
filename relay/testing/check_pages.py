"""What is checked of long answers of `relay_candles`: where pages of the venue end and begin."""

from collections.abc import Sequence
from itertools import pairwise

from relay.core.counted import counted
from relay.core.intervals import length_s, next_open
from relay.core.model import Candle
from relay.testing.asked_history import ask, called, in_order
from relay.testing.check_run import CheckRun
from relay.testing.findings import FaultName, candle_text, utc

_DEEP = 5000
_LIMITS = (1, 100, 500, 501, 1000, 1001)
"""Pages of venues have round sizes."""
_MOST_HOLES = 5
_MOST_GONE = 5


async def check_pages(run: CheckRun) -> None:
    """Ask for many candles at once, backwards and forwards, and for parts of them; compare the answers."""
    provider, key = run.provider, run.key
    if not provider.has_history:
        run.leave_out("pages", "relay_candles is not implemented")
        return
    limit = min(_DEEP, provider.info.candles_per_call)
    closed_until = int(provider.clock.now() - provider.info.close_grace_s) - length_s(key.interval)
    back = await ask(run, key, None, closed_until, limit)
    if len(back) < 2:
        run.leave_out("pages", f"relay_candles has {counted(len(back), 'candle')} of {key} before {utc(closed_until)}")
        return
    back = in_order(back)
    await _check_begin(run, back, limit)
    if len(back) < limit:
        # Some venues keep a number of candles: the oldest ones may be gone at the next call.
        back = back[min(_MOST_GONE, len(back) // 2) :]
    await _check_holes(run, back, called(key, None, closed_until, limit))
    start, end = back[0].time, back[-1].time + 1
    forth = await ask(run, key, start, end, limit)
    await _check_holes(run, in_order(forth), called(key, start, end, limit))
    _compare(run, forth, back[:limit], called(key, start, end, limit))
    for count in _LIMITS:
        if count >= len(back):
            break
        # Ranges that overlap, and begin and end at other places than pages do.
        at = (len(back) - count) // 3
        wanted = back[at : at + count]
        _compare(run, await ask(run, key, wanted[0].time, end, count), wanted, called(key, wanted[0].time, end, count))
        until = back[at + count].time
        _compare(run, await ask(run, key, None, until, count), wanted, called(key, None, until, count))
    if len(back) <= _LIMITS[-1] and len(back) < limit:
        run.leave_out(
            "pages of more than " + str(len(back)),
            f"{key} has no more candles; let the stand-in have more than one page of them, at best {limit:,}",
        )


async def _check_begin(run: CheckRun, back: Sequence[Candle], limit: int) -> None:
    """Less than the limit means that there is nothing before."""
    if len(back) >= limit:
        return
    earlier = await ask(run, run.key, None, back[0].time, 10)
    if earlier:
        run.blame(
            FaultName.STOPS_SHORT,
            f"{called(run.key, None, back[-1].time + 1, limit)} returned {counted(len(back), 'candle')}, from "
            f"{utc(back[0].time)} on, although there are earlier ones",
            "less than `limit` only if there are no more in the range",
            candle_text(earlier[-1]),
        )


async def _check_holes(run: CheckRun, found: Sequence[Candle], asked: str) -> None:
    """Ask for what a long answer leaves out between two of its candles; at many places the market may be closed."""
    key = run.key
    holes = [(a.time, b.time) for a, b in pairwise(found) if b.time > next_open(key.interval, a.time)]
    shortest = sorted(holes, key=lambda hole: hole[1] - hole[0])[:_MOST_HOLES]
    for start, end in shortest:
        inside = await ask(run, key, start + 1, end, 10)
        if inside:
            place = next(number for number, candle in enumerate(found) if candle.time == end)
            run.blame(
                FaultName.HOLE_AT_SEAM,
                f"{asked} lacks {utc(inside[0].time)}, which another answer has",
                "every candle of the range, up to `limit`",
                f"between candle {place} and {place + 1} of {len(found)}, {utc(start)} and {utc(end)}",
            )
            return


def _compare(run: CheckRun, found: Sequence[Candle], wanted: Sequence[Candle], asked: str) -> None:
    if list(found) == list(wanted):
        return
    times, wanted_times = [one.time for one in found], [one.time for one in wanted]
    if times == wanted_times:
        one, other = next(pair for pair in zip(found, wanted, strict=True) if pair[0] != pair[1])
        run.blame(
            FaultName.HISTORY_CHANGES,
            f"{asked} has other values than another answer",
            "a closed candle has the same values in every answer",
            f"{candle_text(one)} and {candle_text(other)}",
        )
        return
    missing = sorted(set(wanted_times) - set(times))
    if missing and times and times[0] < missing[0] < times[-1]:
        fault, said = FaultName.HOLE_AT_SEAM, f"lacks {utc(missing[0])}"
    elif len(set(times)) < len(wanted_times) and set(times) < set(wanted_times):
        fault, said = FaultName.STOPS_SHORT, f"has {len(times)} of {len(wanted_times)} candles"
    else:
        first = f"begins with {utc(times[0])} and has {len(times)} candles" if times else "is empty"
        fault, said = FaultName.WRONG_RANGE, first
    run.blame(fault, f"{asked} {said}", f"{len(wanted)} candles from {utc(wanted_times[0])} on")
