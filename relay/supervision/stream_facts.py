"""What is known of a stream that a feed carries, and the state that follows from it; pure."""

from typing import Final, NamedTuple

from relay.protocol.server_messages import StreamState
from relay.streams.subscriptions import CONNECTED, CONNECTING

RECONNECTING: Final = "reconnecting"
BACKFILLING: Final = "backfilling"
STALE: Final = "stale"
ERROR: Final = "error"
MARKET_CLOSED: Final = "market_closed"
THROTTLED: Final = "throttled"

LIVE = "live"


class StateSaid(NamedTuple):
    """What subscribers are told of a stream: a status of the contract, and why in words."""

    status: StreamState
    message: str


class Facts(NamedTuple):
    """What is known of a stream, each fact for itself; empty and None: it is not so.

    `refusal` says why the provider refuses the stream and when it is tried next, `halt` why the provider's list calls
    it paused. `loss` says why no feed delivers it while `is_fed` is false and what comes next, `is_lost` whether one
    failed, `was_fed` whether one ever did deliver it, `is_barred` whether the provider asked to wait before the next
    one. `closed` says until when the market is closed by its hours, `rest` is the pause that its feed reported, `past`
    what is done about candles that were missed, `silent_s` how long it is silent since that was beyond its habit,
    `stray` why all that comes is left out, `remark` how it is live.
    """

    refusal: str = ""
    halt: str = ""
    is_fed: bool = False
    was_fed: bool = False
    loss: str = ""
    is_lost: bool = False
    is_barred: bool = False
    closed: str = ""
    rest: StateSaid | None = None
    past: StateSaid | None = None
    silent_s: float | None = None
    stray: str = ""
    remark: str = LIVE

    def state(self) -> StateSaid:
        """Return the state that follows; the first fact that applies decides."""
        if self.refusal:
            return StateSaid(ERROR, self.refusal)
        if self.halt:
            return StateSaid(MARKET_CLOSED, self.halt)
        if not self.is_fed and self.is_barred:
            return StateSaid(THROTTLED, self.loss)
        if self.closed and (self.is_fed or not (self.is_lost or self.was_fed)):
            return StateSaid(MARKET_CLOSED, self.closed)
        if not self.is_fed:
            return StateSaid(RECONNECTING if self.was_fed else CONNECTING, self.loss)
        if self.rest is not None:
            return self.rest
        if self.past is not None:
            return self.past
        if self.silent_s is not None:
            return StateSaid(STALE, f"no data for {self.silent_s:.0f} s")
        if self.stray:
            return StateSaid(STALE, self.stray)
        return StateSaid(CONNECTED, self.remark)
