"""Days of Twelve Data in seconds whose bars change for minutes after their end."""

import pytest

from tests.support.forex_runs import POLL_FREE, QUICK, WEEKS, run_week


@pytest.mark.timeout(1800)
def test_bars_that_settle_late_come_right_within_the_credits_of_the_free_plan() -> None:
    run_week(*WEEKS["bars that settle late"], *POLL_FREE, *QUICK)
