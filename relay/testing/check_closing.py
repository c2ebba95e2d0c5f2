"""What is checked of candles that closed while a feed was watched, compared with what history says of them."""

import asyncio
from collections.abc import Mapping

from relay.core.counted import counted
from relay.core.intervals import length_s, next_open
from relay.core.model import Candle, StreamKey, is_unreadable
from relay.testing.asked_history import ask
from relay.testing.check_run import CheckRun
from relay.testing.comparison import compared, compared_open
from relay.testing.findings import FaultName, Finding, candle_text, utc
from relay.testing.watched_feed import WatchedFeed

_MOST = 500


async def check_closing(run: CheckRun) -> None:
    """Judge the closes of the watched feed, by itself and by history."""
    feed = run.watched
    if feed is None:
        run.leave_out("closing", "the stream had no updates")
        return
    keys = [key for key in dict.fromkeys(one.key for one in feed.updates)]
    short = run.closing_streams(keys)
    seen = [key for key in short if len(feed.times(key)) >= 3]
    if not short:
        run.leave_out(
            "closing",
            f"three candles of {run.key.interval} take longer than watch_s ({run.plan.watch_s:g} s); pass a longer "
            "watch_s, with @sped_up and a stand-in it takes seconds",
        )
    elif not seen:
        run.leave_out(
            "closing",
            f"no candle of {' '.join(map(str, short))} was seen from its beginning to its end within "
            f"{run.plan.watch_s:g} s; name a symbol that moves, or pass a longer watch_s",
        )
    if run.key in feed.planned:
        why = (
            "the feed polls by a plan (watchlist.expect), so a candle may stay open; the relay asks for its values then"
        )
        run.leave_out("that each candle is closed", why)
    for key in keys:
        _judge_alone(run, feed, key)
    if not run.provider.has_history:
        run.leave_out("live values", "without relay_candles there is nothing to compare them with; implement it")
        return
    # The values of what closed last have to be in history by then.
    await asyncio.sleep(run.provider.info.close_grace_s)
    for key in keys:
        await _compare(run, feed, key)


def _judge_alone(run: CheckRun, feed: WatchedFeed, key: StreamKey) -> None:
    """Judge what needs no history: that candles are closed, and once."""
    closed = feed.closed(key)
    whole = [] if key in feed.planned else feed.times(key)[1:-1]
    left = [time for time in whole if time not in closed]
    if left and 2 * len(left) >= len(whole):
        history = "" if run.provider.has_history else ", and there is no relay_candles to ask"
        run.blame(
            FaultName.NEVER_CLOSES,
            f"the candle of {key} at {left[0]} was never closed{history}",
            "is_closed=True with the final values, once the venue says so or a newer candle exists",
            f"{len(left)} of {len(whole)} candles, the first opened at {utc(left[0])}",
        )
    changed = [time for time, arrivals in closed.items() if len({one.update.candle for one in arrivals}) > 1]
    if changed and 2 * len(changed) >= len(closed):
        first, second = (one.update.candle for one in (closed[changed[0]][0], closed[changed[0]][-1]))
        run.blame(
            FaultName.CLOSES_TWICE,
            f"{len(changed)} of {len(closed)} candles of {key} were closed, and closed again with other values",
            "only the venue's corrections close a candle again",
            f"first {candle_text(first)}, then {candle_text(second)}",
        )


async def look_at_grace(run: CheckRun, feed: WatchedFeed) -> None:
    """Remember what history says of the newest closed candle `close_grace_s` after it: its values have to be final."""
    key, grace_s = run.key, run.provider.info.close_grace_s
    closed = feed.closed(key)
    if not closed or not run.provider.has_history:
        return
    newest = max(closed)
    await asyncio.sleep(max(0.0, next_open(key.interval, newest) + grace_s - run.provider.clock.now()))
    run.at_grace = next(iter(await ask(run, key, newest, newest + 1, 1)), None)


async def _compare(run: CheckRun, feed: WatchedFeed, key: StreamKey) -> None:
    findings = await _differences(run, feed, key)
    grace_s = run.provider.info.close_grace_s
    if any(one.fault in _MAY_BE_LATE for one in findings):
        await asyncio.sleep(3 * grace_s)
        later = await _differences(run, feed, key)
        if not any(one.fault in _MAY_BE_LATE for one in later):
            _blame_grace(run, key, findings[0].seen)
            return
        findings = later
    for finding in findings:
        run.take(finding)
    early = run.at_grace
    if key == run.key and early is not None and not findings:
        live = feed.closed(key)[early.time][-1].update.candle
        if (late := compared(str(key), live, early, run.tolerances.same)) is not None:
            _blame_grace(run, key, late.seen)
    if not findings:
        run.checked.append(f"live values of {key}")


def _blame_grace(run: CheckRun, key: StreamKey, seen: str) -> None:
    run.blame(
        FaultName.GRACE_TOO_SHORT,
        f"the final values of {key} were in history later than {run.provider.info.close_grace_s:g} s after the close",
        "close_grace_s is the time after which they are there",
        seen,
    )


_MAY_BE_LATE = (FaultName.LIVE_PRICES_DIFFER, FaultName.LIVE_VOLUME_DIFFERS, FaultName.LIVE_TIME_DIFFERS)


async def _differences(run: CheckRun, feed: WatchedFeed, key: StreamKey) -> list[Finding]:
    """Compare one stream with history; return at most one fault of each kind."""
    info, times, same = run.provider.info, feed.times(key)[-_MOST:], run.tolerances.same
    now = run.provider.clock.now()
    first, last = times[0], times[-1]
    past = await ask(run, key, first, int(now) + length_s(key.interval), 2 * _MOST)
    known = {one.time: one for one in past if not is_unreadable(one)}
    found: dict[FaultName, Finding] = {}

    def note(finding: Finding | None) -> None:
        if finding is not None:
            found.setdefault(finding.fault, finding)

    closed = {time: arrivals[-1].update.candle for time, arrivals in feed.closed(key).items() if time >= first}
    for time, live in closed.items():
        if next_open(key.interval, time) + info.close_grace_s > now:
            continue
        if time in known:
            note(compared(str(key), live, known[time], same))
        else:
            note(_at_another_time(key, time, known))
    newest = feed.last(key)
    if newest is not None and not newest.is_closed and newest.candle.time not in closed:
        if (later := known.get(last)) is not None:
            price, volume = run.tolerances.price, run.tolerances.volume
            note(compared_open(str(key), newest.candle, later, price, volume))
        elif known and last < max(known):
            note(_at_another_time(key, last, known))
        elif not known and next_open(key.interval, last) < now:
            note(_at_another_time(key, last, {one.time: one for one in await ask(run, key, None, int(now) + 1, 2)}))
    between = [time for time in known if first < time < last]
    missed = [time for time in between if time not in times]
    # A feed that polls cannot see a candle whose only trade came right before its end; the relay asks for that one.
    if missed and 2 * len(missed) >= len(between) and key not in feed.planned:
        note(
            Finding(
                FaultName.MISSES_CANDLES,
                f"history has {counted(len(missed), 'candle')} of {key} that the stream left out",
                "each candle of the venue is yielded",
                candle_text(known[missed[0]]),
            )
        )
    return list(found.values())


def _at_another_time(key: StreamKey, time: int, known: Mapping[int, Candle]) -> Finding:
    near = min(known, key=lambda one: abs(one - time), default=None)
    said = "has no candle there" if near is None else f"has one at {utc(near)}"
    return Finding(
        FaultName.LIVE_TIME_DIFFERS,
        f"{key}: the stream has a candle that opened at {utc(time)}, history {said}",
        "the same open times in both",
    )
