"""Answers of the exchange that are asked for again and again, such as order books: taken from its own live streams."""

import asyncio
import re
from collections import OrderedDict
from functools import partial

from relay.core.model import NativeAnswer, NativeLive, StreamKey
from relay.plugins.provider import Provider
from relay.supervision.native_feed import NativeFeed
from relay.web.facade_counts import FacadeCounts
from relay.web.facades.facade import FacadeParts
from relay.web.facades.polls import MOST_SEEN, End, Polls

LOOK_S = 0.02
_NUMBER = re.compile(rb'"lastUpdateId":\s*(\d{1,19})\b')

_Asked = tuple[str, StreamKey]


class PolledAnswers:
    """Answers by what a stream said at most `fresh_s` ago; None leaves it to the exchange.

    A stream may be late, or come from another server of the exchange's than the last answer: it is not believed until
    it has come as far as that.
    """

    def __init__(self, parts: FacadeParts, counts: FacadeCounts, fresh_s: float) -> None:
        self._supervisors = parts.supervisors
        self._timing = parts.timing
        self._counts = counts
        self._fresh_s = fresh_s
        self._polls: Polls[_Asked] = Polls()
        # Until when the first word of a stream is waited for that has just begun.
        self._awaited: dict[_Asked, float] = {}
        self._given: OrderedDict[_Asked, int] = OrderedDict()

    async def body(self, provider: Provider, live: NativeLive) -> bytes | None:
        """Return what the exchange would answer, as its stream says; None while nobody polls it, or it is silent."""
        asked = (provider.name, live.key)
        feed = self._supervisors[provider.name].native
        if not self._polls.note(asked, self._timing.least_kept_s, partial(self._begin, asked, feed)):
            return None
        loop = asyncio.get_running_loop()
        while (heard := feed.newest(live.key)) is None and loop.time() < self._awaited.get(asked, 0.0):
            if feed.is_pausing:
                return None
            await asyncio.sleep(LOOK_S)
        if heard is None or loop.time() - heard.at > self._fresh_s:
            return None
        body = provider.live_body(live, heard.content)
        if body is None or (number := _number(body)) < self._given.get(asked, number):
            return None
        self._give(asked, number)
        return body

    def note(self, provider: Provider, live: NativeLive, answer: NativeAnswer) -> None:
        """Note what the exchange answered itself. That holds, also if its numbers began anew."""
        if answer.status == 200:
            self._give((provider.name, live.key), _number(answer.body))

    def is_passed(self, provider: Provider, live: NativeLive, answer: NativeAnswer) -> bool:
        """Say whether a newer answer than this one was given."""
        return answer.status == 200 and _number(answer.body) < self._given.get((provider.name, live.key), 0)

    def _give(self, asked: _Asked, number: int) -> None:
        self._given[asked] = number
        self._given.move_to_end(asked)
        if len(self._given) > MOST_SEEN:
            self._given.popitem(last=False)

    def _begin(self, asked: _Asked, feed: NativeFeed) -> End | None:
        if not feed.follow(asked[1]):
            return None
        self._awaited[asked] = asyncio.get_running_loop().time() + self._timing.first_answer_s
        self._counts.live_series += 1
        return partial(self._end, asked, feed)

    def _end(self, asked: _Asked, feed: NativeFeed) -> None:
        del self._awaited[asked]
        self._counts.live_series -= 1
        feed.let_go(asked[1])

    def close(self) -> None:
        """Let all streams go."""
        self._polls.close()


def _number(body: bytes) -> int:
    """Return which state of a book an answer is, 0 if it does not say."""
    found = _NUMBER.search(body)
    return 0 if found is None else int(found[1])
