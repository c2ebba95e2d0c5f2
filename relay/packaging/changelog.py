"""Reads and cuts CHANGELOG.md: the section of the version to come gets its date."""

import re
from typing import NamedTuple

_HEADING = re.compile(r"^## (\S+) \(([^)]+)\)$", re.MULTILINE)
UNRELEASED = "unreleased"


class ReleaseNotes(NamedTuple):
    """What the newest section says: its version, its date or `unreleased`, and its text."""

    version: str
    date: str
    text: str


def newest(changelog: str) -> ReleaseNotes:
    """Return the first section. Raises `ValueError` when there is none."""
    headings = [*_HEADING.finditer(changelog)]
    if not headings:
        raise ValueError(f"CHANGELOG.md has no section such as '## 1.2.0 ({UNRELEASED})'")
    end = headings[1].start() if len(headings) > 1 else len(changelog)
    return ReleaseNotes(headings[0][1], headings[0][2], changelog[headings[0].end() : end].strip())


def cut(changelog: str, version: str, date: str) -> str:
    """Return the text with a date in the place of `unreleased`. Raises `ValueError` when that is not the next step."""
    section = newest(changelog)
    if section.version != version:
        raise ValueError(f"the newest section of CHANGELOG.md is of {section.version}, and the version is {version}")
    if section.date != UNRELEASED:
        raise ValueError(f"{version} was released on {section.date}; raise VERSION and begin its section")
    if not section.text:
        raise ValueError(f"the section of {version} in CHANGELOG.md is empty")
    return changelog.replace(f"## {version} ({UNRELEASED})", f"## {version} ({date})", 1)
