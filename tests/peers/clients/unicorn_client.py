"""Drive unicorn-binance-websocket-api against the address given: one stream that grows and shrinks; print JSON."""

import json
import os
import sys
import time

from unicorn_binance_websocket_api.manager import BinanceWebSocketApiManager

REST, WS = sys.argv[1:3]
CLOSES = 14

manager = BinanceWebSocketApiManager(
    exchange="binance.com",
    websocket_base_uri=f"{WS}/",
    restful_base_uri=f"{REST}/",
    output_default="dict",
    warn_on_update=False,
)
stream = manager.create_stream(["kline_1s"], ["btcusdt"], stream_buffer_name="klines")
closes, others = [], set()
deadline = time.monotonic() + 150
while len(closes) < CLOSES and time.monotonic() < deadline:
    message = manager.pop_stream_data_from_stream_buffer("klines")
    if not message:
        time.sleep(0.02)
    elif "data" in message:
        kline = message["data"]["k"]
        if kline["s"] != "BTCUSDT":
            others.add(message["stream"])
        elif kline["x"]:
            closes.append(kline)
            if len(closes) == 1:
                manager.subscribe_to_stream(stream, markets=["ethusdt", "solusdt"])
                print("begun", flush=True)
            if len(closes) == CLOSES - 3:
                manager.unsubscribe_from_stream(stream, markets=["solusdt"])
print(json.dumps({"closes": closes, "others": sorted(others)}), flush=True)
# Its threads take their time to end.
os._exit(0)
