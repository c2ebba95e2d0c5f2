"""Another relay: who it is as a provider, and its hooks; codec, candles and instruments are in modules of their own.

What it does as a client is what the README says of the WebSocket and of HTTP.
"""

import asyncio
import os
import time
from collections import defaultdict
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from email.utils import parsedate_to_datetime
from typing import Any

import aiohttp

from providers.relay.candles import LATE_S, believed
from providers.relay.codec import RelayCodec, Resumes
from providers.relay.instruments import Calendars, read_instrument
from relay import (
    LIST_BOUNDS,
    PAGE_BOUNDS,
    AuthenticationFailed,
    BadAnswer,
    Bounds,
    Candle,
    Hosts,
    Instrument,
    OpenHours,
    PriceUpdate,
    ProviderError,
    ProviderInfo,
    ProviderUnavailable,
    RestAnswer,
    Setting,
    TradingCalendar,
    UnknownSymbol,
    Watchlist,
    ask_rest,
    hookimpl,
    websocket_feed,
)

Settings = Mapping[str, Any]

INTERVALS = ("1s", "1m", "3m", "5m", "15m", "30m", "1h", "2h", "4h", "6h", "8h", "12h", "1d", "3d", "1w", "1M")
"""All that a relay may have; its list says which of them a symbol has."""
_ROUTES = "/api/v1/market-data/"
_AT_A_TIME = 1000
"""Our choice: so many instruments are read in a turn of the event loop."""
_NO_STREAM = {"unknown_symbol", "unsupported_interval", "unknown_interval"}
"""README.md, "WebSocket", lists the codes of errors."""

LOOP = (
    "this relay is its own upstream: the relay that it asks gets its candles from here, directly or through others; "
    "take one of them out of the setting urls, and restart"
)


def _info(asset_classes: tuple[str, ...], attribution: str, streams: int) -> ProviderInfo:
    return ProviderInfo(
        name="relay",
        api=(2, 1),
        title="Another relay",
        asset_classes=asset_classes,
        intervals=INTERVALS,
        attribution=attribution,
        settings=(
            Setting("urls", "urls", None, "Addresses of relays that serve the same, tried in turn"),
            Setting("token", "secret", None, "Token, if they need one; the same for all"),
            Setting("asset_classes", "list", ("crypto", "forex"), "Asset classes of the instruments to take over"),
            Setting("attribution", "text", "", "The text that the providers of the other relay require"),
            Setting(
                "streams_per_connection",
                "int",
                200,
                "How many streams one connection has: max_streams_per_client of the other relay",
                least=1,
                most=100_000,
            ),
        ),
        needs_key="urls",
        # A relay closes a client that has more (`max_streams_per_client`).
        streams_per_feed=streams,
        # Our choice: the other relay has a candle some time after its provider, which may be slow itself.
        close_grace_s=LATE_S,
        # README.md, "HTTP": 1 to 5,000 candles.
        candles_per_call=5000,
        # A relay ends its history with the open candle, and says so.
        history_has_open=True,
        candle_extras=("quote_volume", "trades", "taker_volume", "taker_quote_volume"),
    )


class RelayProvider:
    """The plugin; one instance for each table that uses it."""

    def __init__(self) -> None:
        self._id = os.urandom(8).hex()
        self._behind: tuple[str, ...] = ()
        self._is_looped = False
        self._hosts: dict[tuple[str, ...], Hosts] = {}
        self._resumes: dict[str, Resumes] = defaultdict(Resumes)
        self._calendars = Calendars()

    @hookimpl
    def relay_provider(self, settings: Settings) -> ProviderInfo:
        """Say what is taken over, and how much of it at once."""
        return _info(
            settings["asset_classes"] or ("crypto", "forex"),
            settings["attribution"] or "",
            settings["streams_per_connection"] or 200,
        )

    @hookimpl
    def relay_origins(self) -> Sequence[str]:
        """Return the mark of this instance, and the marks of those that the other relay gets its candles through."""
        return (self._id, *self._behind)

    @hookimpl
    async def relay_stream(
        self, watchlist: Watchlist, session: aiohttp.ClientSession, settings: Settings
    ) -> AsyncGenerator[PriceUpdate, None]:
        """Carry all streams of the watchlist on one connection; the next feed begins at the next address."""
        await self._check_loop(session, settings)
        hosts = self._hosts_of(settings)
        used = hosts.current
        call_later = asyncio.get_running_loop().call_later
        codec = RelayCodec(hosts, settings["token"], self._resumes, watchlist, call_later)
        try:
            async with aclosing(websocket_feed(session, codec, watchlist)) as updates:
                async for update in updates:
                    yield update
                    codec.report_again(update.key)
        except ProviderError:
            hosts.failed(used)
            raise
        finally:
            codec.close()
        hosts.failed(used)

    @hookimpl
    async def relay_candles(
        self,
        symbol: str,
        interval: str,
        start: int | None,
        end: int,
        limit: int,
        session: aiohttp.ClientSession,
        settings: Settings,
    ) -> Sequence[Candle]:
        """Ask for history, which the other relay has stored or asks for itself."""
        self._refuse_loop()
        if end <= (start or 0) or (start is not None and start > time.time() + 60):
            return []
        asked: dict[str, str | int] = {"symbol": symbol, "interval": interval, "limit": limit, "extended": "true"}
        if start is not None:
            asked["start_time"] = start
        answer = await self._ask("history", asked, PAGE_BOUNDS, session, settings, end_time=end - 1)
        try:
            return believed(answer.body, start, end, _moment_of(answer), self._calendars.of(symbol))
        except (LookupError, TypeError, ValueError, AttributeError) as fault:
            raise BadAnswer("the history of the other relay cannot be read", detail=repr(fault)) from None

    @hookimpl
    async def relay_instruments(self, session: aiohttp.ClientSession, settings: Settings) -> Sequence[Instrument]:
        """List what the other relay lists, of the asset classes that are taken over."""
        await self._check_loop(session, settings)
        answer = await self._ask("instruments", {}, LIST_BOUNDS, session, settings)
        found = []
        try:
            for number, wire in enumerate(answer.body, 1):
                if wire["asset_class"] in settings["asset_classes"]:
                    found.append(read_instrument(wire))
                    self._calendars.learn(found[-1].symbol, found[-1].session)
                if not number % _AT_A_TIME:
                    await asyncio.sleep(0)
        except (LookupError, TypeError, AttributeError) as fault:
            raise BadAnswer("the instruments of the other relay cannot be read", detail=repr(fault)) from None
        return found

    @hookimpl
    def relay_hours(self, symbol: str) -> TradingCalendar | OpenHours | None:
        """Return when a symbol is traded, by the session that the other relay says."""
        return self._calendars.of(symbol)

    def _hosts_of(self, settings: Settings) -> Hosts:
        """Return which of these addresses works; settings may change while the relay runs."""
        urls = tuple(url.rstrip("/") for url in settings["urls"])
        return self._hosts.setdefault(urls, Hosts(urls))

    async def _check_loop(self, session: aiohttp.ClientSession, settings: Settings) -> None:
        """Find out through which relays the candles come. Raises `AuthenticationFailed` if this one is among them."""
        answer = await self._ask("status", {}, PAGE_BOUNDS, session, settings)
        marks = answer.body.get("origins") if isinstance(answer.body, dict) else None
        if not isinstance(marks, list):
            marks = []
        self._behind = tuple(mark for mark in marks if isinstance(mark, str) and mark != self._id)
        self._is_looped = self._id in marks
        self._refuse_loop()

    def _refuse_loop(self) -> None:
        if self._is_looped:
            # No attempt helps before somebody changes the configuration, as with a key that is refused.
            raise AuthenticationFailed(LOOP)

    async def _ask(
        self,
        route: str,
        asked: Mapping[str, str | int],
        bounds: Bounds,
        session: aiohttp.ClientSession,
        settings: Settings,
        **more: int,
    ) -> RestAnswer:
        """Return an answer that is none of refusal. Raises `ProviderError`."""
        token = settings["token"]
        headers = {} if token is None else {"Authorization": f"Bearer {token.reveal()}"}
        answer = await ask_rest(
            session,
            self._hosts_of(settings),
            _ROUTES + route,
            params={**asked, **more},
            headers=headers,
            bounds=bounds,
        )
        if answer.status == 200:
            return answer
        problem = answer.body if isinstance(answer.body, dict) else {}
        detail = str(problem.get("detail") or "")
        if problem.get("code") in _NO_STREAM:
            raise UnknownSymbol(detail or "the other relay does not have it")
        if answer.status == 404:
            raise ProviderUnavailable("there is no relay at this address", detail=detail)
        reason = "the other relay needs another token" if answer.status == 401 else "the other relay refused"
        raise answer.error(reason, detail=detail)


def _moment_of(answer: RestAnswer) -> float:
    """Return when an answer was given, by its own date."""
    try:
        return parsedate_to_datetime(answer.headers["Date"]).timestamp()
    except (LookupError, ValueError):
        return time.time()
