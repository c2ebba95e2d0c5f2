"""What updates come over: how a client gets its streams, is refused, and comes back."""

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

from tests.support.running_relay import Answer, Message, Reader, Running

UPGRADE = {
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
}


class Transport(ABC):
    """One of the routes that updates come over."""

    name: str

    @abstractmethod
    async def reader(
        self, relay: Running, *, headers: Mapping[str, str] | None = None, token: str | None = None
    ) -> Reader:
        """Return a client for one request to subscribe; a `token` is in its address."""

    @abstractmethod
    async def refusal(
        self, relay: Running, *, headers: Mapping[str, str] | None = None, token: str | None = None
    ) -> Answer:
        """Return what somebody is answered who is not let in."""

    @abstractmethod
    async def refused_options(self, relay: Running, *names: str, **options: Any) -> Message:
        """Return the `code` and the `message` by which options are refused."""

    @abstractmethod
    async def back(
        self, relay: Running, gone: Reader, name: str, *, store: str = "", number: int | None = None, **options: Any
    ) -> Reader:
        """Return a client that goes on with a stream where another one was.

        It may say that another `store` numbered the revisions that it was told, or another `number` of the newest one.
        """

    async def subscriber(
        self,
        relay: Running,
        *names: str,
        headers: Mapping[str, str] | None = None,
        token: str | None = None,
        **options: Any,
    ) -> Reader:
        """Return a client that has these streams."""
        client = await self.reader(relay, headers=headers, token=token)
        await client.subscribe(*names, **options)
        return client


class OverWebSocket(Transport):
    """`/ws`: requests and answers."""

    name = "websocket"

    async def reader(
        self, relay: Running, *, headers: Mapping[str, str] | None = None, token: str | None = None
    ) -> Reader:
        return await relay.connect(query="" if token is None else f"?token={token}", headers=headers)

    async def refusal(
        self, relay: Running, *, headers: Mapping[str, str] | None = None, token: str | None = None
    ) -> Answer:
        return await relay.get("ws", headers={**UPGRADE, **(headers or {})}, **_token(token))

    async def refused_options(self, relay: Running, *names: str, **options: Any) -> Message:
        client = await relay.connect()
        await client.ask("subscribe", streams=[*names], **options)
        return await client.error()

    async def back(
        self, relay: Running, gone: Reader, name: str, *, store: str = "", number: int | None = None, **options: Any
    ) -> Reader:
        options["since"] = max(gone.told(name.partition("@")[0]))
        options["revision"] = number or max(message.get("revision", 0) for message in gone.received)
        options["store"] = store or gone.received[0]["store"]
        return await self.subscriber(relay, name, **options)


class OverEvents(Transport):
    """`/sse`: one request, and where a client is in all its streams is the id of an event."""

    name = "sse"

    async def reader(
        self, relay: Running, *, headers: Mapping[str, str] | None = None, token: str | None = None
    ) -> Reader:
        return relay.event_client(headers=headers or {}, query=_token(token))

    async def refusal(
        self, relay: Running, *, headers: Mapping[str, str] | None = None, token: str | None = None
    ) -> Answer:
        return await relay.get("sse", headers=headers, streams="BTCUSDT@1s", **_token(token))

    async def refused_options(self, relay: Running, *names: str, **options: Any) -> Message:
        query: dict[str, Any] = {"streams": ",".join(names), **options}
        answer = await relay.get("sse", **query)
        assert answer.status == 400
        return {"code": answer.body["code"], "message": answer.body["detail"]}

    async def back(
        self, relay: Running, gone: Reader, name: str, *, store: str = "", number: int | None = None, **options: Any
    ) -> Reader:
        of_id = re.fullmatch(r"1-(\w+)\.(\w{16})-(.+)", gone.last_id)
        assert of_id is not None, gone.last_id
        known = of_id[1] if number is None else f"{number:x}"
        client = relay.event_client(f"1-{known}.{store or of_id[2]}-{of_id[3]}")
        await client.subscribe(name, **options)
        return client


def _token(token: str | None) -> dict[str, str]:
    return {} if token is None else {"token": token}


TRANSPORTS = (OverWebSocket(), OverEvents())
