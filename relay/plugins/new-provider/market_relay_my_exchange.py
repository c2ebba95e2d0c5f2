"""Candles of My Exchange for market-relay."""

from collections.abc import AsyncGenerator, Iterable, Iterator, Mapping, Sequence
from typing import Any

import aiohttp
import orjson
from relay import (
    Accepted,
    Candle,
    CloseOnNext,
    FeedCodec,
    Hosts,
    Instrument,
    PriceUpdate,
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


def key_of(message: Mapping[str, Any]) -> StreamKey:
    return StreamKey(message["symbol"], message["interval"])


def candle_of(row: Mapping[str, Any]) -> Candle:
    return Candle(int(row["time"]), *(float(row[name]) for name in ("open", "high", "low", "close", "volume")))


class MyExchangeCodec(FeedCodec):
    """Messages in, values out, without I/O; one codec serves one connection."""

    heartbeat = '{"op":"ping"}'

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self._closing = CloseOnNext()

    def subscribe(self, keys: Sequence[StreamKey]) -> list[str]:
        self._closing.forget(keys)
        return [self._request("subscribe", keys)]

    def unsubscribe(self, keys: Sequence[StreamKey]) -> list[str]:
        return [self._request("unsubscribe", keys)]

    def _request(self, op: str, keys: Iterable[StreamKey]) -> str:
        streams = [{"symbol": key.symbol, "interval": key.interval} for key in keys]
        return orjson.dumps({"op": op, "streams": streams}).decode()

    def decode(self, raw: str | bytes) -> Iterator[PriceUpdate | Accepted | Rejected]:
        message = orjson.loads(raw)
        kind = message["type"]
        if kind == "candle":
            # Where the venue says that a candle is closed, yield PriceUpdate(key, candle, is_closed=…, ts_event_ms=…).
            yield from self._closing.take(key_of(message), candle_of(message), message["sent_ms"])
        elif kind == "subscribed":
            yield Accepted((key_of(message),))
        elif kind == "refused":
            yield Rejected((key_of(message),), message["reason"])


@hookimpl
def relay_provider() -> ProviderInfo:
    return ProviderInfo(
        name="my_exchange",
        api=2,
        title="My Exchange",
        asset_classes=("crypto",),
        intervals=tuple(INTERVALS),
        settings=(
            Setting("ws_url", "text", "ws://127.0.0.1:8700/ws", "Address of the stream server"),
            Setting("rest_url", "urls", ("http://127.0.0.1:8700",), "Addresses of the REST server"),
        ),
    )


@hookimpl
def relay_stream(
    watchlist: Watchlist, session: aiohttp.ClientSession, settings: Mapping[str, Any]
) -> AsyncGenerator[PriceUpdate, None]:
    return websocket_feed(session, MyExchangeCodec(settings["ws_url"]), watchlist)


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
        params: dict[str, str | int] = {"symbol": symbol, "interval": names[step_s], "from": first, "to": end}
        answer = await ask_rest(session, Hosts(settings["rest_url"]), "/candles", params=params)
        if answer.status == 404:
            raise UnknownSymbol(f"My Exchange does not list {symbol}")
        if answer.status != 200:
            raise answer.error("")
        return [candle_of(row) for row in answer.body]

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
