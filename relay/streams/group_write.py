"""Writing what groups are to be sent: to each member through its transport, or past them to all in one call.

`_native_write.c` is built where there is a compiler; without it all is as with it, but takes more CPU.
"""

from collections.abc import Callable
from importlib import import_module
from typing import Protocol, cast

from relay.streams.outbox import HIGH_WATER, Transport
from relay.streams.subscriptions import Subscriber

SendAll = Callable[[list[bytes], list[int]], list[tuple[int, int]] | None]
"""Sends bytes to sockets; returns which took less, by their index, and how many bytes those took."""


class ExtraInfo(Protocol):
    """The part of `asyncio.BaseTransport` that tells of its socket."""

    def get_extra_info(self, name: str, /) -> object: ...


def native_send_all() -> SendAll | None:
    """Return the call that was built, None where it was not."""
    try:
        return cast(SendAll, import_module("relay.streams._native_write").send_all)
    except ImportError:
        return None


def descriptor_of(transport: ExtraInfo) -> int | None:
    """Return the descriptor of a transport's socket; None where what is written to it is not what is sent (TLS)."""
    sock = transport.get_extra_info("socket")
    fileno = cast(Callable[[], int] | None, getattr(sock, "fileno", None))
    if fileno is None or transport.get_extra_info("ssl_object") is not None:
        return None
    descriptor = fileno()
    return None if descriptor < 0 else descriptor


class TransportWriter:
    """Writes to each member of a group through its transport."""

    def __init__(self) -> None:
        self._lagging: list[Subscriber] = []

    def write(self, members: dict[Subscriber, Transport], data: bytes) -> None:
        """Write to all members of a group."""
        lagging: list[Transport] = []
        # `Outbox.write` without its calls: this loop is where a burst's own time goes.
        for transport in members.values():
            if transport.is_closing():
                continue
            try:
                transport.write(data)
            except RuntimeError:
                # uvloop: the connection is gone, and its end is on the way to us.
                continue
            if transport.get_write_buffer_size() > HIGH_WATER:
                lagging.append(transport)
        if lagging:
            self._lagging += [one for one, transport in members.items() if transport in lagging]

    def finish(self) -> list[Subscriber]:
        """Return those who lag from now on. To be called in the same callback of the event loop as `write`."""
        lagging, self._lagging = self._lagging, []
        return lagging


class NativeWriter(TransportWriter):
    """Writes to all members of several groups in one call.

    Why no descriptor can be another's: a transport closes its socket in a later callback of the event loop than the one
    in which it begins to say `is_closing`, however the connection ends, and no callback runs from `write` to the end of
    `finish`. So the socket of a transport that says no is open until then; and it is the transport's own, since a
    number is not given away again while it is open. What a socket does not take, or fails at, goes through the
    transport, which waits or ends as always; and where something waits in a transport, that is not overtaken.
    """

    def __init__(self, send_all: SendAll) -> None:
        super().__init__()
        self._send_all = send_all
        self._subscribers: list[Subscriber] = []
        self._descriptors: list[int] = []
        self._data: list[bytes] = []

    def write(self, members: dict[Subscriber, Transport], data: bytes) -> None:
        """Write to all members of a group: to most of them at `finish`."""
        others: dict[Subscriber, Transport] | None = None
        for subscriber, transport in members.items():
            descriptor = subscriber.descriptor
            if descriptor is None or transport.get_write_buffer_size():
                others = others or {}
                others[subscriber] = transport
            elif not transport.is_closing():
                self._subscribers.append(subscriber)
                self._descriptors.append(descriptor)
                self._data.append(data)
        if others:
            super().write(others, data)

    def finish(self) -> list[Subscriber]:
        """Write what was left to this call; return those who lag from now on."""
        subscribers, descriptors, data = self._subscribers, self._descriptors, self._data
        self._subscribers, self._descriptors, self._data = [], [], []
        for index, sent in self._send_all(data, descriptors) or ():
            subscriber = subscribers[index]
            super().write({subscriber: subscriber.outbox.transport}, data[index][sent:])
        return super().finish()


def new_writer(send_all: SendAll | None) -> TransportWriter:
    """Return a writer that uses a native call, if there is one."""
    return TransportWriter() if send_all is None else NativeWriter(send_all)
