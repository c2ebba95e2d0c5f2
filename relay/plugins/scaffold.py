"""Writes a provider project that works as it stands: code, stand-in, test, packaging and a README."""

import keyword
from collections.abc import Iterable
from pathlib import Path

from relay.config import provider_settings
from relay.core.errors import ConfigError
from relay.core.version import VERSION

TEMPLATE = Path(__file__).with_name("new-provider")
"""Projects of each kind, which are tested as they stand; a new one differs by its name."""
KINDS = {"websocket": "my_exchange", "polling": "my_polls", "ticks": "my_ticks"}
"""What kind of venue which template is for: one that streams candles, has no stream, or streams trades."""


def write_project(name: str, where: Path, builtin: Iterable[str], kind: str = "websocket") -> list[Path]:
    """Write a project of one of the `KINDS` into the folder `where`/`name`, which must not exist; return its files.

    Raises `ConfigError` for a name that a provider cannot have, for a folder that is there and for one that cannot be
    written.
    """
    fault = fault_of_name(name, builtin)
    if fault is not None:
        raise ConfigError(fault)
    folder = where / name
    template = KINDS[kind]
    words = {"market-relay>=0": f"market-relay>={VERSION}"}
    # The files that all kinds share call themselves as the first one does.
    for placeholder in (template, "my_exchange"):
        words.update(zip(_spellings(placeholder), _spellings(name), strict=True))
    try:
        folder.mkdir()
    except FileExistsError:
        raise ConfigError(f"{folder} exists already; choose another name or move the folder") from None
    except OSError as error:
        raise ConfigError(f"cannot create the folder {folder}: {error.strerror or error}") from None
    written = []
    for file in (
        f"market_relay_{template}.py",
        f"{template}_standin.py",
        f"test_{template}.py",
        "pyproject.toml",
        "README.md",
    ):
        text = (TEMPLATE / file).read_text(encoding="utf-8")
        for word, value in words.items():
            file, text = file.replace(word, value), text.replace(word, value)
        (folder / file).write_text(text, encoding="utf-8")
        written.append(folder / file)
    return written


def _spellings(name: str) -> tuple[str, ...]:
    """Return a name as a distribution, as modules, as classes and as people write it."""
    parts = [part.capitalize() for part in name.split("_") if part]
    return f"market-relay-{name.replace('_', '-')}", name, "".join(parts), " ".join(parts)


def fault_of_name(name: str, builtin: Iterable[str]) -> str | None:
    """Say why a new provider cannot have this name, or None."""
    if not name.isidentifier() or not name.isascii() or name != name.lower() or not name[0].isalpha():
        return f"{name!r} is not a lower-case identifier such as my_exchange"
    if keyword.iskeyword(name):
        return f"{name!r} is a keyword of Python; choose another name such as my_{name}"
    if provider_settings.fault_of_name(name):
        return f"{name!r} is a setting of the relay itself; choose another name such as my_{name}"
    if name in set(builtin):
        return f"{name!r} is a built-in provider; choose another name such as my_{name}"
    return None
