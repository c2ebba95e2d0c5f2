"""The bus over NATS: core messages, and one bucket in memory for leases, whose values live for two seconds."""

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from typing import Any, NamedTuple, TypeVar

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription as NatsSubscription
from nats.errors import Error as NatsError
from nats.errors import NoRespondersError
from nats.js.api import KeyValueConfig, StorageType
from nats.js.errors import KeyWrongLastSequenceError, NoStreamResponseError, ServiceUnavailableError
from nats.js.kv import KeyValue

from relay.cluster.bus import BusError, OnMessage, OnRequest
from relay.cluster.wire.parts import PartedAnswer, parted_answer
from relay.cluster.wire.wire_values import Malformed
from relay.telemetry.events import event

log = logging.getLogger(__name__)

T = TypeVar("T")

CALL_TIMEOUT_S = 1.0
"""A lease that is not written within this is as good as none."""
CONNECT_TIMEOUT_S = 2
AGAIN_S = 0.5
PING_EVERY_S = 2
_LOOK_S = 0.25
MOST_WAITING_BYTES = 64 * 2**20
MOST_PENDING = 65_536
PART_TIMEOUT_S = 2.0
"""The next part of an answer comes within this, or is lost."""
_USUAL_MOST_BYTES = 2**20
_NO_RESPONDERS = "503"


class NatsAccess(NamedTuple):
    """Where NATS is, and who the relay is there."""

    urls: tuple[str, ...]
    credentials: str = ""
    name: str = ""


class _Heard:
    """A subject that is listened to or answered, on whichever connection there is."""

    def __init__(self, bus: "NatsBus", subject: str, take: Callable[[Msg], Awaitable[None]]) -> None:
        self.subject = subject
        self.take = take
        self.client: Client | None = None
        self.on_server: NatsSubscription | None = None
        self._bus = bus

    def end(self) -> None:
        """Hear nothing more."""
        self._bus.forget(self)


class NatsBus:
    """A connection to NATS that is opened again whenever it is lost; see `Bus`.

    Each time by a client of its own: the library's reconnects by itself only after some losses, and stays closed when
    the server refuses it once, as after a change of passwords.
    """

    def __init__(self, access: NatsAccess, bucket: str, *, ttl_s: float) -> None:
        self._access = access
        self._bucket = bucket
        self._ttl_s = ttl_s
        self._client: Client | None = None
        self._leases: KeyValue | None = None
        self._heard: dict[_Heard, None] = {}
        self._out: deque[tuple[str, bytes]] = deque()
        self._out_bytes = 0
        self._has_work = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._answering: set[asyncio.Task[None]] = set()
        self._is_logged = False
        self._dropped = 0

    @property
    def is_connected(self) -> bool:
        """Whether a server is reached now, and knows what is heard here."""
        return self._client is not None and self._client.is_connected

    @property
    def lost(self) -> int:
        """How many messages were dropped because they were read or written too slowly, or too large."""
        return self._dropped

    @property
    def most_bytes(self) -> int:
        """How large a message may be: as the server says that is reached now."""
        return _USUAL_MOST_BYTES if self._client is None else self._client.max_payload

    # -- the connection ----------------------------------------------------------------------------

    async def start(self) -> None:
        """Begin to connect, and go on until `close`; returns at once."""
        self._tasks = [
            asyncio.create_task(self._connect_forever(), name="nats"),
            asyncio.create_task(self._write_forever(), name="nats writer"),
        ]

    async def _connect_forever(self) -> None:
        again = ""
        while True:
            is_over = asyncio.Event()
            try:
                client = await self._connected(is_over)
            except Exception as error:  # noqa: BLE001 - whatever it raises: nobody else would try again
                self._say_lost(error)
                await asyncio.sleep(AGAIN_S)
                continue
            opened_at = asyncio.get_running_loop().time()
            self._client, self._is_logged = client, False
            log.info("connected to NATS%s", again, extra=event("bus_connected"))
            again = " again"
            for heard in [*self._heard]:
                await self._subscribe(heard, client)
            while not client.is_closed:
                # The event comes only once the socket is closed, which a peer that is gone can delay.
                with suppress(TimeoutError):
                    await asyncio.wait_for(is_over.wait(), _LOOK_S)
            self._client = self._leases = None
            self._say_lost(client.last_error or ConnectionError())
            # One that was held long is opened again at once; a server that takes and drops it is not hurried.
            await asyncio.sleep(max(0.0, opened_at + AGAIN_S - asyncio.get_running_loop().time()))

    async def _connected(self, is_over: asyncio.Event) -> Client:
        """Return a client that is connected, once the server knows what is heard. Raises whatever the library does.

        Whoever learns of this relay by a message of it may ask it at once.
        """

        async def end() -> None:
            is_over.set()

        options: dict[str, Any] = {}
        if self._access.credentials:
            options["user_credentials"] = self._access.credentials
        client = Client()
        try:
            await client.connect(
                [*self._access.urls],
                name=self._access.name,
                error_cb=self._note_error,
                closed_cb=end,
                connect_timeout=CONNECT_TIMEOUT_S,
                allow_reconnect=False,
                ping_interval=PING_EVERY_S,
                max_outstanding_pings=2,
                pending_size=MOST_WAITING_BYTES,
                no_echo=True,
                **options,
            )
            for heard in [*self._heard]:
                await self._subscribe(heard, client)
            await client.flush(CONNECT_TIMEOUT_S)
        except BaseException:
            with suppress(NatsError, OSError, TimeoutError):
                async with asyncio.timeout(1.0):
                    await client.close()
            raise
        return client

    async def _note_error(self, error: Exception) -> None:
        if type(error).__name__ == "SlowConsumerError":
            self._dropped += 1
        self._say_lost(error)

    def _say_lost(self, error: BaseException) -> None:
        if not self._is_logged:
            self._is_logged = True
            # Not the text: it may name an address with a password.
            log.warning("NATS: %s", type(error).__name__, extra=event("bus_trouble", reason=type(error).__name__))

    async def close(self) -> None:
        """Send what waits, then disconnect."""
        for task in (*self._tasks, *self._answering):
            task.cancel()
        await asyncio.gather(*self._tasks, *self._answering, return_exceptions=True)
        if self._client is not None:
            with suppress(NatsError, OSError, TimeoutError):
                async with asyncio.timeout(1.0):
                    while self._out and self.is_connected:
                        await self._client.publish(*self._out.popleft())
                    if self.is_connected:
                        await self._client.flush(1)
            with suppress(NatsError, OSError, TimeoutError):
                async with asyncio.timeout(1.0):
                    await self._client.close()

    # -- messages ----------------------------------------------------------------------------------

    def send(self, subject: str, body: bytes) -> None:
        """Send a message; nothing is kept while there is no connection."""
        if not self.is_connected or self._out_bytes > MOST_WAITING_BYTES:
            self._dropped += self.is_connected
            return
        self._out.append((subject, body))
        self._out_bytes += len(body)
        self._has_work.set()

    async def _write_forever(self) -> None:
        while True:
            while self._out:
                subject, body = self._out.popleft()
                self._out_bytes -= len(body)
                client = self._client
                if client is None or not client.is_connected:
                    continue
                try:
                    await client.publish(subject, body)
                except (NatsError, OSError) as error:
                    self._dropped += 1
                    self._say_lost(error)
            await self._has_work.wait()
            self._has_work.clear()

    def listen(self, subject: str, take: OnMessage) -> _Heard:
        """Hear all messages of a subject, also after the connection was lost."""

        async def hand_on(message: Msg) -> None:
            take(message.data)

        return self._hear(_Heard(self, subject, hand_on))

    def answer(self, subject: str, give: OnRequest) -> _Heard:
        """Answer all requests to a subject."""

        async def reply(message: Msg) -> None:
            body = await give(message.data)
            try:
                for part in parted_answer(body, self.most_bytes):
                    await message.respond(part)
            except (NatsError, OSError, ValueError) as error:
                self._dropped += 1
                self._say_lost(error)

        async def begin(message: Msg) -> None:
            # A task each: one that takes long holds up no other.
            self._start(reply(message))

        return self._hear(_Heard(self, subject, begin))

    def _hear(self, heard: _Heard) -> _Heard:
        self._heard[heard] = None
        if self._client is not None:
            self._start(self._subscribe(heard, self._client))
        return heard

    def forget(self, heard: _Heard) -> None:
        """End a subscription. Harmless when it has ended."""
        if heard in self._heard:
            del self._heard[heard]
            if heard.on_server is not None:
                self._start(self._unsubscribe(heard.on_server))

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._answering.add(task)
        task.add_done_callback(self._answering.discard)

    async def _subscribe(self, heard: _Heard, client: Client) -> None:
        if heard.client is client or heard not in self._heard:
            return
        heard.client = client
        with suppress(NatsError, OSError):
            heard.on_server = await client.subscribe(
                heard.subject, cb=heard.take, pending_msgs_limit=MOST_PENDING, pending_bytes_limit=MOST_WAITING_BYTES
            )

    async def _unsubscribe(self, on_server: NatsSubscription) -> None:
        with suppress(NatsError, OSError):
            await on_server.unsubscribe()

    async def request(self, subject: str, body: bytes, timeout_s: float) -> bytes:
        """Return the answer to a request. Raises `BusError`."""
        client = self._client
        if client is None or not client.is_connected:
            raise BusError("there is no connection to NATS")
        try:
            async with asyncio.timeout(timeout_s):
                return await self._answer_of(client, subject, body)
        except Malformed as error:
            raise BusError("parts of the answer are missing") from error
        except (NatsError, OSError, TimeoutError) as error:
            raise BusError(f"no answer ({type(error).__name__})") from error

    async def _answer_of(self, client: Client, subject: str, body: bytes) -> bytes:
        """Return what comes to an inbox of its own: the library's request takes one message only."""
        inbox = client.new_inbox()
        replies = await client.subscribe(inbox, pending_msgs_limit=MOST_PENDING, pending_bytes_limit=MOST_WAITING_BYTES)
        try:
            await client.publish(subject, body, reply=inbox)
            answer = PartedAnswer()
            wait_s: float | None = None
            while answer.body is None:
                message = await replies.next_msg(timeout=wait_s)
                if not message.data and (message.headers or {}).get("Status") == _NO_RESPONDERS:
                    raise NoRespondersError
                answer.take(message.data)
                wait_s = PART_TIMEOUT_S
            return answer.body
        finally:
            await self._unsubscribe(replies)

    # -- leases ------------------------------------------------------------------------------------

    async def acquire(self, name: str, value: bytes) -> int | None:
        """Write a lease that nobody has; return its revision, None if somebody has it. Raises `BusError`."""
        return await self._written(lambda leases: leases.create(name, value))

    async def renew(self, name: str, value: bytes, revision: int) -> int | None:
        """Write a lease anew; return its revision, None if that is another one by now. Raises `BusError`."""
        return await self._written(lambda leases: leases.update(name, value, last=revision))

    async def give_up(self, name: str, revision: int) -> None:
        """Delete a lease, unless it is somebody else's by now. Raises `BusError`."""
        # Who has it by now wrote it with another revision: the server refuses that as it refuses all that is wrong.
        await self._written(lambda leases: leases.delete(name, last=revision))

    async def touch(self, name: str, value: bytes) -> None:
        """Write a value whoever wrote it before. Raises `BusError`."""
        await self._written(lambda leases: leases.put(name, value))

    async def _written(self, write: Callable[[KeyValue], Awaitable[T]]) -> T | None:
        try:
            async with asyncio.timeout(CALL_TIMEOUT_S):
                return await write(await self._bucket_of_leases())
        except KeyWrongLastSequenceError:
            return None
        except NoStreamResponseError as error:
            # The server lost its memory, and the bucket with it: the next call makes it anew.
            self._leases = None
            raise BusError("NATS has no bucket for leases") from error
        except ServiceUnavailableError as error:
            self._leases = None
            raise BusError("it has no JetStream for this relay (nats-server -js)") from error
        except (NatsError, OSError, TimeoutError) as error:
            raise BusError(f"a lease cannot be written ({type(error).__name__})") from error

    async def _bucket_of_leases(self) -> KeyValue:
        if self._client is None or not self._client.is_connected:
            raise BusError("there is no connection to NATS")
        if self._leases is None:
            config = KeyValueConfig(bucket=self._bucket, ttl=self._ttl_s, storage=StorageType.MEMORY, history=1)
            self._leases = await self._client.jetstream(timeout=CALL_TIMEOUT_S).create_key_value(config)
        return self._leases
