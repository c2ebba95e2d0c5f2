import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from providers.twelve_data.credits import MOST_PAUSE_S, SKEW_S, WINDOW_S, Credits, CreditUse
from providers.twelve_data.stated import Stated, StatedSpan, stated_limit
from relay import RateLimited
from tests.support.examples import examples

MIDNIGHT = 1_770_076_800.0


class Time:
    def __init__(self, now: float = MIDNIGHT + 50_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def made(per_minute: int = 8, per_day: int = 800, now: float = MIDNIGHT + 50_000.0) -> tuple[Credits, Time]:
    time = Time(now)
    return Credits(per_minute, per_day, wall=time, monotonic=time), time


POLL, HISTORY = CreditUse.POLL, CreditUse.HISTORY


def spend(limits: Credits, count: int, use: CreditUse = HISTORY, **said: int) -> None:
    limits.settle(limits.spend(count, use), **said)


def test_credits_come_back_a_window_after_the_answer() -> None:
    limits, time = made()
    spent = limits.spend(8, HISTORY)
    time.now += 1000
    assert limits.available(HISTORY) == 0
    limits.settle(spent)
    time.now += WINDOW_S - 0.1
    assert limits.available(HISTORY) == 0
    time.now += 0.2
    assert limits.available(HISTORY) == 8


@pytest.mark.parametrize(("parts", "spent"), [(3, 500), (3, 0), (8, 10), (2, 799)])
def test_parts_together_spend_no_more_than_the_plan(parts: int, spent: int) -> None:
    time = Time(MIDNIGHT + 3_600.0)
    relays = [Credits(8, 800, wall=time, monotonic=time) for _ in range(parts)]
    for limits in relays:
        limits.correct(spent, None, None)
        limits.divide(parts)
    minutes, days, each = [0], [spent, 0], [0] * parts
    while time.now < MIDNIGHT + 2 * 86_400 - 2 * SKEW_S:
        minutes.append(0)
        for at, limits in enumerate(relays):
            while limits.available(HISTORY):
                minutes[-1] += 1
                days[int((time.now - MIDNIGHT) // 86_400)] += 1
                each[at] += 1
                spend(limits, 1, HISTORY, used=minutes[-1], left=8 - minutes[-1])
        time.now += WINDOW_S + 1
    assert max(minutes) <= 8
    assert max(days) <= 800
    assert days[1] >= 0.9 * 800
    # Each had its part, whatever the others did.
    assert max(each) - min(each) <= 16


def test_a_part_is_the_whole_again_when_the_minute_of_the_others_is_over() -> None:
    limits, time = made()
    limits.divide(4)
    assert limits.available(HISTORY) == 2
    assert limits.budgets()[0] == ("credits a minute", 8, 0, time.now, 6)
    with pytest.raises(RateLimited):
        limits.spend(3, HISTORY)
    spend(limits, 2)
    assert limits.wait_for(1, HISTORY) == WINDOW_S
    limits.divide(1)
    assert limits.available(HISTORY) == 0
    assert limits.wait_for(6, HISTORY) == WINDOW_S
    time.now += WINDOW_S
    assert limits.available(HISTORY) == 8
    assert limits.left_today() == 798


def test_a_limit_of_the_day_that_is_stated_while_it_is_divided_is_divided_too() -> None:
    limits, _ = made(8, 0)
    limits.divide(4)
    limits.correct(100, None, 800)
    assert limits.left_today() == 200
    limits.reconfigure(8, 400)
    assert limits.left_today() == 75


def test_credits_come_back_with_the_next_minute_once_the_servers_clock_is_known() -> None:
    time = Time(MIDNIGHT + 50_004.0 - 50_000 % 60)
    limits = Credits(8, 800, wall=time, monotonic=lambda: time.now - 1_000_000, knows_time=lambda: True)
    spend(limits, 8)
    assert limits.wait_for(1, HISTORY) == 58.0
    time.now += 57.9
    assert limits.available(HISTORY) == 0
    time.now += 0.2
    assert limits.available(HISTORY) == 8


def test_a_call_above_what_is_left_spends_nothing() -> None:
    limits, time = made()
    spend(limits, 6)
    time.now += 10
    with pytest.raises(RateLimited, match="8 credits of this minute") as caught:
        limits.spend(3, HISTORY)
    assert caught.value.retry_after == WINDOW_S - 10
    assert limits.available(HISTORY) == 2


def test_polls_and_history_leave_each_other_a_quarter_of_the_minute() -> None:
    limits, _ = made()
    limits.promise(100)
    assert (limits.available(POLL), limits.available(HISTORY)) == (6, 6)
    spend(limits, 6, POLL)
    assert (limits.available(POLL), limits.available(HISTORY)) == (0, 2)
    limits, _ = made()
    limits.promise(100)
    spend(limits, 2, HISTORY)
    assert (limits.available(POLL), limits.available(HISTORY)) == (6, 4)


def test_history_has_the_whole_minute_when_nothing_is_polled() -> None:
    limits, time = made()
    limits.promise(100)
    time.now += 121
    assert limits.available(HISTORY) == 8


def test_polls_leave_a_tenth_of_the_day_to_history_which_may_use_it_up() -> None:
    limits, _ = made(1000, 100)
    assert limits.left_today(POLL) == 90
    spend(limits, 90, POLL)
    with pytest.raises(RateLimited, match="100 credits is reserved for history") as caught:
        limits.spend(1, POLL)
    assert caught.value.retry_after == 86_400 - 50_000 + SKEW_S
    spend(limits, 4, HISTORY)
    assert (limits.left_today(POLL), limits.left_today(HISTORY)) == (0, 6)
    assert limits.budgets()[1].reserved == 6


def test_history_leaves_polls_what_was_promised_of_the_day() -> None:
    limits, _ = made(1000, 100)
    limits.promise(40)
    spend(limits, 60, HISTORY)
    with pytest.raises(RateLimited, match="100 credits is reserved for live streams") as caught:
        limits.spend(1, HISTORY)
    assert 0 < caught.value.retry_after < 3600
    assert limits.left_today(POLL) == 40


def test_the_day_ends_at_midnight_and_a_little() -> None:
    limits, time = made(8, 10, MIDNIGHT + 80_000)
    spend(limits, 8)
    time.now += 100
    assert limits.available(HISTORY) == 2
    spend(limits, 2)
    time.now += 100
    with pytest.raises(RateLimited, match="10 credits of this day") as caught:
        limits.spend(1, HISTORY)
    assert caught.value.retry_after == 6_200 + SKEW_S
    time.now += 6_200 + SKEW_S
    assert limits.available(HISTORY) == 8


def test_a_plan_without_a_daily_limit_has_none() -> None:
    limits, time = made(8, 0)
    for _ in range(1000):
        spend(limits, 8)
        time.now += 62
    assert limits.available(HISTORY) == 8
    assert [budget.name for budget in limits.budgets()] == ["credits a minute"]


def test_a_credit_near_midnight_counts_on_both_days() -> None:
    limits, time = made(8, 10, MIDNIGHT - 60)
    spend(limits, 8)
    time.now += 600
    assert limits.available(HISTORY) == 2


def test_what_others_spend_with_the_key_is_charged_once() -> None:
    limits, _ = made()
    spend(limits, 1, used=5, left=3)
    assert limits.available(HISTORY) == 3
    spend(limits, 1, used=6, left=2)
    assert limits.available(HISTORY) == 2
    assert limits.budgets()[1].used == 6


def test_as_much_as_others_spent_in_a_minute_is_left_to_them_in_the_next() -> None:
    limits, time = made()
    spend(limits, 1, used=5, left=3)
    time.now += WINDOW_S + 1
    assert limits.available(HISTORY) == 4
    time.now += WINDOW_S + 1
    assert limits.available(HISTORY) == 8


def test_what_others_spent_counts_as_long_as_their_minute_may_last() -> None:
    """Our own credits of the minute before come back while those of others do not."""
    limits, time = made()
    spend(limits, 4)
    time.now += 10
    spend(limits, 1, used=5, left=3)
    time.now += 52
    assert limits.available(HISTORY) <= 3


def test_a_plan_smaller_than_configured_is_noticed_and_not_charged_to_the_day() -> None:
    limits, _ = made(55)
    spend(limits, 1, used=1, left=7)
    assert limits.available(HISTORY) == 7
    assert limits.budgets()[1].used == 1


def test_the_server_never_raises_the_limit() -> None:
    limits, _ = made()
    spend(limits, 8, used=0, left=610)
    assert limits.available(HISTORY) == 0
    limits.correct(0, 610, 5000)
    assert (limits.per_minute, limits.per_day) == (8, 800)


def test_the_account_corrects_the_day_and_a_plan_smaller_than_configured() -> None:
    limits, _ = made(55, 800)
    spend(limits, 3)
    limits.correct(120, 8, 500)
    assert (limits.per_minute, limits.per_day, limits.left_today()) == (8, 500, 380)
    limits.correct(2, 8, 500)
    assert limits.left_today() == 380


def test_an_exhausted_minute_and_day_are_believed() -> None:
    limits, time = made()
    limits.exhaust_minute()
    assert limits.available(HISTORY) == 0
    time.now += WINDOW_S + 1
    assert limits.available(HISTORY) == 8
    limits.exhaust_day()
    assert limits.available(HISTORY) == 0
    assert limits.budgets()[1].used == 800
    time.now = MIDNIGHT + 86_400 + SKEW_S
    assert limits.available(HISTORY) == 8


@pytest.mark.parametrize(("said_s", "held_s"), [(7, WINDOW_S), (200, 200)])
def test_a_wait_that_the_server_names_is_kept_where_it_is_longer(said_s: float, held_s: float) -> None:
    limits, time = made()
    limits.exhaust_minute(said_s)
    assert limits.shortage(1, HISTORY).retry_after == pytest.approx(held_s)
    time.now += held_s - 1
    assert limits.available(HISTORY) == 0
    time.now += 2
    assert limits.available(HISTORY) == 8


@pytest.mark.parametrize(
    ("message", "stated"),
    [
        ("You have run out of API credits for the day.", Stated(StatedSpan.DAY, None)),
        (
            "You have run out of API credits for the day. 1316 API credits were used, with the current limit being "
            "800. Wait for the next day or consider switching to a higher tier plan",
            Stated(StatedSpan.DAY, 800),
        ),
        (
            "You have run out of API credits for the current minute. 16 API credits were used, with the current "
            "limit being 8. Wait for the next minute",
            Stated(StatedSpan.MINUTE, 8),
        ),
        ("Your daily limit of 1,600 credits is reached", Stated(StatedSpan.DAY, 1600)),
        ("Too many requests per minute", Stated(StatedSpan.MINUTE, None)),
        ("No credits until midnight", Stated(StatedSpan.DAY, None)),
        ("Too many requests", Stated(None, None)),
        ("", Stated(None, None)),
    ],
)
def test_what_a_refusal_says_of_a_limit(message: str, stated: Stated) -> None:
    assert stated_limit(message) == stated


@pytest.mark.parametrize("per_day", [0, 800])
def test_a_day_that_the_server_says_is_used_up_is_until_midnight_whatever_the_plan(per_day: int) -> None:
    limits, time = made(8, per_day)
    spend(limits, 1)
    limits.refuse("You have run out of API credits for the day.")
    for use in CreditUse:
        assert limits.available(use) == 0
        assert limits.wait_for(1, use) == 86_400 - 50_000 + SKEW_S
    assert str(limits.shortage(1, POLL)).endswith("credits of this day are used up")
    day = limits.budgets()[1]
    assert (day.used, day.resets_at) == (day.limit, MIDNIGHT + 86_400 + SKEW_S)
    after = restarted(limits, time, 3600, per_day)
    assert after.available(HISTORY) == 0
    time.now = MIDNIGHT + 86_400 + SKEW_S
    assert (limits.available(HISTORY), after.available(HISTORY)) == (8, 8)


def test_a_limit_in_the_words_of_a_refusal_is_kept_to() -> None:
    limits, time = made(55, 0)
    limits.refuse("You have run out of API credits for the current minute, with the current limit being 8.")
    assert limits.available(HISTORY) == 0
    time.now += WINDOW_S + 1
    assert limits.available(HISTORY) == 8
    limits.refuse("You have run out of API credits for the day, with the current limit being 800.")
    time.now = MIDNIGHT + 86_400 + SKEW_S + 1
    assert (limits.per_day, limits.left_today()) == (800, 800)


def test_refusals_that_do_not_say_how_long_are_answered_with_growing_pauses() -> None:
    limits, time = made()
    pauses = []
    for _ in range(6):
        limits.refuse("Too many requests")
        pauses.append(limits.shortage(1, HISTORY).retry_after)
        time.now += pauses[-1]
        assert limits.available(HISTORY) > 0
    assert pauses == [61.0, 122.0, 244.0, 488.0, MOST_PAUSE_S, MOST_PAUSE_S]
    limits.relent()
    limits.refuse("Too many requests")
    assert limits.shortage(1, HISTORY).retry_after == 61.0


def test_a_wait_that_the_server_names_outlives_a_restart() -> None:
    limits, time = made()
    limits.refuse("slow down", 600.0)
    assert str(limits.shortage(1, HISTORY)) == "the provider asks to wait"
    after = restarted(limits, time, 100)
    assert after.available(HISTORY) == 0
    time.now += 501
    assert after.available(HISTORY) == 8


def test_another_plan_in_the_configuration_has_the_server_say_anew_what_it_has_of_the_day() -> None:
    limits, _ = made(8, 800)
    spend(limits, 3)
    limits.refuse("You have run out of API credits for the day.")
    limits.reconfigure(55, 0)
    assert (limits.available(HISTORY), limits.left_today() > 10_000) == (52, True)


def test_the_budget_says_when_it_frees() -> None:
    limits, time = made()
    spend(limits, 3)
    time.now += 11
    minute, day = limits.budgets()
    assert minute == ("credits a minute", 8, 3, time.now + 50, 0)
    assert day == ("credits a day", 800, 3, MIDNIGHT + 86_400 + SKEW_S, 77)


# ---- over restarts ----------------------------------------------------------------------------------------------


def restarted(limits: Credits, time: Time, pause: float, per_day: int = 800) -> Credits:
    """Return the credits of a run that begins so long after this one was killed, with a monotonic clock of its own."""
    state = json.loads(json.dumps(limits.state(time.now)))
    time.now += pause
    begun = time.now
    after = Credits(8, per_day, wall=time, monotonic=lambda: time.now - begun)
    after.restore(state, time.now)
    return after


def test_a_restart_forgets_neither_the_minute_nor_the_day() -> None:
    limits, time = made()
    spend(limits, 5)
    after = restarted(limits, time, 20)
    assert after.available(HISTORY) == 3
    assert after.left_today() == 795
    time.now += WINDOW_S - 20 + 1
    assert after.available(HISTORY) == 8


def test_a_call_under_way_at_the_kill_counts_as_answered_at_the_restart() -> None:
    limits, time = made()
    limits.spend(6, POLL)
    after = restarted(limits, time, 50)
    time.now += 30
    assert after.available(HISTORY) == 2
    time.now += 32
    assert after.available(HISTORY) == 8


def test_what_others_spent_is_known_after_a_restart_too() -> None:
    limits, time = made()
    spend(limits, 1, used=7, left=1)
    assert restarted(limits, time, 5).available(HISTORY) == 1


def test_a_clock_set_back_between_two_runs_frees_nothing_early() -> None:
    limits, time = made()
    spend(limits, 8)
    after = restarted(limits, time, -3600)
    assert after.available(HISTORY) == 0
    time.now += 62
    assert after.available(HISTORY) == 8


@pytest.mark.parametrize("state", [{}, {"at": None}, {"at": 1, "spent": 7, "days": {}, "history": {}},
                                   {"at": 1, "spent": [[1]], "days": {}, "history": {}},
                                   {"at": 1, "spent": [], "days": {"x": 1}, "history": {}}])  # fmt: skip
def test_nonsense_from_an_earlier_run_is_refused(state: dict[str, object]) -> None:
    limits, time = made()
    with pytest.raises(ValueError, match=r"."):
        limits.restore(state, time.now)
    assert limits.available(HISTORY) == 8


@settings(max_examples=examples(75))
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
        if limits.available(HISTORY) < count:
            continue
        spent = limits.spend(count, HISTORY)
        counted = time.now + latency * where + skew
        minutes[int(counted // 60)] = minutes.get(int(counted // 60), 0) + count
        days[int(counted // 86_400)] = days.get(int(counted // 86_400), 0) + count
        time.now += latency
        limits.settle(spent)
    assert max(minutes.values(), default=0) <= 8
    assert max(days.values(), default=0) <= 40


@settings(max_examples=examples(75))
@given(
    behind=st.floats(0, 1.5),
    start=st.floats(0, 86_400),
    calls=st.lists(
        st.tuples(st.floats(0, 40), st.integers(1, 8), st.floats(0, 5), st.floats(0, 1), st.integers(0, 20)),
        min_size=1,
        max_size=60,
    ),
)
def test_a_known_clock_and_a_restart_let_no_server_minute_see_too_many(
    behind: float, start: float, calls: list[tuple[float, int, float, float, int]]
) -> None:
    """The server's time is known but for a second or so; now and then the relay is killed, also during a call."""
    time = Time(MIDNIGHT + start)

    def run(begun: float) -> Credits:
        return Credits(
            8, 40, wall=lambda: time.now - behind, monotonic=lambda: time.now - begun, knows_time=lambda: True
        )

    limits = run(0.0)
    minutes: dict[int, int] = {}
    days: dict[int, int] = {}
    for pause, count, latency, where, kill in calls:
        time.now += pause
        if limits.available(HISTORY) < count:
            continue
        spent = limits.spend(count, HISTORY)
        state = limits.state(time.now)
        counted = time.now + latency * where
        minutes[int(counted // 60)] = minutes.get(int(counted // 60), 0) + count
        days[int(counted // 86_400)] = days.get(int(counted // 86_400), 0) + count
        time.now += latency
        if kill == 0:
            limits = run(time.now)
            limits.restore(state, time.now)
        else:
            limits.settle(spent)
    assert max(minutes.values(), default=0) <= 8
    assert max(days.values(), default=0) <= 40
