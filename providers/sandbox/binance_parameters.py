"""How the simulated Binance reads the parameters of a REST call, and in which words it refuses them; pure."""

import re
from collections.abc import Mapping, Sequence

_SYMBOL_RANGE = r"^[\\w\\-._&&[^a-z]]{1,50}$".replace("\\\\", "\\")
_NUMBER_RANGE = "^[0-9]{1,20}$"
_EARLIEST_MICROSECONDS = 10**14
"""Our own choice, as nothing documents the border: in milliseconds it would be the year 5138."""


class Refusal(Exception):
    """A request that the exchange does not answer, with its code and words."""

    def __init__(self, code: int, message: str, status: int = 400, headers: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.status = status
        self.headers = headers or {}


def check_duplicates(query: Mapping[str, str]) -> None:
    """Refuse a parameter that is given twice."""
    if len(set(query)) < len(query):
        raise Refusal(-1101, "Duplicate values for a parameter detected.")


def check_names(query: Mapping[str, str], known: Sequence[str]) -> None:
    """Refuse parameters that the call does not know."""
    if not known and len(query) > 0:
        raise Refusal(-1101, f"Too many parameters; expected '0' and received '{len(query)}'.")
    read = sum(1 for name in query if name in known)
    if read < len(query):
        raise Refusal(
            -1104, f"Not all sent parameters were read; read '{read}' parameter(s) but was sent '{len(query)}'."
        )


def required(query: Mapping[str, str], name: str) -> str:
    """Read a parameter that has to be there."""
    value = query.get(name, "")
    if not value:
        raise Refusal(-1102, f"Mandatory parameter '{name}' was not sent, was empty/null, or malformed.")
    return value


def check_symbol(symbol: str) -> None:
    """Refuse what cannot be a symbol."""
    legal = 1 <= len(symbol) <= 50 and all((c.isalnum() or c in "-._") and not "a" <= c <= "z" for c in symbol)
    if not legal:
        raise Refusal(-1100, f"Illegal characters found in parameter 'symbol'; legal range is '{_SYMBOL_RANGE}'.")


def number(query: Mapping[str, str], name: str, default: int) -> int:
    """Read a whole number, or its default."""
    text = query.get(name)
    if text is None:
        return default
    if re.fullmatch(r"[0-9]{1,20}", text) is None:
        raise Refusal(-1100, f"Illegal characters found in parameter '{name}'; legal range is '{_NUMBER_RANGE}'.")
    return int(text)


def moment(query: Mapping[str, str], name: str) -> int | None:
    """Read a time in milliseconds, or in microseconds; None where none is given."""
    if name not in query:
        return None
    value = number(query, name, 0)
    # Microseconds are told from milliseconds by their size.
    return (
        -(-value // 1000)
        if name == "startTime" and value >= _EARLIEST_MICROSECONDS
        else (value // 1000 if value >= _EARLIEST_MICROSECONDS else value)
    )
