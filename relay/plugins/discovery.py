"""The doors plugins come in by: installed entry points, modules, what is in them, and single files."""

import importlib
import importlib.metadata
import importlib.util
import logging
import sys
from collections.abc import Callable, Iterator, MutableMapping
from contextlib import suppress
from functools import partial, reduce
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple, TypeAlias

from relay.core.errors import PluginError
from relay.core.near_names import did_you_mean
from relay.plugins.validation import kind_of
from relay.telemetry.events import event

log = logging.getLogger(__name__)

ENTRY_POINTS = "relay.providers"
ALWAYS, IF_USED = "always", "if used"

Files: TypeAlias = MutableMapping[Path, ModuleType]
"""The modules that files were imported as."""


class Door(NamedTuple):
    """Where one plugin comes in, before it is imported: `find` does that.

    `name` is what its provider is called, as far as that is known before. `distribution` and `version` are of the
    package that it is installed with, "" where there is none. One that is on `IF_USED` is switched off but for the
    instances that use it.
    """

    source: str
    find: Callable[[], object]
    name: str
    version: str = ""
    distribution: str = ""
    on: str = ALWAYS

    def __str__(self) -> str:
        return f"{self.source} of {self.distribution} {self.version}" if self.distribution else self.source


def installed() -> Iterator[Door]:
    """Yield each installed entry point, in the order of the names of distributions, so that it is always the same."""
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
    doors = []
    for entry in found:
        name = version = ""
        with suppress(Exception):
            name, version = (entry.dist.name, entry.dist.version) if entry.dist is not None else ("", "")
        doors.append(Door(f"entry point:{entry.name}", entry.load, entry.name, version or "", name or ""))
    yield from sorted(doors, key=lambda door: door.distribution)


def builtin(plugin: object) -> Door:
    """Return the door of what is delivered with the relay: an object, or a text `package.name:Class`.

    A pair of such a text and when it is switched on is one that is not always.
    """
    if isinstance(plugin, tuple):
        text, on = plugin
        return builtin(text)._replace(on=on)
    if isinstance(plugin, str):
        _, _, path = plugin.partition(":")
        return Door(f"builtin:{path}", partial(import_named, plugin), guess_name(plugin))
    name = getattr(plugin, "__name__", type(plugin).__name__)
    return Door(f"builtin:{name}", partial(_itself, plugin), "")


def named(text: str, files: Files | None = None) -> Door:
    """Return the door of a module, of what is in one (`module:Name`) or of a file, as the setting `plugins` has it.

    A file that is among `files` is not run again, however it is spelt; one that is imported is added.
    """
    where, _ = _parted(text)
    is_file = where.endswith(".py")
    distribution, version = ("", "") if is_file else _distribution_of(where)
    source = f"{'file' if is_file else 'module'}:{text}"
    return Door(source, partial(import_named, text, files), guess_name(text), version, distribution)


def _itself(plugin: object) -> object:
    return plugin


def _parted(text: str) -> tuple[str, str]:
    """Return the module or file that a text names, and what in it, "" for the whole."""
    where, _, path = text.rpartition(":")
    # A drive of Windows has a colon as well.
    if where and all(part.isidentifier() for part in path.split(".")):
        return where, path
    return text, ""


def _distribution_of(module: str) -> tuple[str, str]:
    """Return the name and the version of the distribution that a module came with, empty if there is none."""
    package = module.partition(".")[0]
    with suppress(Exception):
        # Names of modules and of their distributions differ in dashes only, by custom.
        found = importlib.metadata.distribution(package.replace("_", "-"))
        return found.name, found.version
    return "", ""


def import_named(text: str, files: Files | None = None) -> Any:
    """Import a module, or a file that ends in `.py`; return it, or what of it is named behind a colon.

    Raises `PluginError` where the text names neither or the module has nothing of that name, else what the import
    raises.
    """
    where, path = _parted(text)
    if where.endswith(".py"):
        known = {} if files is None else files
        place = Path(where).absolute().resolve()
        module = known[place] if place in known else _import_file(where)
        known[place] = module
    elif all(part.isidentifier() for part in where.split(".")):
        module = importlib.import_module(where)
    else:
        raise PluginError(text, f"{text!r} is not of the form module, module:Name, ./file.py or ./file.py:Name")
    try:
        return reduce(getattr, path.split("."), module) if path else module
    except AttributeError:
        raise PluginError(text, f"{where} has no {path}{did_you_mean(path, vars(module))}") from None


def _import_file(name: str) -> ModuleType:
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


def guess_name(text: str) -> str:
    """Guess what the provider of a plugin is called that is named so."""
    where, _ = _parted(text)
    return Path(where).stem if where.endswith(".py") else where.rpartition(".")[2]
