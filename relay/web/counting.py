"""Counts HTTP requests by route and status, for the metrics."""

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable

from aiohttp import web
from aiohttp.typedefs import Middleware

from relay.measures import Histogram
from relay.web.problems import Handler

BOUNDS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
CLIENT_LEFT = 499
"""Not on the wire: the client was gone before there was an answer."""


class Requests:
    """How many requests each route answered and how. A WebSocket is counted when it begins, and not timed."""

    def __init__(self) -> None:
        self.answered: Counter[tuple[str, int]] = Counter()
        self.durations: dict[str, Histogram] = {}

    def count(self, route: str, status: int, seconds: float | None) -> None:
        """Count one answer; None: it is not timed."""
        self.answered[(route, status)] += 1
        if seconds is not None:
            durations = self.durations.get(route)
            if durations is None:
                durations = self.durations[route] = Histogram(BOUNDS_S)
            durations.observe(seconds)


def route_of(request: web.Request) -> str:
    """Return the pattern that the path fits, never the path itself: a client can make up paths without end."""
    resource = request.match_info.route.resource
    return "unmatched" if resource is None else resource.canonical


def count_requests(requests: Requests) -> Middleware:
    """Return the middleware, to be put before all others: what they refuse counts too."""

    @web.middleware
    def count(request: web.Request, handler: Handler) -> Awaitable[web.StreamResponse]:
        # A frame more for as long as a WebSocket is open would be one more for each client.
        return handler(request) if is_websocket(request) else timed(request, handler)

    async def timed(request: web.Request, handler: Handler) -> web.StreamResponse:
        started = time.monotonic()
        status = 500
        try:
            answer = await handler(request)
            status = answer.status
        except web.HTTPException as answer:
            status = answer.status
            raise
        except asyncio.CancelledError:
            status = CLIENT_LEFT
            raise
        finally:
            requests.count(route_of(request), status, time.monotonic() - started)
        return answer

    return count


def is_websocket(request: web.Request) -> bool:
    """Say whether a request asks for a WebSocket."""
    return request.headers.get("Upgrade", "").lower() == "websocket"


def count_websockets(requests: Requests) -> Callable[[web.Request, web.StreamResponse], Awaitable[None]]:
    """Return the handler of `on_response_prepare` that counts what the middleware leaves out."""

    async def count(request: web.Request, answer: web.StreamResponse) -> None:
        if is_websocket(request):
            requests.count(route_of(request), answer.status, None)

    return count
