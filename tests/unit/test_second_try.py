"""What becomes of tests that pass only at the second try."""

import re
from pathlib import Path

import pytest

from tests.support.second_try import Lucky, Period, busy_s, judge, known_unsteady, others_share

ROOT = Path(__file__).parents[2]
MOST = 4


def test_who_passes_at_the_second_try_has_to_be_known() -> None:
    first = {"tests/a.py::test_one", "tests/a.py::test_two[3]", "tests/b.py::test_three"}
    assert judge(first, {"tests/b.py::test_three"}, ["tests/a.py::test_two"], {}, ()) == [
        Lucky("tests/a.py::test_one", ""),
        Lucky("tests/a.py::test_two[3]", "known"),
    ]


@pytest.mark.parametrize(
    ("ran", "excuse"),
    [
        (Period(10.0, 12.0), ""),
        (Period(11.0, 13.0), "the machine stood still for 1.5 s"),
        (Period(13.0, 13.1), "the machine stood still for 1.5 s"),
        (Period(14.0, 15.0), ""),
    ],
)
def test_a_pause_of_the_machine_excuses_who_ran_then(ran: Period, excuse: str) -> None:
    pauses = [Period(12.5, 14.0), Period(20.0, 29.0)]
    assert judge({"a.py::test"}, set(), [], {"a.py::test": ran}, pauses) == [Lucky("a.py::test", excuse)]


@pytest.mark.parametrize(
    ("busy", "ours", "said"),
    [
        (150.0, 50.0, "; other programs had 50% of the processors"),
        (50.0, 50.0, "; other programs had 0% of the processors"),
        # Ticks of the clock are coarse.
        (49.9, 50.0, "; other programs had 0% of the processors"),
        (None, 50.0, ""),
    ],
)
def test_it_is_said_and_excuses_nobody_that_others_had_the_processors(
    busy: float | None, ours: float, said: str
) -> None:
    assert others_share(busy, ours, lasted_s=100.0, processors=2) == said


def test_the_processors_of_this_machine_are_never_less_busy_than_before() -> None:
    before = busy_s()
    after = busy_s()
    assert before is None or (after is not None and after >= before > 0)


def test_the_list_only_becomes_shorter() -> None:
    assert len(known_unsteady()) <= MOST


@pytest.mark.parametrize("name", known_unsteady())
def test_each_unsteady_test_exists(name: str) -> None:
    file, _, function = name.partition("::")
    assert re.search(rf"^(async )?def {function}\(", (ROOT / file).read_text(encoding="utf-8"), re.MULTILINE)


def test_the_run_that_a_change_has_to_pass_lets_nobody_be_lucky() -> None:
    lines = (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()
    tries = [line for line in lines if "second_try" in line]
    assert tries
    assert all("second_try --strict " in line for line in tries)
