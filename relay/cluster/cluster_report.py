"""What a relay says of itself among the others: the part `cluster` of its status."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from relay.cluster.bus import Bus
from relay.cluster.lease_keeper import LeaseKeeper
from relay.cluster.peers import Peers
from relay.cluster.provider_share import ProviderShare
from relay.cluster.remote_history import HistoryDesk, RemoteHistory
from relay.cluster.shards import Shard
from relay.cluster.shared_shard import SharedShard
from relay.cluster.wire.bus_messages import ClaimTold, Heartbeat

CONTESTED_S = 5.0
"""Two owners for so long are no hand-over."""


class Loneliness(NamedTuple):
    """Whether a relay is alone, how often it was, how many messages of others were invalid, and `parts`.

    Of so many equal parts of a provider's limits it spends one.
    """

    is_alone: bool
    times: int
    invalid: int
    parts: Mapping[str, int]


class ClusterReport:
    """Reads the parts' own counters when it is asked; nothing is kept here."""

    def __init__(
        self,
        id_: str,
        node: str,
        namespace: str,
        *,
        bus: Bus,
        peers: Peers,
        shares: dict[str, ProviderShare],
        remote: RemoteHistory,
        keeper: LeaseKeeper,
    ) -> None:
        self._id = id_
        self._node = node
        self._namespace = namespace
        self._bus = bus
        self._peers = peers
        self._shares = shares
        self._remote = remote
        self._keeper = keeper

    def document(self, now: float, state: Loneliness, desk: HistoryDesk | None) -> dict[str, Any]:
        """Return the state as JSON values, for `status`."""
        beats = sorted(self._peers.alive(now), key=lambda beat: beat.node)
        counts = [share.news.counts for share in self._shares.values()]
        why = self._keeper.fault or "it does not answer"
        middle, worst = self._keeper.round_trip.quantile(0.5), self._keeper.round_trip.quantile(0.99)
        return {
            "node": self._node,
            "namespace": self._namespace,
            "state": "alone" if state.is_alone else "joined",
            "message": _message(why, state) if state.is_alone else "",
            "budget_parts": dict(state.parts),
            "alone_count": state.times,
            "relays": [
                {"node": self._node, "id": self._id, "here": True, "shards": len(self._claimed(now)), "differs": []},
                *(
                    {"node": b.node, "id": b.id, "here": False, "shards": len(b.claims), "differs": self._differs(b)}
                    for b in beats
                ),
            ],
            "shards": [self._shard(share, shared, now) for share in self._shares.values() for shared in share.shards],
            "bus": {
                "connected": self._bus.is_connected,
                "round_trip_ms": None
                if middle is None or worst is None
                else {"p50": round(middle * 1000, 2), "p99": round(worst * 1000, 2)},
                "sent": sum(one.sent for one in counts),
                "received": sum(one.received for one in counts),
                "lost": sum(one.lost for one in counts) + self._bus.lost,
                "invalid": sum(one.nonsense for one in counts) + state.invalid,
            },
            "history_calls": {
                "asked": self._remote.asked,
                "failed": self._remote.failed,
                "answered": 0 if desk is None else desk.answered,
                "compared": sum(share.check.compared for share in self._shares.values()),
                "contradicted": sum(share.check.contradicted for share in self._shares.values()),
            },
        }

    def _differs(self, beat: Heartbeat) -> list[str]:
        """Return the providers of which a relay shares nothing with this one, because it is set to something else."""
        there = {(shard.provider, shard.parts, shard.terms) for shard in beat.able}
        return [
            name
            for name, share in self._shares.items()
            if any(found[0] == name and found[1:] != share.shards.kind for found in there)
        ]

    def _claimed(self, now: float) -> dict[Shard, ClaimTold]:
        return {shard: claim for share in self._shares.values() for shard, claim in share.ownership.claims(now).items()}

    def _shard(self, share: ProviderShare, shared: SharedShard, now: float) -> dict[str, Any]:
        owners = [beat.node for beat in self._peers.claims(shared.shard, now)]
        if shared.shard in share.ownership.claims(now):
            owners.insert(0, self._node)
        contested = shared.contested_since
        unowned = shared.unowned_since
        return {
            "shard": str(shared.shard),
            "provider": shared.shard.provider,
            "owner": owners[0] if owners else None,
            "owners": len(owners),
            "here": shared.duty.value,
            "contested": contested is not None and now - contested >= CONTESTED_S,
            "unowned_s": 0.0 if unowned is None else round(now - unowned, 1),
        }


def _message(why: str, state: Loneliness) -> str:
    text = f"NATS cannot be used, {why}: this relay serves its own clients alone"
    parts = ", ".join(f"1/{count} of {name}" for name, count in sorted(state.parts.items()))
    return f"{text}, and spends its part of the limits: {parts}" if parts else text
