"""Drive ccxt with addresses from its constructor only, spot and futures, paging, books and two pairs; print JSON."""

import asyncio
import json
import sys

import ccxt
import ccxt.pro

REST, WS = sys.argv[1:3]
START = 1_790_000_040_000
OPTIONS = {
    "options": {"fetchCurrencies": False},
    "urls": {
        "api": {
            "public": f"{REST}/api/v3",
            "fapiPublic": f"{REST}/fapi/v1",
            "dapiPublic": f"{REST}/dapi/v1",
            "ws": {"spot": f"{WS}/ws"},
        }
    },
}


async def watch():
    exchange = ccxt.pro.binance(OPTIONS)
    try:
        await exchange.load_markets()
        seen = set()
        for _ in range(40):
            found = await exchange.watch_ohlcv_for_symbols([["BTC/USDT", "1m"], ["ETH/USDT", "1m"]])
            seen |= set(found)
            if len(seen) == 2:
                break
        await exchange.un_watch_ohlcv_for_symbols([["ETH/USDT", "1m"]])
        return sorted(seen)
    finally:
        await exchange.close()


client = ccxt.binance(OPTIONS)
markets = client.load_markets()
print(
    json.dumps(
        {
            "markets": len(markets),
            "types": sorted({market["type"] for market in markets.values()}),
            "paged": client.fetch_ohlcv(
                "BTC/USDT", "1m", since=START, limit=2500, params={"paginate": True, "until": START + 2499 * 60_000}
            ),
            "ticker": client.fetch_ticker("BTC/USDT")["symbol"],
            "tickers": sorted(client.fetch_tickers(["BTC/USDT", "ETH/USDT"])),
            "best": len(client.fetch_bids_asks()),
            "prices": len(client.fetch_last_prices()),
            "books": [
                [len(book["bids"]), len(book["asks"]), book["bids"][0][0] < book["asks"][0][0], book["nonce"] > 0]
                for book in [client.fetch_order_book("BTC/USDT", limit=limit) for limit in (5, 5, 20, 5)]
            ],
            "trades": len(client.fetch_trades("BTC/USDT", limit=7)),
            "watched": asyncio.run(watch()),
        }
    )
)
