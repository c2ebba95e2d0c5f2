"""Binance spot: the codec of its kline streams, its REST calls, and the weight they may use. No key is needed.

What the venue documents is named by its page in https://github.com/binance/binance-spot-api-docs, as of 2026-07-21.
"""

import re
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from typing import Any

import aiohttp
import orjson

from relay import (
    API_VERSION,
    LIST_BOUNDS,
    PAGE_BOUNDS,
    Accepted,
    BadAnswer,
    Bounds,
    Budget,
    Candle,
    Closing,
    FeedCodec,
    Hosts,
    Instrument,
    PriceUpdate,
    ProviderError,
    ProviderInfo,
    RateLimited,
    Rejected,
    RestAnswer,
    Setting,
    StreamKey,
    UnknownSymbol,
    Watchlist,
    ask_rest,
    decimals,
    hookimpl,
    next_open,
    read_rows,
    websocket_feed,
)

INTERVALS = ("1s", "1m", "3m", "5m", "15m", "30m", "1h", "2h", "4h", "6h", "8h", "12h", "1d", "3d", "1w", "1M")
"""web-socket-streams.md, "Kline/Candlestick chart intervals"; rest-api.md has the same."""

_WS_URLS = ("wss://stream.binance.com:9443", "wss://data-stream.binance.vision")
"""web-socket-streams.md; the second one, for market data only, is in faqs/market_data_only.md."""
_REST_URLS = ("https://api.binance.com", "https://data-api.binance.vision")
"""rest-api.md; the second one, for public data only, is in faqs/market_data_only.md."""

_MESSAGE_BYTES = 4000
"""No page says how large a message may be; beyond some 4,090 bytes the server was measured to answer nothing
(https://github.com/binance/binance-connector-rust/issues/27, https://github.com/JKorf/Binance.Net/issues/884)."""
_KLINES_PAGE = 1000
"""rest-api.md, "Kline/Candlestick data": the largest `limit`. What a larger one does is not documented."""
_KLINES_WEIGHT = 2
"""rest-api.md, "Kline/Candlestick data"."""
_EXCHANGE_INFO_WEIGHT = 20
"""rest-api.md, "Exchange information"."""
_MOST_PAIRS = 20_000
"""Our own bound: there were 3,710 in the list that was recorded."""
_BAN_S = 120.0
"""rest-api.md, "IP Limits": bans last two minutes to three days; this is for an answer 418 that names no time."""
_INVALID_SYMBOL = -1121
"""errors.md, BAD_SYMBOL."""
_TOO_MANY = -1003
"""errors.md, TOO_MANY_REQUESTS."""
# Both texts are those of -1003 in errors.md.
_BANNED_UNTIL = re.compile(r"banned until (\d{13})")
_LIMIT_NOW = re.compile(r"limit is (\d{1,9}) request weight per (\d{1,4}) (SECOND|MINUTE|HOUR|DAY)")
_UNIT_S = {"SECOND": 1, "MINUTE": 60, "HOUR": 3600, "DAY": 86_400}
"""In seconds; enums.md, "Rate limit intervals", which has no hour."""
_PAUSE_S = 60.0
"""Our choice, after a refusal that names no time: the minute in which weights are counted."""
_MOST_PAUSE_S = 900.0
"""Our choice: refusals in a row double the pause up to this."""

_INFO = ProviderInfo(
    name="binance",
    api=API_VERSION,
    title="Binance",
    asset_classes=("crypto",),
    intervals=INTERVALS,
    attribution="Market data by Binance (https://www.binance.com)",
    settings=(
        Setting("ws_url", "urls", _WS_URLS, "Addresses of the stream servers, tried in turn"),
        Setting("rest_url", "urls", _REST_URLS, "Addresses of the REST servers, tried in turn"),
    ),
    # web-socket-streams.md, "Websocket Limits": 1024; the rest is room for streams on their way in and out.
    streams_per_feed=1000,
    # web-socket-streams.md, "General WSS information".
    feed_life_s=24 * 3600.0,
    # Our choice: closing events on record came 6 ms to 1.8 s after the close.
    close_grace_s=5.0,
    fresh_s=1.0,
    instruments_ttl_s=3600.0,
    candles_per_call=_KLINES_PAGE,
    calls_at_once=4,
    # Recorded klines of all intervals; only days by threes begin on a day of their pair.
    is_utc_grid=True,
    # A kline without trades has the last price and no volume; outages alone leave holes (2021-04-20, 02:00 to 04:29).
    has_every_candle=True,
    # rest-api.md: the weight of a call does not depend on how many it asks for. How many is our choice.
    candles_back=3,
    # It has thousands. In maintenance it lists a few for a while, or test pairs; even a small venue of it has these.
    least_instruments=10,
    always_listed=("BTCUSDT", "ETHUSDT", "BNBUSDT"),
)


class BinanceCodec(FeedCodec):
    """Kline streams on one combined connection: `{"stream":…,"data":…}`, and bare events too."""

    messages_per_second = 5
    """web-socket-streams.md, "Websocket Limits"; pings and pongs count."""
    keys_per_message = 100
    """Our choice; `_MESSAGE_BYTES` bounds it too."""

    def __init__(self, hosts: Hosts) -> None:
        self._hosts = hosts
        self._host = hosts.current
        # By the name at the exchange: the stream, its symbol and interval, and how many milliseconds it lasts at most.
        self._named: dict[str, tuple[StreamKey, str, str, int]] = {}
        self._asked: dict[int, tuple[StreamKey, ...]] = {}
        self._newest: dict[StreamKey, int] = {}
        self._last_id = 0

    @property
    def url(self) -> str:
        """A combined connection that starts with no stream."""
        return self._host + "/stream"

    def connect_failed(self, status: int | None) -> None:
        """Leave the host to others, unless it only asked for patience."""
        if status not in (418, 429):
            self._hosts.failed(self._host)

    def subscribe(self, keys: Sequence[StreamKey]) -> list[str]:
        """Ask for klines of these streams, below 4 KiB a message."""
        messages = []
        for batch in _batches(keys):
            messages.append(self._request("SUBSCRIBE", batch))
            self._asked[self._last_id] = batch
            for key in batch:
                self._named[_stream_name(key)] = (key, key.symbol, key.interval, next_open(key.interval, 0) * 1000)
                self._newest[key] = self._last_id
        return messages

    def unsubscribe(self, keys: Sequence[StreamKey]) -> list[str]:
        """End these streams; what still arrives of them is ignored."""
        for key in keys:
            self._named.pop(_stream_name(key), None)
            self._newest.pop(key, None)
        return [self._request("UNSUBSCRIBE", batch) for batch in _batches(keys)]

    def _request(self, method: str, keys: Sequence[StreamKey]) -> str:
        self._last_id += 1
        params = [_stream_name(key) for key in keys]
        return orjson.dumps({"method": method, "params": params, "id": self._last_id}).decode()

    def decode(self, raw: str | bytes) -> Sequence[PriceUpdate | Accepted | Rejected | Closing]:
        """Return the candle of a kline event, or what an answer says; other events mean nothing here."""
        message = orjson.loads(raw)
        event = message.get("data", message)
        if "e" not in event:
            return self._answer(message)
        kind = event["e"]
        if kind != "kline":
            return (Closing("the exchange announced a shutdown"),) if kind == "serverShutdown" else ()
        kline = event["k"]
        symbol = kline["s"]
        try:
            key, own, interval, most_ms = self._named[message["stream"]]
        except KeyError:
            known = None if "stream" in message else self._named.get(_stream_name(StreamKey(symbol, kline["i"])))
            if known is None:
                return ()
            key, own, interval, most_ms = known
        if symbol != own or kline["i"] != interval or event["s"] != own:
            raise ValueError(f"an event of {event['s']} and a kline of {symbol}@{kline['i']} in the stream {key}")
        open_ms, is_closed = kline["t"], kline["x"]
        if open_ms % 1000 or not 0 <= kline["T"] - open_ms < most_ms:
            raise ValueError(f"a kline from {open_ms} to {kline['T']} is none of {key}")
        if type(is_closed) is not bool:
            raise TypeError("x is neither true nor false")
        if event["E"] < kline["T"]:
            # Closed is what is over: all closing events on record were sent after the last millisecond of the candle.
            is_closed = False
        # Whether the values make a candle the relay judges.
        opened, high, low, close, volume = decimals((kline["o"], kline["h"], kline["l"], kline["c"], kline["v"]))
        return (PriceUpdate(key, Candle(open_ms // 1000, opened, high, low, close, volume), is_closed, event["E"]),)

    def _answer(self, message: dict[str, Any]) -> Sequence[Accepted | Rejected]:
        """Read an answer to SUBSCRIBE or UNSUBSCRIBE; errors come nested, and flat in the documents."""
        error = message.get("error")
        if error is None and "code" in message:
            error = message
        if error is None and "result" not in message:
            if "stream" in message and "@kline_" not in message["stream"]:
                return ()  # a bookTicker, for one, does not say what it is
            raise ValueError("neither an event nor an answer")
        keys = self._asked.pop(message["id"], ()) if type(message.get("id")) is int else ()
        newest = tuple(key for key in keys if self._newest.get(key) == message["id"])
        if error is not None:
            reason = error.get("msg")
            if not newest:
                raise ValueError(f"the exchange refused a message: {reason}")
            for key in newest:
                self._named.pop(_stream_name(key), None)
            return (Rejected(newest, f"the exchange refused the stream: {reason}"),)
        return (Accepted(newest),) if newest else ()


def _stream_name(key: StreamKey) -> str:
    return f"{key.symbol.lower()}@kline_{key.interval}"


def _batches(keys: Sequence[StreamKey]) -> list[tuple[StreamKey, ...]]:
    """Split streams so that each message stays below the venue's 4 KiB."""
    batches: list[tuple[StreamKey, ...]] = []
    batch: list[StreamKey] = []
    size = 0
    for key in keys:
        length = len(_stream_name(key).encode()) + 3
        if batch and size + length > _MESSAGE_BYTES - 80:
            batches.append(tuple(batch))
            batch, size = [], 0
        batch.append(key)
        size += length
    if batch:
        batches.append(tuple(batch))
    return batches


class Weight:
    """The request weight that this address may use a minute, and the bans; asks nobody and never waits.

    Other programs behind the same address are seen through the header only, hence the margin. A lower limit than
    `limit` that the exchange states is kept to; 6,000 is in enums.md, "Rate limiters".
    """

    def __init__(
        self,
        limit: int = 6000,
        *,
        wall: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._usual = self._limit = limit
        self._wall = wall
        self._monotonic = monotonic
        self._minute = 0
        self._used = 0
        self._blocked_until = float("-inf")
        self._blocked_why = ""
        self._unclear = 0

    def spend(self, weight: int) -> None:
        """Count a call before it is made. Raises `RateLimited` when it must not be made now."""
        if (wait := self._blocked_until - self._monotonic()) > 0:
            raise RateLimited(self._blocked_why, wait)
        self._turn()
        if self._used + weight > self._limit * 9 // 10:
            raise RateLimited("the request weight of this minute is used up", self._resets_at() - self._wall())
        self._used += weight

    def learn(self, used: str | None) -> None:
        """Take what the exchange counted, from its header; it knows of more than this relay."""
        self._turn()
        if used is not None and used.isascii() and used.isdigit():
            self._used = max(self._used, min(int(used), 10 * self._limit))

    def state(self, limit: int, span_s: int) -> None:
        """Take the weight that the exchange says it allows in so many seconds; more than usual is not made use of."""
        if limit > 0 and span_s > 0:
            self._limit = min(self._usual, max(1, limit * 60 // span_s))

    def relent(self) -> None:
        """Note that a call was not refused."""
        self._unclear = 0

    def pause_s(self) -> float:
        """Return how long to wait after a refusal that does not say so: each one in a row doubles it."""
        self._unclear += 1
        return min(_MOST_PAUSE_S, _PAUSE_S * 2.0 ** (self._unclear - 1))

    def block(self, seconds: float, why: str) -> None:
        """Let nobody ask for so long; a shorter block does not end a longer one."""
        until = self._monotonic() + seconds
        if until > self._blocked_until:
            self._blocked_until, self._blocked_why = until, why

    def budget(self) -> Budget:
        """Say how much is used; all of it during a ban."""
        self._turn()
        if (wait := self._blocked_until - self._monotonic()) > 0:
            return Budget("request weight a minute", self._limit, self._limit, self._wall() + wait)
        return Budget("request weight a minute", self._limit, min(self._used, self._limit), self._resets_at())

    def _turn(self) -> None:
        minute = int(self._wall() // 60)
        if minute != self._minute:
            self._minute, self._used = minute, 0

    def _resets_at(self) -> float:
        return (self._minute + 1) * 60.0


class BinanceProvider:
    """The plugin; one instance a relay, which holds what its feeds and calls share."""

    def __init__(self) -> None:
        self._weight = Weight()
        self._hosts: dict[tuple[str, ...], Hosts] = {}

    @hookimpl
    def relay_provider(self) -> ProviderInfo:
        """Say who this is."""
        return _INFO

    @hookimpl
    def relay_stream(
        self, watchlist: Watchlist, session: aiohttp.ClientSession, settings: Mapping[str, Any]
    ) -> AsyncGenerator[PriceUpdate, None]:
        """Carry all streams of the watchlist on one combined connection."""
        return websocket_feed(session, BinanceCodec(self._hosts_of(settings["ws_url"])), watchlist)

    def _hosts_of(self, urls: tuple[str, ...]) -> Hosts:
        """Return which of these addresses works; settings may change while the relay runs."""
        return self._hosts.setdefault(urls, Hosts(urls))

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
        """Fetch klines in pages of 1000, forwards from `start`, else backwards from `end`."""
        query: dict[str, str | int] = {"symbol": symbol, "interval": interval}
        if start is None:
            return await self._newest(query, end, limit, session, settings)
        candles: list[Candle] = []
        while len(candles) < limit and start < end:
            size = min(_KLINES_PAGE, limit - len(candles))
            window: dict[str, str | int] = {"startTime": start * 1000, "endTime": end * 1000 - 1, "limit": size}
            page, is_full = await self._klines(query | window, session, settings)
            candles += page
            if not is_full:
                break
            # The next open time is the data's to say: grids have holes, and 3d differs by pair.
            start = page[-1].time + 1
        return candles

    async def _newest(
        self,
        query: Mapping[str, str | int],
        end: int,
        limit: int,
        session: aiohttp.ClientSession,
        settings: Mapping[str, Any],
    ) -> list[Candle]:
        pages: list[list[Candle]] = []
        left = limit
        while left > 0 and end > 0:
            size = min(_KLINES_PAGE, left)
            window: dict[str, str | int] = {"endTime": end * 1000 - 1, "limit": size}
            page, is_full = await self._klines({**query, **window}, session, settings)
            if page:
                pages.append(page)
                left -= len(page)
                end = page[0].time
            if not is_full:
                break
        return [candle for page in reversed(pages) for candle in page]

    async def _klines(
        self, params: Mapping[str, str | int], session: aiohttp.ClientSession, settings: Mapping[str, Any]
    ) -> tuple[list[Candle], bool]:
        """Return the candles of one page, and whether it held as many rows as were asked for."""
        rows = await self._ask("/api/v3/klines", params, _KLINES_WEIGHT, session, settings)
        if not isinstance(rows, list):
            raise BadAnswer("klines: the answer is no list")
        if len(rows) > int(params["limit"]):
            raise BadAnswer(f"klines: asked for {params['limit']} rows at most, {len(rows):,} came")
        interval, first, last = str(params["interval"]), int(params.get("startTime", 0)), int(params["endTime"])
        shares = [_share(row, interval) for row in rows]
        # One that is cut short may be real, several of them are of another interval.
        if 2 * shares.count(0.0) > len(rows) or (len(rows) > 1 and 1.0 not in shares):
            raise BadAnswer(f"klines: asked for {interval}, the rows are no klines of it")

        def candle_of(row: Any, time: int) -> Candle:
            if not _share(row, interval):
                raise ValueError("it ends outside of its interval")
            return Candle(time, *decimals(row[1:6]))

        candles = read_rows(rows, interval, _open_time, candle_of, is_utc_grid=True)
        inside = [candle for candle in candles if first <= candle.time * 1000 <= last]
        if candles and not inside:
            raise BadAnswer(f"klines: the rows are of {candles[0].time}, outside of what was asked for")
        return inside, len(rows) >= int(params["limit"])

    @hookimpl
    async def relay_instruments(
        self, session: aiohttp.ClientSession, settings: Mapping[str, Any]
    ) -> Sequence[Instrument]:
        """List all pairs; one that does not trade now is paused."""
        body = await self._ask(
            "/api/v3/exchangeInfo",
            {"showPermissionSets": "false"},
            _EXCHANGE_INFO_WEIGHT,
            session,
            settings,
            LIST_BOUNDS,
        )
        _learn_limit(self._weight, body)
        pairs = body.get("symbols") if isinstance(body, dict) else None
        if not isinstance(pairs, list):
            pairs = []
        if len(pairs) > _MOST_PAIRS:
            raise BadAnswer(f"exchangeInfo: {len(pairs):,} pairs; at most {_MOST_PAIRS:,} are read")
        listed = [_instrument(pair if isinstance(pair, dict) else {}) for pair in pairs]
        if not any(isinstance(one.symbol, str) and isinstance(one.base, str) for one in listed):
            raise BadAnswer("exchangeInfo: no pair in it")
        return listed

    @hookimpl
    def relay_budgets(self) -> Sequence[Budget]:
        """Say how much of the request weight is used."""
        return (self._weight.budget(),)

    async def _ask(
        self,
        path: str,
        params: Mapping[str, str | int],
        weight: int,
        session: aiohttp.ClientSession,
        settings: Mapping[str, Any],
        bounds: Bounds = PAGE_BOUNDS,
    ) -> Any:
        self._weight.spend(weight)
        hosts = self._hosts_of(settings["rest_url"])
        answer = await ask_rest(session, hosts, path, params=params, bounds=bounds)
        self._weight.learn(answer.headers.get("X-MBX-USED-WEIGHT-1M"))
        if answer.status == 200:
            self._weight.relent()
            return answer.body
        error = _refusal(answer, self._weight)
        if isinstance(error, RateLimited):
            self._weight.block(error.retry_after, str(error))
        raise error


def _open_time(row: Any) -> int:
    open_ms = row[0]
    if type(open_ms) is not int or open_ms % 1000:
        raise TypeError("an open time is no whole second")
    return open_ms // 1000


def _share(row: Any, interval: str) -> float:
    """Return which part of its interval a row covers: 1, less when an outage cut it short, 0 if it is of another."""
    try:
        open_time = _open_time(row)
        share = (row[6] - row[0] + 1) / ((next_open(interval, open_time) - open_time) * 1000)
        return share if 0 < share <= 1 else 0.0
    except (TypeError, LookupError, ValueError, ArithmeticError):
        return 0.0


def _instrument(pair: Mapping[str, Any]) -> Instrument:
    """Return one entry of exchangeInfo as it is: the relay leaves out, and names, what is no instrument."""
    symbol, base, quote, status = map(pair.get, ("symbol", "baseAsset", "quoteAsset", "status"))
    if isinstance(status, str):
        status = "trading" if status == "TRADING" else "paused"
    given: Any = (symbol, "crypto", base, quote, None, status)
    return Instrument(*given)


def _learn_limit(weight: Weight, body: Any) -> None:
    """Take the request weight that exchangeInfo says is allowed, where it says so."""
    limits = body.get("rateLimits") if isinstance(body, dict) else None
    for limit in limits if isinstance(limits, list) else ():
        if not isinstance(limit, dict) or limit.get("rateLimitType") != "REQUEST_WEIGHT":
            continue
        most, number, unit_s = limit.get("limit"), limit.get("intervalNum"), _UNIT_S.get(str(limit.get("interval")))
        if type(most) is int and type(number) is int and unit_s is not None:
            weight.state(most, number * unit_s)


def _refusal(answer: RestAnswer, weight: Weight) -> ProviderError:
    body = answer.body if isinstance(answer.body, dict) else {}
    message = body.get("msg")
    reason = message if isinstance(message, str) else ""
    if body.get("code") == _INVALID_SYMBOL:
        return UnknownSymbol(reason)
    error = answer.error(reason)
    if body.get("code") == _TOO_MANY and not isinstance(error, RateLimited):
        error = RateLimited(str(error), _PAUSE_S)
    if not isinstance(error, RateLimited):
        weight.relent()
        return error
    if (stated := _LIMIT_NOW.search(reason)) is not None:
        weight.state(int(stated[1]), int(stated[2]) * _UNIT_S[stated[3]])
    if "Retry-After" not in answer.headers:
        banned = _BANNED_UNTIL.search(reason)
        if banned is not None:
            error.retry_after = max(1.0, int(banned[1]) / 1000 - time.time())
        elif answer.status == 418:
            error.retry_after = max(_BAN_S, weight.pause_s())
        else:
            error.retry_after = weight.pause_s()
    return error
