"""Ask a relay for klines through the client that openapi-python-client generated from its contract; print JSON."""

import json
import sys

FOLDER, URL = sys.argv[1:3]
sys.path.insert(0, FOLDER)

from generated import Client  # noqa: E402  it was made a moment ago
from generated.api.binance import binance_depth, binance_exchange_info, binance_klines, binance_time  # noqa: E402
from generated.models import BinanceError, ExchangeInfo, OrderBook, ServerTime  # noqa: E402

with Client(base_url=URL) as client:
    refused = binance_klines.sync(client=client, symbol="NOPE", interval="1m")
    assert isinstance(refused, BinanceError), refused
    listed = binance_exchange_info.sync(client=client, symbol="BTCUSDT")
    assert isinstance(listed, ExchangeInfo), listed
    book = binance_depth.sync(client=client, symbol="BTCUSDT", limit=5)
    assert isinstance(book, OrderBook), book
    now = binance_time.sync(client=client)
    assert isinstance(now, ServerTime), now
    said = {
        "rows": binance_klines.sync(
            client=client, symbol="BTCUSDT", interval="1m", start_time=1_764_000_000_000, limit=3
        ),
        "refused": refused.code,
        "listed": [one.symbol for one in listed.symbols],
        "bids": len(book.bids),
        "time": now.server_time,
    }
print(json.dumps(said))
