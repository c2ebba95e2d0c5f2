"""Drive the vendor's twelvedata package, REST and WebSocket, against the addresses given; print JSON."""

import json
import sys
import time

from twelvedata import TDClient
from twelvedata.exceptions import TwelveDataError

REST, WS, KEY = sys.argv[1:4]

client = TDClient(apikey=KEY, base_url=REST)


def failure(**query):
    try:
        client.time_series(**query).as_json()
    except TwelveDataError as problem:
        return [type(problem).__name__, str(problem)]
    return None


seen = []
socket = client.websocket(symbols=["EUR/USD"], on_event=seen.append)
socket.url = f"{WS}?apikey={KEY}"
socket.connect()
ends = time.monotonic() + 150
while time.monotonic() < ends and sum(1 for event in seen if event.get("event") == "price") < 5:
    socket.heartbeat()
    time.sleep(0.1)
socket.disconnect()

query = {"interval": "1min", "outputsize": 5}
print(
    json.dumps(
        {
            "utc": client.time_series(symbol="EUR/USD", timezone="UTC", **query).as_json(),
            "default": client.time_series(symbol="EUR/USD", **query).as_json(),
            "csv": client.time_series(symbol="EUR/USD", timezone="UTC", **query).as_csv(),
            "batch": client.time_series(symbol="EUR/USD,GBP/USD", timezone="UTC", **query).as_json(),
            "pairs": client.get_forex_pairs_list().as_json(),
            "usage": client.api_usage().as_json(),
            "error": failure(symbol="NOPE/USD", **query),
            "events": seen,
        }
    )
)
