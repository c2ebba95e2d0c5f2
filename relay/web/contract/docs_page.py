"""The contracts as a page for people, written from the two documents; nothing of it is inline script or style."""

import re
from collections.abc import Iterable, Iterator
from html import escape
from importlib import resources
from typing import Any
from urllib.parse import urlencode

import orjson

from relay.protocol.fields import Schema
from relay.web.contract.asyncapi import ADDRESS, CLOSING

Document = dict[str, Any]

_CODE = re.compile(r"`([^`]+)`")


def page(openapi: Document, asyncapi: Document) -> str:
    """Return the page as HTML."""
    operations = [(path, methods["get"]) for path, methods in openapi["paths"].items()]
    requests = [name for one in asyncapi["operations"].values() if one["action"] == "receive" for name in _named(one)]
    messages = asyncapi["components"]["messages"]
    said = [name for name in messages if name not in requests]
    schemas = openapi["components"]["schemas"]
    objects = {**schemas, **{name: asyncapi["components"]["schemas"][name] for name in _parts(asyncapi, messages)}}
    return "\n".join(
        [
            _HEAD,
            _contents(operations, requests, said),
            '<main id="main" class="docs">',
            f"<h1>{_text(openapi['info']['title'])} {_text(openapi['info']['version'])}</h1>",
            f"<p>{_text(openapi['info']['description'])}</p>",
            '<p>For programs: <a href="openapi.json">/openapi.json</a> (OpenAPI 3.1) and '
            '<a href="asyncapi.json">/asyncapi.json</a> (AsyncAPI 3.0). '
            f"{'Requests need a token: <code>Authorization: Bearer TOKEN</code>.' if openapi['security'] else ''}</p>",
            '<h2 id="http">HTTP</h2>',
            *(_operation(path, one, openapi) for path, one in operations),
            '<h2 id="websocket">WebSocket</h2>',
            _channel(asyncapi),
            "<h3>Messages from a client</h3>",
            *(_message(name, asyncapi) for name in requests),
            "<h3>Messages from the relay</h3>",
            *(_message(name, asyncapi) for name in said),
            '<h2 id="javascript">JavaScript</h2>',
            _javascript(),
            '<h2 id="objects">Objects</h2>',
            *(_object(name, schema) for name, schema in objects.items()),
            "</main>",
            '<a class="button outlined to-top" href="#top">To the top</a>',
            "</body>",
            "</html>",
        ]
    )


_HEAD = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>API · market-relay</title>
<link rel="icon" href="static/favicon.svg" type="image/svg+xml">
<link rel="stylesheet" href="static/style.css">
<link rel="stylesheet" href="static/docs.css">
<script src="static/theme.js"></script>
<script src="static/docs.js" type="module"></script>
</head>
<body id="top">
<a class="skip" href="#main">To the contents</a>
<header class="top">
<a class="brand" href="./" aria-label="market-relay, charts">
<img src="static/favicon.svg" alt=""><span>market-relay</span>
</a>
<nav aria-label="Pages">
<a href="./">Charts</a>
<a href="status.html">Status</a>
<a href="docs" aria-current="page">API</a>
</nav>
<span class="spacer"></span>
<button class="button" type="button" data-theme-toggle aria-label="Light or dark" title="Light or dark">
<svg viewBox="0 0 16 16" aria-hidden="true">
<circle cx="8" cy="8" r="6"/><path class="filled" d="M8 2a6 6 0 0 1 0 12z"/>
</svg>
</button>
</header>"""


def _named(operation: Document) -> list[str]:
    return [message["$ref"].rpartition("/")[2] for message in operation["messages"]]


def _parts(asyncapi: Document, messages: Iterable[str]) -> Iterator[str]:
    """Yield the objects that only occur within messages."""
    known = set(messages)
    return (name for name in asyncapi["components"]["schemas"] if name not in known)


def _contents(operations: list[tuple[str, Document]], requests: list[str], said: list[str]) -> str:
    return "\n".join(
        [
            '<nav class="contents" aria-label="Contents">',
            '<input id="search" class="field" type="search" aria-label="Search the API" placeholder="Search: limit, '
            'backfilled, 4000 …" autocomplete="off" spellcheck="false">',
            '<span id="found" class="muted" role="status"></span>',
            "<strong>HTTP</strong>",
            *(f'<a href="#{one["operationId"]}">{escape(path.rpartition("/")[2])}</a>' for path, one in operations),
            "<strong>WebSocket: client</strong>",
            *(f'<a href="#message-{name}">{name}</a>' for name in requests),
            "<strong>WebSocket: relay</strong>",
            *(f'<a href="#message-{name}">{name}</a>' for name in said),
            '<strong><a href="#javascript">JavaScript</a></strong>',
            '<strong><a href="#objects">Objects</a></strong>',
            "</nav>",
        ]
    )


def _operation(path: str, operation: Document, openapi: Document) -> str:
    name = operation["operationId"]
    rows = [
        (
            _mark(one["name"], is_required=one["required"]),
            _kind(one["schema"]),
            f"{_text(one['description'])}{_more(one['schema'])}",
        )
        for one in operation["parameters"]
    ]
    content = operation["responses"]["200"]["content"]
    answers = [
        (
            f"<code>{status}</code>",
            " or ".join(f"<code>{escape(kind)}</code>" for kind in (answer.get("content") or {})),
            _text(answer["description"]),
        )
        for status, answer in ((status, _found(one, openapi)) for status, one in operation["responses"].items())
    ]
    examples = {
        one["name"]: one["example"] for one in operation["parameters"] if _is_in_example(one) and "example" in one
    }
    address = path + (f"?{urlencode(examples)}" if examples else "")
    shown = "".join(
        _example(example["value"]) for one in content.values() for example in one.get("examples", {}).values()
    )
    kinds = [
        _kind(one["schema"]) if kind == "application/json" else f"<code>{escape(kind)}</code>"
        for kind, one in content.items()
    ]
    return (
        f'<section class="card" aria-labelledby="{name}"><h3 id="{name}"><span class="verb">GET</span> '
        f"<code>{escape(path)}</code></h3><p>{_text(operation['summary'])}</p>"
        + (_table(("parameter", "type", "meaning"), rows, f"Parameters of {name}") if rows else "")
        + f"<p>Answers {' or '.join(kinds)}. Try it: "
        + f'<a href="{escape(address[1:])}"><code>{escape(address)}</code></a></p>'
        + shown
        + _folded("Statuses", _table(("status", "content", "meaning"), answers, f"Statuses of {name}"))
        + "</section>"
    )


def _channel(asyncapi: Document) -> str:
    server = asyncapi["servers"]["relay"]
    address = f"{server['protocol']}://{server['host']}{server.get('pathname', '')}{ADDRESS}"
    about = asyncapi["channels"]["marketData"]["description"].partition("\n\n")[0]
    rows = [(f"<code>{int(code)}</code>", _text(why), _text(then)) for code, (why, then) in CLOSING.items()]
    return (
        f"<p><code>{escape(address)}</code></p><p>{_text(about)}</p>"
        '<section class="card" aria-labelledby="closing"><h3 id="closing">How it closes</h3>'
        f"{_table(('code', 'because', 'then'), rows, 'Close codes')}</section>"
    )


def _javascript() -> str:
    code = (resources.files("relay.web") / "examples" / "lightweight-charts" / "main.js").read_text(encoding="utf-8")
    return (
        '<section class="card" aria-labelledby="example-chart"><h3 id="example-chart">A chart without holes</h3>'
        '<p>The relay serves its client, <a href="client.js"><code>client.js</code></a>, a module for browsers and '
        'Node 22 or newer with types in <a href="client.d.ts"><code>client.d.ts</code></a>. The npm package '
        "<code>market-relay-client</code> has the same file. This is the whole script of a page with Lightweight "
        "Charts 5: the past of a stream, then live. After an outage of the provider, the network or the relay, what "
        "was missed comes first. Its page and its package.json are in the folder "
        "<code>relay/web/examples/lightweight-charts</code>.</p>"
        f"<pre><code>{escape(code)}</code></pre></section>"
    )


def _message(name: str, asyncapi: Document) -> str:
    schema = asyncapi["components"]["schemas"][name]
    example = asyncapi["components"]["messages"][name]["examples"][0]["payload"]
    return (
        f'<section class="card" aria-labelledby="message-{name}"><h4 id="message-{name}">{name}</h4>'
        f"<p>{_text(schema['description'])}</p>{_example(example)}{_fields(name, schema)}</section>"
    )


def _object(name: str, schema: Schema) -> str:
    return (
        f'<section class="card" aria-labelledby="object-{name}"><h3 id="object-{name}">{name}</h3>'
        f"<p>{_text(schema['description'])}</p>{_fields(name, schema)}</section>"
    )


def _fields(name: str, schema: Schema) -> str:
    rows = [
        (
            _mark(field, is_required=field in schema["required"]),
            _kind(one, is_optional=field not in schema["required"]),
            f"{_text(one.get('description', ''))}{_more(one)}",
        )
        for field, one in schema["properties"].items()
    ]
    return _table(("field", "type", "meaning"), rows, f"Fields of {name}")


def _kind(schema: Schema, *, is_optional: bool = False) -> str:
    """Return a type in words; null says no more than that a field is optional."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f'<a href="#object-{name}">{name}</a>'
    if "anyOf" in schema:
        return " or ".join(_kind(one) for one in schema["anyOf"])
    if "const" in schema:
        return f"<code>{escape(orjson.dumps(schema['const']).decode())}</code>"
    if schema["type"] == "array":
        return f"list of {_kind(schema['items'])}"
    kinds = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    return " or ".join(kind for kind in kinds if kind != "null" or not is_optional)


def _more(schema: Schema) -> str:
    said = []
    if "minimum" in schema and "maximum" in schema:
        said.append(f"{schema['minimum']:,} to {schema['maximum']:,}")
    if "default" in schema:
        default = schema["default"]
        said.append(f"default {escape(default if isinstance(default, str) else orjson.dumps(default).decode())}")
    if "enum" in schema:
        said.append("one of " + " ".join(f"<code>{escape(str(one))}</code>" for one in schema["enum"]))
    return f' <span class="muted">({"; ".join(said)})</span>' if said else ""


def _is_in_example(parameter: Document) -> bool:
    """Say whether a request needs it, or needs it first of some alternatives."""
    return bool(parameter["required"]) or parameter.get("x-one-of", [""])[0] == parameter["name"]


def _mark(name: str, *, is_required: bool) -> str:
    return f"<code>{escape(name)}</code>" + ("" if is_required else ' <span class="muted">optional</span>')


def _found(answer: Document, openapi: Document) -> Document:
    if "$ref" not in answer:
        return answer
    found: Document = openapi["components"]["responses"][answer["$ref"].rpartition("/")[2]]
    return found


def _table(heads: tuple[str, ...], rows: Iterable[tuple[str, ...]], caption: str) -> str:
    top = "".join(f'<th scope="col">{head}</th>' for head in heads)
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    return (
        f'<table><caption class="visually-hidden">{escape(caption)}</caption>'
        f"<thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>"
    )


def _example(value: object) -> str:
    text = value if isinstance(value, str) else orjson.dumps(value, option=orjson.OPT_INDENT_2).decode()
    # Prices are easier to read when an object of plain values stands on one line.
    text = re.sub(r"\{\s+([^{}\[\]]+?)\s+\}", lambda found: "{" + re.sub(r"\s*\n\s*", " ", found[1]) + "}", text)
    return f"<pre><code>{escape(text)}</code></pre>"


def _folded(title: str, body: str) -> str:
    return f"<details><summary>{title}</summary>{body}</details>"


def _text(text: str) -> str:
    return _CODE.sub(r"<code>\1</code>", escape(text, quote=False))
