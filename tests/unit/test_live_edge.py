"""What a live stream says of the present, and for how long an answer may go by it."""

from relay.core.clock import Clock, ProviderClock
from relay.core.model import Candle, PriceUpdate, StreamKey
from relay.history.live_edge import live_of
from relay.streams.hub import Hub
from relay.streams.subscriptions import Stream

KEY = StreamKey("AAA", "1m")


class Feeder:
    """Feeds nothing: the test publishes."""

    has_history = False
    close_grace_s = 5.0

    def __init__(self) -> None:
        self.now = 600.0
        self.machine_clock = Clock(wall=lambda: self.now, monotonic=lambda: self.now)
        self.clock = ProviderClock(self.machine_clock)

    def wanted(self, stream: Stream) -> None:
        """Take no notice."""

    def unwanted(self, stream: Stream) -> None:
        """Take no notice."""


def live_stream() -> tuple[Feeder, Hub, Stream]:
    feeder = Feeder()
    hub = Hub(feeder.machine_clock)
    stream = hub.stream("demo", KEY, "AAA", feeder)
    hub.set_state(stream, "connected")
    hub.publish(stream, update(600, 1.0))
    return feeder, hub, stream


def update(time: int, price: float) -> PriceUpdate:
    return PriceUpdate(KEY, Candle(time, price, price, price, price, 0.0))


def test_a_stream_that_is_not_live_says_nothing() -> None:
    _, hub, stream = live_stream()
    assert live_of(stream) is not None
    hub.set_state(stream, "reconnecting")
    assert live_of(stream) is None
    assert live_of(None) is None


def test_what_it_said_holds_until_it_tells_something_or_is_lost() -> None:
    _, hub, stream = live_stream()
    before = live_of(stream)
    assert before is not None
    assert (before.candle, before.is_current()) == (update(600, 1.0).candle, True)
    hub.publish(stream, update(600, 2.0))
    after = live_of(stream)
    assert after is not None
    assert (before.is_current(), after.is_current()) == (False, True)
    hub.set_state(stream, "reconnecting")
    assert not after.is_current()


def test_it_holds_no_longer_than_the_stream_would_say_it_anew() -> None:
    feeder, _, stream = live_stream()
    edge = live_of(stream)
    assert edge is not None
    feeder.now = 665.0
    assert (edge.is_current(), live_of(stream) is None) == (True, False)
    feeder.now = 665.1  # candles may have closed unseen
    assert (edge.is_current(), live_of(stream) is None) == (False, True)


def test_it_does_not_outlive_the_stream() -> None:
    feeder, hub, stream = live_stream()
    edge = live_of(stream)
    assert edge is not None
    hub.remove(stream)
    assert not edge.is_current()
    again = hub.stream("demo", KEY, "AAA", feeder)
    hub.set_state(again, "connected")
    assert not edge.is_current()
