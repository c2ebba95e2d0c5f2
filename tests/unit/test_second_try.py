"""What becomes of tests that pass only at the second try."""

import re

import pytest

from tests.support.second_try import ROOT, judge, known_unsteady

MOST = 5


def test_who_passes_at_the_second_try_has_to_be_known() -> None:
    first = {"tests/a.py::test_one", "tests/a.py::test_two[3]", "tests/b.py::test_three"}
    lucky, unknown = judge(first, {"tests/b.py::test_three"}, ["tests/a.py::test_two"])
    assert lucky == ["tests/a.py::test_one", "tests/a.py::test_two[3]"]
    assert unknown == ["tests/a.py::test_one"]


def test_the_list_only_becomes_shorter() -> None:
    assert len(known_unsteady()) <= MOST


@pytest.mark.parametrize("name", known_unsteady())
def test_each_unsteady_test_exists(name: str) -> None:
    file, _, function = name.partition("::")
    assert re.search(rf"^(async )?def {function}\(", (ROOT / file).read_text(encoding="utf-8"), re.MULTILINE)
