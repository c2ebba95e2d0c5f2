"""The WebSocket for Binance's programs as an AsyncAPI 3.0 document."""

from typing import Any

from relay.core.errors import CloseCode
from relay.core.version import VERSION
from relay.web.contract.asyncapi import CLOSING
from relay.web.facades.binance.answer_schemas import EVENT_SCHEMAS, PART_SCHEMAS, REQUEST_SCHEMAS, Schema, ref
from relay.web.facades.binance.connection import MESSAGE_BYTES, STREAMS
from relay.web.facades.binance.venue_markets import USDM_STREAMS
from relay.web.facades.described_servers import asyncapi_server

Document = dict[str, Any]

_EVENT = {
    "e": "kline",
    "E": 1_764_000_002_005,
    "s": "BTCUSDT",
    "k": {
        "t": 1_764_000_000_000, "T": 1_764_000_059_999, "s": "BTCUSDT", "i": "1m", "f": 100, "L": 111,
        "o": "51173.52000000", "c": "51172.78000000", "h": "51181.27000000", "l": "51169.94000000", "v": "0.05490000",
        "n": 12, "x": False, "q": "2809.35130000", "V": "0.03120000", "Q": "1596.58620000", "B": "0",
    },
}  # fmt: skip
EXAMPLES: dict[str, Document] = {
    "SubscribeStreams": {"method": "SUBSCRIBE", "params": ["btcusdt@kline_1m"], "id": 1},
    "UnsubscribeStreams": {"method": "UNSUBSCRIBE", "params": ["btcusdt@kline_1m"], "id": 2},
    "ListSubscriptions": {"method": "LIST_SUBSCRIPTIONS", "id": 3},
    "SetProperty": {"method": "SET_PROPERTY", "params": ["combined", True], "id": 4},
    "GetProperty": {"method": "GET_PROPERTY", "params": ["combined"], "id": 5},
    "KlineEvent": _EVENT,
    "CombinedEvent": {"stream": "btcusdt@kline_1m", "data": _EVENT},
    "Result": {"result": ["btcusdt@kline_1m"], "id": 3},
    "RequestError": {"error": {"code": 2, "msg": "Invalid request: invalid stream"}, "id": 1},
}
_ADDRESSES = {
    "raw": ("/ws", "Nothing is subscribed at first."),
    "rawStreams": ("/ws/{streams}", "Names of streams, joined by `/`. Anything else, such as a number, is ignored."),
    "combined": ("/stream", "As `/ws`, with events wrapped. `?streams=A/B` names streams."),
}


def asyncapi_document(host: str, prefix: str = "", *, is_secure: bool, needs_token: bool) -> Document:
    """Build the document for a relay that clients reach at `host`, below the path `prefix`."""
    schemas: dict[str, Schema] = {**REQUEST_SCHEMAS, **EVENT_SCHEMAS}
    server = asyncapi_server(host, prefix, is_secure=is_secure, needs_token=needs_token)
    channels = {}
    for before, market in (("", "spot"), (USDM_STREAMS, "usdm")):
        for name, (address, about) in _ADDRESSES.items():
            channels[f"{market}_{name}"] = _channel(before + address, about, [*schemas])
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "market-relay for programs that are written against Binance",
            "version": VERSION,
            "description": _about(),
            "license": {"name": "MIT"},
        },
        "defaultContentType": "application/json",
        "servers": {"relay": server},
        "channels": channels,
        "operations": {
            **{f"{name}_ask": _operation(name, "receive", [*REQUEST_SCHEMAS]) for name in channels},
            **{f"{name}_tell": _operation(name, "send", [*EVENT_SCHEMAS]) for name in channels},
        },
        "components": {
            "messages": {name: _message(name, schema) for name, schema in schemas.items()},
            "schemas": schemas | PART_SCHEMAS,
        },
    }


def _about() -> str:
    closing = CLOSING | {
        CloseCode.TOO_BIG: ("a message was too long", "reconnect"),
        CloseCode.SLOW_CONSUMER: ("the client reads its closed candles too slowly", "reconnect"),
    }
    rows = "\n".join(f"| {int(code)} | {why} | {then} |" for code, (why, then) in closing.items())
    return (
        "Klines in UTC, as https://github.com/binance/binance-spot-api-docs describes them, text frames with one JSON "
        f"object each. A message of a client has at most {MESSAGE_BYTES} bytes, and a connection at most {STREAMS} "
        "streams unless the relay is set otherwise. `?timeUnit=MICROSECOND` in the address has times in microseconds. "
        "Events of seconds come when they are closed. Corrections of closed candles are not sent.\n\n"
        f"The relay closes with these codes:\n\n| code | because | then |\n| --- | --- | --- |\n{rows}"
    )


def _channel(address: str, about: str, names: list[str]) -> Document:
    found: Document = {
        "address": address,
        "description": about,
        "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in names},
        "bindings": {"ws": _binding()},
    }
    if "{streams}" in address:
        example = "btcusdt@kline_1m/ethusdt@kline_1m"
        found["parameters"] = {"streams": {"description": "Names of streams.", "examples": [example]}}
    return found


def _binding() -> Document:
    query: Schema = {
        "streams": {"type": "string", "description": "Names of streams, joined by `/`; with `/stream` only."},
        "timeUnit": {"type": "string", "enum": ["MILLISECOND", "MICROSECOND", "millisecond", "microsecond"]},
    }
    return {"method": "GET", "query": {"type": "object", "properties": query}, "bindingVersion": "0.1.0"}


def _operation(channel: str, action: str, names: list[str]) -> Document:
    return {
        "action": action,
        "channel": {"$ref": f"#/channels/{channel}"},
        "messages": [{"$ref": f"#/channels/{channel}/messages/{name}"} for name in names],
    }


def _message(name: str, schema: Schema) -> Document:
    return {
        "name": name,
        "title": name,
        "summary": schema["description"],
        "payload": ref(name),
        "examples": [{"name": "plain", "payload": EXAMPLES[name]}],
    }
