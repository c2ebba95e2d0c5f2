"""The WebSocket contract as an AsyncAPI 3.0 document, made from what requests are read by and messages are built as."""

from typing import Any

from relay.core.errors import CloseCode
from relay.core.version import VERSION
from relay.protocol import client_requests
from relay.protocol.fields import Field, Schema
from relay.protocol.frames import MESSAGE_BYTES
from relay.protocol.server_messages import (
    SERVER_MESSAGES,
    ErrorMessage,
    GapMessage,
    Greeting,
    OutdatedMessage,
    Pong,
    PriceUpdateMessage,
    SnapshotMessage,
    StreamStatus,
    Subscription,
    Subscriptions,
)
from relay.web.contract.json_schema import Schemas

Document = dict[str, Any]

ADDRESS = "/api/v1/market-data/ws"

CLOSING = {
    CloseCode.GOING_AWAY: ("the server shuts down", "reconnect"),
    CloseCode.TOO_BIG: (f"a message was longer than {MESSAGE_BYTES} bytes", "reconnect"),
    CloseCode.SLOW_CONSUMER: ("the client reads its closed candles too slowly", "reconnect and resume with `since`"),
    CloseCode.TOO_MANY_INVALID: ("too many invalid messages", "do not reconnect"),
    CloseCode.RATE_LIMITED: ("too many requests", "reconnect later"),
    CloseCode.TOKEN_REVOKED: ("the client's token is not valid any more", "do not reconnect with it"),
}

_NAMES = (client_requests.SYMBOL_FIELD, client_requests.INTERVAL_FIELD)
_SUMMARIES = {
    "Subscribe": "Subscribe to one stream, or replace its options.",
    "SubscribeMany": "Subscribe to several streams; each gets its own answer.",
    "Unsubscribe": "End one stream.",
    "UnsubscribeMany": "End several streams; each gets its own answer.",
    "List": "Ask for the client's streams.",
    "Ping": "Check the connection.",
}
_REPLIES = {
    "subscribe": (Subscription, StreamStatus, SnapshotMessage, PriceUpdateMessage, ErrorMessage),
    "unsubscribe": (Subscription, ErrorMessage),
    "list": (Subscriptions, ErrorMessage),
    "ping": (Pong, ErrorMessage),
}
_UNASKED = (Greeting, StreamStatus, PriceUpdateMessage, SnapshotMessage, GapMessage, OutdatedMessage)
_STREAM = {"symbol": "BTCUSDT", "interval": "1m"}
_CANDLE = {"time": 1_764_000_000, "open": 51173.5, "high": 51181.3, "low": 51169.9, "close": 51172.8, "volume": 0.0549}
_EXAMPLES: dict[Any, Document] = {
    Greeting: {
        "type": "status",
        "status": "connected",
        "message": "market-relay",
        "server_time": 1_764_000_000,
        "epoch": "9f2c41d0aa37",
        "store": "5be1d2c90f7a3e64",
        "limits": {"streams": 200, "message_bytes": MESSAGE_BYTES},
    },
    StreamStatus: {
        "type": "status",
        "status": "reconnecting",
        **_STREAM,
        "message": "the connection to the provider was lost",
    },
    Subscription: {
        "type": "subscription",
        "action": "subscribe",
        **_STREAM,
        "provider": "binance",
        "status": "ok",
        "revision": 1_764_000_000_000_000,
        "id": 7,
    },
    SnapshotMessage: {
        "type": "snapshot",
        **_STREAM,
        "provider": "binance",
        "candles": [_CANDLE],
        "last_is_closed": False,
        "complete": True,
        "seq": 41,
        "revision": 1_764_000_000_000_017,
    },
    PriceUpdateMessage: {
        "type": "price_update",
        **_STREAM,
        "candle": _CANDLE,
        "is_closed": False,
        "seq": 42,
        "ts_event": 1_764_000_001_234,
    },
    GapMessage: {
        "type": "gap",
        **_STREAM,
        "from": 1_764_000_000,
        "to": 1_764_000_300,
        "reason": "the provider has no candles there",
    },
    OutdatedMessage: {
        "type": "outdated",
        **_STREAM,
        "from": 0,
        "before": 1_764_000_000,
        "reason": "the provider changed its history",
    },
    ErrorMessage: {
        "type": "error",
        "code": "unknown_symbol",
        "message": "unknown symbol 'NOPE'",
        "symbol": "NOPE",
        "interval": "1m",
        "id": 7,
    },
    Subscriptions: {"type": "subscriptions", "streams": ["BTCUSDT@1m"], "id": 8},
    Pong: {"type": "pong", "server_time": 1_764_000_000, "id": 9},
}


def document(host: str, prefix: str = "", *, is_secure: bool, needs_token: bool) -> Document:
    """Build the document for a relay that clients reach at `host` (with a special port), below the path `prefix`."""
    schemas = Schemas()
    messages = {kind.__name__: _from_relay(kind, schemas) for kind in SERVER_MESSAGES}
    asked: dict[str, list[str]] = {}
    for action, fields in client_requests.ACTIONS.items():
        for name, schema in _from_client(action, fields).items():
            schemas.components[name] = schema
            messages[name] = _message(name, _SUMMARIES[name], schema["examples"][0])
            asked.setdefault(action, []).append(name)
    server: Document = {"host": host, "protocol": "wss" if is_secure else "ws", "description": "this relay"}
    if prefix:
        server["pathname"] = prefix
    if needs_token:
        server["security"] = [{"$ref": f"#/components/securitySchemes/{name}"} for name in ("bearer", "token")]
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "market-relay",
            "version": VERSION,
            "description": "Live candles of several providers. `/openapi.json` describes requests for history, and "
            "`/api/v1/market-data/sse`, where the same messages come as Server-Sent Events. Clients "
            "ignore fields and message types that they do not know.",
            "license": {"name": "MIT"},
        },
        "defaultContentType": "application/json",
        "servers": {"relay": server},
        "channels": {
            "marketData": {
                "address": ADDRESS,
                "title": "Market data",
                "description": _about_the_channel(),
                "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in messages},
                "bindings": {"ws": _binding()},
            }
        },
        "operations": {
            **{action: _asking(action, names) for action, names in asked.items()},
            "tell": {
                "action": "send",
                "channel": {"$ref": "#/channels/marketData"},
                "summary": "Messages that the relay sends by itself.",
                "messages": [_of_channel(kind.__name__) for kind in _UNASKED],
            },
        },
        "components": {
            "messages": messages,
            "schemas": schemas.components,
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer", "description": "One of the relay's tokens."},
                "token": {
                    "type": "httpApiKey",
                    "in": "query",
                    "name": "token",
                    "description": "The same, for browsers: they cannot send a header here.",
                },
            },
        },
    }


def _from_relay(kind: Any, schemas: Schemas) -> Document:
    schemas.of(kind)
    return _message(kind.__name__, schemas.components[kind.__name__]["description"], _EXAMPLES[kind])


def _message(name: str, summary: str, example: Document) -> Document:
    return {
        "name": name,
        "title": name,
        "summary": summary,
        "payload": {"$ref": f"#/components/schemas/{name}"},
        "examples": [{"name": "plain", "payload": example}],
    }


def _from_client(action: str, fields: tuple[Field[Any], ...]) -> dict[str, Schema]:
    """Return the schemas of a request: where it names streams there are two ways to do it."""
    title = action.capitalize()
    if client_requests.STREAMS not in fields:
        return {title: _request(action, title, fields, ())}
    options = tuple(one for one in fields if one not in (*_NAMES, client_requests.STREAMS))
    return {
        title: _request(action, title, (*_NAMES, *options), _NAMES),
        f"{title}Many": _request(
            action, f"{title}Many", (client_requests.STREAMS, *options), (client_requests.STREAMS,)
        ),
    }


def _request(action: str, title: str, fields: tuple[Field[Any], ...], needed: tuple[Field[Any], ...]) -> Schema:
    properties: dict[str, Schema] = {"action": {"type": "string", "const": action}}
    for field in fields:
        schema = field.kind.schema() | {"description": field.description, "examples": [field.example]}
        if field not in needed:
            # Null means that it is not given.
            known = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
            schema["type"] = [*known, "null"]
        properties[field.name] = schema
    return {
        "type": "object",
        "description": _SUMMARIES[title],
        "properties": properties,
        "required": ["action", *(field.name for field in needed)],
        "examples": [{"action": action, **{field.name: field.example for field in fields}}],
    }


def _asking(action: str, names: list[str]) -> Document:
    return {
        "action": "receive",
        "channel": {"$ref": "#/channels/marketData"},
        "summary": _SUMMARIES[names[0]],
        "messages": [_of_channel(name) for name in names],
        "reply": {
            "channel": {"$ref": "#/channels/marketData"},
            "messages": [_of_channel(kind.__name__) for kind in _REPLIES[action]],
        },
    }


def _of_channel(name: str) -> Document:
    return {"$ref": f"#/channels/marketData/messages/{name}"}


def _binding() -> Document:
    token = {"type": "string", "description": "A token, where no header can be sent."}
    return {"method": "GET", "query": {"type": "object", "properties": {"token": token}}, "bindingVersion": "0.1.0"}


def _about_the_channel() -> str:
    rows = "\n".join(f"| {int(code)} | {why} | {then} |" for code, (why, then) in CLOSING.items())
    return (
        f"Text frames with one JSON object each; a frame from a client has at most {MESSAGE_BYTES} bytes, and frames "
        "that break RFC 6455 are answered with its own codes (1002, 1007). The first "
        "message is the greeting. For each stream the order is: its confirmation, its state unless it is `connected`, "
        "a snapshot if one was asked for, then updates. Requests about one stream are answered in order; others do not "
        "wait for them, so match answers by `id`. Closed candles come exactly once and in order; updates of a "
        "candle that is still open may be conflated for a slow client (an unsent one is replaced by a newer one), the "
        "last one is always delivered.\n\n"
        f"The relay closes with these codes:\n\n| code | because | then |\n| --- | --- | --- |\n{rows}"
    )
