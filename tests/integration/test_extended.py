"""Candles that carry more, over real sockets: history in all forms, subscriptions, resumes; and nothing without."""

import csv
import io
import time
from pathlib import Path
from typing import Any

import orjson
import pytest

from relay.app import HISTORY, STORE
from relay.client import RelayClient, Snapshot, Update
from relay.core.model import EXTRA_FIELDS, Candle, StreamKey, extend
from relay.core.spans import Span
from relay.core.written_numbers import written_texts
from relay.history.final_candles import News
from tests.conftest import StartRelay
from tests.support.conditions import eventually
from tests.support.running_relay import Message, Running
from tests.support.sandbox import Sandbox
from tests.support.transports import Transport

KLINES = Path(__file__).parents[1] / "data" / "binance" / "klines.json"
KEY = StreamKey("BTCUSDT", "1m")
START = 1_700_000_040 // 60 * 60
PLAIN = [*Candle._fields]
BARE = dict.fromkeys(EXTRA_FIELDS)


def rows_of(sandbox: Sandbox, start: int, count: int, interval: str = "1m") -> list[list[Any]]:
    """Return what the exchange itself answers."""
    exchange = sandbox.binance
    pair = exchange.market.pair("BTCUSDT")
    return [[*row] for row in exchange.rest.klines(pair, interval, start * 1000, None, count)]


def as_object(row: list[Any]) -> dict[str, Any]:
    return {
        "time": row[0] // 1000,
        **dict(zip(PLAIN[1:], map(float, row[1:6]), strict=True)),
        "quote_volume": float(row[7]),
        "trades": row[8],
        "taker_volume": float(row[9]),
        "taker_quote_volume": float(row[10]),
    }


def kline_calls(sandbox: Sandbox) -> int:
    return sum(call.path == "/api/v3/klines" for call in sandbox.binance.requests)


def without(candle: dict[str, Any]) -> dict[str, Any]:
    return {name: candle[name] for name in PLAIN}


# -- history -------------------------------------------------------------------------------------------------------


async def test_history_has_what_the_exchange_gives_in_every_form(sandbox: Sandbox, relay: Running) -> None:
    query: dict[str, Any] = {"symbol": "BTCUSDT", "interval": "1m", "start_time": START, "limit": 50}
    plain = [await relay.get("history", **query, format=form) for form in ("json", "csv", "ndjson")]
    truth = [as_object(row) for row in rows_of(sandbox, START, 50)]
    for _ in range(2):
        answer = await relay.get("history", **query, extended="true")
        assert answer.body["candles"] == truth
        lines = (await relay.get("history", **query, extended="1", format="ndjson")).text.splitlines()
        assert [orjson.loads(line) for line in lines] == truth
        table = await relay.get("history", **query, extended="true", format="csv")
        assert [
            {name: orjson.loads(text) for name, text in row.items()} for row in csv.DictReader(io.StringIO(table.text))
        ] == truth
    assert plain[0].body["candles"] == [without(candle) for candle in truth]
    again = [await relay.get("history", **query, format=form, extended="false") for form in ("json", "csv", "ndjson")]
    assert [answer.text for answer in again] == [answer.text for answer in plain]
    assert kline_calls(sandbox) == 1


async def test_every_recorded_row_is_stored_and_given_back_to_the_last_digit(
    sandbox: Sandbox, relay_with: StartRelay
) -> None:
    recorded: dict[str, list[list[Any]]] = orjson.loads(KLINES.read_bytes())
    sandbox.binance.add_symbols({name.partition("@")[0] for name in recorded})
    relay = await relay_with()
    for name, rows in recorded.items():
        symbol, interval = name.split("@")
        sandbox.binance.serve_rows(symbol, interval, rows)
        for row in rows:
            at = row[0] // 1000
            answer = await relay.get(
                "history", symbol=symbol, interval=interval, start_time=at, end_time=at, extended="true"
            )
            assert answer.status == 200, answer.body
            assert answer.body["candles"] == [as_object(row)]
        first, end = rows[0][0] // 1000, rows[-1][0] // 1000 + 1
        stored = await relay.app[STORE].read("binance", StreamKey(symbol, interval), first, end, extended=True)
        assert [(one.time * 1000, *(written_texts(one) or ()), one.trades) for one in stored] == [
            (row[0], *row[1:6], row[7], row[9], row[10], row[8]) for row in rows
        ]


async def test_large_answers_are_streamed_with_it(sandbox: Sandbox, relay: Running) -> None:
    query: dict[str, Any] = {"symbol": "BTCUSDT", "interval": "1m", "start_time": START, "limit": 5001}
    table = (await relay.get("history", **query, extended="true", format="csv")).text.splitlines()
    assert table[0].split(",") == [*PLAIN, *EXTRA_FIELDS]
    assert {line.count(",") for line in table} == {9}
    assert len(table) == 5002
    lines = (await relay.get("history", **query, extended="true", format="ndjson")).text.splitlines()
    assert orjson.loads(lines[-1]) == as_object(rows_of(sandbox, START + 5000 * 60, 1)[0])


async def test_the_open_candle_has_it_too(sandbox: Sandbox, relay: Running) -> None:
    answer = await relay.get("history", symbol="BTCUSDT", interval="1M", limit=2, extended="true")
    assert answer.body["last_is_closed"] is False
    assert answer.body["candles"][-1]["trades"] > 0


async def test_a_provider_without_it_has_null_and_is_not_asked_again(sandbox: Sandbox, relay: Running) -> None:
    query: dict[str, Any] = {"symbol": "EUR/USD", "interval": "1m", "end_time": int(time.time()) - 7200, "limit": 5}
    plain = await relay.get("history", **query)
    asked = len(sandbox.twelve_data.requests)
    answer = await relay.get("history", **query, extended="true")
    assert answer.body["candles"] == [candle | BARE for candle in plain.body["candles"]]
    assert len(answer.body["candles"]) == 5
    assert len(sandbox.twelve_data.requests) == asked


@pytest.mark.parametrize("value", ["yes", "2"])
async def test_another_word_than_true_or_false_is_refused(relay: Running, over: Transport, value: str) -> None:
    answer = await relay.get("history", symbol="BTCUSDT", interval="1m", extended=value)
    assert (answer.status, answer.body["code"]) == (400, "invalid_request")
    assert answer.body["detail"] == f"extended {value!r} is not true or false"
    refused = await over.refused_options(relay, "BTCUSDT@1m", extended=value)
    assert refused["message"] == f"extended {value!r} is not true or false"


async def test_what_was_stored_without_it_is_asked_for_once_also_over_restarts(
    sandbox: Sandbox, relay_with: StartRelay, tmp_path: Path
) -> None:
    query: dict[str, Any] = {"symbol": "BTCUSDT", "interval": "1m", "start_time": START, "limit": 50}
    truth = [as_object(row) for row in rows_of(sandbox, START, 50)]
    candles = [Candle(*without(candle).values()) for candle in truth]
    for run in range(2):
        relay = await relay_with(database=str(tmp_path / "relay.db"))
        if not run:
            await relay.app[STORE].add("binance", KEY, candles, Span(START, START + 3000))
            await relay.get("history", **query)
            assert kline_calls(sandbox) == 0
        for form in ("json", "ndjson", "json"):
            answer = await relay.get("history", **query, extended="true", format=form)
            found = answer.body["candles"] if answer.body else list(map(orjson.loads, answer.text.splitlines()))
            assert found == truth
        assert kline_calls(sandbox) == 1
        stored = await relay.app[STORE].read("binance", KEY, START, START + 3000, extended=True)
        assert [(*(written_texts(one) or ()), one.trades) for one in stored] == [
            (*row[1:6], row[7], row[9], row[10], row[8]) for row in rows_of(sandbox, START, 50)
        ]
        await relay.close()


async def test_while_the_provider_fails_it_is_null(sandbox: Sandbox, relay: Running) -> None:
    query: dict[str, Any] = {"symbol": "BTCUSDT", "interval": "1m", "start_time": START, "limit": 5}
    truth = [as_object(row) for row in rows_of(sandbox, START, 5)]
    candles = [Candle(*without(candle).values()) for candle in truth]
    await relay.app[STORE].add("binance", KEY, candles, Span(START, START + 300))
    sandbox.binance.faults.answer_rest(503, "{}")
    for _ in range(3):
        answer = await relay.get("history", **query, extended="true")
        assert answer.body["candles"] == [without(candle) | BARE for candle in truth]
    # One address after the other, and not for each request.
    assert kline_calls(sandbox) <= 2


# -- subscriptions -------------------------------------------------------------------------------------------------


async def test_a_stream_is_told_with_it_and_without_it_at_once(quick: Running, over: Transport) -> None:
    plain = await over.subscriber(quick, "BTCUSDT@1s", bars=20)
    extended = await over.subscriber(quick, "BTCUSDT@1s", bars=20, extended=True)
    snapshots = [await client.seen("snapshot") for client in (plain, extended)]
    for _ in range(3):
        await extended.update(is_closed=True)
    await plain.until_type("price_update", seq=extended.updates[-1]["seq"])
    for snapshot, names in zip(snapshots, (PLAIN, [*PLAIN, *EXTRA_FIELDS]), strict=True):
        assert [*snapshot["candles"][0]] == names
        assert len(snapshot["candles"]) >= 20
    assert all(candle["trades"] is not None for candle in snapshots[1]["candles"])
    by_seq: dict[int, Message] = {update["seq"]: update for update in plain.updates}
    shared = [update for update in extended.updates if update["seq"] in by_seq]
    assert shared
    for update in shared:
        assert update["candle"]["quote_volume"] is not None
        assert {**update, "candle": without(update["candle"])} == by_seq[update["seq"]]
    asked = await quick.get(
        "history", symbol="BTCUSDT", interval="1s", limit=20, extended="true", end_time=extended.closed_times[-1]
    )
    known = {candle["time"]: candle for candle in asked.body["candles"]}
    for update in extended.updates:
        if update["is_closed"]:
            assert known[update["candle"]["time"]] == update["candle"]


@pytest.mark.parametrize("options", [{"closed_only": True}, {"throttle_ms": 100}])
async def test_it_goes_with_the_other_options(quick: Running, over: Transport, options: dict[str, Any]) -> None:
    client = await over.subscriber(quick, "BTCUSDT@1s", extended=True, **options)
    for _ in range(3):
        update = await client.update(is_closed=True)
        assert update["candle"]["trades"] is not None
    if "closed_only" in options:
        assert all(one["is_closed"] for one in client.updates)


async def test_a_resume_brings_it(quick: Running, over: Transport) -> None:
    client = await over.subscriber(quick, "BTCUSDT@1s", extended=True)
    first = (await client.update(is_closed=True))["candle"]["time"]
    for _ in range(2):
        last = (await client.update(is_closed=True))["candle"]
    again = await over.subscriber(quick, "BTCUSDT@1s", extended=True, since=first)
    snapshot = await again.seen("snapshot")
    assert last in snapshot["candles"]
    assert all(candle["trades"] is not None for candle in snapshot["candles"])


@pytest.mark.parametrize("is_followed", [True, False])
async def test_a_revision_of_extras_alone_is_for_those_who_get_them_also_after_a_resume(
    relay: Running, over: Transport, is_followed: bool
) -> None:
    plain = await over.subscriber(relay, "BTCUSDT@1m", bars=5)
    extended = await over.subscriber(relay, "BTCUSDT@1m", bars=5, extended=True)
    gone = await over.subscriber(relay, "BTCUSDT@1m", bars=5)
    await gone.seen("snapshot")
    await gone.close()
    before, snapshot = await plain.seen("snapshot"), await extended.seen("snapshot")
    await extended.update()
    if not is_followed:
        for client in (plain, extended):
            await client.close()
        await eventually(lambda: not relay.hub.streams)
    times = [candle["time"] for candle in snapshot["candles"]]
    (known,) = await relay.app[STORE].read("binance", KEY, times[1], times[1] + 1, extended=True)
    assert known.extras is not None
    other = extend(known, known.extras._replace(trades=10**6))
    news = News("binance", KEY, (), (), time.time() + 1, refined=(other,))
    relay.app[HISTORY].calls.on_news(news)
    if is_followed:
        update = await extended.update(revised=True)
        assert update["candle"] == snapshot["candles"][1] | {"trades": 10**6}
        assert update["revision"] > before["revision"]
        await plain.settle()
        assert not [one for one in plain.updates if one.get("revised")]
    resumed: dict[bool, list[Message]] = {}
    for is_extended in (False, True):
        client = await over.back(relay, gone, "BTCUSDT@1m", extended=is_extended)
        resumed[is_extended] = (await client.seen("snapshot"))["revised"]
    assert resumed == {False: [], True: [snapshot["candles"][1] | {"trades": 10**6}]}


async def test_what_was_missed_is_backfilled_with_it(relay_with: StartRelay, over: Transport) -> None:
    async with Sandbox(speed=4, pace_s=0.05, forex_always_open=True) as fast:
        relay = await relay_with(sandbox=fast)
        client = await over.subscriber(relay, "BTCUSDT@1s", extended=True)
        await client.update(is_closed=True)
        fast.binance.faults.refuse(seconds=1.0)
        fast.binance.faults.drop()
        missed = await client.update(backfilled=True, is_closed=True)
        assert missed["candle"]["trades"] is not None
        after = await client.update(is_closed=True)
        assert after["candle"]["quote_volume"] is not None


async def test_a_later_subscribe_changes_the_form(quick: Running) -> None:
    client = await quick.connect()
    for is_extended in (True, False, True):
        await client.subscribe("BTCUSDT@1s", extended=is_extended)
        count = len(client.updates)
        await client.update(is_closed=True)
        assert {("trades" in update["candle"]) for update in client.updates[count:]} == {is_extended}


async def test_a_past_that_was_stored_without_it_is_sent_with_it(
    sandbox: Sandbox, relay_with: StartRelay, over: Transport, tmp_path: Path
) -> None:
    now = int(sandbox.binance.clock.now())
    start = now // 60 * 60 - 1800
    relay = await relay_with(database=str(tmp_path / "relay.db"))
    truth = [as_object(row) for row in rows_of(sandbox, start, 20)]
    candles = [Candle(*without(candle).values()) for candle in truth]
    await relay.app[STORE].add("binance", KEY, candles, Span(start, start + 1200))
    client = await over.subscriber(relay, "BTCUSDT@1m", since=start - 1, extended=True)
    snapshot = await client.seen("snapshot")
    assert snapshot["candles"][:20] == truth
    assert snapshot["complete"] is True


# -- the client ----------------------------------------------------------------------------------------------------


async def test_the_client_gives_typed_values(quick: Running) -> None:
    async with RelayClient(quick.url) as client:
        history = await client.history("BTCUSDT", "1m", limit=5, extended=True)
        assert all(isinstance(one.trades, int) and isinstance(one.quote_volume, float) for one in history.candles)
        assert {type(one) for one in (await client.history("BTCUSDT", "1m", limit=5)).candles} == {Candle}
        await client.subscribe("BTCUSDT@1s", bars=5, extended=True)
        closes = 0
        async for message in client:
            candles = message.candles if isinstance(message, Snapshot) else ()
            if isinstance(message, Update):
                candles = (message.candle,)
                closes += message.is_closed
            assert all(isinstance(one.trades, int) and isinstance(one.taker_volume, float) for one in candles)
            if closes == 2:
                break
