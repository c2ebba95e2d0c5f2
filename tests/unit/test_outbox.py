"""What one subscriber has still to be sent: order, conflation and bounds."""

import random

import pytest

from relay.core.errors import OutboxFull
from relay.streams.outbox import CHUNK, HIGH_WATER, MOST_KEPT, Outbox
from tests.support.pipe import Pipe


@pytest.fixture
def pipe() -> Pipe:
    return Pipe()


@pytest.fixture
def outbox(pipe: Pipe) -> Outbox:
    return Outbox(pipe)


@pytest.fixture
def lagging(pipe: Pipe, outbox: Outbox) -> Outbox:
    """The outbox of a subscriber whose reader is stalled, with more than the high-water mark in the transport."""
    pipe.is_stalled = True
    assert not outbox.write(b"x" * (HIGH_WATER + 1))
    assert outbox.is_lagging
    return outbox


def test_frames_pass_straight_through_while_the_reader_keeps_up(pipe: Pipe, outbox: Outbox) -> None:
    assert outbox.write(b"a")
    assert outbox.send(b"b")
    assert pipe.read == b"ab"


def test_newest_open_candle_replaces_the_unsent_one(pipe: Pipe, lagging: Outbox) -> None:
    lagging.put("s", b"<open 1>", is_closed=False)
    lagging.put("t", b"<other>", is_closed=False)
    lagging.put("s", b"<open 2>", is_closed=False)
    pipe.go_on()
    assert lagging.drain(1.0)
    assert pipe.read.endswith(b"x<other><open 2>")
    assert lagging.conflated == 1


def test_closed_candle_supersedes_the_open_one_and_is_kept_in_order(pipe: Pipe, lagging: Outbox) -> None:
    lagging.put("s", b"<open 1>", is_closed=False)
    lagging.put("s", b"<closed 1>", is_closed=True)
    lagging.put("s", b"<open 2>", is_closed=False)
    lagging.put("s", b"<closed 2>", is_closed=True)
    lagging.put("s", b"<open 3>", is_closed=False)
    pipe.go_on()
    assert lagging.drain(1.0)
    assert pipe.read.endswith(b"x<closed 1><closed 2><open 3>")


def test_status_and_answers_do_not_disturb_the_open_candle(pipe: Pipe, lagging: Outbox) -> None:
    lagging.put("s", b"<open>", is_closed=False)
    lagging.send(b"<status>")
    pipe.go_on()
    assert lagging.drain(1.0)
    assert pipe.read.endswith(b"x<open><status>")


def test_open_candle_of_a_stream_that_was_left_is_not_sent(pipe: Pipe, lagging: Outbox) -> None:
    lagging.put("s", b"<open>", is_closed=False)
    lagging.forget("s")
    pipe.go_on()
    assert lagging.drain(1.0)
    assert b"<open>" not in pipe.read


def test_closed_candles_beyond_the_bound_are_refused(lagging: Outbox) -> None:
    frame = b"c" * 1000
    for _ in range(MOST_KEPT // len(frame)):
        lagging.put("s", frame, is_closed=True)
    with pytest.raises(OutboxFull):
        lagging.put("s", frame, is_closed=True)


def test_open_candles_never_fill_the_outbox(lagging: Outbox) -> None:
    for number in range(20_000):
        lagging.put(number % 50, b"o" * 200, is_closed=False)
    assert lagging.waiting_bytes - HIGH_WATER - 1 <= 50 * 200


def test_what_was_kept_is_written_in_small_chunks(pipe: Pipe, lagging: Outbox) -> None:
    for _ in range(100):
        lagging.put("s", b"c" * 1000, is_closed=True)
    pipe.take(HIGH_WATER + 1)
    while not lagging.drain(1.0):
        assert pipe.get_write_buffer_size() <= CHUNK + 1000
        pipe.take(5000)
        if len(pipe.read) > HIGH_WATER + 90_000:
            pipe.is_stalled = False
    assert len(pipe.read) + len(pipe.waiting) == HIGH_WATER + 1 + 100_000


def test_nothing_is_written_to_a_closing_transport(pipe: Pipe, outbox: Outbox) -> None:
    pipe.is_gone = True
    assert outbox.write(b"late")
    assert pipe.read == b""


@pytest.mark.parametrize("seed", range(20))
def test_reader_that_stalls_and_returns_at_random_gets_every_closed_candle_in_order(seed: int) -> None:
    rng = random.Random(seed)
    pipe = Pipe()
    outbox = Outbox(pipe)
    streams = [f"s{number}" for number in range(5)]
    clocks = dict.fromkeys(streams, 0)
    closed: list[bytes] = []
    newest: dict[str, bytes] = {}
    for step in range(3000):
        stream = rng.choice(streams)
        is_closed = rng.random() < 0.2
        frame = f"<{stream}:{clocks[stream]}:{'closed' if is_closed else step}>".encode() + b" " * rng.randrange(400)
        newest[stream] = frame
        if is_closed:
            closed.append(frame.rstrip())
            clocks[stream] += 1
        if outbox.is_lagging:
            outbox.put(stream, frame, is_closed=is_closed)
        else:
            outbox.write(frame)
        if rng.random() < 0.01:
            pipe.is_stalled = not pipe.is_stalled
        pipe.take(rng.randrange(600) if not pipe.is_stalled else 0)
        if outbox.is_lagging and rng.random() < 0.2:
            outbox.drain(float(step))
    pipe.go_on()
    while outbox.is_lagging and not outbox.drain(1e9):
        pass
    read = [part + b">" for part in pipe.read.replace(b" ", b"").split(b">")[:-1]]
    assert [frame for frame in read if b"closed" in frame] == closed
    for stream, frame in newest.items():
        own = [part for part in read if part.startswith(f"<{stream}:".encode())]
        assert own[-1] == frame.rstrip()
        times = [int(part.split(b":")[1]) for part in own]
        assert times == sorted(times)
