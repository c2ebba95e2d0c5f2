"""What of one provider a relay carries upstream: for its own feeds, and for all relays where it is the owner."""

from collections.abc import Iterable

from relay.cluster.carrier import Carrier
from relay.cluster.duty import Duty
from relay.cluster.shared_shard import SharedShard, SharedShards
from relay.cluster.wants import Wants
from relay.cluster.wishes import Wishes
from relay.core.model import StreamKey

OPENING_S = 8.0
"""An owner calls itself live after this, whatever its streams are: the provider may have no prices."""
PLANS_EVERY_S = 0.5
STATES_EVERY_S = 10.0


class ShareUpstream:
    """Carries what duties, own wants and the wishes of others say; nothing before `start`."""

    def __init__(self, shards: SharedShards, wants: Wants, wishes: Wishes) -> None:
        self.carrier: Carrier | None = None
        self._shards = shards
        self._wants = wants
        self._wishes = wishes
        self._seen = -1
        self._plans_at = self._states_at = 0.0

    def start(self, carrier: Carrier) -> None:
        """Begin with what carries streams."""
        self.carrier = carrier

    def wanted_of(self, shared: SharedShard) -> set[StreamKey]:
        """Return the streams of a shard that fall to this relay, if any of the shard does."""
        own = self._shards.keys_of(shared, self._wants.keys)
        return {*own} if shared.duty is not Duty.ALL else {*own, *self._shards.keys_of(shared, self._wishes.keys)}

    def is_live(self, shared: SharedShard, now: float) -> bool:
        """Say whether this relay carries a shard, and has prices of it or waited long enough for some."""
        if shared.duty is Duty.NONE or self.carrier is None:
            return False
        return self.is_fed(shared) or now - shared.taken_at >= OPENING_S

    def is_fed(self, shared: SharedShard) -> bool:
        """Say whether this relay has prices of all that it carries of a shard."""
        return self.carrier is not None and self.carrier.is_live(self.wanted_of(shared))

    def is_partly_fed(self, shared: SharedShard) -> bool:
        """Say whether this relay has prices of some of what it carries of a shard."""
        return self.carrier is not None and self.carrier.has_live(self.wanted_of(shared))

    def is_dead(self, shared: SharedShard) -> bool:
        """Say whether streams of a shard are carried, and none of them reaches the provider."""
        return self.carrier is not None and self.carrier.is_dead(self.wanted_of(shared))

    def carry(self) -> None:
        """Carry what is to be: nothing is opened twice, what is let go of lingers for a moment."""
        self._seen = self._wishes.version
        if self.carrier is None:
            return
        wanted: set[StreamKey] = set()
        for shared in self._shards:
            if shared.duty is not Duty.NONE:
                wanted |= self.wanted_of(shared)
        if wanted != self.carrier.keys:
            self.carrier.carry(wanted)

    def tell_again(self, keys: Iterable[StreamKey], *, with_candle: bool) -> None:
        """Tell the state of streams once more, and their newest candle for who has none yet."""
        if self.carrier is not None:
            self.carrier.tell_again(keys, with_candle=with_candle)

    def look(self, *, is_changed: bool) -> None:
        """Carry other streams if duties changed or others want more or less."""
        if is_changed or self._wishes.version != self._seen:
            self.carry()

    def tell_due(self, now: float) -> None:
        """Tell now and then what may have been lost on the bus, and when polled streams are asked for next."""
        if self.carrier is None:
            return
        if now >= self._plans_at:
            self._plans_at = now + PLANS_EVERY_S
            self.carrier.tell_plans()
        if now >= self._states_at:
            # A message that said that a stream is live may have been lost.
            self._states_at = now + STATES_EVERY_S
            self.carrier.tell_again([key for key in self.carrier.keys if key in self._wishes], with_candle=False)
