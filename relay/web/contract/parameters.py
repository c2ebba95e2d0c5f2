"""How the parameters of a route are declared, read from an address and described, and what kinds there are; pure."""

from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any, Generic, Protocol, TypeVar

from relay.core.errors import Code, RequestError
from relay.core.intervals import parse_interval
from relay.core.near_names import did_you_mean
from relay.protocol import positions
from relay.protocol.fields import INTERVAL, LONGEST_SEARCH, PLUS_IN_ADDRESSES, Moment, Schema, parse_date, shown
from relay.protocol.positions import Position, parse_position
from relay.protocol.symbol_names import SYMBOL, parse_symbol

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

_LONGEST_COMPARED = 40
DATE_PATTERN = (
    r"^(19[89]|20[0-9])[0-9]-(0[1-9]|1[0-2])-(0[1-9]|1[0-9]|2[0-8])"
    r"(T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\.[0-9]{1,6})?(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9]))?$"
)
"""Times that are surely taken; others are too, such as the 31st of a month that has one."""


class TextKind(Protocol[T_co]):
    """What a parameter takes."""

    def of_text(self, name: str, text: str) -> T_co:
        """Read a value. Raises `RequestError`."""

    def schema(self) -> Schema:
        """Describe what is taken, as JSON Schema."""


class Parameter(Generic[T]):
    """A parameter that may be left out."""

    is_required = False

    def __init__(self, name: str, kind: TextKind[T], description: str, *, example: str | int | None = None) -> None:
        self.name = name
        self.kind = kind
        self.description = description
        self.example = example

    def read(self, text: str | None) -> T | None:
        """Return the value, None when it is left out. Raises `RequestError`."""
        return None if text is None else self.kind.of_text(self.name, text)

    def schema(self) -> Schema:
        """Describe what is taken, as JSON Schema."""
        return self.kind.schema()


class Required(Parameter[T]):
    """A parameter without which there is no answer."""

    is_required = True

    def read(self, text: str | None) -> T:
        """Return the value. Raises `RequestError`, also when it is left out or empty."""
        if not text:
            said = f"{self.name} is missing; give one, for example {self.name}={self.example}"
            raise RequestError(Code.INVALID_REQUEST, said)
        return self.kind.of_text(self.name, text)


class Alternative(Parameter[T]):
    """A parameter of `one_of` several, of which a request needs one."""

    def __init__(
        self, name: str, kind: TextKind[T], description: str, *, one_of: tuple[str, ...], example: str | None = None
    ) -> None:
        super().__init__(name, kind, description, example=example)
        self.one_of = one_of

    def read(self, text: str | None) -> T | None:
        """Return the value, None when it is left out. Raises `RequestError`, also when it is empty."""
        if text == "":
            raise self.missing()
        return super().read(text)

    def missing(self) -> RequestError:
        """Say that there is none."""
        said = f"{self.name} is missing; give one, for example {self.name}={self.example}"
        return RequestError(Code.INVALID_REQUEST, said)


class Defaulted(Parameter[T]):
    """A parameter that has a value also when it is left out."""

    def __init__(self, name: str, kind: TextKind[T], description: str, *, default: T, example: Any = None) -> None:
        super().__init__(name, kind, description, example=example)
        self.default = default

    def read(self, text: str | None) -> T:
        """Return the value or the default. Raises `RequestError`."""
        return self.default if text is None else self.kind.of_text(self.name, text)

    def schema(self) -> Schema:
        """Describe what is taken, and the default."""
        return self.kind.schema() | {"default": self.default}


class Query(Generic[T_co]):
    """The parameters that one route knows, in the order of the fields of `made`; another one, or one twice, is refused.

    `check` looks at all of them together.
    """

    def __init__(
        self, made: Callable[..., T_co], *parameters: Parameter[Any], check: Callable[[T_co], None] | None = None
    ) -> None:
        self.parameters = parameters
        self._made = made
        self._known = {parameter.name: parameter for parameter in parameters}
        self._check = check

    def read(self, query: Iterable[tuple[str, str]]) -> T_co:
        """Read the names and values of an address. Raises `RequestError` that names the parameter and what it takes."""
        found: dict[str, str] = {}
        for name, value in query:
            if name not in self._known:
                accepted = (
                    f"known parameters are {', '.join(self._known)}" if self._known else "this route has no parameters"
                )
                meant = did_you_mean(name[:_LONGEST_COMPARED], self._known)
                if not value and found:
                    meant = meant or f"; an & that belongs to the value of {[*found][-1]} is written %26"
                raise RequestError(Code.INVALID_REQUEST, f"unknown parameter {shown(name)}; {accepted}{meant}")
            if name in found:
                raise RequestError(Code.INVALID_REQUEST, f"{name} is given twice")
            found[name] = value
        values = self._made(*[parameter.read(found.get(name)) for name, parameter in self._known.items()])
        if self._check is not None:
            self._check(values)
        return values


# -- kinds -----------------------------------------------------------------------------------------


class Choice:
    """One of some words."""

    def __init__(self, *words: str) -> None:
        self.words = words

    def of_text(self, name: str, text: str) -> str:
        """Take one of the words."""
        if text not in self.words:
            said = f"{name} {shown(text)} is not known; use one of {', '.join(self.words)}"
            raise RequestError(Code.INVALID_REQUEST, said)
        return text

    def schema(self) -> Schema:
        """List the words."""
        return {"type": "string", "enum": list(self.words)}


class SearchText:
    """What somebody types to find something; of an empty text everything is found."""

    def of_text(self, name: str, text: str) -> str | None:
        """Take any text that is not too long."""
        if len(text) > LONGEST_SEARCH:
            said = f"{name} {shown(text)} has {len(text)} characters; use at most {LONGEST_SEARCH}"
            raise RequestError(Code.INVALID_REQUEST, said)
        return text.strip() or None

    def schema(self) -> Schema:
        """Say how long it may be."""
        return {"type": "string", "maxLength": LONGEST_SEARCH}


class Word:
    """Any text; who asked for it knows which ones there are."""

    def of_text(self, name: str, text: str) -> str:
        """Take it as it is."""
        return text

    def schema(self) -> Schema:
        """Say that it is a text."""
        return {"type": "string"}


class PositionText:
    """Where a client is in its streams, or nothing."""

    def of_text(self, name: str, text: str) -> Position | None:
        """Read it. Raises `RequestError` (invalid_request)."""
        return parse_position(text) if text else None

    def schema(self) -> Schema:
        """Say what such a text looks like."""
        return positions.SCHEMA


class TruthInAddress:
    """True or false, as a word or as 1 and 0."""

    _WORDS: Mapping[str, bool] = MappingProxyType({"true": True, "1": True, "false": False, "0": False})

    def of_text(self, name: str, text: str) -> bool:
        """Take one of the words."""
        if text.lower() not in self._WORDS:
            raise RequestError(Code.INVALID_REQUEST, f"{name} {shown(text)} is not true or false")
        return self._WORDS[text.lower()]

    def schema(self) -> Schema:
        """Say that it is a truth value."""
        return {"type": "boolean"}


class TimeInAddress(Moment):
    """A time in Unix seconds or as RFC 3339 writes it, `2025-11-24T16:00:00Z`; without a zone it is UTC."""

    __slots__ = ()

    forms = f"{Moment.forms}, or written as 2025-11-24T16:00:00Z"

    def of_text(self, name: str, text: str) -> int:
        """Take both."""
        moment = parse_date(text)
        return moment if moment is not None and self.least <= moment <= self.most else super().of_text(name, text)

    def schema(self) -> Schema:
        """Say both."""
        return {"anyOf": [super().schema(), {"type": "string", "pattern": DATE_PATTERN}]}


class NamesInAddress:
    """Names between commas; each is looked at later, since one that is wrong harms no other."""

    def __init__(self, most: int) -> None:
        self._most = most

    def of_text(self, name: str, text: str) -> tuple[str, ...]:
        """Take as many as one request may have, each once."""
        names = tuple(dict.fromkeys(one.strip() for one in text.split(",") if one.strip()))
        if not 1 <= len(names) <= self._most:
            said = f"{name} has {len(names)} names; give 1 to {self._most}, with commas between them"
            raise RequestError(Code.INVALID_REQUEST, said)
        return names

    def schema(self) -> Schema:
        """Say that there is a name in it."""
        return {"type": "string", "pattern": r"[^,\s]"}


class SymbolName:
    """A symbol; its value is (provider or None, symbol in upper case)."""

    def of_text(self, name: str, text: str) -> tuple[str | None, str]:
        """Take what can be a symbol."""
        try:
            return parse_symbol(text)
        except RequestError as error:
            if " " not in text:
                raise
            said = error.message + PLUS_IN_ADDRESSES
        raise RequestError(Code.UNKNOWN_SYMBOL, said)

    def schema(self) -> Schema:
        """Say how a symbol is spelt."""
        return dict(SYMBOL)


class IntervalName:
    """The name of an interval; its value is the canonical one."""

    def of_text(self, name: str, text: str) -> str:
        """Take one of the names."""
        return parse_interval(text)

    def schema(self) -> Schema:
        """List the names."""
        return dict(INTERVAL)
