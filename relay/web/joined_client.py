"""Joins the modules of the JavaScript client into the one file that people load and copy; no build tool.

It knows no JavaScript, only lines: an import or an export from another module of the folder goes, and that module
comes before it; an `export` before a declaration goes; what the first module exports is exported at the end. The
modules keep to that form, and give no two things the same name: `tests/e2e/test_joined_client.py` holds it.
"""

import re
from importlib.resources.abc import Traversable

FIRST = "index.js"
"""The module that exports what the client is for others, and says it in its head."""

_HEAD = '// @ts-self-types="./client.d.ts"\n// @ts-check\n'
_CHECKED = "// @ts-check\n"
_FROM = re.compile(r'^(?:import|export) \{\s*(\w+(?:,\s*\w+)*),?\s*\} from "\./(\w+\.js)";\n', re.MULTILINE)
_LINKS = re.compile(rf"(?:{_FROM.pattern})+\n?", re.MULTILINE)
_LEFT = re.compile(r"^(?:import|export)\b(?!\().*", re.MULTILINE)
_EXPORT = re.compile(r"^export (?=(?:async )?function\b|class\b|const\b)", re.MULTILINE)


def joined_client(folder: Traversable) -> str:
    """Return one ES module that does what the first one of a folder does. Raises `ValueError` where it cannot."""
    parts: list[str] = []
    seen: set[str] = set()

    def add(name: str, way: tuple[str, ...]) -> None:
        if name in way:
            raise ValueError(f"{' imports '.join((*way, name))}: modules that import each other cannot be joined")
        if name in seen:
            return
        seen.add(name)
        text = (folder / name).read_text(encoding="utf-8")
        for _, other in _FROM.findall(text):
            add(other, (*way, name))
        if name != FIRST:
            parts.append(_without_links(text))

    add(FIRST, ())
    first = (folder / FIRST).read_text(encoding="utf-8")
    exported = sorted(name for names, _ in _FROM.findall(first) for name in re.findall(r"\w+", names))
    joined = "\n".join([_HEAD + _without_links(first), *parts])
    if (left := _LEFT.search(joined)) is not None:
        raise ValueError(f"{left[0]!r}: only names are imported from other modules, and declarations exported")
    return joined + "\nexport {\n" + "".join(f"  {name},\n" for name in exported) + "};\n"


def _without_links(text: str) -> str:
    """Return a module without what ties it to the others."""
    return _EXPORT.sub("", _LINKS.sub("", text.removeprefix(_CHECKED))).strip() + "\n"
