"""The WebSocket side of the facade for Binance's programs: requests, events, and what comes after an outage."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import aiohttp
import orjson
import pytest

from relay.app import HUB
from relay.protocol import frames
from relay.web.facades.binance.connection import MESSAGE_BYTES
from tests.conftest import StartRelay
from tests.support.binance_oracle import BinanceOracle
from tests.support.conditions import LONGEST_WAIT_S, eventually
from tests.support.contracts import check_event
from tests.support.raw_socket import HANDSHAKE, RawClient, masked, parsed
from tests.support.running_relay import Running
from tests.support.sandbox import Sandbox

LENGTHS = ("1m", "3m", "5m", "15m", "30m", "1h", "2h", "4h", "6h", "8h", "12h")
TOKEN = "a-token-of-this-test-0123456789"
Connect = Callable[..., Awaitable["VenueClient"]]


class VenueClient:
    """A client of Binance's protocol; all that arrived is in `received`."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.socket = socket
        self.received: list[Any] = []

    async def next(self) -> Any:
        frame = await self.socket.receive(LONGEST_WAIT_S)
        assert frame.type is aiohttp.WSMsgType.TEXT, (frame, self.socket.close_code)
        self.received.append(orjson.loads(frame.data))
        check_event(self.received[-1])
        return self.received[-1]

    async def ask(self, method: str, *params: Any, identity: Any = 1) -> Any:
        """Send a request and return its answer; events that come before it are kept."""
        await self.socket.send_str(orjson.dumps({"method": method, "params": [*params], "id": identity}).decode())
        return await self.answer(identity)

    async def answer(self, identity: Any) -> Any:
        while True:
            message = await self.next()
            if "id" in message and message["id"] == identity:
                return message

    async def event(self, fits: Callable[[Any], object] = lambda kline: True) -> Any:
        """Return the next event of a kline that fits."""
        while True:
            message = await self.next()
            data = message.get("data", message)
            if data.get("e") == "kline" and fits(data["k"]):
                return message


@pytest.fixture
async def connect() -> AsyncIterator[Connect]:
    async with AsyncExitStack() as stack:
        session = await stack.enter_async_context(aiohttp.ClientSession())

        async def open_one(url: str, path: str, **options: Any) -> VenueClient:
            address = url.replace("http://", "ws://") + path
            return VenueClient(await stack.enter_async_context(session.ws_connect(address, **options)))

        yield open_one


def closes(client: VenueClient) -> list[int]:
    """Return the open times of all closed klines that arrived."""
    events = [message.get("data", message) for message in client.received]
    return [event["k"]["t"] for event in events if event.get("e") == "kline" and event["k"]["x"]]


# -- requests ----------------------------------------------------------------------------------------------------------

REQUESTS: list[Any] = [
    {"method": "SUBSCRIBE", "params": ["btcusdt@kline_1h", "ethusdt@kline_1M"], "id": 1},
    {"method": "LIST_SUBSCRIPTIONS", "id": "a-b_c"},
    {"method": "SUBSCRIBE", "params": ["btcusdt@kline_1h"], "id": None},
    {"method": "LIST_SUBSCRIPTIONS", "id": 3},
    {"method": "UNSUBSCRIBE", "params": ["btcusdt@kline_1h", "xrpusdt@kline_1m"], "id": 4},
    {"method": "LIST_SUBSCRIPTIONS", "id": 5},
    {"method": "SUBSCRIBE", "params": ["nopeusdt@kline_1m", "BTCUSDT@kline_1m"], "id": 6},
    {"method": "LIST_SUBSCRIPTIONS", "id": 7},
    {"method": "SUBSCRIBE", "params": ["btcusdt@kline_7m"], "id": 8},
    {"method": "SUBSCRIBE", "params": ["btcusdt"], "id": 9},
    {"method": "SUBSCRIBE", "params": [7], "id": 10},
    {"method": "SUBSCRIBE", "params": [], "id": 11},
    {"method": "SUBSCRIBE", "params": "btcusdt@kline_1m", "id": 12},
    {"method": "SUBSCRIBE", "id": 13},
    {"method": "LIST_SUBSCRIPTIONS", "params": ["x"], "id": 14},
    {"method": "GET_PROPERTY", "params": ["combined"], "id": 15},
    {"method": "SET_PROPERTY", "params": ["combined", True], "id": 16},
    {"method": "GET_PROPERTY", "params": ["combined"], "id": 17},
    {"method": "SET_PROPERTY", "params": ["combined"], "id": 18},
    {"method": "SET_PROPERTY", "params": ["other", True], "id": 19},
    {"method": "GET_PROPERTY", "params": [1], "id": 20},
    {"method": "GET_PROPERTY", "params": ["combined", 1], "id": 21},
    {"method": "NOPE", "id": 22},
    {"params": [], "id": 23},
    [],
    {"method": "SUBSCRIBE", "params": ["btcusdt@kline_1m"], "id": 1.5},
    {"method": "SUBSCRIBE", "params": ["btcusdt@kline_1m"], "id": True},
    {"method": "SUBSCRIBE", "params": ["btcusdt@kline_1m"], "id": "x" * 37},
    {"method": "SUBSCRIBE", "params": ["btcusdt@kline_1m"], "id": 2**63},
]


@pytest.mark.parametrize("path", ["/ws", "/ws/0", "/stream"])
@pytest.mark.usefixtures("way")
async def test_requests_are_answered_as_the_exchange_answers_them(
    sandbox: Sandbox, relay_with: StartRelay, connect: Connect, path: str
) -> None:
    sandbox.binance.messages_per_second = None
    sandbox.binance.faults.mute()
    relay = await relay_with()
    ours = await connect(relay.url, path)
    theirs = await connect(sandbox.binance.ws_url, path)
    for request in REQUESTS:
        for text in (orjson.dumps(request).decode(), orjson.dumps(request).decode()[:-1]):
            await ours.socket.send_str(text)
            await theirs.socket.send_str(text)
            said, truth = await ours.next(), await theirs.next()
            # Where in a text JSON ends is counted otherwise by another parser.
            if truth.get("error", {}).get("code") == 3:
                said["error"]["msg"], truth["error"]["msg"] = (one["error"]["msg"][:40] for one in (said, truth))
            assert said == truth, text


@pytest.mark.parametrize("name", ["btcusdt@trade", "btcusdt@depth20@100ms", "!ticker@arr", "btcusdt@kline_1d@+08:00"])
async def test_what_is_no_kline_stream_is_refused_with_a_sentence(relay: Running, connect: Connect, name: str) -> None:
    client = await connect(relay.url, "/ws")
    answer = await client.ask("SUBSCRIBE", "btcusdt@kline_1s", name)
    assert answer["error"]["code"] == 2
    assert name in answer["error"]["msg"]
    assert (await client.ask("LIST_SUBSCRIPTIONS"))["result"] == []
    by_address = await connect(relay.url, f"/ws/{name}")
    assert (await by_address.answer(None))["error"]["code"] == 2


async def test_a_client_has_as_many_streams_as_elsewhere(relay_with: StartRelay, connect: Connect) -> None:
    relay = await relay_with(max_streams_per_client=3)
    client = await connect(relay.url, "/ws")
    names = [f"{symbol}usdt@kline_1m" for symbol in ("btc", "eth", "bnb", "sol")]
    assert "error" in await client.ask("SUBSCRIBE", *names)
    assert "error" in await client.ask("SUBSCRIBE", *(f"nope{n}usdt@kline_1m" for n in range(4)))
    assert (await client.ask("SUBSCRIBE", *names[:3]))["result"] is None
    assert {stream.key.symbol for stream in relay.app[HUB].streams.values() if stream.is_wanted} == {
        "BTCUSDT", "ETHUSDT", "BNBUSDT",
    }  # fmt: skip


@pytest.mark.usefixtures("way")
async def test_one_message_takes_all_streams_that_a_connection_may_have(
    relay_with: StartRelay, connect: Connect
) -> None:
    async with Sandbox(extra_symbols=100) as sandbox:
        sandbox.binance.faults.mute()
        relay = await relay_with(sandbox=sandbox, max_streams=4000)
        client = await connect(relay.url, "/stream")
        symbols = [symbol.lower() for symbol in sandbox.binance.market.crypto]
        names = [f"{symbol}@kline_{interval}" for interval in LENGTHS for symbol in symbols][:1025]
        assert len(orjson.dumps(names)) > 4 * frames.MESSAGE_BYTES
        # Programs repeat what they have.
        for count in (1, 350, 1024, 1024):
            assert (await client.ask("SUBSCRIBE", *names[:count]))["result"] is None
        assert (await client.ask("LIST_SUBSCRIPTIONS"))["result"] == names[:1024]
        assert "1024" in (await client.ask("SUBSCRIBE", names[1024]))["error"]["msg"]
        await eventually(lambda: len(sandbox.binance.subscribed) == 1024)
        for name in (names[0], names[1023]):
            sandbox.binance.inject(name)
            while (await client.event())["stream"] != name:
                pass
        assert (await client.ask("UNSUBSCRIBE", *names))["result"] is None
        await eventually(lambda: not relay.app[HUB].streams)


@pytest.mark.usefixtures("way")
async def test_a_message_that_is_too_long_ends_the_connection(relay_with: StartRelay, connect: Connect) -> None:
    client = await connect((await relay_with()).url, "/ws")
    text = orjson.dumps({"method": "LIST_SUBSCRIPTIONS", "id": 1}).decode()
    await client.socket.send_str(text.ljust(MESSAGE_BYTES))
    assert await client.next() == {"result": [], "id": 1}
    await client.socket.send_str(text.ljust(MESSAGE_BYTES + 1))
    assert (await client.socket.receive(LONGEST_WAIT_S)).type is aiohttp.WSMsgType.CLOSE
    assert client.socket.close_code == 1009


@pytest.mark.usefixtures("way")
async def test_what_comes_right_behind_the_handshake_is_answered_after_what_the_address_names(
    sandbox: Sandbox, relay_with: StartRelay
) -> None:
    # While the list is not known yet, streams are waited for.
    sandbox.binance.faults.delay_rest(0.5)
    relay = await relay_with()
    requests = [{"method": "LIST_SUBSCRIPTIONS", "id": 1},
                {"method": "UNSUBSCRIBE", "params": ["btcusdt@kline_1h"], "id": 2},
                {"method": "LIST_SUBSCRIPTIONS", "id": 3}]  # fmt: skip
    client = RawClient(relay.url)
    path = b"/stream?streams=btcusdt@kline_1h/ethusdt@kline_1h"
    handshake = HANDSHAKE.replace(HANDSHAKE.split(b" ")[1], path)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(client.socket, client.address)
    await loop.sock_sendall(client.socket, handshake + b"".join(masked(orjson.dumps(one)) for one in requests))
    said = bytearray()
    while b'"id":3' not in said:
        said += await loop.sock_recv(client.socket, 4096)
    client.close()
    answers = [one for one in parsed(said.partition(b"\r\n\r\n")[2]) if "id" in one]
    assert [one["result"] for one in answers] == [
        ["btcusdt@kline_1h", "ethusdt@kline_1h"], None, ["ethusdt@kline_1h"]
    ]  # fmt: skip


async def test_a_text_that_cannot_be_written_again_is_no_request(
    relay: Running, connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    client = await connect(relay.url, "/ws")
    for request in (r'{"method":"\ud800","id":1}', r'{"method":"SUBSCRIBE","params":["\ud800@kline_1m"],"id":1}'):
        await client.socket.send_str(request)
        assert (await client.next())["error"]["code"] == 3
    assert (await client.ask("LIST_SUBSCRIPTIONS"))["result"] == []
    assert [record.getMessage() for record in caplog.records if record.levelname == "ERROR"] == []


async def test_a_client_that_leaves_has_no_streams(relay: Running, connect: Connect) -> None:
    client = await connect(relay.url, "/stream?streams=btcusdt@kline_1s/ethusdt@kline_1s")
    await client.event()
    await client.socket.close()
    await eventually(lambda: not relay.app[HUB].subscribers and not relay.app[HUB].streams)


# -- events ------------------------------------------------------------------------------------------------------------


async def same_events(ours: VenueClient, theirs: VenueClient, count: int) -> list[Any]:
    """Return closed klines that both were sent."""
    found: list[Any] = []
    known: dict[int, Any] = {}
    while len(found) < count:
        truth = await theirs.event(lambda kline: kline["x"])
        known[truth.get("data", truth)["k"]["t"]] = truth
        said = await ours.event(lambda kline: kline["x"])
        if (time := said.get("data", said)["k"]["t"]) in known:
            assert said == known[time]
            found.append(said)
    return found


@pytest.mark.parametrize(
    "path",
    ["/ws/btcusdt@kline_1s", "/ws/btcusdt%40kline_1s", "/stream?streams=btcusdt@kline_1s",
     "/ws/btcusdt@kline_1s?timeUnit=MICROSECOND", "/stream?timeUnit=microsecond&streams=btcusdt@kline_1s"],
)  # fmt: skip
@pytest.mark.usefixtures("way")
async def test_events_are_those_of_the_exchange(
    sandbox: Sandbox, relay_with: StartRelay, connect: Connect, path: str
) -> None:
    relay = await relay_with()
    ours, theirs = await connect(relay.url, path), await connect(sandbox.binance.ws_url, path)
    events = await same_events(ours, theirs, 2)
    assert [*events[0]] == (["stream", "data"] if "stream" in path else ["e", "E", "s", "k"])


async def test_both_protocols_are_served_from_one_stream(sandbox: Sandbox, relay: Running, connect: Connect) -> None:
    venue = await connect(relay.url, "/ws/btcusdt@kline_1s")
    other = await connect(relay.url, "/stream")
    assert (await other.ask("SUBSCRIBE", "btcusdt@kline_1s"))["result"] is None
    own = await relay.connect()
    await own.subscribe("BTCUSDT@1s")
    for _ in range(2):
        kline = (await venue.event(lambda kline: kline["x"]))["k"]
        wrapped = await other.event(lambda one, at=kline["t"]: one["x"] and one["t"] == at)  # type: ignore[misc]
        assert wrapped == {"stream": "btcusdt@kline_1s", "data": {**wrapped["data"], "k": kline}}
        update = await own.update(is_closed=True)
        assert {"e", "stream"}.isdisjoint(update)
    assert sandbox.binance.connections == 1
    # States and gaps are for who speaks the relay's own protocol.
    assert {message.get("e", "answer") for message in venue.received} == {"kline"}


async def test_the_form_can_be_changed_while_events_come(relay: Running, connect: Connect) -> None:
    client = await connect(relay.url, "/ws/btcusdt@kline_1s")
    await client.event()
    await client.ask("SET_PROPERTY", "combined", True)
    assert (await client.event())["stream"] == "btcusdt@kline_1s"
    await client.ask("SET_PROPERTY", "combined", False)
    assert "stream" not in await client.event()


async def test_unsubscribing_ends_the_events(relay: Running, connect: Connect) -> None:
    client = await connect(relay.url, "/ws/btcusdt@kline_1s")
    await client.event()
    await client.ask("UNSUBSCRIBE", "btcusdt@kline_1s")
    assert await client.ask("SUBSCRIBE", "ethusdt@kline_1s") == {"result": None, "id": 1}
    assert (await client.event())["s"] == "ETHUSDT"
    before = len(client.received)
    await client.event()
    assert all(message.get("s") == "ETHUSDT" for message in client.received[before:])


async def test_what_closed_during_an_outage_comes_as_ordinary_events_in_order(
    sandbox: Sandbox, relay: Running, connect: Connect
) -> None:
    client = await connect(relay.url, "/ws/btcusdt@kline_1s")
    await client.event(lambda kline: kline["x"])
    sandbox.binance.faults.refuse(503, seconds=3.0)
    sandbox.binance.faults.drop()
    await eventually(lambda: sandbox.binance.connections == 0)
    await eventually(lambda: sandbox.binance.connections == 1)
    live = await client.event(lambda kline: kline["x"])
    for _ in range(6):
        live = await client.event(lambda kline: kline["x"])
    times = closes(client)
    assert times == [*range(times[0], live["k"]["t"] + 1, 1000)]
    oracle = BinanceOracle(sandbox)
    truth: Any = oracle.ask(f"/api/v3/klines?symbol=BTCUSDT&interval=1s&startTime={times[0]}&limit={len(times)}").body
    klines = [message["k"] for message in client.received]
    # Of seconds the exchange sends closed klines only.
    assert all(kline["x"] for kline in klines)
    said = [[k["t"], *(k[x] for x in "ohlcv"), k["T"], *(k[x] for x in "qnVQB")] for k in klines]
    assert said == truth


# -- tokens, limits ----------------------------------------------------------------------------------------------------


async def test_the_token_is_in_the_address(relay_with: StartRelay, connect: Connect) -> None:
    relay = await relay_with(tokens=(TOKEN,))
    for path in ("/ws/btcusdt@kline_1s", "/stream?streams=btcusdt@kline_1s", "/ws"):
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await connect(relay.url, path)
        assert refused.value.status == 401
        client = await connect(relay.url, f"/t/{TOKEN}{path}")
        if path == "/ws":
            assert (await client.ask("SUBSCRIBE", "btcusdt@kline_1s"))["result"] is None
        await client.event()


async def test_many_names_count_as_many_requests_unless_they_are_repeated(
    relay_with: StartRelay, connect: Connect
) -> None:
    relay = await relay_with(max_requests_per_second=2)
    client = await connect(relay.url, "/ws")
    names = [f"nope{number}usdt@kline_1m" for number in range(50)]
    for _ in range(5):
        assert (await client.ask("SUBSCRIBE", *names))["result"] is None
    # Of 20 requests 10 and 5 are used; these are 10 and 1 more.
    assert (await client.ask("UNSUBSCRIBE", *names))["result"] is None
    assert "2 requests per second" in (await client.ask("LIST_SUBSCRIPTIONS"))["error"]["msg"]


async def test_too_many_requests_and_too_much_nonsense_end_the_connection(
    relay_with: StartRelay, connect: Connect
) -> None:
    relay = await relay_with(max_requests_per_second=1)
    fast = await connect(relay.url, "/ws")
    answers = [await fast.ask("LIST_SUBSCRIPTIONS", identity=number) for number in range(12)]
    assert answers[0] == {"result": [], "id": 0}
    assert "1 requests per second" in answers[11]["error"]["msg"]
    quick = await relay_with()
    rude = await connect(quick.url, "/ws")
    for _ in range(110):
        await rude.socket.send_str("nonsense")
    while not rude.socket.closed:
        await rude.socket.receive(LONGEST_WAIT_S)
    assert rude.socket.close_code == 4001


async def test_clients_are_sent_away_when_the_relay_ends(relay: Running, connect: Connect) -> None:
    client = await connect(relay.url, "/ws")
    closing = asyncio.create_task(client.socket.receive(LONGEST_WAIT_S))
    await relay.clients.close()
    assert (await closing).type is aiohttp.WSMsgType.CLOSE
    assert client.socket.close_code == 1001


async def test_streams_of_a_market_that_the_relay_does_not_have_are_refused(relay: Running, connect: Connect) -> None:
    client = await connect(relay.url, "/market/stream?streams=btcusdt@kline_1s")
    assert "no candles of this market" in (await client.answer(None))["error"]["msg"]
    assert "no candles" in (await client.ask("SUBSCRIBE", "btcusdt@kline_1s"))["error"]["msg"]
    assert (await client.ask("LIST_SUBSCRIPTIONS"))["result"] == []


async def test_without_a_handshake_the_address_says_what_it_is_for(relay: Running) -> None:
    answer = await relay.get("/ws")
    assert answer.status == 400
    assert "WebSocket" in answer.body["msg"]
