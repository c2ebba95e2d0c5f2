"""Days of Twelve Data that tests run, each in a process of its own, since its time is its own too."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

POLL_FREE = ("--mode", "poll", "--plan", "free")
POLL_LARGE = ("--mode", "poll", "--plan", "large")
STREAM_LARGE = ("--mode", "stream", "--plan", "large")
QUICK = ("--step", "5")
LEAP = ("--leap",)
"""Closed hours pass at once, but the first and the last: `WEEKS` have all of them."""
HOLIDAY = (
    "--start", "2026-11-04 20:00", "--hours", "29", "--holiday", "2026-11-04 22:00", "2026-11-05 23:00",
)  # fmt: skip
LATE_BARS = ("--start", "2026-10-13 00:00", "--hours", "33", "--settles", "150")
WEEKS = {
    # To the next Friday's close; Thursday is a holiday.
    "change of clocks and a holiday": (
        "--start", "2026-10-30 18:00", "--hours", "173", "--holiday", "2026-11-04 22:00", "2026-11-05 23:00",
    ),
    "clock changes of autumn": ("--start", "2026-10-23 12:00", "--hours", "250"),
    "clock change of the United States": ("--start", "2026-03-06 12:00", "--hours", "72"),
    "clock change of Europe": ("--start", "2026-03-27 12:00", "--hours", "72"),
    "Christmas and New Year": (
        "--start", "2025-12-24 12:00", "--hours", "227",
        "--bank-holiday", "2025-12-24 22:00", "2025-12-25 22:00",
        "--bank-holiday", "2025-12-31 22:00", "2026-01-01 22:00",
    ),
    "four hours of New York": ("--start", "2026-10-30 12:00", "--hours", "84", "--new-york"),
    "bars that settle late": ("--start", "2026-10-13 00:00", "--hours", "44", "--settles", "150"),
    "bars that settle after an hour": ("--start", "2026-10-13 00:00", "--hours", "60", "--settles", "3600"),
    "troubles": ("--start", "2026-10-12 00:00", "--hours", "100", "--ordeal", "troubles"),
    "another key": ("--start", "2026-10-12 00:00", "--hours", "54", "--ordeal", "another key"),
    # It leaves nothing of two days; in the morning after, what was missed can be had.
    "another program": ("--start", "2026-10-12 00:00", "--hours", "58", "--ordeal", "another program"),
    "a smaller plan": ("--start", "2026-10-12 00:00", "--hours", "102", "--ordeal", "a smaller plan"),
    "no ticks at first": ("--start", "2026-10-12 00:00", "--hours", "48", "--ordeal", "no ticks at first"),
}  # fmt: skip


def run_week(*options: str) -> None:
    """Run `tests.support.forex_week` with these options; fail with what it prints if anything was wrong."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.forex_week", *options],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
