"""A text that must not show up in logs, errors, status or `repr`."""

from collections.abc import Iterable, Iterator
from urllib.parse import quote, quote_plus

_LEAST_SECRET = 4
"""Shorter texts appear anywhere by chance."""


class Secret:
    """Wraps a key or token; only `reveal` gives it away."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """Return the text, for the one place that sends it."""
        return self._text

    def __bool__(self) -> bool:
        return bool(self._text)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._text == self._text

    def __hash__(self) -> int:
        return hash(self._text)

    def __repr__(self) -> str:
        return "Secret(***)"

    __str__ = __repr__


def spellings(values: Iterable[object]) -> Iterator[str]:
    """Give every secret as it may appear in a text: as it is, and as an address spells it."""
    for value in values:
        text = value.reveal() if isinstance(value, Secret) else ""
        if len(text) >= _LEAST_SECRET:
            yield from dict.fromkeys((text, quote(text), quote(text, safe=""), quote_plus(text)))
