"""Drive binance-connector, REST and both kinds of sockets, against the addresses given; print JSON."""

import json
import sys
import threading

from binance.error import ClientError
from binance.spot import Spot
from binance.websocket.spot.websocket_stream import SpotWebsocketStreamClient

REST, WS = sys.argv[1:3]
CLOSES = 14


def error_of(call, **parameters):
    try:
        call(**parameters)
    except ClientError as error:
        return [error.status_code, error.error_code]
    return None


def watch():
    """Collect closed klines on one socket, with a second stream that is subscribed to later."""
    answers, klines = [], []
    enough = threading.Event()

    def take(_, text):
        message = json.loads(text)
        if "result" in message:
            answers.append(message["result"])
            return
        if message["k"]["x"]:
            klines.append(message["k"])
            if len(klines) == 1:
                print("begun", flush=True)
            if len(klines) >= CLOSES:
                enough.set()

    client = SpotWebsocketStreamClient(stream_url=WS, on_message=take)
    client.kline("btcusdt", "1s")
    client.list_subscribe()
    enough.wait(40)
    client.stop()
    return answers, klines


def combined():
    names = []
    enough = threading.Event()

    def take(_, text):
        message = json.loads(text)
        if "stream" in message:
            names.append(message["stream"])
            enough.set()

    client = SpotWebsocketStreamClient(stream_url=WS, on_message=take, is_combined=True)
    client.subscribe(["ethusdt@kline_1m"])
    enough.wait(20)
    client.stop()
    return names[0]


spot = Spot(base_url=REST, show_limit_usage=True)
private = Spot(base_url=REST, api_key="a-key", api_secret="a-secret")
used = spot.klines("BTCUSDT", "1m", limit=3)["limit_usage"]
answers, klines = watch()
print(
    json.dumps(
        {
            "klines": spot.klines("BTCUSDT", "1m", startTime=1_790_000_040_000, limit=3)["data"],
            "ui_klines": len(spot.ui_klines("BTCUSDT", "5m")["data"]),
            "time": spot.time()["data"]["serverTime"],
            "listed": [one["symbol"] for one in spot.exchange_info(symbols=["BTCUSDT", "ETHUSDT"])["data"]["symbols"]],
            "book": len(spot.depth("BTCUSDT", limit=5)["data"]["bids"]),
            "ticker": spot.ticker_24hr("BTCUSDT")["data"]["symbol"],
            "used": sorted(used),
            "errors": [error_of(spot.klines, symbol="NOPE", interval="1m"), error_of(private.account)],
            "answers": answers,
            "closes": klines,
            "combined": combined(),
        }
    )
)
