"""How one relay is reached over HTTP: its address, the token, the aiohttp session."""

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import aiohttp
from yarl import URL

from relay.client.decoding import Unreadable
from relay.client.errors import ClientError, bad_reply, refusal, unreachable
from relay.json_texts import NoJson, read_json
from relay.sessions import MIB, Bounds, Redirected, TooLarge, open_session, read_within
from relay.version import VERSION

T = TypeVar("T")

_ROUTES = "api/v1/market-data"
BOUNDS = Bounds(64 * MIB, 8_000_000)
"""For one answer of a relay. 100,000 instruments have some 40 MB and 5,000,000 values."""
_LARGEST_MESSAGE = 8 * MIB
"""A snapshot of 5,000 candles has 1.3 MB."""
_HEARTBEAT_S = 20.0


class Http:
    """Requests to one relay. Of a `session` given, connector, headers and cookies are used, and it is not closed."""

    def __init__(self, url: URL, token: str | None, session: aiohttp.ClientSession | None, timeout_s: float) -> None:
        self.url = url
        self.timeout_s = timeout_s
        self._headers = {"User-Agent": f"market-relay/{VERSION}"}
        if token is not None:
            if not token or not token.isascii() or not token.isprintable() or " " in token:
                raise ValueError("a token is one word of printable ASCII characters")
            self._headers["Authorization"] = f"Bearer {token}"
        self._like = session
        self._session: aiohttp.ClientSession | None = None
        self._is_closed = False

    async def get(self, route: str, asked: Mapping[str, str | int | None], read: Callable[[Any], T]) -> T:
        """Return what `read` makes of an answer; a parameter that is None is left out. Raises `ClientError`."""
        params = {name: str(value) for name, value in asked.items() if value is not None}
        timeout = aiohttp.ClientTimeout(total=self.timeout_s)
        url = self.url / _ROUTES / route
        try:
            async with (
                self._opened() as session,
                session.get(url, params=params, headers=self._headers, timeout=timeout) as answer,
            ):
                body = await read_within(answer, BOUNDS)
        except (aiohttp.ClientError, OSError, UnicodeError) as fault:
            raise self._explained(fault) from None
        if answer.status >= 400:
            raise refusal(self.url, answer.status, answer.headers, body)
        try:
            return read(await read_json(body))
        except (Unreadable, NoJson):
            raise bad_reply(self.url) from None

    async def upgrade(self) -> aiohttp.ClientWebSocketResponse:
        """Open the WebSocket. Raises `Unreachable`, `Refused`, `BadReply`."""
        scheme = {"http": "ws", "https": "wss"}[self.url.scheme]
        try:
            async with self._opened() as session:
                return await session.ws_connect(
                    (self.url / _ROUTES / "ws").with_scheme(scheme),
                    headers=self._headers,
                    heartbeat=_HEARTBEAT_S,
                    max_msg_size=_LARGEST_MESSAGE,
                    timeout=aiohttp.ClientWSTimeout(ws_close=2.0),
                )
        except (aiohttp.ClientError, OSError, UnicodeError) as fault:
            raise self._explained(fault) from None

    async def close(self) -> None:
        """Close the connections; those of a session given are its owner's."""
        self._is_closed = True
        if self._session is not None:
            await self._session.close()

    def _explained(self, fault: Exception) -> ClientError:
        if isinstance(fault, Redirected):
            return bad_reply(self.url, f"{fault}: if that is the relay, give its address")
        if isinstance(fault, TooLarge):
            return bad_reply(self.url, str(fault))
        if isinstance(fault, aiohttp.WSServerHandshakeError) and fault.status >= 400:
            return refusal(self.url, fault.status, fault.headers)
        # Anything else that has a status is no HTTP, or a page.
        is_answered = isinstance(fault, aiohttp.ClientResponseError)
        return bad_reply(self.url) if is_answered else unreachable(self.url, fault)

    @asynccontextmanager
    async def _opened(self) -> AsyncIterator[aiohttp.ClientSession]:
        if self._is_closed:
            raise RuntimeError("this client is closed; make a new one")
        if self._like is not None:
            # One for each request: closing one that is in use would break it, and it holds no connections itself.
            async with open_session(like=self._like) as session:
                yield session
            return
        if self._session is None:
            self._session = open_session()
        yield self._session
