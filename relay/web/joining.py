"""One subscription from its request until the stream is joined: what of the past it wants, fetched and cut to fit."""

import asyncio

from relay import requests, snapshot, wire
from relay.directory import Target
from relay.errors import RequestError
from relay.history import History
from relay.hub import Hub
from relay.limits import TokenBucket
from relay.model import StreamKey
from relay.ranges import Past as Answer
from relay.stream import CONNECTED, Stream, Subscriber
from relay.web.access import Access, Caller, check_rows, rows_limit

MOST_ROUNDS = 3

Identity = tuple[str, StreamKey]


class Rows:
    """How many candles of the past one client may have, and with it all clients of its token or address."""

    __slots__ = ("_access", "_bucket", "caller")

    def __init__(self, access: Access, caller: Caller) -> None:
        self._access = access
        self.caller = caller
        self._bucket = TokenBucket(*rows_limit(access.config.max_history_rows_per_minute))

    def check(self) -> None:
        """Refuse when either had its share. Raises `RequestError`."""
        check_rows(self._bucket, self._access.config.max_history_rows_per_minute, "one client")
        self._access.check_rows(self.caller)

    def spend(self, rows: int) -> None:
        """Count candles that were fetched."""
        self._bucket.spend(rows)
        self._access.spend_rows(self.caller, rows)

    def set_limit(self) -> None:
        """Go by the limit that is in force now."""
        self._bucket.set_limit(*rows_limit(self._access.config.max_history_rows_per_minute))


class Joining:
    """A subscription on its way: the requests it answers, and what the newest of them wants."""

    __slots__ = ("ids", "options", "past", "target")

    def __init__(self, target: Target, request: requests.Request) -> None:
        self.target = target
        self.ids = [request.id]
        self.options = request.options
        self.past = request.past

    @property
    def identity(self) -> Identity:
        """The stream's place in the hub."""
        return self.target.provider.name, self.target.key

    def replace(self, request: requests.Request) -> None:
        """Take what a later request for the same stream wants instead."""
        self.ids.append(request.id)
        self.options = request.options
        if request.past != requests.Past():
            self.past = request.past

    async def fetch(self, hub: Hub, history: History, subscriber: Subscriber, rows: Rows) -> Answer:
        """Fetch the past, again if a later request wants another. Raises `RequestError` when there were too many rows.

        Waits until a slow reader has taken what it was sent: snapshots are large and must not pile up.
        """
        while True:
            while subscriber.outbox.is_lagging and subscriber in hub.subscribers:  # noqa: ASYNC110  timers drain it
                await asyncio.sleep(0.05)
            past = self.past
            answer = await self._fetch(hub, history, rows, self._with_open())
            if past == self.past:
                return answer

    async def _fetch(self, hub: Hub, history: History, rows: Rows, past: requests.Past) -> Answer:
        """Fetch the past, again where the stream went on too far meanwhile."""

        def find() -> Stream | None:
            return hub.streams.get(self.identity)

        for _ in range(MOST_ROUNDS):
            try:
                rows.check()
            except RequestError as error:
                error.symbol, error.interval = self.target.name, self.target.key.interval
                raise
            answer = await snapshot.fetch(
                history, self.target.provider, self.target.key, find, past, rows.caller.client
            )
            rows.spend(len(answer.candles))
            stream = find()
            if stream is None or snapshot.covers(answer, stream.series, past):
                return answer
        return snapshot.outrun(answer)

    def _with_open(self) -> requests.Past:
        """Ask for one candle more where the open one is left out."""
        past = self.past
        return past._replace(bars=past.bars + 1) if past.bars and self.options.closed_only else past

    def cut(self, hub: Hub, stream: Stream, answer: Answer, before: int | None) -> snapshot.Snapshot:
        """Return what is sent first; who wants closed candles only gets no open one here either."""
        cut = snapshot.cut(hub, stream, answer, self._with_open(), before)
        if not self.options.closed_only:
            return cut
        candles = list(cut.candles) if cut.last_is_closed else list(cut.candles[:-1])
        bars = self.past.bars
        if bars is not None:
            candles = candles[-bars:] if bars else []
        return cut._replace(candles=candles, last_is_closed=True)

    def frames(self, stream: Stream, past: snapshot.Snapshot | None, *, is_new: bool) -> list[bytes]:
        """Encode the confirmations, the state, and the past or else the last known candle of a new stream."""
        name, interval = self.target.name, self.target.key.interval
        provider = stream.provider
        frames = [
            wire.subscription("subscribe", name, interval, request_id, provider=provider) for request_id in self.ids
        ]
        if stream.status != CONNECTED:
            frames.append(stream.state_frame())
        if past is not None:
            frames += [
                wire.gap(name, interval, gap.start, gap.end, "the provider's history could not give it")
                for gap in past.gaps
            ]
            frames.append(
                wire.snapshot(
                    name,
                    interval,
                    past.candles,
                    provider=provider,
                    last_is_closed=past.last_is_closed,
                    complete=past.is_complete,
                    seq=stream.seq,
                )
            )
        elif is_new and (frame := stream.last_frame_for(self.options)) is not None:
            frames.append(frame)
        return frames
