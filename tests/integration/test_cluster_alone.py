"""A relay that is to be one of several and reaches nobody: it serves alone and says so wherever somebody looks."""

import subprocess
import sys

from relay.app import CLUSTER
from tests.conftest import StartRelay
from tests.support.conditions import eventually
from tests.support.metrics_page import scrape
from tests.support.running_relay import Running

UNREACHABLE = ("nats://127.0.0.1:9",)


async def alone(relay_with: StartRelay) -> Running:
    relay = await relay_with(cluster_nats=UNREACHABLE, cluster_node="lonely")
    await eventually(lambda: relay.app[CLUSTER].is_alone)
    return relay


async def test_a_relay_that_is_alone_serves_its_clients(relay_with: StartRelay) -> None:
    relay = await alone(relay_with)
    client = await relay.connect()
    await client.subscribe("BTCUSDT@1s", "EUR/USD@1m", bars=3)
    await client.seen("snapshot", symbol="BTCUSDT")
    await client.seen("snapshot", symbol="EUR/USD")
    await client.seen("price_update", symbol="BTCUSDT", is_closed=True)
    await client.seen("price_update", symbol="EUR/USD")
    assert (await relay.get("history", symbol="ETHUSDT", interval="1h", limit=5)).status == 200


async def test_a_relay_that_is_alone_says_so(relay_with: StartRelay) -> None:
    relay = await alone(relay_with)
    client = await relay.connect()
    await client.subscribe("BTCUSDT@1s")
    await client.update()
    assert (await relay.get("/readyz")).body == {"status": "ok", "cluster": "alone"}
    status = (await relay.get("status")).body
    cluster = status["cluster"]
    assert (cluster["node"], cluster["state"], cluster["alone_count"]) == ("lonely", "alone", 1)
    assert "alone" in cluster["message"]
    assert [one["node"] for one in cluster["relays"]] == ["lonely"]
    assert {one["here"] for one in cluster["shards"]} == {"own"}
    assert not cluster["bus"]["connected"]
    # One connection to Binance, which the side of the clients does not have.
    assert status["connections"] == 1
    seen = await scrape(relay)
    assert seen("relay_cluster_alone") == 1
    assert seen("relay_feeds", provider="binance") == 1


async def test_a_relay_by_itself_says_nothing_of_others(relay: Running) -> None:
    assert (await relay.get("/readyz")).body == {"status": "ok"}
    assert "cluster" not in (await relay.get("status")).body
    assert not [name for name, _ in (await scrape(relay)).samples if name.startswith("relay_cluster")]


def test_a_relay_by_itself_imports_nothing_of_clusters() -> None:
    program = "import sys; import relay.cli, relay.server.run, relay.commands.serve; print(*sys.modules)"
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert not [name for name in found.stdout.split() if name.startswith(("relay.cluster", "nats"))]
