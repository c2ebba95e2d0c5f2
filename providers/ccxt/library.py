"""The package `ccxt`: which exchanges it has, and the class of one, imported without those of all others.

`import ccxt` reads more than a hundred exchanges three times, for plain, asynchronous and streaming use: 75 MB. Each
exchange is a module of its own, but lies in packages that read all. Here those three packages begin empty, and find
what is asked of them: a single name in its module; anything else makes them read all that they would have read.
"""

import importlib
import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from functools import cache
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

PACKAGE = "ccxt"
PACKAGES = ("ccxt", "ccxt.async_support", "ccxt.pro")
_PLUMBING = {"abstract", "async_support", "base", "pro", "static_dependencies", "test"}
"""What lies beside the exchanges and is none: the folders of ccxt 4.5."""
_BASES = ("ccxt.base.errors", "ccxt.base.exchange", "ccxt.async_support.base.exchange")
"""Where the names are that modules of exchanges take from the packages."""

IS_MISSING = "needs ccxt, which is not installed; run: pip install 'market-relay[ccxt]'"
IS_FROZEN = (
    "needs ccxt, which the single binary does not contain; install the relay with "
    "pip install 'market-relay[ccxt]' and run that one"
)


def lack_of_library() -> str | None:
    """Say that ccxt is not there, and how to get it, or None. Imports nothing of it."""
    if PACKAGE in sys.modules or importlib.util.find_spec(PACKAGE) is not None:
        return None
    return IS_FROZEN if getattr(sys, "frozen", False) else IS_MISSING


@cache
def exchange_names() -> tuple[str, ...]:
    """Return the names of all exchanges that ccxt has, sorted; none without ccxt. Imports none of them."""
    spec = importlib.util.find_spec(PACKAGE) if lack_of_library() is None else None
    found = {
        path.stem
        for place in (spec.submodule_search_locations or () if spec else ())
        for path in Path(place, "async_support").glob("*.py")
        if not path.stem.startswith("_")
    }
    return tuple(sorted(found - _PLUMBING))


def fault_of_exchange(name: Any) -> str | None:
    """Say why candles of an exchange cannot be had, or None. Imports the one exchange, if there is one."""
    if (lack := lack_of_library()) is not None:
        return lack
    if name not in exchange_names():
        near = get_close_matches(name.lower(), exchange_names(), 3)
        hint = f"; did you mean {' or '.join(near)}" if near else ""
        return f"is not an exchange of ccxt; it has {len(exchange_names())}, such as kraken, bybit, okx, coinbase{hint}"
    has = exchange_class(name)().has
    if not has.get("fetchOHLCV"):
        return "has no candles in ccxt (fetchOHLCV); its tickers and trades cannot be used"
    return None


@cache
def exchange_class(name: str) -> type[Any]:
    """Return the class of an exchange: the one that streams, if ccxt has one.

    Raises `ModuleNotFoundError` for a name that is no exchange's.
    """
    with _narrowed():
        try:
            module = importlib.import_module(f"ccxt.pro.{name}")
        except ModuleNotFoundError as error:
            if error.name != f"ccxt.pro.{name}":
                raise
            module = importlib.import_module(f"ccxt.async_support.{name}")
    found: type[Any] = getattr(module, name)
    return found


@cache
def errors() -> ModuleType:
    """Return the module with the errors of ccxt."""
    with _narrowed():
        return importlib.import_module("ccxt.base.errors")


# -- packages that read what is asked of them --------------------------------------------------------


class _NarrowPackage(ModuleType):
    """A package whose `__init__` was not run yet, and is as soon as a name is asked for that no single module has."""

    def __init__(self, spec: ModuleSpec) -> None:
        super().__init__(spec.name)
        self.__spec__ = spec
        self.__file__ = spec.origin
        self.__path__ = list(spec.submodule_search_locations or ())
        self.__loader__ = spec.loader
        self.__package__ = spec.name

    def __setattr__(self, name: str, value: Any) -> None:
        # The package itself has the class under the name of the module that Python puts there.
        if isinstance(value, ModuleType) and value.__name__ == f"{self.__name__}.{name}":
            value = vars(value).get(name, value)
        super().__setattr__(name, value)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        for module in _BASES:
            if self.__name__ == "ccxt" and module == _BASES[2]:
                break
            if self.__name__ != "ccxt" and module == _BASES[1]:
                continue
            found = vars(importlib.import_module(module))
            if name in found:
                return found[name]
        if name in exchange_names():
            importlib.import_module(f"{self.__name__}.{name}")
            return vars(self)[name]
        self._become_whole()
        return vars(self)[name] if name in vars(self) else _missing(self, name)

    def _become_whole(self) -> None:
        spec = self.__spec__
        self.__class__ = ModuleType  # type: ignore[assignment]
        assert spec is not None
        assert spec.loader is not None
        with _without_faster_zlib():
            spec.loader.exec_module(self)


def _missing(module: ModuleType, name: str) -> Any:
    raise AttributeError(f"module {module.__name__!r} has no attribute {name!r}")


@contextmanager
def _narrowed() -> Iterator[None]:
    """Import from packages that are narrow, unless somebody has imported ccxt as a whole before."""
    for name in PACKAGES:
        if name not in sys.modules:
            spec = importlib.util.find_spec(name)
            if spec is None:
                raise ModuleNotFoundError(IS_MISSING, name=name)
            package = sys.modules[name] = _NarrowPackage(spec)
            parent, _, own = name.rpartition(".")
            if parent:
                setattr(sys.modules[parent], own, package)
    with _without_faster_zlib():
        yield


@contextmanager
def _without_faster_zlib() -> Iterator[None]:
    """Keep ccxt from replacing what aiohttp compresses with in this whole process, as it does where it can."""
    name = "aiohttp_fast_zlib"
    known = sys.modules.get(name)
    sys.modules[name] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        if known is None:
            del sys.modules[name]
        else:
            sys.modules[name] = known
