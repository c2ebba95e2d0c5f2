"""The one task that writes to the database: what waits, in batches, again when it failed; and chunks worth storing."""

import asyncio
import logging
from collections import Counter, deque
from contextlib import suppress

from relay.core.counted import counted
from relay.core.errors import StoreError
from relay.storage.chunks import window_s
from relay.storage.database import Database
from relay.storage.limits import STORE_LIMITS, StoreLimits
from relay.storage.write_queue import StreamId, Write, WriteQueue
from relay.telemetry.events import event

log = logging.getLogger(__name__)

LOOSE_ROWS = 64
"""A window with more rows than this outside of its chunk is worth a new one."""

_MOST_UNPACKED = 16_384
# Chunks that are still stored when the writer is closed; the others are made when their candles are read.
_PACKED_AT_CLOSE = 64


class StoreWriter:
    """Empties the queue, which others fill; owns those who wait for a write, and what is to be packed into chunks."""

    def __init__(self, database: Database, queue: WriteQueue, limits: StoreLimits = STORE_LIMITS) -> None:
        self._database = database
        self._limits = limits
        self._queue = queue
        self._unpacked: dict[tuple[StreamId, int], None] = {}
        self._waiters: deque[tuple[int, asyncio.Future[None]]] = deque()
        self._work = asyncio.Event()
        self._hurry = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.is_closing = False

    def start(self) -> None:
        """Begin to write."""
        self._task = asyncio.create_task(self._write_forever(), name="store writer")

    def wake(self) -> None:
        """Have what was put into the queue written within about 0.25 s."""
        self._work.set()

    async def written(self, number: int) -> None:
        """Return when the writes up to `number` are stored. Raises `StoreError` when they cannot be."""
        if not self._queue or self._queue.oldest.number > number:
            return
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append((number, waiter))
        self._hurry.set()
        await waiter

    def pack_later(self, stream: StreamId, number: int) -> None:
        """Have the chunk of a window stored when nothing waits to be written."""
        # Not to be packed is no loss: the rows are there, and whoever reads them will ask again.
        if len(self._unpacked) < _MOST_UNPACKED:
            self._unpacked[stream, number] = None
            self._work.set()

    def give_up_waiting(self, error: StoreError) -> None:
        """Let nobody wait any longer for what is queued; it goes on waiting to be written."""
        self._answer_waiters(self._queue.number, error)

    def begin_again(self) -> None:
        """Pack nothing of what was asked for, and try at once to write what waits: the file may be another one."""
        self._unpacked.clear()
        self._hurry.set()

    async def close(self) -> None:
        """Write what waits, as far as the disk allows, and end."""
        self.is_closing = True
        self._work.set()
        self._hurry.set()
        if self._task is not None:
            task, self._task = self._task, None
            await asyncio.gather(task, return_exceptions=True)
        self._answer_waiters(self._queue.number, StoreError("the store is closed"))
        if self._queue.candles:
            about = event("store_unwritten", candles=self._queue.candles)
            reason = self._database.problems.first or "stopped"
            unwritten = counted(self._queue.candles, "candle")
            log.error("store closed with %s unwritten: %s", unwritten, reason, extra=about)

    def _answer_waiters(self, number: int, error: StoreError | None = None) -> None:
        while self._waiters and self._waiters[0][0] <= number:
            _, waiter = self._waiters.popleft()
            if waiter.done():
                continue
            if error is None:
                waiter.set_result(None)
            else:
                waiter.set_exception(error)

    async def _write_forever(self) -> None:
        limits = self._limits
        retry_s, attempts, packs_left = limits.least_retry_s, 0, _PACKED_AT_CLOSE
        while True:
            if not self._queue:
                if self._unpacked and packs_left:
                    packs_left -= self.is_closing
                    await self._pack_next()
                    continue
                if self.is_closing:
                    return
                self._work.clear()
                await self._work.wait()
                continue
            if self.is_closing:
                if attempts:
                    await asyncio.sleep(limits.batch_s)
            else:
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._hurry.wait(), retry_s if attempts else limits.batch_s)
            self._hurry.clear()
            batch = self._queue.batch()
            tables = self._database.tables
            try:
                await self._database.write(tables.void if batch[0].is_void else tables.write, batch)
            except StoreError as error:
                attempts += 1
                retry_s = min(retry_s * 2, limits.most_retry_s) if attempts > 1 else limits.least_retry_s
                self._database.problems.note("write", error.reason)
                self._answer_waiters(self._queue.number, error)
                if self.is_closing and attempts >= limits.close_attempts:
                    return
                continue
            attempts = 0
            for write in batch:
                self._pack_pages(write)
            last = batch[-1].number
            while self._queue and self._queue.oldest.number <= last:
                self._queue.pop()
            self._database.problems.clear("write")
            self._answer_waiters(last)
            if self._waiters:
                self._hurry.set()

    def _pack_pages(self, write: Write) -> None:
        """Have the windows packed that a page of a provider filled; a live candle is not worth it."""
        if len(write.candles) > LOOSE_ROWS:
            length = window_s(write.stream[1].interval)
            counts = Counter(candle.time // length for candle in write.candles)
            for number, count in counts.items():
                if count > LOOSE_ROWS:
                    self.pack_later(write.stream, number)

    async def _pack_next(self) -> None:
        window = next(iter(self._unpacked))
        del self._unpacked[window]
        try:
            await self._database.write(self._database.tables.pack, *window)
        except StoreError as error:
            self._unpacked.clear()
            log.debug("chunks are not stored: %s", error.reason, extra=event("chunks_not_stored"))
