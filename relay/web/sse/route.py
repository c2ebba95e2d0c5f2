"""The route of Server-Sent Events: lets a client in, answers with a head and the first events, and hands it over.

The answer has no length and no chunks: it ends with the connection, so that what is sent to a client is the same bytes
for all that have the same streams.
"""

import asyncio
import socket

from aiohttp import web

from relay.core.errors import Code, RequestError
from relay.protocol import event_stream
from relay.protocol.client_requests import PastWanted, Request, SubscribeOptions
from relay.protocol.positions import parse_position
from relay.streams.group_write import descriptor_of
from relay.web.access.access import EVENTS
from relay.web.aiohttp_seams import SENT
from relay.web.contract import queries
from relay.web.inlet import inlet_of
from relay.web.sse.connection import EventConnection
from relay.web.ws.route import CLIENTS, Clients
from relay.web.ws.socket import bound_kernel_buffer

LEAST_RETRY_MS, RETRY_SPREAD_MS = 2_000, 3_000
"""A client comes back after so long: not all at once, and not before a relay that ends has stopped listening."""
UNANSWERED_MS = 60_000
"""A client whose machine takes nothing for so long is gone; a slow one was told before that it is."""
LOOK_S = 1.0
HEADERS = {
    "Content-Type": event_stream.CONTENT_TYPE,
    "Cache-Control": "no-cache, no-transform",
    "Connection": "close",
    # nginx would keep events back until it has a page of them.
    "X-Accel-Buffering": "no",
    "X-Content-Type-Options": "nosniff",
}


async def events(request: web.Request) -> web.StreamResponse:
    """Let one client in and leave it to its connection."""
    asked = queries.EVENTS.read(request.query.items())
    last = request.headers.get("Last-Event-ID")
    position = parse_position(last) if last else asked.last_event_id
    if request.can_read_body:
        raise RequestError(Code.INVALID_REQUEST, "this request has no body")
    clients = request.app[CLIENTS]
    access, head = clients.context.access, await _head(request)
    caller = access.admit(request)
    transport, inlet = request.transport, inlet_of(request.transport)
    if transport is None or transport.is_closing():
        access.leave(caller)
        return SENT
    if inlet is not None:
        inlet.guard(None)
        inlet.begin_websocket()
        # aiohttp may have been given another one, which is slower.
        transport = inlet.transport or transport
    bound_kernel_buffer(transport)
    _bound_silence(transport)
    is_handed_over = inlet is not None and inlet.may_hand_over
    descriptor = descriptor_of(transport) if is_handed_over else None
    connection = EventConnection(clients.context, clients, transport, caller, position, descriptor)
    number = connection.subscriber.id
    transport.write(head + event_stream.opening(LEAST_RETRY_MS + number * 997 % RETRY_SPREAD_MS) + _greeting(clients))
    clients.came(connection)
    past = PastWanted(asked.bars, asked.since)
    options = SubscribeOptions(asked.throttle_ms, asked.closed_only, asked.extended)
    connection.subscribe(Request("subscribe", None, tuple((name, "") for name in asked.streams), options, past))
    if inlet is not None and is_handed_over:
        inlet.hand_over(connection)
    else:
        await connection.until_lost(_until_lost(request) if inlet is None else inlet.until_lost())
    return SENT


async def _head(request: web.Request) -> bytes:
    """Return the head of the answer, with what the application adds to every one."""
    answer = web.StreamResponse(headers=HEADERS)
    await request.app.on_response_prepare.send(request, answer)
    lines = [f"{name}: {value}\r\n" for name, value in answer.headers.items()]
    return "".join(["HTTP/1.1 200 OK\r\n", *lines, "\r\n"]).encode()


def _greeting(clients: Clients) -> bytes:
    return event_stream.events(clients.greet())


async def _until_lost(request: web.Request) -> None:
    """Wait for the end of a connection at which another server listens."""
    while request.transport is not None:  # noqa: ASYNC110  no event tells
        await asyncio.sleep(LOOK_S)


def _bound_silence(transport: asyncio.Transport) -> None:
    """Have the kernel give up a peer that acknowledges nothing: nobody answers a heartbeat."""
    sock = transport.get_extra_info("socket")
    if sock is not None and hasattr(socket, "TCP_USER_TIMEOUT"):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNANSWERED_MS)


ROUTES = [web.get(EVENTS, events, allow_head=False)]
