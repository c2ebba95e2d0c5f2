"""Streams that the relay builds, with any latencies and interleavings: judged as all others, by candles added up."""

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from tests.support.subscription_plays import PLAYS, Play, faults_of, plays

LONGER = {"1s": "1m", "1m": "3m"}


def built(play: Play) -> Play:
    """Have the venue lack the interval, and play until some long candles are over."""
    length_s = 60 if play.interval == "1s" else 180
    return play._replace(base=play.interval, interval=LONGER[play.interval], lasts_s=play.lasts_s + 2 * length_s)


@pytest.mark.parametrize("name", PLAYS)
def test_a_subscription_to_a_built_stream_is_one_sequence(name: str) -> None:
    assert faults_of(built(PLAYS[name])) == []


@settings(max_examples=150, phases=(Phase.explicit, Phase.generate))
@given(plays)
def test_any_subscription_to_a_built_stream_is_one_sequence(play: Play) -> None:
    assert faults_of(built(play)) == []


@settings(max_examples=150, phases=(Phase.explicit, Phase.generate))
@given(plays, st.sampled_from([3, 7, 9]))
def test_any_subscription_is_one_sequence_where_shorter_candles_are_often_not_there(play: Play, quiet: int) -> None:
    # Nothing says then that a row which is left out was there.
    assert faults_of(built(play._replace(quiet=quiet, lacks_s=(0.0, 0.0)))) == []
