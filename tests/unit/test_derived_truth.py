"""Streams that the relay builds, with any latencies and interleavings: judged as all others, by candles added up."""

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from tests.support.examples import examples
from tests.support.subscription_plays import PLAYS, Call, Join, Play, faults_of, plays

LONGER = {"1s": "1m", "1m": "3m"}


def built(play: Play) -> Play:
    """Have the venue lack the interval, and play until some long candles are over."""
    length_s = 60 if play.interval == "1s" else 180
    return play._replace(base=play.interval, interval=LONGER[play.interval], lasts_s=play.lasts_s + 2 * length_s)


def built_days(play: Play, hours: str) -> Play:
    """Have the venue lack days, and play from before some hours, or within them, until they are over."""
    return play._replace(base="1m", interval="1d", hours=f"{hours}:1234567", lasts_s=play.lasts_s + 360)


@settings(max_examples=examples(2), phases=(Phase.explicit, Phase.generate))
@given(plays, st.sampled_from(["1559-1602", "1601-1604", "1602-1603"]))
def test_any_subscription_to_built_days_has_nothing_in_them_that_is_traded_between_them(play: Play, hours: str) -> None:
    assert faults_of(built_days(play, hours)) == []


def test_a_day_that_history_leaves_out_for_seconds_is_not_taken_to_be_none() -> None:
    play = Play(
        "1m",
        9.4,
        60.0,
        (Join(2.7, since_s=225, closed_only=True),),
        opens_after_s=0.2,
        calls=(Call(1.5),),
        lacks_s=(1.5, 5.5),
    )
    assert faults_of(built_days(play, "1602-1603")) == []


def test_a_gap_in_days_begins_with_the_first_one_that_was_asked_for_wherever_the_clock_stood() -> None:
    play = Play("1m", 9.4, 60.0, (Join(2.7, since_s=86_400 + 225),), opens_after_s=0.2, broken_s=(0.0, 30.0))
    assert faults_of(built_days(play, "1602-1603")) == []


@pytest.mark.parametrize("name", PLAYS)
def test_a_subscription_to_a_built_stream_is_one_sequence(name: str) -> None:
    assert faults_of(built(PLAYS[name])) == []


def test_what_was_repaired_is_no_gap_for_those_who_join_while_history_fails() -> None:
    joins = (Join(31.0, throttle_ms=5000, stays_s=2.0), Join(13.4, since_s=238), Join(11.5, bars=10, closed_only=True))
    play = Play(
        "1m",
        16.4,
        60.0,
        joins,
        is_closed_only=True,
        opens_after_s=4.2,
        calls=(Call(0.3), Call(2.5, failure="broken"), Call(4.6), Call(3.3), Call(3.6, True, "limited")),
        asks_s=(43.5, 2.3, 31.0),
        mute_s=(39.0, 60.0),
        broken_s=(39.0, 60.0),
    )
    assert faults_of(built(play)) == []


def test_what_was_repaired_before_the_stream_told_anything_is_no_gap_for_those_who_join_while_history_fails() -> None:
    joins = (
        Join(16.2, closed_only=True, again_s=25.0, leaves_first=True, resumes=True),
        Join(9.9, since_s=135, resumes=True),
    )
    play = Play(
        "1m",
        10.3,
        60.0,
        joins,
        is_closed_only=True,
        lag_s=2.0,
        opens_after_s=3.0,
        lives_s=(16.0, 10.0),
        calls=(Call(3.4), Call(7.0, is_computed_late=True), Call(8.2, failure="limited")),
        asks_s=(15.4, 25.5, 20.6),
        mute_s=(5.0, 0.0),
        broken_s=(39.0, 60.0),
        quiet=3,
    )
    assert faults_of(built(play)) == []


@settings(max_examples=examples(10), phases=(Phase.explicit, Phase.generate))
@given(plays)
def test_any_subscription_to_a_built_stream_is_one_sequence(play: Play) -> None:
    assert faults_of(built(play)) == []


def test_what_is_told_by_what_a_second_subscription_learns_is_in_no_snapshot_of_it() -> None:
    play = Play("1m", 0.0, 60.0, (Join(0.0, again_s=0.0),), opens_after_s=0.0, every_s=0.25, quiet=3, spoilt=0)
    assert faults_of(built(play._replace(interval="1s"))) == []


def test_a_part_that_history_leaves_out_for_seconds_is_in_the_candle_in_the_end() -> None:
    joins = (
        Join(14.3, bars=28, since_s=33, closed_only=True, again_s=3.0, leaves_first=True),
        Join(13.6, bars=15, closed_only=True, throttle_ms=700, again_s=3.0, keeps_options=True),
        Join(34.9, throttle_ms=700, again_s=25.0, leaves_first=True),
    )
    play = Play(
        "1m",
        45.5,
        60.0,
        joins,
        opens_after_s=2.2,
        asks_s=(3.9,),
        every_s=4.0,
        mute_s=(2.0, 60.0),
        broken_s=(34.0, 0.0),
        lacks_s=(0.1, 4.1),
        lacks=(2, 4),
        spoilt=513,
        linger_s=0.3,
    )
    assert faults_of(built(play)) == []


@settings(max_examples=examples(10), phases=(Phase.explicit, Phase.generate))
@given(plays, st.sampled_from([3, 7, 9]))
def test_any_subscription_is_one_sequence_where_shorter_candles_are_often_not_there(play: Play, quiet: int) -> None:
    # Nothing says then that a row which is left out was there.
    assert faults_of(built(play._replace(quiet=quiet, lacks_s=(0.0, 0.0)))) == []
