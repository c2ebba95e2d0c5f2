"""The connection for a venue's own streams: when it is opened."""

import asyncio
import random
from collections.abc import AsyncGenerator, Mapping
from pathlib import Path

from relay import NativeAnswer, NativeLive, NativeUpdate, StreamKey, Watchlist, hookimpl
from relay.supervision.attempts import CONNECTS, CONNECTS_WINDOW_S
from relay.supervision.native_feed import NativeFeed
from tests.support.conditions import eventually
from tests.support.supervised_provider import Scripted, rig_of

BOOK = StreamKey("A", "book")


class WithBooks(Scripted):
    """A provider with one stream of its own, which says its number of connections."""

    def __init__(self) -> None:
        super().__init__()
        self.opened = 0

    @hookimpl
    async def relay_native(self, path: str) -> NativeAnswer:
        return NativeAnswer(200, b"{}")

    @hookimpl
    def relay_native_live(self, path: str, query: Mapping[str, str]) -> NativeLive | None:
        return None

    @hookimpl
    async def relay_native_stream(self, watchlist: Watchlist) -> AsyncGenerator[NativeUpdate, None]:
        self.opened += 1
        yield NativeUpdate(BOOK, self.opened)
        await asyncio.Event().wait()


async def test_a_wait_that_is_heard_while_it_waits_for_a_place_is_kept_to(tmp_path: Path) -> None:
    plugin = WithBooks()
    async with rig_of(plugin, tmp_path) as rig:
        for _ in range(CONNECTS):
            rig.attempts.reserve(rig.hands.now)
        feed = NativeFeed(rig.provider, rig.attempts, rig.counters, rig.hands.clock, random.Random(1))
        assert feed.follow(BOOK)
        await asyncio.sleep(5)
        rig.provider.feed_waits.hear(600.0, "Scripted asked another relay to wait")
        rig.hands.now += CONNECTS_WINDOW_S + 1
        # Feeds of candles come first after the wait, too.
        await asyncio.sleep(600.9)
        assert (plugin.opened, feed.is_pausing) == (0, True)
        await eventually(lambda: feed.newest(BOOK))
        assert not feed.is_pausing
        await feed.close()
