"""Samples of what is stored, held against what a provider says now."""

from relay.core.model import Candle, StreamKey, widened
from relay.core.spans import Span
from relay.history.sample_check import Sample, _compared
from relay.storage.inspect import StoredStream

STORED = [Candle(time, 80.0, 82.0, 79.0, 81.0, 5.0) for time in (0, 60, 120)]


def test_other_values_are_a_difference_unless_they_had_to_be_widened() -> None:
    stream = StoredStream(1, "fake", StreamKey("BTCUSDT", "1m"), 3, 0, 120, [Span(0, 180)], True)
    sample = Sample(stream, Span(0, 180), STORED)
    lifted = widened(STORED[1]._replace(close=82.1))
    assert _compared(sample, [STORED[0], lifted, STORED[2]]).is_equal
    assert _compared(sample, [STORED[0], STORED[1]._replace(close=82.0), STORED[2]]).different == [60]
    assert _compared(sample, [STORED[0], STORED[2]]).unknown == [60]
