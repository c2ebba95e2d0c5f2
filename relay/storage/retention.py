"""Deletes candles older than the operator wants to keep, a little at a time; what is known shrinks with them."""

import asyncio
import logging
from collections.abc import Iterable
from contextlib import suppress

from relay.config.parsers import Period
from relay.core.clock import Clock
from relay.core.counted import counted
from relay.core.errors import StoreError
from relay.storage.chunks import window_s
from relay.storage.store import Store
from relay.telemetry.events import event

log = logging.getLogger(__name__)

SWEEP_S = 600.0
"""How long it rests between two looks at all streams."""
CANDLES = 2048
"""How many candles one transaction deletes, roughly."""
_PAUSE_S = 0.05


class Retention:
    """Deletes in the background what is older than `periods` say; `deleted` counts candles.

    Whole blocks of 512 candles go at a time, so that encoded ones stay whole: a little more is kept than was asked for.
    """

    def __init__(self, store: Store, clock: Clock, periods: Iterable[Period]) -> None:
        self._store = store
        self._clock = clock
        self._seconds = {period.interval: period.seconds for period in periods}
        self._is_closing = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.deleted = 0

    def start(self) -> None:
        """Begin, if there is anything to delete ever."""
        if self._seconds:
            self._task = asyncio.create_task(self._sweep_forever(), name="retention")

    async def close(self) -> None:
        """End after the transaction that is under way."""
        self._is_closing.set()
        if self._task is not None:
            await asyncio.gather(self._task, return_exceptions=True)

    async def sweep(self) -> None:
        """Delete all that is too old now. Raises `StoreError`."""
        before = self.deleted
        for provider, key in await self._store.streams():
            if key.interval not in self._seconds:
                continue
            length = window_s(key.interval)
            oldest = int(self._clock.wall() - self._seconds[key.interval]) // length * length
            while not self._is_closing.is_set():
                count = await self._store.removals.trim(provider, key, oldest, CANDLES)
                if not count:
                    break
                self.deleted += count
                await self._rest(_PAUSE_S)
        if self.deleted > before:
            count = self.deleted - before
            log.info(
                "deleted %s, older than retention allows",
                counted(count, "candle"),
                extra=event("trimmed", candles=count),
            )

    async def _sweep_forever(self) -> None:
        while not self._is_closing.is_set():
            try:
                await self.sweep()
            except StoreError as error:
                log.warning("old candles cannot be deleted: %s", error, extra=event("trim_failed", reason=str(error)))
            await self._rest(SWEEP_S)

    async def _rest(self, seconds: float) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(self._is_closing.wait(), seconds)
