"""The errors of the client, and how faults of the network and answers of the relay become them.

ClientError
├── Unreachable      nothing answers at the address
├── Refused          the relay answered with an error (problem+json), or refused the connection
├── Disconnected     the relay closed the connection for good (4001, 4003)
├── BadReply         the answer is not one of a relay
├── BadArgument      the caller gave something that cannot be meant; also a ValueError
├── MissingPackage   what was called needs a package that is not installed; also an ImportError
└── ClientClosed     the client was closed before
"""

import contextlib
import math
import os
from collections.abc import Mapping
from types import TracebackType
from typing import Any

import aiohttp
import orjson

from relay.core.errors import Code, RelayError, code_of
from relay.network.connector import TooLarge
from relay.network.http_sessions import Redirected
from relay.network.outward_connector import ProxyFailed

# The refusal of a WebSocket comes without its body: aiohttp keeps the status and the headers.
PROBLEM = "application/problem+json"
_CODES = {401: Code.UNAUTHORIZED, 403: Code.FORBIDDEN, 429: Code.RATE_LIMITED, 503: Code.INTERNAL}


class ClientError(RelayError):
    """The relay cannot be used; the message is one line for people and carries no token."""


class Unreachable(ClientError):
    """Nothing answers at the address, or not in time."""


class Refused(ClientError):
    """The relay refused with the HTTP `status`; `retry_after` (seconds) says when to come back.

    `code` is a `Code`, or a text where the relay is newer and has one that is not known here. Where the answer has
    none, the status gives it; it is empty where that says nothing either.
    """

    def __init__(
        self, status: int, code: str, detail: str, *, title: str = "", retry_after: float | None = None
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code_of(code)
        self.title = title
        self.detail = detail
        self.retry_after = retry_after


class Disconnected(ClientError):
    """The relay closed the connection for good, with `close_code`; connecting again would end the same way."""

    def __init__(self, close_code: int, reason: str) -> None:
        super().__init__(f"the relay closed the connection for good: {reason or 'no reason given'} ({close_code})")
        self.close_code = close_code
        self.reason = reason


class BadReply(ClientError):
    """The answer is not from a relay; the address may belong to another server."""


class BadArgument(ClientError, ValueError):
    """An argument is not valid; the message names it, and nothing was sent."""


class MissingPackage(ClientError, ImportError):
    """A method needs the `package`, which is not installed; nothing was sent."""

    def __init__(self, package: str, what: str) -> None:
        super().__init__(f"{what} needs {package}, which is not installed; run: pip install {package}")
        self.package = package


class ClientClosed(ClientError):
    """The client is used after it was closed."""

    def __init__(self, what: str = "this client") -> None:
        super().__init__(f"{what} is closed; make a new one")


class Translated:
    """A context, to be used any number of times: whatever the network, the system or aiohttp raises within leaves it as
    `ClientError`, which names the relay and the `way` to it.
    """

    def __init__(self, url: str, way: str = "") -> None:
        self._url = url
        self._way = way

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        # aiohttp documents only some of what it raises, and asserts much of connections.
        if isinstance(fault, Exception) and not isinstance(fault, ClientError):
            # What is wrong with a proxy names it.
            raise translation(self._url + ("" if isinstance(fault, ProxyFailed) else self._way), fault) from None


def translation(where: str, fault: Exception) -> ClientError:
    """Return what a fault of the network, the system or aiohttp means."""
    if isinstance(fault, Redirected):
        return bad_reply(where, f"{fault}: if the relay is there, use that address")
    if isinstance(fault, TooLarge):
        return bad_reply(where, str(fault))
    if isinstance(fault, aiohttp.WSServerHandshakeError) and fault.status >= 400:
        kind = "" if fault.headers is None else fault.headers.get("Content-Type", "")
        if fault.status == 400 and kind.startswith(PROBLEM):
            # Ours is a proper handshake.
            return Unreachable(
                f"the relay at {where} answers, but not over WebSocket; a proxy between must pass the headers Upgrade "
                "and Connection"
            )
        return refusal(where, fault.status, fault.headers)
    # Anything else that has a status is no HTTP, or a page.
    is_answered = isinstance(fault, aiohttp.ClientResponseError)
    return bad_reply(where) if is_answered else unreachable(where, fault)


def unreachable(where: str, fault: BaseException) -> Unreachable:
    """Say in one line and in plain words why nothing answered."""
    if isinstance(fault, ProxyFailed):
        reason = str(fault)
    elif isinstance(fault, TimeoutError):
        reason = "no answer in time"
    elif isinstance(fault, aiohttp.ClientConnectorCertificateError):
        reason = f"its certificate is not trusted: {getattr(fault.certificate_error, 'verify_message', '')}".rstrip(
            ": "
        )
    elif isinstance(fault, aiohttp.ClientSSLError):
        reason = "TLS failed; if the relay has no TLS, use an address with http://"
    elif isinstance(fault, aiohttp.ServerDisconnectedError):
        reason = "it closed the connection without an answer"
        if where.startswith("http:"):
            reason += "; if the relay has TLS, use an address with https://"
    elif isinstance(fault, OSError) and fault.strerror:
        # aiohttp names the address again in its message; the system's own words are shorter.
        cause = fault.os_error if isinstance(fault, aiohttp.ClientConnectorError) else fault
        reason = _system_words(cause)
    else:
        reason = " ".join(str(fault).split()) or type(fault).__name__
    return Unreachable(f"no relay reached at {where}: {reason}")


def refusal(where: str, status: int, headers: Mapping[str, str] | None, body: bytes = b"") -> Refused:
    """Read an answer that is an error; where it has no words of its own, the status gives them."""
    problem: Any = None
    with contextlib.suppress(orjson.JSONDecodeError):
        problem = orjson.loads(body)
    if not isinstance(problem, dict):
        problem = {}
    title = str(problem.get("title") or "")
    words = {
        401: f"the relay at {where} needs a valid token",
        403: f"the relay at {where} does not allow this client",
        429: f"too many connections or requests for the relay at {where}",
        503: f"the relay at {where} is full, starting or shutting down",
    }.get(status, f"{where} answered with HTTP status {status}; is this the address of a relay?")
    detail = str(problem.get("detail") or title or words)
    code = str(problem.get("code") or _CODES.get(status, ""))
    return Refused(status, code, detail, title=title, retry_after=_seconds((headers or {}).get("Retry-After", "")))


def bad_reply(where: str, why: str = "is the address right?") -> BadReply:
    """Say that somebody else answered, and what about the answer is wrong, or what to do."""
    return BadReply(f"the answer from {where} is not from a relay; {why}")


def _seconds(text: str) -> float | None:
    try:
        seconds = float(text)
    except ValueError:
        return None
    return max(0.0, seconds) if math.isfinite(seconds) else None


def _system_words(fault: OSError) -> str:
    # Asyncio and aiohttp put the address into `strerror`, so the plain words are looked up again.
    if fault.errno is not None and fault.errno > 0:
        return os.strerror(fault.errno).lower()
    return fault.strerror or str(fault)
