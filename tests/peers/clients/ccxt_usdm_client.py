"""Drive ccxt's class for USD-M futures, REST and WebSocket, against the addresses given; print what it understood."""

import asyncio
import json
import sys

import ccxt
import ccxt.pro

REST, WS, START = sys.argv[1:4]
SETTINGS = {
    "options": {"fetchCurrencies": False},
    "urls": {"api": {"fapiPublic": f"{REST}/fapi/v1", "ws": {"linear": f"{WS}/ws"}}},
}
PERPETUAL = "BTC/USDT:USDT"


async def watch(dated):
    exchange = ccxt.pro.binanceusdm(SETTINGS)
    try:
        seen = {}
        for _ in range(12):
            found = await exchange.watch_ohlcv_for_symbols([[PERPETUAL, "1m"], [dated, "1m"]])
            for symbol, rows in found.items():
                for row in rows["1m"]:
                    seen.setdefault(symbol, {})[row[0]] = row
        return {symbol: [rows[key] for key in sorted(rows)] for symbol, rows in seen.items()}
    finally:
        await exchange.close()


client = ccxt.binanceusdm(SETTINGS)
markets = client.load_markets()
dated = next(one["symbol"] for one in markets.values() if one["future"] and one["id"].startswith("BTCUSDT_"))
try:
    client.fapipublic_get_klines({"symbol": "NOPEUSDT", "interval": "1m"})
    error = None
except ccxt.BaseError as problem:
    error = type(problem).__name__
print(
    json.dumps(
        {
            "markets": {one["id"]: [one["type"], one["active"], one["expiry"]] for one in markets.values()},
            "time": client.fetch_time(),
            "candles": client.fetch_ohlcv(PERPETUAL, "1m", since=int(START), limit=5),
            "paged": len(client.fetch_ohlcv(PERPETUAL, "1m", since=int(START), params={"paginate": True}, limit=2000)),
            "newest": client.fetch_ohlcv(dated, "1h", limit=3),
            "ticker": client.fetch_ticker(PERPETUAL)["symbol"],
            "book": [len(client.fetch_order_book(PERPETUAL, limit=5)[side]) for side in ("bids", "asks")],
            "trades": len(client.fetch_trades(PERPETUAL, limit=7)),
            "error": error,
            "watched": asyncio.run(watch(dated)),
            "dated": dated,
        }
    )
)
