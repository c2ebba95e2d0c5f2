"""A weekend of Twelve Data's ticks in seconds."""

import pytest

from tests.support.forex_runs import STREAM_LARGE, run_week


@pytest.mark.timeout(1800)
def test_a_weekend_of_ticks_passes_without_a_fault() -> None:
    run_week("--start", "2026-10-16 18:00", "--hours", "52.5", *STREAM_LARGE, "--step", "1")
