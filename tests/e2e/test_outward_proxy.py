"""The way out through an HTTP proxy, in real sockets: what goes through it, what it may do wrong, and who is told."""

import asyncio
import ssl
import sys
from base64 import b64encode
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
import pytest
from aiohttp import web

from relay import (
    BadAnswer,
    Hosts,
    ProviderError,
    ProviderTimeout,
    ProviderUnavailable,
    StreamKey,
    ask_rest,
    websocket_feed,
)
from relay.app import PROVIDERS
from relay.client import BadArgument, RelayClient, Snapshot, Unreachable, Update
from relay.core.errors import Flooded
from relay.core.outward_proxies import OutwardProxies, parse_proxy
from relay.network.connector import line_of
from relay.network.http_sessions import open_session
from relay.network.outward_connector import ProxyFailed, way_to
from tests.conftest import StartRelay
from tests.support.authority import Authority
from tests.support.conditions import LONGEST_WAIT_S, eventually
from tests.support.connect_proxy import ConnectProxy, tls_front
from tests.support.hostile_upstream import hostile
from tests.support.loopback_server import app_of, loopback_server
from tests.support.plain_codec import PlainCodec, accept_all
from tests.support.pump import Pump
from tests.support.relay_process import CLEAN, serving
from tests.support.sandbox import Sandbox

LOGIN, HUSH = "me:hush%2Fhush", "hush/hush"
BASIC = "Basic " + b64encode(b"me:hush/hush").decode()
# Only a proxy can know it.
VENUE = "venue.example"
A = StreamKey("A", "1m")


class Trusting:
    """A session that trusts the certificates of the tests."""

    def __init__(self, session: aiohttp.ClientSession, trust: ssl.SSLContext) -> None:
        self._session = session
        self._trust = trust

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._session, name)
        if name not in ("get", "ws_connect"):
            return value
        return lambda *given, **named: value(*given, **{"ssl": self._trust, **named})


class Venue:
    """What one upstream was asked; `url` and `ws_url` are those that lead through a proxy."""

    def __init__(self, scheme: str) -> None:
        self.is_safe = scheme == "https"
        self.port = 0
        self.requests: list[web.Request] = []
        self.answer: Callable[[Any], web.StreamResponse] = web.json_response
        self.handle_with: Callable[[web.Request], Awaitable[web.StreamResponse]] | None = None

    @property
    def url(self) -> str:
        return f"{'https' if self.is_safe else 'http'}://{VENUE}:{self.port}"

    @property
    def ws_url(self) -> str:
        return self.url.replace("http", "ws", 1)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(request)
        if request.headers.get("Upgrade", "").lower() != "websocket":
            return await self.handle_with(request) if self.handle_with else self.answer({"a": 1})
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        await socket.send_str('{"stream":"A@1m","price":7}')
        async for message in socket:
            await accept_all(socket, message.json())
        return socket


def refuse(status: int, _: object) -> web.Response:
    return web.Response(status=status)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    made = Authority(tmp_path)
    made.issue("localhost", VENUE)
    return made


@pytest.fixture
def server_tls(authority: Authority) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(authority.cert, authority.key)
    return context


@pytest.fixture(params=["https", "http"])
async def venue(request: pytest.FixtureRequest, server_tls: ssl.SSLContext) -> AsyncIterator[Venue]:
    found = Venue(request.param)
    async with loopback_server(app_of(found.handle), server_tls if found.is_safe else None) as address:
        found.port = int(address.rpartition(":")[2])
        yield found


@pytest.fixture
async def proxy() -> AsyncIterator[ConnectProxy]:
    async with ConnectProxy(BASIC) as proxy:
        yield proxy


@pytest.fixture
async def session(request: pytest.FixtureRequest, proxy: ConnectProxy, authority: Authority) -> AsyncIterator[Any]:
    """Goes through the proxy; an indirect parameter is how long the way there may take."""
    way_s = getattr(request, "param", LONGEST_WAIT_S)
    proxies = OutwardProxies(parse_proxy(proxy.url.replace("://", f"://{LOGIN}@")), way_s=way_s)
    async with open_session(proxies=proxies) as session:
        yield Trusting(session, authority.trust)


async def test_rest_goes_through(session: Any, proxy: ConnectProxy, venue: Venue) -> None:
    for _ in range(2):
        answer = await ask_rest(session, Hosts([venue.url]), "/x?y=z", headers={"X-Key": "k"})
        assert (answer.status, answer.body) == (200, {"a": 1})
    lines = [asked.line for asked in proxy.asked]
    if venue.is_safe:
        # One tunnel for both, in which the proxy sees neither path nor key.
        assert lines == [f"CONNECT {VENUE}:{venue.port} HTTP/1.1"]
        assert not any("x-key" in asked.headers for asked in proxy.asked)
    else:
        assert lines == [f"GET {venue.url}/x?y=z HTTP/1.1"] * 2
    assert {asked.headers["proxy-authorization"] for asked in proxy.asked} == {BASIC}
    for request in venue.requests:
        assert (request.path_qs, request.host) == ("/x?y=z", f"{VENUE}:{venue.port}")
        assert "Proxy-Authorization" not in request.headers


async def test_a_websocket_goes_through(session: Any, proxy: ConnectProxy, venue: Venue) -> None:
    codec = PlainCodec(f"{venue.ws_url}/stream?y=z")
    async with Pump(lambda watchlist: websocket_feed(session, codec, watchlist), [A]) as feed:
        await feed.until(lambda: bool(feed.updates and feed.accepted))
        assert feed.error is None
    (asked,), (request,) = proxy.asked, venue.requests
    if venue.is_safe:
        assert asked.line == f"CONNECT {VENUE}:{venue.port} HTTP/1.1"
    else:
        # No proxy knows of other schemes.
        assert asked.line == f"GET http://{VENUE}:{venue.port}/stream?y=z HTTP/1.1"
    assert (request.path_qs, request.host) == ("/stream?y=z", f"{VENUE}:{venue.port}")
    assert "Proxy-Authorization" not in request.headers


async def test_what_comes_through_has_the_same_bounds(session: Any, proxy: ConnectProxy, venue: Venue) -> None:
    venue.answer = lambda _: web.Response(body=b" " * (17 << 20))
    async with session.get(venue.url) as answer:
        assert line_of(answer.connection.transport) is not None
    with pytest.raises(BadAnswer, match="larger than 16 MiB"):
        await ask_rest(session, Hosts([venue.url]), "/")
    async with session.ws_connect(venue.ws_url) as ws:
        assert ws.line.frames is not None
    venue.answer = lambda _: web.Response(status=302, headers={"Location": "http://evil.example/stolen"})
    with pytest.raises(BadAnswer, match=r"HTTP 302 points to evil\.example; redirects are not followed"):
        await ask_rest(session, Hosts([venue.url]), "/")


# -- proxies that are no use ------------------------------------------------------------------------

IN_TUNNEL = {
    "refused": "the proxy {} refused to connect to {} (HTTP 403)",
    "login": "the proxy {} refused the user and the password (HTTP 407)",
    "unauthorized": "the proxy {} refused the user and the password (HTTP 401)",
    "mute": "the proxy {} did not open a connection in time",
    "hung": "the proxy {} did not open a connection in time",
    "garbage": "the proxy {} sent an answer that is not valid HTTP",
    "endless": "the proxy {} sent an answer that is not valid HTTP",
    "closed": "the proxy {} closed the connection",
    "reset": "the proxy {} closed the connection",
    "flood": "TLS through the proxy {} failed",
}


@pytest.mark.parametrize(
    ("manner", "session"),
    [(manner, 1.0 if "in time" in said else LONGEST_WAIT_S) for manner, said in IN_TUNNEL.items()],
    ids=[*IN_TUNNEL],
    indirect=["session"],
)
@pytest.mark.parametrize("venue", ["https"], indirect=True)
async def test_a_proxy_that_opens_no_tunnel_is_named(
    session: Any, proxy: ConnectProxy, venue: Venue, manner: str
) -> None:
    proxy.manner = manner
    codec = PlainCodec(f"{venue.ws_url}/?key={HUSH}")
    said = IN_TUNNEL[manner].format(proxy.url, f"{VENUE}:{venue.port}")
    with pytest.raises(ProviderUnavailable) as caught:
        await ask_rest(session, Hosts([venue.url]), f"/?key={HUSH}")
    assert str(caught.value) == f"cannot connect: {said}"
    async with Pump(lambda watchlist: websocket_feed(session, codec, watchlist), [A]) as feed:
        error = await feed.end()
    assert isinstance(error, ProviderUnavailable)
    assert str(error) == f"cannot connect: {said}"
    with pytest.raises(ProxyFailed) as raw:
        await session.get(venue.url)
    assert str(raw.value) == said
    # Neither says what the proxy was told.
    for one in (caught.value, error, raw.value):
        assert one.__cause__ is one.__context__ is None
        assert HUSH not in repr(one)
    assert not venue.requests


async def test_a_plain_request_through_a_proxy_that_is_no_use_names_it(
    session: Any, proxy: ConnectProxy, server_tls: ssl.SSLContext
) -> None:
    said = {
        "refused": f"HTTP 403 through the proxy {proxy.url}: why",
        "login": f"cannot connect: the proxy {proxy.url} refused the user and the password (HTTP 407)",
        "mute": f"no answer within 1 s through the proxy {proxy.url}",
        "garbage": f"the connection was lost through the proxy {proxy.url}: the answer is not valid HTTP",
        "closed": f"the connection was lost through the proxy {proxy.url}: the server closed it",
    }
    for manner, words in said.items():
        proxy.manner = manner
        try:
            timeout_s = 1 if manner == "mute" else LONGEST_WAIT_S
            answer = await ask_rest(session, Hosts([f"http://{VENUE}:1"]), "/", timeout_s=timeout_s)
            told = answer.error("why")
        except ProviderError as error:
            told = error
        assert str(told) == words
        assert isinstance(told, ProviderTimeout if manner == "mute" else ProviderUnavailable)
    for manner, words in (
        ("refused", f"the connection was refused through the proxy {proxy.url} with HTTP 403"),
        ("login", f"cannot connect: the proxy {proxy.url} refused the user and the password (HTTP 407)"),
        ("closed", f"cannot connect through the proxy {proxy.url}: the server closed it"),
    ):
        proxy.manner = manner
        opens = partial(websocket_feed, session, PlainCodec(f"ws://{VENUE}:1"))
        async with Pump(opens, [A]) as feed:
            assert str(await feed.end()) == words


@pytest.mark.parametrize("venue", ["https"], indirect=True)
async def test_a_tunnel_that_is_cut_is_a_loss_that_names_the_proxy(
    session: Any, proxy: ConnectProxy, venue: Venue
) -> None:
    codec = PlainCodec(venue.ws_url)
    async with Pump(lambda watchlist: websocket_feed(session, codec, watchlist), [A]) as feed:
        await feed.until(lambda: bool(feed.updates))
        await proxy.cut()
        error = await feed.end()
    assert isinstance(error, ProviderUnavailable)
    assert str(error).startswith(f"the connection was lost through the proxy {proxy.url}")

    async def cut(request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse()
        await answer.prepare(request)
        await answer.write(b"[1,")
        await proxy.cut()
        return answer

    venue.handle_with = cut
    with pytest.raises(ProviderUnavailable, match=f"^the connection was lost through the proxy {proxy.url}: "):
        await ask_rest(session, Hosts([venue.url]), "/")


async def test_a_flood_behind_a_proxy_is_cut(session: Any, proxy: ConnectProxy) -> None:
    with hostile() as address:
        port = address.rpartition(":")[2]
        codec = PlainCodec(f"ws://{VENUE}:{port}/pings")
        async with Pump(lambda watchlist: websocket_feed(session, codec, watchlist), [A]) as feed:
            assert isinstance(await feed.end(), Flooded)
        for kind in ("chunks", "interim"):
            with pytest.raises(BadAnswer, match=r"not content|128 KiB"):
                await ask_rest(session, Hosts([f"http://{VENUE}:{port}"]), f"/{kind}")


@pytest.mark.parametrize("venue", ["https"], indirect=True)
async def test_a_certificate_that_a_proxy_made_is_named(
    proxy: ConnectProxy, venue: Venue, authority: Authority
) -> None:
    proxies = OutwardProxies(parse_proxy(proxy.url.replace("://", f"://{LOGIN}@")))
    async with open_session(proxies=proxies) as session:
        with pytest.raises(ProviderUnavailable) as caught:
            await ask_rest(session, Hosts([venue.url]), "/")
    words = f"the certificate that came through the proxy {proxy.url} is not valid"
    assert str(caught.value) == f"cannot connect: {words}"


async def test_a_proxy_that_is_not_there_or_has_no_name_is_named() -> None:
    for address, words in (
        ("127.0.0.1:1", "the proxy http://127.0.0.1:1 cannot be reached: connection refused"),
        ("nowhere.invalid:3128", "the host name of the proxy http://nowhere.invalid:3128 cannot be resolved"),
    ):
        async with open_session(proxies=OutwardProxies(parse_proxy(address))) as session:
            with pytest.raises(ProviderUnavailable) as caught:
                await ask_rest(session, Hosts(["https://venue.example"]), "/")
        assert str(caught.value) == f"cannot connect: {words}"


async def test_a_proxy_that_wants_a_login_and_gets_none_says_so(proxy: ConnectProxy) -> None:
    async with open_session(proxies=OutwardProxies(parse_proxy(proxy.url))) as session:
        for url in ("https://venue.example", "http://venue.example"):
            with pytest.raises(ProxyFailed) as caught:
                await session.get(url)
            assert str(caught.value) == f"the proxy {proxy.url} wants a user and a password (HTTP 407)"


@pytest.mark.parametrize("venue", ["https"], indirect=True)
async def test_what_an_upstream_answers_in_a_tunnel_is_not_taken_for_the_proxys(session: Any, venue: Venue) -> None:
    for status, words in ((407, "HTTP 407: why"), (403, "HTTP 403: why")):
        venue.answer = partial(refuse, status)
        answer = await ask_rest(session, Hosts([venue.url]), "/")
        assert str(answer.error("why")) == words


async def test_a_session_that_takes_the_place_of_one_that_was_closed_goes_through_the_proxy(
    relay_with: StartRelay, proxy: ConnectProxy
) -> None:
    relay = await relay_with(proxy=parse_proxy(proxy.url))
    provider = relay.app[PROVIDERS]["binance"]
    await provider.session.close()
    with pytest.raises(ProxyFailed, match=f"the proxy {proxy.url} wants a user"):
        await provider.session.get("https://venue.example")


async def test_exceptions_hold_for_names_that_are_not_ascii() -> None:
    proxies = OutwardProxies()
    proxies.go_by(parse_proxy("127.0.0.1:1"), {"NO_PROXY": "*"})
    async with open_session(proxies=proxies) as session:
        assert way_to(session, "https://bücher.example") == ""


async def test_this_machine_is_reached_without_a_proxy(session: Any, proxy: ConnectProxy) -> None:
    async with loopback_server(app_of(Venue("http").handle)) as address:
        for host in (address, address.replace("127.0.0.1", "localhost")):
            assert (await ask_rest(session, Hosts([f"http://{host}"]), "/")).body == {"a": 1}
    assert not proxy.asked


# -- a whole relay ----------------------------------------------------------------------------------


class Exchange(NamedTuple):
    """Binance by a name that only a proxy knows, with TLS; `variables` lead a relay there."""

    stand_in: Sandbox
    variables: dict[str, str]


@pytest.fixture
async def exchange(sandbox: Sandbox, authority: Authority, server_tls: ssl.SSLContext) -> AsyncIterator[Exchange]:
    async with tls_front(int(sandbox.binance.rest_url.rpartition(":")[2]), server_tls) as port:
        yield Exchange(
            sandbox,
            {
                "RELAY_BINANCE_REST_URL": f"https://{VENUE}:{port}",
                "RELAY_BINANCE_WS_URL": f"wss://{VENUE}:{port}",
                "SSL_CERT_FILE": str(authority.root),
                "RELAY_LOG_LEVEL": "debug",
                "RELAY_DATABASE": ":memory:",
            },
        )


async def hears(url: str) -> None:
    """See that prices and history come."""
    async with RelayClient(url, waits_for_relay=True) as client:
        await client.subscribe("BTCUSDT@1s", bars=3)
        seen: set[type] = set()
        async for message in client:
            seen.add(type(message))
            if {Snapshot, Update} <= seen:
                break
        assert len(await client.history("BTCUSDT", "1h", limit=5)) == 5


async def test_a_relay_reaches_its_provider_through_a_proxy_and_changes_it_by_sighup(
    proxy: ConnectProxy, exchange: Exchange, tmp_path: Path
) -> None:
    file = tmp_path / "relay.toml"
    file.write_text(f'proxy = "{proxy.url.replace("://", f"://{LOGIN}@")}"\n')
    async with (
        serving(tmp_path, env={**exchange.variables, "HTTPS_PROXY": "http://127.0.0.1:1"}, is_sandbox=False) as relay,
        ConnectProxy() as other,
        aiohttp.ClientSession() as session,
    ):
        await relay.logs(f"connections to providers go through the proxy {proxy.url}")
        await hears(relay.url)
        assert {asked.headers["proxy-authorization"] for asked in proxy.asked} == {BASIC}

        socket = await session.ws_connect(f"{relay.url}/api/v1/market-data/ws")
        await socket.send_json({"action": "subscribe", "streams": ["BTCUSDT@1s"]})
        while (await socket.receive_json())["type"] != "price_update":
            pass
        binance = exchange.stand_in.binance
        connects = binance.connects
        file.write_text(f'proxy = "{other.url}"\n')
        await relay.hang_up(f"connections to providers go through the proxy {other.url}")
        await eventually(lambda: binance.connects > connects and binance.connections == 1)
        # A feed takes the place of the other one before that ends.
        await proxy.cut()
        while (message := await socket.receive_json())["type"] != "price_update":
            assert message.get("status") not in ("reconnecting", "error")

        # What cannot be used changes nothing.
        file.write_text(f'proxy = "socks5://{LOGIN}@127.0.0.1:1"\n')
        assert "proxy in relay.toml: the value is the address of a SOCKS proxy" in await relay.hang_up("cannot be used")
        proxy.manner = "login"
        file.write_text(f'proxy = "{proxy.url.replace("://", f"://{LOGIN}@")}"\n')
        await relay.hang_up(f"go through the proxy {proxy.url}")
        await relay.logs(f"the proxy {proxy.url} refused the user and the password (HTTP 407)")
        proxy.manner = "kind"
        await hears(relay.url)
        async with session.get(f"{relay.url}/api/v1/market-data/status") as answer:
            status = await answer.text()
        await socket.close()
        assert await relay.stop() == 0
    said = "\n".join([*relay.out, *relay.err, status])
    assert "HTTPS_PROXY" not in said
    for secret in ("hush", BASIC.removeprefix("Basic ")):
        assert secret not in said


async def test_the_environment_is_trusted_when_told_and_otherwise_named(
    proxy: ConnectProxy, exchange: Exchange, tmp_path: Path
) -> None:
    proxies = {
        "https_proxy": proxy.url.replace("://", f"://{LOGIN}@"),
        "HTTPS_PROXY": "http://127.0.0.1:1",
        "NO_PROXY": "other.example",
    }
    given = {**exchange.variables, **proxies}
    async with serving(tmp_path, env={**given, "RELAY_TRUST_ENV": "true"}, is_sandbox=False) as relay:
        await relay.logs(f"connections to providers go through the proxy {proxy.url} for https")
        await hears(relay.url)
        assert await relay.stop() == 0
    assert "hush" not in "\n".join(relay.err)
    assert proxy.asked
    proxy.asked.clear()
    for more, words in (
        ({}, "https_proxy is set and not used: connections to providers go through no proxy; trust_env = true"),
        ({"RELAY_TRUST_ENV": "true", "NO_PROXY": ".venue.example"}, "connections to providers go through"),
    ):
        async with serving(tmp_path, env={**given, **more}, is_sandbox=False) as relay:
            await relay.logs(words)
            await relay.logs("the host name cannot be resolved")
            assert await relay.stop() == 0
        assert not proxy.asked


async def test_the_sandbox_needs_no_proxy_and_says_nothing_of_it(tmp_path: Path) -> None:
    given = {"HTTPS_PROXY": "http://127.0.0.1:1", "RELAY_PROXY": "http://127.0.0.1:1"}
    async with serving(tmp_path, env={"HTTPS_PROXY": "http://127.0.0.1:1"}) as relay:
        await hears(relay.url)
        assert await relay.stop() == 0
    assert "HTTPS_PROXY" not in "\n".join(relay.err)
    async with serving(tmp_path, env=given) as relay:
        await hears(relay.url)
        assert await relay.stop() == 0


# -- clients of a relay -----------------------------------------------------------------------------


async def run(folder: Path, *arguments: str, **environment: str) -> tuple[int | None, str]:
    """Run a command of the relay; return its exit code and all that it says."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "relay", *arguments), cwd=folder, env={**CLEAN, **environment},
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    said, _ = await process.communicate()
    return process.returncode, said.decode()


async def test_commands_go_by_the_environment_and_the_library_when_told(
    relay_with: StartRelay, proxy: ConnectProxy, authority: Authority, server_tls: ssl.SSLContext, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    relay = await relay_with(allowed_origins=(f"https://{VENUE}",))
    login = proxy.url.replace("://", f"://{LOGIN}@")
    async with tls_front(int(relay.url.rpartition(":")[2]), server_tls) as port:
        url = f"https://{VENUE}:{port}"
        variables = {"HTTPS_PROXY": login, "SSL_CERT_FILE": str(authority.root)}
        code, said = await run(tmp_path, "history", "BTCUSDT", "1h", "--limit", "3", "--url", url, **variables)
        assert (code, said.count("\n")) == (0, 3)
        code, said = await run(tmp_path, "tail", "BTCUSDT@1s", "--bars", "2", "--count", "1", "--url", url, **variables)
        assert code == 0
        assert len(proxy.asked) == 2
        code, said = await run(tmp_path, "status", "--url", relay.url, **{**variables, "HTTP_PROXY": "socks5://x"})
        assert (code, len(proxy.asked)) == (0, 2)
        code, said = await run(tmp_path, "status", "--url", url, **variables, NO_PROXY=VENUE)
        assert (code, len(proxy.asked)) == (1, 2)
        proxy.manner = "refused"
        code, said = await run(tmp_path, "status", "--url", url, **variables)
        why = f"the proxy {proxy.url} refused to connect to {VENUE}:{port} (HTTP 403)"
        assert (code, said) == (1, f"Error: no relay reached at {url}: {why}\n")

    monkeypatch.setenv("https_proxy", proxy.url)
    async with RelayClient(f"https://{VENUE}") as client:
        with pytest.raises(Unreachable, match=r"^no relay reached at https://venue\.example: [^:]*$"):
            await client.symbols()
    async with RelayClient(f"https://{VENUE}", trust_env=True) as client:
        with pytest.raises(Unreachable, match=f"the proxy {proxy.url} refused to connect"):
            await client.symbols()
        with pytest.raises(Unreachable, match=f"the proxy {proxy.url} refused to connect"):
            await anext(client)
    monkeypatch.setenv("https_proxy", "socks5://me:hush@127.0.0.1:1")
    with pytest.raises(BadArgument, match=r"^https_proxy: the value is the address of a SOCKS proxy"):
        RelayClient(f"https://{VENUE}", trust_env=True)
    RelayClient("https://localhost", trust_env=True)
