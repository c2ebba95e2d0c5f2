"""The streams that an application follows: what to ask the relay, and what of its answers the application is told.

No I/O and no clock: the time is passed in, in monotonic seconds.
"""

import math
from collections.abc import Iterable
from typing import Any

from relay.client.backoff import Backoff
from relay.client.decoding import Acceptance, RefusedRequest, Said
from relay.client.followed_stream import FollowedStream
from relay.client.messages import Confirmed, Connected, Failure, Gap, Message, Outdated, Snapshot, State, Update
from relay.client.parsing import folded
from relay.client.resume import StreamOptions
from relay.client.sent_requests import SentRequests, room
from relay.core.errors import Code
from relay.core.model import StreamKey

_REPAIR_S, _MOST_REPAIR_S = 30.0, 600.0
_MOST_REPAIRS = 12
# A stream that was confirmed once exists, so its refusal passes, for instance once a relay that starts has its lists;
# but for these, which are about what was asked: asked again it would be refused again.
_FOR_GOOD = {Code.INVALID_JSON, Code.INVALID_REQUEST, Code.UNKNOWN_ACTION}


class FollowedStreams:
    """Streams by name: canonical once the relay confirmed it, as asked until then.

    Two names of one stream are two streams until the relay confirmed both by the same one. From then on it is one
    stream, which goes by either.

    After `restart` everything is asked for again, each stream from where it stopped.
    """

    def __init__(self, backoff: Backoff, *, server_ahead_s: float) -> None:
        self._backoff = backoff
        self._server_ahead_s = server_ahead_s
        self._streams: dict[StreamKey, FollowedStream] = {}
        self._by_spelling: dict[StreamKey, FollowedStream] = {}
        self._leaving: list[FollowedStream] = []
        self._requests = SentRequests()
        self._relay = 0
        self._store: str | None = None
        self.due_at = math.inf
        """When `next_request` is worth a call; it is looked at for every message, so it is kept."""

    @property
    def names(self) -> tuple[StreamKey, ...]:
        """The streams, in no order that means anything."""
        return tuple(self._streams)

    def follow(self, keys: Iterable[StreamKey], options: StreamOptions) -> None:
        """Follow streams; one that is followed already gets these options."""
        for key in keys:
            stream = self._by_spelling.get(key)
            if stream is None:
                self._streams[key] = self._by_spelling[key] = stream = FollowedStream(key, options)
                stream.progress.relay, stream.progress.store = self._relay, self._store
            else:
                stream.progress.options = options
                stream.ask_at = 0.0
            self.due_at = 0.0

    def leave(self, keys: Iterable[StreamKey]) -> set[StreamKey]:
        """Forget streams; the relay is told by the next request. Returns the names under which they were told of."""
        found = {stream.name: stream for key in keys if (stream := self._by_spelling.get(key)) is not None}
        for stream in found.values():
            self._forget(stream)
            if stream.is_asked:
                self._leave(stream, at=0.0)
        return set(found)

    def restart(self, relay: int = 0) -> None:
        """Begin anew with a new connection, which knows of nothing, to the relay of this number."""
        self._relay, self._store = relay, None
        self._requests.clear()
        self._leaving.clear()
        self.due_at = 0.0
        for stream in self._streams.values():
            stream.ask_at = 0.0
            stream.progress.relay, stream.progress.store = relay, None
            stream.progress.lose()
            stream.is_asked = stream.awaits_snapshot = False
            stream.is_repairing = stream.must_leave = stream.is_renewing = False

    def next_request(self, now: float) -> dict[str, Any] | None:
        """Return a request that is due, None if there is none. It counts as sent."""
        if now < self.due_at:
            return None
        # What was left and is followed again is wanted.
        self._leaving = [stream for stream in self._leaving if stream.asked not in self._by_spelling]
        if left := [stream for stream in self._leaving if stream.ask_at <= now]:
            batch = left[: room(left)]
            self._leaving = [stream for stream in self._leaving if stream not in batch]
            return self._requests.send("unsubscribe", batch, {})
        due = [stream for stream in self._streams.values() if stream.ask_at <= now]
        if renewed := [stream for stream in due if stream.must_leave]:
            return self._renewal(renewed[: room(renewed)])
        if not due:
            if (request := self._repair(now)) is None:
                waiting = (min(one.ask_at, one.repair_at) for one in (*self._streams.values(), *self._leaving))
                self.due_at = min(waiting, default=math.inf)
            return request
        server_time = self._server_time(now)
        options = due[0].progress.request(server_time)
        if due[0].is_pinned:
            # It is confirmed under another name, so it goes alone and its id tells it.
            return self._subscribe(due[:1], options)
        fits = [stream for stream in due if not stream.is_pinned and stream.progress.request(server_time) == options]
        return self._subscribe(fits[: room(fits)], options)

    def _subscribe(self, streams: list[FollowedStream], options: dict[str, Any]) -> dict[str, Any]:
        for stream in streams:
            stream.awaits_snapshot = "since" in options or "bars" in options
        return self._requests.send("subscribe", streams, options)

    def _renewal(self, streams: list[FollowedStream]) -> dict[str, Any]:
        request = self._requests.send("renew", streams, {})
        for stream in streams:
            stream.must_leave, stream.ask_at = False, 0.0
        return request

    def _repair(self, now: float) -> dict[str, Any] | None:
        """Ask for the gaps of a stream that it is time for."""
        for stream in self._streams.values():
            if stream.repair_at > now:
                continue
            stream.repair_at = math.inf
            options, gaps = stream.progress.request(), stream.progress.gaps
            if gaps and "since" in options and stream.is_asked and not stream.awaits_snapshot:
                request = self._requests.send("repair", [stream], {**options, "gaps": gaps})
                self._plan_repair(stream, now)
                return request
        return None

    def _plan_repair(self, stream: FollowedStream, now: float) -> None:
        # What so many questions did not bring may come with the next connection.
        if stream.progress.gaps and stream.repair_at == math.inf and stream.repairs < _MOST_REPAIRS:
            stream.repair_at = now + min(_MOST_REPAIR_S, _REPAIR_S * 2.0**stream.repairs)
            stream.repairs += 1
            self.due_at = min(self.due_at, stream.repair_at)

    def take(self, said: Said, now: float) -> list[Message]:
        """Return what the application is to be told."""
        match said:
            case Update():
                stream = self._told_of(said.key)
                if stream is None:
                    return []
                if stream.progress.take_update(said):
                    return [said]
                if stream.progress.is_in_doubt:
                    self._renew(stream)
                return []
            case Snapshot():
                stream = self._told_of(said.key)
                return [] if stream is None else self._take_snapshot(stream, said, now)
            case Connected():
                self._server_ahead_s = said.server_time - now
                self._learn_store(said.wire.get("store"))
                return [said]
            case Acceptance():
                return self._take_acceptance(said, now)
            case RefusedRequest():
                return self._take_refusal(said, now)
            case Gap():
                stream = self._told_of(said.key)
                if stream is None or (gap := stream.progress.take_gap(said)) is None:
                    return []
                self._plan_repair(stream, now)
                return [gap]
            case Outdated():
                stream = self._told_of(said.key)
                if stream is None:
                    return []
                stream.progress.take_outdated(said.start, said.before)
                return [said]
            case State():
                return [] if self._told_of(said.key) is None else [said]

    def _learn_store(self, store: object) -> None:
        self._store = store if isinstance(store, str) and store else None
        for stream in self._streams.values():
            stream.progress.store = self._store

    def _take_snapshot(self, stream: FollowedStream, said: Snapshot, now: float) -> list[Message]:
        if said.is_renewed and stream.progress.is_under_way:
            stream.progress.take_renewed(said)
            return [said]
        is_whole = not stream.is_repairing
        stream.is_repairing = stream.awaits_snapshot = False
        found = stream.progress.take_snapshot(said, self._server_time(now), is_whole=is_whole)
        if stream.progress.is_in_doubt:
            self._renew(stream)
        elif is_whole and stream.progress.gaps:
            # It may be another run of the relay, which knows nothing of them.
            stream.repair_at, stream.repairs = now, 0
            self.due_at = min(self.due_at, now)
        self._plan_repair(stream, now)
        return found

    def _renew(self, stream: FollowedStream) -> None:
        stream.is_renewing = stream.must_leave = True
        stream.progress.lose()
        stream.ask_at = self.due_at = 0.0

    def _take_acceptance(self, said: Acceptance, now: float) -> list[Message]:
        request = self._requests.get(said.request_id)
        stream = self._requests.pop(said.request_id, said.key)
        if request is not None and request.kind in ("renew", "repair"):
            # Of these the application knows nothing.
            if stream is not None and request.kind == "repair":
                stream.is_repairing = True
            return []
        if said.action == "subscribe":
            if stream is None or self._streams.get(stream.name) is not stream:
                return []
            stream = self._name(stream, said.key)
            stream.failures = 0
            stream.is_renewing = stream.is_repairing = False
            stream.progress.confirm(self._server_time(now))
            stream.progress.take_revision(said.wire.get("revision"))
        else:
            self._ask_again_if_left(said)
        return [Confirmed(said.key, said.action, said.wire)]

    def _name(self, stream: FollowedStream, key: StreamKey) -> FollowedStream:
        """Give a stream its canonical name; return the one that has it, perhaps another that is followed already."""
        known = self._by_spelling.get(folded(key), stream)
        # The canonical name may be another one than in an earlier run of the relay.
        self._forget(stream)
        if known is not stream:
            # Two spellings of one stream: the later request replaces the options, what was seen stays seen.
            self._forget(known)
            known.progress.options = stream.progress.options
            known.asked_by |= stream.asked_by
        known.key = key
        self._streams[key] = known
        self._by_spelling |= dict.fromkeys(known.spellings, known)
        return known

    def _ask_again_if_left(self, said: Acceptance) -> None:
        """Ask again for a stream that is followed and was ended by another of its names, not known to be one."""
        stream = self._by_spelling.get(folded(said.key))
        if stream is not None and stream.is_asked and stream.asked_id < (said.request_id or 0):
            stream.ask_at = self.due_at = 0.0

    def _take_refusal(self, said: RefusedRequest, now: float) -> list[Message]:
        request = self._requests.get(said.request_id)
        if said.key is not None:
            stream = self._requests.pop(said.request_id, said.key)
            meant = [] if stream is None else [stream]
        else:
            meant = [] if request is None else list(request.unanswered)
            self._requests.drop(said.request_id)
        if request is not None and request.kind in ("renew", "repair"):
            # Left or not, it is asked for anew; and gaps are asked for again.
            return []
        if request is not None and request.kind == "unsubscribe":
            # What was to be left and is not subscribed is what was wanted.
            for stream in meant if said.code == Code.RATE_LIMITED else []:
                self._leave(stream, at=now + max(said.retry_after_s, self._backoff.wait_s(0)))
            return []
        refused = [stream for stream in meant if self._streams.get(stream.name) is stream]
        if not refused:
            return [Failure(said.code, said.message, None, False, said.wire)]
        wait_s = max(said.retry_after_s, self._backoff.wait_s(refused[0].failures))
        found: list[Message] = []
        for stream in refused:
            is_retried = said.code == Code.RATE_LIMITED or (
                stream.progress.was_confirmed and said.code not in _FOR_GOOD
            )
            if is_retried:
                stream.ask_at = now + wait_s
                stream.failures += 1
                self.due_at = min(self.due_at, stream.ask_at)
            else:
                self._forget(stream)
            found.append(Failure(said.code, said.message, stream.name, is_retried, said.wire))
        return found

    def _forget(self, stream: FollowedStream) -> None:
        del self._streams[stream.name]
        for spelling in stream.spellings:
            self._by_spelling.pop(spelling, None)

    def _told_of(self, key: StreamKey) -> FollowedStream | None:
        # Until the confirmation, messages are those of a subscription that was left.
        stream = self._streams.get(key)
        return stream if stream is not None and stream.key is not None and not stream.is_renewing else None

    def _leave(self, stream: FollowedStream, *, at: float) -> None:
        stream.ask_at = at
        self._leaving.append(stream)
        self.due_at = min(self.due_at, at)

    def _server_time(self, now: float) -> int:
        return int(now + self._server_ahead_s)
