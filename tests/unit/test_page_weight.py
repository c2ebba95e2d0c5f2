"""The chart page is light: all that it loads, as it is sent, has fewer than 150 kB."""

import re

from relay.web.pages import Pages

MOST_BYTES = 150_000
_LOADS = re.compile(r'(?:src|href)="static/([\w.-]+)"|from "\.{1,2}/([\w.-]+)"')


def loaded_by(pages: Pages, first: str) -> set[str]:
    """Return the names of a page's files: it, what it names, and what those import."""
    found: set[str] = set()
    left = [first]
    while left:
        name = left.pop()
        if name in found:
            continue
        found.add(name)
        asset = pages.get(name)
        assert asset is not None, name
        left += [one or other for one, other in _LOADS.findall(asset.plain.decode())]
    return found


def test_chart_page_is_light() -> None:
    pages = Pages()
    names = loaded_by(pages, "index.html")
    assert {"lightweight-charts.js", "client.js", "chart.js", "charts.css"} <= names
    sizes = {name: len(asset.packed or asset.plain) for name in names if (asset := pages.get(name)) is not None}
    assert sum(sizes.values()) < MOST_BYTES, sizes
