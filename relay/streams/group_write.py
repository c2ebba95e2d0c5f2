"""Writing what groups are to be sent: to each member through its transport, or past them to all in one call.

`_native_write.c` is built where there is a compiler; without it all is as with it, but takes more CPU.
"""

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Protocol, cast

from relay.streams.outbox import HIGH_WATER, Transport
from relay.streams.subscriptions import Group, GroupSockets, Subscriber

SendAll = Callable[[list[bytes], list[list[int]]], list[tuple[int, int, int]] | None]
"""Sends bytes to lists of sockets; returns which took less, by the index of their list and in it, and how many bytes.
"""


class ExtraInfo(Protocol):
    """The part of `asyncio.BaseTransport` that tells of its socket."""

    def get_extra_info(self, name: str, /) -> object: ...


def native_send_all() -> SendAll | None:
    """Return the call that was built, None where it was not."""
    try:
        return cast(SendAll, import_module("relay.streams._native_write").send_to_groups)
    except (ImportError, AttributeError):
        # In a checkout the one of an earlier version may be left.
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

    def write(self, group: Group, data: bytes) -> None:
        """Write to all members of a group."""
        self.write_to(group.members, data)

    def write_to(self, members: Mapping[Subscriber, Transport], data: bytes) -> None:
        """Write to subscribers, who may be a part of a group."""
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

    Why no descriptor can be another's: who has one loses it, or leaves, before `connection_lost` returns, and only then
    a transport closes its socket, however the connection ends; no callback of the event loop runs from `write` to the
    end of `finish`. A number is not given away again while its socket is open. What a socket does not
    take, or fails at, goes through the transport, which waits or ends as always; and where something waits in a
    transport, that is not overtaken: after each write through one of its transports a group has no `sockets` until all
    are looked at again.
    """

    def __init__(self, send_all: SendAll) -> None:
        super().__init__()
        self._send_all = send_all
        self._data: list[bytes] = []
        self._sockets: list[GroupSockets] = []

    def write(self, group: Group, data: bytes) -> None:
        """Write to all members of a group: to most of them at `finish`."""
        sockets = group.sockets
        if sockets is None:
            sockets, is_lasting = self._sockets_of(group.members)
            if is_lasting:
                group.sockets = sockets
        self._leave(sockets, data)

    def write_to(self, members: Mapping[Subscriber, Transport], data: bytes) -> None:
        """Write to subscribers: to most of them at `finish`."""
        self._leave(self._sockets_of(members)[0], data)

    def _sockets_of(self, members: Mapping[Subscriber, Transport]) -> tuple[GroupSockets, bool]:
        """Return how members are written now, and whether that holds until one is written through its transport."""
        sockets, is_lasting = GroupSockets([], [], {}), True
        for subscriber, transport in members.items():
            descriptor = subscriber.descriptor
            if descriptor is None:
                sockets.others[subscriber] = transport
            elif transport.get_write_buffer_size() or transport.is_closing():
                sockets.others[subscriber] = transport
                is_lasting = False
            else:
                sockets.subscribers.append(subscriber)
                sockets.descriptors.append(descriptor)
        return sockets, is_lasting

    def _leave(self, sockets: GroupSockets, data: bytes) -> None:
        self._data.append(data)
        self._sockets.append(sockets)
        if sockets.others:
            super().write_to(sockets.others, data)

    def finish(self) -> list[Subscriber]:
        """Write what was left to this call; return those who lag from now on."""
        data, groups = self._data, self._sockets
        self._data, self._sockets = [], []
        for index, place, sent in self._send_all(data, [one.descriptors for one in groups]) or ():
            subscriber = groups[index].subscribers[place]
            if subscriber.group is not None:
                subscriber.group.sockets = None
            super().write_to({subscriber: subscriber.outbox.transport}, data[index][sent:])
        return super().finish()


def new_writer(send_all: SendAll | None) -> TransportWriter:
    """Return a writer that uses a native call, if there is one."""
    return TransportWriter() if send_all is None else NativeWriter(send_all)
