"""Drive python-binance's calls and sockets for USD-M futures against the addresses given; print JSON.

The kline socket of its own is of continuous contracts, which the exchange has: with a fourth argument it is used, too.
"""

import asyncio
import json
import sys

from binance import AsyncClient, BinanceSocketManager, Client
from binance.exceptions import BinanceAPIException

REST, WS, START = sys.argv[1:4]
Client.FUTURES_URL = AsyncClient.FUTURES_URL = f"{REST}/fapi"
BinanceSocketManager.FSTREAM_URL = f"{WS}/"


async def sockets():
    # `AsyncClient.create` would ask spot for the time.
    client = AsyncClient()
    manager = BinanceSocketManager(client)
    async with manager.futures_multiplex_socket(["btcusdt@kline_1m", "ethusdt@kline_5m"]) as socket:
        several = [await socket.recv() for _ in range(8)]
    continuous = []
    if len(sys.argv) > 4:
        async with manager.kline_futures_socket("BTCUSDT", "1m") as socket:
            continuous = [await socket.recv() for _ in range(3)]
    await client.close_connection()
    return several, continuous


client = Client(ping=False)
try:
    client.futures_klines(symbol="BTCUSDT", interval="1m", limit=1501)
    error = None
except BinanceAPIException as problem:
    error = [problem.status_code, problem.code, problem.message]
several, continuous = asyncio.run(sockets())
paged = client.futures_historical_klines("ETHUSDT", "1m", int(START), int(START) + 90_000_000)
print(
    json.dumps(
        {
            "klines": client.futures_klines(symbol="BTCUSDT", interval="1m", startTime=int(START), limit=3),
            "paged": len(paged),
            "listed": [entry["symbol"] for entry in client.futures_exchange_info()["symbols"]],
            "time": client.futures_time()["serverTime"],
            "ping": client.futures_ping(),
            "error": error,
            "several": several,
            "continuous": continuous,
        }
    )
)
