"""Have unicorn-binance-websocket-api follow more than 300 streams on one connection; print which of them came."""

import json
import os
import sys
import time

from unicorn_binance_websocket_api.manager import BinanceWebSocketApiManager

REST, WS = sys.argv[1:3]
MARKETS = sys.argv[3].split(",")
INTERVALS = ("1m", "3m", "5m", "15m", "30m", "1h", "2h", "4h", "6h", "8h", "12h", "1d", "1w", "1M")

manager = BinanceWebSocketApiManager(
    exchange="binance.com",
    websocket_base_uri=f"{WS}/",
    restful_base_uri=f"{REST}/",
    output_default="dict",
    warn_on_update=False,
)
manager.create_stream([f"kline_{interval}" for interval in INTERVALS], MARKETS, stream_buffer_name="klines")
wanted = len(MARKETS) * len(INTERVALS)
told, faults = set(), []
deadline = time.monotonic() + 150
while len(told) < wanted and time.monotonic() < deadline:
    message = manager.pop_stream_data_from_stream_buffer("klines")
    if not message:
        time.sleep(0.02)
    elif "data" in message:
        told.add(message["stream"])
    elif "error" in message:
        faults.append(message)
print(json.dumps({"wanted": wanted, "told": sorted(told), "faults": faults}), flush=True)
# Its threads take their time to end.
os._exit(0)
