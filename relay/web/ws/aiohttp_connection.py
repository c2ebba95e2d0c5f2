"""A client whose frames aiohttp reads: where this aiohttp does not let go of a connection."""

import asyncio

import aiohttp
from aiohttp import WebSocketError, WSCloseCode, WSMsgType, web

from relay.web.inlet import inlet_of
from relay.web.ws.connection import Rest
from relay.web.ws.inbox_connection import InboxConnection
from relay.web.ws.messages import NO_CODE, MessageKind, Received

_LOOK_S = 0.02
_KINDS = {WSMsgType.BINARY: MessageKind.BINARY, WSMsgType.PING: MessageKind.PING, WSMsgType.PONG: MessageKind.PONG}


class AiohttpConnection(InboxConnection):
    """Reads by aiohttp, in the task of the route."""

    __slots__ = ()

    async def serve(self, request: web.Request, ws: web.WebSocketResponse, first: Rest | None = None) -> None:
        """Do what is `first`, then answer requests until the client is gone."""
        try:
            self.do_first(first)
            kind = None
            while kind not in (MessageKind.CLOSE, MessageKind.FAULT):
                # `receive` may never wait.
                await asyncio.sleep(0)
                while self.is_full and not self._transport.is_closing():  # noqa: ASYNC110  no event tells of both
                    await asyncio.sleep(_LOOK_S)
                received = received_of(await ws.receive())
                if received is None:
                    break
                kind = received.kind
                if self._transport.is_closing():
                    # Nobody reads the answers, but it may say how it left.
                    self.hear(received)
                else:
                    self.take((received,))
            while request.transport is not None:  # noqa: ASYNC110  no event tells
                await asyncio.sleep(_LOOK_S)
        finally:
            self.lose()
            self._transport.close()

    def forget(self, most: int) -> None:
        """Read and forget at most so many bytes, and hand on nothing more."""
        inlet = inlet_of(self._transport)
        if inlet is not None:
            inlet.stop(most)


def received_of(message: aiohttp.WSMessage) -> Received | None:
    """Return what aiohttp read; None: the connection is lost."""
    if message.type is WSMsgType.TEXT:
        return Received(MessageKind.TEXT, text=message.data)
    if message.type is WSMsgType.CLOSE:
        return Received(MessageKind.CLOSE, code=int(message.data) or NO_CODE)
    if message.type is WSMsgType.ERROR:
        # Else it could not be unpacked.
        is_told = isinstance(message.data, WebSocketError)
        return Received(MessageKind.FAULT, code=int(message.data.code if is_told else WSCloseCode.PROTOCOL_ERROR))
    kind = _KINDS.get(message.type)
    return None if kind is None else Received(kind, body=bytes(message.data))
