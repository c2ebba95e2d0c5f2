"""Client of a running relay: streams that survive lost connections, and the REST routes; nothing about terminals.

    async with RelayClient("http://127.0.0.1:8000") as client:
        await client.subscribe("BTCUSDT@1m", bars=100)
        async for message in client:
            match message:
                case Snapshot(candles=candles): ...
                case Update(candle=candle, is_closed=True): ...

What the relay promises for one connection, the client keeps across connections: every closed candle once and in order.
"""

from relay.client.answers import History, ListedInstrument
from relay.client.errors import (
    BadArgument,
    BadReply,
    ClientClosed,
    ClientError,
    Disconnected,
    MissingPackage,
    Refused,
    Unreachable,
)
from relay.client.messages import (
    Confirmed,
    Connected,
    Failure,
    Gap,
    Lost,
    Message,
    Outdated,
    Snapshot,
    State,
    StreamState,
    Update,
)
from relay.client.parsing import DEFAULT_URL, parse_stream, parse_url
from relay.client.relay_client import RelayClient
from relay.core.errors import Code
from relay.core.model import Candle, ExtendedCandle, StreamKey

__all__ = [
    "DEFAULT_URL",
    "BadArgument",
    "BadReply",
    "Candle",
    "ClientClosed",
    "ClientError",
    "Code",
    "Confirmed",
    "Connected",
    "Disconnected",
    "ExtendedCandle",
    "Failure",
    "Gap",
    "History",
    "ListedInstrument",
    "Lost",
    "Message",
    "MissingPackage",
    "Outdated",
    "Refused",
    "RelayClient",
    "Snapshot",
    "State",
    "StreamKey",
    "StreamState",
    "Unreachable",
    "Update",
    "parse_stream",
    "parse_url",
]
