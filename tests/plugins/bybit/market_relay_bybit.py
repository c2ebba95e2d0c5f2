"""Spot candles of Bybit: the `kline` topics of its WebSocket v5, and `kline` and `instruments-info` of its REST v5."""

import orjson

from relay import (
    LIST_BOUNDS,
    Accepted,
    BadAnswer,
    ExtendedCandle,
    FeedCodec,
    Hosts,
    Instrument,
    PriceUpdate,
    ProviderInfo,
    ProviderUnavailable,
    RateLimited,
    Rejected,
    Setting,
    StreamKey,
    UnknownSymbol,
    ask_rest,
    decimals,
    hookimpl,
    page_candles,
    read_rows,
    websocket_feed,
)

# bybit-exchange.github.io/docs/v5, "Get Kline": 1 3 5 15 30 60 120 240 360 720 D W M.
NAMES = {
    **{"1m": "1", "3m": "3", "5m": "5", "15m": "15", "30m": "30", "1h": "60", "2h": "120", "4h": "240", "6h": "360"},
    **{"12h": "720", "1d": "D", "1w": "W", "1M": "M"},
}
INTERVALS = {name: interval for interval, name in NAMES.items()}
DAY_S = 86_400
STEPS = {"D": DAY_S, "W": 7 * DAY_S, "M": 28 * DAY_S}
"""Seconds of a candle, of a month those of the shortest one: so many windows hold no more candles than asked for."""
PAGE = 1000
"""v5, "Get Kline": `limit` is at most 1000."""
OLDEST = 1_514_764_800
"""2018, when Bybit opened. Our own choice: the documents do not say where its candles begin."""
BANNED_S = 600.0
"""v5, "Rate Limit": wait at least ten minutes after HTTP 403, access too frequent."""
SLOWER_S = 5.0
"""v5, "Rate Limit": requests of an address are counted in windows of five seconds."""
TOO_MANY = frozenset({10006, 10018})
"""v5, "Error Codes": the limit of the API, and that of the address."""
BAD_PARAMETER = 10_001
BUSY = frozenset({10_000, 10_016})


class BybitCodec(FeedCodec):
    # v5, "Connect": spot takes up to 10 args a request, and a ping is recommended every 20 seconds.
    keys_per_message = 10
    heartbeat = '{"op":"ping"}'
    heartbeat_s = 20.0

    def __init__(self, url):
        super().__init__(url)
        self._asked = {}
        self._number = 0

    def subscribe(self, keys):
        # An answer names its request, and neither topics nor symbols.
        self._number += 1
        self._asked[str(self._number)] = tuple(keys)
        return [self._request("subscribe", keys, str(self._number))]

    def unsubscribe(self, keys):
        return [self._request("unsubscribe", keys, "")]

    def _request(self, op, keys, number):
        topics = [f"kline.{NAMES[key.interval]}.{key.symbol}" for key in keys]
        return orjson.dumps({"req_id": number, "op": op, "args": topics}).decode()

    def decode(self, raw):
        message = orjson.loads(raw)
        if "topic" in message:
            _, name, symbol = message["topic"].split(".", 2)
            key = StreamKey(symbol, INTERVALS[name])
            for row in message["data"]:
                if row["interval"] != name:
                    raise ValueError(f"a candle of {row['interval']} came for {message['topic']}")
                texts = (row["open"], row["high"], row["low"], row["close"], row["volume"])
                candle = candle_of(texts, row["turnover"], seconds(row["start"]))
                yield PriceUpdate(key, candle, row["confirm"] is True, message["ts"])
        elif message.get("op") == "subscribe":
            keys = self._asked.pop(message.get("req_id", ""), ())
            # One topic that does not exist refuses the whole request; the relay finds out which one it is.
            refused = not message["success"] and "already subscribed" not in message["ret_msg"]
            yield Rejected(keys, message["ret_msg"]) if refused else Accepted(keys)


def candle_of(texts, turnover, time):
    return ExtendedCandle(time, *decimals(texts), quote_volume=float(turnover))


def seconds(stamp_ms):
    """Read an open time in milliseconds."""
    time, rest = divmod(int(stamp_ms), 1000)
    if rest:
        raise ValueError(f"{stamp_ms} is no open time")
    return time


@hookimpl
def relay_provider():
    return ProviderInfo(
        name="bybit",
        api=(2, 1),
        title="Bybit",
        asset_classes=("crypto",),
        intervals=tuple(NAMES),
        attribution="Market data by Bybit",
        settings=(
            Setting("ws_url", "text", "wss://stream.bybit.com/v5/public/spot", "Address of the stream server"),
            Setting("rest_url", "urls", ("https://api.bybit.com",), "Addresses of the REST server"),
        ),
        candles_per_call=PAGE,
        candle_extras=("quote_volume",),
        history_has_open=True,
        is_utc_grid=True,
    )


@hookimpl
def relay_stream(watchlist, session, settings):
    return websocket_feed(session, BybitCodec(settings["ws_url"]), watchlist)


@hookimpl
async def relay_candles(symbol, interval, start, end, limit, session, settings):
    async def window(first, end, step_s):
        name = next(name for name in NAMES.values() if step_of(name) == step_s)
        params = {"category": "spot", "symbol": symbol, "interval": name, "limit": PAGE}
        # Both ends are included; the answer is newest first.
        span = {"start": first * 1000, "end": end * 1000 - 1}
        result = await ask(session, settings, "/v5/market/kline", params | span)
        if result["symbol"] != symbol:
            raise BadAnswer("the candles are of another symbol", detail=f"{result['symbol']} for {symbol}")
        return read_rows(
            result["list"],
            INTERVALS[name],
            lambda row: seconds(row[0]),
            lambda row, time: candle_of(row[1:6], row[6], time),
            is_utc_grid=True,
            is_newest_first=True,
        )

    step_s = step_of(NAMES[interval])
    coarse_s = DAY_S if step_s < DAY_S else None
    return await page_candles(
        window, start=start, end=end, limit=limit, step_s=step_s, page=PAGE, oldest=OLDEST, coarse_s=coarse_s
    )


def step_of(name):
    """Return the seconds of an interval by its name at Bybit."""
    return STEPS[name] if name in STEPS else int(name) * 60


@hookimpl
async def relay_instruments(session, settings):
    result = await ask(session, settings, "/v5/market/instruments-info", {"category": "spot"}, LIST_BOUNDS)
    return [instrument_of(row) for row in result["list"]]


def instrument_of(row):
    return Instrument(
        row["symbol"],
        "crypto",
        row["baseCoin"],
        row["quoteCoin"],
        status="trading" if row["status"] == "Trading" else "paused",
        price_step=row["priceFilter"]["tickSize"],
        volume_step=row["lotSizeFilter"]["basePrecision"],
    )


async def ask(session, settings, path, params, bounds=None):
    """Return the result of a call. Bybit answers errors with status 200 and a code; its words are for the log."""
    more = {} if bounds is None else {"bounds": bounds}
    answer = await ask_rest(session, Hosts(settings["rest_url"]), path, params=params, **more)
    if answer.status == 403:
        raise RateLimited("HTTP 403: Bybit refuses this address for ten minutes", BANNED_S)
    if answer.status != 200:
        raise answer.error()
    code, said = answer.body["retCode"], f"{answer.body['retCode']} {answer.body['retMsg']}"
    if code == 0:
        return answer.body["result"]
    if code in TOO_MANY:
        raise RateLimited("Bybit answers no more requests for now", SLOWER_S, detail=said)
    if code == BAD_PARAMETER and "symbol" in answer.body["retMsg"].lower():
        raise UnknownSymbol(f"Bybit does not list {params['symbol']}", detail=said)
    if code in BUSY:
        raise ProviderUnavailable("Bybit is busy", detail=said)
    raise BadAnswer("Bybit refused the request", detail=said)
