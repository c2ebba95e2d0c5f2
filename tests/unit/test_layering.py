"""Holds the layers of packages: data flows one way, and a newcomer reads `relay/` from the first line to the last."""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from relay.plugins.scaffold import TEMPLATE
from tests.support.call_trace import says_it_is_pure
from tests.support.sources import nodes

ROOT = Path(__file__).parents[2]

LAYERS = [
    {"relay.core", "relay.telemetry", "relay.web.work_budget"},
    {"relay.network", "relay.config", "relay.protocol", "relay.web.request_counts", "relay.web.facade_counts"},
    {
        "relay.upstream",
        "relay.storage",
        "relay.streams",
        "relay.client",
        "relay.web.problems",
        "relay.web.joined_client",
    },
    {"relay.plugins", "relay.web.access", "relay.web.stream_totals", "relay.web.aiohttp_seams"},
    {
        "relay",
        "relay.history",
        "relay.instruments",
        "relay.packaging",
        "relay.testing",
        "relay.web.inlet",
        "relay.web.pages",
    },
    {"relay.supervision", "relay.web.contract", "relay.web.idle_connections"},
    {"relay.web.ws", "relay.web.middleware", "relay.cluster"},
    {"relay.web.ops", "relay.web.sse"},
    {"relay.web.http"},
    {"relay.web.facades"},
    {"relay.app"},
    {"relay.server"},
    {"relay.commands"},
    {"relay.cli"},
    {"relay.__main__"},
]
"""Packages, and the modules that stand alone at the top of `relay` and `relay.web`: each imports only from lower lines.
`relay` itself is the API of provider authors: nothing inside of `relay` imports from it. Within a package no two
modules import each other, not even through others."""

LEVELS = {package: level for level, packages in enumerate(LAYERS) for package in packages}
MOST_ENTRIES = 24


def modules(folder: str) -> Iterator[tuple[str, Path]]:
    """Yield the modules below a folder and their files; what `relay plugins new` copies is none of them."""
    for path in sorted((ROOT / folder).rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        if path.parent == TEMPLATE:
            continue
        yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


def imports(path: Path) -> Iterator[tuple[str, int]]:
    """Yield each module that a file imports, inside functions too, and the line."""
    for node in nodes(path):
        if isinstance(node, ast.Import):
            for name in node.names:
                yield name.name, node.lineno
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno} imports by a relative name"
            assert node.module is not None
            for name in node.names:
                whole = f"{node.module}.{name.name}"
                yield (whole if is_module(whole) else node.module), node.lineno


@cache
def is_module(name: str) -> bool:
    place = ROOT.joinpath(*name.split("."))
    return place.with_suffix(".py").is_file() or (place / "__init__.py").is_file()


def is_within(name: str, package: str) -> bool:
    return name == package or name.startswith(package + ".")


def package_of(module: str) -> str:
    """The package that a module belongs to: `relay.X`, and `relay.web.X` in `relay.web`."""
    return ".".join(module.split(".")[: 3 if is_within(module, "relay.web") else 2])


def cycle(graph: dict[str, set[str]]) -> list[str]:
    """Some modules of which each imports the next and the last the first; an empty list where there are none."""
    done: set[str] = set()

    def walk(name: str, way: list[str]) -> list[str]:
        if name in way:
            return way[way.index(name) :]
        if name in done:
            return []
        for other in sorted(graph.get(name, ())):
            if found := walk(other, [*way, name]):
                return found
        done.add(name)
        return []

    for name in sorted(graph):
        if found := walk(name, []):
            return found
    return []


def upward(name: str, path: Path) -> Iterator[str]:
    """Yield what a module of `relay` imports that it may not, each with its place."""
    package = package_of(name)
    if package == "relay.web":
        if list(imports(path)):
            yield f"{path}: the package relay.web itself holds no code"
        return
    if package not in LEVELS:
        yield f"{path}: {package} is in no layer: give it one in {Path(__file__).name}"
        return
    for imported, line in imports(path):
        if is_within(imported, "relay") and package_of(imported) != package:
            lower = package_of(imported)
            if imported == "relay":
                yield f"{path}:{line} imports from the package root"
            elif LEVELS[lower] >= LEVELS[package]:
                yield f"{path}:{line}: {package} imports from {lower}, which is not lower"
        if is_within(imported, "providers") and name != "relay.cli":
            yield f"{path}:{line} imports a provider"
        if is_within(imported, "tests"):
            yield f"{path}:{line} imports tests"


def test_packages_import_only_from_lower_layers() -> None:
    found = list(modules("relay"))
    assert len(found) > 100
    assert [fault for name, path in found for fault in upward(name, path)] == []


@pytest.mark.parametrize(
    ("name", "text", "fault"),
    [
        (
            "relay.core.model",
            "from relay.web.http import charts",
            "relay.core imports from relay.web.http, which is not lower",
        ),
        ("relay.core.model", "import relay.core.spans", ""),
        ("relay.app", "from relay import Candle", "imports from the package root"),
        ("relay.app", "import providers.binance", "imports a provider"),
        ("relay.cli", "import providers.binance", ""),
        ("relay.app", "from tests.support import pipe", "imports tests"),
        ("relay.web", "import json", "holds no code"),
        ("relay.news", "", "relay.news is in no layer"),
    ],
)
def test_an_import_from_a_higher_layer_is_noticed(name: str, text: str, fault: str, tmp_path: Path) -> None:
    (tmp_path / "module.py").write_text(text)
    found = list(upward(name, tmp_path / "module.py"))
    assert len(found) == bool(fault)
    assert fault in "".join(found)


def test_template_of_a_provider_imports_only_the_root_of_relay_and_what_is_for_its_tests() -> None:
    for path in TEMPLATE.glob("*.py"):
        for imported, line in imports(path):
            assert not is_within(imported, "relay") or imported in ("relay", "relay.testing"), f"{path}:{line}"


def test_no_modules_import_each_other() -> None:
    graph = {name: {other for other, _ in imports(path)} for name, path in modules("relay")}
    assert cycle(graph) == []


def test_a_cycle_is_noticed() -> None:
    assert cycle({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": set()}) == ["b", "c"]


OUTSIDE = {"aiosqlite", "asyncio", "logging", "os", "pathlib", "socket", "subprocess", "threading", "time"}


def impure(path: Path) -> list[str]:
    """Return what a module waits for or asks that says it is pure, each with its line."""
    said = next(line for line in path.read_text("utf-8").splitlines() if re.search(r"\bpure\b", line, re.IGNORECASE))
    allowed = {"logging"} if "but for the log" in said else set()
    waits = [f"await:{node.lineno}" for node in nodes(path) if isinstance(node, ast.Await)]
    imported = ((name.partition(".")[0], line) for name, line in imports(path))
    return [*waits, *(f"{name}:{line}" for name, line in imported if name in OUTSIDE - allowed)]


def test_what_says_that_it_is_pure_waits_for_nothing_and_asks_nothing() -> None:
    pure = {name: path for name, path in modules("relay") if says_it_is_pure(path)}
    assert len(pure) > 50
    assert {name: found for name, path in pure.items() if (found := impure(path))} == {}


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('"""Sums; pure."""\nimport time\n', ["time:2"]),
        ('"""Sums; pure."""\nimport logging\n', ["logging:2"]),
        ('"""Sums; pure but for the log."""\nimport logging\n', []),
        ('"""Sums; pure."""\nasync def f(g):\n    await g()\n', ["await:3"]),
        ('"""Sums; pure."""\nimport math\n', []),
    ],
)
def test_what_is_not_pure_is_noticed(text: str, found: list[str], tmp_path: Path) -> None:
    (tmp_path / "module.py").write_text(text)
    assert says_it_is_pure(tmp_path / "module.py")
    assert impure(tmp_path / "module.py") == found


def test_the_top_of_relay_can_be_read_at_a_glance() -> None:
    entries = [entry.name for entry in (ROOT / "relay").iterdir() if entry.name != "__pycache__"]
    assert len(entries) <= MOST_ENTRIES, sorted(entries)


def test_every_layer_names_what_exists() -> None:
    assert {package_of(name) for name, _ in modules("relay")} - {"relay.web"} == set(LEVELS)


def inward(name: str, path: Path) -> Iterator[str]:
    """Yield what a module of `providers` imports that it may not, each with its place."""
    for imported, line in imports(path):
        if is_within(name, "providers.sandbox"):
            if is_within(imported, "relay"):
                yield f"{path}:{line}: a stand-in shares no code with what it tests"
            if is_within(imported, "providers") and not is_within(imported, "providers.sandbox"):
                yield f"{path}:{line} imports {imported}"
        else:
            if is_within(imported, "relay") and imported != "relay":
                yield f"{path}:{line} imports {imported}"
            if is_within(imported, "providers.sandbox"):
                yield f"{path}:{line} imports a stand-in"


def test_providers_import_only_the_root_of_relay() -> None:
    found = list(modules("providers"))
    assert len(found) > 50
    assert [fault for name, path in found for fault in inward(name, path)] == []


@pytest.mark.parametrize(
    ("name", "text", "fault"),
    [
        ("providers.binance.codec", "from relay import Candle", ""),
        ("providers.binance.codec", "from relay.core import model", "imports relay.core.model"),
        ("providers.binance.codec", "import providers.sandbox", "imports a stand-in"),
        ("providers.sandbox.market", "from relay import Candle", "shares no code"),
        ("providers.sandbox.market", "from providers.binance import codec", "imports providers.binance"),
        ("providers.sandbox.market", "from providers.sandbox import parts", ""),
    ],
)
def test_a_provider_that_imports_more_is_noticed(name: str, text: str, fault: str, tmp_path: Path) -> None:
    (tmp_path / "module.py").write_text(text)
    found = list(inward(name, tmp_path / "module.py"))
    assert len(found) == bool(fault)
    assert fault in "".join(found)


def test_a_relative_import_is_noticed(tmp_path: Path) -> None:
    (tmp_path / "module.py").write_text("from . import other\n")
    with pytest.raises(AssertionError, match="relative"):
        list(imports(tmp_path / "module.py"))
