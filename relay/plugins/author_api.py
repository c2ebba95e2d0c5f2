"""What `from relay import …` gives to authors of provider plugins, from where it stands."""

from relay.core.candle_builder import Built, CandleBuilder, enlarge
from relay.core.clock import Clock, ProviderClock
from relay.core.decimals import decimal, decimals
from relay.core.errors import (
    AuthenticationFailed,
    BadAnswer,
    ProviderError,
    ProviderTimeout,
    ProviderUnavailable,
    RateLimited,
    UnknownSymbol,
)
from relay.core.intervals import next_open, open_time
from relay.core.model import (
    Budget,
    Candle,
    ExtendedCandle,
    Instrument,
    NativeAnswer,
    NativeLive,
    NativeUpdate,
    OpenHours,
    PriceUpdate,
    ProviderInfo,
    Setting,
    StreamKey,
    is_unreadable,
    is_widened,
    unreadable,
)
from relay.core.past_change import PastChange
from relay.core.saved_value import Memory
from relay.core.secret import Secret
from relay.core.trading_calendar import TradingCalendar
from relay.core.version import VERSION
from relay.core.written_numbers import written_candle
from relay.network.http_sessions import LIST_BOUNDS, PAGE_BOUNDS, Bounds, open_session
from relay.plugins.hookspecs import API_MINOR, API_VERSION, hookimpl
from relay.telemetry.events import event
from relay.upstream.close_on_next import CloseOnNext
from relay.upstream.codec import Accepted, Closing, FeedCodec, Rejected
from relay.upstream.each_stream import each_stream
from relay.upstream.leaps import Leaps
from relay.upstream.paging import page_candles
from relay.upstream.rate_limit import Pace
from relay.upstream.rest import Hosts, RestAnswer, ask_rest, retry_after_s
from relay.upstream.rows import read_rows
from relay.upstream.watchlist import Watchlist
from relay.upstream.websocket_feed import native_websocket_feed, websocket_feed

__all__ = [
    "API_MINOR",
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
    "ExtendedCandle",
    "FeedCodec",
    "Hosts",
    "Instrument",
    "Leaps",
    "Memory",
    "NativeAnswer",
    "NativeLive",
    "NativeUpdate",
    "OpenHours",
    "Pace",
    "PastChange",
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
    "TradingCalendar",
    "UnknownSymbol",
    "Watchlist",
    "ask_rest",
    "decimal",
    "decimals",
    "each_stream",
    "enlarge",
    "event",
    "hookimpl",
    "is_unreadable",
    "is_widened",
    "native_websocket_feed",
    "next_open",
    "open_session",
    "open_time",
    "page_candles",
    "read_rows",
    "retry_after_s",
    "unreadable",
    "websocket_feed",
    "written_candle",
]
