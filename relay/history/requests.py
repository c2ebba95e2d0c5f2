"""What is asked of history and of a provider, and what they answer: values; pure."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from relay.core.clock import ProviderClock
from relay.core.model import Budget, Candle, ProviderInfo, StreamKey
from relay.core.spans import FOREVER, Span
from relay.core.trading_hours import TradingHours
from relay.history.live_edge import LiveEdge
from relay.storage.chunks import EXTENDED, PLAIN, CandleForm
from relay.storage.past_seen import PastSeen

MAX_CALLS = 50
"""Provider calls that one request may cause; what it has then is not complete."""


class CandleSource(Protocol):
    """A provider as history sees it: `clock` is its time, `candles` its `relay_candles`, `market` its hours."""

    @property
    def name(self) -> str: ...
    @property
    def clock(self) -> ProviderClock: ...
    @property
    def info(self) -> ProviderInfo: ...
    @property
    def has_history(self) -> bool: ...
    def budgets(self) -> Sequence[Budget]: ...
    def market(self, symbol: str) -> TradingHours: ...
    async def candles(self, key: StreamKey, start: int | None, end: int, limit: int) -> Sequence[Candle]: ...


class PastCandles(NamedTuple):
    """Candles, oldest first; `is_complete` is False when not all that was asked for could be had.

    `known` are then the spans of which nothing is missing, as far as somebody looked, ascending. Where all that is
    missing are candles that the provider has with values that cannot be used now, `unreadable` names them: each from
    its open time to the next one. They are not among those that were asked for. `doubted` are holes that the provider
    left, which is not believed yet: there may be a candle, or none. They lie between the candles; behind the last one,
    up to what was asked for or what is over by now, unless it is believed that none follows it; before the first one in
    a range that was asked for, and without a start where fewer were found and an answer without any candle says so.
    What is said of the present was asked for at `asked_at`, monotonic; None if nobody had to be asked for it.
    """

    candles: tuple[Candle, ...]
    last_is_closed: bool
    is_complete: bool
    known: tuple[Span, ...] = ()
    unreadable: tuple[Span, ...] = ()
    doubted: tuple[Span, ...] = ()
    asked_at: float | None = None

    @property
    def is_whole(self) -> bool:
        """Whether all that was asked for is there, but rows that nobody can read."""
        return self.is_complete or bool(self.unreadable)

    def asked_by(self, clock: ProviderClock, moment: float) -> float:
        """Return when somebody asked for this, by the provider's time, where it was asked for anew at that moment."""
        return moment if self.asked_at is None else min(moment, clock.at(self.asked_at))


class CallAllowance:
    """How many calls of a provider a request may still cause; several that are one to a client share it.

    With none from the beginning (`is_none`) those that others caused are not waited for either.
    """

    __slots__ = ("is_none", "left")

    def __init__(self, left: int = MAX_CALLS) -> None:
        self.left = left
        self.is_none = left <= 0


def _not_live() -> None:
    """Know nothing of the present."""


class ProviderAnswer(NamedTuple):
    """What a provider said about a span. Its candles stand only where the store does not know better.

    One whose values cannot be used is in it as `unreadable` makes it.
    """

    span: Span
    candles: tuple[Candle, ...]
    open_time: int | None  # of the one candle that is not closed
    asked_at: float
    answered_at: float

    @property
    def reaches_present(self) -> bool:
        """Say whether nothing can be newer than the answer."""
        return self.span.end == FOREVER


class PageRequest(NamedTuple):
    """What to ask a provider in one call; `start` None: the newest before `end`.

    At `followed_at` there is a candle of `end` or later. With `is_bounded` the piece cannot hold more than `limit`.
    """

    start: int | None
    end: int
    limit: int
    followed_at: int | None
    reaches_present: bool
    is_bounded: bool = False

    @property
    def span(self) -> Span:
        """The open times that the answer may hold."""
        return Span(self.start or 0, self.end)


@dataclass(frozen=True, slots=True)
class HistoryRequest:
    """The first `limit` candles from `start` on, or without it the last `limit` up to `end` or now.

    `start` and `end` are open times, both inclusive. `live` gives the present of a stream that is live, in place of a
    provider call; it is called before anything else. With `must_be_new` no answer about the present is taken that was
    asked for before the request, however fresh. `client` is whom it is for: calls take turns among clients, and those
    for live streams (None) come first. What `is_spliced` with what a stream remembers is of the same instrument. With
    `joins_gaps` those that one call can span are one question, and what is known between them comes again.
    Candles that are `extended` carry what is known beside prices and volume, and with `needs_extras` the provider is
    asked for what stored ones do not carry. An answer that is encoded has them in the `form`, or as these two say.
    `on_call` is called for each call to the provider that the request causes, `on_answer` for each time that what it
    waited for came. Whoever has `seen` the past before asking
    has to find out when the answer is used whether it is still the same.
    """

    source: CandleSource
    key: StreamKey
    start: int | None
    end: int | None
    limit: int
    live: Callable[[], LiveEdge | None] = _not_live
    must_be_new: bool = False
    client: str | None = None
    is_spliced: bool = False
    joins_gaps: bool = False
    extended: bool = False
    needs_extras: bool = False
    allowance: CallAllowance | None = None
    form: CandleForm | None = None
    on_call: Callable[[], None] | None = None
    on_answer: Callable[[], None] | None = None
    seen: PastSeen | None = None

    @property
    def encoding(self) -> CandleForm:
        """The form of an answer that is encoded."""
        return self.form or (EXTENDED if self.extended else PLAIN)
