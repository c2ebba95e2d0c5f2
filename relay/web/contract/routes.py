"""Serves the contracts: `/openapi.json` and `/asyncapi.json` for programs, `/docs` for people. No token is needed.

Those of facades, whose protocols are others, are `/openapi/NAME.json` and `/asyncapi/NAME.json`.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import orjson
from aiohttp import web

from relay.core.hosts import parse_host
from relay.instruments.directory import Directory
from relay.web.access.access import Access
from relay.web.access.forwarded import prefix_of, scheme_of
from relay.web.contract import asyncapi, docs_page, openapi
from relay.web.pages import policy

_ANY_HOST, _ANY_PREFIX = "host.invalid", "/prefix.invalid"


class DescribedFacade(Protocol):
    """What describes its own routes."""

    def openapi(self, *, needs_token: bool) -> dict[str, Any]:
        """Return an OpenAPI document."""

    def asyncapi(self, host: str, prefix: str, *, is_secure: bool, needs_token: bool) -> dict[str, Any]:
        """Return an AsyncAPI document."""


class Texts(NamedTuple):
    """The contracts as they are sent, but for the host and the path that they name, in whose place others stand.

    Those of facades are by name.
    """

    openapi: str
    asyncapi: str
    docs: str
    facade_openapi: Mapping[str, str]
    facade_asyncapi: Mapping[str, str]


class Contracts:
    """Gives the contracts as they hold now: tokens may come and go while the relay runs."""

    def __init__(self, access: Access, directory: Directory, facades: Mapping[str, DescribedFacade]) -> None:
        self._access = access
        self._directory = directory
        self._facades = facades
        self._made: dict[tuple[bool, bool, bool, bool], Texts] = {}

    def texts(self, request: web.Request) -> Texts:
        """Return the contracts for a client that came by this address."""
        config = self._access.config
        prefix = prefix_of(request, config)
        state = (scheme_of(request, config) == "https", bool(prefix), bool(config.tokens), config.public_status)
        texts = self._made.get(state)
        if texts is None:
            # Once: it takes milliseconds, and anybody may ask.
            texts = self._made[state] = self._make(*state)
        host = "localhost" if parse_host(request.host) is None else request.host

        def placed(text: str) -> str:
            return text.replace(_ANY_HOST, host).replace(_ANY_PREFIX, prefix)

        of_facades = {name: placed(text) for name, text in texts.facade_asyncapi.items()}
        return Texts(texts.openapi, placed(texts.asyncapi), placed(texts.docs), texts.facade_openapi, of_facades)

    def _make(self, is_secure: bool, is_below: bool, needs_token: bool, is_status_public: bool) -> Texts:
        rest = openapi.document(
            self._directory.asset_classes,
            self._directory.listing,
            needs_token=needs_token,
            is_status_public=is_status_public,
            facades=self._facades,
        )
        prefix = _ANY_PREFIX if is_below else ""
        live = asyncapi.document(_ANY_HOST, prefix, is_secure=is_secure, needs_token=needs_token)
        facades = self._facades.items()
        return Texts(
            _json(rest),
            _json(live),
            docs_page.page(rest, live),
            {name: _json(one.openapi(needs_token=needs_token)) for name, one in facades},
            {
                name: _json(one.asyncapi(_ANY_HOST, prefix, is_secure=is_secure, needs_token=needs_token))
                for name, one in facades
            },
        )


CONTRACTS = web.AppKey("contracts", Contracts)


async def _openapi(request: web.Request) -> web.Response:
    return _answer(request.app[CONTRACTS].texts(request).openapi, "application/json")


async def _asyncapi(request: web.Request) -> web.Response:
    return _answer(request.app[CONTRACTS].texts(request).asyncapi, "application/json")


async def _facade_openapi(request: web.Request) -> web.Response:
    return _of_facade(request, request.app[CONTRACTS].texts(request).facade_openapi)


async def _facade_asyncapi(request: web.Request) -> web.Response:
    return _of_facade(request, request.app[CONTRACTS].texts(request).facade_asyncapi)


def _of_facade(request: web.Request, texts: Mapping[str, str]) -> web.Response:
    text = texts.get(request.match_info["facade"])
    if text is None:
        raise web.HTTPNotFound
    return _answer(text, "application/json")


async def _docs(request: web.Request) -> web.Response:
    answer = _answer(request.app[CONTRACTS].texts(request).docs, "text/html")
    answer.headers["Content-Security-Policy"] = policy(request.host)
    answer.headers["X-Frame-Options"] = "DENY"
    return answer


ROUTES = [
    web.get("/openapi.json", _openapi),
    web.get("/asyncapi.json", _asyncapi),
    web.get("/openapi/{facade}.json", _facade_openapi),
    web.get("/asyncapi/{facade}.json", _facade_asyncapi),
    web.get("/docs", _docs),
]


def _answer(text: str, content_type: str) -> web.Response:
    headers = {"Cache-Control": "no-cache", "X-Content-Type-Options": "nosniff", "Referrer-Policy": "same-origin"}
    return web.Response(text=text, content_type=content_type, charset="utf-8", headers=headers)


def _json(document: dict[str, Any]) -> str:
    return orjson.dumps(document, option=orjson.OPT_INDENT_2).decode()
