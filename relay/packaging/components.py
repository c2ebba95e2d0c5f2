"""Which packages an installation of the relay consists of, and under which licences."""

import platform
import re
import sqlite3
import ssl
from collections.abc import Iterator
from importlib import metadata
from typing import NamedTuple

NAME = "market-relay"
PLUGINS = "relay.providers"
"""The entry points of providers that were installed beside it."""

_OPTIONAL = re.compile(r"""\bextra\s*==\s*["']([\w.-]+)""")
_WHILE_IT_RUNS = {"cluster", "mcp"}
"""Extras that a running relay or a command uses; the others are for those who build and test it."""
_WORD = re.compile(r"[A-Za-z0-9._-]+")
_CLASSIFIER = "License :: OSI Approved :: "
_LONGEST = 60
"""Some have the whole text in a field for its name."""


class Component(NamedTuple):
    """One package: its name, version, and licence as it is named there, "" where it names none."""

    name: str
    version: str
    licence: str
    texts: tuple[str, ...] = ()
    is_package: bool = True


def components() -> list[Component]:
    """Return the relay, plugins that are installed, and what these need, by name; then what Python itself brings.

    What only an extra of the relay needs is among them where it is installed, if a running relay uses it.
    """
    found: dict[str, metadata.Distribution] = {}
    wanted = [NAME, *(point.dist.name for point in metadata.entry_points(group=PLUGINS) if point.dist)]
    while wanted:
        name = _key(wanted.pop())
        if name in found:
            continue
        try:
            found[name] = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            continue  # It is for another system, another Python or an extra.
        wanted += _needs(found[name])
    packages = sorted(map(_component, found.values()), key=lambda one: one.name.lower())
    return [*packages, *_of_python()]


def _of_python() -> Iterator[Component]:
    yield Component("Python", platform.python_version(), "PSF-2.0", is_package=False)
    version = re.search(r"\d[\w.]*", ssl.OPENSSL_VERSION)
    yield Component("OpenSSL", version[0] if version else "", "Apache-2.0", is_package=False)
    yield Component("SQLite", sqlite3.sqlite_version, "blessing", is_package=False)


def _key(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _needs(found: metadata.Distribution) -> Iterator[str]:
    for requirement in found.requires or ():
        extra = _OPTIONAL.search(requirement)
        is_needed = extra is None or (_key(found.name) == NAME and extra[1] in _WHILE_IT_RUNS)
        if is_needed and (word := _WORD.match(requirement)):
            yield word[0]


def _component(found: metadata.Distribution) -> Component:
    return Component(_key(found.name), found.version, _licence(found), tuple(_texts(found)))


def _licence(found: metadata.Distribution) -> str:
    said = found.metadata
    if "License-Expression" in said:
        return said["License-Expression"]
    named = said["License"] if "License" in said else ""  # noqa: SIM401  its type knows no `get`
    if named and len(named) <= _LONGEST and "\n" not in named:
        return named
    classifiers = [text.removeprefix(_CLASSIFIER) for text in said.get_all("Classifier") or () if _CLASSIFIER in text]
    return " AND ".join(classifiers)


def _texts(found: metadata.Distribution) -> Iterator[str]:
    for name in found.metadata.get_all("License-File") or ():
        for place in (f"licenses/{name}", name):
            if text := found.read_text(place):
                yield text
                break
