"""The routes for charts as an OpenAPI 3.1 document."""

from typing import Any, NamedTuple

from relay.core.version import VERSION
from relay.protocol.fields import LONGEST_SEARCH, Schema
from relay.protocol.symbol_names import SYMBOL
from relay.web.contract.json_schema import Schemas
from relay.web.contract.queries import HITS, MOST_AT_ONCE
from relay.web.facades.described_servers import openapi_servers
from relay.web.facades.udf import answer_types
from relay.web.facades.udf.day_quotes import MOST_SYMBOLS
from relay.web.facades.udf.resolutions import RESOLUTIONS

Document = dict[str, Any]

_TEXT: Schema = {"type": "string"}
_MOMENT: Schema = {"type": "number"}
_WHY = {
    400: "A parameter is missing or wrong.",
    401: "A valid token is needed.",
    403: "The origin of the page is not allowed.",
    404: "There is no such symbol.",
    429: "Too many requests.",
    500: "The relay could not process this request.",
    502: "The answer of the provider is invalid.",
    503: "The provider or its budget is not available, or the relay is shutting down.",
    504: "The provider did not answer in time.",
}
_ALWAYS = (401, 403, 429, 500, 503)


class ChartParameter(NamedTuple):
    """A parameter of a route for charts."""

    name: str
    schema: Schema
    about: str
    example: Any = None
    is_required: bool = False


class _Route(NamedTuple):
    # `answer` is a type, a schema, or None for a text.
    summary: str
    answer: Any
    parameters: tuple[ChartParameter, ...] = ()
    errors: tuple[int, ...] = ()


_SYMBOL = ChartParameter(
    "symbol",
    SYMBOL,
    "A `ticker`, a symbol, or one with its provider before it in any case.",
    "binance:BTCUSDT",
    is_required=True,
)
_SEVERAL = f"Up to {MOST_SYMBOLS} symbols with commas between them."
_ROUTES = {
    "config": _Route("What the server can do.", answer_types.UdfConfig),
    "time": _Route("The time in Unix seconds.", None),
    "search": _Route(
        "Instruments that fit a text, the best first; without a text the first ones by symbol.",
        list[answer_types.FoundSymbol],
        (
            ChartParameter("query", {"type": "string", "maxLength": LONGEST_SEARCH}, "What somebody typed.", "BTC"),
            ChartParameter("type", _TEXT, "One of `symbols_types`, or empty.", "crypto"),
            ChartParameter("exchange", _TEXT, "One of `exchanges`, or empty.", "BINANCE"),
            ChartParameter("limit", {"type": "integer", "minimum": 1}, f"At most so many, and at most {HITS}.", 30),
        ),
        (400,),
    ),
    "symbols": _Route("An instrument.", answer_types.ChartSymbol, (_SYMBOL,), (400, 404)),
    "history": _Route(
        f"Bars, ascending, at most {MOST_AT_ONCE}: the newest of those that were asked for.",
        answer_types.BarColumns | answer_types.NoBars,
        (
            _SYMBOL,
            ChartParameter(
                "resolution",
                {"type": "string", "enum": [*RESOLUTIONS, "S", "D", "W", "M"]},
                "Length of the bars.",
                "1",
                is_required=True,
            ),
            ChartParameter("to", _MOMENT, "Only bars before this time, in Unix seconds.", 1_764_000_000, True),
            ChartParameter(
                "from",
                _MOMENT,
                "Only bars from this time on; needed without `countback`, else not looked at.",
                1_763_990_000,
            ),
            ChartParameter("countback", {"type": "integer"}, "The last so many bars before `to`.", 300),
            ChartParameter("currencyCode", _TEXT, "The currency of the prices: the instrument's own.", "USDT"),
        ),
        (400, 404, 502, 504),
    ),
    "quotes": _Route(
        "What several instruments cost.",
        answer_types.UdfQuotes,
        (ChartParameter("symbols", _TEXT, _SEVERAL, "binance:BTCUSDT,twelve_data:EUR/USD", is_required=True),),
        (400,),
    ),
    "rows": _Route(
        "The same as rows of a watch list, for OpenBB Workspace; `/udf/rows_ws` has changes of them.",
        list[answer_types.GridRow],
        (ChartParameter("symbol", _TEXT, _SEVERAL, "BTCUSDT,EUR/USD", is_required=True),),
        (400,),
    ),
}
_WIDGETS = _Route(
    "The widgets for OpenBB Workspace: a chart and a watch list.",
    {"type": "object", "additionalProperties": {"type": "object"}},
)


def openapi_document(*, needs_token: bool) -> Document:
    """Build the document."""
    schemas = Schemas()
    error = schemas.of(answer_types.ChartError)
    paths = {f"/udf/{name}": {"get": _described(name, route, schemas, needs_token)} for name, route in _ROUTES.items()}
    paths["/widgets.json"] = {"get": _described("widgets", _WIDGETS, schemas, needs_token)}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "market-relay for charts",
            "version": VERSION,
            "summary": "Candles and instruments of all providers in TradingView's UDF protocol.",
            "description": "https://www.tradingview.com/charting-library-docs describes the protocol. Parameters that "
            "are not listed here are not looked at. An error has `s` and `errmsg`, and a status that fits; one of 429 "
            "or 503 has `Retry-After`.",
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": openapi_servers("charts", needs_token=needs_token),
        "tags": [{"name": "charts", "description": "Below `/udf`, and what OpenBB Workspace asks for."}],
        "security": [{"bearer": []}, {}] if needs_token else [],
        "paths": paths,
        "components": {
            "schemas": schemas.components,
            "responses": {f"Error{status}": _error(status, error) for status in _WHY},
            "securitySchemes": {
                "bearer": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "One of the relay's tokens; it may be a part of the address instead, see `servers`.",
                }
            },
        },
    }


def _described(name: str, route: _Route, schemas: Schemas, needs_token: bool) -> Document:
    if route.answer is None:
        content: Document = {"text/plain": {"schema": {"type": "string", "pattern": "^[0-9]+$"}}}
    else:
        schema = route.answer if isinstance(route.answer, dict) else schemas.of(route.answer)
        content = {"application/json": {"schema": schema}}
    statuses = sorted({*route.errors, *_ALWAYS} - (set() if needs_token else {401}))
    return {
        "operationId": f"udf_{name}",
        "summary": route.summary,
        "tags": ["charts"],
        "parameters": [_parameter(one) for one in route.parameters],
        "responses": {
            "200": {"description": "The requested data.", "content": content},
            **{str(status): {"$ref": f"#/components/responses/Error{status}"} for status in statuses},
        },
    }


def _parameter(one: ChartParameter) -> Document:
    found: Document = {
        "name": one.name,
        "in": "query",
        "description": one.about,
        "required": one.is_required,
        "schema": one.schema,
    }
    return found if one.example is None else found | {"example": one.example}


def _error(status: int, schema: Schema) -> Document:
    found: Document = {"description": _WHY[status], "content": {"application/json": {"schema": schema}}}
    if status in (429, 503):
        found["headers"] = {
            "Retry-After": {
                "description": "Seconds to wait before the next try.",
                "required": True,
                "schema": {"type": "integer", "minimum": 1},
            }
        }
    return found
