"""The doors plugins come in by: installed entry points, modules and single files."""

import importlib
import importlib.metadata
import importlib.util
import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from types import ModuleType

from relay.plugins.validation import kind_of
from relay.telemetry.events import event

log = logging.getLogger(__name__)

ENTRY_POINTS = "relay.providers"


def installed() -> Iterator[tuple[str, Callable[[], object], str]]:
    """Yield the source, the loader and the version of each installed entry point."""
    try:
        found = list(importlib.metadata.entry_points(group=ENTRY_POINTS))
    except Exception as error:  # noqa: BLE001 - whatever a list may do to its parser
        # One distribution with a broken list hides those of all others: look at each alone.
        log.warning(
            "an installed distribution has a malformed list of entry points (%s)",
            kind_of(error),
            extra=event("entry_points_broken"),
        )
        found = []
        for distribution in importlib.metadata.distributions():
            with suppress(Exception):
                found += [entry for entry in distribution.entry_points if entry.group == ENTRY_POINTS]
    for entry in found:
        version = ""
        with suppress(Exception):
            version = entry.dist.version if entry.dist is not None else ""
        yield f"entry point:{entry.name}", entry.load, version or ""


def version_of(name: str) -> str:
    """Return the version of the distribution that a module came with, empty if there is none."""
    if name.endswith(".py"):
        return ""
    package = name.partition(".")[0]
    with suppress(Exception):
        # Names of modules and of their distributions differ in dashes only, by custom.
        return importlib.metadata.version(package.replace("_", "-"))
    return ""


def import_named(name: str) -> ModuleType:
    """Import a module, or a file that ends in `.py`, by its text in the setting `plugins`."""
    if not name.endswith(".py"):
        return importlib.import_module(name)
    path = Path(name)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {name}")
    module_name = f"relay_plugin_{path.stem}"
    number = 1
    while module_name in sys.modules:
        number += 1
        module_name = f"relay_plugin_{path.stem}_{number}"
    spec = importlib.util.spec_from_file_location(module_name, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{name} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    # Dataclasses and pickle look their module up there.
    sys.modules[module_name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[module_name]
        raise
    return module


def guess_name(source: str) -> str:
    """Guess what the provider of a plugin that did not load is called."""
    door, _, where = source.partition(":")
    return Path(where).stem if door == "file" else where.rpartition(".")[2]
