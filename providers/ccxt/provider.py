"""Exchanges of ccxt: who one is as a provider, and its hooks; what ccxt does is in `venue`, what it says beside it."""

from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any

import aiohttp

from providers.ccxt.capabilities import INTERVALS, MARKET_TYPES, Capabilities, capabilities_of
from providers.ccxt.failures import judged
from providers.ccxt.history import CandlePages
from providers.ccxt.library import exchange_class, fault_of_exchange
from providers.ccxt.live import watched
from providers.ccxt.markets import asset_classes_of, read_instrument
from providers.ccxt.options import fault_of_options
from providers.ccxt.polled import polled
from providers.ccxt.venue import Venue
from relay import (
    Candle,
    Instrument,
    PriceUpdate,
    ProviderInfo,
    ProviderUnavailable,
    Setting,
    Watchlist,
    hookimpl,
)

Settings = Mapping[str, Any]

_NOTHING_KNOWN = Capabilities("An exchange", INTERVALS, 1000, False, False, 1.0, MARKET_TYPES)
"""Before there are settings."""


def _fault_of_types(types: Any) -> str | None:
    wrong = [kind for kind in types if kind not in MARKET_TYPES]
    if wrong or not types:
        return f"has {', '.join(wrong) or 'nothing'}; types of markets are {', '.join(MARKET_TYPES)}"
    return None


SETTINGS = (
    Setting(
        "exchange", "text", None, "Name of an exchange in ccxt, such as kraken, bybit, okx", check=fault_of_exchange
    ),
    Setting(
        "market_types",
        "list",
        None,
        "Types of markets: spot, swap (perpetual), future; without it spot, or all if there is no spot",
        check=_fault_of_types,
    ),
    Setting(
        "options",
        "table",
        None,
        "What the class of the exchange takes in its constructor, beside keys",
        check=fault_of_options,
    ),
    Setting("sandbox", "bool", False, "Use the exchange's servers for tests, if it has some"),
    Setting("poll_seconds", "float", 5.0, "Shortest time between two polls of a stream", least=0.1, most=3600),
    Setting("batch", "int", 10, "How many streams one message subscribes to, where it can", least=1, most=200),
    Setting("messages_per_second", "float", 3.0, "Messages to an exchange's WebSocket", least=0.1, most=100),
    Setting("streams_per_connection", "int", 200, "How many streams one feed has", least=1, most=1000),
    Setting("api_key", "secret", None, "Key, for the few exchanges that give candles to accounts only"),
    Setting("api_secret", "secret", None, "Secret of the key"),
    Setting("api_password", "secret", None, "Password of the key"),
)


class CcxtProvider:
    """The plugin; one instance for each table that uses it."""

    def __init__(self) -> None:
        self._venues: dict[Settings, Venue] = {}

    def _venue(self, settings: Settings) -> Venue:
        if settings not in self._venues:
            self._venues[settings] = Venue(settings)
        return self._venues[settings]

    @hookimpl
    def relay_provider(self, settings: Settings) -> ProviderInfo:
        """Say what ccxt says of the exchange. Imports the exchange, once there is one."""
        exchange = settings["exchange"]
        known = _NOTHING_KNOWN if exchange is None else capabilities_of(exchange_class(exchange)())
        return ProviderInfo(
            name="ccxt",
            api=(2, 1),
            title=f"{known.name} (by ccxt, best effort)",
            attribution="" if exchange is None else f"Market data by {known.name}",
            asset_classes=asset_classes_of(known.types(settings["market_types"])),
            intervals=known.intervals,
            settings=SETTINGS,
            needs_key="exchange",
            streams_per_feed=settings["streams_per_connection"] or 200,
            # ccxt keeps the candles of one symbol at two intervals under one name for some exchanges, such as Kraken.
            one_interval_per_feed=True,
            candles_per_call=min(known.page, 5000),
            # Our choice: one request at a time comes through anyway, as far apart as the exchange wants.
            calls_at_once=2,
        )

    @hookimpl
    def relay_stream(
        self, watchlist: Watchlist, session: aiohttp.ClientSession, settings: Settings
    ) -> AsyncGenerator[PriceUpdate, None]:
        """Watch the streams where ccxt can do that with the exchange, else poll them."""
        venue = self._venue(settings)
        if venue.capabilities.is_live:
            return watched(venue, watchlist, session, settings["batch"])
        return polled(venue, watchlist, session, settings["poll_seconds"])

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
        """Ask for history, in pages as long as the exchange gives them."""
        venue = self._venue(settings)

        async def ask(interval: str, since: int, count: int) -> list[Candle]:
            return await venue.rows(session, symbol, interval, since, count)

        pager = CandlePages(ask, interval, venue.capabilities.page, venue.capabilities.intervals)
        if start is None:
            return await pager.last(end, limit)
        return await pager.first(start, end, limit)

    @hookimpl
    async def relay_instruments(self, session: aiohttp.ClientSession, settings: Settings) -> Sequence[Instrument]:
        """List the markets of the wanted types."""
        venue = self._venue(settings)
        client = await venue.ready(session, reload=True)
        with judged(venue.kinds, "its markets"):
            found = [read_instrument(market, client.precisionMode) for market in client.markets.values()]
        if not found:
            # Else nobody would learn why: a list without any entry counts as missing.
            known = venue.capabilities
            raise ProviderUnavailable(
                f"{known.name} lists no markets of the types {', '.join(venue.market_types)} (market_types); "
                f"ccxt says that it has {', '.join(known.market_types) or 'none'}"
            )
        return found

    @hookimpl
    async def relay_close(self, settings: Settings) -> None:
        """Close the client of these settings."""
        venue = self._venues.pop(settings, None)
        if venue is not None:
            await venue.close()
