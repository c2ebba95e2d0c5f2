"""What is checked of `relay_stream`."""

import asyncio

from relay.core.intervals import length_s
from relay.core.model import StreamKey
from relay.testing.check_run import CheckRun
from relay.testing.tolerances import SHOWN
from relay.testing.watched_feed import WatchedFeed, shown


def _second_stream(run: CheckRun) -> StreamKey | None:
    if run.other is not None:
        return run.other
    symbol, interval = run.key
    if not run.provider.info.one_interval_per_feed:
        own = next((one.intervals for one in run.instruments if one.symbol == symbol), None)
        for name in own or run.provider.info.intervals:
            if name != interval:
                return StreamKey(symbol, name)
    for one in run.instruments:
        if one.symbol != symbol and interval in (one.intervals or (interval,)):
            return StreamKey(one.symbol, interval)
    return None if run.provider.lists_instruments else StreamKey("OTHER", interval)


async def _opened(run: CheckRun, feed: WatchedFeed, key: StreamKey) -> bool:
    """Wait for the first update of a stream that was asked for; say what came instead."""
    if await feed.until(lambda: feed.count(key) or key in feed.paused or key in feed.rejected, run.timeout_s):
        if key in feed.rejected:
            run.blame(f"relay_stream rejected {key}: {feed.rejected[key]}")
        elif not feed.count(key):
            run.unchecked.append(f"stream: {key} is paused ({feed.paused[key]}); check it when it has prices")
        return bool(feed.count(key))
    if not _ended_early(run, feed):
        run.blame(f"relay_stream yielded nothing for {key} within {run.timeout_s:g} s")
    return False


def _ended_early(run: CheckRun, feed: WatchedFeed) -> bool:
    if feed.error is not None:
        run.blame(f"relay_stream raised {shown(feed.error)}")
    elif feed.has_ended:
        run.blame("relay_stream ended by itself while streams were wanted")
    return feed.has_ended


def _judge(run: CheckRun, feed: WatchedFeed) -> None:
    for fault in dict.fromkeys(feed.faults[:SHOWN]):
        run.blame(f"relay_stream: {fault}")
    if feed.skipped:
        run.blame(f"relay_stream skipped {len(feed.skipped)} messages, the first: {feed.skipped[0]}")
    run.texts += [*feed.skipped, *feed.closing, *feed.rejected.values(), *feed.paused.values()]
    if feed.error is not None:
        run.texts.append(str(feed.error))


async def check_stream(run: CheckRun) -> None:
    """Open a feed, wait for candles to close, add and remove a stream, cancel it."""
    async with run.feed(run.key) as feed:
        if await _opened(run, feed, run.key):
            await _check_closing(run, feed)
            await _check_watchlist(run, feed)
            run.newest = feed.last(run.key)
        run.session.is_recording = False
        ended = _ended_early(run, feed)
        fault = await feed.cancel()
        if fault is not None and not ended:
            run.blame(fault)
    _judge(run, feed)


async def _check_closing(run: CheckRun, feed: WatchedFeed) -> None:
    key, info = run.key, run.provider.info
    if length_s(key.interval) + info.close_grace_s > run.timeout_s:
        run.unchecked.append(f"closing: a candle of {key.interval} takes longer than timeout_s")
        return

    def times() -> list[int]:
        return list(dict.fromkeys(update.candle.time for update in feed.updates if update.key == key))

    # The first one may have been joined in its middle: the second is followed from its beginning.
    if not await feed.until(lambda: len(times()) >= 3, run.timeout_s + 2 * length_s(key.interval)):
        run.blame(f"relay_stream yielded no further candle of {key} within {run.timeout_s:g} s")
        return
    second = times()[1]
    is_closed = any(u.is_closed and u.candle.time == second for u in feed.updates if u.key == key)
    if not is_closed and not run.provider.has_history:
        run.blame(f"the candle of {key} at {second} was never closed, and there is no relay_candles to ask")
    run.checked.append("closing")


async def _check_watchlist(run: CheckRun, feed: WatchedFeed) -> None:
    second = run.second = _second_stream(run)
    if second is None:
        run.unchecked.append("watchlist: there is no second stream; name one as `other`")
        return
    feed.watchlist.add(second)

    def is_noticed() -> bool:
        return bool(feed.count(second) or second in feed.accepted or second in feed.rejected or second in feed.paused)

    if not await feed.until(is_noticed, run.timeout_s):
        run.blame(f"relay_stream does not follow the watchlist: nothing of {second} after it was added")
    feed.watchlist.remove(second)
    loop = asyncio.get_running_loop()
    deadline = loop.time() + run.timeout_s
    # The request to end it may have to wait for its turn at the venue.
    while await _goes_on(run, feed, second):
        if loop.time() > deadline:
            run.blame(f"relay_stream does not follow the watchlist: {second} goes on after it was removed")
            break
    run.checked.append("watchlist")


async def _goes_on(run: CheckRun, feed: WatchedFeed, key: StreamKey) -> bool:
    before = feed.count(key)
    return await feed.until(lambda: feed.count(key) > before, 2 * run.tolerances.settle_s)


async def check_second_feed(run: CheckRun) -> None:
    """Open another feed and close it where it yields."""
    async with run.feed(run.key) as feed:
        if await _opened(run, feed, run.key):
            fault = await feed.cancel(between_updates=True)
            if fault is not None:
                run.blame(fault)
    _judge(run, feed)


async def check_unknown_symbol(run: CheckRun) -> None:
    """Ask for a symbol that there is not, beside one that there is."""
    if not run.provider.lists_instruments:
        run.unchecked.append("unknown symbol in a stream: without relay_instruments no symbol is unknown")
        return
    async with run.feed(run.key, run.unknown) as feed:
        if await _opened(run, feed, run.key):
            await feed.until(lambda: run.unknown in feed.rejected, run.tolerances.settle_s)
            before = feed.count(run.key)
            if feed.count(run.unknown):
                run.blame(f"relay_stream yields updates of {run.unknown}, which does not exist")
            if not await feed.until(lambda: feed.count(run.key) > before, run.timeout_s):
                run.blame(f"relay_stream stops serving {run.key} when it is asked for {run.unknown} too")
        _ended_early(run, feed)
    feed.skipped.clear()
    _judge(run, feed)
