"""Between a socket and aiohttp: what comes is handed on in slices, one of each connection in a round of the event loop.

aiohttp parses all that one read brings at once, 256 KB with uvloop, and reads on as long as there is something. That
are 43,000 frames or chunks of a body, and whoever sends them without end leaves the loop no time for others.
"""

import asyncio
from contextlib import suppress
from typing import Any

SLICE_BYTES = 16 * 1024


class Slices(asyncio.Protocol):
    """The protocol of one connection; `inner` is aiohttp's. No more is read before what was read is handed on."""

    __slots__ = (
        "_at",
        "_end",
        "_is_held",
        "_is_stopped",
        "_left",
        "_pumping",
        "_rest",
        "inner",
        "slice_bytes",
        "transport",
    )

    def __init__(self, inner: asyncio.Protocol) -> None:
        self.inner = inner
        self.transport: asyncio.Transport | None = None
        self.slice_bytes = SLICE_BYTES
        self._rest = b""
        self._at = 0
        self._pumping: asyncio.Handle | None = None
        self._is_held = False
        self._is_stopped = False
        self._left = 0
        self._end: tuple[Exception | None] | None = None

    # -- from the socket ---------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Hand on a slice now, and the rest in the next rounds of the event loop."""
        if self._is_stopped:
            self._left -= len(data)
            if self._left <= 0:
                self._go_by_state()
        elif self._rest or self._is_held or len(data) > self.slice_bytes:
            self._rest = self._rest[self._at :] + data
            self._at = 0
            self._plan()
            self._go_by_state()
        else:
            self.pass_on(data)

    def eof_received(self) -> None:
        """Pass on that the other side sends nothing more."""
        self.inner.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        """End, as soon as all that came before is handed on."""
        self.transport = None
        self._end = (exc,)
        self._finish()

    def pause_writing(self) -> None:
        """Have aiohttp wait."""
        self.inner.pause_writing()

    def resume_writing(self) -> None:
        """Have aiohttp go on."""
        self.inner.resume_writing()

    def pass_on(self, data: bytes) -> None:
        """Hand on one slice."""
        self.inner.data_received(data)

    def _plan(self) -> None:
        if self._pumping is None and self._rest and not self._is_held:
            self._pumping = asyncio.get_running_loop().call_soon(self._pump)

    def _pump(self) -> None:
        self._pumping = None
        if self._is_held or not self._rest:
            return
        end = self._at + self.slice_bytes
        part, self._at = self._rest[self._at : end], end
        if end >= len(self._rest):
            self._rest, self._at = b"", 0
        self.pass_on(part)
        self._plan()
        self._go_by_state()

    def _go_by_state(self) -> None:
        """Read from the socket, or not; end after the last slice."""
        if self._end is not None:
            # aiohttp may be in the middle of what was handed on.
            asyncio.get_running_loop().call_soon(self._finish)
        elif self.transport is not None and not self.transport.is_closing():
            # uvloop says so of a connection that is gone.
            with suppress(RuntimeError):
                if self._is_full():
                    self.transport.pause_reading()
                else:
                    self.transport.resume_reading()

    def _finish(self) -> None:
        if self._end is not None and not self._has_more():
            end, self._end = self._end, None
            self.inner.connection_lost(*end)

    def _has_more(self) -> bool:
        return self._is_held or bool(self._rest)

    def _is_full(self) -> bool:
        """Whether no more is to be read."""
        return self._has_more() or (self._is_stopped and self._left <= 0)

    # -- from aiohttp ------------------------------------------------------------------------------

    def hold(self) -> None:
        """Hand nothing on: aiohttp has enough."""
        self._is_held = True
        self._go_by_state()

    def release(self) -> None:
        """Go on."""
        self._is_held = False
        self._plan()
        self._go_by_state()

    @property
    def is_held(self) -> bool:
        """Whether who is handed things has enough."""
        return self._is_held

    def forget(self) -> None:
        """Hand on nothing of what was read, and wait for nobody to end."""
        self._rest, self._at = b"", 0
        self._is_held = False
        if self._end is not None:
            self._go_by_state()

    def stop(self, most: int = 0) -> None:
        """Hand on nothing more; read and forget at most so many bytes, so that the client sees why it has to go."""
        self.forget()
        self._is_stopped, self._left = True, most
        self._go_by_state()

    def take_rest(self) -> bytes:
        """Return what was read and not handed on, and hand on nothing of it."""
        rest = self._rest[self._at :]
        self.forget()
        return rest

    def guard(self, reader: Any) -> Any:
        """Return what stands before the reader of a WebSocket from now on."""
        return reader


def slices_of(transport: asyncio.BaseTransport | None) -> Slices | None:
    """Return what stands between a socket and aiohttp; None where the connection is gone, or others made it."""
    protocol = None if transport is None else transport.get_protocol()
    return protocol if isinstance(protocol, Slices) else None


class HeldTransport(asyncio.Transport):
    """A transport as aiohttp sees it where it cannot be told to hold its slices: the pausing is caught here.

    Slower than to be asked: each write passes one function more.
    """

    def __init__(self, transport: asyncio.Transport, slices: Slices) -> None:
        super().__init__()
        self._transport = transport
        self._slices = slices
        self.write = transport.write  # type: ignore[method-assign]
        self.writelines = transport.writelines  # type: ignore[method-assign]

    def pause_reading(self) -> None:
        """Hold what stands before aiohttp."""
        self._slices.hold()

    def resume_reading(self) -> None:
        """Let it go on."""
        self._slices.release()

    def __getattribute__(self, name: str) -> Any:
        """Leave all else to the transport."""
        if name in _OWN:
            return super().__getattribute__(name)
        return getattr(super().__getattribute__("_transport"), name)


_OWN = frozenset({"_transport", "_slices", "write", "writelines", "pause_reading", "resume_reading", "__class__"})
