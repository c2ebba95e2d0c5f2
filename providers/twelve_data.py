"""Twelve Data: REST calls within the plan's credits, history, and what each stream's polls say."""

from collections.abc import AsyncGenerator, Mapping, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import aiohttp

from providers.credits import Credits
from providers.forex import (
    after_trading,
    before_trading,
    keeps_hours,
    known_pairs,
    last_close,
    session_at,
    without_padding,
)
from providers.polling import PolledStream, Polls, Refused, Series
from relay import (
    API_VERSION,
    AuthenticationFailed,
    BadAnswer,
    Budget,
    Candle,
    Clock,
    Hosts,
    Instrument,
    PriceUpdate,
    ProviderClock,
    ProviderInfo,
    Secret,
    Setting,
    StreamKey,
    Watchlist,
    ask_rest,
    hookimpl,
    next_open,
)

INTERVALS = {
    "1m": "1min", "5m": "5min", "15m": "15min", "30m": "30min", "1h": "1h", "2h": "2h", "4h": "4h", "8h": "8h",
    "1d": "1day", "1w": "1week", "1M": "1month",
}  # fmt: skip

_PAGE = 5000
# A window of so many candles, and one too many at its end, is never cut to the newest 5000.
_WINDOW = 4990
_GROWTH = 4

_INFO = ProviderInfo(
    name="twelve_data",
    api=API_VERSION,
    title="Twelve Data",
    asset_classes=("forex",),
    intervals=tuple(INTERVALS),
    attribution="Market data by Twelve Data (https://twelvedata.com)",
    settings=(
        Setting("api_key", help="The key of your account", is_secret=True, environment=("TWELVE_DATA_API_KEY",)),
        Setting("rest_url", "urls", ("https://api.twelvedata.com",), "Addresses of the REST servers, tried in turn"),
        Setting("ws_url", "urls", ("wss://ws.twelvedata.com/v1/quotes/price",), "Addresses of the tick stream"),
        # `stream` (candles from ticks) is refused until it is built.
        Setting("mode", "choice", "poll", "How prices are fetched", choices=("poll",)),
        Setting("poll_seconds", "int", 30, "The shortest time between two polls of a stream", least=1),
        Setting(
            "market_hours",
            "choice",
            "forex",
            "forex: nothing is polled while the market is closed; always: polls at all times",
            choices=("forex", "always"),
        ),
        Setting("credits_per_minute", "int", 8, "What your plan allows in a minute", least=1),
        Setting("credits_per_day", "int", 800, "What your plan allows in a day", least=1),
    ),
    needs_key="api_key",
    close_grace_s=75.0,
    fresh_s=30.0,
    instruments_ttl_s=86_400.0,
)


class TwelveDataProvider:
    """The plugin; one instance a relay, which holds the credits and what was seen last of each stream."""

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock = clock or Clock()
        self._server_clock = ProviderClock(self._clock)
        self._credits: Credits | None = None
        self._hosts: Hosts | None = None
        self._streams: dict[StreamKey, PolledStream] = {}
        self._earliest: dict[tuple[str, str], int | None] = {}

    @hookimpl
    def relay_provider(self) -> ProviderInfo:
        """Say who this is."""
        return _INFO

    @hookimpl
    def relay_stream(
        self, watchlist: Watchlist, session: aiohttp.ClientSession, settings: Mapping[str, Any]
    ) -> AsyncGenerator[PriceUpdate, None]:
        """Poll the streams of the watchlist."""
        return self.polls(watchlist, session, settings).updates()

    def polls(self, watchlist: Watchlist, session: aiohttp.ClientSession, settings: Mapping[str, Any]) -> Polls:
        """Return the polling loop of one feed, not yet running."""

        async def ask(symbols: Sequence[str], interval: str, rows: int) -> Mapping[str, Series | Refused]:
            return await self._poll(symbols, interval, rows, session, settings)

        return Polls(
            watchlist,
            self._streams,
            ask,
            self._credits_of(settings),
            poll_s=settings["poll_seconds"],
            reserve=_poll_reserve(settings),
            keeps_hours=keeps_hours if settings["market_hours"] == "forex" else _never,
            monotonic=self._clock.monotonic,
            now=self._server_clock.now,
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
        history = _History(self, symbol, interval, session, settings)
        end = min(end, int(self._server_clock.now()) + next_open(interval, 0))
        if start is None:
            return await history.newest(end, limit)
        return await history.first(max(0, start), end, limit)

    @hookimpl
    async def relay_instruments(
        self, session: aiohttp.ClientSession, settings: Mapping[str, Any]
    ) -> Sequence[Instrument]:
        """List the provider's forex pairs, and metals; without a key, the well-known ones."""
        known = {symbol: _instrument(symbol) for symbol in known_pairs()}
        if not settings["api_key"]:
            return list(known.values())
        body = await self.ask("/forex_pairs", {}, 1, session, settings)
        if isinstance(body, Refused):
            raise body.error()
        try:
            symbols = [str(pair["symbol"]).upper() for pair in body["data"]]
        except (LookupError, TypeError) as error:
            raise BadAnswer(f"forex_pairs: {type(error).__name__}: {error}") from error
        listed = {symbol: _instrument(symbol) for symbol in symbols if symbol.count("/") == 1}
        metals = {symbol: known[symbol] for symbol in ("XAU/USD", "XAG/USD")}
        return list((metals | listed).values())

    @hookimpl
    def relay_budgets(self, settings: Mapping[str, Any]) -> Sequence[Budget]:
        """Say how much of the plan's credits is used."""
        return self._credits_of(settings).budgets() if settings["api_key"] else ()

    def _credits_of(self, settings: Mapping[str, Any]) -> Credits:
        if self._credits is None:
            self._credits = Credits(
                settings["credits_per_minute"],
                settings["credits_per_day"],
                wall=self._server_clock.now,
                monotonic=self._clock.monotonic,
            )
        return self._credits

    async def ask(
        self,
        path: str,
        params: Mapping[str, str | int],
        cost: int,
        session: aiohttp.ClientSession,
        settings: Mapping[str, Any],
        reserve: int = 0,
    ) -> Any | Refused:
        """Ask within the credits, and take what the answer says about credits and time.

        Returns the body, or the refusal of this request; raises the errors of the key, the credits and the server.
        """
        key = settings["api_key"]
        if not isinstance(key, Secret) or not key:
            raise AuthenticationFailed("there is no key")
        if self._hosts is None:
            self._hosts = Hosts(settings["rest_url"])
        limits = self._credits_of(settings)
        spent = limits.take(cost, reserve)
        used = left = None
        try:
            # One host a call: each request may cost its credits.
            answer = await ask_rest(
                session,
                self._hosts,
                path,
                params={"timezone": "UTC", **params},
                headers={"Authorization": f"apikey {key.reveal()}"},
                tries=1,
            )
            used = _number(answer.headers.get("api-credits-used"))
            left = _number(answer.headers.get("api-credits-left"))
        finally:
            limits.settle(spent, used, left)
        self._learn_time(answer.headers.get("Date"))
        refused = refusal(answer.body, answer.status, key)
        if refused is None:
            return answer.body
        if refused.code == 429:
            if "for the day" in refused.message:
                limits.exhaust_day()
            else:
                limits.exhaust_minute()
            raise limits.shortage(cost, reserve)
        if refused.code == 401 or refused.code >= 500:
            raise refused.error()
        return refused

    def _learn_time(self, date: str | None) -> None:
        if date is None:
            return
        try:
            self._server_clock.observe(parsedate_to_datetime(date).timestamp())
        except (ValueError, OverflowError):
            return

    async def _poll(
        self,
        symbols: Sequence[str],
        interval: str,
        rows: int,
        session: aiohttp.ClientSession,
        settings: Mapping[str, Any],
    ) -> Mapping[str, Series | Refused]:
        """Ask for the newest candles of some symbols at once; what failed for one symbol is its own answer."""
        params: dict[str, str | int] = {
            "symbol": ",".join(symbols),
            "interval": INTERVALS[interval],
            "outputsize": min(rows, _PAGE),
        }
        reserve = _poll_reserve(settings)
        body = await self.ask("/time_series", params, len(symbols), session, settings, reserve=reserve)
        if isinstance(body, Refused):
            return dict.fromkeys(symbols, body)
        # With one symbol there is no outer object.
        entries = body if len(symbols) > 1 and isinstance(body, dict) else {symbols[0]: body}
        series: dict[str, Series | Refused] = {}
        for symbol in symbols:
            entry = entries.get(symbol)
            refused = refusal(entry, 200, settings["api_key"])
            series[symbol] = refused or read_series(entry, symbol, interval, settings)
        return series

    async def page(
        self,
        symbol: str,
        interval: str,
        dates: Mapping[str, int],
        size: int,
        session: aiohttp.ClientSession,
        settings: Mapping[str, Any],
    ) -> Series:
        """Ask for one page of history; an empty range is an error there, and no rows here."""
        params: dict[str, str | int] = {"symbol": symbol, "interval": INTERVALS[interval], "outputsize": size}
        params |= {name: _date(moment) for name, moment in dates.items()}
        body = await self.ask("/time_series", params, 1, session, settings)
        series = body if isinstance(body, Refused) else read_series(body, symbol, interval, settings)
        if isinstance(series, Series):
            return series
        if series.is_empty:
            return Series(0, 0, 0, [])
        raise series.error()

    async def earliest(
        self, symbol: str, interval: str, session: aiohttp.ClientSession, settings: Mapping[str, Any]
    ) -> int | None:
        """Ask once when the first candle opened, None if the provider does not say."""
        key = (symbol, interval)
        if key not in self._earliest:
            params = {"symbol": symbol, "interval": INTERVALS[interval]}
            body = await self.ask("/earliest_timestamp", params, 1, session, settings)
            stamp = body.get("unix_time") if isinstance(body, dict) else None
            self._earliest[key] = stamp if type(stamp) is int else None
        return self._earliest[key]


class _History:
    """Pages of one request for history: the provider gives the newest N of a range, whatever is asked first."""

    def __init__(
        self,
        provider: TwelveDataProvider,
        symbol: str,
        interval: str,
        session: aiohttp.ClientSession,
        settings: Mapping[str, Any],
    ) -> None:
        self._provider = provider
        self._symbol = symbol
        self._interval = interval
        self._session = session
        self._settings = settings
        self._length = next_open(interval, 0)
        self._keeps_hours = settings["market_hours"] == "forex" and keeps_hours(symbol)

    async def _page(self, dates: Mapping[str, int], size: int) -> Series:
        return await self._provider.page(self._symbol, self._interval, dates, size, self._session, self._settings)

    async def newest(self, end: int, limit: int) -> list[Candle]:
        """Return the last candles before `end`: page backwards."""
        found: list[Candle] = []
        while len(found) < limit and end > 0:
            left = limit - len(found)
            since = end - left * self._length
            if self._keeps_hours:
                # Padded candles fill pages without being wanted: do not ask for those at the end, allow for others.
                if end + self._length <= session_at(end)[0]:
                    end = last_close(end)
                since = before_trading(end, left * self._length)
            size = min(_PAGE, (end - since) // self._length + 3)
            # One candle too many, since whether the end date is included depends on the interval.
            page = await self._page({"end_date": end + self._length}, size)
            found = [candle for candle in page.candles if candle.time < end] + found
            if page.rows < size or page.oldest >= end:
                break
            end = page.oldest
        return found[-limit:]

    async def first(self, start: int, end: int, limit: int) -> list[Candle]:
        """Return the first candles from `start`: windows small enough not to be cut, growing while they are empty."""
        found: list[Candle] = []
        ceiling = _WINDOW
        if (end - start) // self._length > _WINDOW:
            earliest = await self._provider.earliest(self._symbol, self._interval, self._session, self._settings)
            if earliest is None:
                ceiling = (end - start) // self._length + 1
            else:
                start = max(start, earliest - self._length)
        least = 0
        while start < end and len(found) < limit:
            left = limit - len(found)
            length = min(max(left + left // 10 + 5, least), ceiling) * self._length
            until = start + length
            if self._keeps_hours:
                start = max(start, session_at(start)[0] - self._length + 1)
                until = min(after_trading(start, length), start + ceiling * self._length)
            until = min(end, until)
            if start >= until:
                break
            page = await self._page({"start_date": start, "end_date": until + self._length}, _PAGE)
            if page.rows >= _PAGE and until - start > _WINDOW * self._length:
                # The oldest were cut off: look at less of it.
                ceiling = max(_WINDOW, (until - start) // self._length // _GROWTH)
                continue
            found += [candle for candle in page.candles if start <= candle.time < until]
            least = 0 if page.candles else max(_WINDOW, least * _GROWTH)
            start = until
        return found[:limit]


def _never(_: str) -> bool:
    return False


def _poll_reserve(settings: Mapping[str, Any]) -> int:
    """Return how many of a minute's credits polls leave to history, which a busy watchlist would starve."""
    return int(settings["credits_per_minute"]) // 4


def _instrument(symbol: str) -> Instrument:
    base, _, quote = symbol.partition("/")
    return Instrument(symbol, "forex", base, quote)


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and text.isascii() and text.isdigit() and len(text) < 10 else None


def _date(moment: int) -> str:
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%d %H:%M:%S")


def refusal(body: object, status: int, key: Secret) -> Refused | None:
    """Find the error in an answer: it may come with any HTTP status, 200 too. The key is struck out of its words."""
    content = body if isinstance(body, dict) else {}
    code = content.get("code")
    if status < 400 and content.get("status") != "error" and not (type(code) is int and code >= 400):
        return None
    if type(code) is not int:
        code = status if status >= 400 else 500
    message = content.get("message")
    return Refused(code, message.replace(key.reveal(), "***")[:200] if isinstance(message, str) else "")


def read_series(body: object, symbol: str, interval: str, settings: Mapping[str, Any]) -> Series | Refused:
    """Read one symbol's candles, oldest first, each open time once, widened where a bar contradicts itself."""
    values = body.get("values") if isinstance(body, dict) else None
    if not isinstance(values, list):
        return Refused(0, "the answer holds no values")
    candles: dict[int, Candle] = {}
    oldest = 0
    spoilt = 0
    for row in values:
        try:
            candle = _candle(row, interval)
        except (ValueError, TypeError, LookupError, ArithmeticError):
            spoilt += 1
            continue
        # Newest first: what comes later of the same open time is older.
        candles.setdefault(candle.time, candle)
    ordered = [candles[moment] for moment in sorted(candles)]
    if ordered:
        oldest = ordered[0].time
    if settings["market_hours"] == "forex" and keeps_hours(symbol):
        ordered = without_padding(ordered, interval)
    return Series(len(values), oldest, spoilt, ordered)


def _candle(row: Any, interval: str) -> Candle:
    at = datetime.fromisoformat(row["datetime"]).replace(tzinfo=UTC)
    opened, high, low, close = float(row["open"]), float(row["high"]), float(row["low"]), float(row["close"])
    candle = Candle(
        int(at.timestamp()),
        opened,
        max(opened, high, low, close),
        min(opened, high, low, close),
        close,
        float(row.get("volume") or 0.0),
    )
    if (fault := candle.fault()) is not None:
        raise ValueError(fault)
    # Raises for a month that does not begin on a day which every month has.
    next_open(interval, candle.time)
    return candle
