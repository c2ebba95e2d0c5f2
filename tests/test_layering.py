"""Holds the table of ranks: a module imports only modules of a strictly lower rank, by absolute name."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

RANKS = {
    "relay.model": 0,
    "relay.events": 0,
    "relay.errors": 0,
    "relay.secret": 0,
    "relay.version": 0,
    "relay.notify": 0,
    "relay.packaging.binary": 1,
    "relay.clock": 0,
    "relay.measures": 0,
    "relay.patience": 0,
    "relay.hosts": 0,
    "relay.numbers": 0,
    "relay.plugins.memory": 0,
    "relay.looplag": 1,
    "relay.outbox": 1,
    "relay.upstream.closing": 1,
    "relay.upstream.codec": 1,
    "relay.upstream.pace": 1,
    "relay.plugins.ending": 1,
    "relay.plugins.loopwatch": 1,
    "relay.upstream.paging": 1,
    "relay.limits": 1,
    "relay.json_texts": 0,
    "relay.sessions": 1,
    "relay.intervals": 1,
    "relay.upstream.watchlist": 1,
    "relay.tokens": 1,
    "relay.values": 1,
    "relay.config": 2,
    "relay.upstream.rest": 2,
    "relay.upstream.rows": 2,
    "relay.logs": 1,
    "relay.messages": 1,
    "relay.fields": 2,
    "relay.requests": 3,
    "relay.wire": 2,
    "relay.market": 1,
    "relay.series": 2,
    "relay.candles": 2,
    "relay.supervision.liveness": 2,
    "relay.supervision.holes": 2,
    "relay.supervision.attempts": 0,
    "relay.supervision.refusals": 1,
    "relay.listing": 1,
    "relay.kept_list": 6,
    "relay.client.names": 1,
    "relay.client.messages": 2,
    "relay.client.backoff": 1,
    "relay.client.errors": 2,
    "relay.client.decoding": 3,
    "relay.client.resume": 3,
    "relay.client.inbox": 3,
    "relay.client.answers": 4,
    "relay.client.http": 4,
    "relay.client.following": 4,
    "relay.client.connection": 5,
    "relay.client.relay_client": 6,
    "relay.client": 7,
    "relay.plugins.hookspecs": 2,
    "relay.plugins.sanity": 3,
    "relay.plugins.doors": 4,
    "relay.stream": 4,
    "relay.laggards": 5,
    "relay.fanout": 6,
    "relay.hub": 7,
    "relay.cache": 0,
    "relay.compression": 0,
    "relay.storage.aside": 0,
    "relay.storage.coverage": 0,
    "relay.storage.future": 0,
    "relay.storage.place": 1,
    "relay.storage.revisions": 1,
    "relay.storage.schema": 1,
    "relay.storage.opening": 2,
    "relay.storage.writes": 1,
    "relay.storage.chunks": 2,
    "relay.storage.shelf": 3,
    "relay.storage.tables": 3,
    "relay.storage.problems": 2,
    "relay.storage.damage": 3,
    "relay.storage.database": 4,
    "relay.storage.documents": 5,
    "relay.storage.writer": 5,
    "relay.storage.loading": 6,
    "relay.storage.store": 7,
    "relay.storage.upkeep": 4,
    "relay.storage.verify": 5,
    "relay.storage.sampling": 5,
    "relay.storage.retention": 8,
    "relay.commands.token": 2,
    "relay.runner": 2,
    "relay.tls": 1,
    "relay.commands.figures": 3,
    "relay.upstream.feed": 4,
    "relay.plugins.provider": 4,
    "relay.plugins.host": 5,
    "relay.turns": 1,
    "relay.doubts": 2,
    "relay.comparison": 1,
    "relay.ranges": 3,
    "relay.identity": 2,
    "relay.samples": 4,
    "relay.absences": 6,
    "relay.identities": 8,
    "relay.calls": 8,
    "relay.history": 9,
    "relay.commands.calling": 8,
    "relay.commands.report": 4,
    "relay.commands.board": 8,
    "relay.testing.limits": 0,
    "relay.testing.opening": 6,
    "relay.testing.upstream": 6,
    "relay.testing.pulse": 0,
    "relay.testing.feeds": 6,
    "relay.testing.run": 7,
    "relay.testing.streams": 8,
    "relay.testing.histories": 8,
    "relay.testing.resilience": 8,
    "relay.testing.speed": 8,
    "relay.testing.check": 9,
    "relay.testing": 10,
    "relay.directory": 7,
    "relay.commands.history": 9,
    "relay.commands.download": 8,
    "relay.commands.candlefile": 8,
    "relay.commands.check_config": 9,
    "relay.commands.plugins": 9,
    "relay.plugins.scaffold": 6,
    "relay.plugins.templates": 0,
    "relay.commands.status": 9,
    "relay.commands.symbols": 9,
    "relay.commands.tail": 9,
    "relay.snapshot": 5,
    "relay.joining": 10,
    "relay.supervision.carried": 8,
    "relay.supervision.backfill": 10,
    "relay.supervision.recheck": 10,
    "relay.supervision.feeds": 11,
    "relay.supervision.slots": 12,
    "relay.supervision.supervisor": 13,
    "relay.web.schemas": 7,
    "relay.web.answers": 7,
    "relay.web.parameters": 7,
    "relay.web.problems": 7,
    "relay.web.callers": 7,
    "relay.web.frames": 2,
    "relay.web.rounds": 0,
    "relay.web.tallies": 8,
    "relay.web.lists": 8,
    "relay.web.inlet": 8,
    "relay.web.newcomers": 9,
    "relay.web.gate": 10,
    "relay.web.origins": 8,
    "relay.web.access": 9,
    "relay.web.pages": 9,
    "relay.web.status": 19,
    "relay.web.bodies": 7,
    "relay.web.history": 11,
    "relay.web.openapi": 9,
    "relay.web.asyncapi": 9,
    "relay.web.docs": 10,
    "relay.web.contracts": 11,
    "relay.web.rest": 20,
    "relay.web.counting": 8,
    "relay.web.metrics": 20,
    "relay.web.parts": 14,
    "relay.web.socket": 9,
    "relay.web.rows": 15,
    "relay.web.subscribing": 16,
    "relay.web.connection": 17,
    "relay.web.ws": 18,
    "relay.app": 21,
    "relay.commands.store": 22,
    "relay.reload": 22,
    "relay.server": 23,
    "relay.cli": 24,
    "relay.__main__": 25,
    "relay": 26,
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
