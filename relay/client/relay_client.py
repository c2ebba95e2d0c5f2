"""The client as applications see it: puts connection, followed streams and requests together."""

import random
import time
from collections import deque
from types import TracebackType
from typing import Any, Self

import aiohttp

from relay.client.answers import (
    History,
    ListedInstrument,
    read_history,
    read_instruments,
    read_status,
    read_symbols,
)
from relay.client.backoff import Backoff
from relay.client.connection import Connection
from relay.client.decoding import Unreadable, decode
from relay.client.errors import Disconnected
from relay.client.following import Following
from relay.client.http import Http
from relay.client.messages import Lost, Message, Snapshot, Update
from relay.client.names import DEFAULT_URL, parse_stream, parse_url
from relay.client.resume import Options
from relay.model import StreamKey


class RelayClient:
    """A connection to one relay; an async context manager and an async iterator of `Message`.

    The WebSocket opens with the first iteration; REST alone never opens it. There is no task behind it: whoever
    iterates reads the socket. One who stops reading for long is disconnected by the relay and resumes with the next
    iteration. Before the first connection a failure is raised as `ClientError`, unless `waits_for_relay`; after it
    the client reconnects, waiting `backoff_s` (least, most) with jitter. Raises `Refused` for a token no longer
    valid and `Disconnected` on 4001 and 4003. Of a `session` given, connector, headers and cookies are used; it is not
    closed. Redirects are never followed.
    """

    def __init__(
        self,
        url: str = DEFAULT_URL,
        token: str | None = None,
        *,
        session: aiohttp.ClientSession | None = None,
        waits_for_relay: bool = False,
        backoff_s: tuple[float, float] = (1.0, 30.0),
        timeout_s: float = 30.0,
        jitter: random.Random | None = None,
    ) -> None:
        self.url = parse_url(url)
        backoff = Backoff(*backoff_s, jitter or random.Random())
        self._http = Http(self.url, token, session, timeout_s)
        self._connection = Connection(self._http, backoff, waits_for_relay=waits_for_relay)
        self._following = Following(backoff, server_ahead_s=time.time() - time.monotonic())
        self._ready: deque[Message] = deque()

    @property
    def streams(self) -> tuple[StreamKey, ...]:
        """The streams subscribed to and not refused; canonical names where the relay confirmed them."""
        return self._following.names

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connection; an iteration under way ends."""
        await self._connection.end()
        await self._http.close()

    # -- streams ----------------------------------------------------------------------------------------------------

    async def subscribe(
        self,
        *streams: str | StreamKey,
        bars: int | None = None,
        since: int | None = None,
        throttle_ms: int | None = None,
        closed_only: bool = False,
    ) -> None:
        """Follow streams (`BTCUSDT@1m`) from now on, through reconnects. The answers come with the iteration.

        Does not wait for them and opens no connection. A stream refused is told as `Failure` and forgotten. Subscribing
        again replaces the options; what was delivered is not delivered again. With a malformed name it
        raises ValueError and follows none.
        """
        self._following.follow(list(map(parse_stream, streams)), Options(bars, since, throttle_ms, closed_only))
        await self._ask()

    async def unsubscribe(self, *streams: str | StreamKey) -> None:
        """Stop following streams; nothing of them comes after this returns, except the relay's confirmation."""
        left = self._following.leave(list(map(parse_stream, streams)))
        self._ready = deque(message for message in self._ready if getattr(message, "key", None) not in left)
        await self._ask()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Message:
        while not self._ready:
            if self._connection.is_ended:
                raise StopAsyncIteration
            if self._connection.is_open:
                await self._read()
            else:
                await self._connect()
        return self._ready.popleft()

    async def _connect(self) -> None:
        lost = await self._connection.open()
        if lost is not None:
            self._ready.append(lost)
        elif self._connection.is_open:
            self._following.restart()

    async def _read(self) -> None:
        await self._ask()
        try:
            heard = await self._connection.receive(self._following.due_at - time.monotonic())
        except Disconnected:
            await self.close()
            raise
        if isinstance(heard, Lost):
            self._ready.append(heard)
        elif heard is not None:
            self._take(heard)

    async def _ask(self) -> None:
        # One that is sent counts as asked, so a caller cancelled in between leaves the rest to the next one.
        while self._connection.is_open and (request := self._following.next_request(time.monotonic())) is not None:
            await self._connection.send(request)

    def _take(self, text: str) -> None:
        try:
            said = decode(text)
        except Unreadable:
            # Skipping it could lose a closed candle; a new connection brings it again.
            self._ready.append(self._connection.lose("the relay sent something unreadable"))
            return
        if said is None:
            return
        if isinstance(said, Update | Snapshot):
            self._connection.prove()
        self._ready.extend(self._following.take(said, time.monotonic()))

    # -- REST -------------------------------------------------------------------------------------------------------

    async def history(
        self,
        symbol: str,
        interval: str,
        *,
        start_time: int | None = None,
        end_time: int | None = None,
        limit: int | None = None,
    ) -> History:
        """Return candles; times are Unix seconds on open time, both inclusive. Raises `ClientError`."""
        asked = {"symbol": symbol, "interval": interval, "start_time": start_time, "end_time": end_time, "limit": limit}
        return await self._http.get("history", asked, read_history)

    async def symbols(self, asset_class: str | None = None) -> list[str]:
        """Return what can be streamed, sorted. Raises `ClientError`."""
        return await self._http.get("symbols", {"asset_class": asset_class}, read_symbols)

    async def instruments(self, asset_class: str | None = None) -> list[ListedInstrument]:
        """Return what can be streamed, with details. Raises `ClientError`."""
        return await self._http.get("instruments", {"asset_class": asset_class}, read_instruments)

    async def status(self) -> dict[str, Any]:
        """Return what the relay says about itself; keys may be missing and new ones come. Raises `ClientError`."""
        return await self._http.get("status", {}, read_status)
