"""What the REST routes answer, as types: `/openapi.json` describes them, and every answer in the tests is held to them.

In `Annotated`, a text is the description of a field and a dict is more of its JSON Schema.
"""

from typing import Annotated, Literal, NotRequired, TypedDict

from relay.core.errors import Code
from relay.protocol.server_messages import CandleObject, Interval, ProviderName, StreamState, Symbol

Count = Annotated[int, {"minimum": 0}]


class HistoryObject(TypedDict):
    """Candles of one stream, ascending."""

    symbol: Symbol
    interval: Interval
    provider: ProviderName
    candles: list[CandleObject]
    last_is_closed: Annotated[bool, "False when the last candle is still open."]
    complete: NotRequired[Annotated[bool, "False where a candle may be missing: the provider is asked for it again."]]


class InstrumentObject(TypedDict):
    """Something that can be streamed, and who serves it."""

    symbol: Symbol
    provider: str
    asset_class: Annotated[str, {"examples": ["crypto", "forex"]}]
    base: str
    quote: str
    intervals: Annotated[list[str], "What it can be had at."]
    status: Annotated[Literal["trading", "paused"], "While it is paused nothing is traded; its history stays."]
    attribution: Annotated[str, "What the provider asks to be shown beside its data."]


class Health(TypedDict):
    """All is well."""

    status: Literal["ok"]


class Problem(TypedDict):
    """An error, as RFC 9457 has it."""

    type: Annotated[str, {"format": "uri"}]
    title: str
    status: Annotated[int, {"minimum": 400, "maximum": 599}]
    detail: Annotated[str, "Names the offending value and what would be accepted."]
    code: Code


# -- status ----------------------------------------------------------------------------------------


class Spread(TypedDict):
    """The middle and the worst hundredth of all so far."""

    p50: float
    p99: float


class CloseCount(TypedDict):
    """How many connections ended in one way."""

    by: Literal["relay", "client"]
    code: int
    count: Count


class ClientStatus(TypedDict):
    """One WebSocket client."""

    id: Annotated[int, "Stands in the log beside what concerns this client."]
    age_s: float
    streams: Count
    lagging: Annotated[bool, "It reads more slowly than it is sent."]
    waiting_bytes: Count
    conflated: Annotated[Count, "Updates of open candles that were replaced by newer ones for it."]


class ClientsStatus(TypedDict):
    """The WebSocket clients."""

    connected: Count
    subscribers: Count
    lagging: Count
    subscriptions: Count
    opened: Annotated[Count, "Connections since the start."]
    tokens: NotRequired[Annotated[dict[str, int], "Connected by which token, by name; unless the status is public."]]
    requests: Annotated[dict[str, int], "Requests by action since the start."]
    closes: list[CloseCount]
    newest: Annotated[list[ClientStatus], "Those who lag, then those who came last; not all of them."]


class Traffic(TypedDict):
    """What came in and went out since the start."""

    updates_in: Count
    frames_out: Count
    writes_out: Count
    bytes_out: Count
    write_delay_ms: Annotated[Spread | None, "From the arrival of an update to its write."]
    loop_lag_ms: Annotated[Spread | None, "How late the relay's own timers are."]
    loop_lag_longest_ms: float


class HistorySources(TypedDict):
    """Where the candles of history came from."""

    cache: Count
    store: Count
    provider: Count


class AsideStatus(TypedDict):
    """Candles of a symbol that names another instrument now, or that is being checked for it."""

    provider: str
    symbol: str
    kept_as: Annotated[str, "What `relay store` calls them."]
    state: Annotated[Literal["set_aside", "checking"], "`checking`: they come back if they prove to be the symbol's."]


class StoreStatus(TypedDict):
    """The local store of closed candles; only the last three while it cannot be asked."""

    streams: NotRequired[Count]
    candles: NotRequired[Count]
    spans: NotRequired[Annotated[Count, "Ranges that are known completely."]]
    file_bytes: NotRequired[Count]
    queued: NotRequired[Annotated[Count, "Candles that wait to be written."]]
    dropped: NotRequired[Annotated[Count, "Candles that could not be kept."]]
    problem: str | None
    replacements: Annotated[Count, "How often it went on with another file, since the one it had was gone."]
    set_aside: list[AsideStatus]


class RefusedPlugin(TypedDict):
    """A plugin that cannot be used."""

    source: str


class Block(TypedDict):
    """The last time that a provider held up everything else."""

    time: Annotated[float, "Unix seconds."]
    place: Annotated[str, "Where in its code."]


class BlockedLoop(TypedDict):
    """How often a provider held up everything else, and how long."""

    count: Count
    longest_s: float
    last: Block | None


class ProviderStatus(TypedDict):
    """One provider and its upstream connections."""

    name: str
    title: str
    source: Annotated[str, "Where the plugin came from."]
    state: Literal["ok", "degraded", "unavailable"]
    message: Annotated[str, "Why it is not ok."]
    intervals: list[str]
    connections: Annotated[Count, "Open now."]
    connects: Annotated[Count, "Connections since the start."]
    streams: Count
    updates_in: Count
    updates_out: Count
    conflated: Count
    gaps: Count
    backfilled: Count
    revised: Count
    compared: Annotated[Count, "Closed candles that were held against the provider's history later."]
    differed: Annotated[Count, "Of those, the ones that had other values there."]
    lag_spread_ms: Annotated[Spread | None, "From the provider's time of an update to its arrival."]
    reconnects: Annotated[dict[str, int], "Connections that were lost, by cause."]
    backfills: Count
    longest_recovery_s: float
    messages_skipped: Annotated[Count, "Messages that made no sense."]
    hooks_failed: Annotated[Count, "Calls of the plugin that ended with a mistake of its own."]
    tasks_killed: Annotated[Count, "Feeds and calls that did not end when they were cancelled."]
    blocked_loop: BlockedLoop


class BudgetStatus(TypedDict):
    """A limit that a provider sets."""

    provider: str
    name: str
    limit: Count
    used: Count
    reserved: Annotated[int | None, "Of what is left, kept from live streams for history; null where nothing is."]
    left: Count
    resets_at: Annotated[float, "Unix seconds."]
    resets_in_s: float


class StreamEvent(TypedDict):
    """Something that happened to a stream."""

    time: Annotated[float, "Unix seconds."]
    event: str


class StreamObject(TypedDict):
    """One stream that somebody is subscribed to, or was a moment ago."""

    symbol: Symbol
    interval: Interval
    provider: str
    status: StreamState
    message: str
    subscribers: Count
    last_update: Annotated[float | None, "Unix seconds."]
    lag_ms: Annotated[float | None, "From the provider's time of the last update to its arrival."]
    next_poll: Annotated[float | None, "Unix seconds; null where prices come by themselves."]
    poll_every_s: float | None
    seq: Count
    conflated: Count
    gaps: Count
    open_gaps: Annotated[list[list[int]], "Ranges that could not be had: from, to."]
    reconnects: Count
    backfilled: Count
    revised: Count
    duplicates: Count
    late: Count
    events: Annotated[list[StreamEvent], "The latest, oldest first."]


class Status(TypedDict):
    """What the relay is doing, and how well."""

    version: str
    epoch: Annotated[str, "Names this run of the server."]
    server_time: Annotated[float, "The relay's clock in Unix seconds."]
    uptime_s: float
    clients: ClientsStatus
    traffic: Traffic
    history: HistorySources
    store: StoreStatus
    plugins_refused: list[RefusedPlugin]
    providers: list[ProviderStatus]
    connections: Annotated[Count, "Upstream connections that are open."]
    budgets: list[BudgetStatus]
    streams: list[StreamObject]
