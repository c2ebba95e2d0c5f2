"""How long relays believe each other that a provider asked them to wait."""

import pytest

from relay.cluster.heard_waits import MOST_S, PART, HeardWaits


def test_a_wait_is_kept_to_and_said_again_it_is_no_other() -> None:
    heard = HeardWaits(1000.0)
    assert heard.hear(60.0, 1000.0) == 60.0
    assert heard.hear(55.0, 1005.0) == 0.0
    assert heard.hear(60.0, 1010.0) == 60.0
    assert heard.hear(-5.0, 1010.0) == 0.0


def test_one_that_never_ends_is_believed_for_minutes_and_then_for_a_part_of_the_time() -> None:
    heard = HeardWaits(0.0)
    assert heard.hear(1e9, 0.0) == MOST_S
    silent, until = 0.0, MOST_S
    for now in range(1, 100_000):
        wait_s = heard.hear(1e9, float(now))
        if wait_s:
            silent += now + wait_s - max(until, now)
            until = now + wait_s
    assert silent == pytest.approx(PART * 100_000, abs=1.0)
