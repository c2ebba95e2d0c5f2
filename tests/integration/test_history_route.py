"""The history route over a real socket: formats, kept bodies, entity tags, compression, large answers."""

import asyncio
import csv
import gzip
import io
import json
import re
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest

from providers.binance import BinanceProvider
from providers.twelve_data import TwelveDataProvider
from relay import PriceUpdate, ProviderInfo, Watchlist, hookimpl
from relay.app import HISTORY, STORE, RelayLimits
from relay.client import RelayClient
from relay.commands.download import pages
from relay.core.clock import Clock
from relay.core.errors import ProviderUnavailable
from relay.core.model import Candle, StreamKey, unreadable
from relay.history.requests import MAX_CALLS
from relay.storage.inspect import reading
from relay.supervision.timing import FeedTiming
from relay.web.http.cached_body import takes_gzip
from relay.web.http.history import ROUTE
from tests.conftest import StartRelay
from tests.support.conditions import eventually
from tests.support.running_relay import PREFIX, Message, Running
from tests.support.sandbox import Sandbox

START = 1_700_000_040 // 60 * 60
KEY = StreamKey("BTCUSDT", "1m")


async def raw(relay: Running, *, headers: dict[str, str] | None = None, **query: str | int) -> tuple[int, Any, bytes]:
    """Ask for history; return status, headers and the body as it came over the wire."""
    asked = {"symbol": "BTCUSDT", "interval": "1m", **query}
    async with (
        aiohttp.ClientSession(auto_decompress=False) as session,
        session.get(
            f"{relay.url}{PREFIX}/history", params=asked, headers={"Accept-Encoding": ""} | (headers or {})
        ) as answer,
    ):
        return answer.status, answer.headers, await answer.read()


async def test_an_answer_is_made_once_and_its_tag_answers_the_next(relay: Running) -> None:
    query: dict[str, Any] = {"start_time": START, "limit": 100}
    served = relay.app[HISTORY].served
    _, _, fetched = await raw(relay, **query)
    assert served["provider"] == 1
    _, headers, body = await raw(relay, **query)
    assert (body, served["provider"]) == (fetched, 1)
    before = served["cache"]
    status, again, empty = await raw(relay, headers={"If-None-Match": headers["ETag"]}, **query)
    assert (status, empty, served["cache"]) == (304, b"", before + 1)
    assert headers["ETag"].strip('"') in again["ETag"]
    assert (await raw(relay, headers={"If-None-Match": '"other"'}, **query))[::2] == (200, body)


async def test_a_walk_through_history_keeps_no_bodies(relay: Running) -> None:
    kept = relay.app[ROUTE].bodies
    for number in range(5):
        query: dict[str, Any] = {"start_time": START + 6000 * number, "limit": 100}
        _, first, body = await raw(relay, **query)
        assert len(kept) == 0
    for size in (1, 1):
        _, again, same = await raw(relay, **query)
        assert (same, again["ETag"], len(kept)) == (body, first["ETag"], size)


async def test_a_revision_changes_a_kept_answer_and_its_tag(relay: Running) -> None:
    query: dict[str, Any] = {"start_time": START, "limit": 3}
    for _ in range(3):
        _, headers, body = await raw(relay, **query)
    revised = Candle(START + 60, 1.0, 9.0, 0.5, 2.0, 3.0)
    relay.app[STORE].put_closed("binance", KEY, revised, after=None)
    status, changed, new = await raw(relay, headers={"If-None-Match": headers["ETag"]}, **query)
    assert status == 200
    assert changed["ETag"] != headers["ETag"]
    rows = json.loads(new)["candles"]
    assert rows[1] == revised._asdict()
    assert [rows[0], rows[2]] == json.loads(body)["candles"][::2]


async def test_a_live_stream_changes_the_answer_without_asking_the_provider(quick: Running) -> None:
    client = await quick.connect()
    await client.subscribe("BTCUSDT@1s")
    for _ in range(10):  # until what closed before the stream was live is final in the provider's history
        await client.update(is_closed=True)
    await quick.get("history", symbol="BTCUSDT", interval="1s", limit=50)
    asked = quick.app[HISTORY].served["provider"]
    for _ in range(3):
        update = await client.update(is_closed=True)
        answer = await quick.get("history", symbol="BTCUSDT", interval="1s", limit=50)
        times = [candle["time"] for candle in answer.body["candles"]]
        assert times == list(range(times[0], times[0] + 50))
        assert update["candle"] in answer.body["candles"]
    assert quick.app[HISTORY].served["provider"] == asked


async def test_kept_and_fresh_answers_are_equal_while_a_stream_is_live(quick: Running) -> None:
    client = await quick.connect()
    await client.subscribe("BTCUSDT@1s")
    await client.update(is_closed=True)
    same = 0
    for _ in range(60):
        one = await quick.get("history", symbol="BTCUSDT", interval="1s", limit=20)
        other = await quick.get("/api/v1/market-data/history?limit=20&interval=1s&symbol=btcusdt")
        if one.body["candles"][-1]["time"] == other.body["candles"][-1]["time"]:
            same += 1
            assert one.body["candles"][:-1] == other.body["candles"][:-1]
    assert same > 30


async def test_a_body_is_compressed_for_who_asks(relay: Running) -> None:
    query: dict[str, Any] = {"start_time": START, "limit": 200}
    _, plain, body = await raw(relay, **query)
    for _ in range(2):
        _, headers, packed = await raw(relay, headers={"Accept-Encoding": "br;q=1.0, gzip"}, **query)
        assert headers["Content-Encoding"] == "gzip"
        assert len(packed) < len(body) / 2
        assert gzip.decompress(packed) == body
        assert headers["ETag"] != plain["ETag"]
        assert "Accept-Encoding" in headers["Vary"]
    _, headers, _ = await raw(relay, headers={"Accept-Encoding": "gzip"}, start_time=START, limit=2)
    assert "Content-Encoding" not in headers
    status, _, _ = await raw(relay, headers={"Accept-Encoding": "gzip", "If-None-Match": headers["ETag"]}, **query)
    assert status == 200


@pytest.mark.parametrize("accepted", ["", "gzip"])
async def test_an_answer_is_the_same_whether_it_is_sent_here_or_by_aiohttp(relay: Running, accepted: str) -> None:
    query: dict[str, Any] = {"start_time": START, "limit": 200}
    answers = {}
    for origin in ({}, {"Origin": relay.url}):
        for _ in range(2):
            status, headers, body = await raw(relay, headers={"Accept-Encoding": accepted, **origin}, **query)
        same = {name: value for name, value in headers.items() if name not in ("Date", "Server")}
        allowed = same.pop("Access-Control-Allow-Origin", None), same.pop("Access-Control-Expose-Headers", None)
        answers[bool(origin)] = (status, sorted(same.items()), body)
        assert headers["Server"] == "market-relay"
        assert (allowed[0] is not None) == bool(origin)
        assert re.fullmatch(r"\w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT", headers["Date"])
    assert answers[False] == answers[True]


@pytest.mark.parametrize(
    ("accepted", "taken"),
    [
        ("gzip", True), ("br, GZIP;q=0.5", True), ("gzip;q=0", False), ("gzip; q=0.0, *", False), ("*", True),
        ("*;q=0", False), ("br", False), ("", False), ("identity", False), ("x-gzip", True),
    ],
)  # fmt: skip
def test_gzip_is_taken_where_it_is_accepted(accepted: str, taken: bool) -> None:
    assert takes_gzip(accepted) is taken


async def test_csv_and_lines_hold_the_closed_candles_of_the_json(relay: Running) -> None:
    expected = (await relay.get("history", symbol="BTCUSDT", interval="1m", start_time=START, limit=700)).body[
        "candles"
    ]
    _, headers, body = await raw(relay, start_time=START, limit=700, format="csv")
    assert headers["Content-Type"] == "text/csv; charset=utf-8"
    rows = list(csv.DictReader(io.StringIO(body.decode())))
    assert [{name: float(value) for name, value in row.items()} for row in rows] == expected
    _, headers, body = await raw(relay, start_time=START, limit=700, format="ndjson")
    assert headers["Content-Type"] == "application/x-ndjson"
    assert [json.loads(line) for line in body.splitlines()] == expected


async def test_lines_leave_the_forming_candle_out(relay: Running) -> None:
    whole = (await relay.get("history", symbol="BTCUSDT", interval="1d", limit=6)).body
    assert not whole["last_is_closed"]
    closed = whole["candles"][:-1]
    _, _, body = await raw(relay, interval="1d", start_time=closed[0]["time"], format="ndjson")
    assert [json.loads(line) for line in body.splitlines()] == closed


@pytest.mark.parametrize("limit", [1, 5000, 5001])
async def test_a_limit_of_lines_counts_closed_candles(relay: Running, limit: int) -> None:
    whole = (await relay.get("history", symbol="BTCUSDT", interval="1d", limit=2)).body
    last, opened = (candle["time"] for candle in whole["candles"])
    assert not whole["last_is_closed"]
    for end in ({}, {"end_time": opened}, {"end_time": last}):
        _, _, body = await raw(relay, interval="1h", limit=limit, format="ndjson", **end)
        times = [json.loads(line)["time"] for line in body.splitlines()]
        assert len(times) == limit
        assert times == list(range(times[0], times[0] + 3600 * limit, 3600))


async def test_a_large_range_is_streamed_and_exact(relay: Running) -> None:
    status, headers, body = await raw(relay, start_time=START, limit=12_345, format="ndjson")
    assert (status, headers.get("Transfer-Encoding")) == (200, "chunked")
    times = [json.loads(line)["time"] for line in body.splitlines()]
    assert times == list(range(START, START + 60 * 12_345, 60))
    _, _, again = await raw(relay, start_time=START, limit=12_345, format="csv", headers={"Accept-Encoding": "gzip"})
    rows = gzip.decompress(again).decode().splitlines()
    assert [int(row.partition(",")[0]) for row in rows[1:]] == times


async def test_the_last_candles_are_streamed_in_order(relay: Running) -> None:
    end = START + 60 * 20_000
    _, _, body = await raw(relay, end_time=end, limit=7_000, format="ndjson")
    times = [json.loads(line)["time"] for line in body.splitlines()]
    assert times == list(range(end - 60 * 6_999, end + 1, 60))


async def test_json_has_a_smaller_limit_and_says_so(relay: Running) -> None:
    answer = await relay.get("history", symbol="BTCUSDT", interval="1m", limit=5001)
    assert (answer.status, "'5001'" in answer.text, "1 to 5000" in answer.text) == (400, True, True)
    answer = await relay.get("history", symbol="BTCUSDT", interval="1m", limit=50_001, format="csv")
    assert (answer.status, "(50000 with format=csv" in answer.text) == (400, True)
    answer = await relay.get("history", symbol="BTCUSDT", interval="1m", format="xml")
    assert (answer.status, "json, csv, ndjson" in answer.text) == (400, True)


async def test_an_error_before_the_first_line_is_a_problem(relay_with: StartRelay, sandbox: Sandbox) -> None:
    relay = await relay_with(tables={"binance": {"rest_url": ("http://127.0.0.1:1",)}})
    answer = await relay.get(
        "history", symbol="BTCUSDT", interval="1m", limit=20_000, format="ndjson", start_time=START
    )
    assert answer.status == 503
    assert answer.headers["Content-Type"].startswith("application/problem+json")


async def test_an_error_in_the_middle_does_not_look_like_the_end(relay: Running, monkeypatch: Any) -> None:
    history = relay.app[HISTORY]
    whole = history.text
    calls = 0

    async def failing(*args: Any, **named: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls > 1:
            raise ProviderUnavailable("down")
        return await whole(*args, **named)

    monkeypatch.setattr(history, "text", failing)
    with pytest.raises(aiohttp.ClientError):
        await raw(relay, start_time=START, limit=12_000, format="ndjson")


async def test_a_client_that_leaves_ends_its_stream(relay: Running) -> None:
    host, port = relay.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port), limit=1024)
    path = f"{PREFIX}/history?symbol=BTCUSDT&interval=1m&start_time={START}&limit=50000&format=ndjson"
    writer.write(f"GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n".encode())
    assert (await reader.readline()).startswith(b"HTTP/1.1 200")
    writer.transport.abort()
    handlers = [task for task in asyncio.all_tasks() if "_handle_request" in str(task.get_coro())]
    assert handlers
    await eventually(lambda: all(task.done() for task in handlers))
    assert (await relay.get("history", symbol="BTCUSDT", interval="1m", limit=5)).status == 200


# What an exchange leaves out, and what it says otherwise later


class Later:
    """A clock that a test can put forward."""

    def __init__(self) -> None:
        self.by_s = 0.0
        self.clock = Clock(monotonic=lambda: time.monotonic() + self.by_s)


async def times_of(relay: Running, symbol: str, first: int, last: int) -> list[int]:
    """Return which minutes after `START` a range has."""
    start, end = START + 60 * first, START + 60 * last
    answer = await relay.get("history", symbol=symbol, interval="1m", start_time=start, end_time=end)
    assert answer.status == 200
    times = [(candle["time"] - START) // 60 for candle in answer.body["candles"]]
    # What it lacks is in doubt, and it says so.
    assert answer.body.get("complete", True) is (times == [*range(first, last + 1)])
    return times


async def test_one_empty_answer_does_not_make_a_range_empty_for_ever(relay_with: StartRelay, sandbox: Sandbox) -> None:
    later = Later()
    relay = await relay_with(clock=later.clock)
    sandbox.binance.faults.answer_rest(200, "[]", path="/api/v3/klines", times=1)
    assert await times_of(relay, "BTCUSDT", 0, 99) == []
    asked = len(sandbox.binance.requests)
    for _ in range(3):
        assert await times_of(relay, "BTCUSDT", 0, 99) == []
    assert len(sandbox.binance.requests) == asked
    later.by_s += 31
    for _ in range(3):
        assert await times_of(relay, "BTCUSDT", 0, 99) == [*range(100)]
    assert len(sandbox.binance.requests) == asked + 1


async def test_a_bar_that_one_answer_has_without_a_value_is_asked_for_again(
    relay_with: StartRelay, sandbox: Sandbox
) -> None:
    later = Later()
    relay = await relay_with(clock=later.clock)
    rows: list[dict[str, Any]] = [
        {
            "datetime": datetime.fromtimestamp(START + 60 * number, UTC).strftime("%Y-%m-%d %H:%M:%S"),
            **dict.fromkeys(("open", "high", "low", "close"), "1.0850"),
        }
        for number in range(12, -1, -1)
    ]
    rows[5]["close"] = None
    body = {"meta": {"symbol": "EUR/USD", "interval": "1min"}, "values": rows, "status": "ok"}
    sandbox.twelve_data.faults.answer_rest(200, json.dumps(body), path="/time_series", times=1)
    without = [*range(7), 8, 9, 10]
    for _ in range(2):
        assert await times_of(relay, "EUR/USD", 0, 10) == without
    later.by_s += 31
    for _ in range(2):
        assert await times_of(relay, "EUR/USD", 0, 10) == [*range(11)]


class Changed(BinanceProvider):
    """Binance, but history gives what becomes of its rows."""

    def changed(self, rows: Sequence[Candle], limit: int) -> list[Candle]:
        return [*rows]

    @hookimpl
    async def relay_candles(
        self,
        symbol: str,
        interval: str,
        start: int | None,
        end: int,
        limit: int,
        session: aiohttp.ClientSession,
        settings: Mapping[str, Any],
    ) -> list[Candle]:
        rows = await super().relay_candles(symbol, interval, start, end, limit, session, settings)
        return self.changed(rows, limit)


class Torn(Changed):
    """Binance, but the row of one minute cannot be read for a while."""

    def __init__(self) -> None:
        super().__init__()
        self.lost: int | None = None

    def changed(self, rows: Sequence[Candle], limit: int) -> list[Candle]:
        return [unreadable(row.time) if row.time == self.lost else row for row in rows]


async def test_a_row_that_cannot_be_read_costs_itself_only(relay_with: StartRelay, sandbox: Sandbox) -> None:
    plugin, later = Torn(), Later()
    relay = await relay_with(builtin=(plugin, TwelveDataProvider), clock=later.clock)
    plugin.lost = START + 60 * 300
    others = [*range(300), *range(301, 500)]
    for _ in range(3):
        assert await times_of(relay, "BTCUSDT", 0, 499) == others
    asked = len(sandbox.binance.requests)
    assert await times_of(relay, "BTCUSDT", 0, 499) == others
    assert len(sandbox.binance.requests) == asked
    plugin.lost = None
    later.by_s += 5
    for _ in range(2):
        assert await times_of(relay, "BTCUSDT", 0, 499) == [*range(500)]


class Sparing(Changed):
    """Binance, but an answer has one candle that is new, and looks as if there were more."""

    def changed(self, rows: Sequence[Candle], limit: int) -> list[Candle]:
        few = rows[: 1 + self.relay_provider().candles_back]
        return [*few] * -(-limit // max(1, len(few)))


async def test_an_answer_that_would_take_too_many_calls_says_that_it_is_not_complete(relay_with: StartRelay) -> None:
    relay = await relay_with(builtin=(Sparing(), TwelveDataProvider))
    query: dict[str, Any] = {"start_time": START, "end_time": START + 60 * 599, "limit": 600}
    status, _, body = await raw(relay, **query)
    answer = orjson.loads(body)
    assert (status, len(answer["candles"]), answer["complete"]) == (200, MAX_CALLS + 3, False)
    # Lines cannot say so; what was fetched is kept.
    for form, limit in (("csv", 500), ("ndjson", 500), ("csv", 7000)):
        status, _, body = await raw(relay, **query | {"limit": limit, "format": form})
        assert (status, orjson.loads(body)["code"]) == (503, "provider_unavailable")
    # The command goes on where such an answer ends.
    async with RelayClient(relay.url) as client:
        found = [page async for page in pages(client, "BTCUSDT", "1m", start=START, end=query["end_time"], limit=None)]
    assert [candle.time for page in found for candle in page.candles] == [START + 60 * n for n in range(600)]


async def test_a_row_that_cannot_be_read_ends_no_download(relay_with: StartRelay) -> None:
    plugin = Torn()
    relay = await relay_with(builtin=(plugin, TwelveDataProvider))
    plugin.lost = START + 60 * 2000
    queries: list[dict[str, Any]] = [{"start_time": START}, {"end_time": START + 60 * 7000}]
    for query in queries:
        _, _, body = await raw(relay, limit=7000, format="csv", **query)
        times = [int(line.split(",")[0]) for line in body.decode().splitlines()[1:]]
        assert times == [at for at in range(START, START + 60 * 7001, 60) if at != plugin.lost]


async def test_a_snapshot_has_the_others_and_says_that_it_is_not_complete(relay_with: StartRelay) -> None:
    plugin = Torn()
    relay = await relay_with(builtin=(plugin, TwelveDataProvider))
    plugin.lost = int(time.time()) // 60 * 60 - 1200
    client = await relay.connect()
    await client.subscribe("BTCUSDT@1m", bars=100)
    snapshot = await client.seen("snapshot")
    times = [candle["time"] for candle in snapshot["candles"]]
    assert times[0] <= plugin.lost - 60 * 75
    assert times == [at for at in range(times[0], times[-1] + 60, 60) if at != plugin.lost]
    assert snapshot["complete"] is False


# Else the first look comes after a minute.
QUICK_RECHECK = RelayLimits(feeds=FeedTiming(recheck_every_s=0.5))


class Blundering(BinanceProvider):
    """Binance, but the closing event of one candle has another volume than the exchange's history."""

    def __init__(self) -> None:
        super().__init__()
        self.wrong: Candle | None = None

    @hookimpl
    def relay_provider(self) -> ProviderInfo:
        return super().relay_provider()._replace(compare_after_s=(5.0,))

    @hookimpl
    async def relay_stream(
        self, watchlist: Watchlist, session: aiohttp.ClientSession, settings: Mapping[str, Any]
    ) -> AsyncGenerator[PriceUpdate, None]:
        async with aclosing(super().relay_stream(watchlist, session, settings)) as updates:
            async for update in updates:
                if update.is_closed and self.wrong is None:
                    self.wrong = update.candle._replace(volume=update.candle.volume + 1000)
                    yield update._replace(candle=self.wrong)
                else:
                    yield update

    def is_told(self, message: Message) -> bool:
        """Say whether a message tells of the wrong candle."""
        return self.wrong is not None and message.get("candle") == self.wrong._asdict()


async def test_a_close_that_differs_from_the_exchanges_history_is_revised(
    relay_with: StartRelay, sandbox: Sandbox
) -> None:
    plugin = Blundering()
    relay = await relay_with(builtin=(plugin, TwelveDataProvider), limits=QUICK_RECHECK)
    client = await relay.connect()
    await client.subscribe("BTCUSDT@1s")
    # What closed before may come from history.
    await client.until(plugin.is_told)
    assert plugin.wrong is not None
    right = plugin.wrong._replace(volume=plugin.wrong.volume - 1000)
    revised = await client.update(revised=True)
    assert revised["candle"]["time"] == right.time
    assert revised["candle"]["volume"] == pytest.approx(right.volume)
    status = (await relay.get("status")).body["providers"][0]
    assert status["differed"] == 1
    assert status["compared"] >= 1
    row = (await relay.get("history", symbol="BTCUSDT", interval="1s", start_time=right.time, limit=1)).body["candles"]
    assert row == [revised["candle"]]


async def test_a_close_that_differs_is_put_right_by_the_next_run_whoever_follows_it(
    relay_with: StartRelay, tmp_path: Path
) -> None:
    plugin = Blundering()
    relay = await relay_with(builtin=(plugin, TwelveDataProvider), database=tmp_path / "relay.db")
    client = await relay.connect()
    await client.subscribe("BTCUSDT@1s")
    revision = (await client.seen("subscription"))["revision"]
    since = (await client.until(plugin.is_told))["candle"]["time"]
    await relay.close()
    wrong = plugin.wrong
    assert wrong is not None
    with reading(str(tmp_path / "relay.db")) as connection:
        stored = connection.execute("SELECT volume FROM candles WHERE time = ?", (wrong.time,)).fetchone()
    assert stored == (wrong.volume,)
    again = await relay_with(builtin=(plugin, TwelveDataProvider), database=tmp_path / "relay.db", limits=QUICK_RECHECK)
    query: dict[str, Any] = {"symbol": "BTCUSDT", "interval": "1s", "start_time": wrong.time, "limit": 1}
    await eventually(lambda: again.app[HISTORY].calls.differed["binance"])
    (row,) = (await again.get("history", **query)).body["candles"]
    assert row["volume"] == pytest.approx(wrong.volume - 1000)
    back = await again.connect()
    await back.ask("subscribe", symbol="BTCUSDT", interval="1s", since=since, revision=revision)
    snapshot = await back.until_type("snapshot")
    assert (snapshot["revised"], snapshot["revisions_known"]) == ([row], True)
