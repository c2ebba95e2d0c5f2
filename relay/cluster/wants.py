"""What the feeds of one relay want of a provider, and how what is told reaches them."""

from collections import Counter
from collections.abc import Collection

from relay.cluster.shared_feed import SharedFeed
from relay.cluster.wire.bus_messages import Item
from relay.core.model import StreamKey


class Wants:
    """The feeds of this relay and their streams; a stream that two feeds want is wanted until both have left it."""

    def __init__(self) -> None:
        self._feeds: dict[SharedFeed, set[StreamKey]] = {}
        self._count: Counter[StreamKey] = Counter()

    @property
    def keys(self) -> Collection[StreamKey]:
        """All streams that some feed wants."""
        return self._count.keys()

    def begin(self, feed: SharedFeed) -> None:
        """Give a feed what it wants, from now on."""
        self._feeds[feed] = set()

    def add(self, feed: SharedFeed, keys: Collection[StreamKey]) -> None:
        """Take that a feed wants more streams."""
        known = self._feeds[feed]
        self._count.update(key for key in keys if key not in known)
        known.update(keys)

    def drop(self, feed: SharedFeed, keys: Collection[StreamKey]) -> list[StreamKey]:
        """Take that a feed wants streams no more; return those that no feed wants now."""
        gone = []
        known = self._feeds[feed]
        for key in known.intersection(keys):
            known.discard(key)
            self._count[key] -= 1
            if self._count[key] <= 0:
                del self._count[key]
                gone.append(key)
        return gone

    def end(self, feed: SharedFeed) -> list[StreamKey]:
        """Give a feed nothing more; return what no feed wants now."""
        if feed not in self._feeds:
            return []
        gone = self.drop(feed, [*self._feeds[feed]])
        del self._feeds[feed]
        return gone

    def deliver(self, key: StreamKey, item: Item) -> None:
        """Give what is told about a stream to the feeds that want it."""
        for feed in self._feeds:
            feed.deliver(key, item)
