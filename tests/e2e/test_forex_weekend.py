"""A weekend of Twelve Data's ticks in seconds."""

import pytest

from tests.support.forex_runs import LEAP, STREAM_LARGE, run_week


@pytest.mark.long
def test_a_weekend_of_ticks_passes_without_a_fault() -> None:
    run_week("--start", "2026-10-16 20:00", "--hours", "50.5", *STREAM_LARGE, *LEAP, "--step", "2.5")
