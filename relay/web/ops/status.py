"""What the relay says about itself: the document that `GET …/status` answers, the status page and the CLI show."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from itertools import chain, islice
from pathlib import PurePath
from typing import Any, Protocol

from relay.core.errors import StoreError
from relay.core.model import Budget
from relay.core.version import VERSION
from relay.history.identity_checks import IdentityChecks
from relay.history.service import SOURCES, HistoryService
from relay.instruments.directory import Directory
from relay.plugins.arrivals import PluginFailure
from relay.plugins.provider import Provider
from relay.storage.store import Store
from relay.streams.hub import Hub
from relay.streams.subscriptions import Stream
from relay.supervision.supervisor import Supervisor
from relay.telemetry.histogram import Histogram
from relay.telemetry.loop_monitor import LoopMonitor
from relay.web.access.access import Access
from relay.web.facade_counts import FacadeCounts
from relay.web.stream_totals import StreamTotals, take_tallies
from relay.web.ws.connection import Connection
from relay.web.ws.route import Clients

CLIENTS_SHOWN = 50
STREAMS_AT_A_TIME = 200
_MOST_ORIGINS = 1000
PROVIDER_STATES = ("ok", "degraded", "unavailable")


class ClusterState(Protocol):
    """One relay among several."""

    @property
    def is_alone(self) -> bool:
        """Whether it serves without the others."""
        ...

    def document(self) -> dict[str, Any]:
        """Return what it knows of itself and the others as JSON values."""
        ...


class StatusReport:
    """Reads the parts' own counters when it is asked; nothing is kept here."""

    def __init__(
        self,
        *,
        hub: Hub,
        clients: Clients,
        history: HistoryService,
        loop_monitor: LoopMonitor,
        directory: Directory,
        store: Store,
        identity_checks: IdentityChecks,
        access: Access,
        supervisors: dict[str, Supervisor],
        refused: Sequence[PluginFailure],
        epoch: str,
        facades: Mapping[str, FacadeCounts],
        upstream: Mapping[str, Supervisor],
        cluster: ClusterState | None = None,
    ) -> None:
        self._hub = hub
        self._clients = clients
        self._history = history
        self._loop_monitor = loop_monitor
        self._directory = directory
        self._store = store
        self._identity_checks = identity_checks
        self._access = access
        self._supervisors = supervisors
        self._refused = refused
        self._epoch = epoch
        self._facades = facades
        # Who has the connections to the providers: another than the supervisors where relays share them.
        self._upstream = upstream
        self._cluster = cluster
        self._started = time.monotonic()

    async def document(self) -> dict[str, Any]:
        """Return what the relay is doing, and how well, as JSON values."""
        summary: dict[str, Any]
        try:
            summary = (await self._store.streams_summary())._asdict()
        except StoreError:
            summary = {}
        hub, fanout = self._hub, self._hub.fanout
        stream_totals = await take_tallies(hub, self._supervisors)
        wall, now = time.time(), time.monotonic()
        return {
            "version": VERSION,
            "epoch": self._epoch,
            "origins": self._origins(),
            "server_time": wall,
            "uptime_s": round(now - self._started, 1),
            "clients": {
                "connected": self._access.clients,
                "subscribers": len(hub.subscribers),
                "lagging": fanout.lagging,
                "subscriptions": sum(one.subscriptions for one in stream_totals.values()),
                "opened": self._clients.opened,
                "event_streams": self._clients.event_streams,
                **self._access.clients_by_token(),
                "requests": dict(self._clients.requests),
                "closes": [
                    {"by": by, "code": code, "count": count} for (by, code), count in self._clients.closes.items()
                ],
                "newest": self._newest_clients(now),
            },
            "traffic": {
                "updates_in": hub.updates_in,
                "frames_out": fanout.frames_out,
                "writes_out": fanout.writes_out,
                "bytes_out": fanout.bytes_out,
                "write_delay_ms": _spread_ms(fanout.write_delay),
                "loop_lag_ms": _spread_ms(self._loop_monitor.lateness),
                "loop_lag_longest_ms": round(self._loop_monitor.longest_recent_s * 1000, 1),
            },
            "history": {source: self._history.served[source] for source in SOURCES},
            "store": {
                **summary,
                "problem": self._store.problem,
                "replacements": self._store.replacements,
                "set_aside": self._identity_checks.told(),
            },
            "plugins_refused": [{"source": _base_name(failure.source)} for failure in self._refused],
            "providers": [self._provider(one, stream_totals[name]) for name, one in self._supervisors.items()],
            "connections": sum(supervisor.open_feeds for supervisor in self._upstream.values()),
            "budgets": [
                {"provider": name, **_budget(budget, wall)}
                for name, supervisor in self._supervisors.items()
                for budget in supervisor.provider.budgets()
            ],
            "streams": await self._streams(wall - now),
            "facades": [_facade(name, counts) for name, counts in self._facades.items()],
            **({} if self._cluster is None else {"cluster": self._cluster.document()}),
        }

    def _origins(self) -> list[str]:
        marks = [mark for supervisor in self._supervisors.values() for mark in supervisor.provider.origins()]
        return list(dict.fromkeys(marks))[:_MOST_ORIGINS]

    async def _streams(self, wall_offset: float) -> list[dict[str, Any]]:
        """Return all streams, in slices: updates go on meanwhile."""
        told: list[dict[str, Any]] = []
        built: dict[Stream, list[str]] = {}
        for stream in self._hub.streams.values():
            if stream.base is not None:
                built.setdefault(stream.base, []).append(f"candles of {stream.key.interval}")
        for place, stream in enumerate([*self._hub.streams.values()], 1):
            session = self._supervisors[stream.provider].provider.hours.session_text(stream.key.symbol)
            kept_by = [*_kept_by(stream), *built.get(stream, ())]
            row = _stream(stream, wall_offset) | {"kept_by": kept_by, "session": session}
            told.append(row | self._planned(stream, wall_offset))
            if place % STREAMS_AT_A_TIME == 0:
                await asyncio.sleep(0)
        return told

    def _newest_clients(self, now: float) -> list[dict[str, Any]]:
        """Return those who lag, then those who came last; some of them, since there may be thousands."""
        lagging = (
            [one for one in self._clients.connections if one.subscriber.outbox.is_lagging]
            if self._hub.fanout.lagging
            else []
        )
        chosen = dict.fromkeys(islice(chain(lagging, reversed(self._clients.connections)), CLIENTS_SHOWN * 2))
        return [_client(one, now) for one in islice(chosen, CLIENTS_SHOWN)]

    def _planned(self, stream: Stream, wall_offset: float) -> dict[str, Any]:
        """Say when a stream that is polled is asked for next, and how often; null where prices come by themselves."""
        planned = self._supervisors[stream.provider].planned(stream.key)
        if planned is None:
            return {"next_poll": None, "poll_every_s": None}
        every_s = planned.every_s
        return {
            "next_poll": round(wall_offset + planned.at, 1),
            "poll_every_s": None if every_s is None else round(every_s, 1),
        }

    def _provider(self, supervisor: Supervisor, totals: StreamTotals) -> dict[str, Any]:
        provider = supervisor.provider
        upstream = self._upstream[provider.name]
        state, trouble = provider_state(provider, self._directory)
        counts = totals.counts
        wait = provider.requests_wait()
        return {
            "name": provider.name,
            "uses": provider.loaded.uses or None,
            "title": provider.info.title,
            "source": _base_name(provider.source),
            "state": state,
            "message": trouble,
            "wait_s": None if wait is None else round(wait.left_s, 1),
            "wait_reason": "" if wait is None else wait.why,
            "intervals": list(provider.info.intervals),
            "connections": upstream.open_feeds,
            "connects": upstream.attempts.connects,
            "streams": totals.streams,
            "updates_in": supervisor.counters.updates,
            "updates_out": counts["told"],
            "conflated": counts["conflated"],
            "gaps": counts["gaps"],
            "backfilled": counts["backfilled"],
            "revised": counts["revised"],
            "compared": self._history.calls.compared[provider.name],
            "differed": self._history.calls.differed[provider.name],
            "past_changes": supervisor.past_changes.count,
            "lag_spread_ms": _spread_ms(supervisor.counters.lag),
            "reconnects": dict(upstream.attempts.sentences),
            "backfills": supervisor.backfill.fetched,
            "longest_recovery_s": round(supervisor.backfill.longest_s, 3),
            "instruments": self._directory.known_of(provider.name),
            "instruments_complete": provider.lists_instruments and not provider.looks_up_instruments,
            "messages_skipped": supervisor.counters.skipped,
            "hooks_failed": provider.failures.failed,
            "tasks_killed": provider.killed,
            "blocked_loop": provider.blocks.told(),
        }


def provider_state(provider: Provider, directory: Directory) -> tuple[str, str]:
    """Return one of `PROVIDER_STATES`, and why."""
    if provider.refusal:
        return "unavailable", provider.refusal
    trouble = directory.problem(provider.name)
    return ("degraded", trouble) if trouble else ("ok", "")


def _budget(budget: Budget, wall: float) -> dict[str, Any]:
    return {
        **budget._asdict(),
        "left": max(0, budget.limit - budget.used),
        "resets_in_s": round(max(0.0, budget.resets_at - wall), 1),
    }


def _facade(name: str, counts: FacadeCounts) -> dict[str, Any]:
    return {
        "name": name,
        "title": counts.title,
        "requests": dict(counts.answered),
        "upstream_calls": counts.calls,
        "upstream_weight": counts.weight,
        "weight_asked": counts.weight_asked,
        "weight_saved": counts.weight_saved,
        "live_series": counts.live_series,
    }


def _client(connection: Connection, now: float) -> dict[str, Any]:
    subscriber = connection.subscriber
    return {
        "id": subscriber.id,
        "over": connection.over,
        "age_s": round(now - connection.opened_at, 1),
        "streams": len(subscriber.subscriptions),
        "lagging": subscriber.outbox.is_lagging,
        "waiting_bytes": subscriber.outbox.waiting_bytes,
        "conflated": subscriber.outbox.conflated,
    }


def _spread_ms(histogram: Histogram) -> dict[str, float] | None:
    """Return the middle and the worst hundredth of all so far, None if there were none."""
    middle, worst = histogram.quantile(0.5), histogram.quantile(0.99)
    if middle is None or worst is None:
        return None
    return {"p50": round(middle * 1000, 2), "p99": round(worst * 1000, 2)}


def _stream(stream: Stream, wall_offset: float) -> dict[str, Any]:
    updated_at, lag_ms = stream.updated_at, stream.lag_ms
    return {
        "symbol": stream.name,
        "interval": stream.key.interval,
        "built_from": None if stream.base is None else stream.base.key.interval,
        "provider": stream.provider,
        "status": stream.status,
        "message": stream.message,
        "subscribers": stream.subscriber_count,
        "last_update": None if updated_at is None else round(wall_offset + updated_at, 3),
        "lag_ms": None if lag_ms is None else round(lag_ms, 1),
        "seq": stream.seq,
        "conflated": stream.conflated,
        "gaps": stream.gap_count,
        "open_gaps": [list(gap) for gap in stream.series.gaps.left],
        "reconnects": stream.reconnects,
        "backfilled": stream.series.backfilled,
        "revised": stream.series.revised,
        "duplicates": stream.series.duplicates,
        "late": stream.series.late,
        "events": [{"time": round(at, 3), "event": event} for at, event in stream.events],
    }


def _kept_by(stream: Stream) -> dict[str, None]:
    """Return what keeps a stream, apart from subscribers: programs that poll it, and clients that wait for its past."""
    return dict.fromkeys(
        f"polls of {one.polled_by}" if one.polled_by else "a client that waits for its past"
        for one in stream.attachments
    )


def _base_name(source: str) -> str:
    """Return where a plugin came from without the path of its file; the reason of a failure may name one too."""
    door, colon, name = source.partition(":")
    return f"{door}{colon}{PurePath(name).name}"
