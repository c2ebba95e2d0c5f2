"""One provider shared among relays: what its parts do when something is wanted, told or seen."""

from collections.abc import Callable, Collection, Iterable, Sequence

from relay.cluster.bus import Bus
from relay.cluster.carrier import Carrier
from relay.cluster.duty import Duty
from relay.cluster.lease import LEASE_TIMING, LeaseTiming
from relay.cluster.news_exchange import NewsExchange
from relay.cluster.owner_check import CHECK_EVERY_S, OwnerCheck
from relay.cluster.peers import Peers
from relay.cluster.remote_history import RemoteHistory
from relay.cluster.shard_ownership import HERE, ShardOwnership, may_overlap
from relay.cluster.share_upstream import ShareUpstream
from relay.cluster.shared_feed import SharedFeed
from relay.cluster.shared_shard import SharedShard, SharedShards, Subjects
from relay.cluster.terms import terms_of
from relay.cluster.wants import Wants
from relay.cluster.wire.bus_messages import Item, PlanTold, StateTold, Wish, wish_bodies
from relay.cluster.wishes import Wishes
from relay.core.clock import Clock
from relay.core.errors import ProviderTimeout, ProviderUnavailable
from relay.core.model import Candle, Instrument, PriceUpdate, StreamKey
from relay.plugins.provider import Provider
from relay.protocol.symbol_names import is_symbol

_LOST = StateTold("reconnecting", "the relay that had this stream is gone; another one takes it")


class ProviderShare:
    """Gives the feeds of this relay what they want of one provider, and other relays what they want of this one.

    Call `start` before anything is wanted, and `look` a few times a second.
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
        check_every_s: float = CHECK_EVERY_S,
    ) -> None:
        self.provider = provider
        count = count if may_overlap(provider) else 1
        self.shards = SharedShards(provider.name, count, terms_of(provider), me, timing)
        self.wishes = Wishes()
        self.wants = Wants()
        self.upstream = ShareUpstream(self.shards, self.wants, self.wishes)
        self.ownership = ShardOwnership(provider, me, peers, clock, self.shards, self.upstream)
        self.news = NewsExchange(me, bus, peers, subjects, clock, self.shards, self.wants.deliver)
        self._me = me
        self._bus = bus
        self._remote = remote
        self._peers = peers
        self.check = OwnerCheck(provider.name, clock, check_every_s)
        self._subjects = subjects

    def start(self, carrier: Callable[[Callable[[StreamKey, Item], None]], Carrier]) -> None:
        """Begin with what carries streams upstream."""
        self.upstream.start(carrier(self._take_own))

    def follow_settings(self) -> bool:
        """Share with other relays, if the present settings are not those of before; say whether that is so."""
        terms = terms_of(self.provider)
        if terms == self.shards.kind[1]:
            return False
        self.news.close()
        self.shards.rename(terms)
        self._listen()
        self.say_all_wishes(is_new=True)
        return True

    # -- what the feeds of this relay want -----------------------------------------------------------

    def begin(self, feed: SharedFeed) -> None:
        """Give a feed what it wants, from now on."""
        self.wants.begin(feed)

    def want(self, feed: SharedFeed, keys: Collection[StreamKey]) -> None:
        """Learn that a feed wants more streams; it lacks their state and their newest candle."""
        self.wants.add(feed, keys)
        self._listen()
        self.upstream.carry()
        for shared in self.shards:
            mine = self.shards.keys_of(shared, keys)
            if mine:
                self._say_wishes(shared, mine, is_new=True)
                if shared.duty is not Duty.NONE:
                    self.upstream.tell_again(mine, with_candle=True)

    def leave(self, feed: SharedFeed, keys: Collection[StreamKey]) -> None:
        """Learn that a feed wants streams no more."""
        self._let_go_of(self.wants.drop(feed, keys))

    def end(self, feed: SharedFeed) -> None:
        """Give a feed nothing more."""
        self._let_go_of(self.wants.end(feed))

    def _let_go_of(self, gone: Collection[StreamKey]) -> None:
        for shared in self.shards:
            mine = self.shards.keys_of(shared, gone)
            if mine:
                self._say_wishes(shared, (), mine, is_new=False)
        self._listen()
        self.upstream.carry()

    def _listen(self) -> None:
        for shared in self.shards:
            self.news.listen(shared, is_wanted=bool(self.shards.keys_of(shared, self.wants.keys)))

    def _say_wishes(
        self, shared: SharedShard, wanted: Iterable[StreamKey], unwanted: Iterable[StreamKey] = (), *, is_new: bool
    ) -> None:
        most = self._bus.most_bytes
        for body in wish_bodies(self._me, shared.shard, wanted, unwanted, is_new=is_new, most_bytes=most):
            self._bus.send(self._subjects.wishes, body)

    def say_all_wishes(self, *, is_new: bool = False) -> None:
        """Tell the others again all that this relay wants."""
        for shared in self.shards:
            self._say_wishes(shared, self.shards.keys_of(shared, self.wants.keys), is_new=is_new)

    # -- what others want, and are told ----------------------------------------------------------------

    def hear_wish(self, wish: Wish, now: float) -> None:
        """Take what another relay wants."""
        shared = self.shards.get(wish.shard)
        if shared is None:
            return
        wanted = self.shards.keys_of(shared, wish.wanted)
        intervals = self.provider.info.intervals
        wanted = [key for key in wanted if key.interval in intervals and is_symbol(key.symbol)]
        self.wishes.hear(wish.id, wanted, self.shards.keys_of(shared, wish.unwanted), now)
        self.upstream.carry()
        if wish.is_new and shared.duty is Duty.ALL:
            self.upstream.tell_again(wanted, with_candle=True)

    def _take_own(self, key: StreamKey, item: Item) -> None:
        """Take what this relay's own upstream side tells."""
        if self.shards.of(key).source == HERE or not isinstance(item, StateTold | PlanTold):
            self.wants.deliver(key, item)
        if key in self.wishes:
            self.news.queue(key, item)

    def share_news(self, updates: Iterable[PriceUpdate]) -> None:
        """Tell the others candles that turned out to be other ones later."""
        for update in updates:
            if update.key in self.wishes:
                self.news.queue(update.key, update)

    # -- what is seen ----------------------------------------------------------------------------------

    def look(self, now: float, *, is_alone: bool) -> None:
        """See who carries what now, and do the own part of it."""
        self.upstream.look(is_changed=self.ownership.look(now, is_alone=is_alone))
        for shared in self.shards:
            self._follow_source(shared, now)
        self.upstream.tell_due(now)
        self.news.looked_at = now

    def _follow_source(self, shared: SharedShard, now: float) -> None:
        found = self.ownership.find_source(shared, now)
        if found is None:
            return
        keys = self.shards.keys_of(shared, self.wants.keys)
        if found.is_lost:
            for key in keys:
                self.wants.deliver(key, _LOST)
        if found.source == HERE:
            self.upstream.tell_again(keys, with_candle=False)
        elif found.source is not None and keys:
            self._say_wishes(shared, keys, is_new=True)

    # -- what is past ----------------------------------------------------------------------------------

    async def candles(self, key: StreamKey, start: int | None, end: int, limit: int) -> Sequence[Candle] | None:
        """Return history from the owner of a stream, None if that is this relay. Raises `ProviderError`."""
        shared = self.shards.of(key)
        return await self._remote.candles(self.provider, lambda: self.ownership.owner(shared), key, start, end, limit)

    def doubts(self, key: StreamKey) -> Callable[[Sequence[Candle], Sequence[Candle]], None] | None:
        """Return what judges the owner's next answer by the provider's own; None for most, and where that costs."""
        owner = self.ownership.owner(self.shards.of(key))
        if not self.ownership.may_overlap or not owner or not self.check.is_due():
            return None

        def judge(given: Sequence[Candle], own: Sequence[Candle]) -> None:
            self.check.judge(key, given, own, self.provider.clock.now(), self._peers.name_of(owner))

        return judge

    async def instruments(self) -> Sequence[Instrument] | None:
        """Return what the owner knows that the provider lists; None if this relay is to ask the provider.

        Who has no budget that belongs to a key is asked by each relay for itself.
        """
        if self.ownership.may_overlap:
            return None
        try:
            return await self._remote.instruments(self.provider, lambda: self.ownership.owner(self.shards.first))
        except (ProviderUnavailable, ProviderTimeout):
            return None

    # -- the end ---------------------------------------------------------------------------------------

    async def let_go(self) -> None:
        """Return once another relay may carry what this one did."""
        if not self.ownership.may_overlap and self.upstream.carrier is not None:
            await self.upstream.carrier.be_idle()

    async def close(self) -> None:
        """End what is carried."""
        self.news.close()
        if self.upstream.carrier is not None:
            await self.upstream.carrier.close()
