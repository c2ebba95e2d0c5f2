"""Sessions follow nothing, remember nothing and read no answer beyond its bound, whoever asks, in real sockets."""

import ast
import asyncio
import sys
import zlib
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from providers.twelve_data.tick_codec import TickCodec
from relay import (
    BadAnswer,
    Bounds,
    Hosts,
    ProviderUnavailable,
    RateLimited,
    Secret,
    StreamKey,
    ask_rest,
    websocket_feed,
)
from relay.client import BadReply, RelayClient
from relay.network.connector import TooLarge, line_of
from relay.network.http_sessions import MIB, Redirected, open_session, read_within
from relay.upstream.rest import network_failure
from tests.support.loopback_server import app_of, loopback_server
from tests.support.pump import Pump

KEY = "hush-hush-key"
ROOT = Path(__file__).parents[2]


class Server:
    """Answers everything as `answer` says; what was asked is kept."""

    def __init__(self) -> None:
        self.url = ""
        self.requests: list[web.BaseRequest] = []
        self.answer: Callable[[], web.StreamResponse] = web.Response

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(request)
        return self.answer()


@pytest.fixture
async def servers() -> AsyncIterator[list[Server]]:
    """Two servers: the one that is asked, and the one that nobody may be led to."""
    found = [Server(), Server()]
    async with AsyncExitStack() as stack:
        for server in found:
            server.url = f"http://{await stack.enter_async_context(loopback_server(app_of(server.handle)))}"
        yield found


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with open_session() as session:
        yield session


def leads(server: Server, to: Server, status: int = 302) -> str:
    """Have a server lead all to another one; return the words that name where to."""
    location = f"{to.url}/stolen?apikey={KEY}"
    server.answer = lambda: web.Response(status=status, headers={"Location": location})
    return f"HTTP {status} points to {to.url.removeprefix('http://')}; redirects are not followed"


# -- redirects -------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [300, 301, 302, 303, 307, 308])
@pytest.mark.parametrize("method", ["get", "post", "head", "ws_connect"])
async def test_no_redirect_is_followed_and_the_error_names_status_and_host(
    servers: list[Server], session: aiohttp.ClientSession, method: str, status: int
) -> None:
    asked, other = servers
    words = leads(asked, other, status)
    with pytest.raises(Redirected) as caught:
        await getattr(session, method)(f"{asked.url}/?apikey={KEY}", headers={"X-TD-APIKEY": KEY})
    assert str(caught.value) == words
    assert not other.requests
    assert KEY not in repr(caught.value)
    assert type(network_failure(caught.value)) is BadAnswer


@pytest.mark.parametrize(
    ("location", "host"),
    [
        ("/elsewhere?apikey=hush", "{own}"),
        ("//evil.example:8443/hush", "evil.example:8443"),
        ("https://user:hush@evil.example:443/hush", "evil.example"),
        ("wss://evil.example/hush#hush", "evil.example"),
        ("http://[::1]:9/hush", "::1:9"),
        ("http://[hush/", "an invalid address"),
        ("https://evil.example:hush/", "an invalid address"),
        (f"https://{'a' * 300}.example/", "a" * 100),
    ],
)
async def test_of_where_a_redirect_points_only_the_host_is_told(
    servers: list[Server], session: aiohttp.ClientSession, location: str, host: str
) -> None:
    asked, _ = servers
    asked.answer = lambda: web.Response(status=307, headers={"Location": location})
    with pytest.raises(Redirected) as caught:
        await session.get(asked.url)
    assert caught.value.host == host.replace("{own}", asked.url.removeprefix("http://"))


async def test_redirected_rest_is_a_bad_answer_and_the_key_stays_here(
    servers: list[Server], session: aiohttp.ClientSession
) -> None:
    asked, other = servers
    words = leads(asked, other)
    with pytest.raises(BadAnswer) as caught:
        await ask_rest(session, Hosts([asked.url]), "/", params={"k": KEY}, headers={"Authorization": KEY})
    assert str(caught.value) == words
    assert not other.requests


async def test_redirected_tick_stream_does_not_take_the_key_of_twelve_data_along(
    servers: list[Server], session: aiohttp.ClientSession
) -> None:
    asked, other = servers
    words = leads(asked, other, 307)
    hosts = Hosts([asked.url.replace("http", "ws"), "ws://second.invalid"])
    codec = TickCodec(hosts, Secret(KEY))
    async with Pump(lambda watchlist: websocket_feed(session, codec, watchlist), [StreamKey("EUR/USD", "1m")]) as feed:
        error = await feed.end()
    assert isinstance(error, ProviderUnavailable)
    assert str(error) == f"the connection was refused: {words}"
    assert not other.requests
    assert asked.requests[0].headers["X-TD-APIKEY"] == KEY
    assert error.__context__ is None
    assert hosts.current == "ws://second.invalid"


@pytest.mark.parametrize("owns_session", [True, False])
async def test_client_of_the_relay_follows_no_redirect(servers: list[Server], owns_session: bool) -> None:
    asked, other = servers
    words = leads(asked, other)
    async with (
        aiohttp.ClientSession() as given,
        RelayClient(asked.url, "t0ken", session=None if owns_session else given) as client,
    ):
        with pytest.raises(BadReply) as caught:
            await client.symbols()
        with pytest.raises(BadReply) as upgrade:
            await anext(client)
    assert words in str(caught.value)
    assert words in str(upgrade.value)
    assert not other.requests
    assert [request.headers["Authorization"] for request in asked.requests] == ["Bearer t0ken"] * 2


# -- what else could carry a key elsewhere ---------------------------------------------------------


async def test_nothing_is_remembered_and_nothing_is_taken_from_the_environment(
    servers: list[Server], session: aiohttp.ClientSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, proxy = servers
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login me password hush\n")
    monkeypatch.setenv("NETRC", str(netrc))
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY", "ws_proxy"):
        monkeypatch.setenv(name, proxy.url)
    asked.answer = lambda: web.Response(headers={"Set-Cookie": "session=1; Path=/"})
    for _ in range(2):
        async with session.get(f"{asked.url}/?apikey={KEY}") as answer:
            assert answer.status == 200
    assert not proxy.requests
    for request in asked.requests:
        assert not {"Cookie", "Authorization", "Referer"} & {*request.headers}


async def test_answer_that_is_shown_names_no_query(servers: list[Server], session: aiohttp.ClientSession) -> None:
    async with session.get(f"{servers[0].url}/?apikey={KEY}") as answer:
        assert repr(answer) == "<HTTP 200 from 127.0.0.1>"


def test_sessions_are_made_in_one_place() -> None:
    makers = {"aiohttp.ClientSession", "ClientSession", "aiohttp.request", "urlopen", "urllib.request.urlopen"}
    found = {
        str(path.relative_to(ROOT))
        for folder in ("relay", "providers")
        for path in (ROOT / folder).rglob("*.py")
        if any(
            word in (text := path.read_text(encoding="utf-8")) for word in ("Session(", "aiohttp.request", "urlopen")
        )
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Call) and ast.unparse(node.func) in makers
    }
    assert found == {"relay/network/http_sessions.py"}


# -- bounds ----------------------------------------------------------------------------------------


def packed(text: bytes, times: int, encoding: str = "gzip") -> web.Response:
    """Return an answer that is a text many times over once it is unpacked."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 31 if encoding == "gzip" else 15)
    body = b"".join([*(packer.compress(text) for _ in range(times)), packer.flush()])
    return web.Response(body=body, headers={"Content-Encoding": encoding, "Content-Type": "application/json"})


SMALL = Bounds(MIB, 1000)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda: packed(b" " * 10_000, 110), "larger than 1 MiB after decompression"),
        (lambda: packed(b" " * 10_000, 110, "deflate"), "larger than 1 MiB after decompression"),
        (lambda: web.Response(body=b" " * (MIB + 1)), "larger than 1 MiB after decompression"),
        (lambda: web.Response(body=b"[" + b"[]," * 600 + b"[]]"), "has more than 1,000 values"),
        (lambda: web.Response(body=b'[{"a":1' + b',"a":1' * 600 + b"}]"), "has more than 1,000 values"),
    ],
)
async def test_answer_beyond_a_bound_is_refused_with_the_bound(
    servers: list[Server], session: aiohttp.ClientSession, answer: Callable[[], web.Response], words: str
) -> None:
    servers[0].answer = answer
    with pytest.raises(BadAnswer, match=words):
        await ask_rest(session, Hosts([servers[0].url]), "/", bounds=SMALL)


async def test_answer_within_its_bounds_is_read_whole(servers: list[Server], session: aiohttp.ClientSession) -> None:
    servers[0].answer = lambda: web.Response(body=b"[" + b"7," * 998 + b"7]" + b" " * (MIB - 1999))
    answer = await ask_rest(session, Hosts([servers[0].url]), "/", bounds=SMALL)
    assert answer.body == [7] * 999


async def test_content_that_is_read_as_it_comes_has_a_bound(
    servers: list[Server], session: aiohttp.ClientSession
) -> None:
    asked, _ = servers
    body = zlib.compress(bytes(64 * MIB))
    asked.answer = lambda: web.Response(body=body, headers={"Content-Encoding": "deflate"})
    size = 0

    async def read() -> None:
        nonlocal size
        async with session.get(asked.url) as answer:
            async for part in answer.content.iter_chunked(65536):
                size += len(part)

    with pytest.raises(TooLarge, match="larger than 32 MiB after decompression"):
        await read()
    assert size <= 48 * MIB
    async with session.get(asked.url) as answer:
        assert len(await read_within(answer, Bounds(64 * MIB))) == 64 * MIB


async def test_session_that_is_given_has_the_bounds_and_leaves_none_to_its_owner(servers: list[Server]) -> None:
    asked, _ = servers
    large = b" " * (256 * 1024)
    asked.answer = lambda: web.Response(body=large)
    async with aiohttp.ClientSession() as own, RelayClient(asked.url, session=own) as client:
        for _ in range(2):
            async with own.get(asked.url) as answer:
                assert answer.connection is not None
                assert line_of(answer.connection.transport) is None
                assert await answer.read() == large
            with pytest.raises(BadReply):
                await client.symbols()
        async with open_session(like=own) as session, session.get(asked.url) as answer:
            assert answer.connection is not None
            assert line_of(answer.connection.transport) is not None
            assert await answer.read() == large


async def test_refusal_with_a_body_beyond_its_bound_keeps_its_meaning(
    servers: list[Server], session: aiohttp.ClientSession
) -> None:
    def refuse() -> web.Response:
        answer = packed(b" " * 10_000, 110)
        answer.set_status(429)
        answer.headers["Retry-After"] = "7"
        return answer

    servers[0].answer = refuse
    error = (await ask_rest(session, Hosts([servers[0].url]), "/", bounds=SMALL)).error("")
    assert isinstance(error, RateLimited)
    assert error.retry_after == 7.0


async def test_loop_runs_while_much_is_unpacked(servers: list[Server], session: aiohttp.ClientSession) -> None:
    servers[0].answer = lambda: packed(b" " * 1_000_000, 30)
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    async with session.get(servers[0].url) as answer:
        counting = asyncio.create_task(count())
        with pytest.raises(TooLarge):
            await read_within(answer, Bounds(20_000_000))
        counting.cancel()
    assert turns > 20


async def test_nested_message_of_a_websocket_costs_itself_only(session: aiohttp.ClientSession) -> None:
    """The parser of the standard library gives up with RecursionError, which is no ValueError."""
    import json

    from tests.support.plain_codec import PlainCodec, accept_all

    class Plain(PlainCodec):
        def decode(self, raw: str | bytes) -> Any:
            json.loads(raw)
            return super().decode(raw)

    async def serve(request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        await socket.send_str("[" * 100_000)
        await socket.send_str('{"stream":"A@1m","price":7}')
        async for message in socket:
            await accept_all(socket, message.json())
        return socket

    async with loopback_server(app_of(serve)) as host:
        codec = Plain(f"ws://{host}")
        async with Pump(lambda watchlist: websocket_feed(session, codec, watchlist), [StreamKey("A", "1m")]) as feed:
            await feed.until(lambda: bool(feed.updates))
            assert [reason.partition(":")[0] for reason in feed.skipped] == ["RecursionError"]


BOMBS = """
import asyncio, time, zlib
from aiohttp import web
from relay import BadAnswer, Hosts, LIST_BOUNDS, ProviderError, StreamKey, Watchlist, ask_rest, websocket_feed
from relay.client import ClientError, RelayClient
from relay.network.connector import TooLarge, line_of
from relay.network.http_sessions import open_session
from tests.support.plain_codec import PlainCodec

packer = zlib.compressobj(9, zlib.DEFLATED, -15)
# After a full flush the same bytes unpack to the same text again.
DEFLATED = (packer.compress(b" " * 1_000_000) + packer.flush(zlib.Z_FULL_FLUSH)) * 300
BOMB = b"\\x1f\\x8b\\x08" + bytes(7) + DEFLATED


async def answer(request):
    if request.headers.get("Upgrade") == "websocket":
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        # A message that is compressed although that was not agreed on, as one frame.
        length = len(DEFLATED).to_bytes(8, "big")
        request.transport.write(bytes([0xC1, 127]) + length + DEFLATED)
        async for _ in socket:
            pass
        return socket
    return web.Response(body=BOMB, headers={"Content-Encoding": "gzip", "Content-Type": "application/json"})


async def listen(session, url):
    async for _ in websocket_feed(session, PlainCodec(url), Watchlist([StreamKey("A", "1m")])):
        pass


async def read(session, url, how):
    async with session.get(url) as found:
        await getattr(found, how)()


async def follow(url):
    async with RelayClient(url) as client:
        async for message in client:
            print("client", type(message).__name__, getattr(message, "reason", message))
            return


async def main():
    runner = web.ServerRunner(web.Server(answer))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    longest = 0.0

    async def beat():
        nonlocal longest
        before = time.thread_time()
        while True:
            await asyncio.sleep(0.01)
            longest, before = max(longest, time.thread_time() - before), time.thread_time()

    beating = asyncio.create_task(beat())
    async with open_session() as session, RelayClient(url) as client:
        for work in (
            ask_rest(session, Hosts([url]), "/"),
            ask_rest(session, Hosts([url]), "/", bounds=LIST_BOUNDS),
            *(read(session, url, how) for how in ("read", "text", "json")),
            listen(session, url),
            client.history("BTCUSDT", "1m"),
            client.instruments(),
        ):
            try:
                await work
            except (ProviderError, ClientError, TooLarge) as error:
                print(type(error).__name__, error)
    await follow(url)
    beating.cancel()
    await runner.cleanup()
    # `ru_maxrss` would count what the parent had when it forked.
    status = dict(line.split(":", 1) for line in open("/proc/self/status"))
    print(int(status["VmHWM"].split()[0]) // 1024, "MB")
    print(f"{longest:.3f} s of the loop's processor time")


asyncio.run(main())
"""


async def test_bombs_of_every_kind_cost_little_memory() -> None:
    """300 MB that come as 300 kB, for everything that reads an answer or a message: less than 250 MB at the peak."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", BOMBS, cwd=ROOT, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, err = await process.communicate()
    *told, peak, longest = out.decode().splitlines() or [err.decode()]
    assert peak.endswith(" MB"), out + err
    assert int(peak.split()[0]) < 250
    larger = "the answer is larger than {} MiB after decompression"
    assert [line.partition(" ")[0] for line in told] == [
        *["BadAnswer"] * 2,
        *["TooLarge"] * 3,
        "BadAnswer",
        *["BadReply"] * 2,
        "client",
    ]
    for line, size in zip(told[:5], (16, 32, 32, 32, 32), strict=True):
        assert larger.format(size) in line
    assert all(larger.format(64) in line for line in told[6:8])
    # 20 s before there were bounds. Processor time of the loop's thread: how busy the machine is does not count.
    assert float(longest.split()[0]) < 10
