"""Collect fourteen closed seconds of BTCUSDT with the program that is named, from the addresses given; print JSON."""

import asyncio
import json
import sys

PROGRAM, REST, WS = sys.argv[1:4]
CLOSES = 14


class Closes:
    """Rows by their open time; says when the first has come."""

    def __init__(self):
        self.rows = {}

    @property
    def is_enough(self):
        return len(self.rows) >= CLOSES

    def take(self, row):
        if not self.rows:
            print("begun", flush=True)
        assert row[0] not in self.rows, "a candle closed twice"
        assert not self.is_enough or row[0] > max(self.rows)
        if not self.is_enough:
            self.rows[row[0]] = row

    def take_kline(self, kline):
        if kline["x"]:
            self.take([kline["t"], *(kline[name] for name in "ohlcv")])


async def ccxt(closes):
    import ccxt.pro

    # Of seconds there are closed candles only.
    exchange = ccxt.pro.binance(
        {
            "options": {"fetchMarkets": {"types": ["spot"]}, "fetchCurrencies": False},
            "urls": {"api": {"public": f"{REST}/api/v3", "ws": {"spot": f"{WS}/ws"}}},
        }
    )
    while not closes.is_enough:
        for row in await exchange.watch_ohlcv("BTC/USDT", "1s"):
            closes.take([*row])
    await exchange.close()


async def python_binance(closes):
    from binance import AsyncClient, BinanceSocketManager

    AsyncClient.API_URL = f"{REST}/api"
    BinanceSocketManager.STREAM_URL = f"{WS}/"
    client = await AsyncClient.create()
    async with BinanceSocketManager(client).kline_socket("BTCUSDT", "1s") as socket:
        while not closes.is_enough:
            closes.take_kline((await socket.recv())["k"])
    await client.close_connection()


async def binance_sdk_spot(closes):
    from binance_common.configuration import ConfigurationWebSocketStreams
    from binance_sdk_spot.spot import Spot

    streams = Spot(config_ws_streams=ConfigurationWebSocketStreams(stream_url=WS)).websocket_streams
    connection = await streams.create_connection()
    stream = await connection.kline(symbol="btcusdt", interval="1s")
    stream.on("message", lambda message: closes.take_kline(message.to_dict()["k"]))
    while not closes.is_enough:  # noqa: ASYNC110  the program calls back
        await asyncio.sleep(0.05)
    await connection.close_connection(close_session=True)


taken = Closes()
asyncio.run({"ccxt": ccxt, "python-binance": python_binance, "binance-sdk-spot": binance_sdk_spot}[PROGRAM](taken))
print(json.dumps([*taken.rows.values()]))
