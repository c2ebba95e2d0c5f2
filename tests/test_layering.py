"""Holds the table of ranks: a module imports only modules of a strictly lower rank, by absolute name."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

RANKS = {
    "relay.model": 0,
    "relay.errors": 0,
    "relay.secret": 0,
    "relay.version": 0,
    "relay.clock": 0,
    "relay.outbox": 1,
    "relay.intervals": 1,
    "relay.watchlist": 1,
    "relay.config": 1,
    "relay.rest": 1,
    "relay.logs": 1,
    "relay.wire": 2,
    "relay.series": 2,
    "relay.liveness": 2,
    "relay.client": 2,
    "relay.hookspecs": 2,
    "relay.sanity": 3,
    "relay.hub": 3,
    "relay.store": 3,
    "relay.commands.figures": 3,
    "relay.feed": 4,
    "relay.plugins": 4,
    "relay.history": 4,
    "relay.commands.calling": 4,
    "relay.commands.board": 4,
    "relay.testing": 5,
    "relay.directory": 5,
    "relay.commands.history": 5,
    "relay.commands.status": 5,
    "relay.commands.symbols": 5,
    "relay.commands.tail": 5,
    "relay.snapshot": 6,
    "relay.supervisor": 6,
    "relay.web.problems": 7,
    "relay.web.access": 8,
    "relay.web.rest": 9,
    "relay.web.ws": 9,
    "relay.app": 10,
    "relay.server": 11,
    "relay.cli": 12,
    "relay.__main__": 13,
    "relay": 14,
}
"""Packages without code (`relay.web`, `relay.commands`) have no rank: importing them imports nothing."""


def modules(folder: str) -> Iterator[tuple[str, Path]]:
    for path in sorted((ROOT / folder).rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


def imports(path: Path) -> Iterator[tuple[str, int]]:
    """Yield each module that a file imports, inside functions too, and the line."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            for name in node.names:
                yield name.name, node.lineno
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno} imports by a relative name"
            assert node.module is not None
            for name in node.names:
                whole = f"{node.module}.{name.name}"
                yield (whole if is_module(whole) else node.module), node.lineno


def is_module(name: str) -> bool:
    place = ROOT.joinpath(*name.split("."))
    return place.with_suffix(".py").is_file() or (place / "__init__.py").is_file()


def is_within(name: str, package: str) -> bool:
    return name == package or name.startswith(package + ".")


def is_empty(name: str) -> bool:
    path = ROOT.joinpath(*name.split("."), "__init__.py")
    if not path.is_file():
        return False
    body = ast.parse(path.read_text(encoding="utf-8")).body
    return all(isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) for node in body)


@pytest.mark.parametrize(("name", "path"), list(modules("relay")))
def test_module_imports_only_strictly_lower_ranks(name: str, path: Path) -> None:
    if is_empty(name):
        return
    assert name in RANKS, f"{name} has no rank: give it one in {Path(__file__).name}"
    for imported, line in imports(path):
        if imported == "relay" and name != "relay.__main__":
            pytest.fail(f"{path}:{line} imports from the package root")
        if is_within(imported, "relay") and not is_empty(imported):
            assert RANKS[imported] < RANKS[name], f"{path}:{line}: {name} ({RANKS[name]}) imports {imported}"
        if is_within(imported, "providers"):
            assert name == "relay.cli", f"{path}:{line} imports a provider"
        assert not is_within(imported, "tests"), f"{path}:{line} imports tests"


@pytest.mark.parametrize(("name", "path"), list(modules("providers")))
def test_provider_imports_only_the_root_of_relay(name: str, path: Path) -> None:
    for imported, line in imports(path):
        if is_within(name, "providers.sandbox"):
            assert not is_within(imported, "relay"), f"{path}:{line}: a stand-in shares no code with what it tests"
            assert not is_within(imported, "providers") or is_within(imported, "providers.sandbox"), f"{path}:{line}"
        else:
            assert not is_within(imported, "relay") or imported == "relay", f"{path}:{line} imports {imported}"
            assert not is_within(imported, "providers.sandbox"), f"{path}:{line} imports a stand-in"


def test_every_ranked_module_exists() -> None:
    existing = {name for name, _ in modules("relay")}
    assert set(RANKS) <= existing


def test_a_relative_import_is_noticed(tmp_path: Path) -> None:
    (tmp_path / "module.py").write_text("from . import other\n")
    with pytest.raises(AssertionError, match="relative"):
        list(imports(tmp_path / "module.py"))
