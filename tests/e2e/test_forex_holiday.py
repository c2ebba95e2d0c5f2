"""A holiday of Twelve Data that the relay does not know of, and the hours around it, in seconds."""

import pytest

from tests.support.forex_runs import HOLIDAY, POLL_FREE, QUICK, run_week


@pytest.mark.long
def test_a_holiday_passes_without_a_fault() -> None:
    run_week(*HOLIDAY, *POLL_FREE, *QUICK)
