"""A venue on a WebSocket whose messages say plainly what they mean."""

from collections.abc import Iterable, Sequence

import orjson
from aiohttp import web

from relay import Accepted, Candle, Closing, FeedCodec, PastChange, PriceUpdate, Rejected, StreamKey
from relay.upstream.codec import Decoded
from tests.support.pump import keys


class PlainCodec(FeedCodec):
    """A venue whose messages say plainly what they mean."""

    def __init__(self, url: str, limit: int | None = None) -> None:
        self.messages_per_second = limit
        self.address = url
        self.failures: list[int | None] = []

    @property
    def url(self) -> str:
        return self.address

    def connect_failed(self, status: int | None) -> None:
        self.failures.append(status)

    def subscribe(self, keys: Sequence[StreamKey]) -> Iterable[str]:
        return [orjson.dumps({"subscribe": [str(key) for key in keys]}).decode()]

    def unsubscribe(self, keys: Sequence[StreamKey]) -> Iterable[str]:
        return [orjson.dumps({"unsubscribe": [str(key) for key in keys]}).decode()]

    def decode(self, raw: str | bytes) -> Iterable[Decoded]:
        message = orjson.loads(raw)
        if "accepted" in message:
            return [Accepted(tuple(keys(*message["accepted"])))]
        if "rejected" in message:
            return [Rejected(tuple(keys(*message["rejected"])), message["reason"])]
        if "closing" in message:
            return [Closing(message["closing"])]
        if "changed" in message:
            return [PastChange(keys(message["changed"])[0], message["before"], settle_s=1.0)]
        price = float(message["price"])
        return [PriceUpdate(keys(message["stream"])[0], Candle(60, price, price, price, price))]


async def accept_all(socket: web.WebSocketResponse, content: dict[str, list[str]]) -> None:
    await socket.send_bytes(orjson.dumps({"accepted": content.get("subscribe", [])}))
