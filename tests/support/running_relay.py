"""A relay on a real socket with the stand-ins as its upstreams, and the client that tests speak to it with."""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from types import MappingProxyType
from typing import Any, NamedTuple

import aiohttp
import orjson
from aiohttp import WSMsgType, web
from yarl import URL

from providers import BUILTIN
from relay.app import CONFIG, HUB, NEWCOMERS, RELAY_LIMITS, RelayLimits, build_app
from relay.config.settings import Config
from relay.config.tokens import parse_tokens
from relay.core.clock import Clock
from relay.streams.hub import Hub
from relay.web.access.access import ACCESS, Access
from relay.web.idle_connections import Runner
from relay.web.ws.route import CLIENT_PINGS, CLIENTS, Clients
from tests.support.conditions import LONGEST_WAIT_S
from tests.support.contracts import check_answer, check_message
from tests.support.free_ports import free_port
from tests.support.sandbox import Sandbox

PREFIX = "/api/v1/market-data"
FUTURES = "providers.binance_usdm:BinanceUsdmProvider"
PATIENT_PINGS = CLIENT_PINGS._replace(pong_timeout_s=LONGEST_WAIT_S)
"""A client of a test answers pings only while it reads, and a test may do other things for a while."""

Message = dict[str, Any]


class Closed(Exception):
    """The relay closed the connection while a test waited for a message."""

    def __init__(self, code: int | None, reason: str) -> None:
        super().__init__(f"closed with {code} {reason}")
        self.code = code
        self.reason = reason


class Reader(ABC):
    """What updates come to. All that arrived is in `received`; `next` and `until` take messages in order."""

    last_id = ""
    """The id that came last, by which an event stream is resumed."""

    def __init__(self) -> None:
        self.received: list[Message] = []
        self._reading: asyncio.Task[None] | None = None

    @abstractmethod
    async def ask(self, action: str, **fields: Any) -> None:
        """Send a request; an underscore at the end of a name is left out (`id_`)."""

    @abstractmethod
    async def read(self, timeout_s: float | None) -> bytes | str:
        """Return the text of the next message. Raises `Closed` when there is none any more."""

    @abstractmethod
    async def settle(self) -> None:
        """Read what is on its way."""

    @abstractmethod
    async def close(self) -> None:
        """Leave."""

    @abstractmethod
    def vanish(self) -> None:
        """Be gone without a word, as a machine that is switched off."""

    async def next(self, timeout_s: float | None = LONGEST_WAIT_S) -> Message:
        """Return the next message. Raises `Closed` when there is none any more."""
        message: Message = orjson.loads(await self.read(timeout_s))
        check_message(message)
        self.received.append(message)
        return message

    async def until(self, fits: Callable[[Message], object], timeout_s: float = LONGEST_WAIT_S) -> Message:
        """Read on to the first message that fits and return it."""
        async with asyncio.timeout(timeout_s):
            while True:
                message = await self.next()
                if fits(message):
                    return message

    async def until_type(self, kind: str, **fields: Any) -> Message:
        """Read on to the first message of a type that has these fields too."""
        return await self.until(lambda m: m["type"] == kind and all(m.get(k) == v for k, v in fields.items()))

    async def seen(self, kind: str, **fields: Any) -> Message:
        """Return the first message of a type with these fields, among all that arrived or else will."""

        def fits(message: Message) -> bool:
            return message["type"] == kind and all(message.get(name) == value for name, value in fields.items())

        return next(filter(fits, self.received), None) or await self.until(fits)

    async def update(self, **fields: Any) -> Message:
        """Read on to the next `price_update` with these fields."""
        return await self.until_type("price_update", **fields)

    @property
    def updates(self) -> list[Message]:
        """All `price_update` that arrived."""
        return [message for message in self.received if message["type"] == "price_update"]

    @property
    def closed_times(self) -> list[int]:
        """The open times of all closed candles that arrived as updates."""
        return [message["candle"]["time"] for message in self.updates if message["is_closed"]]

    def told(self, symbol: str) -> list[int]:
        """Return the open times of all closed candles of a symbol that arrived, in snapshots too."""
        found: list[int] = []
        for message in self.received:
            if message.get("symbol") != symbol:
                continue
            if message["type"] == "snapshot":
                candles = message["candles"] if message["last_is_closed"] else message["candles"][:-1]
                found += [candle["time"] for candle in candles]
            elif message["type"] == "price_update" and message["is_closed"] and not message.get("revised"):
                found.append(message["candle"]["time"])
        return found

    async def answer(self, request_id: str | int) -> Message:
        """Read on to the answer to a request."""
        return await self.until(lambda m: m.get("id") == request_id)

    async def error(self) -> Message:
        """Read on to the next error."""
        return await self.until_type("error")

    async def subscribe(self, *names: str, **options: Any) -> None:
        """Subscribe to streams and wait for the confirmations (messages in between stay in `received`)."""
        await self.ask("subscribe", streams=list(names), **options)
        for _ in names:
            message = await self.until(lambda m: m["type"] in ("subscription", "error"))
            assert message["type"] == "subscription", message

    async def closing(self, timeout_s: float = LONGEST_WAIT_S) -> Closed:
        """Read until the relay closes the connection; return how."""
        try:
            async with asyncio.timeout(timeout_s):
                while True:
                    await self.next()
        except Closed as closed:
            return closed

    def read_on(self) -> None:
        """Read all that comes from now on, and answer pings: who does not is sent away after two minutes."""
        self._reading = asyncio.create_task(self._read_to_the_end())

    async def _read_to_the_end(self) -> None:
        with suppress(Closed):
            while True:
                await self.next(timeout_s=None)


class WsClient(Reader):
    """One WebSocket connection."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        super().__init__()
        self.socket = socket
        self.close_reason = ""

    async def ask(self, action: str, **fields: Any) -> None:
        """Send a request; an underscore at the end of a name is left out (`id_`)."""
        await self.send({"action": action, **{name.rstrip("_"): value for name, value in fields.items()}})

    async def send(self, request: object) -> None:
        """Send any value as JSON."""
        await self.socket.send_str(orjson.dumps(request).decode())

    async def send_text(self, text: str) -> None:
        """Send a text frame as it is."""
        await self.socket.send_str(text)

    async def read(self, timeout_s: float | None) -> bytes | str:
        """Return the text of the next message. Raises `Closed` when there is none any more."""
        frame = await self.socket.receive(timeout_s)
        if frame.type is WSMsgType.TEXT:
            return str(frame.data)
        if frame.type is WSMsgType.CLOSE:
            self.close_reason = str(frame.extra or "")
        raise Closed(self.socket.close_code, self.close_reason)

    async def settle(self) -> None:
        """Read what is on its way: until two pings in a row bring nothing but their pongs."""
        quiet = 0
        while quiet < 2:
            before = len(self.received)
            await self.ask("ping", id=before)
            await self.answer(before)
            quiet = quiet + 1 if len(self.received) == before + 1 else 0

    async def close(self) -> None:
        """Leave."""
        await self.socket.close()

    def vanish(self) -> None:
        """Be gone without a close frame."""
        transport = self.socket._writer.transport
        assert isinstance(transport, asyncio.WriteTransport)
        transport.abort()


class EventClient(Reader):
    """One connection over which Server-Sent Events come; its one request opens it.

    `last_id` is the `id` that came last, `fields` are all lines, as `name: value`.
    """

    def __init__(self, session: aiohttp.ClientSession, url: str, last_id: str = "", **options: Any) -> None:
        super().__init__()
        self._session = session
        self._url = url
        self._options = options
        self.last_id = last_id
        self.fields: list[str] = []
        self.answer_head: aiohttp.ClientResponse | None = None

    async def ask(self, action: str, **fields: Any) -> None:
        """Open the connection, and read the greeting. Raises `Closed` with the status of a refusal."""
        assert (action, self.answer_head) == ("subscribe", None), "an event stream takes one request"
        names = fields.pop("streams", None) or [f"{fields.pop('symbol')}@{fields.pop('interval')}"]
        fields.pop("id", None)
        query = {"streams": ",".join(names), **{name: orjson.dumps(value).decode() for name, value in fields.items()}}
        headers = {**self._options.get("headers", {}), **({"Last-Event-ID": self.last_id} if self.last_id else {})}
        address = URL(f"{self._url}{PREFIX}/sse").with_query({**query, **self._options.get("query", {})})
        answer = await self._session.get(address, headers=headers, timeout=aiohttp.ClientTimeout(None))
        if answer.status != 200:
            raise Closed(answer.status, (await answer.json(content_type=None))["detail"])
        assert answer.content_type == "text/event-stream"
        self.answer_head = answer
        assert (await self.next())["message"] == "market-relay"

    async def read(self, timeout_s: float | None) -> bytes | str:
        """Return the `data` of the next message. Raises `Closed` when there is none any more."""
        assert self.answer_head is not None
        async with asyncio.timeout(timeout_s):
            while True:
                event: dict[str, str] = {}
                while line := (await self.answer_head.content.readline()).decode():
                    if line == "\n":
                        break
                    self.fields.append(line.rstrip("\n"))
                    name, _, value = self.fields[-1].partition(":")
                    event[name] = value.removeprefix(" ")
                else:
                    raise Closed(None, "without a word")
                self.last_id = event.get("id", self.last_id)
                if event.get("event") == "close":
                    said = orjson.loads(event["data"])
                    raise Closed(said["code"], said["reason"])
                if "data" in event:
                    return event["data"]

    async def settle(self) -> None:
        """Read what is on its way: until nothing comes for a tenth of a second."""
        with suppress(TimeoutError):
            while True:
                await self.next(timeout_s=0.1)

    async def close(self) -> None:
        """Leave."""
        self.vanish()

    def vanish(self) -> None:
        """Be gone: nothing could be said."""
        if self.answer_head is not None:
            self.answer_head.close()


class Answer(NamedTuple):
    """What a REST request was answered."""

    status: int
    headers: Mapping[str, str]
    body: Any
    text: str


class Running:
    """A relay that runs. `app` is what `build_app` made."""

    def __init__(self, app: web.Application, runner: web.AppRunner, url: str) -> None:
        self.app = app
        self.url = url
        self._runner = runner
        self._session = aiohttp.ClientSession()
        # One that a test does not keep would be closed when it is collected.
        self._readers: list[Reader] = []

    @property
    def hub(self) -> Hub:
        return self.app[HUB]

    @property
    def access(self) -> Access:
        return self.app[ACCESS]

    @property
    def clients(self) -> Clients:
        return self.app[CLIENTS]

    async def connect(
        self, *, query: str = "", headers: Mapping[str, str] | None = None, hello: bool = True, **options: Any
    ) -> WsClient:
        """Open a WebSocket connection and read the greeting. Raises `aiohttp.WSServerHandshakeError`."""
        options.setdefault("max_msg_size", 0)
        options.setdefault("timeout", aiohttp.ClientWSTimeout(ws_close=2.0))
        client = WsClient(await self._session.ws_connect(f"{self.url}{PREFIX}/ws{query}", headers=headers, **options))
        self._readers.append(client)
        if hello:
            message = await client.next()
            assert message["type"] == "status", message
        return client

    def event_client(self, last_id: str = "", **options: Any) -> EventClient:
        """Return a client that gets events once it subscribes; it resumes where another had `last_id`."""
        client = EventClient(self._session, self.url, last_id, **options)
        self._readers.append(client)
        return client

    async def get(
        self, path: str, *, method: str = "GET", headers: Mapping[str, str] | None = None, **query: str | int
    ) -> Answer:
        """Ask a route; `path` is taken as it is when it starts with a slash, else below the API's prefix."""
        address = URL(self.url + (path if path.startswith("/") else f"{PREFIX}/{path}"), encoded=True)
        if query:
            address = address.with_query(query)
        async with self._session.request(method, address, headers=headers) as answer:
            raw = await answer.read()
            is_json = answer.content_type in ("application/json", "application/problem+json")
            body = orjson.loads(raw) if is_json and raw else None
            if raw or answer.status == 304:
                check_answer(method, address.path, answer.status, answer.content_type, body)
            return Answer(answer.status, answer.headers, body, raw.decode("utf-8", "replace"))

    async def close(self) -> None:
        """End the clients, then the relay: one that reads no longer would keep it waiting."""
        await self._session.close()
        await self._runner.cleanup()


def settings_of(sandbox: Sandbox, tables: Mapping[str, Mapping[str, Any]] | None = None) -> dict[str, dict[str, Any]]:
    """Return provider tables that point at the stand-ins; `tables` are put over them, None takes a key away."""
    found: dict[str, dict[str, Any]] = {name: dict(table) for name, table in sandbox.provider_settings().items()}
    found["twelve_data"].update(market_hours="always", poll_seconds=1)
    for name, table in (tables or {}).items():
        found.setdefault(name, {}).update(table)
        found[name] = {key: value for key, value in found[name].items() if value is not None}
    return found


def config_of(tables: Mapping[str, Mapping[str, Any]], **settings: Any) -> Config:
    """Return a configuration for tests: nothing kept, short linger, no environment."""
    merged: dict[str, Any] = {"database": ":memory:", "linger_seconds": 0.2, "flush_ms": 5, "port": 0, **settings}
    merged["tokens"] = parse_tokens(merged.get("tokens", ()))
    return Config(**merged, tables=MappingProxyType(dict(tables)), environ=MappingProxyType({}))


async def start_relay(
    sandbox: Sandbox,
    *,
    builtin: Iterable[object] = BUILTIN,
    tables: Mapping[str, Mapping[str, Any]] | None = None,
    clock: Clock | None = None,
    limits: RelayLimits = RELAY_LIMITS,
    with_stand_ins: bool = True,
    installed: bool = False,
    **settings: Any,
) -> Running:
    """Start a relay with the stand-ins as its upstreams; close it yourself.

    Unless `port` is given it has one that nobody else gets, so that another relay can come back to it. Plugins of
    installed packages are left out if not `installed`: to look for them reads a file of each package. Pongs are waited
    for as `PATIENT_PINGS` say, unless `limits` say something of pings.
    """
    if limits.pings == CLIENT_PINGS:
        limits = limits._replace(pings=PATIENT_PINGS)
    settings.setdefault("port", free_port())
    given = settings_of(sandbox, tables) if with_stand_ins else tables or {}
    app = build_app(
        config_of(given, **settings),
        # Without a stand-in it would contact the exchange.
        [one for one in builtin if one != FUTURES or "binance_usdm" in given],
        clock,
        limits=limits,
        installed=installed,
    )
    return await run_app(app)


async def run_app(app: web.Application) -> Running:
    """Start what `build_app` made; close it yourself."""
    runner = Runner(app, shutdown_timeout=2.0)
    try:
        await runner.setup()
        host, port = await runner.listen(app[NEWCOMERS], "127.0.0.1", app[CONFIG].port)
    except BaseException:
        await runner.cleanup()
        raise
    return Running(app, runner, f"http://{host}:{port}")


@asynccontextmanager
async def relays(sandbox: Sandbox) -> AsyncIterator[Callable[..., Awaitable[Running]]]:
    """Start relays against the stand-ins, or another `sandbox`, as `start_relay` does; all end with the block."""
    async with AsyncExitStack() as stack:

        async def start(**settings: Any) -> Running:
            running = await start_relay(settings.pop("sandbox", sandbox), **settings)
            stack.push_async_callback(running.close)
            return running

        yield start


async def end_process(process: asyncio.subprocess.Process) -> None:
    """Kill a process, if it has not ended, and wait for that.

    `wait` alone waits for the pipes as well, and so for ever where more was written than is read.
    """
    if process.returncode is None:
        process.kill()
    await process.communicate()
