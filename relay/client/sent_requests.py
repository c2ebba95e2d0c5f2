"""Requests of one connection that wait for answers: which stream an answer is about, and how much one may name."""

import math
from collections.abc import Iterable
from itertools import accumulate, islice, takewhile
from typing import Any, Literal, NamedTuple

import orjson

from relay.client.followed_stream import FollowedStream
from relay.client.parsing import folded
from relay.core.model import StreamKey
from relay.protocol.symbol_names import without_pin

_STREAMS_PER_REQUEST = 100
# The relay takes frames up to 4,096 bytes; this leaves room for the options around the names.
_NAME_BYTES_PER_REQUEST = 3500


class SentRequest(NamedTuple):
    """What was asked, and the streams whose answers are still to come."""

    kind: Literal["subscribe", "unsubscribe", "renew", "repair"]
    unanswered: list[FollowedStream]


class SentRequests:
    """Requests by their `id`, which goes on counting over all connections."""

    def __init__(self) -> None:
        self._sent: dict[int, SentRequest] = {}
        self._last_id = 0

    def clear(self) -> None:
        """Wait for no answer: the connection is another one."""
        self._sent.clear()

    def get(self, request_id: int | None) -> SentRequest | None:
        """Return a request that waits for answers."""
        return self._sent.get(request_id or 0)

    def drop(self, request_id: int | None) -> None:
        """Wait for no more answers to a request."""
        self._sent.pop(request_id or 0, None)

    def send(
        self,
        kind: Literal["subscribe", "unsubscribe", "renew", "repair"],
        streams: list[FollowedStream],
        options: dict[str, Any],
    ) -> dict[str, Any]:
        """Return a request as the relay takes it; it counts as sent."""
        for stream in streams:
            stream.ask_at = math.inf
            stream.is_asked = True
        self._last_id += 1
        if kind in ("subscribe", "repair"):
            for stream in streams:
                stream.asked_id = self._last_id
        self._sent[self._last_id] = SentRequest(kind, streams)
        return {
            "action": "unsubscribe" if kind in ("unsubscribe", "renew") else "subscribe",
            "streams": [str(stream.asked) for stream in streams],
            "id": self._last_id,
            **options,
        }

    def pop(self, request_id: int | None, key: StreamKey) -> FollowedStream | None:
        """Take the stream that an answer is about from its request; by name, or because it is the only one left."""
        if request_id is None or request_id not in self._sent:
            return None
        left, spelled = self._sent[request_id].unanswered, folded(key)
        found = next((stream for stream in left if stream.asked == spelled), None)
        found = found or next((stream for stream in left if _differs_in_pin(stream.asked, spelled)), None)
        if found is None and len(left) == 1:
            found = left[0]
        if found is not None:
            left.remove(found)
            if not left:
                del self._sent[request_id]
        return found


def room(streams: Iterable[FollowedStream]) -> int:
    """Return how many of the first streams fit into one frame that the relay takes; one at least."""
    lengths = (len(orjson.dumps(str(stream.asked))) + 1 for stream in streams)
    fitting = takewhile(lambda size: size <= _NAME_BYTES_PER_REQUEST, accumulate(lengths))
    return max(1, sum(1 for _ in islice(fitting, _STREAMS_PER_REQUEST)))


def _differs_in_pin(one: StreamKey, other: StreamKey) -> bool:
    """Say whether one name is the other without its provider: a relay may confirm either as the other.

    Symbols may have colons too; what is before the first one is a provider only if it can be the name of one.
    """
    is_same = without_pin(one.symbol) == other.symbol or without_pin(other.symbol) == one.symbol
    return one.interval == other.interval and is_same
