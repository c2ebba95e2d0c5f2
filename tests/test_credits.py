import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from providers.credits import SKEW_S, WINDOW_S, Credits
from relay import RateLimited

MIDNIGHT = 1_770_076_800.0


class Time:
    def __init__(self, now: float = MIDNIGHT + 50_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def made(per_minute: int = 8, per_day: int = 800, now: float = MIDNIGHT + 50_000.0) -> tuple[Credits, Time]:
    time = Time(now)
    return Credits(per_minute, per_day, wall=time, monotonic=time), time


def test_credits_come_back_a_window_after_the_answer() -> None:
    limits, time = made()
    spent = limits.take(8)
    time.now += 1000
    assert limits.available() == 0
    limits.settle(spent)
    time.now += WINDOW_S - 0.1
    assert limits.available() == 0
    time.now += 0.2
    assert limits.available() == 8


def test_a_call_above_what_is_left_spends_nothing() -> None:
    limits, time = made()
    limits.settle(limits.take(6))
    time.now += 10
    with pytest.raises(RateLimited, match="8 credits of this minute") as caught:
        limits.take(3)
    assert caught.value.retry_after == WINDOW_S - 10
    assert limits.available() == 2


def test_a_reserve_is_left_to_others() -> None:
    limits, _ = made()
    assert limits.available(2) == 6
    limits.settle(limits.take(6, 2))
    assert (limits.available(2), limits.available()) == (0, 2)


def test_waits_follow_the_slots() -> None:
    limits, time = made(3, 800)
    limits.settle(limits.take(1))
    time.now += 11
    limits.settle(limits.take(1))
    assert limits.waits(5) == [0.0, 50.0, 61.0, 61.0, 111.0]
    assert limits.waits(3, 2) == [61.0, 122.0, 183.0]
    assert limits.wait_for(2) == 50.0


def test_the_day_ends_at_midnight_and_a_little() -> None:
    limits, time = made(8, 10, MIDNIGHT + 80_000)
    limits.settle(limits.take(8))
    time.now += 100
    assert limits.available() == 2
    limits.settle(limits.take(2))
    time.now += 100
    with pytest.raises(RateLimited, match="10 credits of this day") as caught:
        limits.take(1)
    assert caught.value.retry_after == 6_200 + SKEW_S
    assert limits.waits(1) == [6_200 + SKEW_S]
    time.now += 6_200 + SKEW_S
    assert limits.available() == 8


def test_a_credit_near_midnight_counts_on_both_days() -> None:
    limits, time = made(8, 10, MIDNIGHT - 60)
    limits.settle(limits.take(8))
    time.now += 600
    assert limits.available() == 2


def test_what_others_spend_with_the_key_is_charged() -> None:
    limits, time = made()
    limits.settle(limits.take(1), used=5, left=3)
    assert limits.available() == 3
    assert limits.budgets()[1].used == 5
    time.now += WINDOW_S + 1
    assert limits.available() == 8


def test_a_plan_smaller_than_configured_is_noticed_and_not_charged_to_the_day() -> None:
    limits, _ = made(55)
    limits.settle(limits.take(1), used=1, left=7)
    assert limits.available() == 7
    assert limits.budgets()[1].used == 1


def test_the_server_never_raises_the_limit() -> None:
    limits, _ = made()
    limits.settle(limits.take(8), used=0, left=610)
    assert limits.available() == 0


def test_an_exhausted_minute_and_day_are_believed() -> None:
    limits, time = made()
    limits.exhaust_minute()
    assert limits.available() == 0
    time.now += WINDOW_S + 1
    assert limits.available() == 8
    limits.exhaust_day()
    assert limits.available() == 0
    assert limits.budgets()[1].used == 800
    time.now = MIDNIGHT + 86_400 + SKEW_S
    assert limits.available() == 8


def test_the_budget_says_when_it_frees() -> None:
    limits, time = made()
    limits.settle(limits.take(3))
    time.now += 11
    minute, day = limits.budgets()
    assert minute == ("credits a minute", 8, 3, time.now + 50)
    assert day == ("credits a day", 800, 3, MIDNIGHT + 86_400 + SKEW_S)


@settings(max_examples=300, deadline=None)
@given(
    skew=st.floats(-110, 110),
    start=st.floats(0, 86_400),
    calls=st.lists(
        st.tuples(st.floats(0, 30), st.integers(1, 8), st.floats(0, 20), st.floats(0, 1)), min_size=1, max_size=60
    ),
)
def test_no_server_minute_and_no_server_day_sees_too_many(
    skew: float, start: float, calls: list[tuple[float, int, float, float]]
) -> None:
    """The server's clock differs, calls take their time, and it counts anywhere between request and answer."""
    limits, time = made(8, 40, MIDNIGHT + start)
    minutes: dict[int, int] = {}
    days: dict[int, int] = {}
    for pause, count, latency, where in calls:
        time.now += pause
        if limits.available() < count:
            continue
        spent = limits.take(count)
        counted = time.now + latency * where + skew
        minutes[int(counted // 60)] = minutes.get(int(counted // 60), 0) + count
        days[int(counted // 86_400)] = days.get(int(counted // 86_400), 0) + count
        time.now += latency
        limits.settle(spent)
    assert max(minutes.values(), default=0) <= 8
    assert max(days.values(), default=0) <= 40
