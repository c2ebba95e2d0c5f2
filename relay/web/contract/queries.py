"""What each route is asked, declared once: the route reads its query by it, `/openapi.json` describes it."""

from typing import NamedTuple

from relay.core.errors import Code, RequestError
from relay.protocol import client_requests
from relay.protocol.client_requests import MOST_BARS, MOST_STREAMS_PER_REQUEST
from relay.protocol.fields import Whole, shown
from relay.protocol.positions import Position
from relay.web.contract.parameters import (
    Alternative,
    Choice,
    Defaulted,
    IntervalName,
    NamesInAddress,
    Parameter,
    PositionText,
    Query,
    Required,
    SearchText,
    SymbolName,
    TimeInAddress,
    TruthInAddress,
    Word,
)

MOST_AT_ONCE = 5000
MOST_STREAMED = 50_000
MOST_SYMBOLS = 100
MOST_OF_SEVERAL = 500_000
"""Candles that one request for several symbols may ask for: 78 MB of lines. A tenth of them from memory took
0.03 to 0.07 s of processor time."""
MOST_INSTRUMENTS = 5000
HITS = 100
"""So many hits of a search are returned where no limit is given."""


class CandleCount(Whole):
    """How many candles at most: more of them as lines, which are streamed, than in one JSON object."""

    __slots__ = ()

    def fault(self, name: str, value: object) -> RequestError:
        """Say both bounds."""
        said = f"{name} {shown(value)} is not a whole number from {self.least} to {MOST_AT_ONCE}"
        return RequestError(Code.INVALID_REQUEST, f"{said} ({self.most} with format=csv or format=ndjson)")


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
MOST_WAIT_S = 60
WAIT = Parameter(
    "wait_s",
    Whole(0, MOST_WAIT_S),
    "Only with `format=json`: the answer comes after about so many seconds at the latest, with the candles that are "
    "known by then; `complete` is false where some may be missing. 0 asks no provider. Without it the provider is "
    "waited for.",
    example=5,
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
    wait_s: int | None = None

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
    if asked.wait_s is not None and asked.form != "json":
        raise RequestError(
            Code.INVALID_REQUEST, f"{WAIT.name} is only for {FORMAT.name}=json: lines cannot say what lacks"
        )
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
    WAIT,
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
