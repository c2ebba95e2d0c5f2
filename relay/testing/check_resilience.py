"""What is checked of a provider whose upstream is lost, or refuses."""

import asyncio
from contextlib import aclosing

import aiohttp

from relay.core.errors import ProviderError, RateLimited
from relay.core.model import StreamKey
from relay.plugins.provider import Provider
from relay.testing.check_run import CheckRun
from relay.testing.check_streams import AS_STREAM, is_heard
from relay.testing.findings import FaultName
from relay.testing.watched_feed import WatchedFeed, shown
from relay.testing.watched_session import WatchedSession, refusing_server
from relay.upstream.watchlist import Watchlist

_UNDERSTOOD = (ProviderError, aiohttp.ClientError, ConnectionError, TimeoutError)
RETRY_AFTER_S = 7.0


async def check_reconnect(run: CheckRun) -> None:
    """Break the connection under a feed: it has to end, and the next one has to deliver."""
    if run.rest:
        run.leave_out("reconnect", AS_STREAM)
        return
    async with run.feed(run.key) as feed:
        await feed.until(lambda: feed.count(run.key), run.timeout_s)
        # A feed with two sources may speak before its WebSocket is open.
        if not await feed.until(lambda: run.session.is_connected, run.tolerances.settle_s):
            run.leave_out("reconnect", "the feed holds no WebSocket that could be lost")
            return
        connects = run.session.connects
        run.session.drop_connections()
        if run.plan.survives_loss:
            before = feed.count(run.key)
            if not await feed.until(lambda: feed.count(run.key) > before, run.timeout_s):
                said = "relay_stream ended when its WebSocket was lost, although survives_loss is set"
                run.blame(FaultName.STREAM_ENDS, said)
            return
        if await feed.until(lambda: run.key in feed.lost, run.tolerances.end_s):
            await _comes_back(run, feed)
            return
        if not feed.has_ended or run.session.connects > connects:
            again = run.session.connects - connects
            run.blame(
                FaultName.RECONNECTS_ITSELF if again else FaultName.HANGS_AFTER_LOSS,
                "relay_stream continued after its connection was lost; let it end, the relay opens the next feed",
                "it returns or raises at once",
                f"{again} new connections within {run.tolerances.end_s:g} s",
            )
        elif feed.error is not None and not isinstance(feed.error, _UNDERSTOOD):
            run.blame(FaultName.STREAM_FAILS, f"relay_stream raised {shown(feed.error)} when its connection was lost")
    async with run.feed(run.key) as feed:
        await is_heard(run, feed, run.key, " in the feed after one whose connection was lost")


async def _comes_back(run: CheckRun, feed: WatchedFeed) -> None:
    """Wait for a stream that was lost alone: its feed has said so, and tries it again by itself."""
    lost = feed.lost[run.key]
    run.texts.append(str(lost))
    if not await feed.until(lambda: run.key not in feed.lost, run.timeout_s):
        run.blame(
            FaultName.HANGS_AFTER_LOSS,
            f"relay_stream lost {run.key} with its connection ({shown(lost)}) and did not deliver it again",
        )


async def check_refusal(run: CheckRun, provider: Provider, session: WatchedSession) -> None:
    """Have every request answered with 503, then with 429; `provider` is a fresh one, and of no use afterwards."""
    async with refusing_server() as server:
        session.refuser = server.url
        for server.status in (503, 429):
            ended = await _refused_feed(run, provider)
            if not server.asked:
                run.leave_out("refusal", "the provider asks nothing through its session; use `session`")
                return
            _judge(run, f"relay_stream, when answered {server.status},", server.status, ended)
            if provider.has_history:
                server.asked = 0
                try:
                    await provider.candles(run.key, None, int(provider.clock.now()), 5)
                except ProviderError as error:
                    _judge(run, f"relay_candles, when answered {server.status},", server.status, error)
                else:
                    said = f"relay_candles raises no error when the provider answers {server.status}"
                    run.blame(FaultName.HIDES_REFUSAL, said)
                if server.asked > 2 * _addresses(provider):
                    run.blame(
                        FaultName.RETRIES_INSIDE,
                        f"relay_candles, when answered {server.status}, asked {server.asked} times",
                        "each address is asked once: the relay decides when it tries again",
                    )


def _addresses(provider: Provider) -> int:
    """Return how many addresses the settings of a provider name, at least one."""
    return max(1, sum(len(value) for value in provider.settings.values() if isinstance(value, tuple)))


def _judge(run: CheckRun, what: str, status: int, ended: ProviderError | str) -> None:
    if isinstance(ended, str):
        if ended:
            run.blame(FaultName.HIDES_REFUSAL, f"{what} {ended}")
        return
    run.texts.append(str(ended))
    if str(ended).startswith(f"provider {run.provider.name} failed"):
        said = f"{what} fails as if it were mistaken ({ended}); let errors of aiohttp pass, or use RestAnswer.error"
        run.blame(FaultName.WRONG_ERROR, said)
    elif status == 429 and not (isinstance(ended, RateLimited) and ended.retry_after >= RETRY_AFTER_S - 1):
        said = f"{what} with Retry-After: 7 raises {shown(ended)}, not RateLimited with that wait"
        run.blame(FaultName.WRONG_ERROR, said)


async def _refused_feed(run: CheckRun, provider: Provider) -> ProviderError | str:
    """Run a feed that is refused; return what it raised, or what is wrong, empty if it told its streams to rest."""
    rests = asyncio.Event()
    lost: list[ProviderError] = []

    def lose(_: StreamKey, error: ProviderError, __: float) -> None:
        lost.append(error)
        rests.set()

    watchlist = Watchlist([run.key], on_pause=lambda *_: rests.set(), on_reject=lambda *_: rests.set(), on_lose=lose)

    async def work() -> ProviderError | str:
        try:
            async with aclosing(provider.stream(watchlist)) as updates:
                async for _ in updates:
                    return "still yields updates"
        except ProviderError as error:
            return error
        return "ends as if the provider had closed it; raise the error of the answer, so that the relay can wait"

    feed = asyncio.create_task(work(), name=f"refused feed of {provider.name}")
    waiting = asyncio.create_task(rests.wait(), name="rest of a refused feed")
    try:
        await asyncio.wait((feed, waiting), timeout=run.timeout_s, return_when=asyncio.FIRST_COMPLETED)
        if feed.done():
            return feed.result()
        if lost:
            return lost[0]
        return "" if rests.is_set() else f"neither raises nor reports it within {run.timeout_s:g} s"
    finally:
        waiting.cancel()
        await provider.end_feed(feed)
