"""One of a thing is no plural, also in what the store says while its disk is full."""

import logging

import pytest

from relay.core.counted import counted
from relay.storage.health import Problems
from relay.storage.write_queue import WriteQueue


@pytest.mark.parametrize(("number", "said"), [(0, "0 candles"), (1, "1 candle"), (12000, "12,000 candles")])
def test_nouns_agree_with_their_number(number: int, said: str) -> None:
    assert counted(number, "candle") == said


def test_the_store_says_how_many_candles_wait(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    queue = WriteQueue(10)
    problems = Problems(queue)
    queue.candles = 1
    problems.note("write", "the disk is full")
    problems.clear("write")
    assert caplog.messages == [
        "store cannot write: the disk is full; 1 candle waiting",
        "store works again; 1 candle waiting, 0 dropped",
    ]
