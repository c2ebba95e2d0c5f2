"""Each name of aiohttp's client that the relay leans on is there and does what it is used for; and without them."""

import ast
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from relay.network import aiohttp_client_seams
from relay.network.aiohttp_client_seams import BODY, CONNECTIONS, PAUSING, SEAMS, Seam, connections_in_use
from relay.network.connector import TooLarge, line_of
from relay.network.http_sessions import MIB, CountedSocket, open_session
from relay.network.read_slices import HeldTransport, Slices
from relay.testing.watched_session import WatchedSession
from tests.support.conditions import eventually
from tests.support.loopback_server import loopback_server
from tests.support.sources import tree

LARGE = 33 * MIB


async def socket(request: web.Request) -> web.WebSocketResponse:
    """Send back what comes."""
    ws = web.WebSocketResponse()
    await ws.prepare(request)
    async for message in ws:
        await ws.send_str(message.data)
    return ws


async def body(request: web.Request) -> web.StreamResponse:
    """Answer with JSON of the length that is asked for."""
    answer = web.StreamResponse(headers={"Content-Type": "application/json"})
    await answer.prepare(request)
    left = int(request.query["bytes"]) - 2
    await answer.write(b'"')
    while left > 0:
        await answer.write(b"x" * min(left, MIB))
        left -= MIB
    await answer.write(b'"')
    return answer


@pytest.fixture
async def url() -> AsyncIterator[str]:
    app = web.Application()
    app.add_routes([web.get("/ws", socket), web.get("/body", body)])
    async with loopback_server(app) as host:
        yield f"http://{host}"


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with open_session() as session:
        yield session


def without(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Have the relay take names of aiohttp for missing."""
    seam: Seam = getattr(aiohttp_client_seams, name)
    monkeypatch.setattr(aiohttp_client_seams, name, seam._replace(names=(*seam.names, "no_longer_there")))


@pytest.mark.parametrize("seam", [seam for seam in SEAMS if seam is not PAUSING], ids=lambda seam: seam.names[0])
def test_aiohttp_has_the_names(seam: Seam) -> None:
    assert seam.is_there
    assert not seam._replace(names=("no_longer_there",)).is_there


async def test_body_that_read_leaves_is_what_text_and_json_take(session: aiohttp.ClientSession, url: str) -> None:
    async with session.get(f"{url}/body?bytes=6") as answer:
        before = answer._body
        assert await answer.json() == "xxxx"
        assert (before, answer._body) == (None, b'"xxxx"')
        assert await answer.text() == '"xxxx"'


@pytest.mark.parametrize("method", ["read", "text", "json"])
async def test_body_has_a_bound_whichever_way_it_is_read(session: aiohttp.ClientSession, url: str, method: str) -> None:
    async with session.get(f"{url}/body?bytes={LARGE}") as answer:
        with pytest.raises(TooLarge):
            await getattr(answer, method)()


async def test_body_is_read_without_the_name_and_bounded_by_its_connection(
    session: aiohttp.ClientSession, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    without(monkeypatch, "BODY")
    async with session.get(f"{url}/body?bytes=6") as answer:
        assert await answer.json() == "xxxx"
    async with session.get(f"{url}/body?bytes={LARGE}") as answer:
        with pytest.raises(TooLarge):
            await answer.read()
    assert BODY.is_there


async def test_body_is_read_without_lines_and_names_and_without_a_bound(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    without(monkeypatch, "BODY")
    without(monkeypatch, "FACTORY")
    async with open_session() as session, session.get(f"{url}/body?bytes={LARGE}") as answer:
        assert len(await answer.read()) == LARGE


@pytest.mark.parametrize("is_there", [True, False])
async def test_connections_in_use_are_seen_and_broken(
    session: aiohttp.ClientSession, url: str, is_there: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not is_there:
        without(monkeypatch, "CONNECTIONS")
    watched = WatchedSession(session)
    async with watched.ws_connect(f"{url}/ws") as ws:
        assert len(watched.held) == 1
        watched.drop_connections()
        message = await ws.receive(20)
        assert message.type in (aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.ERROR)
    await eventually(lambda: not watched.held)


async def test_only_with_the_name_a_plain_answer_is_seen(
    session: aiohttp.ClientSession, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with session.get(f"{url}/body?bytes={MIB}"):
        assert len(connections_in_use(session, ())) == 1
        without(monkeypatch, "CONNECTIONS")
        assert connections_in_use(session, ()) == ()
    assert CONNECTIONS.is_there


@pytest.mark.parametrize("name", ["FACTORY", "END", "HEAD"])
async def test_without_a_name_connections_are_those_of_aiohttp(
    url: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    without(monkeypatch, name)
    async with open_session() as session:
        async with session.get(f"{url}/body?bytes={MIB}") as answer:
            assert answer.connection is not None
            assert line_of(answer.connection.transport) is None
            assert len(await answer.read()) == MIB
        async with session.ws_connect(f"{url}/ws") as ws:
            assert isinstance(ws, CountedSocket)
            assert ws.line is None
            await ws.send_str("hello")
            assert (await ws.receive(20)).data == "hello"
            assert not ws.is_flooded


@pytest.mark.parametrize("is_asked", [True, False])
async def test_reader_that_is_slow_has_its_line_held(
    session: aiohttp.ClientSession, url: str, is_asked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if is_asked and not PAUSING.is_there:
        pytest.skip("this aiohttp has no such names; the other way holds")
    if not is_asked:
        without(monkeypatch, "PAUSING")
    told: list[str] = []
    for name in ("hold", "release"):
        monkeypatch.setattr(f"relay.network.connector.Line.{name}", noting(name, told))
    async with session.get(f"{url}/body?bytes={8 * MIB}") as answer:
        assert answer.connection is not None
        assert isinstance(answer.connection.transport, HeldTransport) is not is_asked
        assert line_of(answer.connection.transport) is not None
        await eventually(lambda: "hold" in told)
        assert len(await answer.read()) == 8 * MIB
    assert "release" in told
    async with session.ws_connect(f"{url}/ws") as ws:
        assert isinstance(ws, CountedSocket)
        assert ws.line is not None
        await ws.send_str("hello")
        assert (await ws.receive(20)).data == "hello"


def noting(name: str, told: list[str]) -> Callable[[Slices], None]:
    """Return what does as `Slices` does, and notes it."""
    does: Callable[[Slices], None] = getattr(Slices, name)

    def noted(slices: Slices) -> None:
        told.append(name)
        does(slices)

    return noted


# -- the only places -------------------------------------------------------------------------------

ROOT = Path(__file__).parents[2]
OWN_PACKAGES = ("relay", "providers")
OF_PYTHON = {"_replace", "_asdict", "_make", "_fields", "_getframe", "_current_frames", "_exit"}
OTHERS = {"aiohttp", "web", "aiosqlite", "uvloop"}
"""What classes of other libraries are named by, as in `web.Request`."""


def own_names(code: ast.AST) -> Iterator[str]:
    """Yield the names with an underscore that a module gives to functions, classes, attributes and variables."""
    for node in ast.walk(code):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.attr
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id


def private_names_of_others(code: ast.AST, own: set[str]) -> Iterator[tuple[int, str]]:
    """Yield what a module uses of other libraries that these do not promise: private names and inner modules.

    Within a class that derives from theirs, or from one of the seams', what it does not set itself is theirs.
    """
    derived = [
        node
        for node in ast.walk(code)
        if isinstance(node, ast.ClassDef)
        and any(ast.unparse(one).split(".")[0] in OTHERS | SEAM_CLASSES for one in node.bases)
    ]
    for node in ast.walk(code):
        if isinstance(node, ast.ImportFrom) and node.module is not None:
            inner = node.module.split(".")
            if inner[0] in OTHERS and len(inner) > 1 and node.module != "aiohttp.abc":
                yield node.lineno, node.module
        elif isinstance(node, ast.Attribute) and node.attr.startswith("_") and not node.attr.startswith("__"):
            if node.attr not in own | OF_PYTHON:
                yield node.lineno, node.attr
        elif (
            isinstance(node, ast.Attribute)
            and isinstance(node.value, ast.Attribute)
            and node.value.attr in ("helpers", "connector")
            and ast.unparse(node.value.value) == "aiohttp"
        ):
            yield node.lineno, ast.unparse(node)
    for kind in derived:
        mine = set(own_names(kind))
        for node in ast.walk(kind):
            if isinstance(node, ast.Attribute) and node.attr.startswith("_") and not node.attr.startswith("__"):
                if isinstance(node.value, ast.Name) and node.value.id == "self" and node.attr not in mine:
                    yield node.lineno, node.attr
            elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Assign):
                names = list(map(ast.unparse, node.targets)) if isinstance(node, ast.Assign) else [node.name]
                for name in names:
                    if name in OVERRIDDEN:
                        yield node.lineno, name


OVERRIDDEN = {
    *("_send_headers_immediately", "_pause_transport_reading", "_resume_transport_reading"),
    *("set_parser", "set_response_params", "handle_error", "start"),
}
"""Names of aiohttp that it does not promise, and that have no meaning elsewhere."""
SEAM_MODULES = {"relay/network/aiohttp_client_seams.py", "relay/web/aiohttp_seams.py"}
SEAM_CLASSES = {node.name for path in SEAM_MODULES for node in tree(ROOT / path).body if isinstance(node, ast.ClassDef)}


def test_nothing_else_leans_on_what_other_libraries_do_not_promise() -> None:
    trees = {
        str(path.relative_to(ROOT)): tree(path)
        for package in OWN_PACKAGES
        for path in sorted((ROOT / package).rglob("*.py"))
    }
    own = {name for path, one in trees.items() if path not in SEAM_MODULES for name in own_names(one)}
    found = {name: list(private_names_of_others(one, own)) for name, one in trees.items()}
    assert {name: uses for name, uses in found.items() if uses and name not in SEAM_MODULES} == {}
    assert all(found[name] for name in SEAM_MODULES)


@pytest.mark.parametrize(
    "text",
    [
        "site._server = 1\nsite._runner",
        "from aiohttp.base_protocol import BaseProtocol",
        "stamp = aiohttp.helpers.parse_http_date('')",
        "class Site(web.BaseSite):\n    def name(self):\n        return self._ssl_context",
        "class Socket(web.WebSocketResponse):\n    _send_headers_immediately = False",
        "class Handler(web.RequestHandler):\n    def set_parser(self, parser): ...",
        "class Answer(LinedResponse):\n    async def start(self, connection): ...",
        "class Socket(LinedSocket):\n    def protocol(self):\n        return self._response",
        "from aiohttp.client_proto import ResponseHandler",
        "connector._factory = None",
    ],
)
def test_what_others_do_not_promise_is_noticed(text: str) -> None:
    assert list(private_names_of_others(ast.parse(text), {"_server"}))
