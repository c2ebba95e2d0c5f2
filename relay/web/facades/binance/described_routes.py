"""The REST routes for Binance's programs as an OpenAPI 3.1 document, made from what the routes are read by."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from relay.core.intervals import INTERVALS
from relay.core.version import VERSION
from relay.web.facades.binance.answer_schemas import FLAG, REST_SCHEMAS, TEXT, Schema, list_of, one_or_all, ref
from relay.web.facades.binance.exchange_info import info_names
from relay.web.facades.binance.klines import KLINES_NEEDED, kline_names
from relay.web.facades.binance.pass_through import PASSED_CALLS
from relay.web.facades.binance.venue_markets import COIN_ROOT, MARKETS, SPOT, STATUSES, VenueMarket
from relay.web.facades.described_servers import openapi_servers

Document = dict[str, Any]

_ROW = [
    1_764_000_000_000, "51173.52000000", "51181.27000000", "51169.94000000", "51172.78000000", "0.05490000",
    1_764_000_059_999, "2809.35130000", 12, "0.03120000", "1596.58620000", "0",
]  # fmt: skip
_LIMIT: Schema = {"type": "integer", "minimum": 0}
_MOMENT: Schema = {"type": "integer", "minimum": 0}


class _Described(NamedTuple):
    schema: Schema
    about: str
    example: Any = None


_PARAMETERS: Mapping[str, _Described] = {
    "symbol": _Described({"type": "string", "minLength": 1, "maxLength": 50}, "In upper case.", "BTCUSDT"),
    "symbols": _Described(TEXT, "Several symbols, as a JSON list.", '["BTCUSDT","ETHUSDT"]'),
    "interval": _Described({"type": "string", "enum": [*INTERVALS]}, "Length of the candles.", "1m"),
    "startTime": _Described(_MOMENT, "The first open time, or the first time, inclusive; from it on the oldest come."),
    "endTime": _Described(_MOMENT, "The last open time, or the last time, inclusive."),
    "limit": _Described(_LIMIT, "How many at most; more than the exchange gives are cut to that.", 5),
    "timeZone": _Described(TEXT, "Where days begin, hours before UTC: `0`, `8`, `-1:00`.", "0"),
    "permissions": _Described(TEXT, "Only instruments with one of these, as a name or a JSON list.", "SPOT"),
    "showPermissionSets": _Described(FLAG, "Passed on to Binance if true: the relay does not keep these sets."),
    "symbolStatus": _Described(
        {"type": "string", "enum": [*STATUSES]}, "Only instruments with this status.", "TRADING"
    ),
    "type": _Described({"type": "string", "enum": ["FULL", "MINI"]}, "How many fields.", "FULL"),
    "windowSize": _Described(TEXT, "The length of the time, `1m` to `59m`, `1h` to `23h`, `1d` to `7d`.", "1d"),
    "fromId": _Described(_MOMENT, "The first trade."),
}
_TIME_UNIT: Document = {
    "name": "X-MBX-TIME-UNIT",
    "in": "header",
    "description": "`MICROSECOND`: times of the answer are in microseconds, as exact as they are known.",
    "required": False,
    "schema": TEXT,
}


class _VenueOperation(NamedTuple):
    # One path below the root of a market.
    summary: str
    answer: Schema
    names: Sequence[str] = ()
    needed: Sequence[str] = ()
    example: Any = None


_PASSED: Mapping[str, tuple[str, Schema]] = {
    "ticker/24hr": ("Statistics of 24 hours.", one_or_all("Statistics")),
    "ticker/price": ("The last price.", one_or_all("Price")),
    "ticker/bookTicker": ("The best prices of the order book.", one_or_all("BestPrices")),
    "ticker": ("Statistics of a time that ends now.", one_or_all("Statistics")),
    "avgPrice": ("The average price of some minutes.", ref("AveragePrice")),
    "depth": ("The order book.", ref("OrderBook")),
    "trades": ("The newest trades.", list_of(ref("Trade"))),
    "aggTrades": ("Trades, those of one order at one price together.", list_of(ref("AggregateTrade"))),
}
_KLINES = _VenueOperation(
    "Candles, ascending, every value as Binance wrote it; the open one is the last.",
    list_of(ref("Kline")),
    needed=KLINES_NEEDED,
    example=[_ROW],
)
_WHY = {
    400: "A parameter is missing, unknown or wrong; -1121 is an unknown symbol.",
    401: "A valid token of the relay is needed.",
    403: "Signed, about an account, or from a page of an origin that is not allowed.",
    429: "Too many requests, or the budget at Binance is used up.",
    500: "The relay could not process this request.",
    503: "Binance did not answer, or not so that it can be used.",
    504: "Binance did not answer in time, code -1007.",
}


def operations_of(market: VenueMarket) -> dict[str, _VenueOperation]:
    """Return what there is below the root of a market."""
    found = {
        "ping": _VenueOperation("Whether the relay answers.", ref("Nothing"), example={}),
        "time": _VenueOperation("The time at Binance.", ref("ServerTime"), example={"serverTime": 1_764_000_000_000}),
        "exchangeInfo": _VenueOperation("The instruments.", ref("ExchangeInfo"), info_names(market)),
        "klines": _KLINES._replace(names=kline_names(market)),
    }
    for name, call in PASSED_CALLS[market.provider].items():
        summary, answer = _PASSED[name]
        summary += " Passed on to Binance, once a second for all who ask the same."
        found[name] = _VenueOperation(summary, answer, call.names, call.needed)
    if market == SPOT:
        found["uiKlines"] = found["klines"]._replace(summary="The same rows as `klines`.")
    return found


def openapi_document(*, needs_token: bool) -> Document:
    """Build the document of all markets."""
    paths: dict[str, Document] = {}
    for market in MARKETS:
        for name, operation in operations_of(market).items():
            identity = f"{market.provider}_{name.replace('/', '_')}"
            described = _described(identity, operation, market.provider, needs_token)
            if name != "ping" and not market.is_plain:
                described["parameters"].append(_TIME_UNIT)
            paths[f"{market.root}/{name}"] = {"get": described}
    nothing = _VenueOperation("Lists no instruments: the relay has none of this market.", ref("ExchangeInfo"))
    paths[f"{COIN_ROOT}/exchangeInfo"] = {"get": _described("binance_coin_exchangeInfo", nothing, "coin", needs_token)}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "market-relay for programs that are written against Binance",
            "version": VERSION,
            "summary": "Binance's market data, from the relay's candles and instruments of Binance.",
            "description": "Parameters, answers and errors are those of "
            "https://github.com/binance/binance-spot-api-docs. `/asyncapi/binance.json` describes the WebSocket. What "
            "is signed, trades or shows an account is refused with 403; an unknown path is answered with 404 and no "
            "body. An answer of 429 has `Retry-After`.",
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": openapi_servers("programs", needs_token=needs_token),
        "tags": [{"name": market.provider, "description": f"Below `{market.root}`."} for market in MARKETS]
        + [{"name": "coin", "description": f"Below `{COIN_ROOT}`."}],
        "security": [{"bearer": []}, {}] if needs_token else [],
        "paths": paths,
        "components": {
            "schemas": REST_SCHEMAS,
            "responses": {f"Error{status}": _error(status) for status in _WHY},
            "headers": {
                "UsedWeight": {
                    "description": "The request weight that the relay itself has used at Binance this minute.",
                    "schema": {"type": "integer", "minimum": 0},
                }
            },
            "securitySchemes": {
                "bearer": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "One of the relay's tokens; it may be a part of the address instead, see `servers`.",
                }
            },
        },
    }


def _described(identity: str, operation: _VenueOperation, tag: str, needs_token: bool) -> Document:
    content: Document = {"schema": operation.answer}
    if operation.example is not None:
        content["examples"] = {"plain": {"value": operation.example}}
    parameters = [_parameter(name, is_needed=name in operation.needed) for name in operation.names]
    weight = {"$ref": "#/components/headers/UsedWeight"}
    return {
        "operationId": identity,
        "summary": operation.summary,
        "tags": [tag],
        "parameters": parameters,
        "responses": {
            "200": {
                "description": "The requested data.",
                "headers": {"X-MBX-USED-WEIGHT": weight, "X-MBX-USED-WEIGHT-1M": weight},
                "content": {"application/json": content},
            },
            **{
                str(status): {"$ref": f"#/components/responses/Error{status}"}
                for status in _WHY
                if status != 401 or needs_token
            },
        },
    }


def _parameter(name: str, *, is_needed: bool) -> Document:
    described = _PARAMETERS[name]
    found: Document = {
        "name": name,
        "in": "query",
        "description": described.about,
        "required": is_needed,
        "schema": described.schema,
    }
    return found if described.example is None else found | {"example": described.example}


def _error(status: int) -> Document:
    found: Document = {
        "description": _WHY[status],
        "content": {"application/json": {"schema": ref("BinanceError")}},
    }
    if status == 429:
        found["headers"] = {
            "Retry-After": {
                "description": "Seconds to wait before the next try.",
                "required": True,
                "schema": {"type": "integer", "minimum": 1},
            }
        }
    return found
