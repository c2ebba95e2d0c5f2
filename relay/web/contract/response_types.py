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
    complete: NotRequired[Annotated[bool, "False if a candle may be missing; the relay requests it again."]]


class InstrumentObject(TypedDict):
    """Something that can be streamed, and who serves it."""

    symbol: Symbol
    id: Annotated[str, "`provider:SYMBOL`, which always means this instrument."]
    provider: str
    name: Annotated[str | None, "What people call it; null if the provider does not say."]
    asset_class: Annotated[str, {"examples": ["crypto", "forex"]}]
    base: str
    quote: str
    intervals: Annotated[list[str], "The available intervals."]
    derived_intervals: Annotated[list[str], "Those that the relay builds of shorter candles."]
    price_step: Annotated[str | None, "Smallest change of a price, a decimal number; null if it is not known."]
    volume_step: Annotated[str | None, "Smallest change of an amount, a decimal number; null if it is not known."]
    volume_unit: NotRequired[Annotated[str, "What volumes count; left out if that is the base or not known."]]
    session: Annotated[
        str | None,
        "When it is traded: `24x7`, or hours and a time zone, `0930-1600 America/New_York`, from Monday to Friday. "
        "Hours that do not end after they begin start on the day before. Null if it is not known.",
    ]
    status: Annotated[Literal["trading", "paused"], "While it is paused nothing is traded; its history is available."]
    attribution: Annotated[str, "What the provider asks to be shown beside its data."]
    listed_at: NotRequired[Annotated[int, "Unix seconds; left out if it is not known."]]
    expires_at: NotRequired[Annotated[int, "The end of trading in Unix seconds; left out if there is none."]]


class Health(TypedDict):
    """The relay works."""

    status: Literal["ok"]
    cluster: NotRequired[
        Annotated[
            Literal["joined", "alone"],
            "`alone`: it cannot reach the other relays and serves without them; left out for one relay by itself.",
        ]
    ]


class Problem(TypedDict):
    """An error, in the form of RFC 9457."""

    type: Annotated[str, {"format": "uri"}]
    title: str
    status: Annotated[int, {"minimum": 400, "maximum": 599}]
    detail: Annotated[str, "Names the wrong value and what is accepted."]
    code: Code


# -- status ----------------------------------------------------------------------------------------


class Spread(TypedDict):
    """The median and the 99th percentile of all values so far."""

    p50: float
    p99: float


class CloseCount(TypedDict):
    """How many connections ended in one way."""

    by: Literal["relay", "client"]
    code: int
    count: Count


class ClientStatus(TypedDict):
    """One client that gets updates."""

    id: Annotated[int, "The number of the client in the log."]
    over: Annotated[Literal["websocket", "sse"], "How it is connected; `sse`: Server-Sent Events."]
    age_s: float
    streams: Count
    lagging: Annotated[bool, "The client reads more slowly than the relay sends."]
    waiting_bytes: Count
    conflated: Annotated[Count, "Updates of open candles that newer ones replaced before they were sent."]


class ClientsStatus(TypedDict):
    """The clients that get updates, over WebSocket or as Server-Sent Events."""

    connected: Count
    subscribers: Count
    lagging: Count
    subscriptions: Count
    opened: Annotated[Count, "Connections since the start."]
    event_streams: Annotated[Count, "Those among the connected that get Server-Sent Events."]
    tokens: NotRequired[
        Annotated[dict[str, int], "Number of connected clients by name of token; left out if the status is public."]
    ]
    requests: Annotated[dict[str, int], "Requests by action since the start."]
    closes: list[CloseCount]
    newest: Annotated[list[ClientStatus], "First the clients that lag, then the newest ones; not all clients."]


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
    kept_as: Annotated[str, "Their name in `relay store`."]
    state: Annotated[Literal["set_aside", "checking"], "`checking`: they are used again if they belong to the symbol."]


class StoreStatus(TypedDict):
    """The local store of closed candles; only the last three fields while it does not answer."""

    streams: NotRequired[Count]
    candles: NotRequired[Count]
    spans: NotRequired[Annotated[Count, "Ranges without missing candles."]]
    file_bytes: NotRequired[Count]
    queued: NotRequired[Annotated[Count, "Candles that wait to be written."]]
    dropped: NotRequired[Annotated[Count, "Candles that were dropped because too many waited."]]
    problem: str | None
    replacements: Annotated[Count, "How often the store continued with another file because the file was lost."]
    set_aside: list[AsideStatus]


class RefusedPlugin(TypedDict):
    """A plugin that cannot be used."""

    source: str


class Block(TypedDict):
    """The last time that a provider blocked the event loop."""

    time: Annotated[float, "Unix seconds."]
    place: Annotated[str, "The place in its code."]


class BlockedLoop(TypedDict):
    """How often a provider blocked the event loop, and how long."""

    count: Count
    longest_s: float
    last: Block | None


class ProviderStatus(TypedDict):
    """One provider and its connections."""

    name: str
    uses: Annotated[str | None, "The provider of which it is another instance; null for the provider itself."]
    title: str
    source: Annotated[str, "Where the plugin came from."]
    state: Literal["ok", "degraded", "unavailable"]
    message: Annotated[str, "Why it is not ok."]
    wait_s: Annotated[
        float | None, "For so long the provider takes no requests, or its budget allows none; null if it does."
    ]
    wait_reason: Annotated[str, "Why not."]
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
    compared: Annotated[Count, "Closed candles that were compared with the provider's history later."]
    differed: Annotated[Count, "Those of them that had other values there."]
    past_changes: Annotated[Count, "Reports that the provider changed its history, for example after a split."]
    lag_spread_ms: Annotated[Spread | None, "From the provider's time of an update to its arrival."]
    reconnects: Annotated[dict[str, int], "Connections that were lost, by cause."]
    backfills: Count
    longest_recovery_s: float
    instruments: Annotated[Count, "Instruments that are known of it."]
    instruments_complete: Annotated[
        bool, "Whether these are all: false for a provider that is asked symbol by symbol, or has no list."
    ]
    messages_skipped: Annotated[Count, "Invalid messages."]
    hooks_failed: Annotated[Count, "Calls of the plugin that failed because of an error in the plugin."]
    tasks_killed: Annotated[Count, "Feeds and calls that did not end when they were cancelled."]
    blocked_loop: BlockedLoop


class BudgetStatus(TypedDict):
    """A limit of a provider."""

    provider: str
    name: str
    limit: Count
    used: Count
    reserved: Annotated[int | None, "The part of `left` that is reserved for history; null if nothing is reserved."]
    left: Count
    resets_at: Annotated[float, "Unix seconds."]
    resets_in_s: float


class StreamEvent(TypedDict):
    """Something that happened to a stream."""

    time: Annotated[float, "Unix seconds."]
    event: str


class StreamObject(TypedDict):
    """One stream that somebody is subscribed to, or was a moment ago, or that another one is built from."""

    symbol: Symbol
    interval: Interval
    built_from: Annotated[Interval | None, "The interval that the relay builds it from; null if the provider has it."]
    provider: str
    status: StreamState
    message: str
    subscribers: Count
    kept_by: Annotated[
        list[str],
        "What keeps it apart from subscribers: `polls of charting libraries (UDF)`, `candles of 5m` that are built "
        "from it, `a client that waits for its past`. Without either it ends after `linger_seconds`.",
    ]
    last_update: Annotated[float | None, "Unix seconds."]
    lag_ms: Annotated[float | None, "From the provider's time of the last update to its arrival."]
    session: Annotated[str | None, "Weekly trading hours: `0930-1600 America/New_York`, `24x7`; null where unknown."]
    next_poll: Annotated[float | None, "Unix seconds; null for streams that are not polled."]
    poll_every_s: float | None
    seq: Count
    conflated: Count
    gaps: Count
    open_gaps: Annotated[list[list[int]], "Ranges that are not available: from, to."]
    reconnects: Count
    backfilled: Count
    revised: Count
    duplicates: Count
    late: Count
    events: Annotated[list[StreamEvent], "The latest, oldest first."]


class FacadeStatus(TypedDict):
    """What a facade did for programs that speak another service's protocol."""

    name: str
    title: Annotated[str, "The programs that it answers, in words."]
    requests: Annotated[dict[str, int], "Requests answered, by the last part of their path."]
    upstream_calls: Annotated[Count, "Calls to the provider that these requests caused."]
    upstream_weight: Annotated[Count, "What these calls cost, in units of the provider's budget."]
    weight_asked: Annotated[Count, "What the same requests would have cost the programs at the provider itself."]
    weight_saved: Count
    live_series: Annotated[Count, "Series and order books that are followed live because programs poll them."]


class ClusterRelay(TypedDict):
    """One of several relays."""

    node: str
    id: Annotated[str, "Names this run of it."]
    here: Annotated[bool, "True for the relay that answers."]
    shards: Annotated[Count, "Shards that it carries for all."]
    differs: Annotated[
        list[str], "Providers that it does not share with the relay that answers, because settings of them differ."
    ]


class ClusterShard(TypedDict):
    """A part of the streams of a provider, which one relay carries for all."""

    shard: Annotated[
        str, "Provider, number of its shards, which of them, and a mark of settings: `binance.1.0.5f0c12ab`."
    ]
    provider: str
    owner: Annotated[str | None, "The relay that carries it; null if there is none."]
    owners: Annotated[Count, "2 during a hand-over."]
    here: Annotated[Literal["none", "own", "all"], "What this relay carries: `own` is what its own clients want."]
    contested: Annotated[bool, "Two relays have carried it for too long."]
    unowned_s: Annotated[float, "For how long no relay has carried it."]


class ClusterBus(TypedDict):
    """The connection to NATS."""

    connected: bool
    round_trip_ms: Spread | None
    sent: Count
    received: Count
    lost: Annotated[Count, "Messages that did not arrive; history has what they said."]
    invalid: Count


class ClusterCalls(TypedDict):
    """Questions for history among relays."""

    asked: Count
    failed: Count
    answered: Count
    compared: Annotated[Count, "Candles of other relays that were compared with the provider's own answer."]
    contradicted: Annotated[Count, "Those that the provider says otherwise."]


class ClusterStatus(TypedDict):
    """This relay among the others."""

    node: str
    namespace: str
    state: Annotated[Literal["joined", "alone"], "`alone`: NATS cannot be used, and it serves its own clients alone."]
    message: str
    alone_count: Annotated[Count, "How often it was alone since the start."]
    budget_parts: Annotated[
        dict[str, int],
        "By provider: of so many equal parts of its limits this relay spends one. Not empty while it is alone, or "
        "another relay has other settings of the provider.",
    ]
    relays: list[ClusterRelay]
    shards: list[ClusterShard]
    bus: ClusterBus
    history_calls: ClusterCalls


class Status(TypedDict):
    """State of the relay."""

    version: str
    epoch: Annotated[str, "Names this run of the server."]
    origins: Annotated[list[str], "Marks of the relays that candles come through, of providers that are relays."]
    server_time: Annotated[float, "The relay's clock in Unix seconds."]
    uptime_s: float
    clients: ClientsStatus
    traffic: Traffic
    history: HistorySources
    store: StoreStatus
    plugins_refused: list[RefusedPlugin]
    providers: list[ProviderStatus]
    connections: Annotated[Count, "Open connections to providers."]
    budgets: list[BudgetStatus]
    streams: list[StreamObject]
    facades: list[FacadeStatus]
    cluster: NotRequired[Annotated[ClusterStatus, "Left out for one relay by itself."]]
