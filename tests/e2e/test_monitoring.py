"""The alert rules and the dashboard fit what a relay tells: held against a scrape, and run by Prometheus itself."""

import asyncio
import contextlib
import itertools
import json
import re
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
import pytest

from tests.conftest import StartRelay
from tests.support.conditions import LONGEST_WAIT_S, eventually
from tests.support.free_ports import free_port
from tests.support.metrics_page import Scrape, scrape
from tests.support.running_relay import Running, WsClient
from tests.support.sandbox import Sandbox
from tests.support.tools import tool

FILES = resources.files("relay") / "telemetry" / "monitoring"
DASHBOARD: dict[str, Any] = json.loads((FILES / "grafana.json").read_text(encoding="utf-8"))
RULES = (FILES / "alerts.yaml").read_text(encoding="utf-8")

_METRIC = re.compile(r"\b((?:relay|process)_[a-z_]+)\b(?:\{([^}]*)\})?")
_LABEL = re.compile(r"([a-z_]+)\s*(?:=~|!~|!=|=)")
_BY = re.compile(r"by \(([a-z_, ]+)\)")
_EXPR = re.compile(r" expr: (?:\|\n((?: {10}.*\n)+)|(.+))")
_FROM_PROMETHEUS = {"instance", "job"}


def panels() -> list[dict[str, Any]]:
    return [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]


def queries() -> Iterator[tuple[str, str]]:
    """Yield the title of each panel with each of its queries, variables filled in."""
    for panel in panels():
        for target in panel["targets"]:
            expr = target["expr"].replace("$instance", ".*").replace("$provider", ".*")
            yield panel["title"], expr.replace("$__rate_interval", "10s")


def expressions() -> Iterator[str]:
    """Yield every expression of the dashboard and of the rules."""
    yield from (expr for _, expr in queries())
    for block, line in _EXPR.findall(RULES):
        yield block or line


@pytest.fixture
async def relay(relay_with: StartRelay) -> Running:
    """A relay that is one of several, as far as it knows: only then it tells everything. It cannot reach them."""
    return await relay_with(cluster_nats=("nats://127.0.0.1:9",))


async def come_and_go(relay: Running, sandbox: Sandbox) -> None:
    """Let a client leave the relay, and its upstream too."""
    gone = await relay.connect()
    await gone.subscribe("ETHUSDT@1m")
    await gone.close()
    sandbox.binance.faults.drop()


async def keep_busy(relay: Running, sandbox: Sandbox) -> WsClient:
    """Let a relay see a bit of everything that its metrics tell; return the client that stays."""
    client = await relay.connect()
    await client.subscribe("BTCUSDT@1m", "EUR/USD@1m", bars=5)
    await client.update()
    await come_and_go(relay, sandbox)
    await client.until_type("status", status="reconnecting")
    await client.until_type("status", status="connected")
    client.read_on()
    await relay.get("history", symbol="BTCUSDT", interval="1h", limit=5)
    await relay.get("/api/v3/klines", symbol="BTCUSDT", interval="1h", limit=5)
    await eventually(lambda: len(relay.clients.connections) == 1)
    return client


def unknown(seen: Scrape, expr: str) -> Iterator[str]:
    """Yield what an expression names and a scrape does not have."""
    labels_of: dict[str, set[str]] = {}
    for name, labels in seen.samples:
        labels_of.setdefault(name, set(_FROM_PROMETHEUS)).update(dict(labels))
    grouped = {label.strip() for group in _BY.findall(expr) for label in group.split(",")}
    known = set()
    for name, matchers in _METRIC.findall(expr):
        if name not in labels_of:
            yield name
            continue
        known |= labels_of[name]
        yield from (f"{name}{{{label}}}" for label in _LABEL.findall(matchers) if label not in labels_of[name])
    yield from (f"by ({label})" for label in grouped - known)


async def test_dashboard_and_rules_name_only_what_a_scrape_has(relay: Running, sandbox: Sandbox) -> None:
    await keep_busy(relay, sandbox)
    seen = await scrape(relay)
    found = [*expressions()]
    assert len(found) > 50
    assert [fault for expr in found for fault in unknown(seen, expr)] == []
    assert [*unknown(seen, 'sum by (nope) (relay_gone_total) + relay_clients{x="1"}')] == [
        "relay_gone_total",
        "relay_clients{x}",
        "by (nope)",
    ]


async def test_every_metric_of_the_relay_is_on_the_dashboard_or_in_a_rule(relay: Running, sandbox: Sandbox) -> None:
    await keep_busy(relay, sandbox)
    shown = "\n".join(expressions())
    told = {name for name, _ in (await scrape(relay)).samples if name.startswith("relay_")}
    names = {re.sub("_(bucket|sum|count)$", "", name) for name in told}
    off_the_dashboard = {name for name in names if name not in shown}
    assert off_the_dashboard == {
        "relay_build_info",
        "relay_candles_compared_total",
        "relay_candles_differed_total",
        "relay_feed_connects_total",
        "relay_gaps_open",
        "relay_history_doubts",
        "relay_messages_skipped_total",
        "relay_past_changes_total",
        "relay_plugin_blocks_total",
        "relay_store_candles",
        "relay_store_dropped_candles_total",
        "relay_updates_ignored_total",
    }


def test_panels_have_ids_of_their_own_and_do_not_overlap() -> None:
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(ids) == len(set(ids))
    taken: dict[tuple[int, int], str] = {}
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        for x in range(place["x"], place["x"] + place["w"]):
            for y in range(place["y"], place["y"] + place["h"]):
                assert (x, y) not in taken, f"{panel['title']} lies on {taken[x, y]}"
                taken[x, y] = panel["title"]


# -- with Prometheus itself ------------------------------------------------------------------------


class Prometheus(NamedTuple):
    """A Prometheus that reads one relay each second."""

    url: str
    session: aiohttp.ClientSession

    async def ask(self, expr: str) -> list[dict[str, Any]]:
        """Return what a query finds now. A query that it does not understand fails."""
        found: list[dict[str, Any]] = (await self.get("query", query=expr))["result"]
        return found

    async def get(self, path: str, **query: str) -> Any:
        """Return the data of an answer of its API."""
        async with self.session.get(f"{self.url}/api/v1/{path}", params=query) as answer:
            body = await answer.json()
        assert body["status"] == "success", f"{query}: {body}"
        return body["data"]

    async def waits_for(self, expr: str, again: Callable[[], Awaitable[None]] | None = None) -> list[dict[str, Any]]:
        """Return what a query finds, once it finds something; what it counts happens `again` meanwhile."""
        found: list[dict[str, Any]] = []
        try:
            async with asyncio.timeout(LONGEST_WAIT_S):
                for look in itertools.count(1):
                    with contextlib.suppress(aiohttp.ClientError):  # it may not have started yet
                        found = await self.ask(expr)
                    if found:
                        break
                    if again is not None and look % 50 == 0:
                        await again()
                    await asyncio.sleep(0.1)
        except TimeoutError:
            raise TimeoutError(f"nothing is found by {expr}") from None
        return found


@asynccontextmanager
async def prometheus(program: str, relay: Running, folder: Path) -> AsyncIterator[Prometheus]:
    target = relay.url.removeprefix("http://")
    rules = folder / "alerts.yaml"
    rules.write_text(RULES, encoding="utf-8")
    (folder / "prometheus.yml").write_text(
        json.dumps(
            {
                "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
                "rule_files": [str(rules)],
                "scrape_configs": [{"job_name": "market-relay", "static_configs": [{"targets": [target]}]}],
            }
        )
    )
    options = [f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data"]
    address = f"127.0.0.1:{free_port()}"
    with (folder / "log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            program, *options, f"--web.listen-address={address}", stdout=log, stderr=log
        )
    try:
        async with aiohttp.ClientSession() as session:
            yield Prometheus(f"http://{address}", session)
    finally:
        process.kill()
        await process.wait()


async def test_every_query_of_the_dashboard_finds_something_in_prometheus(
    relay: Running, sandbox: Sandbox, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    program = tool("prometheus", "prometheus", request.config)
    async with prometheus(program, relay, tmp_path) as server:
        await server.waits_for("relay_build_info")
        client = await keep_busy(relay, sandbox)
        for counted in ("relay_feed_reconnects_total", "relay_client_closes_total"):
            # Of a minute in which the machine let Prometheus read too rarely nothing is found.
            await server.waits_for(f"sum(increase({counted}[1m])) > 0", partial(come_and_go, relay, sandbox))
        for _, expr in queries():
            # A scrape that a pause of the machine made too late leaves nothing to find until the next.
            await server.waits_for(expr)
        await server.waits_for("sum(relay_clients) == 1")
        await client.close()
        assert await server.ask("ALERTS{alertstate='firing'}") == []
        rules = await server.get("rules")
        assert {rule["health"] for group in rules["groups"] for rule in group["rules"]} == {"ok"}


def test_promtool_accepts_the_rules(request: pytest.FixtureRequest, tmp_path: Path) -> None:
    run_promtool(request, tmp_path, "check", "rules", "alerts.yaml")


async def test_promtool_finds_no_fault_with_the_names_of_metrics(
    relay: Running, request: pytest.FixtureRequest
) -> None:
    promtool = tool("promtool", "prometheus", request.config)
    text = (await relay.get("/metrics")).text
    checked = await asyncio.to_thread(
        subprocess.run, [promtool, "check", "metrics"], input=text.encode(), capture_output=True, check=False
    )
    assert (checked.returncode, checked.stderr.decode()) == (0, "")


class Case(NamedTuple):
    """Series, one value a minute, and which alert they make fire when; not firing a moment earlier, or at all."""

    alert: str
    series: dict[str, str]
    fires_at: str
    quiet_at: str
    labels: dict[str, str]


RELAY = {"instance": "relay:8000"}
BINANCE = {"instance": "relay:8000", "provider": "binance"}
TWELVE_DATA = {"instance": "relay:8000", "provider": "twelve_data"}


def series(name: str, **labels: str) -> str:
    inner = ",".join(f'{label}="{value}"' for label, value in {"instance": "relay:8000", **labels}.items())
    return f"{name}{{{inner}}}"


def lag(name: str, **labels: str) -> dict[str, str]:
    """Return a histogram whose observations are all below 0.25 s for ten minutes and above 2.5 s from then on."""
    return {
        series(f"{name}_bucket", le="0.25", **labels): "0+60x10 600x30",
        series(f"{name}_bucket", le="2.5", **labels): "0+60x10 600x30",
        series(f"{name}_bucket", le="5.0", **labels): "0+60x40",
        series(f"{name}_bucket", le="+Inf", **labels): "0+60x40",
    }


CASES = [
    Case(
        "RelayDown",
        {'up{job="market-relay",instance="relay:8000"}': "1x4 0x10"},
        *("7m", "5m"),
        {"job": "market-relay", **RELAY},
    ),
    Case(
        "RelayProviderUnavailable",
        {
            series("relay_provider_state", provider="twelve_data", state="unavailable"): "0x4 1x10",
            series("relay_provider_state", provider="binance", state="unavailable"): "0x14",
        },
        *("8m", "6m"),
        TWELVE_DATA,
    ),
    Case(
        "RelayProviderDegraded",
        {series("relay_provider_state", provider="binance", state="degraded"): "0x4 1x30"},
        *("21m", "19m"),
        BINANCE,
    ),
    Case(
        "RelayStreamsNotLive",
        {
            series("relay_streams", provider="binance", state="connected"): "10x4 7x10",
            series("relay_streams", provider="binance", state="stale"): "0x4 2x10",
            series("relay_streams", provider="binance", state="reconnecting"): "0x4 1x10",
            # A market that is closed harms nobody.
            series("relay_streams", provider="twelve_data", state="market_closed"): "10x14",
            series("relay_streams", provider="twelve_data", state="stale"): "0x14",
        },
        *("9m", "7m"),
        BINANCE,
    ),
    Case(
        "RelayUpstreamBanned",
        {
            series("relay_streams", provider="binance", state="connected"): "10x4 0x10",
            series("relay_streams", provider="binance", state="throttled"): "0x4 10x10",
            series("relay_feeds", provider="binance"): "1x4 0x10",
            # Polls that wait for the credits of a plan are no refusal: they go on.
            series("relay_streams", provider="twelve_data", state="throttled"): "10x14",
            series("relay_feeds", provider="twelve_data"): "1x14",
            # Nobody follows anything.
            series("relay_streams", provider="binance_usdm", state="throttled"): "0x14",
            series("relay_feeds", provider="binance_usdm"): "0x14",
        },
        *("8m", "5m"),
        BINANCE,
    ),
    Case(
        "RelayRequestsRefused",
        {
            series("relay_provider_wait_seconds", provider="binance"): "0x4 300-60x4 0x10",
            # Credits of a minute that are used up again and again are no ban.
            series("relay_provider_wait_seconds", provider="twelve_data"): "60x20",
        },
        *("6m", "4m"),
        BINANCE,
    ),
    Case(
        "RelayFeedReconnects",
        {
            series("relay_feed_reconnects_total", provider="binance", cause="lost"): "0x10 0+1x30",
            series("relay_feed_reconnects_total", provider="twelve_data", cause="rotation"): "0+5x40",
        },
        *("35m", "15m"),
        BINANCE,
    ),
    Case("RelayGaps", {series("relay_gaps_total", provider="binance"): "0x5 1x30"}, "7m", "4m", BINANCE),
    Case("RelayUpstreamLag", lag("relay_upstream_lag_seconds", provider="binance"), "21m", "9m", BINANCE),
    Case("RelaySlowDelivery", lag("relay_publish_to_write_seconds"), "21m", "9m", RELAY),
    Case("RelayLoopBlocked", lag("relay_event_loop_lag_seconds"), "21m", "9m", RELAY),
    Case(
        "RelayBudgetLow",
        {
            series("relay_budget_left", provider="twelve_data", budget="credits a day"): "800-40x20 0x20",
            series("relay_budget_limit", provider="twelve_data", budget="credits a day"): "800x40",
            series("relay_budget_reset_timestamp_seconds", provider="twelve_data", budget="credits a day"): "86400x40",
            # Used up again and again, and back within the minute: that is what it is for.
            series("relay_budget_left", provider="twelve_data", budget="credits a minute"): "0x40",
            series("relay_budget_limit", provider="twelve_data", budget="credits a minute"): "8x40",
            series(
                "relay_budget_reset_timestamp_seconds", provider="twelve_data", budget="credits a minute"
            ): "60+60x40",
        },
        *("25m", "15m"),
        {"budget": "credits a day", **TWELVE_DATA},
    ),
    Case("RelayStoreUnusable", {series("relay_store_up"): "1x4 0x10"}, "7m", "5m", RELAY),
    Case("RelayStoreReplaced", {series("relay_store_replacements_total"): "0x4 1x10"}, "6m", "3m", RELAY),
    Case(
        "RelaySlowConsumers",
        {
            series("relay_client_closes_total", by="relay", code="4000"): "0x10 0+2x30",
            series("relay_client_closes_total", by="client", code="1000"): "0+100x40",
        },
        *("35m", "12m"),
        RELAY,
    ),
    Case(
        "RelayServerErrors",
        {
            series("relay_http_requests_total", route="/metrics", status="500"): "0x4 1x20",
            series("relay_http_requests_total", route="unmatched", status="404"): "0+9x24",
        },
        *("6m", "3m"),
        {"route": "/metrics", **RELAY},
    ),
    Case(
        "RelayOpenFilesLow",
        {series("process_open_fds"): "100x4 950x20", series("process_max_fds"): "1000x24"},
        *("11m", "8m"),
        RELAY,
    ),
    Case("RelayAlone", {series("relay_cluster_alone"): "0x4 1x10"}, "8m", "6m", RELAY),
    Case(
        "RelaySettingsDiffer",
        {series("relay_cluster_differs", provider="binance"): "0x4 1x20"},
        *("16m", "13m"),
        {"provider": "binance", **RELAY},
    ),
    Case(
        "RelayContradicted",
        {series("relay_cluster_candles_contradicted_total"): "0x4 5x10"},
        *("6m", "3m"),
        RELAY,
    ),
    Case(
        "RelayTwoOwners",
        {series("relay_cluster_shard_contested", shard="binance.1.0"): "0x4 1x10"},
        *("8m", "6m"),
        {"shard": "binance.1.0", **RELAY},
    ),
    Case(
        "RelayShardUnowned",
        {
            series("relay_cluster_shard_owners", shard="binance.1.0"): "1x4 0x10",
            series("relay_cluster_shard_owners", shard="twelve_data.1.0"): "2x14",
            series("relay_cluster_alone"): "0x14",
            # Who is alone carries what its clients want.
            'relay_cluster_shard_owners{instance="relay:8001",shard="binance.1.0"}': "0x14",
            'relay_cluster_alone{instance="relay:8001"}': "1x14",
        },
        *("6m", "4m"),
        {"shard": "binance.1.0", **RELAY},
    ),
]


def firing(case: Case, at: str, *, is_firing: bool) -> dict[str, Any]:
    severity = re.search(rf"alert: {case.alert}\n(?:.*\n)*?          severity: (\w+)\n", RULES)
    assert severity
    labels = {"alertname": case.alert, "alertstate": "firing", "severity": severity[1], **case.labels}
    told = ",".join(f'{name}="{value}"' for name, value in labels.items())
    samples = [{"labels": f"ALERTS{{{told}}}", "value": 1}] if is_firing else []
    return {"expr": f'ALERTS{{alertname="{case.alert}",alertstate="firing"}}', "eval_time": at, "exp_samples": samples}


def test_each_alert_fires_for_what_it_is_there_for_and_not_before(
    request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    assert [case.alert for case in CASES] == re.findall(r"- alert: (\w+)", RULES)
    tests = [
        {
            "interval": "1m",
            "input_series": [{"series": name, "values": values} for name, values in case.series.items()],
            "promql_expr_test": [
                firing(case, case.quiet_at, is_firing=False),
                firing(case, case.fires_at, is_firing=True),
            ],
        }
        for case in CASES
    ]
    suite = {"rule_files": ["alerts.yaml"], "evaluation_interval": "1m", "tests": tests}
    (tmp_path / "tests.yaml").write_text(json.dumps(suite))
    run_promtool(request, tmp_path, "test", "rules", "tests.yaml")


def test_text_of_an_alert_names_the_relay_and_the_figure(request: pytest.FixtureRequest, tmp_path: Path) -> None:
    expected = {
        "exp_labels": {"severity": "page", "instance": "relay:8000"},
        "exp_annotations": {
            "summary": "relay:8000 uses 95% of the files it may open",
            "description": "Each client needs one. Raise the limit (LimitNOFILE in systemd, ulimit -n) or lower "
            "max_clients.",
        },
    }
    test = {
        "interval": "1m",
        "input_series": [
            {"series": series("process_open_fds"), "values": "950x20"},
            {"series": series("process_max_fds"), "values": "1000x20"},
        ],
        "alert_rule_test": [{"eval_time": "10m", "alertname": "RelayOpenFilesLow", "exp_alerts": [expected]}],
    }
    suite = {"rule_files": ["alerts.yaml"], "evaluation_interval": "1m", "tests": [test]}
    (tmp_path / "tests.yaml").write_text(json.dumps(suite))
    run_promtool(request, tmp_path, "test", "rules", "tests.yaml")


def run_promtool(request: pytest.FixtureRequest, folder: Path, *arguments: str) -> None:
    promtool = tool("promtool", "prometheus", request.config)
    (folder / "alerts.yaml").write_text(RULES, encoding="utf-8")
    run = subprocess.run([promtool, *arguments], cwd=folder, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
