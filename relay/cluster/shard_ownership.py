"""Who owns the shards of one provider, as one relay sees it, and whose word it takes about their streams."""

import math
from collections import Counter
from typing import NamedTuple

from relay.cluster.duty import Duty, duty
from relay.cluster.lease import LeaseView
from relay.cluster.peers import Peers
from relay.cluster.shards import Shard
from relay.cluster.share_upstream import OPENING_S, ShareUpstream
from relay.cluster.shared_shard import SharedShard, SharedShards
from relay.cluster.wire.bus_messages import ClaimTold
from relay.core.clock import Clock
from relay.plugins.provider import Provider

UNREACHED_S = 15.0
"""An owner whose streams are all lost for so long lets another relay try."""
UNABLE_S = 60.0
HERE = ""
"""The source of a shard that this relay carries itself."""


class Sourcing(NamedTuple):
    """Whose word counts about the states of a shard from now on, by id; None while nobody has it.

    `is_lost`: its streams are without prices until somebody has.
    """

    source: str | None
    is_lost: bool


class ShardOwnership:
    """Follows leases and claims. With `may_overlap` False the provider has a budget that belongs to a key: no two
    relays carry its streams at once, as far as that can be known.
    """

    def __init__(
        self, provider: Provider, me: str, peers: Peers, clock: Clock, shards: SharedShards, upstream: ShareUpstream
    ) -> None:
        self.may_overlap = may_overlap(provider)
        self.handovers: Counter[str] = Counter()
        self._provider = provider
        self._me = me
        self._peers = peers
        self._clock = clock
        self._shards = shards
        self._upstream = upstream
        self._is_alone = False
        # When the provider wanted no connection last.
        self._waited_at = -math.inf

    # -- leases ----------------------------------------------------------------------------------------

    @property
    def can_serve(self) -> bool:
        """Whether this relay could carry streams: not without the provider's key."""
        return not self._provider.lacks_key

    def is_able(self, shared: SharedShard, now: float) -> bool:
        """Say whether this relay could own a shard: not while it reaches nothing of it upstream."""
        return self.can_serve and now >= shared.unable_until

    def able(self, now: float) -> list[Shard]:
        """Return the shards that this relay could own."""
        return [shared.shard for shared in self._shards if self.is_able(shared, now)]

    def should_yield(self, shared: SharedShard, now: float) -> bool:
        """Say whether an owner reaches nothing upstream, and another relay may; it does not own the shard for a while.

        Call it a few times a second.
        """
        if not self._upstream.is_dead(shared):
            shared.reached_at = now
        if now - max(shared.reached_at, shared.taken_at) < UNREACHED_S:
            return False
        if not any(shared.shard in beat.able for beat in self._peers.alive(now)):
            return False
        shared.unable_until = now + UNABLE_S
        return True

    def view(self, shared: SharedShard, now: float) -> LeaseView:
        """Return what is seen of a shard of which others are to be told, or asked."""
        claims = self._peers.claims(shared.shard, now)
        favourite = self._peers.favourite(shared.shard, self._me, is_able=self.is_able(shared, now), now=now)
        held = [beat.id for beat in claims if beat.claims[shared.shard].is_held]
        return LeaseView(held[0] if held else None, favourite)

    def hold(self, shared: SharedShard, revision: int, asked_at: float) -> None:
        """Take note that the lease of a shard was written."""
        is_new = shared.lease.revision is None
        shared.lease.hold(revision, asked_at)
        shared.revision = revision
        if is_new:
            shared.taken_at = self._clock.monotonic()
            self.handovers["taken"] += 1

    def claims(self, now: float) -> dict[Shard, ClaimTold]:
        """Return the shards that this relay carries for all."""
        return {
            shared.shard: ClaimTold(shared.revision, self._is_live(shared, now), shared.lease.is_held(now))
            for shared in self._shards
            if shared.duty is Duty.ALL
        }

    def _is_live(self, shared: SharedShard, now: float) -> bool:
        """Say whether the relay that had a shard before may let go of it, and this one is to be believed about it.

        While the provider wants no connection, and just after that, the relay that has an open one keeps the shard,
        though streams may lack another one: the owner could not take its place.
        """
        if not self._upstream.is_live(shared, now):
            return False
        if self._upstream.is_fed(shared) or now - self._waited_at >= OPENING_S:
            return True
        if not shared.lease.is_held(now):
            return self._upstream.is_partly_fed(shared)
        return not any(beat.claims[shared.shard].is_live for beat in self._peers.claims(shared.shard, now))

    # -- duties ----------------------------------------------------------------------------------------

    def look(self, now: float, *, is_alone: bool) -> bool:
        """See what falls to this relay now; say whether that is other than before."""
        self._is_alone = is_alone
        if self._provider.feeds_wait() is not None:
            self._waited_at = now
        is_changed = False
        for shared in self._shards:
            others = self._peers.claims(shared.shard, now)
            before = shared.duty
            shared.duty = duty(
                before,
                is_held=shared.lease.is_held(now),
                is_alone=is_alone,
                is_live_elsewhere=any(beat.claims[shared.shard].is_live for beat in others),
                may_overlap=self.may_overlap,
                can_serve=self.can_serve,
            )
            if shared.duty is not before:
                is_changed = True
                if before is Duty.NONE:
                    shared.taken_at = now
        return is_changed

    def find_source(self, shared: SharedShard, now: float) -> Sourcing | None:
        """Decide whose word counts about the state of a shard's streams; None if it is who it was."""
        others = self._peers.claims(shared.shard, now)
        live = [beat.id for beat in others if beat.claims[shared.shard].is_live]
        is_live = self._is_live(shared, now)
        if shared.duty is not Duty.NONE and (is_live or not live):
            source: str | None = HERE
        elif live:
            # Whoever it was before stays it, unless the one with the newest lease is live.
            source = live[0]
        else:
            source = others[0].id if others else None
        before, shared.source = shared.source, source
        if source is None:
            if shared.unowned_since is None:
                shared.unowned_since = now
        else:
            shared.unowned_since = None
        if len(live) + (shared.duty is Duty.ALL and is_live) <= 1:
            shared.contested_since = None
        elif shared.contested_since is None:
            shared.contested_since = now
        if source == before:
            return None
        is_gone = before not in (None, HERE) and not any(beat.id == before for beat in others)
        return Sourcing(source, is_gone or source is None)

    def owner(self, shared: SharedShard) -> str | None:
        """Return who is to be asked about the past of a shard's streams, by id; None while nobody is known."""
        if shared.duty is not Duty.NONE or self._is_alone or self._upstream.carrier is None:
            return HERE
        claims = self._peers.claims(shared.shard, self._clock.monotonic())
        return claims[0].id if claims else None


def may_overlap(provider: Provider) -> bool:
    """Say whether two relays may carry streams of a provider at once: it has no budget that belongs to a key."""
    return not (provider.remembers or provider.info.needs_key)
