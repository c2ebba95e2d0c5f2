"""What the relay says as Server-Sent Events, made of the frames of the WebSocket; no I/O.

https://html.spec.whatwg.org/multipage/server-sent-events.html: fields in lines, an empty line after each event. No
message has a line break in it.
"""

from relay.protocol import frames

CONTENT_TYPE = "text/event-stream"
HEARTBEAT = b":\n\n"
"""A comment: clients ignore it, and proxies see that the connection is used."""


def event(frame: bytes) -> bytes:
    """Return a text frame as an event, a ping as a comment."""
    if frame[0] == frames.PING_FRAME[0]:
        return HEARTBEAT
    return b"data: %b\n\n" % frames.text_of(frame)


def events(joined: bytes) -> bytes:
    """Return joined text frames as events."""
    return b"".join([event(one) for one in frames.parted(joined)])


def positioned(events: bytes, position: bytes) -> bytes:
    """Have the last of some events carry a position, if there is one; a comment carries none."""
    if not position or events == HEARTBEAT:
        return events
    return b"%bid: %b\n\n" % (events[:-1], position)


def opening(retry_ms: int) -> bytes:
    """Return what says first after how long a client is to come back."""
    return b"retry: %d\n\n" % retry_ms


def ending(code: int, reason: str) -> bytes:
    """Return the event `close`, which says why the relay ends the connection; a WebSocket has a close frame."""
    return b'event: close\ndata: {"code":%d,"reason":"%b"}\n\n' % (code, reason.encode())
