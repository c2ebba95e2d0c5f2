"""What may be in the table `options`: what ccxt's classes take in their constructors, as far as it can be told; pure.

They take whatever they get, and fail with it later, where it looks like a fault of the exchange.
"""

from collections.abc import Iterator, Mapping
from typing import Any

_SETTINGS = {"apiKey": "api_key", "secret": "api_secret", "password": "api_password", "sandbox": "sandbox"}
"""What has a setting of its own; those of keys are kept secret."""
_OWN = ("asyncio_loop", "markets", "own_session", "session", "verbose")
"""What the relay gives to ccxt itself; `verbose` would print keys."""
_TABLES = ("features", "has", "headers", "options", "timeframes", "urls")
_NUMBERS = ("rateLimit", "timeout")
_SCHEMES = ("http://", "https://", "ws://", "wss://")


def fault_of_options(options: Any) -> str | None:
    """Say what is wrong with a table of options, and what would be right, or None."""
    for name, value in options.items():
        if name in _SETTINGS:
            return f"has {name}, which is the setting {_SETTINGS[name]}"
        if name in _OWN:
            return f"has {name}, which the relay sets itself"
        if name in _TABLES and not isinstance(value, Mapping):
            return f"has {name}, which is not a table"
        if name in _NUMBERS and (isinstance(value, bool) or not isinstance(value, int | float) or value <= 0):
            return f"has {name}, which is not a number of milliseconds above 0"
    named = options.get("options", {})
    if not isinstance(named.get("ws", {}), Mapping):
        return "has options.ws, which is not a table"
    api = options.get("urls", {}).get("api", {})
    if not isinstance(api, str | Mapping):
        return "has urls.api, which is neither an address nor a table of addresses"
    for path, address in _addresses("urls.api", api):
        if not isinstance(address, str) or not address.startswith(_SCHEMES):
            return f"has {path}, which is not an address; addresses begin with {', '.join(_SCHEMES)}"
    return None


def _addresses(path: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for name, part in value.items():
            yield from _addresses(f"{path}.{name}", part)
    else:
        yield path, value
