"""The pure part of a WebSocket venue: what a codec is, and what it says that messages mean."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from relay.core.model import NativeUpdate, PriceUpdate, StreamKey
from relay.core.past_change import PastChange


class Accepted(NamedTuple):
    """The provider confirmed these streams."""

    keys: tuple[StreamKey, ...]


class Rejected(NamedTuple):
    """The provider refused these streams, together: each is asked for again until the bad one stands alone."""

    keys: tuple[StreamKey, ...]
    reason: str


class Closing(NamedTuple):
    """The provider announced that it will close this connection."""

    reason: str


Decoded = PriceUpdate | NativeUpdate | Accepted | Rejected | Closing | PastChange


class FeedCodec(ABC):
    """The pure part of a WebSocket venue: messages in, values out. One codec serves one connection. Subclass it.

    `messages_per_second` is the venue's limit for everything that is sent, pings and pongs counted (None: no limit).
    `keys_per_message` bounds what `subscribe` and `unsubscribe` are given at once. `greeting` are texts sent first on
    the connection. `heartbeat` is a text sent every `heartbeat_s` seconds, or None.
    """

    messages_per_second: int | None = None
    keys_per_message: int = 100
    greeting: Sequence[str] = ()
    heartbeat: str | None = None
    heartbeat_s: float = 10.0

    def __init__(self, url: str = "") -> None:
        self._url = url

    @property
    def url(self) -> str:
        """Where to connect; asked once, when the feed opens."""
        return self._url

    @property
    def headers(self) -> Mapping[str, str]:
        """Headers of the upgrade: the place for a key."""
        return {}

    @abstractmethod
    def subscribe(self, keys: Sequence[StreamKey]) -> Iterable[str]:
        """Return the messages, usually one, that subscribe to these streams."""

    @abstractmethod
    def unsubscribe(self, keys: Sequence[StreamKey]) -> Iterable[str]:
        """Return the messages, usually one, that end these streams."""

    @abstractmethod
    def decode(self, raw: str | bytes) -> Iterable[Decoded]:
        """Return the content of one message.

        Raises `ValueError`, `TypeError`, `LookupError`, `ArithmeticError`, `AttributeError` or `RecursionError` on
        an invalid message: it is counted and skipped. `Accepted` and `Rejected` belong to the newest subscription of a
        stream.
        """

    def connect_failed(self, status: int | None) -> None:  # noqa: B027  most codecs have one address only
        """Learn that `url` does not work: its HTTP `status`, or None if it cannot be reached or only ever closes."""
