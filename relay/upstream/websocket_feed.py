"""The only upstream WebSocket loop: a venue supplies a codec (pure), this module does the I/O."""

import asyncio
import time
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import NamedTuple, TypeVar

import aiohttp

from relay.core.errors import AuthenticationFailed, BadAnswer, Flooded, ProviderError, ProviderUnavailable, RateLimited
from relay.core.model import NativeUpdate, PriceUpdate, StreamKey
from relay.core.past_change import PastChange
from relay.network.connector import TooLarge
from relay.network.http_sessions import CountedSocket, Redirected
from relay.network.outward_connector import ProxyFailed, way_to
from relay.upstream.codec import Accepted, Closing, FeedCodec, Rejected
from relay.upstream.rate_limit import Pace
from relay.upstream.rest import network_cause, retry_after_s
from relay.upstream.watchlist import Watchlist

BAN_S = 120.0
"""How long the shortest ban lasts (Binance documents two minutes to three days)."""
MOST_LATE = 1.5
"""A wait that took so many times longer than asked for judges nobody."""
_REASON_LENGTH = 4000
_MOST_AT_A_TIME = 100

_DATA = (aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.BINARY)
_HEARD = (*_DATA, aiohttp.WSMsgType.PING, aiohttp.WSMsgType.PONG)
_NO_SENSE = (ValueError, TypeError, LookupError, ArithmeticError, AttributeError, RecursionError)


class SocketLimits(NamedTuple):
    """How long one upstream WebSocket may take to open, to answer a ping and to close, and how large a message may be.

    `pong_timeout_s` is the last part of `ping_interval_s`: a ping is answered before the next one is due.
    """

    connect_timeout_s: float = 10.0
    ping_interval_s: float = 20.0
    pong_timeout_s: float = 10.0
    close_timeout_s: float = 2.0
    max_message_bytes: int = 1 << 20


SOCKET_LIMITS = SocketLimits()


_Value = TypeVar("_Value", PriceUpdate, NativeUpdate)


def websocket_feed(
    session: aiohttp.ClientSession, codec: FeedCodec, watchlist: Watchlist, *, limits: SocketLimits = SOCKET_LIMITS
) -> AsyncGenerator[PriceUpdate, None]:
    """Yield the updates of one upstream connection that carries all streams of the watchlist.

    Subscribes what the watchlist holds, then follows it; what was wished and withdrawn while a message waited for its
    turn is never sent. A stream that left the watchlist and came back is unsubscribed and subscribed again. Answers
    protocol pings, sends its own every 20 s and gives up on a silent peer after 10 s, unless `limits` say otherwise. Of
    what comes it takes a slice in each turn of the event loop, and a hundred messages at most.

    Returns when the upstream closes. Raises `ProviderUnavailable` when the connection cannot be opened or is lost,
    `AuthenticationFailed` when the upgrade is answered with 401, `RateLimited` when it is answered with 418, or 429 and
    a `Retry-After`, `BadAnswer` when the peer breaks the WebSocket protocol, `Flooded` when more than a thousand frames
    a second, and 20,000 at once, come without a value that `decode` returns.
    """
    return _values(session, codec, watchlist, limits, PriceUpdate)


def native_websocket_feed(
    session: aiohttp.ClientSession, codec: FeedCodec, watchlist: Watchlist, *, limits: SocketLimits = SOCKET_LIMITS
) -> AsyncGenerator[NativeUpdate, None]:
    """Yield what a venue's own streams say, for `relay_native_stream`; all else is as with `websocket_feed`.

    Raises `ProviderUnavailable`, `AuthenticationFailed`, `RateLimited`, `BadAnswer` and `Flooded`, as that does.
    """
    return _values(session, codec, watchlist, limits, NativeUpdate)


async def _values(
    session: aiohttp.ClientSession, codec: FeedCodec, watchlist: Watchlist, limits: SocketLimits, wanted: type[_Value]
) -> AsyncGenerator[_Value, None]:
    url = codec.url
    ws, way = await _connect(session, url, codec, limits), way_to(session, url)
    link = _Link(ws, codec, watchlist, limits, way)
    socket = ws if isinstance(ws, CountedSocket) else None
    if socket is not None:
        socket.has_judge = True
    try:
        link.start()
        while True:
            if not link.heard % _MOST_AT_A_TIME:
                # Messages that are there already are read without a turn of the loop.
                await asyncio.sleep(0)
            link.is_reading = True
            message = await ws.receive()
            link.is_reading = False
            kind = message.type
            if kind not in _HEARD:
                break
            link.heard += 1
            if kind not in _DATA:
                if kind is aiohttp.WSMsgType.PING:
                    link.owe_pong(message.data)
                continue
            try:
                # A codec may be written as a generator: it has to fail here, not where its values are used.
                decoded = tuple(codec.decode(message.data))
            except _NO_SENSE as error:
                watchlist.skip(f"{type(error).__name__}: {error}"[:_REASON_LENGTH])
                continue
            if decoded and socket is not None:
                socket.note_news(message.data)
            for value in decoded:
                if isinstance(value, wanted):
                    yield value
                elif isinstance(value, PriceUpdate | NativeUpdate):
                    watchlist.skip(f"a {type(value).__name__} is no {wanted.__name__}")
                else:
                    link.report(value)
        if socket is not None and socket.is_flooded:
            raise Flooded("too many frames without content arrived; the connection was closed")
        if not link.heard:
            codec.connect_failed(None)
        if kind is aiohttp.WSMsgType.ERROR:
            raise BadAnswer(f"the connection broke{way}: {message.data}")
        if kind is not aiohttp.WSMsgType.CLOSE:
            raise link.failure or ProviderUnavailable(f"the connection was lost{way}")
    finally:
        await link.stop()


async def _connect(
    session: aiohttp.ClientSession, url: str, codec: FeedCodec, limits: SocketLimits
) -> aiohttp.ClientWebSocketResponse:
    failure: ProviderError
    status: int | None = None
    try:
        async with asyncio.timeout(limits.connect_timeout_s):
            return await session.ws_connect(
                url,
                headers=codec.headers,
                autoping=False,
                max_msg_size=limits.max_message_bytes,
                timeout=aiohttp.ClientWSTimeout(ws_close=limits.close_timeout_s),
            )
    except aiohttp.WSServerHandshakeError as error:
        status = error.status
        # With TLS no proxy can answer.
        failure = _refusal(error, way_to(session, url) if url.startswith("ws:") else "")
    except Redirected as error:
        status = error.status
        failure = ProviderUnavailable(f"the connection was refused: {error}")
    except TooLarge as error:
        failure = BadAnswer(f"the connection was not opened: {error}")
    except (aiohttp.ClientError, OSError) as error:
        way = "" if isinstance(error, ProxyFailed) else way_to(session, url)
        failure = ProviderUnavailable(f"cannot connect{way}: {network_cause(error)}")
    codec.connect_failed(status)
    # Raised out here, since the original error names the address, which may hold a key.
    raise failure


def _refusal(error: aiohttp.WSServerHandshakeError, way: str) -> ProviderError:
    text = f"the connection was refused{way} with HTTP {error.status}"
    if error.status == 401:
        return AuthenticationFailed(text)
    if error.status in (418, 429):
        wait_s = retry_after_s(error.headers.get("Retry-After") if error.headers else None, time.time())
        if wait_s is None and error.status == 418:
            wait_s = BAN_S
        if wait_s is not None:
            return RateLimited(text, wait_s, by_provider=True)
        # Nobody says for how long: attempts with growing pauses stay far below any venue's limit of attempts.
    return ProviderUnavailable(text)


async def _close(ws: aiohttp.ClientWebSocketResponse, timeout_s: float) -> None:
    """Close without waiting for a peer that does not answer, or that goes on sending instead."""
    try:
        async with asyncio.timeout(timeout_s):
            await ws.close()
    except (TimeoutError, aiohttp.ClientError, OSError):
        pass


class _Link:
    """What runs beside the reader of one connection: subscriptions, pongs, pings, heartbeat. Only it writes."""

    def __init__(
        self,
        ws: aiohttp.ClientWebSocketResponse,
        codec: FeedCodec,
        watchlist: Watchlist,
        limits: SocketLimits,
        way: str,
    ) -> None:
        self._ws = ws
        self._codec = codec
        self._watchlist = watchlist
        self._limits = limits
        self._way = way
        self._pace = Pace(codec.messages_per_second)
        self._tasks: list[asyncio.Task[None]] = []
        self._carried: dict[StreamKey, int] = {}
        self._doubtful: deque[tuple[StreamKey, ...]] = deque()
        self._changes = asyncio.Event()
        self._pong: bytes | None = None
        self._pong_owed = asyncio.Event()
        self.heard = 0
        self.is_reading = False
        self.failure: Exception | None = None

    def start(self) -> None:
        """Start the tasks; the reader owns them and stops them."""
        work = [self._watch, self._subscribe, self._answer_pings, self._ping]
        if self._codec.heartbeat is not None:
            work.append(self._beat)
        self._tasks = [asyncio.create_task(self._guard(part)) for part in work]

    async def stop(self) -> None:
        """End the tasks and the connection."""
        try:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
        finally:
            await _close(self._ws, self._limits.close_timeout_s)

    async def _guard(self, work: Callable[[], Awaitable[None]]) -> None:
        """End the reader when the work beside it fails, and leave the reason for it to raise."""
        try:
            await work()
        except (aiohttp.ClientError, OSError) as error:
            self.failure = self.failure or ProviderUnavailable(
                f"the connection was lost{self._way} while sending: {network_cause(error)}"
            )
        except Exception as error:  # noqa: BLE001 - a codec is a plugin's; the reader raises whatever it threw
            self.failure = self.failure or error
        await _close(self._ws, self._limits.close_timeout_s)

    def report(self, value: Accepted | Rejected | Closing | PastChange) -> None:
        """Pass on what the provider said of streams, unless they were withdrawn or asked for again meanwhile."""
        if isinstance(value, Closing):
            self._watchlist.closing(value.reason)
            return
        if isinstance(value, PastChange):
            key, before, after, one_interval, settle_s = value
            try:
                self._watchlist.invalidate(key, before, after=after, one_interval=one_interval, settle_s=settle_s)
            except (TypeError, ValueError) as fault:
                self._watchlist.skip(f"a PastChange is invalid: {fault}")
            return
        keys = tuple(key for key in value.keys if self._is_current(key))
        if isinstance(value, Accepted):
            self._watchlist.accept(keys)
        elif len(keys) > 1:
            middle = len(keys) // 2
            self._doubtful += (keys[:middle], keys[middle:])
            self._changes.set()
        elif keys:
            # It is not carried, so nothing has to be unsubscribed when it leaves the watchlist.
            del self._carried[keys[0]]
            self._watchlist.reject(keys[0], value.reason)

    def _is_current(self, key: StreamKey) -> bool:
        return key in self._watchlist and self._carried.get(key) == self._watchlist.wanted_since(key)

    async def _watch(self) -> None:
        version = -1
        while True:
            version = await self._watchlist.changed(version)
            self._changes.set()

    async def _subscribe(self) -> None:
        """Bring the connection's streams in line with the watchlist, batched."""
        for text in self._codec.greeting:
            await self._pace.turn()
            await self._ws.send_str(text)
        while True:
            await self._changes.wait()
            self._changes.clear()
            while self._gone() or self._doubtful or self._new():
                await self._pace.room()
                # Computed only now, so that what was withdrawn while waiting is not sent.
                for number, message in enumerate(self._next_messages()):
                    if number:
                        await self._pace.room()
                    self._pace.note()
                    await self._ws.send_str(message)

    def _gone(self) -> list[StreamKey]:
        return [key for key in self._carried if not self._is_current(key)]

    def _new(self) -> list[StreamKey]:
        return [key for key in self._watchlist.streams if key not in self._carried]

    def _next_messages(self) -> list[str]:
        """Unsubscribe first, so that the venue's limit of streams is never passed on the way."""
        most = max(1, self._codec.keys_per_message)
        if gone := self._gone()[:most]:
            for key in gone:
                del self._carried[key]
            return list(self._codec.unsubscribe(gone))
        while self._doubtful:
            if group := [key for key in self._doubtful.popleft() if self._is_current(key)]:
                return list(self._codec.subscribe(group))
        if new := self._new()[:most]:
            for key in new:
                self._carried[key] = self._watchlist.wanted_since(key)
            return list(self._codec.subscribe(new))
        return []

    def owe_pong(self, payload: bytes) -> None:
        """Have a ping answered; of several that wait, only the newest (RFC 6455, 5.5.3)."""
        self._pong = bytes(payload)
        self._pong_owed.set()

    async def _answer_pings(self) -> None:
        while True:
            await self._pong_owed.wait()
            await self._pace.turn(reserve=0)
            self._pong_owed.clear()
            await self._ws.pong(self._pong or b"")

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(self._codec.heartbeat_s)
            await self._pace.turn(reserve=1)
            await self._ws.send_str(self._codec.heartbeat or "")

    async def _ping(self) -> None:
        while True:
            await asyncio.sleep(self._limits.ping_interval_s - self._limits.pong_timeout_s)
            await self._pace.turn(reserve=1)
            await self._ws.ping()
            while not await self._is_judged():
                pass

    async def _is_judged(self) -> bool:
        """Wait for the peer to say anything; a reader whose consumer keeps it busy proves nothing about the peer.

        Neither does a loop that stood still: what came meanwhile is still to be read.
        """
        heard, was_reading = self.heard, self.is_reading
        timeout_s, began = self._limits.pong_timeout_s, time.monotonic()
        await asyncio.sleep(timeout_s)
        if self.heard != heard or not self.is_reading:
            return True
        if was_reading and time.monotonic() - began < MOST_LATE * timeout_s:
            raise ProviderUnavailable(f"no answer to a ping within {timeout_s:g} s{self._way}")
        return False
