"""The streams that an application follows: what to ask the relay, and what of its answers the application is told.

No I/O and no clock: the time is passed in, in monotonic seconds.
"""

import math
from collections.abc import Iterable, Iterator
from typing import Any

import orjson

from relay.client.backoff import Backoff
from relay.client.decoding import Acceptance, Refusal, Said
from relay.client.messages import Confirmed, Connected, Failure, Message, Snapshot, Update
from relay.client.names import folded
from relay.client.resume import Options, Progress
from relay.errors import Code
from relay.model import StreamKey

_STREAMS_PER_REQUEST = 100
# The relay takes frames up to 4,096 bytes; this leaves room for the options around the names.
_NAME_BYTES_PER_REQUEST = 3500
# Refusals of a stream that worked before which may end by themselves, for instance while a relay starts.
_PASSING = {Code.PROVIDER_UNAVAILABLE, Code.RATE_LIMITED, Code.TOO_MANY_SUBSCRIPTIONS, Code.INTERNAL}


class _Stream:
    def __init__(self, asked: StreamKey, options: Options) -> None:
        self.asked = asked
        self.key: StreamKey | None = None
        self.progress = Progress(asked.interval, options)
        self.failures = 0
        # When the relay is to be asked for it; infinity once it was.
        self.ask_at = 0.0

    @property
    def name(self) -> StreamKey:
        return self.key or self.asked


class Following:
    """Streams by name: canonical once the relay confirmed it, as asked until then.

    After `restart` everything is asked for again, each stream from where it stopped.
    """

    def __init__(self, backoff: Backoff, *, server_ahead_s: float) -> None:
        self._backoff = backoff
        self._server_ahead_s = server_ahead_s
        self._streams: dict[StreamKey, _Stream] = {}
        self._requests: dict[int, list[_Stream]] = {}
        self._last_id = 0
        self.due_at = math.inf
        """When `next_request` is worth a call; it is looked at for every message, so it is kept."""

    @property
    def names(self) -> tuple[StreamKey, ...]:
        """The streams, in no order that means anything."""
        return tuple(self._streams)

    def follow(self, keys: Iterable[StreamKey], options: Options) -> None:
        """Ask for streams, or for others options of streams that are followed already."""
        for key in keys:
            stream = self._find(key)
            if stream is None:
                self._streams[key] = _Stream(key, options)
            else:
                stream.progress.options = options
                stream.ask_at = 0.0
            self.due_at = 0.0

    def leave(self, keys: Iterable[StreamKey]) -> dict[StreamKey, StreamKey]:
        """Forget streams. Returns, by the names under which they were told of, those by which they were asked for."""
        found = [stream for stream in map(self._find, keys) if stream is not None]
        for stream in found:
            self._streams.pop(stream.name, None)
        return {stream.name: stream.asked for stream in found}

    def restart(self) -> None:
        """Begin anew with a new connection, which knows of nothing."""
        self._requests.clear()
        self.due_at = 0.0
        for stream in self._streams.values():
            stream.ask_at = 0.0

    def next_request(self, now: float) -> dict[str, Any] | None:
        """Return a subscribe that is due, None if there is none. It counts as asked: send it."""
        if now < self.due_at:
            return None
        due = [stream for stream in self._streams.values() if stream.ask_at <= now]
        if not due:
            self.due_at = min((stream.ask_at for stream in self._streams.values()), default=math.inf)
            return None
        options = due[0].progress.request()
        # A name with a provider is confirmed under another one, so it goes alone and its id tells it.
        fits = [one for one in due if ":" not in one.asked.symbol and one.progress.request() == options]
        batch = due[:1] if ":" in due[0].asked.symbol else next(_batches(fits))
        for stream in batch:
            stream.ask_at = math.inf
        self._last_id += 1
        self._requests[self._last_id] = batch
        names = [str(stream.asked) for stream in batch]
        return {"action": "subscribe", "streams": names, "id": self._last_id, **options}

    def take(self, said: Said, now: float) -> list[Message]:
        """Return what the application is to be told."""
        match said:
            case Update():
                stream = self._told_of(said.key)
                return [said] if stream is not None and stream.progress.take_update(said) else []
            case Snapshot():
                stream = self._told_of(said.key)
                return [] if stream is None else stream.progress.take_snapshot(said, self._server_time(now))
            case Connected():
                self._server_ahead_s = said.server_time - now
                return [said]
            case Acceptance():
                return self._take_acceptance(said, now)
            case Refusal():
                return self._take_refusal(said, now)
            case _:
                return [] if self._told_of(said.key) is None else [said]

    def _take_acceptance(self, said: Acceptance, now: float) -> list[Message]:
        if said.action == "subscribe":
            stream = self._asked(said.request_id, said.key)
            if stream is None or self._streams.get(stream.name) is not stream:
                return []
            del self._streams[stream.name]
            known = self._streams.get(said.key)
            if known is not None:
                # Two spellings of one stream: the later request replaces the options, what was seen stays seen.
                known.progress.options, stream = stream.progress.options, known
            self._streams[said.key] = stream
            stream.key = said.key
            stream.failures = 0
            stream.progress.confirm(self._server_time(now))
        return [Confirmed(said.key, said.action, said.wire)]

    def _take_refusal(self, said: Refusal, now: float) -> list[Message]:
        if said.key is not None:
            stream = self._asked(said.request_id, said.key)
            refused = [stream] if stream else []
        else:
            refused = self._requests.pop(said.request_id, []) if said.request_id is not None else []
        refused = [stream for stream in refused if self._streams.get(stream.name) is stream]
        if not refused:
            return [Failure(said.code, said.message, None, False, said.wire)]
        wait_s = max(said.retry_after_s, self._backoff.wait_s(refused[0].failures))
        found: list[Message] = []
        for stream in refused:
            is_retried = said.code == Code.RATE_LIMITED or (stream.progress.was_confirmed and said.code in _PASSING)
            if is_retried:
                stream.ask_at = now + wait_s
                stream.failures += 1
                self.due_at = min(self.due_at, stream.ask_at)
            else:
                del self._streams[stream.name]
            found.append(Failure(said.code, said.message, stream.name, is_retried, said.wire))
        return found

    def _find(self, key: StreamKey) -> _Stream | None:
        """Return the stream that goes by this name, the canonical one or the one it was asked by."""
        return self._streams.get(key) or next((s for s in self._streams.values() if s.asked == key), None)

    def _told_of(self, key: StreamKey) -> _Stream | None:
        # Until the confirmation, messages are those of a subscription that was left.
        stream = self._streams.get(key)
        return stream if stream is not None and stream.key is not None else None

    def _asked(self, request_id: int | None, key: StreamKey) -> _Stream | None:
        """Take the stream that an answer is about from its request; by name, or because it is the only one left."""
        if request_id is None or request_id not in self._requests:
            return None
        left = self._requests[request_id]
        found = next((stream for stream in left if folded(stream.asked) == folded(key)), None)
        if found is None and len(left) == 1:
            found = left[0]
        if found is not None:
            left.remove(found)
            if not left:
                del self._requests[request_id]
        return found

    def _server_time(self, now: float) -> int:
        return int(now + self._server_ahead_s)


def unsubscribes(names: Iterable[StreamKey]) -> Iterator[dict[str, Any]]:
    """Yield the requests that end streams."""
    for batch in _batches([_Stream(name, Options()) for name in names]):
        yield {"action": "unsubscribe", "streams": [str(stream.asked) for stream in batch]}


def _batches(streams: Iterable[_Stream]) -> Iterator[list[_Stream]]:
    """Divide streams so that each frame is one that the relay takes."""
    batch: list[_Stream] = []
    size = 0
    for stream in streams:
        length = len(orjson.dumps(str(stream.asked))) + 1
        if batch and (size + length > _NAME_BYTES_PER_REQUEST or len(batch) == _STREAMS_PER_REQUEST):
            yield batch
            batch, size = [], 0
        batch.append(stream)
        size += length
    if batch:
        yield batch
