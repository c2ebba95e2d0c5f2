"""Runs one feed against a watchlist of its own and keeps everything it says; for the tests of feeds and providers."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from contextlib import aclosing
from types import TracebackType
from typing import Self, TypeVar

from relay import PastChange, PriceUpdate, StreamKey, Watchlist
from relay.upstream.watchlist import Done
from tests.support.conditions import LONGEST_WAIT_S

_T = TypeVar("_T")


def keys(*names: str) -> list[StreamKey]:
    return [StreamKey(*name.split("@")) for name in names]


class Pump:
    """An async context manager: `open_feed` is given the watchlist and returns the feed."""

    def __init__(
        self, open_feed: Callable[[Watchlist], AsyncGenerator[PriceUpdate, None]], streams: Iterable[StreamKey] = ()
    ) -> None:
        self.updates: list[PriceUpdate] = []
        self.accepted: list[StreamKey] = []
        self.rejected: list[tuple[StreamKey, str]] = []
        self.skipped: list[str] = []
        self.announced: list[str] = []
        self.paused: list[tuple[StreamKey, str, str]] = []
        self.remarks: list[tuple[StreamKey, str]] = []
        self.expected: list[tuple[StreamKey, float, float | None]] = []
        self.changes: list[PastChange] = []
        self.error: BaseException | None = None
        self.has_ended = False
        self.consumer_may_go_on = asyncio.Event()
        self.consumer_may_go_on.set()
        self._news = asyncio.Event()
        self.watchlist = Watchlist(
            streams,
            on_accept=lambda key: self._note(self.accepted, key),
            on_reject=lambda key, error: self._note(self.rejected, (key, str(error))),
            on_skip=lambda reason: self._note(self.skipped, reason),
            on_closing=lambda reason: self._note(self.announced, reason),
            on_pause=lambda key, status, message: self._note(self.paused, (key, status, message)),
            on_expect=lambda key, in_s, every_s: self._note(self.expected, (key, in_s, every_s)),
            on_remark=lambda key, message: self._note(self.remarks, (key, message)),
            on_invalidate=self._note_change,
        )
        self._open_feed = open_feed
        self._task: asyncio.Task[None] | None = None

    def _note(self, where: list[_T], what: _T) -> None:
        where.append(what)
        self._news.set()

    def _note_change(self, change: PastChange) -> Awaitable[None]:
        self._note(self.changes, change)
        return Done()

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._task is not None
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        try:
            async with aclosing(self._open_feed(self.watchlist)) as feed:
                async for update in feed:
                    self._note(self.updates, update)
                    await self.consumer_may_go_on.wait()
        except Exception as error:  # noqa: BLE001 - the tests look at it
            self.error = error
        finally:
            self.has_ended = True
            self._news.set()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until something the feed said makes the condition true."""
        async with asyncio.timeout(LONGEST_WAIT_S):
            while not condition():
                self._news.clear()
                await self._news.wait()

    async def end(self) -> BaseException | None:
        """Wait for the end of the feed and return its error, None if it simply returned."""
        await self.until(lambda: self.has_ended)
        return self.error
