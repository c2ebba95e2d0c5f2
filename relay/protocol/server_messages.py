"""What the relay says on the WebSocket, as types: `frames.py` builds them, `/asyncapi.json` describes them.

In `Annotated`, a text is the description of a field and a dict is more of its JSON Schema.
"""

from typing import Annotated, Literal, NotRequired, TypedDict

from relay.core.errors import Code

Symbol = Annotated[
    str, "Canonical name of the symbol; `provider:SYMBOL` if the name alone belongs to another provider."
]
Interval = Annotated[str, "Canonical name of the interval."]
ProviderName = Annotated[str, "The provider of the candles; `provider:SYMBOL` requests this provider."]
Id = Annotated[str | int, "The `id` of the request, if it had one."]
Revision = Annotated[
    int, "Number of the newest revision that was sent; a client resumes with it as `revision`.", {"minimum": 0}
]
Seconds = Annotated[int, {"minimum": 0}]

StreamState = Literal[
    "connecting", "connected", "reconnecting", "backfilling", "stale", "market_closed", "throttled", "error"
]
"""The states of a stream; README.md explains each."""


class CandleObject(TypedDict):
    """Open, high, low, close and volume over one interval.

    With `extended` it has four more values, each null if it is not known.
    """

    time: Annotated[Seconds, "Open time in Unix seconds (UTC)."]
    open: float
    high: float
    low: float
    close: float
    volume: Annotated[float, "0 where a market has none.", {"minimum": 0}]
    quote_volume: NotRequired[
        Annotated[float | None, "With `extended`: the volume in the quote currency.", {"minimum": 0}]
    ]
    trades: NotRequired[Annotated[int | None, "With `extended`: the number of trades.", {"minimum": 0}]]
    taker_volume: NotRequired[
        Annotated[float | None, "With `extended`: the part of `volume` that takers bought.", {"minimum": 0}]
    ]
    taker_quote_volume: NotRequired[
        Annotated[float | None, "With `extended`: the part of `quote_volume` that takers bought.", {"minimum": 0}]
    ]


class Limits(TypedDict):
    """What one client may have."""

    streams: Annotated[int, "Streams on one connection."]
    message_bytes: Annotated[int, "Length of a frame from the client."]


class Greeting(TypedDict):
    """The first message on a connection."""

    type: Literal["status"]
    status: Literal["connected"]
    message: str
    server_time: Annotated[Seconds, "The relay's clock in Unix seconds; in a replay, the time that is played."]
    epoch: Annotated[str, "Names this run of the server: `seq` counts within it."]
    store: Annotated[str, "Names the relay's database, in each run: `revision` counts within it."]
    limits: Limits


class StreamStatus(TypedDict):
    """The state of a stream: sent first unless it is `connected`, then whenever it changes."""

    type: Literal["status"]
    status: StreamState
    symbol: Symbol
    interval: Interval
    message: Annotated[str, "Why, in words."]


class Subscription(TypedDict):
    """A stream was subscribed or unsubscribed."""

    type: Literal["subscription"]
    action: Literal["subscribe", "unsubscribe"]
    symbol: Symbol
    interval: Interval
    provider: ProviderName
    status: Literal["ok"]
    revision: NotRequired[Revision]
    id: NotRequired[Id]


class SnapshotMessage(TypedDict):
    """The past that a subscription asked for; the updates that follow continue it without hole or duplicate."""

    type: Literal["snapshot"]
    symbol: Symbol
    interval: Interval
    provider: ProviderName
    candles: Annotated[list[CandleObject], "Oldest first."]
    last_is_closed: Annotated[bool, "False when the last candle is still open."]
    complete: Annotated[bool, "False if some of the requested candles are not available."]
    seq: Annotated[int, "Updates of the stream so far.", {"minimum": 0}]
    revision: Revision
    replaces: NotRequired[
        Annotated[
            bool,
            "True if the provider changed its history, or gave the past that was asked for later than a snapshot with "
            "`pending`; or if an event stream is resumed that had none, or not all of it. These candles take the place "
            "of all that the client has of the stream.",
        ]
    ]
    pending: NotRequired[
        Annotated[
            bool,
            "True if the provider has not answered in time: the snapshot has what is known, and another one with "
            "`replaces` follows once the provider gives the rest.",
        ]
    ]
    revised: NotRequired[
        Annotated[
            list[CandleObject],
            "Closed candles up to `since` that changed after `revision` or lie in `gaps`; oldest first.",
        ]
    ]
    revisions_known: NotRequired[
        Annotated[bool, "False if `revised` may not contain all revised candles up to `since`."]
    ]


class PriceUpdateMessage(TypedDict):
    """The newest known state of a stream's candle."""

    type: Literal["price_update"]
    symbol: Symbol
    interval: Interval
    candle: CandleObject
    is_closed: Annotated[bool, "The interval is over and the values are final."]
    seq: Annotated[int, "Counts the updates of one stream within one epoch.", {"minimum": 0}]
    ts_event: Annotated[int | None, "The provider's time of the update in UTC milliseconds."]
    backfilled: NotRequired[
        Annotated[bool, "The candle was missed while the connection to the provider was lost, and fetched later."]
    ]
    revised: NotRequired[Annotated[bool, "The candle had been closed before, and the provider changed it."]]
    revision: NotRequired[Revision]


GapMessage = TypedDict(
    "GapMessage",
    {
        "type": Literal["gap"],
        "symbol": Symbol,
        "interval": Interval,
        "from": Annotated[Seconds, "Open time of the first candle that is missing."],
        "to": Annotated[Seconds, "End of the gap: the first open time after it."],
        "reason": str,
    },
)
GapMessage.__doc__ = (
    "Closed candles that are missing because they are not available: those with `from` ≤ open time < `to`."
)


OutdatedMessage = TypedDict(
    "OutdatedMessage",
    {
        "type": Literal["outdated"],
        "symbol": Symbol,
        "interval": Interval,
        "from": Annotated[Seconds, "Open time of the first candle that is not valid any more."],
        "before": Annotated[Seconds, "The first open time after them."],
        "reason": str,
    },
)
OutdatedMessage.__doc__ = (
    "The provider changed its history, for example after a split: candles with `from` ≤ open time < `before` have "
    "other values now. Those of the subscription follow as soon as the provider gives them: as updates with `revised`, "
    "or in a snapshot with `replaces`. Others are in `history`."
)


class ErrorMessage(TypedDict):
    """The answer to a request, or to one stream of it, that cannot be fulfilled; all else goes on."""

    type: Literal["error"]
    code: Code
    message: Annotated[str, "Names the wrong value and what is accepted."]
    symbol: NotRequired[str]
    interval: NotRequired[str]
    retry_after: NotRequired[Annotated[float, "Seconds to wait before the next try.", {"minimum": 0}]]
    id: NotRequired[Id]


class Subscriptions(TypedDict):
    """The client's streams."""

    type: Literal["subscriptions"]
    streams: Annotated[list[str], {"examples": [["BTCUSDT@1m"]]}]
    id: NotRequired[Id]


class Pong(TypedDict):
    """The answer to a ping."""

    type: Literal["pong"]
    server_time: Annotated[Seconds, "The relay's clock in Unix seconds; in a replay, the time that is played."]
    id: NotRequired[Id]


SERVER_MESSAGES = (
    Greeting,
    StreamStatus,
    Subscription,
    SnapshotMessage,
    PriceUpdateMessage,
    GapMessage,
    OutdatedMessage,
    ErrorMessage,
    Subscriptions,
    Pong,
)
