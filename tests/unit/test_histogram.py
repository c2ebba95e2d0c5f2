import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.telemetry.histogram import Histogram


def test_observation_counts_up_to_and_including_its_bound() -> None:
    histogram = Histogram([0.1, 1.0])
    for value in (0.05, 0.1, 0.5, 1.0, 1.5):
        histogram.observe(value)
    assert histogram.counts == [2, 2, 1]
    assert histogram.count == 5
    assert histogram.total == pytest.approx(3.15)


def test_negative_observation_counts_as_nothing_and_lowers_no_sum() -> None:
    histogram = Histogram([0.1])
    histogram.observe(-5.0)
    assert (histogram.counts, histogram.total) == ([1, 0], 0.0)


def test_quantile_of_nothing_is_none() -> None:
    assert Histogram([1.0]).quantile(0.5) is None


def test_quantile_lies_within_the_bucket_that_holds_it() -> None:
    histogram = Histogram([1.0, 2.0, 4.0])
    for value in (0.5, 0.5, 3.0, 3.0):
        histogram.observe(value)
    assert histogram.quantile(0.25) == 0.5
    assert histogram.quantile(0.5) == 1.0
    assert histogram.quantile(0.75) == 3.0
    assert histogram.quantile(1.0) == 4.0


def test_quantile_above_the_largest_bound_is_that_bound() -> None:
    histogram = Histogram([1.0])
    histogram.observe(100.0)
    assert histogram.quantile(0.99) == 1.0


@given(st.lists(st.floats(0, 20), min_size=1), st.floats(0.01, 1))
def test_quantile_is_never_off_by_more_than_a_bucket(values: list[float], share: float) -> None:
    bounds = [0.5, 1.0, 2.0, 5.0, 10.0, 20.0]
    histogram = Histogram(bounds)
    for value in values:
        histogram.observe(value)
    exact = sorted(values)[math.ceil(len(values) * share) - 1]
    lower = max((bound for bound in [0.0, *bounds] if bound < exact), default=0.0)
    upper = min(bound for bound in bounds if bound >= exact)
    found = histogram.quantile(share)
    assert found is not None
    assert lower <= found <= upper
