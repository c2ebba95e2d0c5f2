"""The parts of a relay around one plugin, without sockets and in a time of their own, and a client's side of them.

Hub, supervisor, history and store are the relay's own: what is played goes the whole way of a subscription.
"""

import random
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import orjson

from relay import PriceUpdate
from relay.config.settings import Config
from relay.core.clock import Clock, ProviderClock
from relay.core.model import StreamKey
from relay.history.final_candles import News
from relay.history.live_edge import live_of
from relay.history.past_fetch import PastWaits
from relay.history.service import HistoryService
from relay.instruments.directory import Directory
from relay.plugins.loader import PluginHost
from relay.plugins.provider import Provider
from relay.plugins.provider_session import new_session
from relay.storage.store import Store
from relay.streams.hub import Hub
from relay.streams.outbox import Outbox
from relay.streams.subscriptions import Stream, Subscriber
from relay.supervision.supervisor import Supervisor
from relay.web.access.access import Access, Caller
from relay.web.ws.context import ConnectionContext
from relay.web.ws.subscriptions import ClientSubscriptions
from tests.support.virtual_time import VirtualLoop

START = 1_764_000_000
"""A whole minute, at which the loop's time begins."""


def clock_of(loop: VirtualLoop) -> Clock:
    """Return the clock of a relay whose day begins at `START`, with the time of the loop."""
    return Clock(wall=lambda: START + loop.now, monotonic=loop.time)


class ClientWire(ABC):
    """A client's side of a connection that reads at once whatever it is sent."""

    @abstractmethod
    def take(self, message: dict[str, Any]) -> None:
        """Take a message."""

    def write(self, data: bytes) -> None:
        """Take frames of the server, which are text and not masked."""
        at = 0
        while at < len(data):
            length, head = data[at + 1], 2
            if length == 126:
                length, head = int.from_bytes(data[at + 2 : at + 4], "big"), 4
            elif length == 127:
                length, head = int.from_bytes(data[at + 2 : at + 10], "big"), 10
            self.take(orjson.loads(data[at + head : at + head + length]))
            at += head + length

    def get_write_buffer_size(self) -> int:
        return 0

    def is_closing(self) -> bool:
        return False


class PlayedRelay(NamedTuple):
    """A relay with one provider, and what its connections share."""

    provider: Provider
    context: ConnectionContext

    @property
    def history(self) -> HistoryService:
        """The past, as its connections ask for it."""
        return self.context.history

    def stream(self, key: StreamKey) -> Stream | None:
        """Return a stream of the provider, None while nobody wants it."""
        return self.context.hub.streams.get((self.provider.name, key))

    def connect(self, wire: ClientWire) -> tuple[Subscriber, ClientSubscriptions]:
        """Return the relay's side of a new connection."""
        subscriber = self.context.hub.join(Outbox(wire), lambda subscriber, reason: None)
        return subscriber, ClientSubscriptions(self.context, subscriber, Caller("127.0.0.1", "one", "one", None))


@asynccontextmanager
async def played_relay(plugin: object, clock: Clock, *, linger_s: float = 5.0) -> AsyncIterator[PlayedRelay]:
    """Run the parts of a relay around a plugin until the end; the database is in memory."""
    host = PluginHost()
    host.load([plugin], installed=False)
    (loaded,) = host.loaded.values()
    provider = host.bind(loaded, {}, ProviderClock(clock))
    name = provider.name
    store = await Store.open(":memory:", clock)
    session = new_session(provider.clock)
    provider.open(session)
    directory = Directory([provider], store.documents)
    history = HistoryService(store, clock, derivation_of=directory.derivation)

    def keep(stream: Stream, update: PriceUpdate, after: int | None) -> int | None:
        if stream.base is not None:
            return stream.revision if update.is_revised else None
        return history.keep(name, stream.key, update.candle, after, is_revised=update.is_revised)

    def tell(news: News) -> None:
        if (stream := hub.streams.get((name, news.key))) is not None:
            hub.tell(stream, stream.series.revise(news.changed, news.found, news.asked_at))

    hub = Hub(clock, on_closed=keep)
    history.calls.on_news = tell
    history.derived.edge_of = lambda source, key: live_of(hub.streams.get((source.name, key)))
    supervisor = Supervisor(provider, hub, history, clock, linger_s=linger_s, rng=random.Random(1))
    try:
        yield PlayedRelay(
            provider,
            ConnectionContext(
                Access(Config()), hub, directory, history, {name: supervisor}, past_waits=PastWaits(patience_s=5.0)
            ),
        )
    finally:
        await supervisor.close()
        hub.close()
        await history.close()
        await session.close()
        await store.close()
