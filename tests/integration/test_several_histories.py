"""History of several symbols in one answer: who fails is named, and no half of an answer looks whole."""

import asyncio
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest

from providers.twelve_data import TwelveDataProvider
from relay.app import DIRECTORY, HISTORY
from relay.commands.recorded_files import RecordedFile, candles_of
from relay.core.errors import ConfigError, StoreError
from relay.core.model import Candle
from relay.storage.chunks import as_named_lines, encode
from relay.web.access.access import Caller
from relay.web.contract.queries import MOST_OF_SEVERAL, MOST_SYMBOLS, HistoryQuery
from relay.web.http.history_pages import HistoryPages
from relay.web.http.several_histories import SeveralHistories
from tests.conftest import StartRelay
from tests.integration.test_history_route import START, Sparing
from tests.support.running_relay import Message, Running
from tests.support.sandbox import Sandbox

THREE = "BTCUSDT,ETHUSDT,EUR/USD"


async def lines_of(relay: Running, symbols: str, **query: Any) -> list[Message]:
    asked = {"interval": "1m", "format": "ndjson", "start_time": START, "limit": 3, **query}
    answer = await relay.get("history", symbols=symbols, **asked)
    assert (answer.status, answer.headers["Content-Type"]) == (200, "application/x-ndjson"), answer.text
    return [orjson.loads(line) for line in answer.text.splitlines()]


async def truth_of(relay: Running, symbol: str, **query: Any) -> list[Message]:
    """Return the closed candles of one symbol as lines of several have them."""
    answer = (await relay.get("history", symbol=symbol, interval="1m", start_time=START, **query)).body
    names = {name: answer[name] for name in ("symbol", "interval", "provider")}
    return [names | candle for candle in answer["candles"]]


async def test_symbols_come_one_after_the_other_and_an_unknown_one_is_named(relay: Running) -> None:
    found = await lines_of(relay, "eur/usd,NOPE,binance:BTCUSDT,BTCUSDT,b$d name", limit=3, extended="true")
    wrong = [(line["type"], line["code"], line["symbol"], line["interval"]) for line in found if "type" in line]
    assert wrong == [("error", "unknown_symbol", name, "1m") for name in ("NOPE", "b$d name")]
    assert found[3]["symbol"] == "NOPE"
    truth = [line for name in ("EUR/USD", "BTCUSDT") for line in await truth_of(relay, name, limit=3, extended="true")]
    assert [line for line in found if "type" not in line] == truth


async def test_the_limit_of_each_symbol_counts_closed_candles(relay: Running) -> None:
    answer = await relay.get("history", symbols="BTCUSDT,ETHUSDT", interval="1d", format="ndjson", limit=1)
    assert [orjson.loads(line)["symbol"] for line in answer.text.splitlines()] == ["BTCUSDT", "ETHUSDT"]


async def test_a_symbol_of_several_pages_is_whole(relay: Running) -> None:
    found = await lines_of(relay, "BTCUSDT,EUR/USD", limit=5500)
    counts = [(line["symbol"], line["time"]) for line in found]
    times = range(START, START + 60 * 5500, 60)
    assert counts == [(symbol, at) for symbol in ("BTCUSDT", "EUR/USD") for at in times]


async def test_a_provider_that_fails_is_named_for_each_symbol_and_not_asked_again_and_again(
    relay_with: StartRelay, sandbox: Sandbox
) -> None:
    relay = await relay_with()
    await truth_of(relay, "ETHUSDT", limit=3)
    sandbox.binance.faults.answer_rest(503, "{}", path="/api/v3/klines")
    before = len(sandbox.binance.requests)
    found = await lines_of(relay, "BTCUSDT,BNBUSDT,SOLUSDT,XRPUSDT,ETHUSDT,EUR/USD")
    asked = [one for one in sandbox.binance.requests[before:] if "klines" in str(one)]
    fails = ["BTCUSDT", "BNBUSDT", "SOLUSDT", "XRPUSDT"]
    assert [(line["symbol"], line.get("code")) for line in found] == [
        *[(name, "provider_unavailable") for name in fails],
        *[("ETHUSDT", None)] * 3,
        *[("EUR/USD", None)] * 3,
    ]
    assert found[3]["message"] == found[1]["message"]
    assert not any("SOLUSDT" in str(one) for one in asked)


async def test_a_symbol_that_breaks_off_is_said_to_be_incomplete_after_its_candles(relay_with: StartRelay) -> None:
    plugin = Sparing()
    relay = await relay_with(builtin=(plugin, TwelveDataProvider))
    first = (await relay.get("history", symbol="BTCUSDT", interval="1m", start_time=START, limit=5)).body["candles"]
    assert len(first) == 5
    found = await lines_of(relay, "BTCUSDT,EUR/USD", limit=600, end_time=START + 60 * 599)
    ends = [line for line in found if "type" in line]
    assert [(line["symbol"], line["code"]) for line in ends] == [("BTCUSDT", "provider_unavailable")]
    assert [line["time"] for line in found if line["symbol"] == "EUR/USD"] == [START + 60 * n for n in range(600)]


async def test_an_answer_that_the_relay_cannot_finish_is_cut_off(relay: Running, monkeypatch: Any) -> None:
    history = relay.app[HISTORY]
    whole = history.text

    async def failing(asked: Any) -> Any:
        if asked.key.symbol == "EUR/USD":
            raise StoreError("gone")
        return await whole(asked)

    monkeypatch.setattr(history, "text", failing)
    with pytest.raises(aiohttp.ClientError):
        await lines_of(relay, "BTCUSDT,EUR/USD")
    answer = await relay.get("history", symbols="EUR/USD,BTCUSDT", interval="1m", format="ndjson", start_time=START)
    assert (answer.status, answer.headers["Content-Type"]) == (503, "application/problem+json")


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ({"symbols": ",".join(f"S{n}" for n in range(MOST_SYMBOLS + 1))}, f"symbols has {MOST_SYMBOLS + 1} names"),
        ({"symbols": "A,B,C", "limit": 50_000, "symbol": "D"}, "symbol and symbols are both given"),
        (
            {"symbols": ",".join(f"S{n}" for n in range(20)), "limit": 25_001},
            f"for each of 20 symbols is more than {MOST_OF_SEVERAL} candles; use a limit of at most 25000",
        ),
        ({"symbols": "A,B", "format": "csv"}, "format csv has no place for symbols; add format=ndjson"),
        ({"symbols": "A,B", "format": "json"}, "format json has no place for symbols"),
        ({"symbols": ","}, "symbols has 0 names"),
        ({"symbols": ""}, "symbols is missing; give one, for example symbols=BTCUSDT,EUR/USD"),
        ({}, "symbol is missing; give one, for example symbol=BTCUSDT"),
        ({"symbols": "BTCUSDT", "start_time": 32_000_000_000}, "in the future"),
    ],
)
async def test_what_cannot_be_meant_is_refused_before_anything_is_sent(
    relay: Running, query: dict[str, Any], said: str
) -> None:
    answer = await relay.get("history", **{"interval": "1m", "format": "ndjson", **query})
    assert (answer.status, answer.body["code"]) == (400, "invalid_request")
    assert said in answer.body["detail"]


async def test_who_had_its_share_of_candles_is_told_for_each_symbol_that_is_left(relay_with: StartRelay) -> None:
    relay = await relay_with(max_history_rows_per_minute_per_address=10)
    found = await lines_of(relay, THREE, limit=12)
    assert [line["symbol"] for line in found] == ["BTCUSDT"] * 12 + ["ETHUSDT", "EUR/USD"]
    assert [line["code"] for line in found[12:]] == ["rate_limited"] * 2
    assert 0 < found[12]["retry_after"] <= 60


async def test_many_symbols_count_as_more_requests(relay_with: StartRelay) -> None:
    relay = await relay_with(max_requests_per_second_per_address=0.5)
    # A burst of five.
    await lines_of(relay, ",".join(f"NOPE{n}" for n in range(21)))
    assert (await relay.get("symbols")).status == 429


async def test_prices_come_between_the_parts_also_where_all_is_in_memory(relay: Running) -> None:
    symbols = ("BTCUSDT", "ETHUSDT", "BNBUSDT")
    for _ in range(3):
        await lines_of(relay, ",".join(symbols), limit=500)
    pages = HistoryPages(relay.hub, relay.app[HISTORY])
    several = SeveralHistories(relay.app[DIRECTORY], pages, relay.access)
    query = HistoryQuery(None, "1m", START, None, 500, "ndjson", False, symbols)
    turns = 0

    async def count_turns() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    counting = asyncio.create_task(count_turns())
    at = [turns async for _ in several.lines(query, symbols, Caller("127.0.0.1", "127.0.0.1", "127.0.0.1", None))]
    counting.cancel()
    assert len(at) == 3
    assert at[0] < at[1] < at[2]


async def test_an_answer_can_be_played_and_one_that_lacks_a_symbol_cannot(relay: Running, tmp_path: Path) -> None:
    path = tmp_path / "several.ndjson"

    async def played(symbols: str) -> list[tuple[str, str, int]]:
        found = await lines_of(relay, symbols)
        path.write_bytes(b"\n".join(map(orjson.dumps, found)))
        return [(name, key.symbol, candle.time) for name, key, candle in candles_of([RecordedFile(path)])]

    times = range(START, START + 180, 60)
    several = (("binance", "BTCUSDT"), ("twelve_data", "EUR/USD"))
    assert await played("BTCUSDT,EUR/USD") == [(*one, at) for one in several for at in times]
    with pytest.raises(ConfigError, match="line 4: NOPE@1m is not complete: unknown symbol 'NOPE'"):
        await played("BTCUSDT,NOPE")


def test_names_are_put_into_each_line() -> None:
    chunk = encode([Candle(60 * n, 1.0, 1.0, 1.0, 1.0, 0.0) for n in range(2)])
    lines = as_named_lines(chunk, b'"symbol":"100%d",').splitlines()
    assert [orjson.loads(line)["symbol"] for line in lines] == ["100%d"] * 2
    assert [orjson.loads(line)["time"] for line in lines] == [0, 60]
