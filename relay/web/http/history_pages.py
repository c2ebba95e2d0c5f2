"""The candles that somebody asks for over HTTP, page after page: what of them is in memory at once is bounded."""

from collections.abc import AsyncGenerator

from relay.core.errors import ProviderUnavailable
from relay.history.known_answers import EncodedCandles
from relay.history.service import HistoryService
from relay.storage.chunks import Chunk
from relay.storage.past_seen import PastSeen
from relay.streams.hub import Hub
from relay.web.contract.queries import MOST_AT_ONCE
from relay.web.http.asked_history import AskedHistory, check_is_whole, closed_only


class HistoryPages:
    """Asks history for what the routes send, with what live streams know of the present."""

    def __init__(self, hub: Hub, history: HistoryService) -> None:
        self._hub = hub
        self._history = history

    async def closed(self, asked: AskedHistory) -> AsyncGenerator[Chunk, None]:
        """Yield the closed candles, ascending, in pages. Raises `RelayError`, also after some of them."""
        start, end, limit = asked.query.start, asked.query.end, asked.query.limit
        left = asked.wanted()
        if start is None and left > MOST_AT_ONCE:
            start, end = await self._begin(asked)
            left = limit
        provider, key, _ = asked.target
        seen: PastSeen | None = None
        while left > 0:
            text = await self._text(asked, start, end, min(left, MOST_AT_ONCE))
            seen = seen or self._history.look()
            if not seen.is_same(provider.name, key.symbol):
                raise ProviderUnavailable(f"the past of {asked.target.name} changed while it was read; ask again")
            check_is_whole(text, provider)
            chunk = text.chunk
            count = len(chunk.times)
            closed = closed_only(text, limit)
            if closed.times:
                yield closed
            if count < min(left, MOST_AT_ONCE) or not text.last_is_closed:
                return
            left -= count
            start = chunk.times[-1] + 1

    async def _text(self, asked: AskedHistory, start: int | None, end: int | None, limit: int) -> EncodedCandles:
        return await self._history.text(asked.request(self._hub.streams, start, end, limit))

    async def _begin(self, asked: AskedHistory) -> tuple[int, int | None]:
        """Walk back to where the last `limit` closed candles begin; return that, and where they end."""
        start, end, left, last = 0, asked.query.end, asked.query.limit, asked.query.end
        while left > 0:
            text = await self._text(asked, None, end, min(left, MOST_AT_ONCE))
            check_is_whole(text, asked.target.provider)
            times = text.chunk.times
            if not times:
                break
            left += not text.last_is_closed
            if last is None:
                last = times[-1]
            start, end = times[0], times[0] - 1
            if len(times) < min(left, MOST_AT_ONCE):
                break
            left -= len(times)
        return start, last
