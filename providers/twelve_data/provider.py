"""Twelve Data: who it is, and its hooks; calls, credits, polls and pages are in modules of their own.

What the provider documents is at https://twelvedata.com/docs, in its OpenAPI file (https://github.com/twelvedata/mcp,
`extra/openapi_clean.json`) and in the articles at https://support.twelvedata.com; modules name which. What is called
recorded was seen in its answers.
"""

from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from typing import Any

import aiohttp

from providers.twelve_data.account import Account
from providers.twelve_data.answers import INTERVALS, PAGE, KeyRefused, SeriesAnswer, contradiction, read_series, refusal
from providers.twelve_data.credits import CreditUse
from providers.twelve_data.forex import ALWAYS, Hours, hours_of, known_pairs
from providers.twelve_data.history import BarPages, KeptPages
from providers.twelve_data.polled import PolledStream
from providers.twelve_data.polling import SeriesPolls
from providers.twelve_data.tick_feed import TickFeed
from providers.twelve_data.waits import WAITS, Waits
from relay import (
    AuthenticationFailed,
    BadAnswer,
    Budget,
    Candle,
    Clock,
    Hosts,
    Instrument,
    Memory,
    PriceUpdate,
    ProviderClock,
    ProviderInfo,
    Secret,
    Setting,
    StreamKey,
    TradingCalendar,
    Watchlist,
    hookimpl,
    next_open,
)

_LONGEST_NAME = 80
"""Our own bound, in characters: recorded names of currencies have up to 30."""
_MOST_PAIRS = 20_000
"""Our own bound: there were some 1,500 in the list that was recorded."""
_INFO = ProviderInfo(
    name="twelve_data",
    api=(2, 1),
    title="Twelve Data",
    asset_classes=("forex",),
    intervals=tuple(INTERVALS),
    attribution="Market data by Twelve Data (https://twelvedata.com)",
    settings=(
        Setting(
            "api_key",
            help="The API key of your Twelve Data account",
            is_secret=True,
            environment=("TWELVE_DATA_API_KEY",),
        ),
        Setting("rest_url", "urls", ("https://api.twelvedata.com",), "Addresses of the REST servers, tried in turn"),
        Setting("ws_url", "urls", ("wss://ws.twelvedata.com/v1/quotes/price",), "Addresses of the tick stream"),
        Setting(
            "mode",
            "choice",
            "poll",
            "poll: requests candles; stream: builds them from ticks, if your plan has them, and confirms them by polls",
            choices=("poll", "stream"),
        ),
        Setting("poll_seconds", "int", 30, "The shortest time between two polls of a stream", least=1, may_differ=True),
        Setting(
            "market_hours",
            "choice",
            "forex",
            "forex: no polls while the market is closed; always: polls at all times",
            choices=("forex", "always"),
        ),
        # The free plan: support article 5615854.
        Setting("credits_per_minute", "int", 8, "API credits that your plan has per minute", least=1, may_differ=True),
        Setting(
            "credits_per_day",
            "int",
            800,
            "API credits that your plan has per day; 0: no daily limit",
            least=0,
            may_differ=True,
        ),
    ),
    needs_key="api_key",
    # Our choice: `SETTLE_S`, and time for the poll.
    close_grace_s=75.0,
    fresh_s=30.0,
    instruments_ttl_s=86_400.0,
    # Recorded: the bar that still forms is in the list, first, with nothing to tell it apart.
    history_has_open=True,
    # A call costs one credit a symbol whatever its size (support article 5615854). How many is our choice.
    candles_back=3,
    always_listed=("EUR/USD", "GBP/USD", "USD/JPY"),
    # Only pairs are made use of, and all of them are written so.
    symbol_form=r"[^/]+/[^/]+",
    # Our choice. Bars change after their close: most within minutes, some within hours.
    compare_after_s=(900.0, 14_400.0),
)


class TwelveDataProvider:
    """The plugin; one instance a relay, which holds the accounts and what was seen last of each stream.

    Credits belong to a key: with another one they begin anew, and with the same one they go on, whatever else of the
    settings changes while the relay runs. A feed and a call keep the account with which they began.
    """

    def __init__(self, clock: Clock | None = None, waits: Waits = WAITS) -> None:
        self.clock = clock or Clock()
        self._waits = waits
        self.server_clock = ProviderClock(self.clock)
        self._memory: Memory | None = None
        self._parts = 1
        self._accounts: dict[Secret, Account] = {}
        self._polled_with: Account | None = None
        self._ws: dict[tuple[str, ...], Hosts] = {}
        self._streams: dict[StreamKey, PolledStream] = {}
        self._kept = KeptPages(self.server_clock.now)
        self._earliest: dict[str, dict[str, int | None]] = {}
        # Codes of currencies by their names in answers.
        self._currencies: dict[str, str] = {}

    @hookimpl
    def relay_provider(self) -> ProviderInfo:
        """Say who this is."""
        return _INFO

    @hookimpl
    def relay_memory(self, memory: Memory) -> None:
        """Take the place for what was spent; another relay with the same key may have spent it."""
        self._memory = memory
        for account in self._accounts.values():
            account.recall(memory)

    @hookimpl
    def relay_share(self, parts: int) -> None:
        """Spend one of so many parts of each key's credits: others spend them too and cannot be asked."""
        self._parts = parts
        for account in self._accounts.values():
            account.credits.divide(parts)

    @hookimpl
    def relay_stream(
        self, watchlist: Watchlist, session: aiohttp.ClientSession, settings: Mapping[str, Any]
    ) -> AsyncGenerator[PriceUpdate, None]:
        """Poll the streams of the watchlist, or listen to their ticks too."""
        if settings["mode"] == "stream":
            return self.ticks(watchlist, session, settings).updates()
        return self.polls(watchlist, session, settings).updates()

    def ticks(self, watchlist: Watchlist, session: aiohttp.ClientSession, settings: Mapping[str, Any]) -> TickFeed:
        """Return a feed that listens to ticks and polls, not yet running."""
        key = settings["api_key"]
        if not isinstance(key, Secret) or not key:
            raise AuthenticationFailed("the API key is not set")
        urls = settings["ws_url"]
        return TickFeed(
            watchlist,
            session,
            lambda polled: self.polls(polled, session, settings),
            self._streams,
            self._ws.setdefault(urls, Hosts(urls)),
            key,
            hours=lambda symbol: _hours(symbol, settings),
            monotonic=self.clock.monotonic,
            now=self.server_clock.now,
            waits=self._waits,
        )

    def polls(self, watchlist: Watchlist, session: aiohttp.ClientSession, settings: Mapping[str, Any]) -> SeriesPolls:
        """Return the polling loop of one feed, not yet running."""

        account = self.account(settings)
        if self._polled_with not in (None, account):
            for stream in self._streams.values():
                stream.ask_at_once()
        self._polled_with = account

        async def ask(symbols: Sequence[str], interval: str, rows: int) -> Mapping[str, SeriesAnswer | KeyRefused]:
            return await self.newest(symbols, interval, rows, account, session, settings)

        return SeriesPolls(
            watchlist,
            self._streams,
            ask,
            account.credits,
            poll_s=settings["poll_seconds"],
            hours=lambda symbol: _hours(symbol, settings),
            monotonic=self.clock.monotonic,
            now=self.server_clock.now,
            is_answered=account.is_answering,
            waits=self._waits,
        )

    @hookimpl
    async def relay_candles(
        self,
        symbol: str,
        interval: str,
        start: int | None,
        end: int,
        limit: int,
        session: aiohttp.ClientSession,
        settings: Mapping[str, Any],
    ) -> Sequence[Candle]:
        """Fetch candles; every page of 5000 costs a credit."""
        if limit < 1 or (start is not None and start >= end):
            return []

        account = self.account(settings)

        async def ask(path: str, params: Mapping[str, str | int]) -> object:
            return await account.ask(path, params, 1, session, CreditUse.HISTORY)

        end = min(end, int(self.server_clock.reach()) + next_open(interval, 0))
        earliest = self._earliest.setdefault(symbol, {})
        hours, now = _hours(symbol, settings), self.server_clock.now
        pages = BarPages(symbol, interval, hours, ask, self._kept, earliest, self._currencies, now=now)
        return await pages.candles(start, end, limit)

    @hookimpl
    async def relay_instruments(
        self, session: aiohttp.ClientSession, settings: Mapping[str, Any]
    ) -> Sequence[Instrument]:
        """List the provider's forex pairs with names, and metals; without a key, the well-known ones without names."""
        known = {symbol: _instrument(symbol, None, settings) for symbol in known_pairs()}
        if not settings["api_key"]:
            return list(known.values())
        body = await self.account(settings).ask("/forex_pairs", {}, 1, session, CreditUse.HISTORY)
        if isinstance(body, KeyRefused):
            raise body.error()
        data = body.get("data") if isinstance(body, dict) else None
        entries = data if isinstance(data, list) else []
        if len(entries) > _MOST_PAIRS:
            raise BadAnswer(f"forex_pairs: the list has {len(entries):,} pairs, more than the limit of {_MOST_PAIRS:,}")
        named = [pair for pair in entries if isinstance(pair, dict) and isinstance(pair.get("symbol"), str)]
        if not named:
            raise BadAnswer("forex_pairs: the list has no pairs")
        self._currencies = _currency_codes(named)
        pairs = {pair["symbol"].upper(): pair for pair in named if pair["symbol"].count("/") == 1}
        listed = {symbol: _instrument(symbol, _name_of(pair), settings) for symbol, pair in pairs.items()}
        metals = {symbol: known[symbol] for symbol in ("XAU/USD", "XAG/USD")}
        return list((metals | listed).values())

    @hookimpl
    def relay_hours(self, symbol: str, settings: Mapping[str, Any]) -> TradingCalendar:
        """Say when a symbol is traded: the provider fills closed hours with candles that mean nothing."""
        return _hours(symbol, settings).calendar

    @hookimpl
    def relay_budgets(self, settings: Mapping[str, Any]) -> Sequence[Budget]:
        """Say how much of the plan's credits is used."""
        return self.account(settings).credits.budgets() if settings["api_key"] else ()

    def account(self, settings: Mapping[str, Any]) -> Account:
        """Return the account of the settings' key, which all calls share."""
        key = settings["api_key"] or Secret("")
        account = self._accounts.get(key)
        if account is None:
            # What an earlier run left is for its key; `Account` looks at whose it is.
            settings = {**settings, "api_key": key}
            account = self._accounts[key] = Account(
                settings, self.clock, self.server_clock, self._memory, timeout_s=self._waits.answer_s
            )
            account.credits.divide(self._parts)
        else:
            account.follow(settings)
        return account

    async def newest(
        self,
        symbols: Sequence[str],
        interval: str,
        rows: int,
        account: Account,
        session: aiohttp.ClientSession,
        settings: Mapping[str, Any],
    ) -> Mapping[str, SeriesAnswer | KeyRefused]:
        """Ask for the newest candles of some symbols at once; what failed for one symbol is its own answer."""
        params: dict[str, str | int] = {
            "symbol": ",".join(symbols),
            "interval": INTERVALS[interval],
            "outputsize": min(rows, PAGE),
        }
        body = await account.ask("/time_series", params, len(symbols), session, CreditUse.POLL)
        if isinstance(body, KeyRefused):
            return dict.fromkeys(symbols, body)
        # With one symbol there is no outer object.
        entries = body if len(symbols) > 1 and isinstance(body, dict) else {symbols[0]: body}
        series: dict[str, SeriesAnswer | KeyRefused] = {}
        for symbol in symbols:
            entry = entries.get(symbol)
            refused = refusal(entry, 200, settings["api_key"])
            if refused is not None and refused.is_empty:
                wrong = contradiction(entry, symbol, INTERVALS[interval])
                refused = KeyRefused(0, wrong) if wrong is not None else refused
            series[symbol] = refused or read_series(
                entry, interval, _hours(symbol, settings), symbol, self._currencies, now=self.server_clock.now()
            )
        return series


def _hours(symbol: str, settings: Mapping[str, Any]) -> Hours:
    return hours_of(symbol) if settings["market_hours"] == "forex" else ALWAYS


def _currency_codes(pairs: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Return the code of each currency by its name in the list; a name that stands for two codes says nothing."""
    codes: dict[str, set[str]] = {}
    for pair in pairs:
        for code, field in zip(pair["symbol"].upper().split("/"), ("currency_base", "currency_quote"), strict=False):
            if isinstance(name := pair.get(field), str):
                codes.setdefault(name, set()).add(code)
    return {name: next(iter(found)) for name, found in codes.items() if len(found) == 1}


def _instrument(symbol: str, name: str | None, settings: Mapping[str, Any]) -> Instrument:
    base, _, quote = symbol.partition("/")
    return Instrument(symbol, "forex", base, quote, name=name, session=_hours(symbol, settings).calendar.text)


def _name_of(pair: Mapping[str, Any]) -> str | None:
    """Return a pair's name as `/quote` writes it (recorded): `Euro / US Dollar`; None if the list lacks a part."""
    names = pair.get("currency_base"), pair.get("currency_quote")
    if not all(
        isinstance(one, str) and one.strip() and one.isprintable() and len(one) <= _LONGEST_NAME for one in names
    ):
        return None
    return f"{names[0]} / {names[1]}"
