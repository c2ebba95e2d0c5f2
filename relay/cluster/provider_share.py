"""One provider shared among relays: what this relay wants and carries of it, and from whom the rest comes."""

import asyncio
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from functools import partial

from relay.cluster.bus import Bus
from relay.cluster.bus_messages import ClaimTold, Item, PlanTold, StateTold, Wish, news_body, read_news, wish_bodies
from relay.cluster.carrier import Carrier
from relay.cluster.duty import Duty, duty
from relay.cluster.lease import LEASE_TIMING, LeaseTiming, LeaseView
from relay.cluster.parts import bodies_within
from relay.cluster.peers import Peers
from relay.cluster.remote_history import RemoteHistory
from relay.cluster.shards import Shard, shard_number
from relay.cluster.shared_feed import SharedFeed
from relay.cluster.shared_shard import BusCounts, SharedShard, Subjects
from relay.cluster.wishes import Wishes
from relay.core.clock import Clock
from relay.core.errors import ProviderTimeout, ProviderUnavailable
from relay.core.model import Candle, Instrument, PriceUpdate, StreamKey
from relay.plugins.provider import Provider
from relay.protocol.symbol_names import is_symbol

OPENING_S = 8.0
"""An owner calls itself live after this, whatever its streams are: the provider may have no prices."""
LOOKED_S = 1.0
"""A relay that was not looking for so long was paused: what it has to tell is not of now."""
UNREACHED_S = 15.0
"""An owner whose streams are all lost for so long lets another relay try."""
UNABLE_S = 60.0
MOST_A_MESSAGE = 2_000
"""Updates of one message, if it has room for them."""
PLANS_EVERY_S = 0.5
STATES_EVERY_S = 10.0
HERE = ""
"""The source of a shard that this relay carries itself."""


class ProviderShare:
    """Gives the feeds of this relay what they want of one provider, and other relays what they want of this one.

    With `may_overlap` False the provider has a budget that belongs to a key: no two relays carry its streams at once,
    as far as that can be known. Call `start` before anything is wanted, and `look` a few times a second.
    """

    def __init__(
        self,
        provider: Provider,
        me: str,
        bus: Bus,
        peers: Peers,
        remote: RemoteHistory,
        subjects: Subjects,
        clock: Clock,
        *,
        count: int,
        timing: LeaseTiming = LEASE_TIMING,
    ) -> None:
        self.provider = provider
        self.may_overlap = not (provider.remembers or provider.info.needs_key)
        self.counts = BusCounts()
        self.handovers: Counter[str] = Counter()
        count = count if self.may_overlap else 1
        self.shards = [SharedShard(Shard(provider.name, count, number), me, timing) for number in range(count)]
        self.wishes = Wishes()
        self._me = me
        self._bus = bus
        self._peers = peers
        self._remote = remote
        self._subjects = subjects
        self._clock = clock
        self._carrier: Carrier | None = None
        self._feeds: dict[SharedFeed, set[StreamKey]] = {}
        self._own: Counter[StreamKey] = Counter()
        self._looked_at = clock.monotonic()
        self._plans_at = self._states_at = 0.0
        self._is_alone = False
        self._seen = -1
        self._flush: asyncio.Handle | None = None

    def start(self, carrier: Callable[[Callable[[StreamKey, Item], None]], Carrier]) -> None:
        """Begin with what carries streams upstream."""
        self._carrier = carrier(self._take_own)

    @property
    def carrier(self) -> Carrier | None:
        """What carries streams upstream; None before the start."""
        return self._carrier

    @property
    def own_keys(self) -> Collection[StreamKey]:
        """What the feeds of this relay want."""
        return self._own.keys()

    def _shard_of(self, key: StreamKey) -> SharedShard:
        return self.shards[shard_number(key, len(self.shards))]

    def _of(self, shared: SharedShard, keys: Iterable[StreamKey]) -> list[StreamKey]:
        if len(self.shards) == 1:
            return [*keys]
        return [key for key in keys if shard_number(key, len(self.shards)) == shared.shard.number]

    @property
    def can_serve(self) -> bool:
        """Whether this relay could carry streams: not without the provider's key."""
        return not self.provider.lacks_key

    def is_able(self, shared: SharedShard, now: float) -> bool:
        """Say whether this relay could own a shard: not while it reaches nothing of it upstream."""
        return self.can_serve and now >= shared.unable_until

    def able(self, now: float) -> list[Shard]:
        """Return the shards that this relay could own."""
        return [shared.shard for shared in self.shards if self.is_able(shared, now)]

    def should_yield(self, shared: SharedShard, now: float) -> bool:
        """Say whether an owner reaches nothing upstream, and another relay may; it does not own the shard for a while.

        Call it a few times a second.
        """
        keys = self._wanted_of(shared)
        if self._carrier is None or not self._carrier.is_dead(keys):
            shared.reached_at = now
        if now - max(shared.reached_at, shared.taken_at) < UNREACHED_S:
            return False
        if not any(shared.shard in beat.able for beat in self._peers.alive(now)):
            return False
        shared.unable_until = now + UNABLE_S
        return True

    # -- what the feeds of this relay want -----------------------------------------------------------

    def begin(self, feed: SharedFeed) -> None:
        """Give a feed what it wants, from now on."""
        self._feeds[feed] = set()

    def want(self, feed: SharedFeed, keys: Collection[StreamKey]) -> None:
        """Learn that a feed wants more streams; it lacks their state and their newest candle."""
        known = self._feeds[feed]
        self._own.update(key for key in keys if key not in known)
        known.update(keys)
        self._listen()
        self._carry()
        for shared in self.shards:
            mine = self._of(shared, keys)
            if mine:
                self._say_wishes(shared, mine, is_new=True)
                if shared.duty is not Duty.NONE and self._carrier is not None:
                    self._carrier.tell_again(mine, with_candle=True)

    def leave(self, feed: SharedFeed, keys: Collection[StreamKey]) -> None:
        """Learn that a feed wants streams no more."""
        gone = []
        known = self._feeds[feed]
        for key in known.intersection(keys):
            known.discard(key)
            self._own[key] -= 1
            if self._own[key] <= 0:
                del self._own[key]
                gone.append(key)
        for shared in self.shards:
            mine = self._of(shared, gone)
            if mine:
                self._say_wishes(shared, (), mine, is_new=False)
        self._listen()
        self._carry()

    def end(self, feed: SharedFeed) -> None:
        """Give a feed nothing more."""
        if feed in self._feeds:
            self.leave(feed, [*self._feeds[feed]])
            del self._feeds[feed]

    def _say_wishes(
        self, shared: SharedShard, wanted: Iterable[StreamKey], unwanted: Iterable[StreamKey] = (), *, is_new: bool
    ) -> None:
        most = self._bus.most_bytes
        for body in wish_bodies(self._me, shared.shard, wanted, unwanted, is_new=is_new, most_bytes=most):
            self._bus.send(self._subjects.wishes, body)

    def say_all_wishes(self, *, is_new: bool = False) -> None:
        """Tell the others again all that this relay wants."""
        for shared in self.shards:
            self._say_wishes(shared, self._of(shared, self._own), is_new=is_new)

    def _listen(self) -> None:
        """Hear the shards of which something is wanted, and no others."""
        for shared in self.shards:
            is_wanted = bool(self._of(shared, self._own))
            if is_wanted and shared.listening is None:
                subject = self._subjects.news(shared.shard)
                shared.listening = self._bus.listen(subject, partial(self._take_news, shared))
                shared.numbers.clear()
            elif not is_wanted and shared.listening is not None:
                shared.listening.end()
                shared.listening = None

    # -- what others want ------------------------------------------------------------------------------

    def hear_wish(self, wish: Wish, now: float) -> None:
        """Take what another relay wants."""
        number = wish.shard.number
        if wish.shard.parts != len(self.shards):
            return
        shared = self.shards[number]
        wanted, unwanted = self._of(shared, wish.wanted), self._of(shared, wish.unwanted)
        intervals = self.provider.info.intervals
        wanted = [key for key in wanted if key.interval in intervals and is_symbol(key.symbol)]
        self.wishes.hear(wish.id, wanted, unwanted, now)
        self._carry()
        if wish.is_new and shared.duty is Duty.ALL and self._carrier is not None:
            self._carrier.tell_again(wanted, with_candle=True)

    # -- what comes ------------------------------------------------------------------------------------

    def _take_own(self, key: StreamKey, item: Item) -> None:
        """Take what this relay's own upstream side tells."""
        shared = self._shard_of(key)
        if shared.source == HERE or not isinstance(item, StateTold | PlanTold):
            self._deliver(key, item)
        if shared.duty is Duty.ALL and key in self.wishes:
            shared.waiting.append((key, item))
            if self._flush is None:
                self._flush = asyncio.get_running_loop().call_soon(self._send)

    def share_news(self, updates: Iterable[PriceUpdate]) -> None:
        """Tell the others candles that turned out to be other ones later."""
        for update in updates:
            shared = self._shard_of(update.key)
            if shared.duty is Duty.ALL and update.key in self.wishes:
                shared.waiting.append((update.key, update))
        if self._flush is None:
            self._flush = asyncio.get_running_loop().call_soon(self._send)

    def _send(self) -> None:
        self._flush = None
        # After a pause it may be somebody else who has them by now, and these are old.
        is_awake = self._clock.monotonic() - self._looked_at < LOOKED_S
        for shared in self.shards:
            if not shared.waiting:
                continue
            items, shared.waiting = shared.waiting, []
            for at in range(0, len(items) if is_awake else 0, MOST_A_MESSAGE):
                self._send_news(shared, items[at : at + MOST_A_MESSAGE])

    def _send_news(self, shared: SharedShard, items: Sequence[tuple[StreamKey, Item]]) -> None:
        # Each body is written once the one before is sent, and so gets the next number.
        for body in bodies_within(items, lambda part: news_body(self._me, shared.told + 1, part), self._bus.most_bytes):
            shared.told += 1
            self.counts.sent += 1
            self._bus.send(self._subjects.news(shared.shard), body)

    def _take_news(self, shared: SharedShard, body: bytes) -> None:
        news = read_news(body)
        if news is None or not self._is_of(shared, [key for key, _ in news.items]):
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
        due = shared.numbers.get(sender)
        if due is not None and news.number > due:
            self.counts.lost += news.number - due
        shared.numbers[sender] = news.number + 1
        if len(shared.numbers) > 16:
            del shared.numbers[next(iter(shared.numbers))]
        for key, item in news.items:
            # States and plans are those of one owner; candles make sense whoever tells them.
            if not isinstance(item, StateTold | PlanTold) or shared.source == sender:
                self._deliver(key, item)

    def _is_of(self, shared: SharedShard, keys: Iterable[StreamKey]) -> bool:
        return all(shard_number(key, len(self.shards)) == shared.shard.number for key in keys)

    def _deliver(self, key: StreamKey, item: Item) -> None:
        for feed in self._feeds:
            feed.deliver(key, item)

    # -- what is carried -------------------------------------------------------------------------------

    def view(self, shared: SharedShard, now: float) -> LeaseView:
        """Return what is seen of a shard of which others are to be told, or asked."""
        claims = self._peers.claims(shared.shard, now)
        favourite = self._peers.favourite(shared.shard, self._me, is_able=self.is_able(shared, now), now=now)
        held = [beat.id for beat in claims if beat.claims[shared.shard].is_held]
        return LeaseView(held[0] if held else None, favourite)

    def claims(self, now: float) -> dict[Shard, ClaimTold]:
        """Return the shards that this relay carries for all."""
        return {
            shared.shard: ClaimTold(shared.revision, self._is_live(shared, now), shared.lease.is_held(now))
            for shared in self.shards
            if shared.duty is Duty.ALL
        }

    def _is_live(self, shared: SharedShard, now: float) -> bool:
        if shared.duty is Duty.NONE or self._carrier is None:
            return False
        keys = self._wanted_of(shared)
        return self._carrier.is_live(keys) or now - shared.taken_at >= OPENING_S

    def _wanted_of(self, shared: SharedShard) -> set[StreamKey]:
        own = self._of(shared, self._own)
        return {*own} if shared.duty is not Duty.ALL else {*own, *self._of(shared, self.wishes.keys)}

    def hold(self, shared: SharedShard, revision: int, asked_at: float) -> None:
        """Take note that the lease of a shard was written."""
        is_new = shared.lease.revision is None
        shared.lease.hold(revision, asked_at)
        shared.revision = revision
        if is_new:
            shared.taken_at = self._clock.monotonic()
            self.handovers["taken"] += 1

    def look(self, now: float, *, is_alone: bool) -> None:
        """See who carries what now, and do the own part of it."""
        self._is_alone = is_alone
        is_changed = False
        for shared in self.shards:
            others = self._peers.claims(shared.shard, now)
            live = [beat for beat in others if beat.claims[shared.shard].is_live]
            is_held = shared.lease.is_held(now)
            before = shared.duty
            shared.duty = duty(
                before,
                is_held=is_held,
                is_alone=is_alone,
                is_live_elsewhere=bool(live),
                may_overlap=self.may_overlap,
                can_serve=self.can_serve,
            )
            if shared.duty is not before:
                is_changed = True
                if before is Duty.NONE:
                    shared.taken_at = now
        if is_changed or self.wishes.version != self._seen:
            self._carry()
        for shared in self.shards:
            self._find_source(shared, now)
        if self._carrier is not None and now >= self._plans_at:
            self._plans_at = now + PLANS_EVERY_S
            self._carrier.tell_plans()
        if self._carrier is not None and now >= self._states_at:
            # A message that said that a stream is live may have been lost.
            self._states_at = now + STATES_EVERY_S
            self._carrier.tell_again([key for key in self._carrier.keys if key in self.wishes], with_candle=False)
        self._looked_at = now

    def _carry(self) -> None:
        """Carry upstream what is to be: nothing is opened twice, what is let go of lingers for a moment."""
        self._seen = self.wishes.version
        if self._carrier is None:
            return
        wanted: set[StreamKey] = set()
        for shared in self.shards:
            if shared.duty is not Duty.NONE:
                wanted |= self._wanted_of(shared)
        if wanted != self._carrier.keys:
            self._carrier.carry(wanted)

    def _find_source(self, shared: SharedShard, now: float) -> None:
        """Decide whose word counts about the state of a shard's streams, and say so when nobody has them."""
        others = self._peers.claims(shared.shard, now)
        live = [beat.id for beat in others if beat.claims[shared.shard].is_live]
        if shared.duty is not Duty.NONE and (self._is_live(shared, now) or not live):
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
        if len(others) + (shared.duty is Duty.ALL) <= 1:
            shared.contested_since = None
        elif shared.contested_since is None:
            shared.contested_since = now
        if source == before:
            return
        keys = self._of(shared, self._own)
        is_gone = before not in (None, HERE) and not any(beat.id == before for beat in others)
        if is_gone or source is None:
            lost = StateTold("reconnecting", "the relay that had this stream is gone; another one takes it")
            for key in keys:
                self._deliver(key, lost)
        if source == HERE:
            if self._carrier is not None:
                self._carrier.tell_again(keys, with_candle=False)
        elif source is not None and keys:
            self._say_wishes(shared, keys, is_new=True)

    # -- what is past ----------------------------------------------------------------------------------

    def _owner(self, shared: SharedShard) -> str | None:
        if shared.duty is not Duty.NONE or self._is_alone or self._carrier is None:
            return HERE
        claims = self._peers.claims(shared.shard, self._clock.monotonic())
        return claims[0].id if claims else None

    async def candles(self, key: StreamKey, start: int | None, end: int, limit: int) -> Sequence[Candle] | None:
        """Return history from the owner of a stream, None if that is this relay. Raises `ProviderError`."""
        shared = self._shard_of(key)
        return await self._remote.candles(self.provider, lambda: self._owner(shared), key, start, end, limit)

    async def instruments(self) -> Sequence[Instrument] | None:
        """Return what the owner knows that the provider lists; None if this relay is to ask the provider.

        Who has no budget that belongs to a key is asked by each relay for itself.
        """
        if self.may_overlap:
            return None
        try:
            return await self._remote.instruments(self.provider, lambda: self._owner(self.shards[0]))
        except (ProviderUnavailable, ProviderTimeout):
            return None

    async def let_go(self) -> None:
        """Return once another relay may carry what this one did."""
        if not self.may_overlap and self._carrier is not None:
            await self._carrier.be_idle()

    async def close(self) -> None:
        """End what is carried."""
        if self._flush is not None:
            self._flush.cancel()
        for shared in self.shards:
            if shared.listening is not None:
                shared.listening.end()
        if self._carrier is not None:
            await self._carrier.close()
