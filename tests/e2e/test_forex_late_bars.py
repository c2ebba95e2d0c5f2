"""Days of Twelve Data in seconds whose bars change for minutes after their end."""

import pytest

from tests.support.forex_runs import LATE_BARS, POLL_FREE, QUICK, run_week


@pytest.mark.long
def test_bars_that_settle_late_come_right_within_the_credits_of_the_free_plan() -> None:
    run_week(*LATE_BARS, *POLL_FREE, *QUICK)
