"""What is checked of the intervals of one symbol: that each is served, and that they say the same."""

from collections.abc import Sequence
from itertools import pairwise
from statistics import median

from relay.core.errors import ProviderError, RateLimited
from relay.core.intervals import length_s, next_open
from relay.core.model import Candle, StreamKey, is_unreadable
from relay.testing.asked_history import ask, in_order
from relay.testing.check_run import CheckRun
from relay.testing.comparison import is_near
from relay.testing.findings import FaultName, candle_text, utc
from relay.testing.watched_feed import shown

_ASKED = 12
_COMPARED = 3
_MOST_PARTS = 1500
_HOUR_S, _DAY_S = 3600, 86_400


async def check_intervals(run: CheckRun) -> None:
    """Ask for the newest candles of each interval, and build long ones from short ones."""
    provider, symbol = run.provider, run.key.symbol
    if not provider.has_history:
        run.leave_out("intervals", "relay_candles is not implemented")
        return
    recent: dict[str, list[Candle]] = {}
    for interval in run.intervals():
        key = StreamKey(symbol, interval)
        try:
            found = await ask(run, key, None, int(provider.clock.now()) + 1, _ASKED)
        except RateLimited as error:
            run.leave_out("intervals", f"{shown(error)}; name fewer of them as `intervals`")
            return
        except ProviderError as error:
            said = f"relay_candles of {key} raised {shown(error)}, although the interval is declared"
            run.blame(FaultName.INTERVAL_NOT_SERVED, said)
            continue
        recent[interval] = [one for one in in_order(found) if not is_unreadable(one)]
        _judge_spacing(run, key, recent[interval])
    served = [interval for interval, found in recent.items() if found]
    for interval in () if run.has_invalid_candles else recent.keys() - set(served):
        said = f"relay_candles of {symbol}@{interval} has no candles, although the interval is declared"
        run.blame(FaultName.INTERVAL_NOT_SERVED, said)
    for long in served:
        short = [one for one in served if _makes(one, long)]
        if short:
            await _compare(run, short[-1], long, recent[long])
    if len(served) < 2:
        run.leave_out("intervals", "there is one interval only, so none to compare with")


def _judge_spacing(run: CheckRun, key: StreamKey, found: Sequence[Candle]) -> None:
    spaces = [b.time - a.time for a, b in pairwise(found)]
    if len(spaces) < 2:
        return
    shortest = 28 * 86_400 if key.interval == "1M" else length_s(key.interval)
    # A clock change makes a day an hour shorter; candles of a session may begin with it.
    least = shortest - _HOUR_S if shortest > _HOUR_S else shortest
    if median(spaces) < least:
        run.blame(
            FaultName.WRONG_INTERVAL,
            f"candles of {key} open every {median(spaces):g} s",
            f"every {shortest:,} s",
            f"{utc(found[0].time)} and {utc(found[1].time)}",
        )


def _makes(short: str, long: str) -> bool:
    """Say whether a whole number of short candles is a long one; of days, a month."""
    if long == "1M":
        return length_s(short) <= _DAY_S
    return length_s(short) < length_s(long) and not length_s(long) % length_s(short)


async def _compare(run: CheckRun, short: str, long: str, found: Sequence[Candle]) -> None:
    """Compare closed candles of an interval with those that the next shorter one makes."""
    settled = run.provider.clock.now() - run.provider.info.close_grace_s
    most = _MOST_PARTS * length_s(short)
    whole = [one for one in found if next_open(long, one.time) <= settled][-_COMPARED:]
    whole = [one for one in whole if next_open(long, whole[-1].time) - one.time <= most]
    if not whole:
        return
    start, end = whole[0].time, next_open(long, whole[-1].time)
    key = StreamKey(run.key.symbol, short)
    parts = in_order(await ask(run, key, start, end, _MOST_PARTS))
    compared, wrong_prices, wrong_volumes = 0, [], []
    for one in whole:
        inside = [part for part in parts if one.time <= part.time < next_open(long, one.time)]
        # History of short candles may begin later.
        if not inside or (inside[0] is parts[0] and inside[0].time - one.time > length_s(short) and one is whole[0]):
            continue
        compared += 1
        made = _made_of(one.time, inside)
        off = sum(not is_near(x, y, run.tolerances.price) for x, y in zip(one[1:5], made[1:5], strict=True))
        times = run.tolerances.volume
        if off >= 2:
            wrong_prices.append((one, made))
        elif min(one.volume, made.volume) > 0 and not 1 / times <= one.volume / made.volume <= times:
            wrong_volumes.append((one, made))
    for wrong, what in ((wrong_prices, "prices"), (wrong_volumes, "volumes")):
        if wrong and 2 * len(wrong) > compared:
            given, made = wrong[0]
            run.blame(
                FaultName.INTERVALS_DISAGREE,
                f"{what} of {len(wrong)} of {compared} candles of {run.key.symbol}@{long} differ from those of {short}",
                f"that of {utc(given.time)} is made of the {short} candles until {utc(next_open(long, given.time))}",
                f"{candle_text(given)}, and from {short} {candle_text(made)}",
            )
            return


def _made_of(time: int, parts: Sequence[Candle]) -> Candle:
    """Return the candle that shorter ones make."""
    return Candle(
        time,
        parts[0].open,
        max(part.high for part in parts),
        min(part.low for part in parts),
        parts[-1].close,
        sum(part.volume for part in parts),
    )


async def check_values(run: CheckRun) -> None:
    """Compare history with candles that the author expects."""
    if not run.plan.expected:
        run.leave_out(
            "values",
            "nothing says which values are right, if stream and history are wrong in the same way; pass candles of the "
            "venue's own chart as expected={StreamKey(symbol, interval): [Candle(…)]}",
        )
        return
    if not run.provider.has_history or run.has_invalid_candles:
        why = (
            "candles are invalid; correct that first" if run.has_invalid_candles else "relay_candles is not implemented"
        )
        run.leave_out("values", why)
        return
    for key, candles in run.plan.expected.items():
        for wanted in candles:
            found = await ask(run, key, wanted.time, wanted.time + 1, 1)
            is_same = bool(found) and all(
                is_near(x, y, run.tolerances.same) for x, y in zip(found[0][:6], wanted[:6], strict=True)
            )
            if not is_same:
                run.blame(
                    FaultName.WRONG_VALUES,
                    f"the candle of {key} at {utc(wanted.time)} is {candle_text(found[0]) if found else 'missing'}",
                    candle_text(wanted),
                )
