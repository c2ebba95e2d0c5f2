"""What one provider says of its past when it is asked: at the start, and regularly, with streams or without."""

import asyncio
import logging
from typing import Any

from relay.core.clock import Clock
from relay.core.errors import ProviderError, RateLimited
from relay.core.model import StreamKey
from relay.core.past_change import PastChange
from relay.core.saved_value import Memory
from relay.history.service import HistoryService
from relay.plugins.provider import Provider
from relay.supervision.past_changes import PastChanges
from relay.telemetry.events import event

log = logging.getLogger(__name__)

LEAST_WAIT_S = 10.0
MOST_WAIT_S = 3600.0
"""Pauses after failures, from the first to the longest."""
MOST_TAKEN = 1000
"""Changes that are remembered as taken; a provider may name them again."""


class AnnouncedChanges:
    """Asks `relay_past_changes` and takes what is new of it; requests to `history` wait a moment for the first answer.

    The `memory` has until when it asked, and what it took: it is saved once that is in the database, so that after a
    kill the next run takes it again rather than not at all.
    """

    def __init__(
        self, provider: Provider, past_changes: PastChanges, history: HistoryService, clock: Clock, memory: Memory
    ) -> None:
        self._provider = provider
        self._history = history
        self._past_changes = past_changes
        self._clock = clock
        self._memory = memory
        self._asked_at, self._taken = _recalled(memory.value)
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to ask, if the provider can answer."""
        if self._provider.tells_past_changes:
            known = self._history.await_past(self._provider.name)
            self._task = asyncio.create_task(self._ask_forever(known), name=f"past changes of {self._provider.name}")

    async def close(self) -> None:
        """Stop asking."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _ask_forever(self, known: asyncio.Event) -> None:
        wait_s = LEAST_WAIT_S
        while True:
            try:
                await self._ask(known)
            except ProviderError as error:
                pause_s = max(wait_s, error.retry_after) if isinstance(error, RateLimited) else wait_s
                wait_s = min(MOST_WAIT_S, 2 * wait_s)
                about = event("past_changes_failed", provider=self._provider.name)
                log.info("%s does not say what changed of its past: %s", self._provider.name, error, extra=about)
            else:
                pause_s, wait_s = self._provider.info.instruments_ttl_s, LEAST_WAIT_S
            await asyncio.sleep(pause_s)

    async def _ask(self, known: asyncio.Event) -> None:
        """Take what is new, and note that it is `known`. Raises `ProviderError`."""
        asked_at = int(self._clock.wall())
        told = await self._provider.past_changes(self._asked_at)
        new = [change for change in dict.fromkeys(told) if change not in self._taken]
        written = [self._past_changes.take(change) for change in new]
        known.set()
        for one in written[-1:]:
            await one
        self._taken |= dict.fromkeys(new)
        for change in [*self._taken][:-MOST_TAKEN]:
            del self._taken[change]
        self._asked_at = asked_at
        await self._memory.save({"asked_at": asked_at, "taken": [[*change.key, *change[1:]] for change in self._taken]})


def _recalled(value: Any) -> tuple[int | None, dict[PastChange, None]]:
    try:
        taken = {PastChange(StreamKey(*row[:2]), *row[2:]): None for row in value["taken"]}
        return int(value["asked_at"]), taken
    except (TypeError, LookupError, ValueError):
        return None, {}
