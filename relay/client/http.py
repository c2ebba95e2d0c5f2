"""How one relay is reached: its address, the token, the aiohttp session. Only `ClientError` leaves this module."""

import asyncio
import math
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, NamedTuple, TypeVar, cast

import aiohttp
import orjson
from yarl import URL

from relay.client.decoding import Unreadable
from relay.client.errors import BadArgument, ClientClosed, ClientError, Translated, bad_reply, refusal
from relay.core.json_reading import NoJson, read_json
from relay.core.outward_proxies import OutwardProxies
from relay.core.version import VERSION
from relay.network.http_sessions import MIB, Bounds, CountedSocket, open_session, read_within

T = TypeVar("T")

_ROUTES = "api/v1/market-data"
BOUNDS = Bounds(64 * MIB, 8_000_000)
"""For one answer of a relay. 100,000 instruments have 40 to 50 MB and 5,000,000 values."""
_LARGEST_MESSAGE = 8 * MIB
"""A snapshot of 5,000 candles has 1.3 MB."""
_HANDSHAKE_S = 10.0
_MOST_AT_A_TIME = 100


class Ended(NamedTuple):
    """A WebSocket is closed or lost; `code` is 1006 or None where there was no closing handshake."""

    code: int | None
    reason: str


class RelaySocket:
    """An open WebSocket to a relay. Whatever happens to it is told by `receive` as its end."""

    def __init__(self, socket: CountedSocket, translated: Translated) -> None:
        self._socket = socket
        socket.has_judge = True
        self._heard = 0
        self._translated = translated

    async def receive(self, within_s: float) -> str | Ended | None:
        """Return the next text or the end; None when the time is over, or nothing of use came."""
        self._heard += 1
        if not self._heard % _MOST_AT_A_TIME:
            # Messages that are there already are read without a turn of the loop.
            await asyncio.sleep(0)
        try:
            with self._translated:
                try:
                    # aiohttp takes 0 for "no timeout", as it does None.
                    frame = await self._socket.receive(None if within_s == math.inf else max(0.001, within_s))
                except TimeoutError:
                    return None
        except ClientError:
            # A ping that cannot be answered any more, for instance.
            return Ended(None, "")
        if frame.type is aiohttp.WSMsgType.TEXT:
            text: str = frame.data
            return text
        if frame.type is aiohttp.WSMsgType.BINARY:
            return None
        if self._socket.is_flooded:
            return Ended(None, "the relay sent too many messages without content")
        return Ended(self._socket.close_code, str(frame.extra or "") if frame.type is aiohttp.WSMsgType.CLOSE else "")

    def note_news(self, text: str) -> None:
        """Take note that a text meant something: of others there may be a thousand a second."""
        self._socket.note_news(text)

    async def send(self, request: Mapping[str, Any]) -> None:
        """Send a request; where that fails, `receive` meets the end."""
        # Not among the faults of the network: a request that is no JSON must not vanish as one of them.
        text = orjson.dumps(request).decode()
        try:
            with self._translated:
                await self._socket.send_str(text)
        except ClientError:
            return

    async def close(self) -> None:
        """Close it; the other side has two seconds to answer."""
        try:
            with self._translated:
                await self._socket.close()
        except ClientError:
            return


class Http:
    """Requests to one relay, through `proxies` or by the connector of a `session` that is given and stays open."""

    def __init__(
        self,
        url: URL,
        token: str | None,
        session: aiohttp.ClientSession | None,
        timeout_s: float,
        heartbeat_s: float,
        proxies: OutwardProxies,
    ) -> None:
        self.url = url
        self._proxies = proxies
        proxy = None if session is not None else proxies.of(url.scheme, url.raw_host or "", url.port or 0)
        way = "" if proxy is None else f" through the proxy {proxy}"
        self._where = f"{url}{way}"
        self._translated = Translated(str(url), way)
        self._timeout_s = timeout_s
        self._heartbeat_s = heartbeat_s
        self._headers = {"User-Agent": f"market-relay/{VERSION}"}
        if token is not None:
            if (
                not isinstance(token, str)
                or not token
                or not token.isascii()
                or not token.isprintable()
                or " " in token
            ):
                raise BadArgument("a token is one word of printable ASCII characters")
            self._headers["Authorization"] = f"Bearer {token}"
        self._like = session
        self._session: aiohttp.ClientSession | None = None
        self._is_closed = False

    async def get(
        self, route: str, asked: Mapping[str, str | int | None], read: Callable[[Any], T], timeout_s: float
    ) -> T:
        """Return what `read` makes of an answer; a parameter that is None is left out. Raises `ClientError`."""
        params = {name: str(value) for name, value in asked.items() if value is not None}
        timeout = aiohttp.ClientTimeout(total=timeout_s)
        url = self.url / _ROUTES / route
        # The bounds of a relay's answers do not stay on a connection that its owner uses for others.
        headers = self._headers if self._like is None else {**self._headers, "Connection": "close"}
        with self._translated:
            async with (
                self._opened() as session,
                session.get(url, params=params, headers=headers, timeout=timeout) as answer,
            ):
                body = await read_within(answer, BOUNDS)
        if answer.status >= 400:
            raise refusal(self._where, answer.status, answer.headers, body)
        try:
            return read(await read_json(body))
        except (Unreadable, NoJson):
            raise bad_reply(self._where) from None

    async def upgrade(self) -> RelaySocket:
        """Open the WebSocket. Raises `ClientError`."""
        scheme = {"http": "ws", "https": "wss"}[self.url.scheme]
        with self._translated:
            # A relay that accepts and then says nothing must not hold up the resume for long.
            async with asyncio.timeout(min(self._timeout_s, _HANDSHAKE_S)), self._opened() as session:
                socket = await session.ws_connect(
                    (self.url / _ROUTES / "ws").with_scheme(scheme),
                    headers=self._headers,
                    heartbeat=self._heartbeat_s,
                    max_msg_size=_LARGEST_MESSAGE,
                    timeout=aiohttp.ClientWSTimeout(ws_close=2.0),
                )
        return RelaySocket(cast(CountedSocket, socket), self._translated)

    async def close(self) -> None:
        """Close the connections; those of a session given are its owner's."""
        self._is_closed = True
        if self._session is not None:
            await self._session.close()

    @asynccontextmanager
    async def _opened(self) -> AsyncIterator[aiohttp.ClientSession]:
        if self._is_closed:
            raise ClientClosed
        if self._like is not None:
            if self._like.closed:
                raise ClientClosed("the session that was given to this client")
            # One for each request: closing one that is in use would break it, and it holds no connections itself.
            async with open_session(like=self._like) as session:
                yield session
            return
        if self._session is None:
            self._session = open_session(proxies=self._proxies)
        yield self._session
