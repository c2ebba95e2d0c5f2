"""What was stored when somebody looked, and whether it still holds: how readers notice what is taken away meanwhile."""

from relay.core.model import StreamKey
from relay.storage.write_queue import StreamId


class RemovalLog:
    """Numbers what takes something away, and keeps of each stream and symbol the number of the last that did."""

    def __init__(self) -> None:
        self.newest = 0
        self.of_all = 0
        self.of_pasts: dict[tuple[str, str], int] = {}
        self.of_streams: dict[StreamId, int] = {}

    def note_deleted(self, stream: StreamId) -> None:
        """Take it that something was deleted of what was stored of a stream."""
        self.newest = self.of_streams[stream] = self.newest + 1

    def note_other_past(self, provider: str, symbol: str) -> None:
        """Take it that what was stored of a symbol is not its past (any more)."""
        self.newest = self.of_pasts[provider, symbol] = self.newest + 1

    def note_all(self) -> None:
        """Take it that something may have been deleted of any stream."""
        self.newest = self.of_all = self.newest + 1


class PastSeen:
    """The past of all streams at the moment at which somebody looked.

    Take it before anything is read, or asked for; ask it when that is used, with nothing awaited between.
    """

    __slots__ = ("_at", "_removals")

    def __init__(self, removals: RemovalLog) -> None:
        self._removals = removals
        self._at = removals.newest

    def is_same(self, provider: str, symbol: str) -> bool:
        """Say whether a symbol has the same past still; else what was read or asked for since must not be used."""
        return self._removals.of_pasts.get((provider, symbol), 0) <= self._at

    def has_all(self, provider: str, key: StreamKey) -> bool:
        """Say whether nothing was deleted of a stream, and nothing may have been; else its spans may not hold."""
        return max(self._removals.of_streams.get((provider, key), 0), self._removals.of_all) <= self._at
