"""A provider's way to its upstream, under watch: recorded, cut, led to a server that refuses, or played again."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
from aiohttp import WSMessage, WSMsgType, web
from yarl import URL

from relay.network.aiohttp_client_seams import connections_in_use

_MOST_RECORDED = 2000
_REQUESTS = frozenset({"get", "post", "put", "patch", "delete", "head", "options", "request"})


class WatchedSession:
    """Stands for an HTTP session and passes everything on to it.

    Messages of WebSocket connections are kept in `recorded` until `is_recording` is False. With `refuser`, every
    request goes to that address instead. With `player`, WebSocket connections are its.
    """

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self.recorded: list[str | bytes] = []
        self.is_recording = True
        self.refuser: str | None = None
        self.player: Player | None = None
        self.connects = 0
        self.sockets: list[Any] = []
        self._session = session

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._session, name)
        if name not in _REQUESTS or self.refuser is None:
            return value

        def led(*arguments: Any, **options: Any) -> Any:
            if "url" in options:
                return value(*arguments, **{**options, "url": self._led(options["url"])})
            *method, url = arguments
            return value(*method, self._led(url), **options)

        return led

    async def __aenter__(self) -> "WatchedSession":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._session.close()

    @property
    def held(self) -> Sequence[Callable[[], Any]]:
        """The connections that are in use now: of each, what breaks it."""
        return connections_in_use(self._session, self.sockets)

    @property
    def is_connected(self) -> bool:
        """Whether a WebSocket connection is open."""
        return any(not socket.closed for socket in self.sockets)

    def drop_connections(self) -> None:
        """Break every connection that is in use, as a network does."""
        for abort in self.held:
            abort()

    def _led(self, url: str | URL) -> str | URL:
        if self.refuser is None:
            return url
        # A WebSocket is asked for by HTTP as well.
        return URL(self.refuser).join(URL(url).relative())

    def ws_connect(self, url: str | URL, **options: Any) -> "_Connecting":
        """Open a WebSocket connection."""
        self.connects += 1
        return _Connecting(self._connect(url, options))

    async def _connect(self, url: str | URL, options: dict[str, Any]) -> Any:
        if self.player is not None:
            return self.player
        socket = await self._session.ws_connect(self._led(url), **options)
        receive = socket.receive

        async def recording(timeout: float | None = None) -> WSMessage:
            message: WSMessage = await receive(timeout)
            if (
                self.is_recording
                and message.type in (WSMsgType.TEXT, WSMsgType.BINARY)
                and len(self.recorded) < _MOST_RECORDED
            ):
                self.recorded.append(message.data)
            return message

        socket.receive = recording
        self.sockets = [*(other for other in self.sockets if not other.closed), socket]
        return socket


class _Connecting:
    """What `ws_connect` returns: to be awaited, or entered."""

    def __init__(self, connecting: Awaitable[Any]) -> None:
        self._connecting = connecting
        self._socket: Any = None

    def __await__(self) -> Generator[Any, None, Any]:
        return self._connecting.__await__()

    async def __aenter__(self) -> Any:
        self._socket = await self._connecting
        return self._socket

    async def __aexit__(self, *_: object) -> None:
        await self._socket.close()


class Player:
    """A WebSocket connection that gives recorded messages over and over, as fast as they are read.

    `turns_s` are the CPU times of this thread for each turn through the messages. It ends after `most` turns, or when
    they took `enough_s` together; then it is no longer read, and `is_over` is set. For what a feed sends
    first it waits `settle_s` at most.
    """

    def __init__(self, messages: Sequence[str | bytes], most: int, enough_s: float, settle_s: float) -> None:
        self._messages = [
            WSMessage(WSMsgType.TEXT if isinstance(message, str) else WSMsgType.BINARY, message, None)
            for message in messages
        ]
        self._most = most
        self._enough_s = enough_s
        self._settle_s = settle_s
        self._at = 0
        self._began = 0.0
        self._asked = asyncio.Event()
        self.turns_s: list[float] = []
        self.is_over = asyncio.Event()
        self.closed = False
        self.close_code: int | None = None

    async def receive(self, timeout: float | None = None) -> WSMessage:
        """Return the next message, the first one once something was subscribed."""
        if self._at == len(self._messages):
            self.turns_s.append(time.thread_time() - self._began)
            self._at = 0
        if self._at == 0:
            if len(self.turns_s) >= self._most or sum(self.turns_s) > self._enough_s:
                self.is_over.set()
            if self.is_over.is_set():
                # Whoever would go on by itself waits here until it is cancelled.
                await asyncio.Event().wait()
            try:
                # Between two turns others may run; they are not measured.
                async with asyncio.timeout(self._settle_s):
                    await self._asked.wait()
            except TimeoutError:
                self._asked.set()
            await asyncio.sleep(0)
            self._began = time.thread_time()
        self._at += 1
        return self._messages[self._at - 1]

    def __aiter__(self) -> "Player":
        return self

    async def __anext__(self) -> WSMessage:
        message = await self.receive()
        if message.type is WSMsgType.CLOSE:
            raise StopAsyncIteration
        return message

    async def receive_str(self, **_: Any) -> Any:
        """Return the text of the next message."""
        return (await self.__anext__()).data

    async def receive_json(self, *, loads: Callable[[Any], Any], **_: Any) -> Any:
        """Return the next message decoded."""
        return loads(await self.receive_str())

    async def send_str(self, data: str, *_: Any) -> None:
        """Take what would be sent."""
        self._asked.set()

    send_bytes = send_json = send_str

    async def ping(self, message: bytes = b"") -> None:
        """Do nothing."""

    pong = ping

    async def close(self, **_: Any) -> bool:
        """End it."""
        self.closed = True
        return True


@asynccontextmanager
async def refusing_server() -> AsyncIterator["RefusingServer"]:
    """Serve on loopback and refuse everything."""
    server = RefusingServer()
    runner = web.ServerRunner(web.Server(server.answer), handle_signals=False, shutdown_timeout=0.1)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host, port = runner.addresses[0][:2]
        server.url = f"http://{host}:{port}"
        yield server
    finally:
        await runner.cleanup()


class RefusingServer:
    """Answers `status` with `Retry-After: 7`, and counts."""

    def __init__(self) -> None:
        self.url = ""
        self.status = 503
        self.asked = 0

    async def answer(self, request: web.BaseRequest) -> web.Response:
        """Refuse one request."""
        self.asked += 1
        return web.json_response({"message": "refused"}, status=self.status, headers={"Retry-After": "7"})
