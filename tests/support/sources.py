"""The source of the package as trees, for tests that read it: each process parses a file once."""

import ast
import gc
from functools import cache
from pathlib import Path


@cache
def tree(path: Path) -> ast.Module:
    """Return what a file of Python consists of; everybody has the same, so change nothing in it."""
    text = path.read_text(encoding="utf-8")
    # So many parts that stay: to look for garbage among them again and again takes as long as to make them.
    gc.disable()
    try:
        return ast.parse(text)
    finally:
        gc.freeze()
        gc.enable()


@cache
def nodes(path: Path) -> tuple[ast.AST, ...]:
    """Return all parts of a file of Python, in the order of `ast.walk`."""
    return tuple(ast.walk(tree(path)))
