"""Parameters of the REST routes, declared once: a route reads its query by them, `/openapi.json` describes them."""

from collections.abc import Callable
from typing import Any, Generic, Protocol, TypeVar, overload

from aiohttp import web

from relay.errors import Code, RequestError
from relay.fields import INTERVAL, SYMBOL, Schema, Whole, parse_symbol, shown
from relay.intervals import parse_interval

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

LATEST_TIME = 10**11
MOST_AT_ONCE = 5000
MOST_STREAMED = 50_000


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


class Values:
    """What a request says, for each parameter that its route knows."""

    def __init__(self, values: dict[str, Any]) -> None:
        self._values = values

    @overload
    def __getitem__(self, parameter: Required[T] | Defaulted[T]) -> T: ...
    @overload
    def __getitem__(self, parameter: Parameter[T]) -> T | None: ...
    def __getitem__(self, parameter: Parameter[T]) -> T | None:
        found: T | None = self._values[parameter.name]
        return found


class Query:
    """The parameters that one route knows; another one, or the same twice, is refused."""

    def __init__(self, *parameters: Parameter[Any], check: Callable[[Values], None] | None = None) -> None:
        self.parameters = parameters
        self._known = {parameter.name: parameter for parameter in parameters}
        self._check = check

    def read(self, request: web.Request) -> Values:
        """Read a request's query. Raises `RequestError` that names the parameter and what it takes."""
        found: dict[str, str] = {}
        for name, value in request.query.items():
            if name not in self._known:
                accepted = f"known are {', '.join(self._known)}" if self._known else "there are none here"
                raise RequestError(Code.INVALID_REQUEST, f"unknown parameter {shown(name)}; {accepted}")
            if name in found:
                raise RequestError(Code.INVALID_REQUEST, f"{name} is given twice")
            found[name] = value
        values = Values({name: one.read(found.get(name)) for name, one in self._known.items()})
        if self._check is not None:
            self._check(values)
        return values


NOTHING = Query()


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


class Word:
    """Any text; who asked for it knows which ones there are."""

    def of_text(self, name: str, text: str) -> str:
        """Take it as it is."""
        return text

    def schema(self) -> Schema:
        """Say that it is a text."""
        return {"type": "string"}


class SymbolName:
    """A symbol; its value is (provider or None, symbol in upper case)."""

    def of_text(self, name: str, text: str) -> tuple[str | None, str]:
        """Take what can be a symbol."""
        return parse_symbol(text)

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


# -- parameters that several routes share ----------------------------------------------------------

SYMBOL_PARAMETER = Required(
    "symbol", SymbolName(), "As the provider spells it; `binance:BTCUSDT` pins one.", example="BTCUSDT"
)
INTERVAL_PARAMETER = Required(
    "interval", IntervalName(), "Length of the candles; `1m` is a minute, `1M` a month.", example="1m"
)
START_TIME = Parameter(
    "start_time",
    Whole(0, LATEST_TIME),
    "Unix seconds: no candle that opened before. With it, the first `limit` candles from there on.",
    example=1_764_000_000,
)
END_TIME = Parameter(
    "end_time", Whole(0, LATEST_TIME), "Unix seconds: no candle that opened after.", example=1_764_003_600
)
LIMIT = Defaulted(
    "limit",
    Whole(1, MOST_STREAMED),
    f"How many candles at most; in JSON up to {MOST_AT_ONCE}, beyond that lines are streamed.",
    default=500,
    example=100,
)
FORMAT = Defaulted(
    "format",
    Choice("json", "csv", "ndjson"),
    "`json`: one object; `csv` and `ndjson`: one closed candle a line.",
    default="json",
    example="csv",
)
ASSET_CLASS = Parameter("asset_class", Word(), "Only instruments of this class.", example="crypto")


def _in_order(values: Values) -> None:
    start, end = values[START_TIME], values[END_TIME]
    if start is not None and end is not None and start > end:
        raise RequestError(Code.INVALID_REQUEST, f"start_time {start} is after end_time {end}")
    if values[FORMAT] == "json" and values[LIMIT] > MOST_AT_ONCE:
        Whole(1, MOST_AT_ONCE).of_text(LIMIT.name, str(values[LIMIT]))


HISTORY = Query(SYMBOL_PARAMETER, INTERVAL_PARAMETER, START_TIME, END_TIME, LIMIT, FORMAT, check=_in_order)
INSTRUMENTS = Query(ASSET_CLASS)
