"""What the reader of one client keeps: nothing, once it is closed or has read the end."""

import gc
import weakref
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from relay.web.ws.messages import MessageParser
from tests.support.websocket_cases import CLOSE, TEXT, client_frame, deflated


@contextmanager
def without_garbage_collector() -> Iterator[None]:
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


ENDS = {
    "it is closed": (b"", False),
    "it is closed in the middle of a frame": (b"\x81", False),
    "it is closed in the middle of a message": (client_frame(TEXT, b"{", final=False), False),
    "it is closed after a compressed message": (client_frame(TEXT, deflated(b"{}"), reserved=4), True),
    "a close frame came": (client_frame(CLOSE), False),
    "a close frame came within a message": (client_frame(TEXT, final=False) + client_frame(CLOSE), False),
    "a fault came": (client_frame(TEXT, masked=False), False),
    "a text came that is none": (client_frame(TEXT, b"\xff"), False),
    "something came that cannot be unpacked": (client_frame(TEXT, b"\xff\xff\xff", reserved=4), True),
}


@pytest.mark.parametrize(("data", "is_compressed"), ENDS.values(), ids=ENDS)
def test_what_was_read_is_let_go_of_at_once(data: bytes, is_compressed: bool) -> None:
    parser = MessageParser(is_compressed=is_compressed)
    kept = [weakref.ref(one) for one in (parser._protocol, parser._deflate) if one is not None]
    with without_garbage_collector():
        parser.feed_data(client_frame(TEXT, b"{}"))
        parser.feed_data(data)
        parser.close()
        assert [one() for one in kept] == [None] * len(kept)


def test_nothing_is_read_after_it_is_closed() -> None:
    parser = MessageParser(is_compressed=False)
    parser.close()
    parser.close()
    assert parser.feed_data(client_frame(TEXT, b"{}")) == (True, b"")
    assert parser.drain() == []
