"""Asking an upstream's REST: host failover, and network failures as errors that name no address and no key."""

import asyncio
import os
import time
from collections.abc import Iterable, Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple

import aiohttp

from relay.core.errors import (
    AuthenticationFailed,
    BadAnswer,
    ProviderError,
    ProviderTimeout,
    ProviderUnavailable,
    RateLimited,
)
from relay.core.json_reading import NoJson, read_json
from relay.network.connector import TooLarge
from relay.network.http_sessions import PAGE_BOUNDS, Bounds, Redirected, read_within
from relay.network.outward_connector import ProxyFailed, way_to

TIMEOUT_S = 15.0
CONNECT_TIMEOUT_S = 5.0
RETRY_AFTER_S = 60.0
MAX_RETRY_AFTER_S = 4 * 86_400.0
NETWORK_ERRORS = (aiohttp.ClientError, ConnectionError, TimeoutError)
_REASON_LENGTH = 4000
"""It is cut shorter where secrets are concealed: half of a key is not recognised as one."""
_REFUSED_HERE = frozenset({403, 451})
_TOO_MANY = frozenset({418, 429})


class Hosts:
    """The addresses of one upstream service, tried in turn; the one that works is kept. Raises `ValueError` on none."""

    def __init__(self, urls: Iterable[str]) -> None:
        self._urls = tuple(url.rstrip("/") for url in urls)
        if not self._urls:
            raise ValueError("at least one address is needed")
        self._at = 0

    def __len__(self) -> int:
        return len(self._urls)

    @property
    def current(self) -> str:
        """The address to use now."""
        return self._urls[self._at]

    def failed(self, url: str) -> None:
        """Move on to the next address, unless somebody already did."""
        if url.rstrip("/") == self.current:
            self._at = (self._at + 1) % len(self._urls)


class RestAnswer(NamedTuple):
    """What an upstream answered: no 5xx, and JSON unless HTTP's `status` is an error (then `body` may be None)."""

    status: int
    headers: Mapping[str, str]
    body: Any
    way: str = ""
    """Names the proxy that may have answered in the upstream's place, as the end of a phrase."""
    text: bytes = b""
    """The body as it came."""

    def error(self, reason: str = "", *, detail: str = "", now: float | None = None) -> ProviderError:
        """Build the error that fits the status. Clients read `reason`, the log `detail` too; neither may hold a key.

        A long `reason` is cut: the venue's own words are better given as `detail`.
        429 and 418 give `RateLimited` with what `Retry-After` says, else a minute; a date in it is reckoned from `now`
        (Unix seconds, by default this machine's time).
        """
        text = f"HTTP {self.status}{self.way}"
        if reason:
            text += f": {reason[:_REASON_LENGTH]}"
        if self.status == 401:
            return AuthenticationFailed(text, detail=detail)
        if self.status in _TOO_MANY:
            wait = retry_after_s(self.headers.get("Retry-After"), time.time() if now is None else now)
            return RateLimited(text, RETRY_AFTER_S if wait is None else wait, detail=detail, by_provider=True)
        if self.status in _REFUSED_HERE or self.status >= 500:
            return ProviderUnavailable(text, detail=detail)
        return BadAnswer(text, detail=detail)


async def ask_rest(
    session: aiohttp.ClientSession,
    hosts: Hosts,
    path: str,
    *,
    params: Mapping[str, str | int] | None = None,
    headers: Mapping[str, str] | None = None,
    timeout_s: float | None = None,
    tries: int | None = None,
    bounds: Bounds = PAGE_BOUNDS,
) -> RestAnswer:
    """GET `path` from the current host; the next host is asked when this one cannot be reached or refuses.

    Each host is asked at most once (`tries` bounds how many, where each request costs something): the next one after
    a failed connection, 403, 451 and 5xx. After a host that did not answer in time, the next host is for the next
    call, since nobody should wait twice. Redirects are not followed: they could carry a key away. Of an
    answer no more is read than `bounds`; a large one is parsed in a thread.
    Raises `ProviderUnavailable`, `ProviderTimeout` or `BadAnswer`; other error statuses are returned.
    """
    for left in reversed(range(min(len(hosts), tries or len(hosts)))):
        host = hosts.current
        wait_s = TIMEOUT_S if timeout_s is None else timeout_s
        answer = await _ask_host(session, host + path, params, headers, wait_s, bounds)
        if isinstance(answer, RestAnswer):
            if answer.status < 500 and answer.status not in _REFUSED_HERE:
                return answer
            hosts.failed(host)
            if not left:
                if answer.status >= 500:
                    raise answer.error("")
                return answer
        else:
            if not isinstance(answer, BadAnswer):
                hosts.failed(host)
            if not left or not isinstance(answer, ProviderUnavailable):
                raise answer
    raise AssertionError("unreachable: the last host returns or raises")


async def _ask_host(
    session: aiohttp.ClientSession,
    url: str,
    params: Mapping[str, str | int] | None,
    headers: Mapping[str, str] | None,
    timeout_s: float,
    bounds: Bounds,
) -> RestAnswer | ProviderError:
    # Errors are returned, not raised: raised inside `except` they would drag the original along, and that names
    # the address with its query.
    timeout = aiohttp.ClientTimeout(total=timeout_s, connect=CONNECT_TIMEOUT_S)
    try:
        async with session.get(url, params=params, headers=headers, timeout=timeout, allow_redirects=False) as response:
            status, answer_headers = response.status, response.headers.copy()
            text = await _text_of(response, bounds)
    except (Redirected, TooLarge) as error:
        return BadAnswer(str(error))
    except (ProxyFailed, aiohttp.ConnectionTimeoutError, aiohttp.ClientConnectorError) as error:
        return ProviderUnavailable(f"cannot connect: {network_cause(error)}")
    except (TimeoutError, aiohttp.ServerTimeoutError):
        return ProviderTimeout(f"no answer within {timeout_s:g} s{way_to(session, url)}")
    except (aiohttp.ClientError, OSError) as error:
        return ProviderUnavailable(f"the connection was lost{way_to(session, url)}: {network_cause(error)}")
    # With TLS no proxy can answer.
    way = way_to(session, url) if url.startswith("http:") else ""
    try:
        body = await read_json(text)
    except NoJson as error:
        if status < 400:
            return BadAnswer(f"HTTP {status}{way} with a body that is {error}")
        body = None
    if 300 <= status < 400:
        return BadAnswer(f"HTTP {status}{way}: redirects are not followed")
    return RestAnswer(status, answer_headers, body, way, text)


async def _text_of(response: aiohttp.ClientResponse, bounds: Bounds) -> bytes:
    try:
        return await read_within(response, bounds)
    except TooLarge:
        if response.status < 400:
            raise
        # The status says enough, and a wait that goes with it has to be kept.
        return b""


def retry_after_s(value: str | None, now: float) -> float | None:
    """Read a `Retry-After` header, seconds or an HTTP date, as seconds from `now` (Unix seconds); None if unusable."""
    if value is None:
        return None
    text = value.strip()
    if text.isascii() and text.isdigit() and len(text) < 10:
        return min(float(text), MAX_RETRY_AFTER_S)
    try:
        at = parsedate_to_datetime(text)
        moment = (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None
    return min(max(0.0, moment - now), MAX_RETRY_AFTER_S)


def network_cause(error: BaseException) -> str:
    """Describe a network error without the address, which may hold a key."""
    if isinstance(error, ProxyFailed):
        return str(error)
    if isinstance(error, asyncio.TimeoutError):
        return "no answer in time"
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return "the host name cannot be resolved"
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return "the certificate is not valid"
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return "the server closed it"
    if isinstance(error, aiohttp.InvalidURL):
        return "the address is not valid"
    if isinstance(error, aiohttp.ClientSSLError):
        return "TLS failed"
    if isinstance(error, aiohttp.ClientResponseError):
        return "the answer is not valid HTTP"
    inner = getattr(error, "os_error", None) or error
    if not isinstance(inner, OSError):
        return type(inner).__name__
    # Asyncio puts the address into `strerror`, so the plain words are looked up again.
    if inner.errno is not None and inner.errno > 0:
        return os.strerror(inner.errno).lower()
    return inner.strerror or type(inner).__name__


def network_failure(error: BaseException) -> ProviderError:
    """Read the errors that a plugin lets through from its HTTP calls."""
    if isinstance(error, Redirected | TooLarge):
        return BadAnswer(str(error))
    if isinstance(error, aiohttp.ContentTypeError):
        return BadAnswer("the answer is not JSON")
    if isinstance(error, aiohttp.ClientResponseError):
        return RestAnswer(error.status, error.headers or {}, None).error("")
    if isinstance(error, TimeoutError):
        return ProviderTimeout("no answer in time")
    return ProviderUnavailable(f"cannot be reached: {network_cause(error)}")
