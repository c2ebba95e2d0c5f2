"""What the history route is asked for, understood, and what of an answer lines can say: values; pure."""

from collections.abc import Mapping
from typing import NamedTuple

from relay.core.errors import ProviderUnavailable
from relay.core.intervals import length_s
from relay.core.model import StreamKey
from relay.history.known_answers import EncodedCandles
from relay.history.live_edge import LiveEdge, live_of
from relay.history.requests import CallAllowance, HistoryRequest
from relay.instruments.directory import Target
from relay.plugins.provider import Provider
from relay.storage.chunks import Chunk
from relay.streams.subscriptions import Stream
from relay.web.access.access import Caller
from relay.web.contract.queries import HistoryQuery


class AskedHistory(NamedTuple):
    """A request, understood: candles of which instrument, for whom; `is_known_only` asks no provider for them.

    At `until`, a time of the event loop, it is answered with what is known by then; None waits for the provider.
    """

    query: HistoryQuery
    target: Target
    caller: Caller
    is_known_only: bool = False
    until: float | None = None

    def wanted(self) -> int:
        """Return how many candles to ask for: as lines leave an open one out, the newest ones take one more."""
        query, (provider, key, _) = self.query, self.target
        if query.form == "json" or query.start is not None:
            return query.limit
        is_over = query.end is not None and query.end + length_s(key.interval) <= provider.clock.now()
        return query.limit if is_over else query.limit + 1

    def request(
        self, streams: Mapping[tuple[str, StreamKey], Stream], start: int | None, end: int | None, limit: int
    ) -> HistoryRequest:
        """Return the request for a range, or its last `limit` candles where there is no start.

        `streams` are those that are open: they know the present.
        """
        provider, key, _ = self.target

        def live() -> LiveEdge | None:
            return live_of(streams.get((provider.name, key)))

        extended = self.query.extended
        return HistoryRequest(
            provider,
            key,
            start,
            end,
            limit,
            live,
            client=self.caller.client,
            extended=extended,
            needs_extras=extended and not self.is_known_only,
            allowance=CallAllowance(0) if self.is_known_only else None,
        )


def closed_only(text: EncodedCandles, limit: int) -> Chunk:
    """Return the last `limit` closed candles: lines have no place to say that the last one is not."""
    chunk = text.chunk
    end = len(chunk.times) if text.last_is_closed else len(chunk.times) - 1
    return chunk.part(max(0, end - limit), end)


def check_is_whole(text: EncodedCandles, provider: Provider) -> None:
    """Refuse what has no place to say that candles are missing. Raises `ProviderUnavailable`."""
    if not text.is_whole:
        title = provider.info.title
        raise ProviderUnavailable(f"one request may not send so many requests to {title}; ask again for the rest")
