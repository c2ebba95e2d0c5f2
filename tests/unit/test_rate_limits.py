"""Buckets and shares as arithmetic: the clock is a variable, nothing waits."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from relay.core.rate_limits import Buckets, FairQuota, TokenBucket
from tests.support.examples import examples

PAUSES = st.lists(st.floats(0, 5), min_size=1, max_size=200)


class Clock:
    """A clock that goes when it is told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


# -- one bucket ------------------------------------------------------------------------------------


@given(rate=st.floats(0.1, 100), burst=st.integers(1, 50), pauses=PAUSES)
def test_bucket_never_gives_more_than_burst_and_rate(rate: float, burst: int, pauses: list[float]) -> None:
    clock = Clock()
    bucket = TokenBucket(rate, burst, clock)
    taken = 0
    for pause in pauses:
        clock.now += pause
        taken += bucket.try_acquire()
        assert taken <= burst + rate * clock.now + 1e-6
        assert 0 <= bucket.wait_s <= 1 / rate + 1e-9


@given(rate=st.floats(0.1, 100), burst=st.integers(1, 50), debt=st.integers(1, 5000))
def test_after_the_time_it_names_there_is_a_unit_and_not_before(rate: float, burst: int, debt: int) -> None:
    clock = Clock()
    bucket = TokenBucket(rate, burst, clock)
    bucket.spend(burst - 1)
    assert bucket.wait_s == 0
    bucket.spend(debt)
    wait_s = bucket.wait_s
    assert wait_s == pytest.approx(debt / rate)
    clock.now = wait_s * 0.99
    assert not bucket.try_acquire()
    clock.now = wait_s * 1.01
    assert bucket.try_acquire()


def test_debt_is_paid_at_the_rate(clock: Clock) -> None:
    bucket = TokenBucket(10, 100, clock)
    bucket.spend(250)
    assert bucket.wait_s == pytest.approx(15.1)
    clock.now = 15.0
    assert not bucket.try_acquire()
    clock.now = 15.2
    assert bucket.try_acquire()


def test_a_new_limit_leaves_what_was_used_used(clock: Clock) -> None:
    bucket = TokenBucket(1, 10, clock)
    bucket.spend(4)
    bucket.set_limit(2, 20)
    assert [bucket.try_acquire() for _ in range(17)] == [True] * 16 + [False]
    clock.now = 1.0
    assert [bucket.try_acquire() for _ in range(3)] == [True, True, False]


def test_only_an_untouched_or_refilled_bucket_is_full(clock: Clock) -> None:
    bucket = TokenBucket(1, 2, clock)
    fullness = [bucket.is_full]
    bucket.try_acquire()
    fullness.append(bucket.is_full)
    clock.now = 1.0
    fullness.append(bucket.is_full)
    assert fullness == [True, False, True]


# -- a bucket for each owner -----------------------------------------------------------------------


def test_owners_do_not_use_each_others_units(clock: Clock) -> None:
    buckets: Buckets[str] = Buckets(1, 2, clock)
    assert [buckets.of("alice").try_acquire() for _ in range(3)] == [True, True, False]
    assert buckets.of("bob").try_acquire()


def test_owners_that_are_gone_are_forgotten(clock: Clock) -> None:
    buckets: Buckets[int] = Buckets(1, 5, clock)
    for owner in range(1000):
        buckets.of(owner).try_acquire()
    assert len(buckets) == 1000
    clock.now = 11.0
    buckets.of(-1).try_acquire()
    assert len(buckets) == 1


def test_an_owner_that_used_its_units_is_not_forgotten_before_they_are_back(clock: Clock) -> None:
    buckets: Buckets[str] = Buckets(0.01, 5, clock)
    for _ in range(5):
        buckets.of("greedy").try_acquire()
    for _ in range(20):
        clock.now += 11.0
        buckets.of("other")
    # 220 s at one unit in 100 s.
    assert [buckets.of("greedy").try_acquire() for _ in range(3)] == [True, True, False]


def test_a_flood_of_owners_takes_bounded_memory_and_forgets_the_oldest_first(clock: Clock) -> None:
    buckets: Buckets[int] = Buckets(0.001, 2, clock, most=100)
    for owner in range(100):
        buckets.of(owner).try_acquire()
    buckets.of(0).try_acquire()
    for owner in range(100, 150):
        buckets.of(owner).try_acquire()
    assert len(buckets) == 100
    # 0 was used lately and is remembered, 1 was forgotten.
    assert not buckets.of(0).try_acquire()
    assert [buckets.of(1).try_acquire() for _ in range(3)] == [True, True, False]


def test_a_new_limit_holds_for_those_who_used_something_too(clock: Clock) -> None:
    buckets: Buckets[str] = Buckets(1, 1, clock)
    assert buckets.of("alice").try_acquire()
    buckets.set_limit(1, 3)
    assert [buckets.of("alice").try_acquire() for _ in range(3)] == [True, True, False]
    assert [buckets.of("bob").try_acquire() for _ in range(4)] == [True, True, True, False]


# -- shares ----------------------------------------------------------------------------------------


def fill(shares: FairQuota[str, int], owner: str, carried: set[int], most: int) -> int:
    """Let an owner open as many as it can; return how many these are."""
    before = len(carried)
    while shares.may_open(owner, carried, most) and len(carried) <= most:
        key = len(carried)
        shares.opened(key, owner, carried)
        carried.add(key)
    return len(carried) - before


def test_greedy_owners_leave_something_for_each_that_comes_later() -> None:
    shares: FairQuota[str, int] = FairQuota()
    carried: set[int] = set()
    taken = [fill(shares, owner, carried, 2000) for owner in ("a", "b", "c", "d", "e", "f")]
    assert taken == [1001, 500, 250, 125, 63, 31]


@pytest.mark.parametrize(("most", "taken"), [(1, 1), (2, 2), (3, 2), (10, 6)])
def test_a_single_owner_ends_at_about_half(most: int, taken: int) -> None:
    assert fill(FairQuota(), "a", set(), most) == taken


def test_nothing_is_opened_when_all_are() -> None:
    shares: FairQuota[str, int] = FairQuota()
    assert not shares.may_open("a", set(range(5)), 5)
    assert not shares.may_open("a", set(range(6)), 5)


def test_what_is_closed_counts_no_more() -> None:
    shares: FairQuota[str, int] = FairQuota()
    carried: set[int] = set()
    fill(shares, "a", carried, 100)
    assert not shares.may_open("a", carried, 100)
    carried -= set(range(10))
    assert shares.may_open("a", carried, 100)


class Sharing(RuleBasedStateMachine):
    """Owners open and close at random; `held` is the truth."""

    MOST = 24

    def __init__(self) -> None:
        super().__init__()
        self.shares: FairQuota[str, int] = FairQuota()
        self.held: dict[int, str] = {}

    @rule(owner=st.sampled_from("abcd"), key=st.integers(0, 40))
    def open(self, owner: str, key: int) -> None:
        if key in self.held:
            return
        count = Counter(self.held.values())[owner]
        free = self.MOST - len(self.held)
        may = self.shares.may_open(owner, self.held, self.MOST)
        assert may == (free > 0 and count <= free)
        if may:
            self.shares.opened(key, owner, self.held)
            self.held[key] = owner

    @rule(key=st.integers(0, 40))
    def close(self, key: int) -> None:
        self.held.pop(key, None)

    @invariant()
    def memory_is_bounded(self) -> None:
        assert len(self.shares) <= 2 * self.MOST + 101


TestSharing = Sharing.TestCase
TestSharing.settings = settings(max_examples=examples(15), stateful_step_count=60)
