"""Parameters of the REST routes, declared once: a route reads its query by them, `/openapi.json` describes them."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

from aiohttp import web

from relay.core.errors import Code, RequestError
from relay.core.intervals import parse_interval
from relay.core.near_names import did_you_mean
from relay.protocol import client_requests, positions
from relay.protocol.client_requests import MOST_BARS, MOST_STREAMS_PER_REQUEST
from relay.protocol.fields import INTERVAL, Moment, Schema, Whole, parse_date, shown
from relay.protocol.positions import Position, parse_position
from relay.protocol.symbol_names import SYMBOL, parse_symbol

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

MOST_AT_ONCE = 5000
_LONGEST_COMPARED = 40
MOST_STREAMED = 50_000
MOST_SYMBOLS = 100
MOST_OF_SEVERAL = 500_000
"""Candles that one request for several symbols may ask for: 78 MB of lines. A tenth of them from memory took
0.03 to 0.07 s of processor time."""
MOST_INSTRUMENTS = 5000
HITS = 100
"""So many hits of a search are returned where no limit is given."""
LONGEST_SEARCH = 100
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

    def read(self, request: web.Request) -> T_co:
        """Read a request's query. Raises `RequestError` that names the parameter and what it takes."""
        found: dict[str, str] = {}
        for name, value in request.query.items():
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


class CandleCount(Whole):
    """How many candles at most: more of them as lines, which are streamed, than in one JSON object."""

    __slots__ = ()

    def fault(self, name: str, value: object) -> RequestError:
        """Say both bounds."""
        said = f"{name} {shown(value)} is not a whole number from {self.least} to {MOST_AT_ONCE}"
        return RequestError(Code.INVALID_REQUEST, f"{said} ({self.most} with format=csv or format=ndjson)")


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
            said = f"{error.message}; in an address + is written %2B"
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


# -- parameters that several routes share ----------------------------------------------------------

_ONE_OF = ("symbol", "symbols")
SYMBOL_PARAMETER = Alternative(
    "symbol",
    SymbolName(),
    "As the provider writes it; `binance:BTCUSDT` names the provider, too. Needed, unless `symbols` is given.",
    one_of=_ONE_OF,
    example="BTCUSDT",
)
SYMBOLS_PARAMETER = Alternative(
    "symbols",
    NamesInAddress(MOST_SYMBOLS),
    f"In place of `symbol`, with `format=ndjson`: up to {MOST_SYMBOLS} symbols with commas between them, one after the "
    "other in the answer. Each line also has `symbol`, `interval` and `provider`. `limit` is that of each symbol, and "
    f"all together may ask for {MOST_OF_SEVERAL} candles. A symbol that fails gets a line with `type` `error`, `code`, "
    "`message`, `symbol`, `interval` and perhaps `retry_after`, after the candles that it has; the others go on.",
    one_of=_ONE_OF,
    example="BTCUSDT,EUR/USD",
)
INTERVAL_PARAMETER = Required(
    "interval", IntervalName(), "Length of the candles; `1m` is a minute, `1M` a month.", example="1m"
)
START_TIME = Parameter(
    "start_time",
    TimeInAddress(),
    "First open time, in Unix seconds or as RFC 3339. With it the answer has the first `limit` candles from there on.",
    example=1_764_000_000,
)
END_TIME = Parameter("end_time", TimeInAddress(), "Last open time, written as start_time.", example=1_764_003_600)
CANDLE_COUNT = CandleCount(1, MOST_STREAMED)
LIMIT = Defaulted(
    "limit",
    CANDLE_COUNT,
    f"Maximum number of candles; more than {MOST_AT_ONCE} only as csv or ndjson.",
    default=500,
    example=100,
)
FORMAT = Defaulted(
    "format",
    Choice("json", "csv", "ndjson"),
    "`json`: one object; `csv` and `ndjson`: one closed candle per line, and `limit` counts these.",
    default="json",
    example="csv",
)
PROVIDER = Parameter("provider", Word(), "Only instruments of this provider.", example="binance")
EXTENDED = Defaulted(
    "extended",
    TruthInAddress(),
    "Candles also have `quote_volume`, `trades`, `taker_volume` and `taker_quote_volume`: null if not known, "
    "empty in csv.",
    default=False,
    example=True,
)
ASSET_CLASS = Parameter("asset_class", Word(), "Only instruments of this asset class.", example="crypto")


class HistoryQuery(NamedTuple):
    """What the history route is asked for: one `symbol`, with the provider it is pinned to, if any, or `symbols`."""

    symbol: tuple[str | None, str] | None
    interval: str
    start: int | None
    end: int | None
    limit: int
    form: str
    extended: bool
    symbols: tuple[str, ...] | None

    @property
    def one_symbol(self) -> tuple[str | None, str]:
        """The symbol of a query that names one; a query that names neither is not read."""
        assert self.symbol is not None
        return self.symbol


class SymbolsQuery(NamedTuple):
    """Of which instruments the symbols are asked for."""

    asset_class: str | None


class InstrumentsQuery(NamedTuple):
    """Which instruments are asked for; `limit` None is all."""

    asset_class: str | None
    provider: str | None
    search: str | None
    limit: int | None


def _fit_together(asked: HistoryQuery) -> None:
    _check_symbols(asked)
    if asked.start is not None and asked.end is not None and asked.start > asked.end:
        said = f"start_time {asked.start} is after end_time {asked.end}"
        raise RequestError(Code.INVALID_REQUEST, said)
    if asked.form == "json" and asked.limit > MOST_AT_ONCE:
        raise CANDLE_COUNT.fault(LIMIT.name, str(asked.limit))


def _check_symbols(asked: HistoryQuery) -> None:
    one, several = SYMBOL_PARAMETER.name, SYMBOLS_PARAMETER.name
    if asked.symbols is None:
        if asked.symbol is None:
            raise SYMBOL_PARAMETER.missing()
        return
    if asked.symbol is not None:
        raise RequestError(Code.INVALID_REQUEST, f"{one} and {several} are both given; give one of them")
    if asked.form != "ndjson":
        said = f"{FORMAT.name} {asked.form} has no place for {several}; add {FORMAT.name}=ndjson"
        raise RequestError(Code.INVALID_REQUEST, said)
    count = len(asked.symbols)
    if count * asked.limit > MOST_OF_SEVERAL:
        said = (
            f"{LIMIT.name} {asked.limit} for each of {count} symbols is more than {MOST_OF_SEVERAL} candles; "
            f"use a {LIMIT.name} of at most {MOST_OF_SEVERAL // count}, or fewer symbols"
        )
        raise RequestError(Code.INVALID_REQUEST, said)


class EventsQuery(NamedTuple):
    """Which streams are wanted as events, and how; as in a request to subscribe. The token is read before."""

    streams: tuple[str, ...]
    bars: int | None
    since: int | None
    throttle_ms: int
    closed_only: bool
    extended: bool
    last_event_id: Position | None
    token: str | None


EVENTS = Query(
    EventsQuery,
    Required(
        "streams",
        NamesInAddress(MOST_STREAMS_PER_REQUEST),
        f"Names of up to {MOST_STREAMS_PER_REQUEST} streams, with commas between them. "
        "Each gets its own answer; an error in one does not affect the others.",
        example="BTCUSDT@1m,EUR/USD@1h",
    ),
    Parameter("bars", Whole(0, MOST_BARS), client_requests.BARS.description, example=300),
    Parameter("since", TimeInAddress(), client_requests.SINCE.description, example=1_764_000_000),
    Defaulted("throttle_ms", Whole(0, 60_000), client_requests.THROTTLE_MS.description, default=0, example=250),
    Defaulted("closed_only", TruthInAddress(), client_requests.CLOSED_ONLY.description, default=False, example=True),
    Defaulted("extended", TruthInAddress(), client_requests.EXTENDED.description, default=False, example=True),
    Parameter(
        "last_event_id",
        PositionText(),
        "The header `Last-Event-ID`, for a page that opens another `EventSource`; the header counts before it.",
    ),
    Parameter("token", Word(), "A token, where no header can be sent: `EventSource` sends none."),
)
HISTORY = Query(
    HistoryQuery,
    SYMBOL_PARAMETER,
    INTERVAL_PARAMETER,
    START_TIME,
    END_TIME,
    LIMIT,
    FORMAT,
    EXTENDED,
    SYMBOLS_PARAMETER,
    check=_fit_together,
)
SYMBOLS = Query(SymbolsQuery, ASSET_CLASS)
INSTRUMENTS = Query(
    InstrumentsQuery,
    ASSET_CLASS,
    PROVIDER,
    Parameter(
        "q",
        SearchText(),
        "Only instruments with all of these words in symbol, name, base or quote, in any case. The best come first: "
        "the exact symbol, then symbols that begin so, then whole words, beginnings of words, and parts of them. "
        "Of a provider that is asked symbol by symbol (`instruments_complete` in `status` is false) only those are "
        "found that a client asked for before; `provider:SYMBOL` asks it for one.",
        example="btc",
    ),
    Parameter(
        "limit",
        Whole(1, MOST_INSTRUMENTS),
        f"Maximum number of instruments; without it all, or the best {HITS} for `q`.",
        example=50,
    ),
)
NOTHING = Query(lambda: None)
