"""How much of each provider's limits a relay spends: all, or its part while others spend of them by themselves."""

import logging
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from relay.cluster.peers import MOST_PEERS, Peers
from relay.cluster.provider_share import ProviderShare
from relay.core.saved_value import Memory
from relay.telemetry.events import event

log = logging.getLogger(__name__)

STEADY_S = 10.0
"""Relays that are not seen for so long, while others could be, are no longer counted."""


class BudgetShares:
    """Knows how many relays could carry each provider when they saw each other last, also by an earlier run.

    `parts` are those of which this relay spends one now, by provider: only of those whose plugin can be told so.
    """

    def __init__(
        self,
        shares: Mapping[str, ProviderShare],
        peers: Peers,
        start: Callable[[Coroutine[Any, Any, Any], str], None],
    ) -> None:
        self.parts: dict[str, int] = {}
        self._shares = shares
        self._peers = peers
        self._start = start
        self._memory = Memory()
        self._seen: dict[str, int] = {}
        self._fewer_since: dict[str, float] = {}

    def recall(self, memory: Memory) -> None:
        """Take the place for how many there were, and what an earlier run left there."""
        self._memory = memory
        found = memory.value if isinstance(memory.value, dict) else {}
        self._seen = {
            name: count
            for name, count in found.items()
            if name in self._shares and type(count) is int and 1 < count <= MOST_PEERS
        }

    def look(self, now: float, *, is_alone: bool) -> None:
        """See who spends now. Call it a few times a second."""
        if is_alone:
            self._fewer_since.clear()
            self._divide(self._seen)
            return
        self._count(now)
        self._divide({name: self._groups(share, now) for name, share in self._shares.items()})

    def _groups(self, share: ProviderShare, now: float) -> int:
        """Return how many owners a provider has: relays that are set to something else have one of their own."""
        name = share.provider.name
        able = [one for beat in self._peers.alive(now) for one in beat.able if one.provider == name]
        return len({share.shards.kind, *((one.parts, one.terms) for one in able)})

    def _count(self, now: float) -> None:
        before = dict(self._seen)
        for name, share in self._shares.items():
            if not share.provider.shares:
                continue
            count = 1 + sum(any(one.provider == name for one in beat.able) for beat in self._peers.alive(now))
            if count >= self._seen.get(name, 1):
                self._fewer_since.pop(name, None)
            elif now - self._fewer_since.setdefault(name, now) < STEADY_S:
                continue
            self._seen[name] = count
        if self._seen != before:
            self._start(self._memory.save(dict(self._seen)), "number of relays")

    def _divide(self, seen: Mapping[str, int]) -> None:
        for name, share in self._shares.items():
            parts = seen.get(name, 1)
            if parts == self.parts.get(name, 1):
                continue
            share.provider.share(parts)
            if parts == 1:
                del self.parts[name]
                continue
            self.parts[name] = parts
            log.info(
                "one of %d parts of the limits of %s is spent here: others spend of them, too",
                parts,
                name,
                extra=event("budget_divided", provider=name, parts=parts),
            )
