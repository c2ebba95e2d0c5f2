"""What clients may fill in, declared once: each field is read by its declaration and described from it; no I/O."""

import re
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, Generic, Protocol, TypeVar

import orjson

from relay.core.errors import Code, RequestError
from relay.core.intervals import INTERVALS, meant_interval

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

Schema = dict[str, Any]

WHERE_SYMBOLS_ARE = "GET /api/v1/market-data/symbols lists all"
"""How an error ends that can suggest no symbol; who is no HTTP client says it in other words."""
PLUS_IN_ADDRESSES = "; in an address + is written %2B"
"""How an error about a symbol with a space ends; who writes no address is not told it."""
LONGEST_SEARCH = 100
"""So many characters has what somebody types to find something."""
LATEST_TIME = 10**11
"""In the year 5138; a present time in milliseconds is larger."""
INTERVAL_NAMES = (*INTERVALS, *(name.upper() for name in INTERVALS if name[-1] in "shdw"))
"""What is taken as an interval: the names, and those of whole seconds, hours, days and weeks in upper case."""

INTERVAL: Schema = {"type": "string", "enum": list(INTERVAL_NAMES)}

_DATE = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2}(?:[Tt ][0-9:.]{5,15}(?:[Zz]|[+-][0-9:]{5})?)?)(?: ([0-9]{2}:[0-9]{2}))?"
)
_WHOLE = re.compile(r"-?[0-9]{1,15}")
_NUMBER = re.compile(r"[0-9]{1,20}(\.[0-9]{1,20})?")
_WORD_LIMIT = 60
# In 1973. What is less is hardly the time of a candle that anybody asks for.
_EARLIEST_MEANT = 10**8
# A time further ahead is a mistake; who asks for what comes next has a clock that may be wrong a little.
_AHEAD_S = 86_400


def shown(value: object) -> str:
    """Return a client's value as an error may repeat it: short, printable, quoted."""
    text = value if isinstance(value, str) else _written(value)
    text = "".join(char if char.isprintable() else "�" for char in text)
    if len(text) > _WORD_LIMIT:
        text = text[: _WORD_LIMIT - 1] + "…"
    return repr(text) if isinstance(value, str) else text


def _written(value: object) -> str:
    try:
        return orjson.dumps(value, default=str).decode()
    except (TypeError, ValueError, RecursionError):
        # A caller of the client may give what no JSON holds: a number beyond 64 bits, half of a surrogate pair.
        return str(value)


class Kind(Protocol[T_co]):
    """What JSON values a field takes."""

    def of_json(self, name: str, value: object) -> T_co:
        """Check a value. Raises `RequestError`."""

    def schema(self) -> Schema:
        """Describe what is taken, as JSON Schema."""


class Field(Generic[T]):
    """A field of a client's message, which may be missing."""

    __slots__ = ("_of_json", "description", "example", "kind", "name")

    def __init__(self, name: str, kind: Kind[T], description: str, *, example: Any = None) -> None:
        self.name = name
        self.kind = kind
        self.description = description
        self.example = example
        self._of_json = kind.of_json

    def read(self, message: dict[str, Any]) -> T | None:
        """Return the value in a message, None when it is missing or null. Raises `RequestError`."""
        value = message.get(self.name)
        return None if value is None else self._of_json(self.name, value)

    def need(self, message: dict[str, Any]) -> T:
        """Return the value in a message. Raises `RequestError`, also when it is missing or null."""
        value = message.get(self.name)
        if value is None:
            example = f'"{self.name}":{orjson.dumps(self.example).decode()}'
            raise RequestError(Code.INVALID_REQUEST, f"{self.name} is missing; give one, for example {example}")
        return self._of_json(self.name, value)


# -- kinds -----------------------------------------------------------------------------------------


class Whole:
    """A whole number within bounds, both included."""

    __slots__ = ("least", "most")

    def __init__(self, least: int, most: int) -> None:
        self.least = least
        self.most = most

    def of_json(self, name: str, value: object) -> int:
        """Take an integer, no float and no truth value."""
        if isinstance(value, bool) or not isinstance(value, int) or not self.least <= value <= self.most:
            raise self.fault(name, value)
        return value

    def of_text(self, name: str, text: str) -> int:
        """Take digits, with a minus sign at most."""
        if not _WHOLE.fullmatch(text) or not self.least <= int(text) <= self.most:
            raise self.fault(name, text)
        return int(text)

    def fault(self, name: str, value: object) -> RequestError:
        """Return the error that says what is wrong with a value and what would be right."""
        said = f"{name} {shown(value)} is not a whole number from {self.least} to {self.most}"
        return RequestError(Code.INVALID_REQUEST, said)

    def schema(self) -> Schema:
        """Say the bounds."""
        return {"type": "integer", "minimum": self.least, "maximum": self.most}


class Moment(Whole):
    """A time in Unix seconds; of what can only be milliseconds or another form it is said what the number would be."""

    __slots__ = ()

    forms = "times are Unix seconds, not milliseconds"
    """How a time is written, as an error says it."""

    def __init__(self) -> None:
        super().__init__(0, LATEST_TIME)

    def fault(self, name: str, value: object) -> RequestError:
        """Say how a time is written, and which number may be meant."""
        meant = _seconds_meant(value)
        suggestion = f": did you mean {meant}?" if meant is not None and meant != value else ""
        return RequestError(Code.INVALID_REQUEST, f"{super().fault(name, value).message}; {self.forms}{suggestion}")


def _seconds_meant(value: object) -> int | None:
    """Return the present time that is meant by seconds or parts of them, a number or not, or by a date."""
    if isinstance(value, str):
        if (moment := parse_date(value.strip())) is not None:
            return moment if 0 <= moment <= LATEST_TIME else None
        with suppress(ValueError):
            value = float(value) if _NUMBER.fullmatch(value.strip()) else None
    if (
        isinstance(value, bool)
        or not isinstance(value, int | float)
        or not _EARLIEST_MEANT <= value < LATEST_TIME * 1e9
    ):
        return None
    while value > LATEST_TIME:
        value /= 1000  # It is in milliseconds, microseconds or nanoseconds.
    return int(value)


def check_is_past(
    name: str, moment: int, now: float, *, symbol: str | None = None, interval: str | None = None
) -> None:
    """Refuse a time of which there is nothing for more than a day yet. Raises `RequestError`."""
    if moment > now + _AHEAD_S:
        when = datetime.fromtimestamp(moment, UTC).isoformat()
        said = f"{name} {moment} ({when}) is in the future; there are no candles yet"
        raise RequestError(Code.INVALID_REQUEST, said, symbol=symbol, interval=interval)


def parse_date(text: str) -> int | None:
    """Return the Unix seconds of a date or time as RFC 3339 writes it; None where it is none.

    A plus sign that was not escaped in an address came as a space.
    """
    found = _DATE.fullmatch(text)
    if found is None:
        return None
    try:
        when = datetime.fromisoformat(f"{found[1]}+{found[2]}" if found[2] else text.upper())
    except ValueError:
        return None
    return int((when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp())


class Flag:
    """True or false."""

    __slots__ = ()

    def of_json(self, name: str, value: object) -> bool:
        """Take a JSON truth value only."""
        if not isinstance(value, bool):
            raise RequestError(Code.INVALID_REQUEST, f"{name} {shown(value)} is not true or false")
        return value

    def schema(self) -> Schema:
        """Say that it is a truth value."""
        return {"type": "boolean"}


class Text:
    """A text that is not empty; who uses it knows what it may be."""

    __slots__ = ("_described", "_example")

    def __init__(self, described: Schema, example: str) -> None:
        self._described = described
        self._example = example

    def of_json(self, name: str, value: object) -> str:
        """Take any text but the empty one."""
        if not isinstance(value, str) or not value:
            said = f'{name} {shown(value)} is not a text; give one, for example "{name}":"{self._example}"'
            raise RequestError(Code.INVALID_REQUEST, said)
        return value

    def schema(self) -> Schema:
        """Say what is known of it."""
        return self._described


class IntervalText(Text):
    """The name of an interval. Of a number it is said which one may be meant."""

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__(INTERVAL, "1m")

    def of_json(self, name: str, value: object) -> str:
        """Take any text but the empty one."""
        meant = meant_interval(str(value)) if isinstance(value, int) else ""
        if meant:
            said = f'{name} {shown(value)} is not a text; did you mean "{name}":"{meant}"?'
            raise RequestError(Code.INVALID_REQUEST, said)
        return super().of_json(name, value)


class Identity:
    """What a client calls its request: a text or an integer."""

    __slots__ = ()

    def of_json(self, name: str, value: object) -> str | int:
        """Take a text or an integer."""
        if isinstance(value, int | str) and not isinstance(value, bool):
            return value
        raise RequestError(Code.INVALID_REQUEST, f"{name} {shown(value)} is neither a string nor an integer of 64 bits")

    def schema(self) -> Schema:
        """Say both types."""
        return {"type": ["string", "integer"]}


class Spans:
    """A list of spans of time, each two whole numbers of which the first is the smaller one; so many at most."""

    __slots__ = ("most",)

    def __init__(self, most: int) -> None:
        self.most = most

    def of_json(self, name: str, value: object) -> tuple[tuple[int, int], ...]:
        """Take a list of lists of two integers."""
        if not isinstance(value, list) or len(value) > self.most or not all(map(_is_span, value)):
            said = f"{name} {shown(value)} is not a list of at most {self.most} pairs [from, to] of Unix seconds"
            raise RequestError(Code.INVALID_REQUEST, said)
        return tuple((_MOMENT.of_json(name, start), _MOMENT.of_json(name, end)) for start, end in value)

    def schema(self) -> Schema:
        """Say how long the list may be, and what is in it."""
        pair = {"type": "array", "items": _MOMENT.schema(), "minItems": 2, "maxItems": 2}
        return {"type": "array", "items": pair, "maxItems": self.most}


_MOMENT = Moment()


def _is_span(value: object) -> bool:
    is_pair = isinstance(value, list) and len(value) == 2 and all(type(one) is int for one in value)
    return is_pair and 0 <= value[0] < value[1]  # type: ignore[index]  # it is a list


class Names:
    """A list of stream names, `BTCUSDT@1m`, so many at most; each is counted once."""

    __slots__ = ("most",)

    def __init__(self, most: int) -> None:
        self.most = most

    def of_json(self, name: str, value: object) -> Sequence[str]:
        """Take a list of texts; what each stands for is another question."""
        if not isinstance(value, list) or not value:
            said = f'{name} {shown(value)} is not a list of names such as ["BTCUSDT@1m"]'
            raise RequestError(Code.INVALID_REQUEST, said)
        if len(value) > self.most:
            said = f"{len(value)} {name} in one request; at most {self.most} are allowed"
            raise RequestError(Code.INVALID_REQUEST, said)
        for one in value:
            if not isinstance(one, str):
                said = f"stream {shown(one)} is not a text of the form SYMBOL@INTERVAL"
                raise RequestError(Code.INVALID_REQUEST, said)
        return list(dict.fromkeys(value))

    def schema(self) -> Schema:
        """Say how long the list may be."""
        return {"type": "array", "items": {"type": "string"}, "minItems": 1, "maxItems": self.most}
