"""What only Binance can say: asked there within the provider's budget, once for all who ask the same in a second."""

import asyncio
from collections.abc import Mapping

from relay.core.model import NativeAnswer
from relay.history.service import HistoryService
from relay.plugins.provider import Provider
from relay.web.facade_counts import FacadeCounts

FRESH_S = 1.0
"""So long an answer is given again."""

Asked = tuple[str, str, tuple[tuple[str, str], ...]]


class PassThrough:
    """Asks providers in their own protocol. Calls take turns with all others to the provider, behind live streams."""

    def __init__(self, history: HistoryService, counts: FacadeCounts) -> None:
        self._history = history
        self._counts = counts
        self._known: dict[Asked, asyncio.Task[NativeAnswer]] = {}

    async def ask(self, provider: Provider, path: str, query: Mapping[str, str], client: str) -> NativeAnswer:
        """Return the venue's answer. Raises `ProviderError`. Cancelling ends the request, not the call: others wait."""
        asked = (provider.name, path, tuple(sorted(query.items())))
        task = self._known.get(asked)
        if task is None:
            task = self._known[asked] = asyncio.create_task(self._ask(provider, path, query, client))
            task.add_done_callback(lambda done: self._keep(asked, done))
        answer = await asyncio.shield(task)
        self._counts.weight_asked += answer.weight
        return answer

    async def _ask(self, provider: Provider, path: str, query: Mapping[str, str], client: str) -> NativeAnswer:
        async with self._history.calls.turn(provider, client):
            answer = await provider.native(path, query)
        self._counts.calls += 1
        self._counts.weight += answer.weight
        return answer

    def _keep(self, asked: Asked, done: "asyncio.Task[NativeAnswer]") -> None:
        """Give an answer again for a moment; a failure only to those who waited for it."""
        if done.cancelled() or done.exception() is not None:
            del self._known[asked]
        else:
            asyncio.get_running_loop().call_later(FRESH_S, self._known.pop, asked, None)

    async def close(self) -> None:
        """End the calls under way."""
        running = [task for task in self._known.values() if not task.done()]
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
