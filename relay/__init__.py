"""The provider author's API: everything a provider plugin needs, and nothing else."""

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
from relay.feed import Accepted, Closing, FeedCodec, Pace, Rejected, websocket_feed
from relay.hookspecs import API_VERSION, hookimpl
from relay.intervals import next_open
from relay.model import Budget, Candle, Instrument, PriceUpdate, ProviderInfo, Setting, StreamKey
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
    "Candle",
    "Clock",
    "Closing",
    "FeedCodec",
    "Hosts",
    "Instrument",
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
    "hookimpl",
    "next_open",
    "retry_after_s",
    "websocket_feed",
]
