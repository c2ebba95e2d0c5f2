"""Frames without a mask: refused wherever they begin, and nothing else is."""

import asyncio
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.web.masks import MaskGuard
from tests.raw import HANDSHAKE, masked
from tests.running import Running

PING = b'{"action":"ping"}'
REFUSED = b"\xf0\x80"


class Recorder:
    """Stands where the reader does."""

    def __init__(self) -> None:
        self.data = b""

    def feed_data(self, data: bytes) -> tuple[bool, bytes]:
        self.data += data
        return False, b""


def frame(size: int, *, is_masked: bool) -> bytes:
    # Its content looks like heads without a mask.
    bit, body = (0x80, b"\x81" * 4 + b"\x81\x05" * size) if is_masked else (0, b"\x81\x85" * size)
    body = body[: size + 4 if is_masked else size]
    if size < 126:
        return bytes((0x81, bit | size)) + body
    if size < 1 << 16:
        return bytes((0x81, bit | 126)) + size.to_bytes(2, "big") + body
    return bytes((0x81, bit | 127)) + size.to_bytes(8, "big") + body


def passed(data: bytes, cuts: list[int]) -> bytes:
    """Return what the reader gets when the data come in pieces."""
    recorder = Recorder()
    guard = MaskGuard(recorder)
    places = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    for start, end in itertools.pairwise(places):
        guard.feed_data(data[start:end])
    return recorder.data


def test_all_else_is_the_readers_concern() -> None:
    recorder = Recorder()
    guard = MaskGuard(recorder)
    guard.feed_data(b"\x81\x80abcd")
    assert guard.data == recorder.data == b"\x81\x80abcd"
    assert not hasattr(guard, "other")


sizes = st.lists(st.sampled_from([0, 1, 2, 17, 125, 126, 127, 4096, 65_535, 65_536]), max_size=5)


@given(sizes=sizes, cuts=st.lists(st.integers(0, 1 << 20), max_size=20))
def test_masked_frames_pass_as_they_are_however_they_are_cut(sizes: list[int], cuts: list[int]) -> None:
    data = b"".join(frame(size, is_masked=True) for size in sizes)
    assert passed(data, cuts) == data
    assert passed(data[:300], list(range(300))) == data[:300]


@given(sizes=sizes, bad=st.sampled_from([0, 1, 125, 126, 65_536]), cuts=st.lists(st.integers(0, 1 << 20), max_size=20))
def test_frame_without_mask_never_reaches_the_reader(sizes: list[int], bad: int, cuts: list[int]) -> None:
    before = b"".join(frame(size, is_masked=True) for size in sizes)
    got = passed(before + frame(bad, is_masked=False), [*cuts, len(before) + 1])
    assert got.startswith(before + REFUSED)


async def close_code(reader: asyncio.StreamReader) -> tuple[int, int]:
    """Read to the end; return how many messages came before the close frame, and its code."""
    count = 0
    async with asyncio.timeout(30):
        while True:
            first, size = await reader.readexactly(2)
            if size == 126:
                size = int.from_bytes(await reader.readexactly(2), "big")
            body = await reader.readexactly(size)
            if first == 0x88:
                assert await reader.read() == b""
                return count, int.from_bytes(body[:2], "big")
            count += 1


@pytest.mark.parametrize(
    "sent",
    [
        b"\x81" + bytes([len(PING)]) + PING,
        b"\x8a\x00",
        b"\x88\x02\x03\xe8",
        b"\x81\x7e\x01\x00" + b" " * 256,
    ],
    ids=["text", "pong", "close", "long text"],
)
async def test_frame_without_mask_closes_with_1002(relay: Running, sent: bytes) -> None:
    host, port = relay.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(HANDSHAKE)
    await reader.readuntil(b"\r\n\r\n")
    # What came before it is answered: the greeting and a pong.
    writer.write(masked(PING) + sent + masked(PING))
    assert await close_code(reader) == (2, 1002)
    writer.close()
