"""What an assistant reads of a relay: short, within limits, and honest about what is not live or not there."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from providers import BUILTIN
from relay import API_VERSION, Candle, Instrument, PriceUpdate, ProviderInfo, StreamKey, hookimpl
from relay.client import BadArgument, ClientError, History, Refused, RelayClient, Unreachable
from relay.commands.assistant_calls import answer
from relay.commands.assistant_tools import AssistantTools, explained
from tests.conftest import StartRelay
from tests.support.running_relay import Running
from tests.support.sandbox import Sandbox

START = 1_764_000_000


@pytest.fixture
async def tools(relay: Running) -> AsyncIterator[AssistantTools]:
    async with RelayClient(relay.url) as client:
        yield AssistantTools(client)


async def test_candles_say_that_there_are_more_and_which_one_is_open(tools: AssistantTools) -> None:
    some = await tools.candles("btcusdt", "1m", 2, start=START)
    head, columns, first, _ = some.text.splitlines()
    assert head.endswith("times in UTC; there may be more: ask again with a start after 2025-11-24T16:01:00Z")
    assert columns == "time,open,high,low,close,volume"
    assert first == ",".join(map(str, some.values["rows"][0]))
    last = await tools.candles("BTCUSDT", "1d", 3)
    assert "the last candle is still open" in last.text
    assert last.values["last_is_closed"] is False


class Hanging:
    """A provider that gives no candles."""

    __name__ = "hanging"

    @hookimpl
    def relay_provider(self) -> ProviderInfo:
        return ProviderInfo(
            name="hanging", api=API_VERSION, title="Hanging", asset_classes=("stocks",), intervals=("1m",)
        )

    @hookimpl
    async def relay_instruments(self) -> list[Instrument]:
        return [Instrument("A", "stocks", "A", "USD")]

    @hookimpl
    async def relay_candles(self) -> list[Candle]:
        await asyncio.Event().wait()
        return []

    @hookimpl
    async def relay_stream(self) -> AsyncIterator[PriceUpdate]:
        await asyncio.Event().wait()
        yield PriceUpdate(StreamKey("A", "1m"), Candle(0, 1.0, 1.0, 1.0, 1.0))


BTC: dict[str, Any] = {"symbol": "BTCUSDT", "interval": "1m"}


WRONG: list[tuple[str, dict[str, Any], str]] = [
    ("candles", {**BTC, "limit": 0}, "limit 0 is not a whole number from 1 to 500"),
    ("candles", {**BTC, "limit": "many"}, "limit 'many' is not a whole number from 1 to 500"),
    ("candles", {**BTC, "limit": [5]}, "limit [5] is not a whole number from 1 to 500"),
    ("candles", {**BTC, "limit": True}, "limit true is not a whole number"),
    ("candles", {**BTC, "start": 1_764_000_000_000}, "did you mean 1764000000?"),
    ("candles", {**BTC, "start": "1764000000000"}, "did you mean 1764000000?"),
    ("candles", {**BTC, "end": "yesterday"}, "end 'yesterday' is not a time; write 2025-11-24T16:00:00Z"),
    ("candles", {**BTC, "start": {"at": 5}}, 'start {"at":5} is not'),
    (
        "candles",
        {**BTC, "start": "2025-11-25", "end": "2025-11-24"},
        "start 2025-11-25T00:00:00Z is after end 2025-11-24T00:00:00Z",
    ),
    ("candles", {"interval": "1m"}, 'symbol is missing; give one, for example "symbol":"BTCUSDT"'),
    ("candles", {"symbol": "BTCUSDT", "interval": 60}, "interval 60 is not a text; did you mean"),
    (
        "candles",
        {"symbol": 7, "interval": "1m"},
        'symbol 7 is not a text; give one, for example "symbol":"BTCUSDT"',
    ),
    (
        "candles",
        {**BTC, "count": 5},
        "candles has no argument 'count'; it takes symbol, interval, limit, start, end",
    ),
    ("latest", {"symbols": []}, "symbols has 0 entries; give 1 to 20"),
    ("latest", {"symbols": "BTCUSDT"}, "symbols 'BTCUSDT' is not a list of symbols such as"),
    ("latest", {"symbols": ["BTCUSDT", 5]}, 'symbols ["BTCUSDT",5] is not a list of symbols such as'),
    ("latest", {}, 'symbols is missing; give one, for example "symbols":["BTCUSDT"]'),
    ("search_instruments", {"query": " "}, "query is empty"),
    ("search_instruments", {"query": "b" * 5000}, "has 5000 characters; use at most 100"),
    ("state", {"of": "binance"}, "state has no argument 'of'; it takes none"),
    ("orders", {}, "there is no tool 'orders'; use one of search_instruments, candles, latest, state"),
]


async def test_what_cannot_be_meant_is_explained(tools: AssistantTools) -> None:
    wrong = []
    for tool, arguments, said in WRONG:
        with pytest.raises(BadArgument) as raised:
            await answer(tools, tool, arguments)
        if said not in str(raised.value):
            wrong.append((arguments, str(raised.value)))
    assert not wrong


async def test_values_that_assistants_write_as_texts_are_taken(tools: AssistantTools) -> None:
    plain = await answer(tools, "candles", {**BTC, "limit": 2, "start": START})
    for start in ("1764000000", 1.764e9, "2025-11-24T16:00:00Z", " 2025-11-24T17:00:00+01:00"):
        assert await answer(tools, "candles", {**BTC, "limit": "2", "start": start, "end": ""}) == plain
    assert await answer(tools, "candles", {**BTC, "limit": 2.0, "start": START}) == plain
    found = await answer(tools, "latest", {"symbols": '["BTCUSDT"]', "interval": None})
    assert [row["symbol"] for row in found.values["latest"]] == ["BTCUSDT"]


async def test_what_the_relay_refuses_is_said_in_the_words_of_the_tools(tools: AssistantTools) -> None:
    wrong = []
    for tool, arguments, said in (
        ("candles", {**BTC, "start": 2_000_000_000}, "start 2000000000 ("),
        ("candles", {"symbol": "ZZZZ9", "interval": "1m"}, "; search_instruments finds symbols"),
        ("latest", {"symbols": ["BTCUSDT"], "interval": "7m"}, "interval '7m'"),
        ("candles", {"symbol": "BTC USDT", "interval": "1m"}, "unknown symbol 'BTC USDT'"),
        ("search_instruments", {"query": "x" * 101}, "query "),
    ):
        try:
            found = (await answer(tools, tool, arguments)).text
        except ClientError as fault:
            found = explained(fault)
        if said not in found or any(word in found for word in ("_time", "GET ", "/api/", "format=", "%2B")):
            wrong.append((arguments, found))
    assert not wrong


async def test_one_symbol_that_fails_keeps_the_others(tools: AssistantTools) -> None:
    found = await tools.latest(["EUR/USD", "NOPE", "EUR/USD"])
    assert [(row["symbol"], row.get("code")) for row in found.values["latest"]] == [
        ("EUR/USD", None),
        ("NOPE", "unknown_symbol"),
    ]
    assert "unknown symbol 'NOPE'" in found.text


async def test_one_symbol_whose_provider_is_silent_keeps_the_others(relay_with: StartRelay) -> None:
    relay = await relay_with(builtin=(*BUILTIN, Hanging()))
    async with RelayClient(relay.url, timeout_s=2.0) as client:
        found = await AssistantTools(client).latest(["hanging:A", "BTCUSDT"])
    assert [(row["symbol"], row.get("error")) for row in found.values["latest"]] == [
        ("A", "the provider has given nothing newer within 3 s"),
        ("BTCUSDT", None),
    ]


class HalfDeaf(RelayClient):
    """Has no answer in time about one symbol."""

    async def history(self, symbol: str, *given: Any, **options: Any) -> History:
        """Return candles, of all but that symbol."""
        if symbol == "EUR/USD":
            raise Unreachable("no answer in time")
        return await super().history(symbol, *given, **options)


async def test_one_symbol_that_is_not_answered_in_time_keeps_the_others(relay: Running) -> None:
    async with HalfDeaf(relay.url) as client:
        found = await AssistantTools(client).latest(["EUR/USD", "BTCUSDT"])
        assert [(row["symbol"], row.get("error")) for row in found.values["latest"]] == [
            ("EUR/USD", "the relay had no answer in time"),
            ("BTCUSDT", None),
        ]
        with pytest.raises(Unreachable):
            await AssistantTools(client).latest(["EUR/USD"])


async def test_streams_that_are_not_live_come_first_in_the_state(
    tools: AssistantTools, relay: Running, sandbox: Sandbox
) -> None:
    client = await relay.connect()
    await client.subscribe("BTCUSDT@1m", "EUR/USD@1m")
    await client.update(symbol="BTCUSDT")
    await client.update(symbol="EUR/USD")
    for _ in range(2):
        await relay.get("/api/v3/klines?symbol=BTCUSDT&interval=1m")
    sandbox.twelve_data.faults.answer_rest(500, "{}")
    await client.until_type("status", status="reconnecting")
    found = await tools.state()
    assert [one["symbol"] for one in found.values["streams"]] == ["EUR/USD", "BTCUSDT"]
    assert "2 streams, 1 of them not live" in found.text
    assert "|1|polls of programs for Binance|" in found.text


async def test_a_refusal_says_what_to_do(relay_with: StartRelay) -> None:
    relay = await relay_with(tokens=["opensesame"])
    async with RelayClient(relay.url) as client:
        with pytest.raises(Refused) as raised:
            await AssistantTools(client).latest(["BTCUSDT"])
    assert explained(raised.value) == "a valid token is needed; start relay mcp with RELAY_TOKEN or RELAY_TOKEN_FILE"


async def test_what_is_wrong_for_every_symbol_is_an_error_of_the_call(tools: AssistantTools, relay: Running) -> None:
    with pytest.raises(Refused, match="unknown interval '7m'"):
        await tools.latest(["BTCUSDT", "EUR/USD"], "7m")
    async with RelayClient(f"{relay.url}/elsewhere") as client:
        with pytest.raises(Refused) as raised:
            await AssistantTools(client).latest(["BTCUSDT"])
        assert "RELAY_URL is not exactly the address of a relay" in explained(raised.value)


async def test_the_newest_candles_name_their_provider(tools: AssistantTools) -> None:
    found = await tools.latest(["BTCUSDT", "EUR/USD", "NOPE"])
    _, columns, *lines = [line.split("|") for line in found.text.splitlines()]
    at = columns.index("provider")
    assert [line[at] for line in lines] == ["binance", "twelve_data", ""]
