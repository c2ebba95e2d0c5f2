"""What `/metrics` tells is what happened, and clients cannot make it grow."""

import time

import aiohttp
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from relay.app import HISTORY, LOOP_MONITOR, STORE, SUPERVISORS
from relay.telemetry.loop_monitor import BEAT_S
from tests.conftest import StartRelay
from tests.support.conditions import eventually
from tests.support.metrics_page import scrape
from tests.support.running_relay import Running, WsClient
from tests.support.sandbox import Sandbox

HISTORY_ROUTE = "/api/v1/market-data/history"


async def test_updates_frames_and_bytes_are_what_the_client_got(relay: Running, client: WsClient) -> None:
    await client.subscribe("BTCUSDT@1m")
    for _ in range(5):
        await client.update()
    seen = await scrape(relay)
    assert seen("relay_updates_in_total", provider="binance") >= 5
    assert seen("relay_updates_out_total", provider="binance") >= 5
    assert seen("relay_updates_in_total", provider="twelve_data") == 0
    assert seen("relay_sent_frames_total") >= len(client.received)
    assert seen("relay_sent_bytes_total") >= 5 * 100
    assert seen("relay_sent_writes_total") <= seen("relay_sent_frames_total")
    assert (seen("relay_clients"), seen("relay_subscriptions"), seen("relay_client_connects_total")) == (1, 1, 1)
    assert seen("relay_client_requests_total", action="subscribe") == 1
    assert seen("relay_streams", provider="binance", state="connected") == 1
    assert seen("relay_feeds", provider="binance") == 1
    assert seen("relay_provider_state", provider="binance", state="ok") == 1


async def test_every_update_is_in_the_lag_histogram_and_every_flush_in_that_of_writes(
    relay: Running, client: WsClient
) -> None:
    await client.subscribe("BTCUSDT@1m")
    for _ in range(5):
        await client.update()
    seen = await scrape(relay)
    updates = seen("relay_updates_in_total", provider="binance")
    assert seen("relay_upstream_lag_seconds_count", provider="binance") == updates
    assert seen("relay_upstream_lag_seconds_bucket", provider="binance", le="+Inf") == updates
    assert 5 <= seen("relay_publish_to_write_seconds_count") <= seen("relay_updates_out_total", provider="binance") + 5
    assert seen("relay_publish_to_write_seconds_bucket", le="1.0") > 0


async def test_write_delay_grows_with_the_time_that_updates_wait(relay_with: StartRelay) -> None:
    relay = await relay_with(flush_ms=400)
    client = await relay.connect()
    await client.subscribe("BTCUSDT@1m")
    for _ in range(8):
        await client.update()
    seen = await scrape(relay)
    assert seen("relay_publish_to_write_seconds_sum") > 0.2


@pytest.mark.parametrize(("code", "label"), [(1000, "1000"), (1001, "1001"), (4000, "other"), (3999, "other")])
async def test_close_of_a_client_is_counted_by_its_code(relay: Running, code: int, label: str) -> None:
    client = await relay.connect()
    await client.socket.close(code=code)
    await eventually(lambda: not relay.clients.connections)
    assert (await scrape(relay))("relay_client_closes_total", by="client", code=label) == 1


async def test_client_that_vanishes_counts_as_1006(relay: Running) -> None:
    client = await relay.connect()
    response = client.socket._response
    assert response.connection is not None
    assert response.connection.transport is not None
    response.connection.transport.abort()
    await eventually(lambda: not relay.clients.connections)
    assert (await scrape(relay))("relay_client_closes_total", by="client", code="1006") == 1


async def test_close_by_the_relay_is_told_apart_from_that_of_a_client(relay: Running) -> None:
    too_big, broken = await relay.connect(), await relay.connect()
    await too_big.send_text("x" * 5000)
    assert (await too_big.closing()).code == 1009
    for _ in range(101):
        await broken.send_text("{")
    assert (await broken.closing()).code == 4001
    await too_big.close()
    await broken.close()
    await eventually(lambda: not relay.clients.connections)
    seen = await scrape(relay)
    assert seen("relay_client_closes_total", by="relay", code="1009") == 1
    assert seen("relay_client_closes_total", by="relay", code="4001") == 1
    assert seen("relay_client_requests_total", action="invalid") == 101


async def test_lost_and_announced_feeds_are_counted_by_cause(
    sandbox: Sandbox, relay: Running, client: WsClient
) -> None:
    await client.subscribe("BTCUSDT@1m")
    await client.update()
    sandbox.binance.faults.drop()
    await client.until_type("status", status="reconnecting")
    await client.until_type("status", status="connected")
    sandbox.binance.announce_shutdown()
    await eventually(lambda: relay.app[SUPERVISORS]["binance"].attempts.again["announced"])
    seen = await scrape(relay)
    assert seen("relay_feed_reconnects_total", provider="binance", cause="lost") == 1
    assert seen("relay_feed_reconnects_total", provider="binance", cause="unavailable") == 0
    assert seen("relay_feed_reconnects_total", provider="binance", cause="announced") == 1
    assert seen("relay_feed_connects_total", provider="binance") >= 2


async def test_counts_of_a_stream_stay_when_it_is_gone(quick: Running) -> None:
    client = await quick.connect()
    await client.subscribe("BTCUSDT@1m", throttle_ms=1000)
    (stream,) = quick.hub.streams.values()
    await eventually(lambda: stream.conflated > 3)
    told = stream.seq
    await client.ask("unsubscribe", symbol="BTCUSDT", interval="1m")
    await eventually(lambda: not quick.hub.streams)
    seen = await scrape(quick)
    assert seen("relay_updates_conflated_total", provider="binance") >= 4
    assert seen("relay_updates_out_total", provider="binance") >= told
    await client.subscribe("BTCUSDT@1m")
    again = await scrape(quick)
    for name in ("relay_updates_conflated_total", "relay_updates_out_total"):
        assert again(name, provider="binance") >= seen(name, provider="binance")


async def test_history_is_counted_by_where_it_came_from(relay: Running) -> None:
    first = await relay.get("history", symbol="BTCUSDT", interval="1m", end_time=1_700_000_000, limit=50)
    assert first.status == 200
    seen = await scrape(relay)
    assert seen("relay_history_requests_total", source="provider") == 1
    again = await relay.get("history", symbol="BTCUSDT", interval="1m", end_time=1_700_000_000, limit=50)
    assert again.body == first.body
    seen = await scrape(relay)
    assert seen("relay_history_requests_total", source="provider") == 1
    assert sum(seen("relay_history_requests_total", source=source) for source in ("cache", "store")) == 1
    assert seen("relay_http_requests_total", route=HISTORY_ROUTE, status="200") == 2
    assert seen("relay_http_request_duration_seconds_count", route=HISTORY_ROUTE) == 2
    assert seen("relay_store_candles") >= 50
    assert sum(relay.app[HISTORY].served.values()) == 2


async def test_budget_left_is_what_the_status_says(relay: Running) -> None:
    await relay.get("history", symbol="EUR/USD", interval="1h", limit=10)
    status = (await relay.get("status")).body
    seen = await scrape(relay)
    for budget in status["budgets"]:
        labels = {"provider": budget["provider"], "budget": budget["name"]}
        assert seen("relay_budget_limit", **labels) == budget["limit"]
        assert seen("relay_budget_left", **labels) == budget["left"] == budget["limit"] - budget["used"]
        assert seen("relay_budget_reset_timestamp_seconds", **labels) >= time.time() - 1
    assert any(budget["used"] for budget in status["budgets"] if budget["provider"] == "twelve_data")


async def test_clients_cannot_make_labels_grow(relay: Running) -> None:
    await relay.get("history", symbol="BTCUSDT", interval="1m", limit=1)
    await relay.get("/not/there")
    known = (await scrape(relay)).samples
    async with aiohttp.ClientSession() as session:
        for number in range(30):
            await relay.get(f"/made/up/{number}")
            await relay.get("history", symbol=f"MADEUP{number}", interval="1m")
            await session.request(f"VERB{number}", f"{relay.url}{HISTORY_ROUTE}?x{number}=1")
            client = await relay.connect()
            await client.ask(f"action{number}")
            await client.ask("subscribe", symbol=f"MADEUP{number}", interval="1m", id_=number)
            assert (await client.answer(number))["type"] == "error"
            await client.socket.close(code=4100 + number)
    await eventually(lambda: not relay.clients.connections)
    new = (await scrape(relay)).samples.keys() - known.keys()
    routes = {dict(labels)["route"] for _, labels in new if "route" in dict(labels)}
    assert routes <= {HISTORY_ROUTE, "/api/v1/market-data/ws", "/metrics", "unmatched"}
    other = {(name, labels) for name, labels in new if "route" not in dict(labels)}
    assert other == {("relay_client_closes_total", (("by", "client"), ("code", "other")))}


async def test_openmetrics_for_who_accepts_it_and_text_for_all_others(relay: Running) -> None:
    modern = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3"
    answer = await relay.get("/metrics", headers={"Accept": modern})
    assert answer.headers["Content-Type"] == "application/openmetrics-text; version=1.0.0; charset=utf-8"
    families = text_string_to_metric_families(answer.text)  # type: ignore[no-untyped-call]  # not typed by its authors
    assert "relay_updates_in" in {family.name for family in families}
    for accept in ("*/*", "text/plain;version=abc", "nonsense"):
        answer = await relay.get("/metrics", headers={"Accept": accept})
        assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
        assert "relay_updates_in_total{" in answer.text


async def test_two_relays_in_one_process_count_apart(relay_with: StartRelay) -> None:
    one, other = await relay_with(), await relay_with()
    client = await one.connect()
    assert (await scrape(one))("relay_clients") == 1
    assert (await scrape(other))("relay_clients") == 0
    await client.close()


@pytest.mark.real_time  # It stops the loop.
async def test_blocked_loop_shows_in_its_lag(relay: Running) -> None:
    monitor = relay.app[LOOP_MONITOR]
    await eventually(lambda: monitor.lateness.count)
    deadline = time.monotonic() + BEAT_S + 0.6
    while time.monotonic() < deadline:
        time.sleep(0.01)  # noqa: ASYNC251  this is what is measured
    await eventually(lambda: monitor.longest_recent_s > 0.25)
    seen = await scrape(relay)
    late = seen("relay_event_loop_lag_seconds_count") - seen("relay_event_loop_lag_seconds_bucket", le="0.25")
    assert late >= 1


async def test_metrics_answer_while_the_store_cannot(relay: Running) -> None:
    await relay.app[STORE].close()
    seen = await scrape(relay)
    assert ("relay_store_candles", ()) not in seen.samples
    assert seen("relay_clients") == 0


async def test_process_figures_are_there(relay: Running) -> None:
    seen = await scrape(relay)
    assert seen("process_resident_memory_bytes") > 1e7
    assert seen("process_open_fds") > 3
    assert seen("process_start_time_seconds") < time.time()
