"""The provider author's API: everything a provider plugin needs, and nothing else."""

from relay.candles import Built, CandleBuilder, enlarge
from relay.clock import Clock, ProviderClock
from relay.closing import CloseOnNext
from relay.codec import Accepted, Closing, FeedCodec, Rejected
from relay.errors import (
    AuthenticationFailed,
    BadAnswer,
    ProviderError,
    ProviderTimeout,
    ProviderUnavailable,
    RateLimited,
    UnknownSymbol,
)
from relay.feed import websocket_feed
from relay.hookspecs import API_VERSION, hookimpl
from relay.intervals import next_open, open_time
from relay.memory import Memory
from relay.model import Budget, Candle, Instrument, PriceUpdate, ProviderInfo, Setting, StreamKey
from relay.pace import Pace
from relay.paging import page_candles
from relay.rest import Hosts, RestAnswer, ask_rest, retry_after_s
from relay.secret import Secret
from relay.version import VERSION
from relay.watchlist import Watchlist

__all__ = [
    "API_VERSION",
    "VERSION",
    "Accepted",
    "AuthenticationFailed",
    "BadAnswer",
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
    "enlarge",
    "hookimpl",
    "next_open",
    "open_time",
    "page_candles",
    "retry_after_s",
    "websocket_feed",
]
