"""The provider author's API: everything a provider plugin needs, and nothing else."""

from relay.candles import Built, CandleBuilder, enlarge
from relay.clock import Clock, ProviderClock
from relay.errors import (
    AuthenticationFailed,
    BadAnswer,
    ProviderError,
    ProviderTimeout,
    ProviderUnavailable,
    RateLimited,
    UnknownSymbol,
)
from relay.intervals import next_open, open_time
from relay.model import (
    Budget,
    Candle,
    Instrument,
    OpenHours,
    PriceUpdate,
    ProviderInfo,
    Setting,
    StreamKey,
    is_unreadable,
    unreadable,
)
from relay.numbers import decimal, decimals
from relay.plugins.hookspecs import API_VERSION, hookimpl
from relay.plugins.memory import Memory
from relay.secret import Secret
from relay.sessions import LIST_BOUNDS, PAGE_BOUNDS, Bounds
from relay.upstream.closing import CloseOnNext
from relay.upstream.codec import Accepted, Closing, FeedCodec, Rejected
from relay.upstream.feed import websocket_feed
from relay.upstream.pace import Pace
from relay.upstream.paging import page_candles
from relay.upstream.rest import Hosts, RestAnswer, ask_rest, retry_after_s
from relay.upstream.rows import read_rows
from relay.upstream.watchlist import Watchlist
from relay.version import VERSION

__all__ = [
    "API_VERSION",
    "LIST_BOUNDS",
    "PAGE_BOUNDS",
    "VERSION",
    "Accepted",
    "AuthenticationFailed",
    "BadAnswer",
    "Bounds",
    "Budget",
    "Built",
    "Candle",
    "CandleBuilder",
    "Clock",
    "CloseOnNext",
    "Closing",
    "FeedCodec",
    "Hosts",
    "Instrument",
    "Memory",
    "OpenHours",
    "Pace",
    "PriceUpdate",
    "ProviderClock",
    "ProviderError",
    "ProviderInfo",
    "ProviderTimeout",
    "ProviderUnavailable",
    "RateLimited",
    "Rejected",
    "RestAnswer",
    "Secret",
    "Setting",
    "StreamKey",
    "UnknownSymbol",
    "Watchlist",
    "ask_rest",
    "decimal",
    "decimals",
    "enlarge",
    "hookimpl",
    "is_unreadable",
    "next_open",
    "open_time",
    "page_candles",
    "read_rows",
    "retry_after_s",
    "unreadable",
    "websocket_feed",
]
