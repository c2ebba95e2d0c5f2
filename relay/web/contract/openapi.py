"""The REST contract as an OpenAPI 3.1 document, made from what the routes read and answer by."""

from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Any, NamedTuple

import orjson

from relay.core.version import VERSION
from relay.protocol.fields import Schema
from relay.web.contract import queries, response_types
from relay.web.contract.json_schema import Schemas
from relay.web.contract.parameters import Alternative, Parameter, Query
from relay.web.contract.queries import CANDLE_COUNT
from relay.web.problems import CONTENT_TYPE

Document = dict[str, Any]

PREFIX = "/api/v1/market-data"
JSON = "application/json"

_CANDLE = {"time": 1_764_000_000, "open": 51173.5, "high": 51181.3, "low": 51169.9, "close": 51172.8, "volume": 0.0549}

_TAG = {"ETag": {"description": "Send it as `If-None-Match` to ask for changes.", "schema": {"type": "string"}}}

_WHY = {
    400: "A parameter is missing, unknown or out of bounds.",
    401: "A valid token is needed.",
    403: "The origin of the page is not allowed.",
    404: "No provider has this symbol.",
    429: "Too many requests.",
    500: "The relay could not process this request.",
    502: "The answer of the provider is invalid.",
    503: "The provider or its budget is not available, or the relay is shutting down.",
    504: "The provider did not answer in time.",
}
_ALWAYS = (400, 401, 403, 429, 500, 503)


class Content(NamedTuple):
    """What an answer is in one content type, and an example of it."""

    schema: Document
    example: Any


def _text(example: str) -> Content:
    return Content({"type": "string"}, example)


_EVENTS = Content(
    {
        "type": "object",
        "description": "One event of the stream, by the names of its lines.",
        "properties": {
            "event": {"type": "string", "enum": ["message", "close"], "default": "message"},
            "data": {"type": "string", "description": "A message as JSON."},
            "id": {"type": "string"},
            "retry": {"type": "integer", "description": "Milliseconds to wait before connecting again."},
        },
        "required": ["data"],
    },
    {
        "data": '{"type":"gap","symbol":"BTCUSDT","interval":"1m","from":1764000000,"to":1764000300,"reason":"absent"}',
        "id": "1-644567d2d0000.0c9d3b1a5e7f2468-5kPz0h69247bc4",
    },
)
"""Programs that read events take the schema as that of one event, not of the text of them all."""


class Operation(NamedTuple):
    """One route: what it reads, what it answers, and which errors it may have beside those that all have.

    `others` are its other content types; without `answer` there is no JSON. `has_tag` says
    that its answers have an entity tag to ask again by.
    """

    path: str
    name: str
    summary: str
    tag: str
    query: Query[Any]
    answer: Any
    example: Any
    errors: tuple[int, ...] = ()
    is_open: bool = False
    others: Mapping[str, Content] = {}
    has_tag: bool = False


OPERATIONS = (
    Operation(
        f"{PREFIX}/history",
        "history",
        "Candles of one stream, ascending. An open candle is the last one if the range includes the present. With "
        "`symbols` those of several, as lines, one symbol after the other.",
        "market data",
        queries.HISTORY,
        response_types.HistoryObject,
        {"symbol": "BTCUSDT", "interval": "1m", "provider": "binance", "candles": [_CANDLE], "last_is_closed": True},
        (404, 502, 504),
        others={
            "text/csv": _text("time,open,high,low,close,volume\n1764000000,51173.5,51181.3,51169.9,51172.8,0.0549\n"),
            "application/x-ndjson": _text(orjson.dumps(_CANDLE).decode() + "\n"),
        },
        has_tag=True,
    ),
    Operation(
        f"{PREFIX}/sse",
        "sse",
        "Live updates as Server-Sent Events: the messages that `/asyncapi.json` describes, each as the `data` of an "
        "event. The `id` of an event says where the client is in all its streams: with it as `Last-Event-ID` they are "
        "resumed without a gap or a repeat. Events of open candles have no `id`. An event `close` with `code` and "
        "`reason` comes before the relay ends the connection; its codes are those of the WebSocket.",
        "market data",
        queries.EVENTS,
        None,
        None,
        others={"text/event-stream": _EVENTS},
    ),
    Operation(
        f"{PREFIX}/symbols",
        "symbols",
        "The available symbols, sorted.",
        "market data",
        queries.SYMBOLS,
        list[str],
        ["BTCUSDT", "EUR/USD"],
        has_tag=True,
    ),
    Operation(
        f"{PREFIX}/instruments",
        "instruments",
        "The available instruments with their details, sorted by symbol; with `q` those that fit it, the best first.",
        "market data",
        queries.INSTRUMENTS,
        list[response_types.InstrumentObject],
        [
            {
                "symbol": "BTCUSDT",
                "id": "binance:BTCUSDT",
                "provider": "binance",
                "name": None,
                "asset_class": "crypto",
                "base": "BTC",
                "quote": "USDT",
                "intervals": ["1m", "1h", "1d"],
                "derived_intervals": ["2h", "4h", "6h", "8h", "12h", "3d", "1w", "1M"],
                "price_step": "0.01",
                "volume_step": "0.00001",
                "session": "24x7",
                "status": "trading",
                "attribution": "Market data by Binance",
            }
        ],
        has_tag=True,
    ),
    Operation(
        f"{PREFIX}/status",
        "status",
        "State of the relay: providers, their connections, streams, budgets, clients.",
        "operation",
        queries.NOTHING,
        response_types.Status,
        None,
    ),
    Operation(
        "/metrics",
        "metrics",
        "Metrics of the relay in the text format of Prometheus or, if accepted, of OpenMetrics.",
        "operation",
        queries.NOTHING,
        None,
        None,
        others={"text/plain": _text("# TYPE relay_clients gauge\n"), "application/openmetrics-text": _text("# EOF\n")},
    ),
    Operation(
        "/healthz",
        "healthz",
        "Whether the process serves.",
        "operation",
        queries.NOTHING,
        response_types.Health,
        {"status": "ok"},
        is_open=True,
    ),
    Operation(
        "/readyz",
        "readyz",
        "Whether the relay can accept clients; 503 while it shuts down or cannot use its store.",
        "operation",
        queries.NOTHING,
        response_types.Health,
        {"status": "ok"},
        is_open=True,
    ),
)


def document(
    asset_classes: list[str],
    providers: list[str],
    *,
    needs_token: bool,
    is_status_public: bool = False,
    facades: Iterable[str] = (),
) -> Document:
    """Build the document for a relay with these asset classes, providers that list instruments, and facades."""
    known = {queries.ASSET_CLASS.name: asset_classes, queries.PROVIDER.name: providers}
    schemas = Schemas()
    problem = schemas.of(response_types.Problem)
    paths = {}
    for one in OPERATIONS:
        is_open = one.is_open or not needs_token or (is_status_public and one.name in ("status", "metrics"))
        paths[one.path] = {"get": _operation(one, schemas, known, is_open=is_open)}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "market-relay",
            "version": VERSION,
            "summary": "Live and historical candles of several providers.",
            "description": "Live updates come over the WebSocket that `/asyncapi.json` describes, and as Server-Sent "
            "Events. Clients ignore fields that they do not know. The time of a candle is its open time in Unix "
            f"seconds (UTC).{_of_facades(facades)}",
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        # Relative to this document: a proxy may serve the relay below a path.
        "servers": [{"url": "./", "description": "this relay"}],
        "tags": [
            {"name": "market data", "description": "Candles, symbols and instruments."},
            {"name": "operation", "description": "State of the relay."},
        ],
        "security": [{"bearer": []}] if needs_token else [],
        "paths": paths,
        "components": {
            "schemas": schemas.components,
            "responses": {f"Problem{status}": _problem(status, problem) for status in _WHY},
            "securitySchemes": {
                "bearer": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "One of the relay's tokens; a relay without tokens is open.",
                }
            },
        },
    }


def _of_facades(names: Iterable[str]) -> str:
    """Say where routes are described that are no part of this document; nothing if there are none."""
    places = [f"`/openapi/{name}.json` and `/asyncapi/{name}.json`" for name in names]
    said = " Routes for programs that are written against another service are described by themselves: "
    return f"{said}{'; '.join(places)}." if places else ""


def _operation(operation: Operation, schemas: Schemas, known: Mapping[str, list[str]], *, is_open: bool) -> Document:
    content: Document = {}
    if operation.answer is not None:
        content[JSON] = {"schema": schemas.of(operation.answer)}
        if operation.example is not None:
            content[JSON]["examples"] = {"plain": {"value": operation.example}}
    for kind, other in operation.others.items():
        content[kind] = {"schema": other.schema, "examples": {"plain": {"value": other.example}}}
    tag = {"headers": _TAG} if operation.has_tag else {}
    errors = sorted({*operation.errors, *(() if operation.is_open else _ALWAYS), 503})
    found: Document = {
        "operationId": operation.name,
        "summary": operation.summary,
        "tags": [operation.tag],
        "parameters": [_parameter(one, known) for one in operation.query.parameters],
        "responses": {
            "200": {"description": "The requested data.", "content": content} | tag,
            **(
                {"304": {"description": "The data has not changed since the answer that `If-None-Match` names."} | tag}
                if tag
                else {}
            ),
            **{
                str(status): {"$ref": f"#/components/responses/Problem{status}"}
                for status in errors
                if status != 401 or not is_open
            },
        },
    }
    if is_open:
        found["security"] = []
    return found


def _parameter(parameter: Parameter[Any], known: Mapping[str, list[str]]) -> Document:
    schema: Schema = parameter.schema()
    if names := known.get(parameter.name):
        schema = schema | {"enum": names}
    found: Document = {
        "name": parameter.name,
        "in": "query",
        "description": parameter.description,
        "required": parameter.is_required,
        "schema": schema,
    }
    if parameter.example is not None:
        found["example"] = parameter.example
    if isinstance(parameter, Alternative):
        # OpenAPI 3.1 cannot say it.
        found["x-one-of"] = list(parameter.one_of)
    return found


def _problem(status: int, schema: Schema) -> Document:
    title = HTTPStatus(status).phrase
    found: Document = {"description": _WHY[status], "content": {CONTENT_TYPE: {"schema": schema}}}
    if status in (429, 503):
        found["headers"] = {
            "Retry-After": {
                "description": "Seconds to wait before the next try.",
                "required": True,
                "schema": {"type": "integer", "minimum": 1},
            }
        }
    if status == 400:
        found["content"][CONTENT_TYPE]["examples"] = {
            "limit": {
                "value": {
                    "type": "urn:market-relay:error:invalid_request",
                    "title": title,
                    "status": 400,
                    "detail": CANDLE_COUNT.fault("limit", "5001").message,
                    "code": "invalid_request",
                }
            }
        }
    return found
