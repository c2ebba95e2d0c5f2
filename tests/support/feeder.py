"""What stands where a supervisor does."""

from relay.core.clock import Clock, ProviderClock
from relay.streams.hub import Hub
from relay.streams.subscriptions import Stream


class Feeder:
    """Notes what is wanted. Given a hub it has no history, and removes what is unwanted at once."""

    close_grace_s = 5.0

    def __init__(self, hub: Hub | None = None, clock: Clock | None = None) -> None:
        self.has_history = hub is None
        self.clock = ProviderClock(clock or Clock())
        self.carried: set[Stream] = set()
        self.calls: list[str] = []
        self._hub = hub

    def wanted(self, stream: Stream) -> None:
        self.calls.append("wanted")
        self.carried.add(stream)

    def unwanted(self, stream: Stream) -> None:
        self.calls.append("unwanted")
        self.carried.discard(stream)
        if self._hub is not None:
            self._hub.remove(stream)
