"""Spot candles of Kraken: the `ohlc` channel of its WebSocket v2, and `OHLC` of its REST."""

from datetime import datetime

import orjson

from relay import (
    Accepted,
    BadAnswer,
    Candle,
    CloseOnNext,
    FeedCodec,
    Hosts,
    Instrument,
    ProviderInfo,
    ProviderUnavailable,
    RateLimited,
    Rejected,
    Setting,
    StreamKey,
    UnknownSymbol,
    ask_rest,
    hookimpl,
    websocket_feed,
)

MINUTES = {"1m": 1, "5m": 5, "15m": 15, "30m": 30, "1h": 60, "4h": 240, "1d": 1440, "1w": 10_080}
INTERVALS = {minutes: interval for interval, minutes in MINUTES.items()}
# The REST of Kraken keeps names that its WebSocket v2 refuses.
OLD_NAMES = {"BTC": "XBT", "DOGE": "XDG"}
NEW_NAMES = {old: new for new, old in OLD_NAMES.items()}
RETRY_S = 10.0


def renamed(pair, names):
    """Return a pair written BASE/QUOTE with both parts as `names` has them."""
    return "/".join(names.get(part, part) for part in pair.split("/"))


def seconds(text):
    """Read a time such as 2023-10-04T15:25:00.000000000Z."""
    return datetime.fromisoformat(text).timestamp()


class KrakenCodec(FeedCodec):
    """Kraken takes one interval of a symbol on one connection only, hence `one_interval_per_feed`."""

    heartbeat = '{"method":"ping"}'
    heartbeat_s = 30.0

    def __init__(self, url):
        super().__init__(url)
        self._interval = ""
        self._closing = CloseOnNext()

    def subscribe(self, keys):
        self._interval = keys[0].interval
        self._closing.forget(keys)
        return [self._request("subscribe", keys)]

    def unsubscribe(self, keys):
        return [self._request("unsubscribe", keys)]

    def _request(self, method, keys):
        symbols = [key.symbol for key in keys]
        params = {"channel": "ohlc", "symbol": symbols, "interval": MINUTES[self._interval]}
        return orjson.dumps({"method": method, "params": params}).decode()

    def decode(self, raw):
        message = orjson.loads(raw)
        if message.get("channel") == "ohlc":
            rows = message["data"]
            if message["type"] == "snapshot":
                # It holds older candles, too; the relay asks history for those that it misses.
                rows = {row["symbol"]: row for row in rows}.values()
            stamp_ms = int(seconds(message["timestamp"]) * 1000)
            for row in rows:
                key = StreamKey(row["symbol"], INTERVALS[row["interval"]])
                prices = (float(row[name]) for name in ("open", "high", "low", "close", "volume"))
                # `timestamp` of a row is deprecated, and is the end of the candle.
                yield from self._closing.take(key, Candle(int(seconds(row["interval_begin"])), *prices), stamp_ms)
        elif message.get("method") == "subscribe":
            if message["success"]:
                yield Accepted((StreamKey(message["result"]["symbol"], self._interval),))
            else:
                yield Rejected((StreamKey(message["symbol"], self._interval),), message["error"])


@hookimpl
def relay_provider():
    return ProviderInfo(
        name="kraken",
        api=2,
        title="Kraken",
        asset_classes=("crypto",),
        intervals=tuple(MINUTES),
        attribution="Market data by Kraken",
        settings=(
            Setting("ws_url", "text", "wss://ws.kraken.com/v2", "Address of the stream server"),
            Setting("rest_url", "urls", ("https://api.kraken.com",), "Addresses of the REST server"),
        ),
        streams_per_feed=300,
        one_interval_per_feed=True,
    )


@hookimpl
def relay_stream(watchlist, session, settings):
    return websocket_feed(session, KrakenCodec(settings["ws_url"]), watchlist)


@hookimpl
async def relay_candles(symbol, interval, start, end, limit, session, settings):
    pair = renamed(symbol, OLD_NAMES).replace("/", "")
    params = {"pair": pair, "interval": MINUTES[interval]}
    if start is not None:
        # One earlier, since the documents do not say whether `since` itself is included.
        params["since"] = max(0, start - 1)
    # At most the 720 newest, whatever is asked for, so there is nothing to page through.
    result = await ask(session, settings, "/0/public/OHLC", params)
    (rows,) = (rows for name, rows in result.items() if name != "last")
    # Columns: time, open, high, low, close, vwap, volume, count.
    candles = [Candle(int(row[0]), *map(float, row[1:5]), float(row[6])) for row in rows]
    # The open candle is always the last row, also after `end`.
    inside = [candle for candle in candles if (start or 0) <= candle.time < end]
    return inside[-limit:] if start is None else inside[:limit]


@hookimpl
async def relay_instruments(session, settings):
    found = await ask(session, settings, "/0/public/AssetPairs", {})
    online = [pair["wsname"] for pair in found.values() if pair["status"] == "online" and "wsname" in pair]
    return [Instrument(name, "crypto", *name.split("/")) for name in (renamed(pair, NEW_NAMES) for pair in online)]


async def ask(session, settings, path, params):
    """Return the result of a call. Kraken answers errors with status 200 and a list of texts."""
    answer = await ask_rest(session, Hosts(settings["rest_url"]), path, params=params)
    if answer.status != 200:
        raise answer.error("")
    errors = answer.body["error"]
    if not errors:
        return answer.body["result"]
    text = ", ".join(errors)
    if "Unknown asset pair" in text:
        raise UnknownSymbol(f"Kraken does not list {params['pair']}")
    if "Too many requests" in text or "Rate limit" in text:
        raise RateLimited(text, RETRY_S)
    if text.startswith("EService"):
        raise ProviderUnavailable(text)
    raise BadAnswer(text)
