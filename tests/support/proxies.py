"""Real proxies with TLS in front of a relay: the examples of the operator's guide, on a free port, with own files."""

import asyncio
import base64
import contextlib
import re
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from html import unescape
from pathlib import Path
from typing import NamedTuple, Self
from urllib.parse import urljoin

import aiohttp
import orjson

from relay.client import RelayClient, Update
from tests.support.authority import Authority
from tests.support.conditions import LONGEST_WAIT_S, eventually
from tests.support.free_ports import free_port
from tests.support.running_relay import PREFIX, Answer, EventClient, Message, Running, WsClient, end_process

GUIDE = Path(__file__).parents[2] / "relay" / "server" / "README.md"
HOST, RELAY = "charts.example.org", "127.0.0.1:8000"

Change = Callable[[str], str]


class Place(NamedTuple):
    """Where a proxy listens, which relay it serves, and with which certificate; its own files go into `folder`."""

    folder: Path
    address: str
    relay: str
    authority: Authority


def examples(language: str, section: str) -> list[str]:
    """Return the blocks of a language in one section of the guide."""
    text = GUIDE.read_text(encoding="utf-8")
    found = re.search(rf"^(##+) {re.escape(section)}\n(.*?)(?=^##|\Z)", text, re.MULTILINE | re.DOTALL)
    assert found is not None, section
    return re.findall(rf"^```{language}\n(.*?)^```", found[2], re.MULTILINE | re.DOTALL)


def replaced(text: str, changes: dict[str, str]) -> str:
    """Put other texts in place of some, each of which has to be there."""
    for old, new in changes.items():
        assert old in text, old
        text = text.replace(old, new)
    return text


def example_of(language: str, *, is_below: bool) -> str:
    """Return the example for a proxy, at the top of a host or below `/relay/`."""
    if not is_below or language != "nginx":
        return examples(language, "Below a path" if is_below else "Behind a proxy")[0]
    (whole,), (part,) = examples(language, "Behind a proxy"), examples(language, "Below a path")
    return replaced(whole, {whole[whole.index("    location /") : whole.rindex("}")]: part})


def of_nginx(example: str, place: Place) -> tuple[str, list[str]]:
    """Return the configuration and the arguments of nginx: one process, in the foreground, as whoever starts it."""
    server = replaced(
        example,
        {
            "listen 443": f"listen {place.address}",
            "server_name charts.example.org": "server_name 127.0.0.1",
            "/etc/nginx/charts.pem": str(place.authority.cert),
            "/etc/nginx/charts.key": str(place.authority.key),
            RELAY: place.relay,
        },
    )
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    folders = "".join(f"{kind}_temp_path {place.folder / kind};\n" for kind in kinds)
    own = f"daemon off;\nmaster_process off;\npid {place.folder / 'pid'};\nerror_log stderr;\nevents {{}}\n"
    whole = f"{own}http {{\naccess_log off;\n{folders}{server}}}\n"
    return whole, ["-p", str(place.folder), "-e", "stderr", "-c"]


def of_caddy(example: str, place: Place) -> tuple[str, list[str]]:
    """Return the configuration and the arguments of Caddy, which asks nobody for a certificate."""
    site = replaced(
        example,
        {
            f"{HOST} {{": f"https://{place.address} {{\ntls {place.authority.cert} {place.authority.key}\n",
            RELAY: place.relay,
        },
    )
    return f"{{\nadmin off\nauto_https off\n}}\n{site}", ["run", "--adapter", "caddyfile", "--config"]


def of_traefik(example: str, place: Place) -> tuple[str, list[str]]:
    """Return the configuration and the arguments of Traefik, which asks nobody for a certificate or a version."""
    rules = replaced(example, {HOST: "127.0.0.1", "{certResolver: letsencrypt}": "{}", RELAY: place.relay})
    files = f"{{certFile: {place.authority.cert}, keyFile: {place.authority.key}}}"
    return f"{rules}tls: {{stores: {{default: {{defaultCertificate: {files}}}}}}}\n", [
        f"--entryPoints.websecure.address={place.address}",
        "--global.checkNewVersion=false",
        "--global.sendAnonymousUsage=false",
        "--providers.file.filename",
    ]


SETTERS = {"nginx": of_nginx, "caddyfile": of_caddy, "yaml": of_traefik}


@asynccontextmanager
async def proxy(
    program: str,
    language: str,
    relay_url: str,
    authority: Authority,
    folder: Path,
    *,
    is_below: bool = False,
    change: Change = lambda example: example,
) -> AsyncIterator[str]:
    """Run a proxy by the example of the guide, changed as the test wants; give the address of the relay behind it."""
    address = f"127.0.0.1:{free_port()}"
    place = Place(folder, address, relay_url.removeprefix("http://"), authority)
    text, arguments = SETTERS[language](change(example_of(language, is_below=is_below)), place)
    config = folder / f"{language}.{'yaml' if language == 'yaml' else 'conf'}"
    config.write_text(text)
    output = folder / "output"
    with output.open("wb") as file:
        process = await asyncio.create_subprocess_exec(
            program,
            *arguments,
            str(config),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=file,
            stderr=asyncio.subprocess.STDOUT,
            env={"HOME": str(folder), "XDG_DATA_HOME": str(folder), "XDG_CONFIG_HOME": str(folder)},
        )
    try:
        url = f"https://{address}{'/relay' if is_below else ''}"
        await _serves(process, url, authority.trust, output)
        yield url
    finally:
        await end_process(process)


async def _serves(process: asyncio.subprocess.Process, url: str, trust: ssl.SSLContext, output: Path) -> None:
    """Wait until the relay answers through a proxy. Raises `TimeoutError` with what the proxy said instead."""
    try:
        async with asyncio.timeout(LONGEST_WAIT_S), aiohttp.ClientSession() as session:
            while process.returncode is None:
                with contextlib.suppress(aiohttp.ClientError):
                    async with session.get(f"{url}/healthz", ssl=trust) as answer:
                        # Some take connections before they know whom to serve.
                        if answer.status == 200 or answer.content_type == "application/problem+json":
                            return
                await asyncio.sleep(0.05)
            raise TimeoutError
    except TimeoutError:
        raise TimeoutError(await asyncio.to_thread(output.read_text, errors="replace")) from None


class Visitor:
    """A client of the relay behind a proxy, whose own address is `COMES_FROM`; it trusts the test's certificates."""

    COMES_FROM = "127.0.0.2"

    def __init__(self, url: str, authority: Authority) -> None:
        self.url = url
        self.origin = "/".join(url.split("/", 3)[:3])
        connector = aiohttp.TCPConnector(ssl=authority.trust, local_addr=(self.COMES_FROM, 0))
        self.session = aiohttp.ClientSession(connector=connector)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.session.close()

    async def get(self, path: str, **headers: str) -> Answer:
        """Ask for a path below the relay's address; no redirect is followed."""
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        async with self.session.get(self.url + path, headers=sent, allow_redirects=False) as answer:
            raw = await answer.read()
            is_json = answer.content_type in ("application/json", "application/problem+json")
            return Answer(answer.status, answer.headers, orjson.loads(raw) if is_json and raw else None, raw.decode())

    async def connect(self, address: str | None = None) -> WsClient:
        """Open a WebSocket as a page of this address does. Raises `aiohttp.WSServerHandshakeError`."""
        socket = await self.session.ws_connect(
            address or f"{self.url}{PREFIX}/ws", headers={"Origin": self.origin}, max_msg_size=0
        )
        client = WsClient(socket)
        assert (await client.next())["type"] == "status"
        return client

    async def refusal(self) -> str:
        """Try to open a WebSocket as a page does; return the answer that refuses it: a browser shows it nobody."""
        key = base64.b64encode(bytes(16)).decode()
        answer = await self.get(
            f"{PREFIX}/ws",
            Origin=self.origin,
            Upgrade="websocket",
            Connection="Upgrade",
            Sec_WebSocket_Key=key,
            Sec_WebSocket_Version="13",
        )
        assert answer.status in (400, 403), answer
        return f"{answer.status} {answer.body['detail']}"


async def check_everything(visitor: Visitor, relay: Running) -> None:
    """See that pages, their links, contracts, history, the WebSocket and our client work below an address."""
    base = visitor.url + "/"
    found = set()
    for page in ("/", "/status.html", "/docs"):
        answer = await visitor.get(page)
        assert (answer.status, answer.headers["Content-Type"]) == (200, "text/html; charset=utf-8"), page
        for link in re.findall(r'(?:href|src)="([^"#]+)"', answer.text):
            absolute = urljoin(visitor.url + page, unescape(link))
            if not absolute.startswith("https://www.tradingview.com/"):
                assert absolute.startswith(base)
                found.add("/" + absolute.removeprefix(base))
    assert {"/static/main.js", "/status.html", "/docs", "/openapi.json", f"{PREFIX}/symbols"} <= found
    # The answer of one does not end.
    for path in sorted(one for one in found - {"/metrics"} if "/sse?" not in one):
        assert (await visitor.get(path)).status == 200, path

    rest = (await visitor.get("/openapi.json")).body
    assert urljoin(f"{base}openapi.json", rest["servers"][0]["url"]) == base
    live = (await visitor.get("/asyncapi.json")).body
    server = live["servers"]["relay"]
    address = f"{server['protocol']}://{server['host']}{server.get('pathname', '')}"
    address += live["channels"]["marketData"]["address"]
    assert address == f"{visitor.url.replace('https', 'wss', 1)}{PREFIX}/ws"
    assert address in (await visitor.get("/docs")).text

    past = f"{PREFIX}/history?symbol=BTCUSDT&interval=1h&end_time=1764000000"
    answer = await visitor.get(past, Origin=visitor.origin)
    assert (len(answer.body["candles"]), answer.headers["Access-Control-Allow-Origin"]) == (500, visitor.origin)
    assert (await visitor.get(past, If_None_Match=answer.headers["ETag"])).status == 304

    async def has_all_rows() -> bool:
        # What a provider answers too late for one request is there for the next.
        return len((await visitor.get(f"{past}&limit=12000&format=csv")).text.splitlines()) == 12_001

    await eventually(has_all_rows)

    client = await visitor.connect(address)
    await client.subscribe("BTCUSDT@1s", bars=3)

    def is_whole(message: Message) -> bool:
        return message["type"] == "snapshot" and len(message["candles"]) == 3

    # Another one takes the place of a snapshot for which the provider was too slow.
    assert any(map(is_whole, client.received)) or await client.until(is_whole)
    await client.update(is_closed=True)
    assert {connection.caller.address for connection in relay.clients.connections} == {visitor.COMES_FROM}
    await client.close()

    events = EventClient(visitor.session, visitor.url)
    await events.subscribe("BTCUSDT@1s", bars=3)
    first = (await events.update(is_closed=True))["candle"]["time"]
    await events.close()
    again = EventClient(visitor.session, visitor.url, events.last_id)
    await again.subscribe("BTCUSDT@1s")
    times = [candle["time"] for candle in (await again.seen("snapshot"))["candles"]]
    assert min([*times, (await again.update(is_closed=True))["candle"]["time"]]) == first + 1
    assert {connection.caller.address for connection in relay.clients.connections} == {visitor.COMES_FROM}
    await again.close()

    session = aiohttp.ClientSession(connector=visitor.session.connector, connector_owner=False)
    async with session, RelayClient(visitor.url, session=session) as client_in_python:
        assert len(await client_in_python.history("BTCUSDT", "1m", limit=5)) == 5
        await client_in_python.subscribe("BTCUSDT@1s")
        async for message in client_in_python:
            if isinstance(message, Update):
                break
