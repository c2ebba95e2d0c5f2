"""`exchangeInfo`: the instruments of one market with all that Binance said of them."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import orjson
from aiohttp import web

from relay.core.model import Instrument
from relay.core.packed_extras import PackedExtras, each_json
from relay.core.threads import in_thread, in_thread_if_many
from relay.plugins.provider import Provider
from relay.web.facade_counts import FacadeCounts
from relay.web.facades.binance import reading
from relay.web.facades.binance.lacking_texts import EXTRA, why_no_texts
from relay.web.facades.binance.pass_through import PassedAnswer, PassThrough, in_microseconds
from relay.web.facades.binance.refusals import JSON, BinanceRefusal, bad_symbol, invalid, unsupported
from relay.web.facades.binance.venue_markets import STATUSES, HeadersNow, VenueMarket, no_provider, now_ms
from relay.web.facades.facade import FacadeParts
from relay.web.http.cached_body import Body, ResponseHeads

_SYMBOL_NAMES = ("symbol", "symbols")
_NAMES = (*_SYMBOL_NAMES, "permissions", "showPermissionSets", "symbolStatus")
_PERMISSIONS = re.compile(r'[A-Z0-9_]{1,50}|\["[A-Z0-9_]{1,50}"(,"[A-Z0-9_]{1,50}")*\]')
_BEGIN = f'{{"{EXTRA}":'.encode()
_ALLOWED = {"SPOT": "isSpotTradingAllowed", "MARGIN": "isMarginTradingAllowed"}
"""Permissions that an entry says in another field, too; the relay asks for entries without their permission sets."""
_USUAL = frozenset({"SPOT", "MARGIN", "LEVERAGED"})
"""rest-api.md: the permissions of which a pair has to have one where a request names none."""


class InfoQuery(NamedTuple):
    """Which entries are asked for; None is all. With `is_native` only the exchange itself can choose them."""

    symbols: Sequence[str] | None = None
    status: str | None = None
    permissions: frozenset[str] = _USUAL
    is_native: bool = False


def info_names(market: VenueMarket) -> Sequence[str]:
    """Return the parameters that the list of a market takes."""
    return _SYMBOL_NAMES if market.is_plain else _NAMES


def read_info_query(query: Mapping[str, str], market: VenueMarket) -> InfoQuery:
    """Read the parameters of a request. Raises `BinanceRefusal`."""
    reading.check_names(query, info_names(market))
    shows_sets = query.get("showPermissionSets", "").lower()
    if shows_sets not in ("", "true", "false") or query.get("showPermissionSets") == "":
        raise invalid("showPermissionSets")
    chosen = {name for name in ("symbol", "symbols", "permissions", "symbolStatus") if name in query}
    if len(chosen) > 1 and chosen != {"permissions", "symbolStatus"}:
        raise BinanceRefusal(-1128, "Combination of optional parameters invalid.")
    is_native = shows_sets == "true"
    if "symbol" in query:
        return InfoQuery((reading.symbol_of(market.spelt(query["symbol"])),), is_native=is_native)
    if "symbols" in query:
        return InfoQuery(reading.symbols_of(query["symbols"]), is_native=is_native)
    status = query.get("symbolStatus")
    if status is not None and status not in STATUSES:
        raise BinanceRefusal(-1122, "Invalid symbolStatus.")
    if "permissions" in query and not _PERMISSIONS.fullmatch(query["permissions"]):
        raise invalid("permissions")
    permissions = frozenset(re.findall(r"\w+", query["permissions"])) if "permissions" in query else _USUAL
    is_kept = permissions == _USUAL or permissions <= _ALLOWED.keys()
    return InfoQuery(None, status, permissions, is_native or not is_kept)


class ExchangeInfoRoute:
    """Answers `exchangeInfo` of one market; the list of all is made once for each state of the directory."""

    def __init__(self, parts: FacadeParts, market: VenueMarket, passed: PassThrough, counts: FacadeCounts) -> None:
        self._parts = parts
        self._counts = counts
        self._market = market
        self._passed = passed
        self._provider = parts.providers.get(market.provider)
        self._heads = ResponseHeads()
        # All entries, of one state of the directory.
        self._state: object = None
        self._all = b""

    async def answer(self, request: web.Request, headers: HeadersNow) -> web.StreamResponse:
        """The instruments with their filters and all other fields. `headers` go with the answer."""
        asked = read_info_query(request.query, self._market)
        provider, directory, client = self._provider, self._parts.directory, self._parts.access.caller(request).client
        if provider is None:
            if asked.symbols is not None:
                raise bad_symbol(no_provider(self._market))
            entries = b""
        else:
            async with self._parts.timing.in_time():
                if not asked.symbols:
                    await directory.lists_settled(provider.name)
                for symbol in asked.symbols or ():
                    await directory.settled(provider.name, symbol, [client])
                    if directory.instrument(provider.name, symbol) is None:
                        raise bad_symbol()
                if asked.is_native:
                    path = f"{self._market.root}/exchangeInfo"
                    passed = await self._passed.ask(provider, path, dict(request.query), client)
            if asked.is_native:
                return await self._native(request, passed, headers)
            entries = await self._entries(provider, asked)
            self._counts.weight_asked += self._market.info_weight
        body = Body(
            [self._head(provider, is_micro=reading.wants_microseconds(request, self._market)), entries, b"]}"], JSON
        )
        return await body.answer(request, self._heads, headers())

    def _head(self, provider: Provider | None, *, is_micro: bool) -> bytes:
        budgets = () if provider is None else provider.budgets()
        head = {
            "timezone": "UTC",
            "serverTime": now_ms(provider) * (1000 if is_micro else 1),
            "rateLimits": [
                {"rateLimitType": "REQUEST_WEIGHT", "interval": "MINUTE", "intervalNum": 1, "limit": budget.limit}
                for budget in budgets[:1]
            ],
            "exchangeFilters": [],
            **dict(self._market.info_head),
        }
        return orjson.dumps(head)[:-1] + b',"symbols":['

    async def _entries(self, provider: Provider, asked: InfoQuery) -> bytes:
        """Return the entries that are asked for, joined by commas. Raises `BinanceRefusal` for a symbol without one."""
        directory, info = self._parts.directory, provider.info
        if asked.symbols is not None:
            found = [directory.instrument(provider.name, symbol) for symbol in asked.symbols]
            for one in found:
                if one is not None and one.extras is None and (why := why_no_texts(provider, one)):
                    raise unsupported(why)
                if one is None or one.extras is None:
                    raise bad_symbol("this recording does not have it" if info.is_recorded else "")
            return _joined([one for one in found if one is not None], asked)
        instruments = directory.of_provider(provider.name)
        if (
            instruments
            and (why := why_no_texts(provider, instruments[0]))
            and not any(one.extras for one in instruments)
        ):
            raise unsupported(why)
        if asked != InfoQuery():
            return await in_thread_if_many(len(instruments), _joined, instruments, asked)
        state = (directory.version, directory.lists_taken)
        if self._state != state:
            self._all = await in_thread_if_many(len(instruments), _joined, instruments, asked)
            self._state = state
        return self._all

    async def _native(self, request: web.Request, passed: PassedAnswer, headers: HeadersNow) -> web.StreamResponse:
        """Answer as the exchange itself chose, by what the relay does not keep, the permission sets."""
        answer, body = passed
        if answer.status != 200:
            return web.Response(status=answer.status, body=answer.body, headers={"Content-Type": JSON, **headers()})
        if reading.wants_microseconds(request, self._market):
            body = Body([await in_thread(in_microseconds, answer.body)], JSON)
        return await body.answer(request, self._heads, headers())


def _joined(instruments: Iterable[Instrument], asked: InfoQuery) -> bytes:
    packed = [one.extras for one in instruments if isinstance(one.extras, PackedExtras)]
    texts = [text[len(_BEGIN) : -1] for text in each_json(packed) if text.startswith(_BEGIN)]
    if asked.status is not None or asked.permissions != _USUAL:
        texts = [text for text in texts if _is_chosen(orjson.loads(text), asked)]
    return b",".join(texts)


def _is_chosen(entry: Mapping[str, Any], asked: InfoQuery) -> bool:
    if asked.status is not None and entry.get("status") != asked.status:
        return False
    return asked.permissions == _USUAL or any(
        entry.get(_ALLOWED[name]) is True for name in asked.permissions if name in _ALLOWED
    )
