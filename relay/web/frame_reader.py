"""The frames of one client: each is counted, and has to have a mask."""

from relay.network.websocket_frames import FrameCounter


class FrameGuard(FrameCounter):
    """Stands before the reader of a client's WebSocket; the first frame without a mask is refused, as is a flood."""

    __slots__ = ()
    wants_mask = True
