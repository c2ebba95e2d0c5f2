"""Candles of Coinbase: the `candles` channel of Advanced Trade, and its public REST. Five minutes is all it streams."""

from datetime import datetime
from urllib.parse import quote

import orjson

from relay import (
    Accepted,
    Candle,
    CloseOnNext,
    FeedCodec,
    Hosts,
    Instrument,
    ProviderInfo,
    Rejected,
    Setting,
    StreamKey,
    UnknownSymbol,
    ask_rest,
    hookimpl,
    page_candles,
    websocket_feed,
)

INTERVAL, STEP_S, DAY_S = "5m", 300, 86_400
GRANULARITIES = {STEP_S: "FIVE_MINUTE", DAY_S: "ONE_DAY"}
PAGE = 349
"""A span of 350 candles is the limit, and it counts both ends."""
OLDEST = 1_420_070_400
"""The beginning of 2015, when Coinbase opened."""
PRODUCTS = "/api/v3/brokerage/market/products"


def request(kind, channel, *product_ids):
    message = {"type": kind, "channel": channel}
    if product_ids:
        message["product_ids"] = product_ids
    return orjson.dumps(message).decode()


def candle_of(row):
    return Candle(int(row["start"]), *(float(row[name]) for name in ("open", "high", "low", "close", "volume")))


class CoinbaseCodec(FeedCodec):
    messages_per_second = 8
    # Coinbase ends a subscription without news after a minute unless this channel runs beside it.
    greeting = (request("subscribe", "heartbeats"),)

    def __init__(self, url):
        super().__init__(url)
        self._waiting = {}
        self._number = None
        self._closing = CloseOnNext()

    def subscribe(self, keys):
        self._waiting.update(dict.fromkeys(keys))
        self._closing.forget(keys)
        return [request("subscribe", "candles", *(key.symbol for key in keys))]

    def unsubscribe(self, keys):
        for key in keys:
            self._waiting.pop(key, None)
        return [request("unsubscribe", "candles", *(key.symbol for key in keys))]

    def decode(self, raw):
        message = orjson.loads(raw)
        if message.get("type") == "error":
            # It does not say of which product, so all that were not confirmed are asked for again in halves.
            if self._waiting:
                yield Rejected(tuple(self._waiting), message["message"])
            return
        number = message["sequence_num"]
        if self._number is not None and number != self._number + 1:
            # Messages were lost, so what is known of a candle may not be its end.
            self._closing.forget()
        self._number = number
        if message["channel"] == "subscriptions":
            names = message["events"][0]["subscriptions"].get("candles", ())
            confirmed = tuple(key for name in names if (key := StreamKey(name, INTERVAL)) in self._waiting)
            for key in confirmed:
                del self._waiting[key]
            yield Accepted(confirmed)
        elif message["channel"] == "candles":
            stamp_ms = int(datetime.fromisoformat(message["timestamp"]).timestamp() * 1000)
            for event in message["events"]:
                rows = sorted((row["product_id"], candle_of(row)) for row in event["candles"])
                if event["type"] == "snapshot":
                    # The last hours come along; the relay asks history for those that it misses.
                    rows = dict(rows).items()
                for product_id, candle in rows:
                    yield from self._closing.take(StreamKey(product_id, INTERVAL), candle, stamp_ms)


@hookimpl
def relay_provider():
    return ProviderInfo(
        name="coinbase",
        api=2,
        title="Coinbase",
        asset_classes=("crypto",),
        intervals=(INTERVAL,),
        attribution="Market data by Coinbase",
        settings=(
            Setting("ws_url", "text", "wss://advanced-trade-ws.coinbase.com", "Address of the stream server"),
            Setting("rest_url", "urls", ("https://api.coinbase.com",), "Addresses of the REST server"),
        ),
    )


@hookimpl
def relay_stream(watchlist, session, settings):
    return websocket_feed(session, CoinbaseCodec(settings["ws_url"]), watchlist)


@hookimpl
async def relay_candles(symbol, start, end, limit, session, settings):
    hosts = Hosts(settings["rest_url"])

    async def window(first, end, step_s):
        # Both ends are included; the answer is newest first.
        params = {"start": first, "end": end - 1, "granularity": GRANULARITIES[step_s]}
        answer = await ask_rest(session, hosts, f"{PRODUCTS}/{quote(symbol, safe='')}/candles", params=params)
        if answer.status == 404:
            raise UnknownSymbol(f"Coinbase does not list {symbol}")
        if answer.status != 200:
            raise answer.error((answer.body or {}).get("error_details", ""))
        return [candle_of(row) for row in answer.body["candles"]]

    return await page_candles(
        window, start=start, end=end, limit=limit, step_s=STEP_S, page=PAGE, oldest=OLDEST, coarse_s=DAY_S
    )


@hookimpl
async def relay_instruments(session, settings):
    params = {"product_type": "SPOT"}
    answer = await ask_rest(session, Hosts(settings["rest_url"]), PRODUCTS, params=params)
    if answer.status != 200:
        raise answer.error("the list of products")
    # A product with an alias is another name for the alias, under which its candles come.
    return [
        Instrument(product["product_id"], "crypto", product["base_currency_id"], product["quote_currency_id"])
        for product in answer.body["products"]
        if product["status"] == "online" and not product["is_disabled"] and not product["alias"]
    ]
