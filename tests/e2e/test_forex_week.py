"""Days of Twelve Data's free plan in seconds, with a weekend and a change of clocks; `-m long --forex-weeks`: weeks.

`python -m tests.support.forex_week --help` runs any. A file holds one of the long runs,
since all tests of a file run on one worker.
"""

import pytest

from tests.support.forex_runs import LEAP, POLL_FREE, POLL_LARGE, QUICK, STREAM_LARGE, WEEKS, run_week

# From a Friday over the change of clocks in New York into Monday.
WEEKEND = ("--start", "2026-10-30 20:00", "--hours", "60")
HOWS = {"poll free": POLL_FREE, "poll large": POLL_LARGE, "stream large": STREAM_LARGE}
POINTLESS = {("a smaller plan", "poll free"), ("no ticks at first", "poll free"), ("no ticks at first", "poll large")}


@pytest.mark.long
def test_a_weekend_and_the_days_around_pass_without_a_fault() -> None:
    run_week(*WEEKEND, *POLL_FREE, *LEAP, *QUICK)


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(
    ("week", "how"), [(week, how) for week in WEEKS for how in HOWS if (week, how) not in POINTLESS]
)
def test_other_weeks_pass_without_a_fault(request: pytest.FixtureRequest, week: str, how: str) -> None:
    if not request.config.getoption("--forex-weeks"):
        pytest.skip("takes minutes: --forex-weeks")
    run_week(*WEEKS[week], *HOWS[how])
