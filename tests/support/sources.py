"""The source of the package as trees, for tests that read it: each process parses a file once."""

import ast
from functools import cache
from pathlib import Path


@cache
def tree(path: Path) -> ast.Module:
    """Return what a file of Python consists of; everybody has the same, so change nothing in it."""
    return ast.parse(path.read_text(encoding="utf-8"))


@cache
def nodes(path: Path) -> tuple[ast.AST, ...]:
    """Return all parts of a file of Python, in the order of `ast.walk`."""
    return tuple(ast.walk(tree(path)))
