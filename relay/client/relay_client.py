"""The client as applications see it: puts connection, followed streams and requests together."""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Coroutine, Sequence
from types import TracebackType
from typing import Any, Self

import aiohttp
from yarl import URL

from relay.client import arguments
from relay.client.answers import (
    History,
    ListedInstrument,
    read_history,
    read_instruments,
    read_status,
    read_symbols,
)
from relay.client.backoff import Backoff
from relay.client.connection import RelayConnection
from relay.client.errors import ClientClosed, Disconnected
from relay.client.http import Http
from relay.client.inbox import Inbox
from relay.client.messages import Message
from relay.client.parsing import DEFAULT_URL, parse_stream
from relay.client.relays import Relays
from relay.client.rotation import Rotation
from relay.client.subscriptions import FollowedStreams
from relay.core.model import StreamKey


class RelayClient:
    """A connection to a relay; an async context manager and an async iterable of `Message`.

    `url` may be a list of relays that serve the same, with one token for all. The client begins with any of them, so
    that many clients spread, or `in_order` with the first. When a relay fails, refuses, says nothing or shuts down, the
    client goes on at the next one, each stream where it stopped, and stays there. After a round without success it
    pauses.

    The WebSocket opens with the first iteration; REST alone never opens it. From then on a task of the client keeps
    it open until `close`, also without a reader: a reader may be cancelled, and several may share the client; each
    message goes to one of them. Unread messages are kept, but only the newest one of an open candle. At more than
    `most_unread` messages, or `most_unread_bytes` of data, the connection is closed, and resumed when all are read.

    Before the first connection a failure is raised as `ClientError` to all who wait, unless `waits_for_relay`; after
    it the client reconnects. Pauses between attempts are `backoff_s` (shortest, longest) with jitter, and at least as
    long as the relay asks for; iterating again after an error waits as well. Raises `Refused` if a token is not valid
    any more, and `Disconnected` on 4001 and 4003, which closes the client. The client uses connector, headers and
    cookies of a `session` argument, and does not close it. It never follows redirects.
    With `trust_env` its own connections use the proxies of HTTP_PROXY, HTTPS_PROXY and NO_PROXY in the environment,
    unless the relay is on this machine.

    `timeout_s` limits a REST request, at all relays together, and, up to 10 s, a handshake. If a connection is silent
    for `heartbeat_s`, the client sends a ping; without an answer in half that time the connection is lost. A closed
    client raises `ClientClosed` in every method. Invalid arguments raise `BadArgument` at the call.
    """

    def __init__(
        self,
        url: str | Sequence[str] = DEFAULT_URL,
        token: str | None = None,
        *,
        in_order: bool = False,
        session: aiohttp.ClientSession | None = None,
        waits_for_relay: bool = False,
        trust_env: bool = False,
        backoff_s: tuple[float, float] = (1.0, 30.0),
        timeout_s: float = 30.0,
        heartbeat_s: float = 20.0,
        most_unread: int = 20_000,
        most_unread_bytes: int = 64 * 1024 * 1024,
        jitter: random.Random | None = None,
    ) -> None:
        self.urls = arguments.urls(url)
        arguments.instance("session", session, aiohttp.ClientSession)
        arguments.instance("jitter", jitter, random.Random)
        arguments.flag("waits_for_relay", waits_for_relay)
        proxies = [arguments.proxies(trust_env, one) for one in self.urls]
        timeout_s, heartbeat_s = (
            arguments.seconds("timeout_s", timeout_s),
            arguments.seconds("heartbeat_s", heartbeat_s),
        )
        jitter = jitter or random.Random()
        backoff = Backoff(*arguments.seconds_from_to("backoff_s", backoff_s), jitter)
        first = 0 if arguments.flag("in_order", in_order) or len(self.urls) == 1 else jitter.randrange(len(self.urls))
        https = [
            Http(one, token, session, timeout_s, heartbeat_s, way) for one, way in zip(self.urls, proxies, strict=True)
        ]
        self._relays = Relays(https, timeout_s, first)
        self._following = FollowedStreams(backoff, server_ahead_s=time.time() - time.monotonic())
        self._inbox = Inbox(
            arguments.count("most_unread", most_unread), arguments.count("most_unread_bytes", most_unread_bytes)
        )
        self._connection = RelayConnection(
            self._relays,
            Rotation(len(https), backoff, first),
            backoff,
            self._following,
            self._inbox,
            waits_for_relay=waits_for_relay,
        )
        self._keeper: asyncio.Task[None] | None = None
        self._is_closed = False

    @property
    def url(self) -> URL:
        """The address of the relay that was reached last; of the one that is asked first until then."""
        return self._relays.url

    @property
    def streams(self) -> tuple[StreamKey, ...]:
        """The streams subscribed to and not refused; canonical names where the relay confirmed them."""
        return self._following.names

    @property
    def is_closed(self) -> bool:
        """Whether it was closed, and can be used no more."""
        return self._is_closed

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connection; an iteration under way ends, and what was not read is dropped."""
        self._is_closed = True
        self._inbox.clear()
        self._inbox.wake()
        if self._keeper is not None:
            self._keeper.cancel()
            # Waits without raising what it ended with.
            await asyncio.gather(self._keeper, return_exceptions=True)
        await self._relays.close()

    # -- streams ----------------------------------------------------------------------------------------------------

    async def subscribe(
        self,
        *streams: str | StreamKey,
        bars: int | None = None,
        since: int | None = None,
        throttle_ms: int | None = None,
        closed_only: bool = False,
        extended: bool = False,
    ) -> None:
        """Follow streams (`BTCUSDT@1m`) from now on, through reconnects. The answers come with the iteration.

        First come `bars` (0 to 5,000) past candles, or all that opened later than `since`, the open time (Unix seconds)
        of the last closed candle that is known. `throttle_ms` (0 to 60,000) is the shortest time between updates of an
        open candle; `closed_only` leaves them out. With `extended` candles are `ExtendedCandle`: they also have
        `quote_volume`, `trades`, `taker_volume` and `taker_quote_volume`, None if not known.

        Does not wait for the answers and opens no connection. A refused stream becomes a `Failure` and is forgotten.
        Subscribing again replaces the options; what was delivered is not delivered again. Raises `BadArgument`, and
        then follows none, and `ClientClosed`.
        """
        self._check_open()
        options = arguments.options(
            bars=bars, since=since, throttle_ms=throttle_ms, closed_only=closed_only, extended=extended
        )
        self._following.follow(list(map(parse_stream, streams)), options)
        await self._connection.ask()

    async def unsubscribe(self, *streams: str | StreamKey) -> None:
        """Stop following streams; nothing of them comes after this returns, except the relay's confirmation.

        Any name that was used to subscribe is valid. Raises `BadArgument`, and then leaves none, and `ClientClosed`.
        """
        self._check_open()
        self._inbox.forget(self._following.leave(list(map(parse_stream, streams))))
        await self._connection.ask()

    def __aiter__(self) -> AsyncIterator[Message]:
        self._check_open()
        return _Iteration(self)

    def __anext__(self) -> Coroutine[Any, Any, Message]:
        """Return the next message. Raises `ClientError`; `ClientClosed` also where it is closed meanwhile."""
        return self._next(ClientClosed)

    async def _next(self, at_end: type[Exception]) -> Message:
        """Return the next message; raises `at_end` once the client is closed, and `ClientError`."""
        keeper = self._keeper
        while not self._inbox:
            if keeper is not None and keeper.done() and not keeper.cancelled():
                await self._tell_end(keeper)
            if self._is_closed:
                raise at_end
            if keeper is None or keeper.done():
                keeper = self._keeper = asyncio.create_task(self._connection.run(), name="relay client")
                keeper.add_done_callback(lambda _: self._inbox.wake())
            await self._inbox.changed()
        return self._inbox.pop()

    async def _tell_end(self, keeper: asyncio.Task[None]) -> None:
        """Raise what ended the task, to everybody who waited for it; whoever comes later begins anew."""
        if self._keeper is keeper:
            self._keeper = None
        try:
            keeper.result()
        except Disconnected:
            await self.close()
            raise

    def _check_open(self) -> None:
        if self._is_closed:
            raise ClientClosed

    # -- REST -------------------------------------------------------------------------------------------------------

    async def history(
        self,
        symbol: str,
        interval: str,
        *,
        start_time: int | None = None,
        end_time: int | None = None,
        limit: int | None = None,
        extended: bool = False,
        wait_s: int | None = None,
    ) -> History:
        """Return candles with `start_time` ≤ open time ≤ `end_time` (Unix seconds), oldest first, at most `limit`.

        With a `start_time` the first of them, else the last. `extended` is as for `subscribe`. With `wait_s` (0 to 60)
        the relay answers after about so many seconds at the latest with what it knows, `is_complete` false; the time
        limit of the client begins then. Raises `ClientError`.
        """
        asked = arguments.history_range(
            symbol, interval, start_time=start_time, end_time=end_time, limit=limit, extended=extended, wait_s=wait_s
        )
        return await self._relays.get("history", asked, read_history, wait_s=wait_s or 0)

    async def symbols(self, asset_class: str | None = None) -> list[str]:
        """Return what can be streamed, sorted. Raises `ClientError`."""
        return await self._relays.get("symbols", _of_class(asset_class), read_symbols)

    async def instruments(
        self,
        asset_class: str | None = None,
        *,
        provider: str | None = None,
        search: str | None = None,
        limit: int | None = None,
    ) -> list[ListedInstrument]:
        """Return what can be streamed, with details, sorted by symbol. Raises `ClientError`.

        With `search` those that have all its words in symbol, name, base or quote, the best first, 100 if no `limit`
        (up to 5,000) is given.
        """
        asked = arguments.instruments_wanted(asset_class, provider=provider, search=search, limit=limit)
        return await self._relays.get("instruments", asked, read_instruments)

    async def status(self) -> dict[str, Any]:
        """Return the status of the relay; keys may be missing, and new ones may come. Raises `ClientError`."""
        return await self._relays.get("status", {}, read_status)


def _of_class(asset_class: str | None) -> dict[str, str]:
    return {} if asset_class is None else {"asset_class": arguments.text("asset_class", asset_class)}


class _Iteration(AsyncIterator[Message]):
    """One `async for`: it ends when the client is closed meanwhile."""

    def __init__(self, client: RelayClient) -> None:
        self._client = client

    def __anext__(self) -> Coroutine[Any, Any, Message]:
        return self._client._next(StopAsyncIteration)
