"""Attempts to open a feed: the waits between them, their number, the reasons that are kept."""

import random

from relay.core.backoff import RetryBackoff
from relay.supervision.attempts import CONNECTS, CONNECTS_WINDOW_S, MOST_SENTENCES, Attempts


def test_waits_double_up_to_half_a_minute() -> None:
    waits = [
        [backoff.next_s() for _ in range(7)] for backoff in (RetryBackoff(random.Random(seed)) for seed in range(50))
    ]
    bounds = [(1, 2), (2, 4), (4, 8), (8, 16), (15, 30), (15, 30), (15, 30)]
    for attempt, (least, most) in enumerate(bounds):
        at_attempt = [of_one[attempt] for of_one in waits]
        assert least <= min(at_attempt)
        assert max(at_attempt) <= most
        # They differ, so that many relays do not come back at the same moment.
        assert max(at_attempt) - min(at_attempt) > (most - least) / 2


def test_waits_are_short_again_once_data_flowed() -> None:
    backoff = RetryBackoff(random.Random(1))
    for _ in range(10):
        backoff.next_s()
    backoff.reset()
    assert 1 <= backoff.next_s() <= 2


def test_attempts_are_made_at_once_until_the_budget_is_spent() -> None:
    attempts = Attempts()
    assert [attempts.reserve(1000.0) for _ in range(CONNECTS)] == [0.0] * CONNECTS
    assert attempts.reserve(1100.0) == CONNECTS_WINDOW_S - 100
    assert attempts.connects == CONNECTS + 1


def test_attempts_that_wait_get_one_place_each() -> None:
    attempts = Attempts()
    for number in range(CONNECTS):
        attempts.reserve(float(number))
    now = float(CONNECTS)
    assert [now + attempts.reserve(now) for _ in range(3)] == [300.0, 301.0, 302.0]


def test_an_attempt_that_waited_counts_from_when_it_is_made() -> None:
    attempts = Attempts()
    for now in (0.0, 10.0):
        for _ in range(CONNECTS):
            attempts.reserve(now)
    assert 10.0 + attempts.reserve(10.0) == 600.0


def test_places_are_free_again_when_the_window_has_passed() -> None:
    attempts = Attempts()
    for _ in range(CONNECTS):
        attempts.reserve(0.0)
    assert attempts.reserve(CONNECTS_WINDOW_S) == 0.0


def test_reasons_are_counted_without_end_but_not_kept_without_end() -> None:
    attempts = Attempts()
    for number in range(MOST_SENTENCES + 5):
        attempts.count_again("lost", f"error {number}")
    attempts.count_again("lost", "error 3")
    assert attempts.again == {"lost": MOST_SENTENCES + 6}
    assert attempts.sentences["error 3"] == 2
    assert attempts.sentences["other causes"] == 5
    assert len(attempts.sentences) == MOST_SENTENCES + 1


def test_a_provider_that_is_away_for_days_is_still_tried() -> None:
    backoff = RetryBackoff(random.Random(1))
    assert max(backoff.next_s() for _ in range(5000)) <= 30.0
