"""CHANGELOG.md is cut as a release needs it."""

from pathlib import Path

import pytest

from relay.core.version import VERSION
from relay.packaging.changelog import ReleaseNotes, cut, newest

TEXT = "# Changelog\n\n## 1.1.0 (unreleased)\n\n### Added\n\n- A thing.\n\n## 1.0.0 (2026-01-01)\n\n- All.\n"


def test_the_newest_section_gets_its_date_and_the_rest_stays() -> None:
    assert newest(TEXT) == ReleaseNotes("1.1.0", "unreleased", "### Added\n\n- A thing.")
    assert cut(TEXT, "1.1.0", "2026-02-03") == TEXT.replace("1.1.0 (unreleased)", "1.1.0 (2026-02-03)")


@pytest.mark.parametrize(
    ("text", "version", "said"),
    [
        (TEXT, "1.2.0", "the newest section of CHANGELOG.md is of 1.1.0, and the version is 1.2.0"),
        (TEXT.partition("## 1.1.0")[0], "1.1.0", "CHANGELOG.md has no section such as"),
        ("## 1.0.0 (2026-01-01)\n\n- All.\n", "1.0.0", "1.0.0 was released on 2026-01-01; raise VERSION"),
        ("## 1.1.0 (unreleased)\n\n## 1.0.0 (2026-01-01)\n", "1.1.0", "the section of 1.1.0 in CHANGELOG.md is empty"),
    ],
)
def test_what_is_not_ready_is_named(text: str, version: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        cut(text, version, "2026-02-03")


def test_the_project_has_a_section_for_its_version() -> None:
    text = (Path(__file__).parents[2] / "CHANGELOG.md").read_text(encoding="utf-8")
    assert newest(text).version == VERSION
