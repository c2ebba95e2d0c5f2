"""What a facade did for its programs, and what that saved, is told in the status and in the metrics."""

from typing import Any

from relay.commands.status_format import sorted_out
from tests.support.metrics_page import scrape
from tests.support.running_relay import Running
from tests.support.sandbox import Sandbox


async def test_status_and_metrics_tell_what_was_answered_and_what_it_cost(sandbox: Sandbox, relay: Running) -> None:
    await relay.get("/api/v3/exchangeInfo")
    before = sandbox.binance.rest.weight_used
    query: dict[str, Any] = {"symbol": "BTCUSDT", "interval": "1h", "endTime": 1_700_000_000_000, "limit": 9}
    for _ in range(5):
        await relay.get("/api/v3/klines", **query)
    for _ in range(3):
        await relay.get("/api/v3/ticker/24hr", symbol="BTCUSDT")
    await relay.get("/api/v3/klines", symbol="NOPEUSDT", interval="1h")
    cost = sandbox.binance.rest.weight_used - before
    told, of_charts = (await relay.get("status")).body["facades"]
    assert (of_charts["name"], of_charts["requests"], of_charts["upstream_calls"]) == ("udf", {}, 0)
    assert of_charts["title"] == "charting libraries (UDF)"
    assert told == {
        "name": "binance",
        "title": "programs for Binance",
        "requests": {"exchangeInfo": 1, "klines": 6, "ticker/24hr": 3},
        "upstream_calls": 2,
        "upstream_weight": cost,
        "weight_asked": 20 + 6 * 2 + 3 * 2,
        "weight_saved": 20 + 6 * 2 + 3 * 2 - cost,
        "live_series": 0,
    }
    seen = await scrape(relay)
    assert seen("relay_facade_requests_total", facade="binance", kind="klines") == 6
    assert seen("relay_facade_upstream_calls_total", facade="binance") == 2
    assert seen("relay_facade_upstream_weight_total", facade="binance") == cost
    assert seen("relay_facade_weight_asked_total", facade="binance") == 38
    assert seen("relay_facade_live_series", facade="binance") == 0
    assert seen("relay_http_requests_total", route="/api/v3/klines", status="200") == 5


async def test_charts_are_counted_with_the_calls_that_they_cause(relay: Running) -> None:
    path = "/udf/history?symbol=BTCUSDT&resolution=60&to=1700000000&countback=5"
    for _ in range(3):
        await relay.get(path)
    await relay.get("/udf/symbols?symbol=NOPE")
    await relay.get("/widgets.json")
    _, told = (await relay.get("status")).body["facades"]
    assert told["requests"] == {"history": 3, "symbols": 1, "widgets": 1}
    assert (told["upstream_calls"], told["weight_asked"], told["live_series"]) == (1, 0, 0)


async def test_a_stream_that_only_polls_keep_says_so_to_operators(relay: Running) -> None:
    client = await relay.connect()
    await client.subscribe("ETHUSDT@1h")
    for _ in range(2):
        await relay.get("/udf/history?symbol=BTCUSDT&resolution=60&to=9000000000&countback=5")
        await relay.get("/api/v3/klines?symbol=ETHUSDT&interval=1h")
    await relay.get("/api/v3/klines?symbol=BTCUSDT&interval=1h")
    await relay.get("/api/v3/klines?symbol=BTCUSDT&interval=1h")
    status = (await relay.get("status")).body
    told = {one["symbol"]: (one["subscribers"], one["kept_by"]) for one in status["streams"]}
    assert told == {
        "BTCUSDT": (0, ["polls of charting libraries (UDF)", "polls of programs for Binance"]),
        "ETHUSDT": (1, ["polls of programs for Binance"]),
    }
    (table,) = [section for section in sorted_out(status)[1] if section.title == "streams"]
    column = table.columns.index("kept_by")
    assert table.columns[column - 1] == "subscribers"
    shown = {row[0]: row[column] for row in table.rows}
    assert shown["BTCUSDT"] == "polls of charting libraries (UDF), polls of programs for Binance"


async def test_a_token_in_a_path_is_no_label(relay: Running) -> None:
    await relay.get("/t/secret-in-a-path/api/v3/ping")
    await relay.get("/t/secret-in-a-path/nothing")
    text = (await relay.get("/metrics")).text
    assert "secret-in-a-path" not in text
