"""Holds that one name means one thing."""

import ast
import re
from collections import defaultdict
from pathlib import Path

import pytest

from tests.support.sources import nodes

ROOT = Path(__file__).parents[2]
RELAY = ROOT / "relay"


def test_no_two_classes_have_the_same_name() -> None:
    found: dict[str, list[str]] = defaultdict(list)
    providers = sorted((ROOT / "providers").rglob("*.py"))
    # The simulated exchanges share no code with what they test, and so may have its names.
    for path in (*sorted(RELAY.rglob("*.py")), *(path for path in providers if path.parent.name != "sandbox")):
        for node in nodes(path):
            if isinstance(node, ast.ClassDef):
                found[node.name.lstrip("_")].append(str(path.relative_to(ROOT)))
    assert {name: paths for name, paths in found.items() if len(paths) > 1} == {}


def test_take_accepts_what_arrives() -> None:
    """What uses up is `acquire`, `reserve` or `spend`, what hands out what is kept `pop` or `drain`."""
    otherwise = []
    for path in (*RELAY.rglob("*.py"), *(ROOT / "providers").rglob("*.py")):
        for node in nodes(path):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name == "take":
                given = node.args.args[1:]
                first = ast.unparse(given[0].annotation or ast.Name("")) if given else ""
                if first in {"", "int", "float", "float | None"}:
                    otherwise.append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert otherwise == []


def test_modules_are_imported_by_their_own_names() -> None:
    aliased = [
        f"{path.relative_to(ROOT)}: {name.name} as {name.asname}"
        for path in sorted(RELAY.rglob("*.py"))
        if path.name not in {"app.py", "cli.py"}
        for node in nodes(path)
        if isinstance(node, ast.ImportFrom) and node.module is not None and node.module.startswith("relay")
        for name in node.names
        if name.asname is not None
    ]
    assert aliased == []


def test_conflation_has_the_same_name_on_pages_as_elsewhere() -> None:
    pages = [path for path in sorted((RELAY / "web" / "static").rglob("*")) if path.suffix in (".html", ".js")]
    text = "".join(path.read_text(encoding="utf-8") for path in pages)
    # Of a stream, of a provider and of a client.
    assert len(re.findall(r"""[">]Conflated["<]""", text)) == 3
    assert not re.search(r"""[">](Replaced|Merged|Dropped)["<]""", text)


OF_THE_READER = {"bitstamp.py", "ccxt_exchange.py", "xetra.py", "my_provider.py"}
GUIDES = ("README.md", "relay/server/README.md", "providers/README.md", ".github/CONTRIBUTING.md")


@pytest.mark.parametrize("guide", GUIDES)
def test_files_that_a_guide_names_exist(guide: str) -> None:
    text = (ROOT / guide).read_text(encoding="utf-8")
    named = re.findall(r"`((?:relay|providers|tests)/[\w/]+\.\w+)`", text)
    assert [name for name in named if not (ROOT / name).is_file()] == []
    folders = (RELAY, ROOT / "providers", ROOT / "tests")
    known = {path.name for folder in folders for path in folder.rglob("*.py")} | OF_THE_READER
    bare = set(re.findall(r"`(\w+\.py)`", text))
    assert len(named) + len(bare) > 2
    assert bare - known == set()
