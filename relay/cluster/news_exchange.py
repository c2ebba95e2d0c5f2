"""A provider's updates on the bus: those that this relay carries go out, those of other owners come in."""

import asyncio
from collections.abc import Callable, Sequence
from functools import partial

from relay.cluster.bus import Bus
from relay.cluster.duty import Duty
from relay.cluster.peers import Peers
from relay.cluster.shared_shard import BusCounts, SharedShard, SharedShards, Subjects
from relay.cluster.wire.bus_messages import Item, PlanTold, StateTold, news_body, read_news
from relay.cluster.wire.parts import bodies_within
from relay.core.clock import Clock
from relay.core.model import StreamKey

LOOKED_S = 1.0
"""A relay that was not looking for so long was paused: what it has to tell is not of now."""
MOST_A_MESSAGE = 2_000
"""Updates of one message, if it has room for them."""
MOST_SENDERS = 16


class NewsExchange:
    """Sends, once a turn of the loop, what was queued, and gives `deliver` what owners tell; `counts` both."""

    def __init__(
        self,
        me: str,
        bus: Bus,
        peers: Peers,
        subjects: Subjects,
        clock: Clock,
        shards: SharedShards,
        deliver: Callable[[StreamKey, Item], None],
    ) -> None:
        self.counts = BusCounts()
        self.looked_at = clock.monotonic()
        """When this relay saw last who carries what."""
        self._me = me
        self._bus = bus
        self._peers = peers
        self._subjects = subjects
        self._clock = clock
        self._shards = shards
        self._deliver = deliver
        self._flush: asyncio.Handle | None = None

    def queue(self, key: StreamKey, item: Item) -> None:
        """Tell the others soon, if it is this relay that tells of that shard."""
        shared = self._shards.of(key)
        if shared.duty is Duty.ALL:
            shared.waiting.append((key, item))
            if self._flush is None:
                self._flush = asyncio.get_running_loop().call_soon(self._send_all)

    def _send_all(self) -> None:
        self._flush = None
        # After a pause it may be somebody else who has them by now, and these are old.
        is_awake = self._clock.monotonic() - self.looked_at < LOOKED_S
        for shared in self._shards:
            if shared.waiting:
                items, shared.waiting = shared.waiting, []
                for at in range(0, len(items) if is_awake else 0, MOST_A_MESSAGE):
                    self._send(shared, items[at : at + MOST_A_MESSAGE])

    def _send(self, shared: SharedShard, items: Sequence[tuple[StreamKey, Item]]) -> None:
        # Each body is written once the one before is sent, and so gets the next number.
        for body in bodies_within(items, lambda part: news_body(self._me, shared.told + 1, part), self._bus.most_bytes):
            shared.told += 1
            self.counts.sent += 1
            self._bus.send(self._subjects.news(shared.shard), body)

    def listen(self, shared: SharedShard, *, is_wanted: bool) -> None:
        """Hear a shard of which something is wanted, and no other."""
        if is_wanted and shared.listening is None:
            shared.listening = self._bus.listen(self._subjects.news(shared.shard), partial(self._take, shared))
            shared.numbers.clear()
        elif not is_wanted and shared.listening is not None:
            shared.listening.end()
            shared.listening = None

    def _take(self, shared: SharedShard, body: bytes) -> None:
        news = read_news(body)
        if news is None or any(self._shards.of(key) is not shared for key, _ in news.items):
            self.counts.nonsense += 1
            return
        sender = news.sender
        if sender == self._me:
            return
        now = self._clock.monotonic()
        if shared.source != sender and not any(beat.id == sender for beat in self._peers.claims(shared.shard, now)):
            self.counts.nonsense += 1
            return
        self.counts.received += 1
        self._count_lost(shared, sender, news.number)
        for key, item in news.items:
            # States and plans are those of one owner; candles make sense whoever tells them.
            if not isinstance(item, StateTold | PlanTold) or shared.source == sender:
                self._deliver(key, item)

    def _count_lost(self, shared: SharedShard, sender: str, number: int) -> None:
        due = shared.numbers.get(sender)
        if due is not None and number > due:
            self.counts.lost += number - due
        shared.numbers[sender] = number + 1
        if len(shared.numbers) > MOST_SENDERS:
            del shared.numbers[next(iter(shared.numbers))]

    def close(self) -> None:
        """Send and hear nothing more."""
        if self._flush is not None:
            self._flush.cancel()
        for shared in self._shards:
            self.listen(shared, is_wanted=False)
