"""What answers, events and requests of Binance's protocol hold, as JSON Schema; pure.

rest-api.md and web-socket-streams.md in https://github.com/binance/binance-spot-api-docs have the fields. What is
passed on may have more of them.
"""

from typing import Any

Schema = dict[str, Any]

PLACE = "#/components/schemas/"
TIME: Schema = {"type": "integer", "description": "Unix milliseconds, or microseconds where these are asked for."}
NUMBER: Schema = {
    "type": "string",
    "description": "A decimal number as Binance wrote it.",
    "examples": ["51173.52000000"],
}
COUNT: Schema = {"type": "integer", "minimum": 0}
IDENTITY: Schema = {"type": "integer"}
TEXT: Schema = {"type": "string"}
FLAG: Schema = {"type": "boolean"}


def ref(name: str) -> Schema:
    """Refer to a schema by its name."""
    return {"$ref": PLACE + name}


def list_of(schema: Schema) -> Schema:
    """Return a list of these."""
    return {"type": "array", "items": schema}


def one_or_all(name: str) -> Schema:
    """Return one for one symbol, a list for several or all."""
    return {"oneOf": [ref(name), list_of(ref(name))]}


def _object(about: str, fields: Schema, optional: Schema | None = None, *, is_open: bool = False) -> Schema:
    """Return an object; one that `is_open` may have other fields as well."""
    found: Schema = {
        "type": "object",
        "description": about,
        "properties": {**fields, **(optional or {})},
        "required": [*fields],
    }
    return found | {"additionalProperties": True} if is_open else found


def _passed(about: str, fields: Schema, optional: Schema | None = None) -> Schema:
    return _object(about, fields, optional, is_open=True)


_LEVEL: Schema = {"type": "array", "items": NUMBER, "minItems": 2, "maxItems": 2}
_KLINE_VALUES: tuple[tuple[str, Schema], ...] = (
    ("open time", TIME),
    ("open", NUMBER),
    ("high", NUMBER),
    ("low", NUMBER),
    ("close", NUMBER),
    ("volume", NUMBER),
    ("close time", TIME),
    ("quote volume", NUMBER),
    ("number of trades", COUNT),
    ("taker buy volume", NUMBER),
    ("taker buy quote volume", NUMBER),
    ("to be ignored", TEXT),
)

REST_SCHEMAS: dict[str, Schema] = {
    "BinanceError": _object(
        "An error in Binance's form.",
        {"code": {"type": "integer", "description": "As in Binance's errors.md."}, "msg": TEXT},
    ),
    "Nothing": _object("Nothing.", {}),
    "ServerTime": _object("The time at Binance.", {"serverTime": TIME}),
    "Kline": {
        "type": "array",
        "description": "A candle: " + ", ".join(name for name, _ in _KLINE_VALUES) + ".",
        "prefixItems": [{**schema, "title": name} for name, schema in _KLINE_VALUES],
        # There are no others; generators of clients do not know `false` here.
        "items": {"type": ["integer", "string"]},
        "minItems": len(_KLINE_VALUES),
        "maxItems": len(_KLINE_VALUES),
    },
    "RateLimit": _passed(
        "A limit of Binance's for the address of the relay.",
        {"rateLimitType": TEXT, "interval": TEXT, "intervalNum": COUNT, "limit": COUNT},
    ),
    "SymbolInfo": _passed(
        "An instrument with all fields that Binance gave.",
        {"symbol": TEXT, "status": TEXT, "baseAsset": TEXT, "quoteAsset": TEXT},
        {"filters": list_of({"type": "object", "additionalProperties": True})},
    ),
    "ExchangeInfo": _passed(
        "The instruments of a market.",
        {
            "timezone": TEXT,
            "serverTime": TIME,
            "rateLimits": list_of(ref("RateLimit")),
            "exchangeFilters": list_of({}),
            "symbols": list_of(ref("SymbolInfo")),
        },
    ),
    "Statistics": _passed(
        "What changed over a time that ends now.",
        {
            "symbol": TEXT, "openPrice": NUMBER, "highPrice": NUMBER, "lowPrice": NUMBER, "lastPrice": NUMBER,
            "volume": NUMBER, "quoteVolume": NUMBER, "openTime": TIME, "closeTime": TIME, "firstId": IDENTITY,
            "lastId": IDENTITY, "count": COUNT,
        },
        {
            "priceChange": NUMBER, "priceChangePercent": NUMBER, "weightedAvgPrice": NUMBER, "prevClosePrice": NUMBER,
            "lastQty": NUMBER, "bidPrice": NUMBER, "bidQty": NUMBER, "askPrice": NUMBER, "askQty": NUMBER,
        },
    ),
    "Price": _passed("The last price.", {"symbol": TEXT, "price": NUMBER}),
    "BestPrices": _passed(
        "The best prices of an order book.",
        {"symbol": TEXT, "bidPrice": NUMBER, "bidQty": NUMBER, "askPrice": NUMBER, "askQty": NUMBER},
    ),
    "AveragePrice": _passed("The average of some minutes.", {"mins": COUNT, "price": NUMBER}, {"closeTime": TIME}),
    "OrderBook": _passed(
        "The best prices and amounts, the best first.",
        {"lastUpdateId": IDENTITY, "bids": list_of(_LEVEL), "asks": list_of(_LEVEL)},
    ),
    "Trade": _passed(
        "A trade.",
        {"id": IDENTITY, "price": NUMBER, "qty": NUMBER, "quoteQty": NUMBER, "time": TIME, "isBuyerMaker": FLAG},
        {"isBestMatch": FLAG},
    ),
    "AggregateTrade": _passed(
        "Trades of one order at one price, from the id `f` to `l`.",
        {"a": IDENTITY, "p": NUMBER, "q": NUMBER, "f": IDENTITY, "l": IDENTITY, "T": TIME, "m": FLAG},
        {"M": FLAG},
    ),
}  # fmt: skip

_REQUEST_ID: Schema = {
    "type": ["integer", "string", "null"],
    "maxLength": 36,
    "description": "Comes back in the answer: a 64-bit integer, up to 36 letters, digits, `-` and `_`, or null.",
}
_STREAM_NAMES: Schema = {
    **list_of({"type": "string", "maxLength": 100, "examples": ["btcusdt@kline_1m"]}),
    "minItems": 1,
    "description": "Streams of klines, `SYMBOL@kline_INTERVAL`, the symbol in lower case.",
}


def _request(about: str, method: str, params: Schema | None) -> Schema:
    fields: Schema = {"method": {"type": "string", "const": method}}
    if params is not None:
        fields["params"] = params
    return _object(about, fields, {"id": _REQUEST_ID}, is_open=True)


REQUEST_SCHEMAS: dict[str, Schema] = {
    "SubscribeStreams": _request("Get the events of streams, of all of them or of none.", "SUBSCRIBE", _STREAM_NAMES),
    "UnsubscribeStreams": _request("Get no more events of streams.", "UNSUBSCRIBE", _STREAM_NAMES),
    "ListSubscriptions": _request("Ask for the streams of this connection.", "LIST_SUBSCRIPTIONS", None),
    "SetProperty": _request(
        "Have events wrapped with the name of their stream, or not.",
        "SET_PROPERTY",
        {"type": "array", "prefixItems": [{"const": "combined"}, FLAG], "items": False, "minItems": 2, "maxItems": 2},
    ),
    "GetProperty": _request(
        "Ask whether events are wrapped.",
        "GET_PROPERTY",
        {"type": "array", "prefixItems": [{"const": "combined"}], "items": False, "minItems": 1, "maxItems": 1},
    ),
}
"""What a client sends on the WebSocket."""

_KLINE = _object(
    "The values of a candle, as text what Binance writes so.",
    {
        "t": TIME, "T": TIME, "s": TEXT, "i": TEXT,
        "f": {**IDENTITY, "description": "The first trade; -1 where there was none or the relay did not see it."},
        "L": {**IDENTITY, "description": "The last trade, likewise."},
        "o": NUMBER, "c": NUMBER, "h": NUMBER, "l": NUMBER, "v": NUMBER, "n": COUNT,
        "x": {**FLAG, "description": "Whether the candle is closed."},
        "q": NUMBER, "V": NUMBER, "Q": NUMBER, "B": TEXT,
    },
)  # fmt: skip
EVENT_SCHEMAS: dict[str, Schema] = {
    "KlineEvent": _object(
        "A candle changed or closed. A close that was missed upstream comes as well, before newer ones.",
        {"e": {"type": "string", "const": "kline"}, "E": TIME, "s": TEXT, "k": ref("KlineValues")},
    ),
    "CombinedEvent": _object("An event with its stream's name.", {"stream": TEXT, "data": ref("KlineEvent")}),
    "Result": _object(
        "The answer to a request: null, the streams, or whether events are wrapped.",
        {"result": {"anyOf": [{"type": "null"}, list_of(TEXT), FLAG]}, "id": _REQUEST_ID},
    ),
    "RequestError": _object(
        "A request that cannot be done; without an id, one of the address.",
        {"error": ref("BinanceFault"), "id": _REQUEST_ID},
    ),
}
"""What the relay sends on the WebSocket."""
PART_SCHEMAS: dict[str, Schema] = {
    "KlineValues": _KLINE,
    "BinanceFault": _object(
        "0: unknown property, 1: its value is not a Boolean, 2: not a valid request, 3: not JSON.",
        {"code": {"type": "integer", "enum": [0, 1, 2, 3]}, "msg": TEXT},
    ),
}
