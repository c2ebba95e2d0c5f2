"""What one relay keeps of each shard that it shares, and under which names relays tell each other of it."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from relay.cluster.bus import BusListener
from relay.cluster.duty import Duty
from relay.cluster.lease import Lease, LeaseTiming
from relay.cluster.shards import Shard, shard_number
from relay.cluster.wire.bus_messages import Item
from relay.core.model import StreamKey


class Subjects(NamedTuple):
    """The names of what relays tell each other, all below one prefix."""

    prefix: str

    @property
    def beats(self) -> str:
        return f"{self.prefix}.beat"

    @property
    def wishes(self) -> str:
        return f"{self.prefix}.want"

    @property
    def asks(self) -> str:
        return f"{self.prefix}.ask"

    @property
    def memories(self) -> str:
        return f"{self.prefix}.memory"

    @property
    def waits(self) -> str:
        return f"{self.prefix}.wait"

    @property
    def feed_waits(self) -> str:
        return f"{self.prefix}.feed_wait"

    def news(self, shard: Shard) -> str:
        return f"{self.prefix}.news.{shard}"

    def calls(self, id_: str) -> str:
        return f"{self.prefix}.call.{id_}"


class BusCounts:
    """What passed over the bus for one provider; `lost` are messages that should have come between others."""

    __slots__ = ("lost", "nonsense", "received", "sent")

    def __init__(self) -> None:
        self.sent = self.received = self.lost = self.nonsense = 0


class SharedShard:
    """What this relay knows of one shard, and does about it."""

    def __init__(self, shard: Shard, me: str, timing: LeaseTiming) -> None:
        self.shard = shard
        self.lease = Lease(me, timing)
        self.duty = Duty.NONE
        self.revision = 0
        """Of the lease it had last: what it claims while it waits for the next owner to be live."""
        self.taken_at = self.reached_at = 0.0
        self.unable_until = 0.0
        self.source: str | None = None
        self.unowned_since: float | None = None
        self.contested_since: float | None = None
        self.told = 0
        self.waiting: list[tuple[StreamKey, Item]] = []
        self.listening: BusListener | None = None
        self.numbers: dict[str, int] = {}
        """Of each sender the number of the message that is due."""


class SharedShards:
    """The shards of one provider in this relay, and which stream is in which."""

    def __init__(self, provider: str, count: int, terms: str, me: str, timing: LeaseTiming) -> None:
        self._all = [SharedShard(Shard(provider, count, number, terms), me, timing) for number in range(count)]

    def __iter__(self) -> Iterator[SharedShard]:
        return iter(self._all)

    def __len__(self) -> int:
        return len(self._all)

    @property
    def first(self) -> SharedShard:
        return self._all[0]

    @property
    def kind(self) -> tuple[int, str]:
        """How many there are and for which terms: relays with others have other shards."""
        return len(self._all), self.first.shard.terms

    def rename(self, terms: str) -> None:
        """Take it that they are shards of other terms now, with other relays. The leases of before are lost."""
        for shared in self._all:
            shared.shard = shared.shard._replace(terms=terms)
            shared.lease.lose()

    def get(self, shard: Shard) -> SharedShard | None:
        """Return what is kept of a shard; None if the relay that names it is set to other ones."""
        shared = self._all[shard.number] if shard.number < len(self._all) else None
        return shared if shared is not None and shared.shard == shard else None

    def of(self, key: StreamKey) -> SharedShard:
        """Return the shard of a stream."""
        return self._all[shard_number(key, len(self._all))]

    def keys_of(self, shared: SharedShard, keys: Iterable[StreamKey]) -> list[StreamKey]:
        """Return those of some streams that are in a shard."""
        if len(self._all) == 1:
            return [*keys]
        return [key for key in keys if self.of(key) is shared]
