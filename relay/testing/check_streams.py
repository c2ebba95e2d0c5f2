"""What is checked of `relay_stream`: that it delivers, follows the watchlist and ends."""

import asyncio

from relay.core.counted import counted
from relay.core.errors import ProviderError
from relay.core.model import Candle, StreamKey
from relay.testing import check_closing
from relay.testing.check_run import CheckRun
from relay.testing.findings import FaultName, candle_text, utc
from relay.testing.watched_feed import WatchedFeed, shown

_MOST_STREAMS = 12
AS_STREAM = "for the same reason as stream"


def _second_stream(run: CheckRun) -> StreamKey | None:
    if run.plan.other is not None:
        return run.plan.other
    symbol, interval = run.key
    if not run.provider.info.one_interval_per_feed:
        for name in run.intervals():
            if name != interval:
                return StreamKey(symbol, name)
    for one in run.instruments:
        if one.symbol != symbol and interval in (one.intervals or (interval,)):
            return StreamKey(one.symbol, interval)
    is_known = run.provider.lists_instruments or run.provider.looks_up_instruments
    return None if is_known else StreamKey("OTHER", interval)


def _siblings(run: CheckRun) -> list[StreamKey]:
    """Return the streams of the symbol at its other intervals, as far as one feed carries them."""
    if run.provider.info.one_interval_per_feed:
        return []
    keys = [StreamKey(run.key.symbol, name) for name in run.intervals()]
    room = min(run.provider.info.streams_per_feed - 2, _MOST_STREAMS)
    return [key for key in keys if key not in (run.key, run.second)][: max(0, room)]


async def is_heard(run: CheckRun, feed: WatchedFeed, key: StreamKey, when: str = "") -> bool:
    """Wait for the first update of a stream that was asked for; say what came instead. Not every silence is a fault."""
    if await feed.until(lambda: feed.count(key) or key in feed.paused or key in feed.rejected, run.timeout_s):
        if key in feed.rejected:
            run.blame(FaultName.NO_UPDATES, f"relay_stream rejected {key}: {feed.rejected[key]}")
        elif not feed.count(key):
            run.rest = f"{key} is paused ({feed.paused[key]}); check it when it has prices"
            run.leave_out("stream", run.rest)
        return bool(feed.count(key))
    if has_ended_early(run, feed):
        return False
    if feed.faults:
        run.rest = f"the updates of {key} are invalid; correct that first"
        run.leave_out("stream", run.rest)
        return False
    now = run.provider.clock.now()
    opens_at = feed.market(key.symbol).opens_at(int(now))
    if opens_at > now:
        run.rest = (
            f"by relay_hours the market of {key.symbol} is closed until {utc(opens_at)}; check it when it is open"
        )
        run.leave_out("stream", run.rest)
        return False
    return await _has_trades(run, feed, key, when)


async def _has_trades(run: CheckRun, feed: WatchedFeed, key: StreamKey, when: str) -> bool:
    """Wait on while history does not move either: then nothing is traded. Return whether an update came."""
    loop = asyncio.get_running_loop()
    began, moves, newest = loop.time(), 0, await newest_candle(run, key)
    # What nobody confirmed is not waited for; and a single trade may have been too late for its candle.
    is_quiet = key in feed.accepted
    while is_quiet and loop.time() - began < run.plan.watch_s:
        if await feed.until(lambda: feed.count(key), run.timeout_s):
            return True
        if has_ended_early(run, feed):
            return False
        later = await newest_candle(run, key)
        if later != newest:
            moves, newest = moves + 1, later
            is_quiet = moves < 2
    if is_quiet:
        waited_s = run.timeout_s + loop.time() - began
        run.rest = f"nothing of {key} was traded within {waited_s:.0f} s; name a symbol that moves, as `symbol`"
        run.leave_out("stream", run.rest)
        return False
    moved = f"; history went on to {candle_text(newest)}" if moves and newest else ""
    run.blame(FaultName.NO_UPDATES, f"relay_stream yielded nothing for {key} within {run.timeout_s:g} s{when}{moved}")
    return False


async def newest_candle(run: CheckRun, key: StreamKey) -> Candle | None:
    """Return what history says last, None if there is none or it fails."""
    if not run.provider.has_history:
        return None
    try:
        found = await run.provider.given(key, None, int(run.provider.clock.now()) + 1, 1)
    except ProviderError:
        return None
    return found[-1] if found else None


def has_ended_early(run: CheckRun, feed: WatchedFeed) -> bool:
    """Say whether a feed has ended, or lost the stream that is checked, and blame it."""
    if (lost := feed.lost.get(run.key)) is not None:
        run.blame(FaultName.STREAM_FAILS, f"relay_stream lost {run.key}: {shown(lost)}")
        return True
    if feed.error is not None:
        run.blame(FaultName.STREAM_FAILS, f"relay_stream raised {shown(feed.error)}")
    elif feed.has_ended:
        run.blame(FaultName.STREAM_ENDS, "relay_stream ended by itself while streams were wanted")
    return feed.has_ended


def _judge(run: CheckRun, feed: WatchedFeed) -> None:
    for fault in feed.faults:
        run.take(fault)
    if feed.skipped:
        said = f"relay_stream skipped {counted(len(feed.skipped), 'message')}, the first: {feed.skipped[0]}"
        run.blame(FaultName.SKIPS_MESSAGES, said)
    run.texts += [*feed.skipped, *feed.closing, *feed.rejected.values(), *feed.paused.values()]
    run.texts += map(str, feed.lost.values())
    if feed.error is not None:
        run.texts.append(str(feed.error))


async def check_stream(run: CheckRun) -> None:
    """Open a feed, add streams, wait for candles to close, remove streams, cancel it."""
    async with run.feed(run.key) as feed:
        if await is_heard(run, feed, run.key):
            added = await _add_streams(run, feed)
            await _watch(run, feed, [run.key, *added])
            await _remove_streams(run, feed, added)
            run.newest = feed.last(run.key)
            run.watched = feed
        run.session.is_recording = False
        ended = has_ended_early(run, feed)
        fault = await feed.cancel()
        if fault is not None and not ended:
            run.take(fault)
    _judge(run, feed)


async def _add_streams(run: CheckRun, feed: WatchedFeed) -> list[StreamKey]:
    """Add the second stream and the other intervals; return those that are served, of the symbol or another one."""
    second = run.second = _second_stream(run)
    if second is None:
        run.leave_out("watchlist", "there is no second stream; name one as `other`")
        return []
    added = [second, *_siblings(run)]
    for key in added:
        feed.watchlist.add(key)

    def is_noticed(key: StreamKey) -> bool:
        return bool(feed.count(key) or key in feed.accepted or key in feed.rejected or key in feed.paused)

    await feed.until(lambda: all(map(is_noticed, added)), run.timeout_s)
    for key in added:
        if not is_noticed(key) and not feed.has_ended:
            if key != second and await _is_quiet(run, feed, key):
                run.leave_out(f"live values of {key}", f"nothing was traded within {run.timeout_s:g} s")
                continue
            said = f"relay_stream does not follow the watchlist: nothing of {key} after it was added"
            run.blame(FaultName.IGNORES_ADDED, said)
        elif key in feed.rejected and key.symbol == run.key.symbol:
            run.blame(FaultName.INTERVAL_NOT_SERVED, f"relay_stream rejected {key}: {feed.rejected[key]}")
    return added


async def _is_quiet(run: CheckRun, feed: WatchedFeed, key: StreamKey) -> bool:
    """Say whether history does not move either, so that a stream has nothing to say."""
    before = await newest_candle(run, key)
    await feed.until(lambda: feed.count(key), run.timeout_s)
    return before is not None and before == await newest_candle(run, key)


async def _watch(run: CheckRun, feed: WatchedFeed, keys: list[StreamKey]) -> None:
    """Wait until candles have closed: the first one may have been joined late, the second is seen as a whole."""
    short = run.closing_streams(keys)
    if short:
        await feed.until(
            lambda: all(len(feed.times(key)) >= 3 or key in feed.paused for key in short), run.plan.watch_s
        )
        await check_closing.look_at_grace(run, feed)


async def _remove_streams(run: CheckRun, feed: WatchedFeed, added: list[StreamKey]) -> None:
    for key in added:
        feed.watchlist.remove(key)
    loop = asyncio.get_running_loop()
    deadline = loop.time() + run.timeout_s
    # The request to end it may have to wait for its turn at the venue.
    while (late := await _one_that_goes_on(run, feed, added)) is not None:
        if loop.time() > deadline:
            said = f"relay_stream does not follow the watchlist: {late} goes on after it was removed"
            run.blame(FaultName.IGNORES_REMOVED, said)
            break
    if added:
        run.checked.append("watchlist")


async def _one_that_goes_on(run: CheckRun, feed: WatchedFeed, keys: list[StreamKey]) -> StreamKey | None:
    before = {key: feed.count(key) for key in keys}

    def late() -> StreamKey | None:
        return next((key for key in keys if feed.count(key) > before[key]), None)

    # Of what moves rarely an update may be on its way for longer.
    pauses_s = [(feed.arrivals[-1].at - feed.arrivals[0].at) / count for count in before.values() if count > 1]
    await feed.until(
        late, min(2 * run.timeout_s, max([2 * run.tolerances.settle_s, *(3 * pause for pause in pauses_s)]))
    )
    return late()


async def check_second_feed(run: CheckRun) -> None:
    """Open another feed and close it where it yields."""
    if run.rest:
        run.leave_out("a second feed, closed between updates", AS_STREAM)
        return
    async with run.feed(run.key) as feed:
        if await is_heard(run, feed, run.key):
            fault = await feed.cancel(between_updates=True)
            if fault is not None:
                run.take(fault)
    _judge(run, feed)


async def check_unknown_symbol(run: CheckRun) -> None:
    """Ask for a symbol that there is not, beside one that there is."""
    if not (run.provider.lists_instruments or run.provider.looks_up_instruments) or run.rest:
        why = AS_STREAM if run.rest else "without relay_instruments no symbol is unknown; implement it"
        run.leave_out("unknown symbol in a stream", why)
        return
    async with run.feed(run.key, run.unknown) as feed:
        if await is_heard(run, feed, run.key):
            await feed.until(lambda: run.unknown in feed.rejected, run.tolerances.settle_s)
            before = feed.count(run.key)
            if feed.count(run.unknown):
                run.blame(
                    FaultName.UNKNOWN_SYMBOL, f"relay_stream yields updates of {run.unknown}, which does not exist"
                )
            if not await feed.until(lambda: feed.count(run.key) > before, run.patience_s()):
                await _blame_silence(run, feed)
        has_ended_early(run, feed)
    feed.skipped.clear()
    _judge(run, feed)


async def _blame_silence(run: CheckRun, feed: WatchedFeed) -> None:
    """Blame a stream that fell silent beside an unknown one, unless nothing was traded."""
    before = await newest_candle(run, run.key)
    count = feed.count(run.key)
    await feed.until(lambda: feed.count(run.key) > count, run.timeout_s)
    is_quiet = run.key in feed.paused or (before is not None and before == await newest_candle(run, run.key))
    if feed.count(run.key) == count and not is_quiet:
        said = f"relay_stream stops serving {run.key} when it is asked for {run.unknown} too"
        run.blame(FaultName.UNKNOWN_SYMBOL, said)
