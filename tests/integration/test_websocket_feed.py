import asyncio
import struct
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Sequence

import aiohttp
import orjson
import pytest
from aiohttp import web

from relay import (
    AuthenticationFailed,
    BadAnswer,
    Candle,
    FeedCodec,
    Pace,
    PastChange,
    PriceUpdate,
    ProviderError,
    ProviderUnavailable,
    RateLimited,
    StreamKey,
    Watchlist,
    websocket_feed,
)
from relay.upstream.codec import Decoded
from relay.upstream.rest import MAX_RETRY_AFTER_S
from relay.upstream.websocket_feed import SOCKET_LIMITS, SocketLimits
from tests.support.conditions import LONGEST_WAIT_S
from tests.support.loopback_server import app_of, loopback_server
from tests.support.plain_codec import PlainCodec, accept_all
from tests.support.pump import Pump, keys


class Upstream:
    """One end of a WebSocket that does only what a test tells it to."""

    def __init__(self) -> None:
        self.url = ""
        self.messages: list[tuple[float, dict[str, list[str]]]] = []
        self.pongs: list[tuple[float, bytes]] = []
        self.pings: list[float] = []
        self.sockets: list[web.WebSocketResponse] = []
        self.requests: list[web.Request] = []
        self.has_closed = asyncio.Event()
        self.refuse_with: web.Response | None = None
        self.answers_pings = True
        self.on_ping: Callable[[], Awaitable[object]] | None = None
        self.on_open: Callable[[web.WebSocketResponse], Awaitable[object]] | None = None
        self.on_message: Callable[[web.WebSocketResponse, dict[str, list[str]]], Awaitable[object]] | None = None
        self._news = asyncio.Event()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(request)
        if self.refuse_with is not None:
            return self.refuse_with
        socket = web.WebSocketResponse(autoping=False, autoclose=False, timeout=0.1)
        await socket.prepare(request)
        self.sockets.append(socket)
        self._news.set()
        if self.on_open is not None:
            await self.on_open(socket)
        while True:
            message = await socket.receive()
            if message.type is aiohttp.WSMsgType.PING:
                self.pings.append(time.monotonic())
                if self.on_ping is not None:
                    await self.on_ping()
                if self.answers_pings:
                    await socket.pong(message.data)
            elif message.type is aiohttp.WSMsgType.PONG:
                self.pongs.append((time.monotonic(), bytes(message.data)))
            elif message.type is aiohttp.WSMsgType.TEXT:
                content = orjson.loads(message.data)
                self.messages.append((time.monotonic(), content))
                if self.on_message is not None:
                    await self.on_message(socket, content)
            else:
                break
            self._news.set()
        self.has_closed.set()
        return socket

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(LONGEST_WAIT_S):
            while not condition():
                self._news.clear()
                await self._news.wait()

    async def socket(self) -> web.WebSocketResponse:
        await self.until(lambda: bool(self.sockets))
        return self.sockets[0]

    @property
    def said(self) -> list[dict[str, list[str]]]:
        return [content for _, content in self.messages]


@pytest.fixture
async def upstream() -> AsyncIterator[Upstream]:
    upstream = Upstream()
    async with loopback_server(app_of(upstream.handle)) as host:
        upstream.url = f"http://{host}/feed?apikey=hush-hush"
        yield upstream


QUICK_PINGS = SocketLimits(ping_interval_s=0.2, pong_timeout_s=0.1)


def pump(session: aiohttp.ClientSession, codec: FeedCodec, *names: str, limits: SocketLimits = SOCKET_LIMITS) -> Pump:
    return Pump(lambda watchlist: websocket_feed(session, codec, watchlist, limits=limits), keys(*names))


async def test_a_change_of_the_past_is_reported_whether_the_stream_is_wanted_or_not(
    upstream: Upstream, session: aiohttp.ClientSession
) -> None:
    upstream.on_message = accept_all
    async with pump(session, PlainCodec(upstream.url), "A@1m") as feed:
        await feed.until(lambda: len(feed.accepted) == 1)
        socket = await upstream.socket()
        await socket.send_str('{"changed":"B@5m","before":600}')
        # One that makes no sense is an invalid message, and harms no other.
        await socket.send_str('{"changed":"A@1m","before":0}')
        await socket.send_str('{"stream":"A@1m","price":7}')
        await feed.until(lambda: bool(feed.updates))
        assert feed.changes == [PastChange(keys("B@5m")[0], 600, settle_s=1.0)]
        assert len(feed.skipped) == 1


async def test_feed_subscribes_the_watchlist_and_yields_what_arrives(
    upstream: Upstream, session: aiohttp.ClientSession
) -> None:
    upstream.on_message = accept_all
    async with pump(session, PlainCodec(upstream.url), "A@1m", "B@5m") as feed:
        await feed.until(lambda: len(feed.accepted) == 2)
        socket = await upstream.socket()
        await socket.send_str('{"stream":"A@1m","price":7}')
        await feed.until(lambda: bool(feed.updates))
    assert upstream.said == [{"subscribe": ["A@1m", "B@5m"]}]
    assert feed.updates == [PriceUpdate(StreamKey("A", "1m"), Candle(60, 7.0, 7.0, 7.0, 7.0))]


async def test_feed_follows_the_watchlist(upstream: Upstream, session: aiohttp.ClientSession) -> None:
    async with pump(session, PlainCodec(upstream.url), "A@1m") as feed:
        await upstream.until(lambda: len(upstream.said) == 1)
        feed.watchlist.add(StreamKey("B", "1m"))
        feed.watchlist.remove(StreamKey("A", "1m"))
        await upstream.until(lambda: len(upstream.said) == 3)
    assert upstream.said[1:] == [{"unsubscribe": ["A@1m"]}, {"subscribe": ["B@1m"]}]


async def test_150_streams_take_two_messages(upstream: Upstream, session: aiohttp.ClientSession) -> None:
    names = [f"S{number}@1m" for number in range(150)]
    upstream.on_message = accept_all
    async with pump(session, PlainCodec(upstream.url, 5), *names) as feed:
        await feed.until(lambda: len(feed.accepted) == 150)
    assert [len(content["subscribe"]) for content in upstream.said] == [100, 50]


async def test_never_more_than_five_messages_in_a_second(
    upstream: Upstream, session: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Noted where they are sent: a busy machine may hear two of them at once.
    moments: list[float] = []

    def noting(send: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
        async def noted(*arguments: object) -> None:
            moments.append(time.monotonic())
            await send(*arguments)

        return noted

    for name in ("send_str", "pong"):
        send = getattr(aiohttp.ClientWebSocketResponse, name)
        monkeypatch.setattr(aiohttp.ClientWebSocketResponse, name, noting(send))
    codec = PlainCodec(upstream.url, 5)
    codec.keys_per_message = 1
    names = [f"S{number}@1m" for number in range(8)]
    upstream.on_message = accept_all

    async def ping(socket: web.WebSocketResponse) -> None:
        for number in range(10):
            await socket.ping(str(number).encode())

    upstream.on_open = ping
    async with pump(session, codec, *names) as feed:
        await feed.until(lambda: len(feed.accepted) == 8)
    assert len(moments) >= len(upstream.messages + upstream.pongs) >= 9
    assert all(later - earlier > 1.0 for earlier, later in zip(moments, moments[5:], strict=False))
    assert upstream.pongs[-1][1] == b"9"


async def test_a_wish_withdrawn_while_waiting_for_its_turn_is_not_sent(
    upstream: Upstream, session: aiohttp.ClientSession
) -> None:
    codec = PlainCodec(upstream.url, 3)  # two places are kept back: one message in 1.25 s
    async with pump(session, codec, "A@1m") as feed:
        await upstream.until(lambda: len(upstream.said) == 1)
        for _ in range(20):
            feed.watchlist.add(StreamKey("FLAP", "1m"))
            await asyncio.sleep(0)
            feed.watchlist.remove(StreamKey("FLAP", "1m"))
            await asyncio.sleep(0)
        feed.watchlist.add(StreamKey("B", "1m"))
        await upstream.until(lambda: len(upstream.said) == 2)
    assert upstream.said[1] == {"subscribe": ["B@1m"]}


async def test_a_stream_that_left_and_came_back_is_subscribed_anew_once(
    upstream: Upstream, session: aiohttp.ClientSession
) -> None:
    async with pump(session, PlainCodec(upstream.url), "A@1m") as feed:
        await upstream.until(lambda: len(upstream.said) == 1)
        for _ in range(5):
            feed.watchlist.remove(StreamKey("A", "1m"))
            feed.watchlist.add(StreamKey("A", "1m"))
        await upstream.until(lambda: len(upstream.said) == 3)
        feed.watchlist.add(StreamKey("B", "1m"))
        await upstream.until(lambda: len(upstream.said) == 4)
    assert upstream.said[1:] == [{"unsubscribe": ["A@1m"]}, {"subscribe": ["A@1m"]}, {"subscribe": ["B@1m"]}]


async def test_an_answer_to_a_withdrawn_subscription_accepts_nothing(
    upstream: Upstream, session: aiohttp.ClientSession
) -> None:
    codec = PlainCodec(upstream.url, 3)
    async with pump(session, codec, "A@1m", "B@1m") as feed:
        await upstream.until(lambda: len(upstream.said) == 1)
        feed.watchlist.remove(StreamKey("A", "1m"))
        feed.watchlist.add(StreamKey("A", "1m"))
        socket = await upstream.socket()
        await socket.send_str('{"accepted":["A@1m","B@1m"]}')
        await feed.until(lambda: bool(feed.accepted))
        assert feed.accepted == keys("B@1m")
        await upstream.until(lambda: len(upstream.said) == 3)
        await socket.send_str('{"accepted":["A@1m"]}')
        await feed.until(lambda: len(feed.accepted) == 2)
    assert feed.accepted == keys("B@1m", "A@1m")


async def test_one_refused_stream_harms_no_other_of_its_message(
    upstream: Upstream, session: aiohttp.ClientSession
) -> None:
    async def refuse_bad(socket: web.WebSocketResponse, content: dict[str, list[str]]) -> None:
        names = content["subscribe"]
        answer = {"rejected": names, "reason": "no such stream"} if "BAD@1m" in names else {"accepted": names}
        await socket.send_bytes(orjson.dumps(answer))

    upstream.on_message = refuse_bad
    good = [f"S{number}@1m" for number in range(12)]
    async with pump(session, PlainCodec(upstream.url), *good[:7], "BAD@1m", *good[7:]) as feed:
        await feed.until(lambda: len(feed.accepted) == 12 and bool(feed.rejected))
    assert feed.rejected == [(StreamKey("BAD", "1m"), "no such stream")]
    assert sorted(feed.accepted) == sorted(keys(*good))
    assert not any("unsubscribe" in content for content in upstream.said)


@pytest.mark.parametrize(
    "garbage",
    ["", "{", "null", "[]", "7", '"x"', "{}", '{"price":1}', '{"stream":7,"price":1}', '{"price":[]}', "\x00"],
)
async def test_a_message_without_sense_is_counted_and_skipped(
    upstream: Upstream, session: aiohttp.ClientSession, garbage: str
) -> None:
    async with pump(session, PlainCodec(upstream.url), "A@1m") as feed:
        socket = await upstream.socket()
        await socket.send_str(garbage)
        await socket.send_bytes(b"\xff\xfe")
        await socket.send_str('{"stream":"A@1m","price":7}')
        await feed.until(lambda: bool(feed.updates))
    assert len(feed.skipped) == 2
    assert all(len(reason) <= 200 for reason in feed.skipped)


async def test_a_codec_that_is_a_generator_fails_within_its_message(
    upstream: Upstream, session: aiohttp.ClientSession
) -> None:
    class Lazy(PlainCodec):
        def decode(self, raw: str | bytes) -> Iterable[Decoded]:
            yield from super().decode(raw)

    async with pump(session, Lazy(upstream.url), "A@1m") as feed:
        socket = await upstream.socket()
        await socket.send_str("{")
        await socket.send_str('{"stream":"A@1m","price":7}')
        await feed.until(lambda: bool(feed.updates))
    assert len(feed.skipped) == 1


async def test_pings_are_answered_with_their_payload(upstream: Upstream, session: aiohttp.ClientSession) -> None:
    async with pump(session, PlainCodec(upstream.url, 5)):
        socket = await upstream.socket()
        await socket.ping(b"1770123456789")
        await upstream.until(lambda: bool(upstream.pongs))
    assert upstream.pongs[0][1] == b"1770123456789"


async def test_an_announced_end_is_passed_on_and_the_feed_goes_on(
    upstream: Upstream, session: aiohttp.ClientSession
) -> None:
    async with pump(session, PlainCodec(upstream.url)) as feed:
        socket = await upstream.socket()
        await socket.send_str('{"closing":"upgrade"}')
        await socket.send_str('{"stream":"A@1m","price":7}')
        await feed.until(lambda: bool(feed.updates))
    assert feed.announced == ["upgrade"]


async def test_feed_returns_when_the_upstream_closes(upstream: Upstream, session: aiohttp.ClientSession) -> None:
    upstream.on_open = lambda socket: socket.close(code=1001)
    async with pump(session, PlainCodec(upstream.url)) as feed:
        assert await feed.end() is None


async def test_a_lost_connection_raises(upstream: Upstream, session: aiohttp.ClientSession) -> None:
    async with pump(session, PlainCodec(upstream.url)) as feed:
        socket = await upstream.socket()
        await socket.send_str('{"stream":"A@1m","price":7}')
        await feed.until(lambda: bool(feed.updates))
        transport = upstream.requests[0].transport
        assert transport is not None
        linger = struct.pack("ii", 1, 0)
        transport.get_extra_info("socket").setsockopt(1, 13, linger)  # close with a reset
        transport.close()
        error = await feed.end()
    assert isinstance(error, ProviderUnavailable)


async def test_an_address_that_only_ever_closes_is_reported_to_the_codec(
    upstream: Upstream, session: aiohttp.ClientSession
) -> None:
    upstream.on_open = lambda socket: socket.close(code=1008)
    codec = PlainCodec(upstream.url)
    async with pump(session, codec) as feed:
        await feed.end()
    assert codec.failures == [None]


async def test_an_oversized_message_breaks_the_connection(upstream: Upstream, session: aiohttp.ClientSession) -> None:
    upstream.on_open = lambda socket: socket.send_str("x" * 2000)
    async with pump(session, PlainCodec(upstream.url), limits=SocketLimits(max_message_bytes=1000)) as feed:
        assert isinstance(await feed.end(), BadAnswer)


async def test_a_silent_peer_is_given_up(upstream: Upstream, session: aiohttp.ClientSession) -> None:
    upstream.answers_pings = False
    async with pump(
        session, PlainCodec(upstream.url, 5), limits=SocketLimits(ping_interval_s=0.3, pong_timeout_s=0.2)
    ) as feed:
        error = await feed.end()
    assert isinstance(error, ProviderUnavailable)
    assert str(error) == "no answer to a ping within 0.2 s"
    assert len(upstream.pings) == 1


async def test_a_peer_that_answers_pings_is_kept(upstream: Upstream, session: aiohttp.ClientSession) -> None:
    began = time.monotonic()
    async with pump(session, PlainCodec(upstream.url), limits=QUICK_PINGS) as feed:
        await upstream.until(lambda: len(upstream.pings) >= 4)
        assert not feed.has_ended
    # A busy machine may hear them late, but none is sent before its time.
    assert all(heard_at - began > 0.2 * number for number, heard_at in enumerate(upstream.pings))


async def test_a_pause_of_the_whole_process_is_not_taken_for_a_silent_peer(
    upstream: Upstream, session: aiohttp.ClientSession
) -> None:
    async def stand_still() -> None:
        time.sleep(0.3)  # noqa: ASYNC251 - as a machine with too much to do lets it
        for _ in range(5):
            await asyncio.sleep(0)

    upstream.on_ping = stand_still
    async with pump(session, PlainCodec(upstream.url), limits=QUICK_PINGS) as feed:
        await upstream.until(lambda: len(upstream.pings) >= 3)
        assert not feed.has_ended


async def test_a_busy_consumer_is_not_taken_for_a_silent_peer(
    upstream: Upstream, session: aiohttp.ClientSession
) -> None:
    async with pump(session, PlainCodec(upstream.url), limits=QUICK_PINGS) as feed:
        feed.consumer_may_go_on.clear()
        socket = await upstream.socket()
        await socket.send_str('{"stream":"A@1m","price":1}')
        await upstream.until(lambda: len(upstream.pings) >= 3)
        feed.consumer_may_go_on.set()
        await socket.send_str('{"stream":"A@1m","price":2}')
        await feed.until(lambda: len(feed.updates) == 2)


async def test_the_venues_heartbeat_is_sent(upstream: Upstream, session: aiohttp.ClientSession) -> None:
    codec = PlainCodec(upstream.url, 5)
    codec.heartbeat, codec.heartbeat_s = '{"heartbeat":[]}', 0.1
    async with pump(session, codec):
        await upstream.until(lambda: len(upstream.said) >= 2)
    assert upstream.said[0] == {"heartbeat": []}


async def test_the_greeting_is_sent_once_and_before_anything_else(
    upstream: Upstream, session: aiohttp.ClientSession
) -> None:
    codec = PlainCodec(upstream.url)
    codec.greeting = ('{"login":"me"}', '{"channel":"heartbeats"}')
    async with pump(session, codec, "A@1m") as feed:
        await upstream.until(lambda: len(upstream.said) >= 3)
        feed.watchlist.add(StreamKey("B", "1m"))
        await upstream.until(lambda: len(upstream.said) >= 4)
    assert upstream.said == [
        {"login": "me"},
        {"channel": "heartbeats"},
        {"subscribe": ["A@1m"]},
        {"subscribe": ["B@1m"]},
    ]


async def test_headers_of_the_codec_travel_with_the_upgrade(upstream: Upstream, session: aiohttp.ClientSession) -> None:
    class Keyed(PlainCodec):
        @property
        def headers(self) -> dict[str, str]:
            return {"X-Key": "hush-hush"}

    async with pump(session, Keyed(upstream.url)):
        await upstream.socket()
    assert upstream.requests[0].headers["X-Key"] == "hush-hush"


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (401, AuthenticationFailed),
        (403, ProviderUnavailable),
        (404, ProviderUnavailable),
        (429, RateLimited),
        (451, ProviderUnavailable),
        (503, ProviderUnavailable),
        (200, ProviderUnavailable),
    ],
)
async def test_a_refused_upgrade_names_its_status_and_no_address(
    upstream: Upstream, session: aiohttp.ClientSession, status: int, kind: type[ProviderError]
) -> None:
    upstream.refuse_with = web.Response(status=status, headers={"Retry-After": "7"})
    codec = PlainCodec(upstream.url)
    async with pump(session, codec) as feed:
        error = await feed.end()
    assert type(error) is kind
    assert str(status) in str(error)
    assert codec.failures == [status]
    assert error.__context__ is None
    assert "hush" not in repr(error)
    if isinstance(error, RateLimited):
        assert error.retry_after == 7.0


@pytest.mark.parametrize(
    ("status", "headers", "wait_s"),
    [
        (429, {"Retry-After": "0"}, 0.0),
        (429, {"Retry-After": "7"}, 7.0),
        (429, {}, None),
        (429, {"Retry-After": "soon"}, None),
        (418, {"Retry-After": "300"}, 300.0),
        # The shortest ban.
        (418, {}, 120.0),
        (429, {"Retry-After": "-5"}, None),
        (418, {"Retry-After": "-5"}, 120.0),
        (429, {"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0.0),
        (418, {"Retry-After": "999999999"}, MAX_RETRY_AFTER_S),
        (429, {"Retry-After": "1e9"}, None),
        (418, {"Retry-After": "9" * 5000}, 120.0),
    ],
)
async def test_a_limit_is_waited_for_as_long_as_it_is_said_to_last(
    upstream: Upstream, session: aiohttp.ClientSession, status: int, headers: dict[str, str], wait_s: float | None
) -> None:
    upstream.refuse_with = web.Response(status=status, headers=headers)
    async with pump(session, PlainCodec(upstream.url)) as feed:
        error = await feed.end()
    if wait_s is None:
        assert type(error) is ProviderUnavailable
    else:
        assert isinstance(error, RateLimited)
        assert error.retry_after == wait_s
        # It is told to other relays.
        assert error.by_provider


async def test_a_refused_connection_is_unavailable(session: aiohttp.ClientSession, unused_tcp_port: int) -> None:
    codec = PlainCodec(f"ws://127.0.0.1:{unused_tcp_port}/?apikey=hush-hush")
    async with pump(session, codec) as feed:
        error = await feed.end()
    assert isinstance(error, ProviderUnavailable)
    assert str(error) == "cannot connect: connection refused"
    assert error.__context__ is None
    assert codec.failures == [None]


async def test_a_server_that_never_answers_the_upgrade_is_given_up(session: aiohttp.ClientSession) -> None:
    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(say_nothing, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with (
        server,
        pump(session, PlainCodec(f"ws://127.0.0.1:{port}"), limits=SocketLimits(connect_timeout_s=0.2)) as feed,
    ):
        error = await feed.end()
    assert isinstance(error, ProviderUnavailable)
    assert str(error) == "cannot connect: no answer in time"


async def test_a_fault_of_the_codec_beside_the_reader_ends_the_feed_with_it(
    upstream: Upstream, session: aiohttp.ClientSession
) -> None:
    class Broken(PlainCodec):
        def subscribe(self, keys: Sequence[StreamKey]) -> Iterable[str]:
            raise RuntimeError("bug in a plugin")

    async with pump(session, Broken(upstream.url), "A@1m") as feed:
        error = await feed.end()
    assert isinstance(error, RuntimeError)


async def test_a_cancelled_feed_leaves_no_task_and_no_connection(
    upstream: Upstream, session: aiohttp.ClientSession
) -> None:
    others = asyncio.all_tasks()
    async with pump(session, PlainCodec(upstream.url, 5), "A@1m"):
        await upstream.until(lambda: bool(upstream.said))
    async with asyncio.timeout(LONGEST_WAIT_S):
        await upstream.has_closed.wait()
    assert {task for task in asyncio.all_tasks() - others if "handle" not in repr(task)} == set()


@pytest.mark.parametrize("chatter", [False, True])
async def test_a_peer_that_does_not_close_is_not_waited_for(
    upstream: Upstream, session: aiohttp.ClientSession, chatter: bool
) -> None:
    async def stay(socket: web.WebSocketResponse) -> None:
        while chatter:
            await socket.send_str('{"stream":"A@1m","price":7}')
            await asyncio.sleep(0.01)
        await asyncio.Event().wait()

    upstream.on_open = stay
    feed = pump(session, PlainCodec(upstream.url), "A@1m", limits=SocketLimits(close_timeout_s=0.3))
    async with feed:
        await upstream.socket()
        began = time.monotonic()
    # aiohttp itself would wait for 10 s, and for ever where the peer goes on sending.
    assert time.monotonic() - began < 8


async def test_closing_the_feed_between_two_updates_ends_it(upstream: Upstream, session: aiohttp.ClientSession) -> None:
    async def talk(socket: web.WebSocketResponse) -> None:
        await socket.send_str('{"stream":"A@1m","price":7}')

    upstream.on_open = talk
    feed: AsyncGenerator[PriceUpdate, None] = websocket_feed(session, PlainCodec(upstream.url), Watchlist())
    await anext(feed)
    await feed.aclose()
    async with asyncio.timeout(LONGEST_WAIT_S):
        await upstream.has_closed.wait()


def test_pace_leaves_room_for_those_who_must_not_wait() -> None:
    now = 100.0
    pace = Pace(5, lambda: now)
    for _ in range(3):
        assert pace.free_in(2) == 0.0
        pace.note()
    assert pace.free_in(2) == pytest.approx(1.25)
    assert pace.free_in(1) == 0.0
    pace.note()
    assert pace.free_in(1) > 0
    assert pace.free_in(0) == 0.0
    now += 1.26
    assert pace.free_in(2) == 0.0


def test_no_limit_means_no_waiting() -> None:
    pace = Pace(None)
    for _ in range(1000):
        pace.note()
    assert pace.free_in(2) == 0.0
