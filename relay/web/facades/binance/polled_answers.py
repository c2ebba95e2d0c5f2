"""Answers of the exchange that are asked for again and again, such as order books: taken from its own live streams."""

import asyncio
from functools import partial

from relay.core.model import NativeLive, StreamKey
from relay.plugins.provider import Provider
from relay.supervision.native_feed import NativeFeed
from relay.web.facade_counts import FacadeCounts
from relay.web.facades.facade import FacadeParts
from relay.web.facades.polls import End, Polls

LOOK_S = 0.02


class PolledAnswers:
    """Answers by what a stream said at most `fresh_s` ago; None leaves it to the exchange."""

    def __init__(self, parts: FacadeParts, counts: FacadeCounts, fresh_s: float) -> None:
        self._supervisors = parts.supervisors
        self._timing = parts.timing
        self._counts = counts
        self._fresh_s = fresh_s
        self._polls: Polls[tuple[str, StreamKey]] = Polls()
        # Until when the first word of a stream is waited for that has just begun.
        self._awaited: dict[tuple[str, StreamKey], float] = {}

    async def body(self, provider: Provider, live: NativeLive) -> bytes | None:
        """Return what the exchange would answer, as its stream says; None while nobody polls it, or it is silent."""
        asked = (provider.name, live.key)
        feed = self._supervisors[provider.name].native
        if not self._polls.note(asked, self._timing.least_kept_s, partial(self._begin, asked, feed)):
            return None
        loop = asyncio.get_running_loop()
        while (heard := feed.newest(live.key)) is None and loop.time() < self._awaited.get(asked, 0.0):  # noqa: ASYNC110
            # It ends by time, too.
            await asyncio.sleep(LOOK_S)
        if heard is None or loop.time() - heard.at > self._fresh_s:
            return None
        return provider.live_body(live, heard.content)

    def _begin(self, asked: tuple[str, StreamKey], feed: NativeFeed) -> End | None:
        if not feed.follow(asked[1]):
            return None
        self._awaited[asked] = asyncio.get_running_loop().time() + self._timing.first_answer_s
        self._counts.live_series += 1
        return partial(self._end, asked, feed)

    def _end(self, asked: tuple[str, StreamKey], feed: NativeFeed) -> None:
        del self._awaited[asked]
        self._counts.live_series -= 1
        feed.let_go(asked[1])

    def close(self) -> None:
        """Let all streams go."""
        self._polls.close()
