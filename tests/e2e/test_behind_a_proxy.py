"""The relay behind nginx and Caddy with TLS: the examples of the guide, and what is said when they are spoilt."""

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from relay.app import RelayLimits
from relay.client import RelayClient, Unreachable
from relay.config.parsers import networks
from relay.core.errors import ProviderUnavailable
from relay.history.service import HistoryService
from relay.web.ws.route import CLIENT_PINGS, ClientPings
from tests.conftest import StartRelay
from tests.support import slow_machine
from tests.support.authority import Authority
from tests.support.proxies import Visitor, check_everything, examples, proxy, replaced
from tests.support.running_relay import PREFIX, Closed, Running
from tests.support.sandbox import Sandbox
from tests.support.tools import tool

pytestmark = pytest.mark.timeout(300)

TRUSTED = networks(["127.0.0.1"])
LONG = f"{PREFIX}/history?symbol=BTCUSDT&interval=1m&start_time=1600000000&limit=50000&format=csv"

Behind = Callable[..., AbstractAsyncContextManager[Visitor]]


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    made = Authority(tmp_path)
    made.issue()
    return made


@pytest.fixture
def behind(tmp_path: Path, authority: Authority, request: pytest.FixtureRequest) -> Behind:
    """Run nginx in front of a relay, by the example with these lines in place of others; or another proxy."""

    @asynccontextmanager
    async def behind(
        relay: Running, *, by: str = "nginx", is_below: bool = False, **lines: Any
    ) -> AsyncIterator[Visitor]:
        program, language = {"nginx": ("nginx", "nginx"), "caddy": ("caddy", "caddyfile")}[by]
        path = tool(program, by, request.config)
        changes = lines.get("instead", {})
        async with (
            proxy(
                path,
                language,
                relay.url,
                authority,
                tmp_path,
                is_below=is_below,
                change=lambda example: replaced(example, changes),
            ) as url,
            Visitor(url, authority) as visitor,
        ):
            yield visitor

    return behind


@pytest.mark.parametrize("is_below", [False, True], ids=["top", "below"])
@pytest.mark.parametrize("by", ["nginx", "caddy"])
async def test_the_example_of_the_guide_serves_everything(
    relay_with: StartRelay,
    fast: Sandbox,
    behind: Behind,
    by: str,
    is_below: bool,
    caplog: pytest.LogCaptureFixture,
) -> None:
    relay = await relay_with(sandbox=fast, trusted_proxies=TRUSTED)
    async with behind(relay, by=by, is_below=is_below) as visitor:
        await check_everything(visitor, relay)
        if is_below:
            async with visitor.session.get(visitor.url) as answer:
                assert (str(answer.url), answer.status) == (f"{visitor.url}/", 200)
    told = [record for record in caplog.records if record.name not in slow_machine.SAID_BY]
    assert [record.getMessage() for record in told if record.levelname == "WARNING"] == []


async def test_a_relay_with_tokens_needs_no_allowed_origins(relay_with: StartRelay, behind: Behind) -> None:
    relay = await relay_with(trusted_proxies=TRUSTED, tokens=["opensesame-1234567890"])
    async with behind(relay) as visitor:
        public = {"Host": "charts.example.org", "Origin": "https://charts.example.org"}
        assert "401" in str((await visitor.get(f"{PREFIX}/symbols", **public)).status)
        bearer = {"Authorization": "Bearer opensesame-1234567890"}
        assert (await visitor.get(f"{PREFIX}/symbols", **public, **bearer)).status == 200
    relay = await relay_with(trusted_proxies=TRUSTED, allowed_origins=("https://charts.example.org",))
    async with behind(relay) as visitor:
        assert (await visitor.get(f"{PREFIX}/symbols", **public)).status == 200
        assert (await visitor.get(f"{PREFIX}/symbols", Host="charts.example.com")).status == 403


@pytest.mark.parametrize("by", ["nginx", "caddy"])
async def test_the_load_balancer_of_the_guide_goes_on_with_the_relay_that_is_left(
    relay_with: StartRelay, behind: Behind, by: str
) -> None:
    relays = [await relay_with(trusted_proxies=TRUSTED) for _ in range(2)]
    async with behind(relays[0], by=by, instead=balanced(by, relays[1])) as visitor:

        async def answers() -> set[str]:
            found = [await visitor.get(f"{PREFIX}/status") for _ in range(10)]
            assert {one.status for one in found} == {200}
            return {one.body["epoch"] for one in found}

        assert len(await answers()) == 2
        clients = [await visitor.connect() for _ in range(4)]
        for client in clients:
            await client.subscribe("BTCUSDT@1s")
        assert [len(relay.hub.subscribers) for relay in relays] == [2, 2]
        await relays[0].close()
        assert len(await answers()) == 1
        again = await visitor.connect()
        await again.subscribe("BTCUSDT@1s", bars=5)
        assert (await again.seen("snapshot"))["complete"]


def balanced(by: str, other: Running) -> dict[str, str]:
    """Return the lines of the example for a load balancer, in place of those for one relay."""
    section, there = "A load balancer in front", other.url.removeprefix("http://")
    if by == "caddy":
        (mine,), (theirs,) = examples("caddyfile", "Behind a proxy"), examples("caddyfile", section)
        return {mine: theirs.replace("127.0.0.1:8001", there)}
    upstream, location = examples("nginx", section)
    (whole,) = examples("nginx", "Behind a proxy")
    return {
        "server {\n": upstream.replace("127.0.0.1:8001", there) + "server {\n",
        whole[whole.index("    location /") : whole.rindex("}")]: location,
    }


# -- wrong settings that are named ------------------------------------------------------------------

PROTO, HOST = "    proxy_set_header X-Forwarded-Proto $scheme;\n", "    proxy_set_header Host $http_host;\n"
UPGRADE, CONNECTION = (
    "    proxy_set_header Upgrade $http_upgrade;\n",
    "    proxy_set_header Connection $connection_upgrade;\n",
)


@pytest.mark.parametrize(
    ("settings", "instead", "told", "logged"),
    [
        ({}, {}, "403 .* came through a proxy .* trusted_proxies", "127.0.0.1, which sent it, is not in trusted"),
        ({}, {PROTO: ""}, "403 .* pass X-Forwarded-Proto, .* uses https, .* by http$", "127.0.0.1 is .* pass X-F"),
        (
            {"trusted_proxies": TRUSTED},
            {PROTO: ""},
            "403 .* pass X-Forwarded-Proto, .* uses https, .* by http$",
            "by Host '127.0.0.1:[0-9]+' and http; if 127.0.0.1 is a proxy that .* pass X-Forwarded-Proto",
        ),
        (
            {"trusted_proxies": TRUSTED},
            {HOST: ""},
            "403 .* allowed_origins, .* pass Host with its port",
            "by Host '127.0.0.1:[0-9]+' and https; if 127.0.0.1 is a proxy that .* pass Host with its port",
        ),
        (
            {"trusted_proxies": TRUSTED},
            {HOST: "proxy_set_header Host $host;"},
            "403 .* allowed_origins, .* pass Host with its port",
            "by Host '127.0.0.1' and https; if 127.0.0.1 is a proxy that .* pass Host with its port",
        ),
        (
            {"trusted_proxies": TRUSTED},
            {HOST: "proxy_set_header Host localhost:8000;"},
            "403 .* Origin is not allowed; .* pass Host unchanged",
            "by Host 'localhost:8000' and https; if 127.0.0.1 is a proxy that serves this page, it must pass Host",
        ),
        (
            {"trusted_proxies": TRUSTED},
            {HOST: "proxy_set_header Host inside.example.org;"},
            "403 .* Origin is not allowed; .* pass Host unchanged",
            "by Host 'inside.example.org' and https",
        ),
        ({"trusted_proxies": TRUSTED}, {UPGRADE: ""}, "400 .* has no Upgrade: a", "127.0.0.1 has no Upgrade: a"),
        (
            {"trusted_proxies": TRUSTED},
            {CONNECTION: ""},
            "400 .* has no Connection: a proxy .* Upgrade and Connection",
            "127.0.0.1 has no Connection: a proxy",
        ),
        (
            {"trusted_proxies": TRUSTED},
            {UPGRADE: "", CONNECTION: ""},
            "400 .* has no Upgrade: a proxy .* Upgrade and Connection",
            "127.0.0.1 has no Upgrade: a proxy",
        ),
    ],
    ids=["no trust", "nothing", "no scheme", "no host", "no port", "other host", "other name", "no upgrade",
         "no connection", "neither"],
)  # fmt: skip
async def test_a_wrong_setting_is_named_in_the_answer_and_once_in_the_log(
    relay_with: StartRelay,
    behind: Behind,
    caplog: pytest.LogCaptureFixture,
    settings: dict[str, Any],
    instead: dict[str, str],
    told: str,
    logged: str,
) -> None:
    relay = await relay_with(**settings)
    async with behind(relay, instead=instead) as visitor:
        for _ in range(3):
            answer = await visitor.refusal()
            assert re.match(told, answer), answer
            # What lies behind the proxy is nobody's business.
            assert not re.search(r"127\.0\.0\.1|localhost|inside", answer)
        if told.startswith("403"):
            # A browser shows no page why its WebSocket was refused; so a page asks the same address without one.
            again = await visitor.get(f"{PREFIX}/ws", X_Page_Origin=visitor.origin)
            assert f"{again.status} {again.body['detail']}" == answer
    said = [record.getMessage() for record in caplog.records if re.search(logged, record.getMessage())]
    assert len(said) == 1, caplog.text


LOST = "not over WebSocket; a proxy between must pass the headers Upgrade and Connection"


@pytest.mark.parametrize(
    ("by", "instead", "lacking"),
    [
        ("nginx", {UPGRADE: ""}, "Upgrade"),
        ("nginx", {CONNECTION: ""}, "Connection"),
        ("nginx", {UPGRADE: "", CONNECTION: ""}, "Upgrade"),
        ("caddy", {"reverse_proxy 127.0.0.1:8000": "reverse_proxy 127.0.0.1:8000 {\nheader_up -Upgrade\n}"}, "Upgrade"),
        (
            "caddy",
            {"reverse_proxy 127.0.0.1:8000": "reverse_proxy 127.0.0.1:8000 {\nheader_up -Connection\n}"},
            "Connection",
        ),
    ],
)
async def test_a_proxy_that_passes_no_upgrade_is_named_to_every_client_in_one_line_and_once_in_the_log(
    relay_with: StartRelay,
    behind: Behind,
    caplog: pytest.LogCaptureFixture,
    by: str,
    instead: dict[str, str],
    lacking: str,
) -> None:
    relay = await relay_with(trusted_proxies=TRUSTED)
    async with behind(relay, by=by, instead=instead) as visitor:
        for _ in range(2):
            words = f"no {lacking}: a proxy between must pass the headers Upgrade and Connection"
            assert await visitor.refusal() == f"400 the handshake has {words}"
        session = aiohttp.ClientSession(connector=visitor.session.connector, connector_owner=False)
        async with session, RelayClient(visitor.url, session=session) as client:
            # All but the stream works.
            assert len(await client.history("BTCUSDT", "1m", limit=5)) == 5
            with pytest.raises(Unreachable, match=f"^the relay at {visitor.url} answers, but {LOST}$"):
                await anext(client)
    told = [record for record in caplog.records if record.name not in slow_machine.SAID_BY]
    said = [record.getMessage() for record in told if record.levelname == "WARNING"]
    assert said == [
        f"a WebSocket handshake from 127.0.0.1 has no {lacking}: a proxy between must pass the headers Upgrade and "
        "Connection"
    ]


async def test_clients_of_a_proxy_that_is_not_trusted_count_as_one_and_the_log_says_so_once(
    relay_with: StartRelay, behind: Behind, caplog: pytest.LogCaptureFixture
) -> None:
    relay = await relay_with()
    async with behind(relay) as visitor:
        for _ in range(3):
            assert (await visitor.get(f"{PREFIX}/symbols")).status == 200
    said = [record.getMessage() for record in caplog.records if "X-Forwarded-For" in record.getMessage()]
    assert said == [
        "127.0.0.1 sends X-Forwarded-For, but is not in trusted_proxies: all clients behind it count as one address"
    ]


async def test_a_path_that_is_not_taken_off_is_named(relay_with: StartRelay, behind: Behind) -> None:
    relay = await relay_with(trusted_proxies=TRUSTED)
    async with behind(relay, is_below=True, instead={"8000/;": "8000;"}) as visitor:
        for path in ("/", "/docs", f"{PREFIX}/symbols"):
            answer = await visitor.get(path)
            assert (answer.status, answer.body["code"]) == (404, "not_found")
            assert (
                "if a proxy serves the relay below '/relay', it must remove that from the path" in answer.body["detail"]
            )


# -- settings that make no difference ---------------------------------------------------------------

OLD = {"    proxy_http_version 1.1;\n": "    proxy_http_version 1.0;\n"}


async def test_buffering_compression_and_http_1_0_make_no_difference(
    relay_with: StartRelay, fast: Sandbox, behind: Behind
) -> None:
    relay = await relay_with(sandbox=fast, trusted_proxies=TRUSTED)
    settings = (
        {"server_name": "proxy_buffering off;\nserver_name"},
        {"server_name": "proxy_buffer_size 4k;\nproxy_buffers 4 4k;\nproxy_busy_buffers_size 4k;\nserver_name"},
        {"server_name": "gzip on;\ngzip_types *;\ngzip_proxied any;\ngzip_min_length 1;\nserver_name"},
        OLD,
    )
    for instead in settings:
        async with behind(relay, instead=instead) as visitor:
            await check_everything(visitor, relay)
            assert len((await visitor.get(LONG)).text.splitlines()) == 50_001, instead


@pytest.mark.parametrize("instead", [{}, OLD], ids=["HTTP 1.1", "HTTP 1.0"])
async def test_an_answer_that_breaks_off_is_broken_behind_the_proxy_too(
    relay_with: StartRelay, behind: Behind, instead: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = HistoryService.text
    calls = 0

    async def failing(self: HistoryService, *args: Any, **named: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls > 2:
            raise ProviderUnavailable("down")
        return await whole(self, *args, **named)

    monkeypatch.setattr(HistoryService, "text", failing)
    relay = await relay_with(trusted_proxies=TRUSTED)
    async with behind(relay, instead=instead) as visitor:
        with pytest.raises(aiohttp.ClientPayloadError):
            await visitor.get(LONG, Accept_Encoding="identity")


@pytest.mark.parametrize("ping_s", [0.5, 60.0])
async def test_pings_keep_a_silent_client_from_the_timeout_of_the_proxy(
    relay_with: StartRelay, behind: Behind, ping_s: float
) -> None:
    limits = RelayLimits(pings=ClientPings(interval_s=ping_s))
    relay = await relay_with(trusted_proxies=TRUSTED, limits=limits)
    async with behind(relay, instead={"server_name": "proxy_read_timeout 6s;\nserver_name"}) as visitor:
        client = await visitor.connect()
        heard = asyncio.create_task(client.next())
        await asyncio.wait({heard}, timeout=9)
        if ping_s < 6:
            assert not heard.done()
            await client.ask("ping", id=1)
            assert (await heard)["id"] == 1
        else:
            # So it is the pings that keep it.
            with pytest.raises(Closed):
                await heard
        await client.close()


def test_pings_come_more_often_than_proxies_end_silent_connections() -> None:
    assert CLIENT_PINGS.interval_s + CLIENT_PINGS.pong_timeout_s < 60
