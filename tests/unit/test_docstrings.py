"""The public API says what a caller cannot see: what a name is, in which unit a number is, what is raised."""

import ast
import builtins
import importlib
import inspect
import re
import sys
import textwrap
from asyncio import CancelledError
from collections.abc import Iterable, Iterator
from functools import cache
from itertools import pairwise
from pathlib import Path
from types import FunctionType, ModuleType, UnionType
from typing import Any, NamedTuple, Union, get_args, get_origin

import pytest

from relay.core.errors import Killed
from relay.plugins.hookspecs import HOOKS
from tests.support.sources import tree

ROOT = Path(__file__).parents[2]
PUBLIC = ("relay", "relay.client", "relay.testing")
UNITS = ("_s", "_ms")


class Public(NamedTuple):
    """A function or method that others may call; `doc` is what is said of it, of a constructor by its class."""

    name: str
    function: FunctionType
    doc: str
    owner: type | None = None


def names() -> Iterator[tuple[str, object]]:
    """Yield each public name with its value, the hooks among them."""
    for module in map(importlib.import_module, PUBLIC):
        for name in module.__all__:
            yield f"{module.__name__}.{name}", getattr(module, name)
    for hook in HOOKS:
        yield f"hook {hook.__name__}", hook


def is_ours(value: object) -> bool:
    return str(getattr(value, "__module__", "")).partition(".")[0] in ("relay", __name__.partition(".")[0])


def callables(values: Iterable[tuple[str, object]]) -> Iterator[Public]:
    for name, value in values:
        if isinstance(value, FunctionType):
            yield Public(name, value, inspect.getdoc(value) or "")
        elif isinstance(value, type) and is_ours(value):
            yield from methods(name, value)


def methods(name: str, kind: type) -> Iterator[Public]:
    """Yield the public methods and properties of a class, inherited ones of ours too; magic ones where they raise."""
    of_class = inspect.getdoc(kind) or ""
    for method_name in dir(kind):
        value = inspect.getattr_static(kind, method_name)
        value = getattr(value, "fget", None) or getattr(value, "__func__", None) or value
        if not isinstance(value, FunctionType) or not is_ours(value):
            continue
        if method_name.startswith("__"):
            yield Public(f"{name}.{method_name}", value, f"{of_class}\n{value.__doc__ or ''}", kind)
        elif not method_name.startswith("_"):
            yield Public(f"{name}.{method_name}", value, inspect.getdoc(value) or "", kind)


# -- what is raised -----------------------------------------------------------------------------------------------

Errors = frozenset[type[BaseException]]
UNSAID: Errors = frozenset({AssertionError, GeneratorExit, StopAsyncIteration, CancelledError, Killed})
"""What says that the code itself is wrong, or is the language's own way of ending."""
NEVER: dict[str, Errors] = {
    # It lends the session of nobody, so none that is closed.
    "relay.testing.check_provider": frozenset({RuntimeError}),
}
"""What a source seems to raise and cannot."""


class Raises(ast.NodeVisitor):
    """Collects what a function raises: by `raise`, and by calls of our functions that can be told by their names."""

    def __init__(self, function: FunctionType, owner: type | None, way: tuple[FunctionType, ...]) -> None:
        self.found: set[type[BaseException]] = set()
        self._scope = {**vars(builtins), **function.__globals__}
        self._owner = owner
        self._way = (*way, function)
        self._caught: list[Errors] = []

    def _value(self, node: ast.AST | None) -> Any:
        """Return what a name, a method of `self` or a name of a module is, else None."""
        if isinstance(node, ast.Name):
            return self._scope.get(node.id)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            if node.value.id == "self" and self._owner is not None:
                return inspect.getattr_static(self._owner, node.attr, None)
            of = self._scope.get(node.value.id)
            return getattr(of, node.attr, None) if isinstance(of, ModuleType) else None
        return None

    def _errors(self, node: ast.AST | None) -> Errors:
        """Return the classes of errors that an expression names."""
        values = [self._value(part) for part in ast.walk(node)] if node is not None else []
        flat = [one for value in values for one in (value if isinstance(value, tuple) else (value,))]
        return frozenset(one for one in flat if isinstance(one, type) and issubclass(one, BaseException))

    def _add(self, errors: Errors) -> None:
        self.found |= {error for error in errors if not any(issubclass(error, tuple(by)) for by in self._caught)}

    def visit_Raise(self, node: ast.Raise) -> None:
        self._add(self._errors(node.exc))
        self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        value = self._value(node.func)
        if isinstance(value, type) and is_ours(value) and not issubclass(value, BaseException):
            self._add(raised(value.__init__, value, self._way))
        elif isinstance(value, FunctionType) and is_ours(value):
            owner = self._owner if isinstance(node.func, ast.Attribute) else None
            self._add(raised(value, owner, self._way))
        self.generic_visit(node)

    def visit_Try(self, node: ast.Try) -> None:
        caught = [self._errors(handler.type) or frozenset({BaseException}) for handler in node.handlers]
        self._caught.append(frozenset().union(*caught))
        for part in node.body:
            self.visit(part)
        self._caught.pop()
        for handler, errors in zip(node.handlers, caught, strict=True):
            for inner in ast.walk(handler):
                if isinstance(inner, ast.Raise) and inner.exc is None and BaseException not in errors:
                    self._add(errors)
        after: list[ast.AST] = [*node.handlers, *node.orelse, *node.finalbody]
        for later in after:
            self.visit(later)

    def visit_With(self, node: ast.With) -> None:
        held = [item.context_expr for item in node.items if isinstance(item.context_expr, ast.Call)]
        suppressed = [self._errors(call) for call in held if ast.unparse(call.func).endswith("suppress")]
        self._caught += suppressed
        self.generic_visit(node)
        del self._caught[len(self._caught) - len(suppressed) :]

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        """Leave out functions within: somebody else calls them."""

    visit_AsyncFunctionDef = visit_Lambda = visit_ClassDef = visit_FunctionDef  # type: ignore[assignment]


def raised(function: object, owner: type | None = None, way: tuple[FunctionType, ...] = ()) -> Errors:
    """Return the errors that leave a function of ours, as far as its source tells."""
    if not isinstance(function, FunctionType) or function in way:
        return frozenset()
    inner: Any = inspect.unwrap(function)
    visitor = Raises(inner, owner, way)
    for part in body_of(inner):
        visitor.visit(part)
    return frozenset(visitor.found - UNSAID)


@cache
def body_of(function: FunctionType) -> list[ast.stmt]:
    try:
        (node,) = ast.parse(textwrap.dedent(inspect.getsource(function))).body
    except (OSError, TypeError):
        return []  # a NamedTuple's own
    return node.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) else []


def says(doc: str, error: type[BaseException]) -> bool:
    """Say whether a docstring names an error, or what it is one of."""
    return any(re.search(rf"\b{kind.__name__}\b", doc) for kind in error.__mro__ if kind is not Exception)


# -- the tests ----------------------------------------------------------------------------------------------------


def numbers() -> Iterator[tuple[str, str, object, str]]:
    """Yield the arguments of public calls and the fields of public tuples: whose, name, type, docstring."""
    for public in callables(names()):
        for name, parameter in inspect.signature(public.function).parameters.items():
            yield public.name, name, parameter.annotation, public.doc
    for name, value in names():
        if isinstance(value, type) and hasattr(value, "_fields"):
            for field, kind in inspect.get_annotations(value).items():
                yield name, field, kind, value.__doc__ or ""


def is_number(kind: object) -> bool:
    """Say whether an annotation is of a number, or of one or None."""
    return bool(
        {int, float}
        & set(get_args(kind) if get_origin(kind) in (UnionType, Union) else (kind,) if isinstance(kind, type) else ())
    )


def has_docstring(value: object) -> bool:
    """Say whether a text stands below the line of a module that gives a constant its name."""
    for module_name, module in list(sys.modules.items()):
        if module_name.partition(".")[0] != "relay" or not (module.__file__ or "").endswith(".py"):
            continue
        if not any(one is value for one in vars(module).values()):
            continue
        for line, after in pairwise(tree(Path(str(module.__file__))).body):
            if isinstance(line, ast.Assign | ast.AnnAssign):
                (target,) = line.targets if isinstance(line, ast.Assign) else (line.target,)
                is_it = isinstance(target, ast.Name) and vars(module).get(target.id) is value
                if is_it and isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
                    return True
    return False


def unsaid(public: Public) -> list[str]:
    """Return the errors that a docstring does not name."""
    errors = raised(public.function, public.owner) - NEVER.get(public.name, frozenset())
    return [f"{public.name} raises {error.__name__}" for error in errors if not says(public.doc, error)]


def test_docstrings_say_what_is_raised() -> None:
    found = list(callables(names()))
    assert len(found) > 100
    assert [one for public in found for one in unsaid(public)] == []


def test_an_error_that_is_raised_below_and_not_said_is_noticed() -> None:
    assert isinstance(asks, FunctionType)
    assert raised(asks) == {LookupError, TimeoutError}
    assert isinstance(asks, FunctionType)
    assert unsaid(Public("asks", asks, "Raises `TimeoutError`.")) == ["asks raises LookupError"]
    assert not says("Raises `KeyError`.", LookupError)
    assert says("Raises `LookupError`.", KeyError)


def asks(key: str) -> str:
    try:
        return finds(key)
    except ValueError:
        return ""
    except OSError:
        raise TimeoutError from None


def finds(key: str) -> str:
    if not key:
        raise ValueError(key)
    raise LookupError(key)


def test_every_public_name_is_described() -> None:
    def is_described(value: object) -> bool:
        if isinstance(value, FunctionType | type):
            return not (value.__doc__ or f"{value.__name__}(").startswith(f"{value.__name__}(")
        return has_docstring(value)

    assert [name for name, value in names() if not is_described(value)] == []
    assert [public.name for public in callables(names()) if not public.doc.strip()] == []


def test_numbers_say_their_unit() -> None:
    def is_said(name: str, doc: str) -> bool:
        return name.endswith(UNITS) or f"`{name}`" in doc

    assert [
        f"{whose}: {name}" for whose, name, kind, doc in numbers() if is_number(kind) and not is_said(name, doc)
    ] == []


@pytest.mark.parametrize("hook", HOOKS, ids=lambda hook: hook.__name__)
def test_hook_says_each_of_its_arguments(hook: FunctionType) -> None:
    doc = hook.__doc__ or ""
    assert [name for name in inspect.signature(hook).parameters if f"`{name}`" not in doc] == []
    assert "Raise" in doc


# -- facts about venues -------------------------------------------------------------------------------------------

SOURCE = re.compile(r"\.md\b|https://|\barticle \d|OpenAPI|[Rr]ecorded|[Mm]easured|\b[Oo]ur\b|convention")
VENUE_FOLDERS = ("binance", "binance_markets", "binance_usdm", "twelve_data")
PROVIDERS = ROOT / "providers"
# What the simulated exchanges do is as much a fact about their venues; the market below them is made up.
SIMULATED = ("binance*.py", "contracts.py", "connection.py", "twelve_data*.py")
VENUES = [
    *(path for venue in VENUE_FOLDERS for path in sorted((PROVIDERS / venue).glob("*.py"))),
    *(path for names in SIMULATED for path in sorted((PROVIDERS / "sandbox").glob(names))),
]


def constants(source: str) -> Iterator[tuple[str, str]]:
    """Yield each number that a module or a class gives a name, and what is said of it: above, beside and below."""
    lines = source.splitlines()
    tree = ast.parse(source)
    for body in (tree.body, *(node.body for node in tree.body if isinstance(node, ast.ClassDef))):
        for line, after in pairwise((*body, ast.Pass())):
            if not isinstance(line, ast.Assign | ast.AnnAssign) or line.value is None:
                continue
            values = {type(part.value) for part in ast.walk(line.value) if isinstance(part, ast.Constant)}
            if {int, float} & values and not isinstance(line.value, ast.Call):
                first = line.lineno - 1
                while first and lines[first - 1].strip():
                    first -= 1
                above = [text for text in lines[first : line.end_lineno] if "#" in text]
                below = ast.unparse(after) if isinstance(after, ast.Expr) else ""
                yield ast.unparse(line).partition(" =")[0], "\n".join([*above, below])


@pytest.mark.parametrize("path", VENUES, ids=lambda path: str(path.relative_to(PROVIDERS)))
def test_number_says_where_it_is_from(path: Path) -> None:
    said = list(constants(path.read_text(encoding="utf-8")))
    assert [name for name, text in said if not SOURCE.search(text)] == []


def test_a_number_without_a_source_is_noticed() -> None:
    found = dict(
        constants('# Ours.\nA = 1\nB: float = 2.0\n"""errors.md"""\n\nC = 3\n\nclass D:\n    e = {4}\n    f = \'\'\n')
    )
    assert {name: bool(SOURCE.search(text)) for name, text in found.items()} == {
        "A": False, "B: float": True, "C": False, "e": False
    }  # fmt: skip
