"""What a client is told while it iterates; values only.

`wire` is the message as it came, for those who pass it on; the client writes it where it takes a snapshot apart.
"""

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple, TypeAlias

from relay.core.errors import Code
from relay.core.model import Candle, StreamKey, parted
from relay.protocol.server_messages import StreamState

__all__ = [
    "Confirmed",
    "Connected",
    "Failure",
    "Gap",
    "Lost",
    "Message",
    "Snapshot",
    "State",
    "StreamState",
    "Update",
]


class Connected(NamedTuple):
    """A connection is open. `epoch` names one run of the relay: `seq` starts again with it.

    `server_time` is the relay's clock in Unix seconds.
    """

    epoch: str
    server_time: int
    wire: Mapping[str, Any]


class Lost(NamedTuple):
    """The connection is lost; the next attempt follows in `retry_in_s` and the streams continue where they stopped.

    `close_code` is that of the WebSocket, None if there was none.
    """

    reason: str
    close_code: int | None
    retry_in_s: float
    wire: Mapping[str, Any]


class Confirmed(NamedTuple):
    """The relay accepted a stream (or its end); `key` is its canonical name.

    Comes again each time that the client asks again: after each reconnect, and where closed candles may be missing.
    """

    key: StreamKey
    action: Literal["subscribe", "unsubscribe"]
    wire: Mapping[str, Any]

    @property
    def provider(self) -> str:
        """Who the stream comes from; empty if the relay did not say."""
        return str(self.wire.get("provider") or "")


class State(NamedTuple):
    """The state of a stream changed; a confirmed stream is `connected` until this says otherwise."""

    key: StreamKey
    status: StreamState
    message: str
    wire: Mapping[str, Any]


class Snapshot(NamedTuple):
    """The past that `bars` or `since` asked for; once a subscription, what is missed later comes as `Update`.

    It comes again, with `is_renewed`, where the provider changed its history, or gave it late: then it takes the place
    of all candles of the stream that came before. With `is_pending` that is still to come. `candles` are oldest first;
    `revised` are older ones that changed since the client heard of them. `is_complete` is false where some are missing.
    `seq` is the number, in this run of the relay, of the newest update in it.
    """

    key: StreamKey
    candles: tuple[Candle, ...]
    last_is_closed: bool
    is_complete: bool
    seq: int | None
    wire: Mapping[str, Any]
    revised: tuple[Candle, ...] = ()

    @property
    def provider(self) -> str:
        """Who the candles come from; empty if the relay did not say."""
        return str(self.wire.get("provider") or "")

    @property
    def is_renewed(self) -> bool:
        """Whether nobody asked for it: it takes the place of what came before."""
        return self.wire.get("replaces") is True

    @property
    def is_pending(self) -> bool:
        """Whether the provider has not answered yet: another one with all that was asked for follows, `is_renewed`."""
        return self.wire.get("pending") is True

    @property
    def closed_candles(self) -> tuple[Candle, ...]:
        """Those that are final."""
        return tuple(parted(self.candles, self.last_is_closed)[0])

    @property
    def open_candle(self) -> Candle | None:
        """The last one while it still changes; None where all are closed."""
        return parted(self.candles, self.last_is_closed)[1]


class Update(NamedTuple):
    """The newest known state of a stream's candle. Each closed candle comes once, except where it is revised.

    `ts_event_ms` is the provider's time of it in UTC milliseconds; `seq` counts the stream's changes in one run of the
    relay. Both are None where there is none.
    """

    key: StreamKey
    candle: Candle
    is_closed: bool
    is_backfilled: bool
    is_revised: bool
    ts_event_ms: int | None
    seq: int | None
    wire: Mapping[str, Any]


class Gap(NamedTuple):
    """Closed candles with `start` ≤ open time < `end` (Unix seconds) are missing: no provider could deliver them."""

    key: StreamKey
    start: int
    end: int
    reason: str
    wire: Mapping[str, Any]


class Outdated(NamedTuple):
    """Candles with `start` ≤ open time < `before` (Unix seconds) may have other values now.

    Either the provider changed its history, for example after a split: then those of the subscription follow, as
    revised updates or as a new `Snapshot`. Or they may have been revised during a lost connection, and the relay does
    not know which. `RelayClient.history` has them as they are now.
    """

    key: StreamKey
    before: int
    wire: Mapping[str, Any]
    start: int = 0


class Failure(NamedTuple):
    """The relay refused a stream (or a request, `key` None). With `is_retried` the client asks again by itself.

    `code` is a `Code`, or a text where the relay is newer and has one that is not known here.
    """

    code: Code | str
    message: str
    key: StreamKey | None
    is_retried: bool
    wire: Mapping[str, Any]

    @property
    def retry_after_s(self) -> float | None:
        """Seconds after which it is worth another try; None if the relay did not say."""
        wait_s = self.wire.get("retry_after")
        return None if wait_s is None else float(wait_s)


Message: TypeAlias = Connected | Lost | Confirmed | State | Snapshot | Update | Gap | Outdated | Failure
"""What an iteration over a client gives."""
