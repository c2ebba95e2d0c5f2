"""The one place where HTTP sessions are made: nothing is followed, nothing is remembered, every answer has a bound.

A session from here follows no redirect, for a WebSocket neither, since the other host would get the key. It keeps no
cookies, and reads nothing of the environment and of `~/.netrc`. Its connections are those of `connector`, and
go through the proxies that it is given.
"""

import asyncio
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import aiohttp
from yarl import URL

from relay.core.intake import Intake
from relay.core.outward_proxies import OutwardProxies
from relay.core.version import VERSION
from relay.network.aiohttp_client_seams import LinedResponse, LinedSocket, fill_body, new_connector
from relay.network.connector import ANSWER_BYTES, TooLarge, line_of
from relay.network.outward_connector import refuses_login

MIB = 1 << 20
_PART = MIB // 4
_MARKS = b",:[{"
_HOST_LENGTH = 100
_DATA = (aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.BINARY)


class Redirected(aiohttp.ClientError):
    """An answer that points to another address. The text names its status and the host, and nothing else of it."""

    def __init__(self, status: int, host: str) -> None:
        super().__init__(f"HTTP {status} points to {host}; redirects are not followed")
        self.status = status
        self.host = host


class Bounds(NamedTuple):
    """How much of an answer is read: `most_bytes` after decompression, `most_values` of JSON with its keys (0: any)."""

    most_bytes: int
    most_values: int = 0

    def check(self, size: int, marks: int) -> None:
        """Raise `TooLarge` when an answer has more bytes (`size`) or values than are read.

        Of `marks`, the signs `,:[{`, each value but the first has one before it.
        """
        if size > self.most_bytes:
            raise TooLarge(f"the answer is larger than {self.most_bytes / MIB:g} MiB after decompression")
        if self.most_values and marks > self.most_values:
            raise TooLarge(f"the answer has more than {self.most_values:,} values")


PAGE_BOUNDS = Bounds(16 * MIB, 1_000_000)
"""For candles of a provider. The largest answers that are known are 5,000 rows of Twelve Data: 0.6 MB with 60,000
values for each symbol of a batch. A page of Binance has 0.2 MB."""
LIST_BOUNDS = Bounds(ANSWER_BYTES, 2_000_000)
"""The most of an answer that is ever read of a provider: its list of instruments. The largest that is known is
Binance's exchangeInfo: about 6 MB with 530,000 values for the 3,710 pairs of 2026-09, and 16 MB with 1,300,000 values
when each pair has 200 permissions."""


class BoundedResponse(LinedResponse):
    """An answer within bounds, whichever way it is asked for. It is shown without its address, which may hold a key."""

    async def read(self) -> bytes:
        """Return the body, within `LIST_BOUNDS`; `text()` and `json()` go through here. Raises `TooLarge`."""
        await fill_body(self, partial(read_within, self, Bounds(LIST_BOUNDS.most_bytes)))
        return await super().read()

    def __repr__(self) -> str:
        return f"<HTTP {self.status} from {self.host}>"


class CountedSocket(LinedSocket):
    """A WebSocket that ends after more than a thousand frames a second without news, 20,000 at once.

    Each message that is not empty is news, unless `has_judge` is set: then only what `note_news` is called for.
    """

    has_judge = False

    @property
    def is_flooded(self) -> bool:
        """Whether it was ended because of too many frames without news."""
        return self.line is not None and self.line.frames is not None and self.line.frames.is_flooded

    def note_news(self, message: str | bytes) -> None:
        """Take note that a message meant something."""
        if self.line is not None:
            self.line.news += 1
            self.line.news_bytes += len(message)

    async def receive(self, timeout: float | None = None) -> Any:
        """Return the next message."""
        message = await super().receive(timeout)
        if not self.has_judge and message.type in _DATA and message.data:
            self.note_news(message.data)
        return message

    async def close(self, *, code: int = aiohttp.WSCloseCode.OK, message: bytes = b"") -> bool:
        """Close it; little of what still comes is read meanwhile."""
        if self.line is not None:
            self.line.part()
        return await super().close(code=code, message=message)


def open_session(
    *,
    timeout: aiohttp.ClientTimeout | None = None,
    on_headers: Callable[[Mapping[str, str]], None] | None = None,
    like: aiohttp.ClientSession | None = None,
    proxies: OutwardProxies | None = None,
    intake: Intake | None = None,
) -> aiohttp.ClientSession:
    """Return a session; whoever asked for it closes it.

    `on_headers` is called with the headers of each answer. Connections go through `proxies`, and WebSockets are read
    when `intake` lets them be. Of a session that it shall
    be `like`, the connector, the headers and the cookies are used, and left to their owner; what comes on its
    connections has the same bounds, unless its connector makes other ends of connections than aiohttp does. Raises
    RuntimeError when that one is closed.
    """
    if like is not None and like.closed:
        raise RuntimeError("the session given is closed")
    trace = aiohttp.TraceConfig()
    # The first before one is followed; the other for those that are not, such as 300.
    trace.on_request_redirect.append(_refuse_redirect)
    trace.on_request_end.append(_refuse_redirect)
    trace.on_request_end.append(_refuse_login)
    if on_headers is not None:

        async def pass_on(session: object, context: object, params: aiohttp.TraceRequestEndParams) -> None:
            on_headers(params.response.headers)

        trace.on_request_end.append(pass_on)
    return aiohttp.ClientSession(
        timeout=timeout,
        headers={"User-Agent": f"market-relay/{VERSION}"} if like is None else like.headers,
        cookie_jar=aiohttp.DummyCookieJar() if like is None else like.cookie_jar,
        connector=new_connector(proxies or OutwardProxies(), intake) if like is None else like.connector,
        connector_owner=like is None,
        response_class=BoundedResponse,
        ws_response_class=CountedSocket,
        trace_configs=[trace],
    )


async def _refuse_redirect(
    session: object, context: object, params: aiohttp.TraceRequestRedirectParams | aiohttp.TraceRequestEndParams
) -> None:
    answer = params.response
    location = answer.headers.get("Location") or answer.headers.get("URI")
    if 300 <= answer.status < 400 and location:
        answer.close()
        raise Redirected(answer.status, _host_of(location, answer.url))


async def _refuse_login(session: aiohttp.ClientSession, context: object, params: aiohttp.TraceRequestEndParams) -> None:
    if (failure := refuses_login(session, params.response)) is not None:
        params.response.close()
        raise failure


async def read_within(answer: aiohttp.ClientResponse, bounds: Bounds) -> bytes:
    """Return the body of an answer, read part by part, and let the loop run in between.

    Raises `TooLarge`, and closes the connection, as soon as a bound is passed.
    """
    line = None if answer.connection is None else line_of(answer.connection.transport)
    if line is not None:
        line.most_bytes = max(line.most_bytes, bounds.most_bytes)
    parts: list[bytes] = []
    size = marks = since = 0
    try:
        async for part in answer.content.iter_any():
            parts.append(part)
            size += len(part)
            since += len(part)
            if bounds.most_values:
                marks += len(part) - len(part.translate(None, _MARKS))
            bounds.check(size, marks)
            if since >= _PART:
                # A body that is compressed well comes all at once.
                since = 0
                await asyncio.sleep(0)
    except BaseException:
        answer.close()
        raise
    return b"".join(parts)


def _host_of(location: str, base: URL) -> str:
    """Return the host, and the port if it is unusual, that a `Location` points to; never more of it."""
    try:
        url = base.join(URL(location))
        port = "" if url.port is None or url.is_default_port() else f":{url.port}"
        host = f"{url.host or ''}{port}"
    except ValueError:
        host = ""
    return host[:_HOST_LENGTH] if host and host.isprintable() else "an invalid address"
