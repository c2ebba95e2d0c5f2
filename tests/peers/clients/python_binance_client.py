"""Drive python-binance, REST and both kinds of sockets, against the addresses given; print JSON."""

import asyncio
import json
import sys

from binance import AsyncClient, BinanceSocketManager, Client
from binance.exceptions import BinanceAPIException

REST, WS = sys.argv[1:3]
Client.API_URL = AsyncClient.API_URL = f"{REST}/api"
BinanceSocketManager.STREAM_URL = f"{WS}/"


async def sockets():
    client = await AsyncClient.create()
    manager = BinanceSocketManager(client)
    async with manager.kline_socket("BTCUSDT", "1m") as socket:
        single = [await socket.recv() for _ in range(3)]
    names = ["btcusdt@kline_1m", "ethusdt@kline_5m"]
    async with manager.multiplex_socket(names) as socket:
        several = [await socket.recv() for _ in range(6)]
    await client.close_connection()
    return single, several


client = Client(ping=True)
try:
    client.get_klines(symbol="BTCUSDT", interval="1D")
    error = None
except BinanceAPIException as problem:
    error = [problem.status_code, problem.code, problem.message]
single, several = asyncio.run(sockets())
print(
    json.dumps(
        {
            "klines": client.get_klines(symbol="BTCUSDT", interval="1m", startTime=1_790_000_040_000, limit=3),
            "paged": len(
                client.get_historical_klines("ETHUSDT", "1m", 1_790_000_040_000, 1_790_000_040_000 + 90_000_000)
            ),
            "listed": [entry["symbol"] for entry in client.get_exchange_info()["symbols"]],
            "books": [client.get_order_book(symbol="BTCUSDT", limit=limit) for limit in (5, 5, 20)],
            "time": client.get_server_time(),
            "error": error,
            "single": single,
            "several": several,
        }
    )
)
