"""Drive ccxt, REST and WebSocket, against the addresses given; print what it understood as JSON."""

import asyncio
import json
import sys

import ccxt
import ccxt.pro

REST, WS = sys.argv[1:3]
OPTIONS = {"options": {"fetchMarkets": {"types": ["spot"]}, "fetchCurrencies": False}}


def point(exchange):
    exchange.urls["api"]["public"] = f"{REST}/api/v3"
    return exchange


async def watch():
    exchange = point(ccxt.pro.binance(OPTIONS))
    exchange.urls["api"]["ws"]["spot"] = f"{WS}/ws"
    try:
        seen = {}
        for _ in range(12):
            for row in await exchange.watch_ohlcv("BTC/USDT", "1m"):
                seen[row[0]] = row
        return [seen[key] for key in sorted(seen)]
    finally:
        await exchange.close()


client = point(ccxt.binance(OPTIONS))
markets = client.fetch_markets()
try:
    client.public_get_klines({"symbol": "NOPEUSDT", "interval": "1m"})
    error = None
except ccxt.BaseError as problem:
    error = type(problem).__name__
print(
    json.dumps(
        {
            "markets": {market["symbol"]: market["active"] for market in markets},
            "time": client.fetch_time(),
            "candles": client.fetch_ohlcv("BTC/USDT", "1m", since=1_790_000_040_000, limit=5),
            "newest": client.fetch_ohlcv("BTC/USDT", "1h", limit=3),
            "error": error,
            "watched": asyncio.run(watch()),
        }
    )
)
