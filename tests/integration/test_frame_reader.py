"""Frames without a mask and floods of frames: refused wherever they begin, and nothing else is."""

import asyncio
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.core.rate_limits import TokenBucket
from relay.web.frame_reader import FrameGuard
from tests.support.raw_socket import HANDSHAKE, masked
from tests.support.running_relay import Running

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
    guard = FrameGuard(recorder, TokenBucket(1, 1_000_000), lambda: None)
    places = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    for start, end in itertools.pairwise(places):
        guard.feed_data(data[start:end])
    return recorder.data


def test_all_else_is_the_readers_concern() -> None:
    recorder = Recorder()
    guard = FrameGuard(recorder, TokenBucket(1, 1_000_000), lambda: None)
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


# -- too much --------------------------------------------------------------------------------------

EMPTY = {"continuation": "008000000000", "text": "818000000000", "binary": "828000000000", "close": "888000000000",
         "ping": "898000000000", "pong": "8a8000000000"}  # fmt: skip
LARGE = frame(4096, is_masked=True)


def flooded_after(data: bytes, size: int, allowed: float, *, is_refused: bool = True) -> int | None:
    """Feed so many bytes at a time; return after how many bytes it was too much, None: it was not."""
    recorder, stops = Recorder(), [0]

    def stop() -> None:
        stops[0] += 1

    guard = FrameGuard(recorder, TokenBucket(1e-9, allowed), stop)
    for start in range(0, len(data), size):
        guard.feed_data(data[start : start + size])
        assert guard.is_flooded == bool(stops[0])
        if guard.is_flooded:
            before = len(recorder.data)
            guard.feed_data(b"\x8a\x80abcd" * 100)
            assert len(recorder.data) == before
            assert recorder.data.endswith(REFUSED) or not is_refused
            return start
    assert recorder.data == data
    return None


@pytest.mark.parametrize("kind", EMPTY)
def test_frames_of_every_kind_count(kind: str) -> None:
    one = bytes.fromhex(EMPTY[kind])
    # All their bytes together count as a seventh of a frame.
    assert flooded_after(one * 100, 6, 100.2) is None
    assert flooded_after(one * 101, 6, 100.2) == 600
    assert flooded_after(one * 101, 606, 100.2) == 0


def test_bytes_count_as_frames_do() -> None:
    assert flooded_after(LARGE * 40, len(LARGE), 100) is None
    assert flooded_after(LARGE * 60, len(LARGE), 100) is not None
    # However large a frame is, and however it comes.
    endless = b"\x82\xff\x7f" + b"\xff" * 7 + bytes(4)
    assert flooded_after(endless + b"x" * 4096 * 60, 1024, 100) is None
    assert flooded_after(endless + b"x" * 4096 * 120, 1024, 100, is_refused=False) is not None


def test_byte_by_byte_costs_most() -> None:
    assert flooded_after(LARGE, 1, 100) == 50
    assert flooded_after(LARGE, 1, 9000) is None


def test_flood_in_the_middle_of_a_frame_is_refused_after_its_end() -> None:
    recorder = Recorder()
    guard = FrameGuard(recorder, TokenBucket(1e-9, 2), lambda: None)
    guard.feed_data(b"\x81\x85abcd12")
    guard.feed_data(b"3")
    assert guard.is_flooded
    assert recorder.data == b"\x81\x85abcd12\0\0\0" + REFUSED
