"""The whole way of a subscription (past, splice, live) with any latencies and interleavings: no sockets, no waiting."""

import pytest
from hypothesis import Phase, given, settings

from tests.support.examples import examples
from tests.support.subscription_plays import PLAYS, Play, faults_of, plays


@pytest.mark.parametrize("name", PLAYS)
def test_a_subscription_is_one_sequence(name: str) -> None:
    assert faults_of(PLAYS[name]) == []


@settings(max_examples=examples(10), phases=(Phase.explicit, Phase.generate))
@given(plays)
def test_any_subscription_is_one_sequence(play: Play) -> None:
    assert faults_of(play) == []
