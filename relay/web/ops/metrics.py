"""`/metrics` for Prometheus: reads the counters that the parts of the relay keep anyway, when it is asked.

No label takes a value that a client chooses: providers and budgets come from plugins, everything else from fixed sets.
"""

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from aiohttp import web
from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.core import CounterMetricFamily as Count
from prometheus_client.core import GaugeMetricFamily as Gauge
from prometheus_client.core import HistogramMetricFamily, InfoMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.registry import Collector

from relay.core.errors import CloseCode, StoreError
from relay.core.version import VERSION
from relay.history.service import SOURCES, HistoryService
from relay.storage.store import Store, StoreSummary
from relay.streams.hub import Hub
from relay.streams.subscriptions import CONNECTED, CONNECTING
from relay.supervision.attempts import CAUSES
from relay.supervision.stream_facts import BACKFILLING, ERROR, RECONNECTING, STALE
from relay.supervision.supervisor import Supervisor
from relay.telemetry.histogram import Histogram
from relay.telemetry.loop_monitor import LoopMonitor
from relay.upstream.watchlist import PAUSES
from relay.web.facade_counts import FacadeCounts
from relay.web.ops.status import PROVIDER_STATES, ClusterState, provider_state
from relay.web.request_counts import RequestCounts
from relay.web.stream_totals import StreamTotals, take_tallies
from relay.web.ws.connection import ACTIONS
from relay.web.ws.route import Clients

STREAM_STATES = (CONNECTING, CONNECTED, RECONNECTING, BACKFILLING, STALE, *PAUSES, ERROR)
CLOSE_CODES = {
    # 1002 and 1007 answer what is no WebSocket or no text.
    "relay": (*(int(code) for code in CloseCode), 1002, 1007),
    "client": (1000, 1001, 1002, 1003, 1005, 1006, 1007, 1008, 1009, 1011),
}
OTHER = "other"
OPENMETRICS_END = b"# EOF\n"


class RelayCollector(Collector):
    """Turns the counters of one relay into metrics.

    `summary` is what the store said last, None if it said nothing; `stream_totals` are sums over streams, by provider.
    """

    def __init__(
        self,
        *,
        hub: Hub,
        clients: Clients,
        supervisors: dict[str, Supervisor],
        history: HistoryService,
        store: Store,
        requests: RequestCounts,
        loop_monitor: LoopMonitor,
        facades: Mapping[str, FacadeCounts],
        upstream: Mapping[str, Supervisor],
        cluster: ClusterState | None = None,
    ) -> None:
        self._hub = hub
        self._facades = facades
        self._upstream = upstream
        self._cluster = cluster
        self._clients = clients
        self._supervisors = supervisors
        self._history = history
        self._store = store
        self._requests = requests
        self._loop_monitor = loop_monitor
        self.summary: StoreSummary | None = None
        self.stream_totals: dict[str, StreamTotals] = {}

    async def look(self) -> None:
        """Take what cannot be read in one go."""
        try:
            self.summary = await self._store.streams_summary()
        except StoreError:
            self.summary = None
        self.stream_totals = await take_tallies(self._hub, self._supervisors)

    def collect(self) -> Iterable[Metric]:
        """Yield all metrics."""
        yield InfoMetricFamily("relay_build", "Which relay this is", {"version": VERSION})
        yield from self._updates()
        yield from self._feeds()
        yield from self._budgets()
        yield from self._sending()
        yield from self._serving()
        yield from self._keeping()
        yield from self._spared()
        if self._cluster is not None:
            yield from _cluster(self._cluster.document())
        loop_lag = "How much later than due the event loop ran a timer"
        yield _histogram("relay_event_loop_lag_seconds", loop_lag, {}, {(): self._loop_monitor.lateness})

    def _updates(self) -> Iterator[Metric]:
        """What comes from the providers and becomes of it."""
        updates_in = Count("relay_updates_in", "Updates received from providers", labels=["provider"])
        updates_out = Count(
            "relay_updates_out", "Updates published to subscribers, each counted once", labels=["provider"]
        )
        ignored = Count(
            "relay_updates_ignored", "Updates that were repeated or came too late", labels=["provider", "reason"]
        )
        conflated = Count(
            "relay_updates_conflated",
            "Open candles replaced by newer ones before they were sent, by a throttle or for a client that lags",
            labels=["provider"],
        )
        skipped = Count("relay_messages_skipped", "Invalid messages of providers", labels=["provider"])
        backfilled = Count("relay_candles_backfilled", "Closed candles missed and fetched", labels=["provider"])
        revised = Count("relay_candles_revised", "Closed candles changed afterwards", labels=["provider"])
        compared = Count(
            "relay_candles_compared", "Closed candles compared with the provider's history later", labels=["provider"]
        )
        differed = Count("relay_candles_differed", "Those of them that had other values there", labels=["provider"])
        past_changes = Count(
            "relay_past_changes", "Reports that a provider changed its history, as after a split", labels=["provider"]
        )
        in_doubt = Gauge(
            "relay_history_doubts",
            "Unreadable rows and spans without rows, to be requested again",
            labels=["provider"],
        )
        gaps = Count("relay_gaps", "Gaps sent to subscribers", labels=["provider"])
        open_gaps = Gauge("relay_gaps_open", "Gaps that may still be repaired", labels=["provider"])
        lag = HistogramMetricFamily(
            "relay_upstream_lag_seconds",
            "From the stamp of an update to its arrival, minus that of the fastest recent message: clocks may differ",
            labels=["provider"],
        )
        for name, supervisor in self._supervisors.items():
            counts = self.stream_totals[name].counts
            updates_in.add_metric([name], supervisor.counters.updates)
            updates_out.add_metric([name], counts["told"])
            for reason in ("duplicate", "late"):
                ignored.add_metric([name, reason], counts[reason])
            conflated.add_metric([name], counts["conflated"])
            skipped.add_metric([name], supervisor.counters.skipped)
            backfilled.add_metric([name], counts["backfilled"])
            revised.add_metric([name], counts["revised"])
            compared.add_metric([name], self._history.calls.compared[name])
            differed.add_metric([name], self._history.calls.differed[name])
            past_changes.add_metric([name], supervisor.past_changes.count)
            in_doubt.add_metric([name], self._history.calls.doubts.count(name))
            gaps.add_metric([name], counts["gaps"])
            open_gaps.add_metric([name], self.stream_totals[name].open_gaps)
            lag.add_metric([name], *_buckets(supervisor.counters.lag))
        yield from (updates_in, updates_out, ignored, conflated, skipped, backfilled, revised, gaps, open_gaps, lag)
        yield from (compared, differed, past_changes, in_doubt)

    def _feeds(self) -> Iterator[Metric]:
        """How the providers and their feeds are."""
        states = Gauge("relay_provider_state", "1 for the state a provider is in", labels=["provider", "state"])
        waits = Gauge(
            "relay_provider_wait_seconds",
            "Seconds until requests are taken again that were refused; 0 if they are",
            labels=["provider"],
        )
        streams = Gauge("relay_streams", "Streams by state", labels=["provider", "state"])
        feeds = Gauge("relay_feeds", "Upstream connections and polling loops", labels=["provider"])
        connects = Count("relay_feed_connects", "Feeds opened", labels=["provider"])
        reconnects = Count(
            "relay_feed_reconnects",
            "Feeds opened again, by the reason why the one before ended",
            labels=["provider", "cause"],
        )
        backfills = Count("relay_backfills", "Requests for missed candles", labels=["provider"])
        blocks = Count("relay_plugin_blocks", "Times that a plugin blocked the event loop", labels=["provider"])
        for name, supervisor in self._supervisors.items():
            upstream = self._upstream[name]
            now = provider_state(supervisor.provider, self._clients.context.directory)[0]
            for state in PROVIDER_STATES:
                states.add_metric([name, state], state == now)
            wait = supervisor.provider.requests_wait()
            waits.add_metric([name], 0.0 if wait is None else wait.left_s)
            for state in STREAM_STATES:
                streams.add_metric([name, state], self.stream_totals[name].states[state])
            feeds.add_metric([name], upstream.open_feeds)
            connects.add_metric([name], upstream.attempts.connects)
            for cause in CAUSES:
                reconnects.add_metric([name, cause], upstream.attempts.again[cause])
            backfills.add_metric([name], supervisor.backfill.fetched)
            blocks.add_metric([name], supervisor.provider.blocks.count)
        yield from (states, waits, streams, feeds, connects, reconnects, backfills, blocks)

    def _budgets(self) -> Iterator[Metric]:
        labels = ["provider", "budget"]
        limit = Gauge("relay_budget_limit", "Units that a provider grants until the reset", labels=labels)
        left = Gauge("relay_budget_left", "Units that are left until the reset", labels=labels)
        resets = Gauge("relay_budget_reset_timestamp_seconds", "When the budget is reset", labels=labels)
        for name, supervisor in self._supervisors.items():
            for budget in supervisor.provider.budgets():
                limit.add_metric([name, budget.name], budget.limit)
                left.add_metric([name, budget.name], max(0, budget.limit - budget.used))
                resets.add_metric([name, budget.name], budget.resets_at)
        yield from (limit, left, resets)

    def _sending(self) -> Iterator[Metric]:
        """What leaves for subscribers."""
        fanout = self._hub.fanout
        yield Count("relay_sent_frames", "Frames written to clients", fanout.frames_out)
        yield Count(
            "relay_sent_writes", "Writes to client sockets; one carries all frames of a flush", fanout.writes_out
        )
        yield Count("relay_sent_bytes", "Bytes of frames written to clients", fanout.bytes_out)
        delay = "From the first update of a flush until it was written to all sockets; flush_ms is part of it"
        yield _histogram("relay_publish_to_write_seconds", delay, {}, {(): fanout.write_delay})
        yield Gauge("relay_clients", "Clients that get updates", len(self._clients.connections))
        yield Gauge(
            "relay_clients_sse", "Those of the clients that get Server-Sent Events", self._clients.event_streams
        )
        yield Gauge("relay_clients_lagging", "Clients that read too slowly now", fanout.lagging)
        yield Gauge(
            "relay_subscriptions",
            "Subscriptions of clients",
            sum(one.subscriptions for one in self.stream_totals.values()),
        )
        yield Count("relay_client_connects", "Clients that connected for updates", self._clients.opened)

    def _serving(self) -> Iterator[Metric]:
        """What clients ask for, and how they leave."""
        actions = Count("relay_client_requests", "Requests over the WebSocket", labels=["action"])
        for action in ACTIONS:
            actions.add_metric([action], self._clients.requests[action])
        closes = Count("relay_client_closes", "Clients that left, by who ended it", labels=["by", "code"])
        count_of = {(by, str(code)): 0 for by, codes in CLOSE_CODES.items() for code in codes}
        for (by, code), count in self._clients.closes.items():
            label = str(code) if code in CLOSE_CODES[by] else OTHER
            count_of[by, label] = count_of.get((by, label), 0) + count
        for labels, count in count_of.items():
            closes.add_metric(labels, count)
        answered = Count("relay_http_requests", "HTTP requests answered", labels=["route", "status"])
        for (route, status), count in self._requests.answered.items():
            answered.add_metric([route, str(status)], count)
        yield from (actions, closes, answered)
        durations: dict[tuple[str, ...], Histogram] = {
            (route,): histogram for route, histogram in self._requests.durations.items()
        }
        yield _histogram("relay_http_request_duration_seconds", "Time to an HTTP answer", ["route"], durations)

    def _spared(self) -> Iterator[Metric]:
        """What facades did for programs that speak another service's protocol, and what that saved upstream."""
        answered = Count("relay_facade_requests", "Requests answered", labels=["facade", "kind"])
        calls = Count("relay_facade_upstream_calls", "Calls to the provider that they caused", labels=["facade"])
        weight = Count("relay_facade_upstream_weight", "What these calls cost, in its units", labels=["facade"])
        asked = Count(
            "relay_facade_weight_asked", "What the same requests would have cost at the provider", labels=["facade"]
        )
        live = Gauge(
            "relay_facade_live_series",
            "Series and order books followed live, being polled",
            labels=["facade"],
        )
        for name, counts in self._facades.items():
            for kind, count in counts.answered.items():
                answered.add_metric([name, kind], count)
            calls.add_metric([name], counts.calls)
            weight.add_metric([name], counts.weight)
            asked.add_metric([name], counts.weight_asked)
            live.add_metric([name], counts.live_series)
        yield from (answered, calls, weight, asked, live)

    def _keeping(self) -> Iterator[Metric]:
        """The past: where it was had from, and the store."""
        served = Count("relay_history_requests", "Requests for history, by source of the answer", labels=["source"])
        for source in SOURCES:
            served.add_metric([source], self._history.served[source])
        yield served
        yield Gauge("relay_store_up", "1 while the store can be used", self._store.problem is None)
        replaced = self._store.replacements
        yield Count("relay_store_replacements", "Times the store continued with another file", replaced)
        if (summary := self.summary) is not None:
            yield Gauge("relay_store_candles", "Closed candles stored", summary.candles)
            yield Gauge("relay_store_size_bytes", "Size of the database", summary.file_bytes)
            yield Gauge("relay_store_waiting_candles", "Candles that wait to be written", summary.queued)
            yield Count("relay_store_dropped_candles", "Candles dropped because too many waited", summary.dropped)


def _cluster(state: Mapping[str, Any]) -> Iterator[Metric]:
    """Say how a relay among several is; a relay that is one by itself has none of these."""
    yield Gauge("relay_cluster_alone", "1 while this relay serves without the others", state["state"] == "alone")
    yield Gauge("relay_cluster_relays", "Relays that are seen, this one included", len(state["relays"]))
    differs = Gauge(
        "relay_cluster_differs", "1 while another relay has other settings of a provider", labels=["provider"]
    )
    for name in sorted({one["provider"] for one in state["shards"]}):
        differs.add_metric([name], any(name in relay["differs"] for relay in state["relays"]))
    yield differs
    owned = Gauge("relay_cluster_shard_owned", "1 if this relay carries the shard for all", labels=["shard"])
    owners = Gauge("relay_cluster_shard_owners", "Relays that carry the shard for all", labels=["shard"])
    contested = Gauge("relay_cluster_shard_contested", "1 while two relays do so for too long", labels=["shard"])
    for shard in state["shards"]:
        owned.add_metric([shard["shard"]], shard["here"] == "all")
        owners.add_metric([shard["shard"]], shard["owners"])
        contested.add_metric([shard["shard"]], shard["contested"])
    yield from (owned, owners, contested)
    bus = state["bus"]
    yield Count("relay_cluster_messages_sent", "Messages with updates sent to other relays", bus["sent"])
    yield Count("relay_cluster_messages_received", "Messages with updates of other relays", bus["received"])
    yield Count("relay_cluster_messages_lost", "Messages that were lost on the bus", bus["lost"])
    yield Count("relay_cluster_messages_invalid", "Invalid messages", bus["invalid"])
    calls = state["history_calls"]
    yield Count("relay_cluster_history_calls", "Questions for history to other relays", calls["asked"])
    yield Count("relay_cluster_history_failures", "Those without an answer", calls["failed"])
    yield Count("relay_cluster_candles_contradicted", "Those that differ from the provider's", calls["contradicted"])
    if (spread := bus["round_trip_ms"]) is not None:
        trip = Gauge("relay_cluster_bus_round_trip_seconds", "How long a write to NATS takes", labels=["quantile"])
        for label, name in (("0.5", "p50"), ("0.99", "p99")):
            trip.add_metric([label], spread[name] / 1000)
        yield trip


class _One(Collector):
    """A registry of one metric, so that it can be written by itself."""

    def __init__(self, metric: Metric) -> None:
        self._metric = metric

    def collect(self) -> Iterable[Metric]:
        return (self._metric,)


class Metrics:
    """Answers `/metrics`; owns the registry, so that several relays can live in one process."""

    def __init__(self, collector: RelayCollector) -> None:
        self._collector = collector
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(collector)
        for process in (ProcessCollector, PlatformCollector, GCCollector):
            process(registry=self._registry)

    async def answer(self, request: web.Request) -> web.Response:
        """The metrics as text, or as OpenMetrics for who accepts that; metric by metric, updates go on meanwhile."""
        write: Callable[[Collector], bytes] = generate_latest
        content_type, end = CONTENT_TYPE_PLAIN_0_0_4, b""
        if "application/openmetrics-text" in request.headers.get("Accept", "").lower():
            write, content_type, end = openmetrics.generate_latest, openmetrics.CONTENT_TYPE_LATEST, OPENMETRICS_END
        await self._collector.look()
        context = []
        for metric in self._registry.collect():
            context.append(write(_One(metric)).removesuffix(end))
            await asyncio.sleep(0)
        return web.Response(body=b"".join([*context, end]), headers={"Content-Type": content_type})


METRICS = web.AppKey("metrics", Metrics)


async def _metrics(request: web.Request) -> web.Response:
    return await request.app[METRICS].answer(request)


ROUTES = [web.get("/metrics", _metrics)]


def _buckets(histogram: Histogram) -> tuple[list[tuple[str, float]], float]:
    """Return the counts up to each bound, and the sum, as the official client wants them."""
    count = 0
    buckets = []
    for bound, more in zip([*map(str, histogram.bounds), "+Inf"], histogram.counts, strict=True):
        count += more
        buckets.append((bound, float(count)))
    return buckets, histogram.total


def _histogram(
    name: str, help_: str, labels: Iterable[str], histograms: dict[tuple[str, ...], Histogram]
) -> HistogramMetricFamily:
    family = HistogramMetricFamily(name, help_, labels=list(labels))
    for values, histogram in histograms.items():
        family.add_metric(list(values), *_buckets(histogram))
    return family
