"""What OpenBB Workspace asks for: its widgets, quotes, and a watch list that goes on live."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import aiohttp
import orjson
import pytest

from relay.app import HUB
from relay.core.model import StreamKey
from tests.conftest import StartRelay
from tests.support.conditions import LONGEST_WAIT_S, eventually
from tests.support.contracts import check_row_message
from tests.support.running_relay import Running
from tests.support.sandbox import Sandbox
from tests.support.udf_client import UdfClient

ORIGINS = ("https://pro.openbb.co", "https://excel.openbb.co", "http://localhost:1420")
TOKEN = "a-token-of-this-test-0123456789"
BITCOIN = ("binance", StreamKey("BTCUSDT", "1d"))
Connect = Callable[..., Awaitable["GridClient"]]


class GridClient:
    """The grid of one page: it names symbols, and puts the rows that come in place of those with the same symbol."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.socket = socket
        self.rows: dict[str, Any] = {}

    async def choose(self, symbols: object) -> None:
        await self.socket.send_str(orjson.dumps({"params": {"symbol": symbols}}).decode())

    async def next(self) -> Any:
        frame = await self.socket.receive(LONGEST_WAIT_S)
        assert frame.type is aiohttp.WSMsgType.TEXT, (frame, self.socket.close_code)
        message = orjson.loads(frame.data)
        check_row_message(message, "RowsRefused" if message.get("type") == "error" else "GridRow")
        if "symbol" in message:
            self.rows[message["symbol"]] = message
        return message

    async def until(self, fits: Callable[[Any], object]) -> Any:
        while not fits(message := await self.next()):
            pass
        return message


@pytest.fixture
async def connect() -> AsyncIterator[Connect]:
    async with AsyncExitStack() as stack:
        session = await stack.enter_async_context(aiohttp.ClientSession())

        async def open_one(relay: Running, base: str = "", **options: Any) -> GridClient:
            address = f"{relay.url.replace('http://', 'ws://')}{base}/udf/rows_ws"
            return GridClient(await stack.enter_async_context(session.ws_connect(address, **options)))

        yield open_one


async def test_the_widgets_are_a_chart_and_a_watch_list_whose_addresses_work(relay: Running) -> None:
    widgets = (await relay.get("/widgets.json")).body
    chart, grid = widgets.values()
    assert (chart["type"], grid["type"]) == ("advanced_charting", "live_grid")
    client = UdfClient(relay, chart["endpoint"])
    await client.ready()
    info = await client.resolve(chart["data"]["defaultSymbol"])
    assert (await client.bars(info, "1D", 0, 1_700_000_000, 5)).bars
    (param,) = grid["params"]
    choices = [one["value"] for one in param["options"]]
    # Of each provider in turn, what is traded.
    assert choices[:4] == ["BTCUSDT", "EUR/USD", "ETHUSDT", "GBP/USD"]
    assert "NKNUSDT" not in choices
    rows = (await relay.get(f"/{grid['endpoint']}", **{param["paramName"]: param["value"]})).body
    assert [row[grid["data"]["wsRowIdColumn"]] for row in rows] == choices[:4]
    columns = {one["field"] for one in grid["data"]["table"]["columnsDefs"]}
    assert all({*row} == columns and row["price"] for row in rows)
    assert grid["wsEndpoint"] == "udf/rows_ws"


async def test_quotes_and_rows_are_made_of_the_last_two_days(relay: Running) -> None:
    body = (await relay.get("/udf/quotes?symbols=binance:ETHBTC,NOPE,eur/usd")).body
    good, unknown, forex = body["d"]
    assert (good["n"], good["v"]["exchange"], forex["n"], forex["s"]) == ("binance:ETHBTC", "BINANCE", "eur/usd", "ok")
    assert (unknown["s"], unknown["v"]) == ("error", {})
    assert "NOPE" in unknown["errmsg"]
    before, day = (await relay.get("history?symbol=ETHBTC&interval=1d&limit=2")).body["candles"]
    values = good["v"]
    assert (values["open_price"], values["prev_close_price"]) == (day["open"], before["close"])
    assert values["ch"] == pytest.approx(values["lp"] - before["close"])
    assert values["chp"] == pytest.approx(values["ch"] / before["close"] * 100)
    row, empty = (await relay.get("/udf/rows?symbol=binance:ethbtc,NOPE")).body
    # The name is what the row is known by live, however it was spelt.
    assert row["symbol"] == "ETHBTC"
    assert row["change_percent"] == pytest.approx(row["change"] / before["close"])
    assert (empty["symbol"], empty["price"]) == ("NOPE", None)
    assert "NOPE" in empty["error"]


async def test_a_grid_follows_the_symbols_that_it_names_and_no_others(
    relay: Running, sandbox: Sandbox, connect: Connect
) -> None:
    grid = await connect(relay)
    await grid.choose(["BTCUSDT", "binance:ETHUSDT", "NOPE"])
    await grid.until(lambda row: row["symbol"] == "NOPE" and "NOPE" in row["error"])
    first = grid.rows.get("BTCUSDT") or await grid.until(lambda row: row["symbol"] == "BTCUSDT")
    await grid.until(lambda row: row["symbol"] == "BTCUSDT" and row["price"] != first["price"])
    await grid.until(lambda row: row["symbol"] == "ETHUSDT")
    # Other clients share what is followed.
    other = await connect(relay)
    await other.choose("BTCUSDT, EUR/USD")
    await other.until(lambda row: row["symbol"] == "EUR/USD")
    assert len(relay.app[HUB].streams[BITCOIN].channels) == 1
    await grid.choose("ETHUSDT")
    await asyncio.sleep(1)
    for _ in range(5):
        await grid.next()
    assert [(await grid.next())["symbol"] for _ in range(5)] == ["ETHUSDT"] * 5
    assert BITCOIN in relay.app[HUB].streams
    await other.choose("")
    await eventually(lambda: BITCOIN not in relay.app[HUB].streams)
    assert len(relay.clients.connections) == 2
    for client in (grid, other):
        await client.socket.close()
    await eventually(lambda: relay.app[HUB].streams == {})


async def test_what_is_no_choice_is_answered_and_harms_nothing(relay: Running, connect: Connect) -> None:
    grid = await connect(relay)
    for text in ("x", "[]", "{}", '{"params":1}', '{"params":{"symbol":7}}', '{"params":{"symbol":[1]}}'):
        await grid.socket.send_str(text)
        refusal = await grid.next()
        assert refusal["type"] == "error"
        assert "not JSON" in refusal["message"] or '{"params":{"symbol":[' in refusal["message"]
    await grid.choose([f"A{number}" for number in range(101)])
    assert "up to 100 symbols" in (await grid.next())["message"]
    await grid.choose(["\x00", "BTCUSDT"])
    await grid.until(lambda row: row["symbol"] == "BTCUSDT" and row["price"])
    await grid.socket.send_str("[" * 5000)
    with pytest.raises(AssertionError, match="1009"):
        await grid.until(lambda row: False)


async def test_a_client_gets_no_more_streams_than_others_do(relay_with: StartRelay, connect: Connect) -> None:
    relay = await relay_with(max_streams_per_client=2)
    grid = await connect(relay)
    await grid.choose(["BTCUSDT", "ETHUSDT", "BNBUSDT"])
    refused = await grid.until(lambda row: row["price"] is None)
    assert "2 streams" in refused["error"]
    assert len(relay.app[HUB].streams) == 2


@pytest.mark.parametrize("origin", ORIGINS)
async def test_one_setting_lets_the_workspace_in(relay_with: StartRelay, connect: Connect, origin: str) -> None:
    closed, relay = await relay_with(), await relay_with(allowed_origins=ORIGINS)
    headers = {"Origin": origin}
    for path in ("/widgets.json", "/udf/config", "/udf/rows?symbol=BTCUSDT", "/udf/rows?symbol="):
        assert (await closed.get(path, headers=headers)).status == 403
        answer = await relay.get(path, headers=headers)
        assert answer.headers["Access-Control-Allow-Origin"] == origin
    asked = headers | {"Access-Control-Request-Method": "GET", "Access-Control-Request-Headers": "content-type"}
    answer = await relay.get("/widgets.json", method="OPTIONS", headers=asked)
    assert (answer.status, answer.headers["Access-Control-Allow-Origin"]) == (204, origin)
    assert "Content-Type" in answer.headers["Access-Control-Allow-Headers"]
    grid = await connect(relay, headers=headers)
    await grid.choose(["BTCUSDT"])
    assert (await grid.next())["symbol"] == "BTCUSDT"
    with pytest.raises(aiohttp.WSServerHandshakeError):
        await connect(closed, headers=headers)


async def test_all_of_it_works_below_a_token(relay_with: StartRelay, connect: Connect) -> None:
    relay, base = await relay_with(tokens=[TOKEN]), f"/t/{TOKEN}"
    assert (await relay.get("/widgets.json")).status == 401
    widgets = (await relay.get(f"{base}/widgets.json")).body
    assert TOKEN not in orjson.dumps(widgets).decode()
    grid = await connect(relay, base)
    await grid.choose(["BTCUSDT"])
    assert (await grid.next())["symbol"] == "BTCUSDT"
    with pytest.raises(aiohttp.WSServerHandshakeError):
        await connect(relay)
