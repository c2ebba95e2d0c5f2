"""Drive the vendor's own binance-sdk-spot against the addresses given; print JSON."""

import asyncio
import json
import sys

from binance_common.configuration import ConfigurationRestAPI, ConfigurationWebSocketStreams
from binance_sdk_spot.spot import Spot

REST, WS = sys.argv[1:3]

spot = Spot(
    # By itself it waits for a second, which is not enough on a busy machine.
    config_rest_api=ConfigurationRestAPI(base_path=REST, timeout=30_000),
    config_ws_streams=ConfigurationWebSocketStreams(stream_url=WS),
)


def plain(value):
    if hasattr(value, "to_dict"):
        return value.to_dict()
    if isinstance(value, list):
        return [plain(item) for item in value]
    return getattr(value, "actual_instance", value)


async def watch():
    connection = await spot.websocket_streams.create_connection()
    stream = await connection.kline(symbol="btcusdt", interval="1m")
    seen = []
    enough = asyncio.Event()

    def take(message):
        seen.append(message.to_dict() if hasattr(message, "to_dict") else message)
        if len(seen) >= 3:
            enough.set()

    stream.on("message", take)
    await asyncio.wait_for(enough.wait(), 150)
    await stream.unsubscribe()
    await connection.close_connection(close_session=True)
    return seen


answer = spot.rest_api.klines(symbol="BTCUSDT", interval="1m", limit=5)
limits = [[limit.rateLimitType, limit.count] for limit in answer.rate_limits]
rows = plain(answer.data())
moment = spot.rest_api.time().data().server_time
watched = asyncio.run(watch())
print(json.dumps({"klines": rows, "limits": limits, "time": moment, "watched": watched}, default=str))
