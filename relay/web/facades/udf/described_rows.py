"""The WebSocket of live rows as an AsyncAPI 3.0 document."""

from typing import Any

from relay.core.errors import CloseCode
from relay.core.version import VERSION
from relay.protocol.fields import Schema
from relay.web.contract.asyncapi import CLOSING
from relay.web.contract.json_schema import Schemas
from relay.web.facades.described_servers import asyncapi_server
from relay.web.facades.udf.answer_types import GridRow
from relay.web.facades.udf.day_quotes import MOST_SYMBOLS
from relay.web.facades.udf.live_rows import EXAMPLE
from relay.web.facades.udf.widgets import LIVE

Document = dict[str, Any]

_NAME: Schema = {"type": "string"}
_WANTED: Schema = {
    "type": "object",
    "description": "The symbols whose rows are wanted from now on, and no others.",
    "properties": {
        "params": {
            "type": "object",
            "properties": {
                "symbol": {
                    "anyOf": [{"type": "array", "items": _NAME, "maxItems": MOST_SYMBOLS}, _NAME],
                    "description": "Names, as a list or with commas between them.",
                }
            },
            "required": ["symbol"],
        }
    },
    "required": ["params"],
}
_REFUSED: Schema = {
    "type": "object",
    "description": "A message that cannot be understood.",
    "properties": {"type": {"const": "error"}, "code": _NAME, "message": _NAME},
    "required": ["type", "code", "message"],
}
EXAMPLES: dict[str, Document] = {
    "SymbolsWanted": EXAMPLE,
    "GridRow": {"symbol": "BTCUSDT", "price": 51172.5, "change": 172.5, "change_percent": 0.00338235, "volume": 1204.5},
    "RowsRefused": {"type": "error", "code": "invalid_json", "message": "this is not JSON"},
}


def asyncapi_document(host: str, prefix: str = "", *, is_secure: bool, needs_token: bool) -> Document:
    """Build the document for a relay that clients reach at `host`, below the path `prefix`."""
    rows = Schemas()
    rows.of(GridRow)
    schemas: dict[str, Schema] = {"SymbolsWanted": _WANTED, **rows.components, "RowsRefused": _REFUSED}
    server = asyncapi_server(host, prefix, is_secure=is_secure, needs_token=needs_token)
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "market-relay for live watch lists",
            "version": VERSION,
            "description": _about(),
            "license": {"name": "MIT"},
        },
        "defaultContentType": "application/json",
        "servers": {"relay": server},
        "channels": {
            "rows": {
                "address": f"/{LIVE}",
                "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in EXAMPLES},
                "bindings": {"ws": {"method": "GET", "bindingVersion": "0.1.0"}},
            }
        },
        "operations": {
            "ask": _operation("receive", ["SymbolsWanted"]),
            "tell": _operation("send", ["GridRow", "RowsRefused"]),
        },
        "components": {
            "messages": {
                name: {
                    "name": name,
                    "title": name,
                    "summary": schemas[name]["description"],
                    "payload": {"$ref": f"#/components/schemas/{name}"},
                    "examples": [{"name": "plain", "payload": example}],
                }
                for name, example in EXAMPLES.items()
            },
            "schemas": schemas,
        },
    }


def _about() -> str:
    closing = CLOSING | {
        CloseCode.TOO_BIG: ("a message was too long", "reconnect"),
        CloseCode.SLOW_CONSUMER: ("the client reads too slowly", "reconnect"),
    }
    codes = "\n".join(f"| {int(code)} | {why} | {then} |" for code, (why, then) in closing.items())
    return (
        "What the live grid of OpenBB Workspace speaks: a client names symbols, and is sent a row for each of them and "
        "then for each change, at most four per second. Text frames with one JSON object each.\n\n"
        f"The relay closes with these codes:\n\n| code | because | then |\n| --- | --- | --- |\n{codes}"
    )


def _operation(action: str, names: list[str]) -> Document:
    return {
        "action": action,
        "channel": {"$ref": "#/channels/rows"},
        "messages": [{"$ref": f"#/channels/rows/messages/{name}"} for name in names],
    }
