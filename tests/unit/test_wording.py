"""Texts that people read use standard words: phrases that readers with school English did not understand stay away."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.sources import nodes

ROOT = Path(__file__).parents[2]
GUIDES = (
    "README.md",
    "CHANGELOG.md",
    "relay/server/README.md",
    "relay/web/facades/README.md",
    "relay/web/facades/udf/README.md",
    "relay/client/README.md",
    "providers/README.md",
    "providers/twelve_data/README.md",
    "providers/ccxt/README.md",
)
PAGES = (*ROOT.glob("relay/web/static/**/*.js"), *ROOT.glob("relay/web/static/*.html"))
MONITORING = tuple(path for path in ROOT.glob("relay/telemetry/monitoring/*") if path.suffix in {".json", ".yaml"})

NOT_UNDERSTOOD = {
    r"\bbe had\b": "are available",
    r"\bnobody\b": "a sentence that says who does what",
    r"\ba good (half|third|quarter|fifth|sixth|seventh|eighth|ninth|tenth)\b": "a number",
    r"\b(make|makes|made) no sense\b": "is invalid",
    r"(?<!there )\b(is|are) no (?!longer\b|more\b)[a-z]+": "is not a",
    r"\banew\b": "again",
    r"\bwhoever\b": "a client that",
    r"\bgone on with\b": "continued",
    r"\bheld against\b": "compared with",
}
"""What was not understood, as a pattern, and what can be written instead."""


def literals(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the texts of a Python file with their lines; of docstrings only those of commands, which are their help."""
    notes = {id(node.value) for node in nodes(path) if isinstance(node, ast.Expr)}
    for node in nodes(path):
        if isinstance(node, ast.FunctionDef) and any("command(" in ast.unparse(one) for one in node.decorator_list):
            yield node.lineno, ast.get_docstring(node) or ""
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in notes:
            yield node.lineno, node.value


def lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the lines of any other file but those that are comments."""
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if not (path.suffix == ".js" and line.lstrip().startswith(("//", "/*", "*"))):
            yield number, line.partition(" // ")[0] if path.suffix == ".js" else line


@pytest.fixture(scope="module")
def texts() -> list[tuple[str, str]]:
    """What people read, each with its place."""
    python = (*ROOT.glob("relay/**/*.py"), *ROOT.glob("providers/**/*.py"))
    others = (*(ROOT / guide for guide in GUIDES), *PAGES, *MONITORING)
    found = [(path, one) for path in python for one in literals(path)]
    found += [(path, one) for path in others for one in lines(path)]
    return [(f"{path.relative_to(ROOT)}:{line}", text) for path, (line, text) in found]


@pytest.mark.parametrize("phrase", NOT_UNDERSTOOD)
def test_texts_have_no_phrase_that_was_not_understood(phrase: str, texts: list[tuple[str, str]]) -> None:
    found = [f"{place}: {text[:100]}" for place, text in texts if re.search(phrase, text, re.IGNORECASE)]
    assert not found, f"write {NOT_UNDERSTOOD[phrase]} instead:\n" + "\n".join(found)
