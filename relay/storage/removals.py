"""What is taken away of what is stored, on purpose or with the file; `past_seen` has how readers notice that."""

import logging
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Concatenate, ParamSpec, TypeVar

from relay.core.errors import StoreError
from relay.core.intervals import INTERVALS
from relay.core.model import StreamKey
from relay.core.past_change import PastChange
from relay.storage.database import Database
from relay.storage.loader import Loader
from relay.storage.past_seen import RemovalLog
from relay.storage.revisions import RevisionNumbers
from relay.storage.set_aside import CHECKING, aside_name
from relay.storage.write_queue import StreamId, WriteQueue
from relay.storage.writer import StoreWriter
from relay.telemetry.events import event

log = logging.getLogger(__name__)
P = ParamSpec("P")
T = TypeVar("T")

_MOST_VOIDED = 256


class Removals:
    """Takes away what is stored, and has it `noted`, for whoever reads meanwhile."""

    def __init__(
        self, database: Database, queue: WriteQueue, writer: StoreWriter, loader: Loader, numbers: RevisionNumbers
    ) -> None:
        self.noted = RemovalLog()
        self._database = database
        self._tables = database.tables
        self._queue = queue
        self._writer = writer
        self._loader = loader
        self._numbers = numbers
        # What another file has of it may be from before.
        self._voided: deque[tuple[str, PastChange]] = deque(maxlen=_MOST_VOIDED)
        self._replacements = 0

    async def trim(self, provider: str, key: StreamKey, before: int, most: int) -> int:
        """Delete the oldest candles, about `most` and all older than `before`, and make them unknown; return how many.

        `before` is where a window begins. Raises `StoreError`.
        """
        return await self._database.write(self._trim, (provider, key), before, most)

    async def _trim(self, stream: StreamId, before: int, most: int) -> int:
        _, count = await self._tables.trim(stream, before, most)
        if count:
            self.noted.note_deleted(stream)
            self._loader.forget(stream)
        return count

    async def set_aside(self, provider: str, symbol: str, name: str, end: int | None = None) -> int:
        """Keep all that is stored of a symbol under `name`, in one transaction; return how many candles that are.

        Nothing is known of the symbol then. With `end` what opens from then on is deleted instead of being set aside.
        Raises `StoreError`, and then nothing is changed.
        """
        return await self._take_away(self._tables.rename, provider, symbol, name, end)

    async def take_back(self, provider: str, name: str, symbol: str) -> None:
        """Undo `set_aside`; what was stored of the symbol since stays. Raises `StoreError`."""
        await self._writer.written(self._queue.number)

        async def take_back() -> None:
            await self._tables.take_back(provider, name, symbol)
            self._forget_symbol(provider, symbol)
            self._forget_symbol(provider, name)

        await self._database.write(take_back)

    def void(self, provider: str, change: PastChange) -> None:
        """Take nothing for valid any more of what a provider changed, stored or waiting to be written; never blocks.

        No read gives it from now on: it is unknown. `Store.flush` returns when that is in the file, too, so that the
        next run knows it. What is taken away while its symbol is checked goes as well. Raises `StoreError` once the
        store is closed.
        """
        if self._writer.is_closing:
            raise StoreError("the store is closed")
        symbol = change.symbol
        number = self._numbers.next()
        for name in (symbol, aside_name(symbol, CHECKING)):
            for interval, span in change.spans().items():
                stream = (provider, StreamKey(name, interval))
                self.noted.note_deleted(stream)
                self._loader.note(self._queue.push_void(stream, span, number))
        self.noted.note_other_past(provider, symbol)
        if (voided := (provider, change)) in self._voided:
            self._voided.remove(voided)
        self._voided.append(voided)
        self._writer.wake()

    async def _take_away(
        self, change: Callable[Concatenate[str, str, P], Awaitable[T]], provider: str, symbol: str, *asked: P.args,
        **_: P.kwargs,
    ) -> T:  # fmt: skip
        # What waits to be written is of the same past.
        await self._writer.written(self._queue.number)

        async def take_away() -> T:
            done = await change(provider, symbol, *asked, **_)
            self.noted.note_other_past(provider, symbol)
            self._forget_symbol(provider, symbol)
            return done

        return await self._database.write(take_away)

    def _forget_symbol(self, provider: str, symbol: str) -> None:
        for interval in INTERVALS:
            stream = (provider, StreamKey(symbol, interval))
            self.noted.note_deleted(stream)
            self._loader.forget(stream)

    def begin_again(self) -> None:
        """Take it that the file is another one, or that another program wrote to it: read all of it anew."""
        self.noted.note_all()
        # Another file does not know what was revised.
        self._numbers.lose(self._numbers.newest)
        self._writer.begin_again()
        self._loader.forget_all()
        if self._replacements != self._database.replacements:
            self._replacements = self._database.replacements
            for provider, change in [*self._voided]:
                self.void(provider, change)

    async def cut_future(self, stream: StreamId, latest: int) -> None:
        """Delete what a stream is said to hold after the open time `latest`; if the file takes that, for good."""
        provider, key = stream
        about = event("store_future_cut", provider=provider, stream=str(key))
        log.warning(
            "the store had candles or spans of %s %s in the future; they are deleted and requested again",
            provider,
            key,
            extra=about,
        )
        with suppress(StoreError):
            await self._database.write(self._tables.cut_future, stream, latest)
        self._loader.forget(stream)
