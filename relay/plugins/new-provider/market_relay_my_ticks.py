"""Candles of My Ticks for market-relay, built from its trades: the venue streams no candles."""

import math
from collections.abc import AsyncGenerator, Iterable, Iterator, Mapping, Sequence
from contextlib import aclosing
from typing import Any

import aiohttp
import orjson
from relay import (
    Accepted,
    Built,
    Candle,
    CandleBuilder,
    Clock,
    FeedCodec,
    Hosts,
    Instrument,
    PriceUpdate,
    ProviderClock,
    ProviderInfo,
    Rejected,
    Setting,
    StreamKey,
    UnknownSymbol,
    Watchlist,
    ask_rest,
    hookimpl,
    page_candles,
    websocket_feed,
)

__version__ = "0.1"

INTERVALS = {"1m": 60, "5m": 300, "1h": 3600, "1d": 86_400}
PAGE = 500
"""How many candles the venue gives at once."""


def candle_of(row: Mapping[str, Any]) -> Candle:
    return Candle(int(row["time"]), *(float(row[name]) for name in ("open", "high", "low", "close", "volume")))


def updates(key: StreamKey, built: Iterable[Built]) -> Iterator[PriceUpdate]:
    """Yield what the ticks made of a candle; one whose beginning was missed is never closed by them."""
    for candle, is_closed, is_whole, stamp in built:
        if is_whole or not is_closed:
            yield PriceUpdate(key, candle, is_closed, int(stamp * 1000))


class MyTicksCodec(FeedCodec):
    """Messages in, values out, without I/O; one codec serves one connection.

    Trades belong to a symbol, and each interval of it has a builder. The answers to the heartbeat are the clock that
    closes candles when there are no trades. The candles of `lacking` streams had begun before their first trade came:
    `complete` takes what the venue has of one.
    """

    heartbeat = '{"op":"ping"}'
    heartbeat_s = 1.0

    def __init__(self, url: str, clock: Clock | None = None) -> None:
        super().__init__(url)
        self._clock = ProviderClock(clock or Clock())
        self._builders: dict[StreamKey, CandleBuilder] = {}
        self._completed: dict[StreamKey, float] = {}
        self.lacking: set[StreamKey] = set()

    def subscribe(self, keys: Sequence[StreamKey]) -> list[str]:
        self._forget(keys)
        for key in keys:
            # Nothing is believed before the venue has confirmed the subscription.
            self._builders[key] = CandleBuilder(key.interval, math.inf)
        return [self._request("subscribe", {key.symbol for key in keys})]

    def unsubscribe(self, keys: Sequence[StreamKey]) -> list[str]:
        self._forget(keys)
        left = {key.symbol for key in keys} - {key.symbol for key in self._builders}
        return [self._request("unsubscribe", left)] if left else []

    def _forget(self, keys: Iterable[StreamKey]) -> None:
        for key in keys:
            self._builders.pop(key, None)
            self._completed.pop(key, None)
            self.lacking.discard(key)

    def complete(self, key: StreamKey, row: Mapping[str, Any]) -> Iterator[PriceUpdate]:
        """Take the venue's state of the open candle, and yield the candle with it; trades until then are in it."""
        self.lacking.discard(key)
        if (builder := self._builders.get(key)) is not None:
            self._completed[key] = row["until_ms"] / 1000
            now = self._clock.now()
            yield from updates(key, builder.complete(candle_of(row), self._completed[key], now=now))

    def _request(self, op: str, symbols: Iterable[str]) -> str:
        return orjson.dumps({"op": op, "symbols": sorted(symbols)}).decode()

    def decode(self, raw: str | bytes) -> Iterator[PriceUpdate | Accepted | Rejected]:
        message = orjson.loads(raw)
        kind, symbol = message["type"], message.get("symbol", "")
        keys = tuple(key for key in self._builders if key.symbol == symbol)
        self._clock.observe(message["time_ms"] / 1000, symbol or None)
        now = self._clock.now()
        if kind == "subscribed":
            for key in keys:
                if self._builders[key].since == math.inf:
                    self._builders[key].resume(now)
                    self.lacking.add(key)
            yield Accepted(keys)
        elif kind == "refused":
            self._forget(keys)
            yield Rejected(keys, message["reason"])
        elif kind == "trade":
            moment, price, size = message["time_ms"] / 1000, float(message["price"]), float(message["size"])
            for key in keys:
                if moment > self._completed.get(key, 0.0):
                    yield from updates(key, self._builders[key].add(moment, price, size, now=now))
        for key, builder in self._builders.items():
            yield from updates(key, builder.advance(now))


@hookimpl
def relay_provider() -> ProviderInfo:
    return ProviderInfo(
        name="my_ticks",
        api=2,
        title="My Ticks",
        asset_classes=("crypto",),
        intervals=tuple(INTERVALS),
        settings=(
            Setting("ws_url", "text", "ws://127.0.0.1:8700/ws", "Address of the stream server"),
            Setting("rest_url", "urls", ("http://127.0.0.1:8700",), "Addresses of the REST server"),
        ),
    )


async def ask(
    session: aiohttp.ClientSession, settings: Mapping[str, Any], symbol: str, interval: str, first: int, end: int
) -> list[Mapping[str, Any]]:
    """Ask the venue for the candles that open from `first` up to `end`."""
    params: dict[str, str | int] = {"symbol": symbol, "interval": interval, "from": first, "to": end}
    answer = await ask_rest(session, Hosts(settings["rest_url"]), "/candles", params=params)
    if answer.status == 404:
        raise UnknownSymbol(f"My Ticks does not list {symbol}")
    if answer.status != 200:
        raise answer.error("")
    return list(answer.body)


@hookimpl
async def relay_stream(
    watchlist: Watchlist, session: aiohttp.ClientSession, settings: Mapping[str, Any]
) -> AsyncGenerator[PriceUpdate, None]:
    codec = MyTicksCodec(settings["ws_url"])
    async with aclosing(websocket_feed(session, codec, watchlist)) as feed:
        async for update in feed:
            key, opened = update.key, update.candle.time
            if key not in codec.lacking:
                yield update
                continue
            for row in await ask(session, settings, key.symbol, key.interval, opened, opened + 1):
                for completed in codec.complete(key, row):
                    yield completed


@hookimpl
async def relay_candles(
    symbol: str,
    interval: str,
    start: int | None,
    end: int,
    limit: int,
    session: aiohttp.ClientSession,
    settings: Mapping[str, Any],
) -> list[Candle]:
    names = {seconds: name for name, seconds in INTERVALS.items()}

    async def window(first: int, end: int, step_s: int) -> list[Candle]:
        return [candle_of(row) for row in await ask(session, settings, symbol, names[step_s], first, end)]

    step_s = INTERVALS[interval]
    coarse_s = INTERVALS["1d"] if step_s < INTERVALS["1d"] else None
    return await page_candles(
        window, start=start, end=end, limit=limit, step_s=step_s, page=PAGE, oldest=1_500_000_000, coarse_s=coarse_s
    )


@hookimpl
async def relay_instruments(session: aiohttp.ClientSession, settings: Mapping[str, Any]) -> list[Instrument]:
    answer = await ask_rest(session, Hosts(settings["rest_url"]), "/symbols")
    if answer.status != 200:
        raise answer.error("the list of symbols")
    return [Instrument(symbol, "crypto", *symbol.split("-")) for symbol in answer.body]
