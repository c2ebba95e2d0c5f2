"""What every request passes on its way to a route, and its answer on the way back: one middleware, in one order."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection
from typing import Protocol

from aiohttp import web

from relay.web.access.access import Access, is_websocket
from relay.web.idle_connections import IdleConnections
from relay.web.inlet import FORGOTTEN_BYTES, LINGER_S, inlet_of
from relay.web.problems import problem_of, problem_of_routing
from relay.web.request_counts import RequestCounts, route_of

CLIENT_LEFT = 499
"""Not on the wire: the client was gone before there was an answer."""

TOO_MANY = 429

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class ErrorSpeaker(Protocol):
    """What says errors in a protocol of its own."""

    def answer_of(self, request: web.Request, error: Exception) -> web.StreamResponse:
        """Return the answer for an error."""


class Middleware:
    """Asks `access` who may enter, answers every error as a problem, and counts: what is refused counts too.

    `speaks_for` returns what speaks another protocol on a path, and has errors in that; None for the relay's own, whose
    `routes` are.
    """

    def __init__(
        self,
        idle_connections: IdleConnections,
        access: Access,
        requests: RequestCounts,
        speaks_for: Callable[[web.Request], ErrorSpeaker | None],
        routes: Collection[str],
    ) -> None:
        self._idle_connections = idle_connections
        self._access = access
        self._requests = requests
        self._speaks_for = speaks_for
        self._routes = routes

    @web.middleware
    async def enter(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Let a request in or refuse it. A WebSocket is counted when it begins, and not timed."""
        self._idle_connections.greet(request)
        inlet = inlet_of(request.transport)
        has_more = inlet is not None and not request.content.is_eof()
        if inlet is not None and has_more:
            # No route takes a body.
            inlet.stop(FORGOTTEN_BYTES)
        started = None if is_websocket(request) else time.monotonic()
        status = CLIENT_LEFT
        try:
            answer = self._access.check(request) or await handler(request)
            status = answer.status
        except web.HTTPException as error:
            status = error.status
            if status < 400:
                raise
            speaker = self._speaks_for(request)
            if speaker is None:
                answer = problem_of_routing(request, error, self._routes)
            else:
                answer = speaker.answer_of(request, error)
            status = answer.status
        except Exception as error:  # noqa: BLE001 - the last line of defence: clients get no traceback
            speaker = self._speaks_for(request)
            answer = problem_of(error) if speaker is None else speaker.answer_of(request, error)
            status = answer.status
            if status == TOO_MANY and inlet is not None and not inlet.may_go_on():
                answer.force_close()
        finally:
            if started is not None:
                self._requests.count(route_of(request), status, time.monotonic() - started)
        if has_more:
            answer.force_close()
            await answer.prepare(request)
            await answer.write_eof()
            # To close while a body is on its way resets the connection, and the client would not see the answer.
            await asyncio.sleep(LINGER_S)
        return answer

    async def count_websocket(self, request: web.Request, answer: web.StreamResponse) -> None:
        """Count what `enter` leaves out; a handler of `on_response_prepare`."""
        if is_websocket(request):
            self._requests.count(route_of(request), answer.status, None)
