"""Which other relays there are, by their heartbeats, and what they carry; pure, the time is passed in."""

from typing import NamedTuple

from relay.cluster.shards import Shard, favourite
from relay.cluster.wire.bus_messages import Heartbeat

BEAT_S = 0.4
CLAIM_S = 1.2
"""A relay that said nothing for so long may be gone: its shards may be taken, once its leases end."""
ALIVE_S = 2.0
MOST_PEERS = 256
"""More relays than anybody runs; what a stranger adds beyond that is not heard."""


class Peer(NamedTuple):
    """Another relay: what it said last, and when that came."""

    beat: Heartbeat
    heard_at: float


class Peers:
    """The other relays by their ids, which are those of a run."""

    def __init__(self) -> None:
        self._peers: dict[str, Peer] = {}

    def hear(self, beat: Heartbeat, now: float) -> bool:
        """Take a heartbeat; say whether it is of a relay that was not known."""
        if beat.is_leaving:
            self._peers.pop(beat.id, None)
            return False
        is_new = beat.id not in self._peers
        if is_new:
            self._peers = {one: peer for one, peer in self._peers.items() if now - peer.heard_at < ALIVE_S}
            if len(self._peers) >= MOST_PEERS:
                return False
        self._peers[beat.id] = Peer(beat, now)
        return is_new

    def alive(self, now: float) -> list[Heartbeat]:
        """Return what those said last that were heard a moment ago."""
        return [peer.beat for peer in self._peers.values() if now - peer.heard_at < ALIVE_S]

    def said(self, id_: str, now: float) -> Heartbeat | None:
        """Return what a relay said last that was heard a moment ago, None if it was not."""
        peer = self._peers.get(id_)
        return peer.beat if peer is not None and now - peer.heard_at < ALIVE_S else None

    def name_of(self, id_: str) -> str:
        """Return the name of a relay, its id if it is not known."""
        peer = self._peers.get(id_)
        return id_ if peer is None else peer.beat.node

    def claims(self, shard: Shard, now: float) -> list[Heartbeat]:
        """Return those that carry a shard for all, the one with the newest lease first."""
        found = [
            peer.beat
            for peer in self._peers.values()
            if shard in peer.beat.claims and now - peer.heard_at < CLAIM_S and not peer.beat.is_leaving
        ]
        return sorted(found, key=lambda beat: beat.claims[shard].revision, reverse=True)

    def favourite(self, shard: Shard, me: str, *, is_able: bool, now: float) -> str | None:
        """Return who is to have a shard of all that could, by id."""
        able = [beat.id for beat in self.alive(now) if shard in beat.able]
        return favourite(shard, [*able, me] if is_able else able)
