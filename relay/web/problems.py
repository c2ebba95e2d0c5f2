"""Errors of the HTTP side as RFC 9457 problem details; nothing of the inside shows in them."""

import logging
import math
from collections.abc import Iterable
from difflib import SequenceMatcher, get_close_matches
from http import HTTPStatus

import orjson
from aiohttp import web

from relay.core.errors import (
    READMIT_S,
    AuthenticationFailed,
    BadAnswer,
    Code,
    ProviderError,
    ProviderTimeout,
    RateLimited,
    RequestError,
    StoreError,
    UnknownSymbol,
)
from relay.protocol.fields import shown
from relay.telemetry.events import event

log = logging.getLogger(__name__)

CONTENT_TYPE = "application/problem+json"
RETRY_S = 5.0
_LONGEST_COMPARED = 100
_NEAR = 0.7
_ALSO_CALLED = {
    "index": "", "websocket": "ws", "stream": "ws", "klines": "history", "candles": "history", "ohlc": "history",
    "ohlcv": "history", "bars": "history", "tickers": "symbols", "pairs": "symbols", "swagger": "docs", "redoc": "docs",
}  # fmt: skip
"""What other services call routes, by the last part of their paths."""
SAYS_WHAT_IS_TAKEN = ("Allow", "Sec-WebSocket-Version")

_STATUS = {
    Code.UNKNOWN_SYMBOL: 404,
    Code.NOT_FOUND: 404,
    Code.UNAUTHORIZED: 401,
    Code.FORBIDDEN: 403,
    Code.RATE_LIMITED: 429,
    Code.PROVIDER_UNAVAILABLE: 503,
    Code.INTERNAL: 500,
}


def problem(status: int, code: Code, detail: str, *, retry_after: float | None = None) -> web.Response:
    """Build the answer for one error."""
    headers = {}
    if status in (429, 503):
        headers["Retry-After"] = str(max(1, math.ceil(RETRY_S if retry_after is None else retry_after)))
    if status == 401:
        headers["WWW-Authenticate"] = 'Bearer realm="market-relay"'
    body = {
        "type": f"urn:market-relay:error:{code}",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "code": code,
    }
    return web.Response(status=status, body=orjson.dumps(body), content_type=CONTENT_TYPE, headers=headers)


def problem_of(error: Exception) -> web.Response:
    """Turn an error of the relay into its answer."""
    if isinstance(error, RequestError):
        status = _STATUS.get(error.code, 400)
        if error.code is Code.INTERNAL and error.retry_after is not None:
            status = 503  # nothing is broken: full, or shutting down
        return problem(status, error.code, error.message, retry_after=error.retry_after)
    if isinstance(error, StoreError):
        return problem(503, Code.INTERNAL, "the relay's store cannot be used now; try again later")
    if isinstance(error, RateLimited):
        return problem(503, Code.PROVIDER_UNAVAILABLE, str(error), retry_after=error.retry_after)
    if isinstance(error, ProviderTimeout):
        return problem(504, Code.PROVIDER_UNAVAILABLE, str(error))
    if isinstance(error, UnknownSymbol):
        return problem(404, Code.UNKNOWN_SYMBOL, str(error))
    if isinstance(error, BadAnswer):
        return problem(502, Code.PROVIDER_UNAVAILABLE, str(error))
    if isinstance(error, AuthenticationFailed):
        return problem(503, Code.PROVIDER_UNAVAILABLE, str(error), retry_after=READMIT_S)
    if isinstance(error, ProviderError):
        return problem(503, Code.PROVIDER_UNAVAILABLE, str(error))
    log.error("a request failed", exc_info=error, extra=event("request_failed"))
    return problem(
        500, Code.INTERNAL, "the relay could not process this request; the operator finds the cause in the log"
    )


def problem_of_routing(request: web.Request, error: web.HTTPException, routes: Iterable[str]) -> web.Response:
    """Turn what aiohttp says of a path, a method or a handshake into its answer; `routes` may be meant by a path."""
    if error.status == 404:
        known = sorted(routes)
        prefix = _prefix_left_on(request, known)
        near = _route_meant(request.path, known)
        meant = f"did you mean {near}? " if near else ""
        if prefix:
            meant = f"if a proxy serves the relay below {shown(prefix)}, it must remove that from the path; "
        return problem(404, Code.NOT_FOUND, f"there is no {shown(request.path)}; {meant}/docs describes the routes")
    # The text says what is wrong with a handshake, with what the client sent.
    detail = " ".join((error.text or error.reason).removeprefix(f"{error.status}: ").split())[:200]
    if isinstance(error, web.HTTPMethodNotAllowed):
        detail = f"{shown(error.method)} is not allowed here; use {' or '.join(sorted(error.allowed_methods))}"
    answer = problem(error.status, Code.INVALID_REQUEST, detail)
    for name in SAYS_WHAT_IS_TAKEN:
        if name in error.headers:
            answer.headers[name] = error.headers[name]
    return answer


def _route_meant(path: str, known: list[str]) -> str:
    """Return the route whose last part is, is called, or is nearly that of a path; "" where there is none."""
    path = path[:_LONGEST_COMPARED].lower()
    last = _last_part(path)
    near = get_close_matches(_ALSO_CALLED.get(last, last), {_last_part(route): None for route in known}, 1, _NEAR)
    routes = [route for route in known if near and _last_part(route) == near[0]]
    return max(routes, key=lambda route: (path.endswith(route), SequenceMatcher(None, path, route).ratio()), default="")


def _last_part(path: str) -> str:
    return path.rstrip("/").rpartition("/")[2].partition(".")[0]


def _prefix_left_on(request: web.Request, known: list[str]) -> str:
    """Return what a proxy seems to have left on the path before a route of ours, mostly nothing."""
    if "X-Forwarded-For" not in request.headers:
        return ""
    return next((request.path.removesuffix(route) for route in reversed(known) if request.path.endswith(route)), "")
