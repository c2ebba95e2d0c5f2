"""The streams of one feed of a replay, in step: what happens next in any of them comes next."""

import heapq
from collections.abc import AsyncGenerator, Mapping
from datetime import UTC, datetime
from typing import NamedTuple

from providers.replay.played_stream import Event, PlayedStream
from relay import StreamKey, Watchlist


class _Turn(NamedTuple):
    """What a stream has next; of equal moments closes come first, then in the order in which streams were wanted."""

    moment: float
    is_open: bool
    version: int
    key: StreamKey
    event: Event
    events: AsyncGenerator[Event, None]


class Players:
    """Follows a watchlist; `next` is what happens next in its streams, None if nothing does. Close it in the end."""

    def __init__(self, streams: Mapping[StreamKey, PlayedStream], watchlist: Watchlist) -> None:
        self._streams = streams
        self._watchlist = watchlist
        self._version = -1
        self._wanted_since: dict[StreamKey, int] = {}
        self._turns: list[_Turn] = []

    @property
    def are_outdated(self) -> bool:
        """Whether the watchlist has changed since `follow`."""
        return self._watchlist.version != self._version

    async def follow(self, since: float) -> None:
        """Play what is on the watchlist now, new streams from a moment on (Unix seconds)."""
        watchlist = self._watchlist
        self._version = watchlist.version
        wanted = {key: watchlist.wanted_since(key) for key in watchlist.streams}
        kept = []
        for turn in self._turns:
            if wanted.get(turn.key) == turn.version:
                kept.append(turn)
            else:
                await turn.events.aclose()
        heapq.heapify(kept)
        self._turns = kept
        new = [key for key, version in wanted.items() if self._wanted_since.get(key) != version]
        self._wanted_since = wanted
        for key in new:
            if key in self._streams:
                watchlist.accept([key])
                await self._take_turn(key, wanted[key], self._streams[key].events(since))
            else:
                watchlist.reject(key, "it is not recorded")

    @property
    def next(self) -> Event | None:
        """What happens next."""
        return self._turns[0].event if self._turns else None

    async def go_on(self) -> None:
        """Go on to what follows, after `next` was told."""
        turn = heapq.heappop(self._turns)
        await self._take_turn(turn.key, turn.version, turn.events)

    async def _take_turn(self, key: StreamKey, version: int, events: AsyncGenerator[Event, None]) -> None:
        event = await anext(events, None)
        if event is not None:
            heapq.heappush(self._turns, _Turn(event.moment, event.is_open, version, key, event, events))
        else:
            self._watchlist.pause(key, "market_closed", f"its recording ends at {_utc(self._streams[key].ends_at)}")

    async def close(self) -> None:
        """Let go of all streams."""
        for turn in self._turns:
            await turn.events.aclose()


def _utc(moment: int) -> str:
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
