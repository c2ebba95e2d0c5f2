"""One kind of wait that providers ask for, of requests or of new connections: told to the other relays, and heard."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Protocol

from relay.cluster.bus import Bus
from relay.cluster.heard_waits import HeardWaits
from relay.cluster.peers import Peers
from relay.cluster.provider_share import ProviderShare
from relay.cluster.wire.bus_messages import read_wait, wait_body
from relay.core.clock import Clock
from relay.plugins.provider import Provider


class ProviderWaits(Protocol):
    """What a provider keeps of one kind of wait."""

    on_told: Callable[[float], None] | None

    def told_s(self) -> float:
        """Return for how long the provider itself asked to wait still, 0 if it did not."""

    def hear(self, seconds: float, why: str) -> None:
        """Take that there is to be a wait of so long, because of what somebody else was told by the provider."""


class SharedWaits:
    """Tells the waits of one kind of all providers, those that `waits_of` returns, and believes those of others.

    Each kind has a subject of its own: a relay of a version without it does not hear it.
    """

    def __init__(
        self,
        me: str,
        bus: Bus,
        subject: str,
        peers: Peers,
        clock: Clock,
        shares: Mapping[str, ProviderShare],
        waits_of: Callable[[Provider], ProviderWaits],
    ) -> None:
        self.subject = subject
        self._me = me
        self._bus = bus
        self._peers = peers
        self._clock = clock
        self._shares = shares
        self._waits_of = waits_of
        self._heard: dict[str, HeardWaits] = {}

    def follow(self, share: ProviderShare) -> None:
        """Tell from now on what this provider asks for."""
        self._heard[share.provider.name] = HeardWaits(self._clock.monotonic())
        self._waits_of(share.provider).on_told = partial(self._tell, share)

    def _tell(self, share: ProviderShare, seconds: float) -> None:
        self._bus.send(self.subject, wait_body(self._me, share.shards.first.shard, seconds))

    def tell_again(self) -> None:
        """Tell what is left of each wait, to who did not hear of it."""
        for share in self._shares.values():
            if (left_s := self._waits_of(share.provider).told_s()) > 0:
                self._tell(share, left_s)

    def hear(self, body: bytes) -> bool:
        """Take what another relay was told; return whether it is understood."""
        heard = read_wait(body)
        if heard is None:
            return False
        id_, shard, seconds = heard
        share, now = self._shares.get(shard.provider), self._clock.monotonic()
        beat = self._peers.said(id_, now)
        # Who is set to something else may have another account.
        if share is None or beat is None or shard != share.shards.first.shard or shard not in beat.able:
            return True
        provider = share.provider
        if (wait_s := self._heard[provider.name].hear(seconds, now)) > 0:
            self._waits_of(provider).hear(wait_s, f"{provider.info.title} asked another relay to wait")
        return True
