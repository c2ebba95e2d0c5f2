"""What one subscriber has still to be sent: bounded, conflating. Knows a transport, not a socket."""

from typing import Protocol

from relay.core.errors import OutboxFull

HIGH_WATER = 32 * 1024
"""Unsent bytes in the transport above which a subscriber counts as lagging."""
CHUNK = 16 * 1024
"""Bytes given to the transport at a time while a subscriber catches up."""
MOST_KEPT = 1024 * 1024
"""Bytes of closed candles and answers kept for a lagging subscriber; open candles do not count."""


class Transport(Protocol):
    """The part of `asyncio.WriteTransport` that is used."""

    def write(self, data: bytes) -> None: ...
    def get_write_buffer_size(self) -> int: ...
    def is_closing(self) -> bool: ...


class Outbox:
    """Frames for one subscriber, in order.

    While the transport keeps up, frames pass straight through. Above the high-water mark the subscriber lags: open
    candles are kept newest-only per stream, everything else in order and up to `most_kept` bytes, until `drain` has
    written it all.
    """

    __slots__ = (
        "_kept",
        "_kept_bytes",
        "_most_kept",
        "_ordinal",
        "conflated",
        "drained_bytes",
        "drained_frames",
        "is_lagging",
        "progress_at",
        "transport",
    )

    def __init__(self, transport: Transport, most_kept: int = MOST_KEPT) -> None:
        self.transport = transport
        self._most_kept = most_kept
        self._kept: dict[object, bytes] = {}
        self._kept_bytes = 0
        self._ordinal = 0
        self.is_lagging = False
        self.progress_at = 0.0
        self.conflated = 0
        self.drained_bytes = 0
        self.drained_frames = 0

    def write(self, data: bytes) -> bool:
        """Write frames straight to the transport; return False when the subscriber lags from now on.

        Only for a subscriber that does not lag. Never blocks.
        """
        transport = self.transport
        if transport.is_closing():
            return True
        try:
            transport.write(data)
        except RuntimeError:
            # uvloop: the connection is gone, and its end is on the way to us.
            return True
        if transport.get_write_buffer_size() > HIGH_WATER:
            self.is_lagging = True
            return False
        return True

    def send(self, frame: bytes) -> bool:
        """Send a frame that must arrive, after all that was sent before; return False when the subscriber lags.

        Raises `OutboxFull` when too much is waiting.
        """
        if not self.is_lagging:
            return self.write(frame)
        self._keep(frame)
        return False

    def put(self, stream: object, frame: bytes, *, is_closed: bool) -> bool:
        """Leave a frame for a lagging subscriber; an unsent open candle of the same stream is replaced.

        Never blocks. Returns whether one was replaced; `conflated` counts them. Raises `OutboxFull` when closed candles
        pile up.
        """
        is_replaced = self._kept.pop(stream, None) is not None
        if is_replaced:
            self.conflated += 1
        if is_closed:
            self._keep(frame)
        else:
            self._kept[stream] = frame
        return is_replaced

    def forget(self, stream: object) -> None:
        """Drop the unsent open candle of a stream that the subscriber left."""
        self._kept.pop(stream, None)

    def _keep(self, frame: bytes) -> None:
        # One frame may be larger than the bound (a long snapshot); what must not happen is that they pile up.
        if self._kept_bytes and self._kept_bytes + len(frame) > self._most_kept:
            raise OutboxFull(f"more than {self._most_kept} bytes of closed candles and answers are waiting")
        self._ordinal += 1
        self._kept[self._ordinal] = frame
        self._kept_bytes += len(frame)

    def drain(self, now: float) -> bool:
        """Write what is waiting as far as the transport takes it; return True once the subscriber has caught up.

        `now` is remembered in `progress_at` whenever the transport made room. What was written is counted in
        `drained_frames` and `drained_bytes`.
        """
        transport = self.transport
        room = CHUNK - transport.get_write_buffer_size()
        if room <= 0:
            return False
        self.progress_at = now
        batch = []
        kept = self._kept
        while kept and room > 0:
            name = next(iter(kept))
            frame = kept.pop(name)
            if isinstance(name, int):
                self._kept_bytes -= len(frame)
            batch.append(frame)
            room -= len(frame)
        if batch and not transport.is_closing():
            data = b"".join(batch)
            self.drained_frames += len(batch)
            self.drained_bytes += len(data)
            transport.write(data)
        if kept or transport.get_write_buffer_size() > CHUNK:
            return False
        self.is_lagging = False
        return True

    @property
    def waiting_bytes(self) -> int:
        """Bytes that wait here and in the transport."""
        return sum(map(len, self._kept.values())) + self.transport.get_write_buffer_size()
