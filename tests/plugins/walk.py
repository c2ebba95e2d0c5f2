"""A good provider of a WebSocket venue, with a REST history by pages; the tests change one line of it at a time."""

import orjson

from relay import (
    API_VERSION,
    Accepted,
    Candle,
    FeedCodec,
    Hosts,
    Instrument,
    OpenHours,
    PriceUpdate,
    ProviderInfo,
    Rejected,
    Setting,
    StreamKey,
    UnknownSymbol,
    ask_rest,
    hookimpl,
    websocket_feed,
)

NAMES = {"1m": "1m", "5m": "5m", "1h": "1h", "1d": "1d", "1w": "1w", "1M": "1M"}
INTERVALS = {name: interval for interval, name in NAMES.items()}
PAGE = 500


def candle_of(row, interval):
    opened, first, high, low, last, volume = row[:6]
    return Candle(opened // 1000, first, high, low, last, volume)


class WalkCodec(FeedCodec):
    heartbeat = '{"op":"ping"}'

    def subscribe(self, keys):
        return [request("subscribe", keys)]

    def unsubscribe(self, keys):
        return [request("unsubscribe", keys)]

    def decode(self, raw):
        message = orjson.loads(raw)
        kind = message["type"]
        if kind == "pong":
            return
        key = StreamKey(message["symbol"], INTERVALS[message["interval"]])
        if kind == "subscribed":
            yield Accepted((key,))
        elif kind == "refused":
            yield Rejected((key,), message["reason"])
        else:
            candle = candle_of(message["row"], key.interval)
            yield PriceUpdate(key, candle, message["final"], message["sent_ms"])


def request(op, keys):
    return orjson.dumps({"op": op, "streams": [[key.symbol, NAMES[key.interval]] for key in keys]}).decode()


@hookimpl
def relay_provider():
    return ProviderInfo(
        name="walk",
        api=API_VERSION,
        title="Walk",
        asset_classes=("crypto",),
        intervals=tuple(NAMES),
        candles_per_call=3 * PAGE,
        history_has_open=True,
        settings=(
            Setting("ws_url", "text", "", "Address of the stream server"),
            Setting("rest_url", "urls", ("http://127.0.0.1:1",), "Addresses of the REST server"),
            Setting("closed_from", "int", 0, "When trading pauses, in Unix seconds"),
            Setting("closed_until", "int", 0, "When it goes on"),
        ),
    )


@hookimpl
def relay_stream(watchlist, session, settings):
    return websocket_feed(session, WalkCodec(settings["ws_url"]), watchlist)


@hookimpl
async def relay_candles(symbol, interval, start, end, limit, session, settings):
    found = []
    while len(found) < limit and (start is None or start < end):
        size = min(PAGE, limit - len(found))
        span = {"to": end, "count": size} if start is None else {"from": start, "to": end, "count": size}
        page = await fetch(session, settings, symbol, interval, span)
        found = page + found if start is None else found + page
        if len(page) < size:
            break
        if start is None:
            end = page[0].time
        else:
            start = page[-1].time + 1
    return found


async def fetch(session, settings, symbol, interval, span):
    params = {"symbol": symbol, "interval": NAMES[interval], **span}
    answer = await ask_rest(session, Hosts(settings["rest_url"]), "/candles", params=params)
    if answer.status == 404:
        raise UnknownSymbol(f"Walk does not list {symbol}")
    if answer.status != 200:
        raise answer.error("")
    return [candle_of(row, interval) for row in answer.body]


@hookimpl
async def relay_instruments(session, settings):
    answer = await ask_rest(session, Hosts(settings["rest_url"]), "/symbols")
    if answer.status != 200:
        raise answer.error("the list of symbols")
    return [Instrument(symbol, "crypto", *symbol.split("-")) for symbol in answer.body]


@hookimpl
def relay_hours(symbol, moment, settings):
    closed_from, closed_until = settings["closed_from"], settings["closed_until"]
    if not closed_until:
        return None
    return OpenHours(0, closed_from) if moment < closed_from else OpenHours(closed_until, 2**33)
