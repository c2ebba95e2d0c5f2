"""What differs from one market of Binance to another."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from providers.binance_markets.codec import CombinedCodec, KlineCodec
from relay import Instrument, NativeLive

Query = Mapping[str, str]
Weigh = Callable[[Query], int]


def no_live(path: str, query: Query) -> NativeLive | None:
    """Say that no stream has an answer."""
    return None


class MarketRules(NamedTuple):
    """One market: what its provider is called, and how it is asked.

    A connection carries at most `streams_per_feed` streams at `ws_urls`, which `codec` reads. `root` begins the paths
    of REST at `rest_urls`. What symbols look like is their `symbol_form`; with `always_pinned` they are nothing without
    the name of the provider.

    An address may use `weight_a_minute`. A page of klines has at most `klines_page` rows; `native_weights` has what is
    passed on as it is, by path behind the root, with what each call weighs, `klines` and `exchangeInfo` among them.
    `list_query` asks for the list of instruments, of which `instrument` reads one entry. `live` names the stream that
    has the answer to a request of what is passed on, and `live_codec` reads such streams, where there are any.
    """

    name: str
    title: str
    asset_class: str
    intervals: tuple[str, ...]
    ws_urls: tuple[str, ...]
    rest_urls: tuple[str, ...]
    streams_per_feed: int
    root: str
    codec: type[KlineCodec]
    weight_a_minute: int
    klines_page: int
    list_query: Query
    instrument: Callable[[Mapping[str, Any]], Instrument]
    native_weights: Mapping[str, Weigh]
    live: Callable[[str, Query], NativeLive | None] = no_live
    live_codec: type[CombinedCodec] | None = None
    symbol_form: str = ""
    always_pinned: bool = False


def flat(weight: int) -> Weigh:
    """Weigh each call the same."""
    return lambda query: weight


def limit_in(query: Query, default: int, most: int) -> int:
    """Return how many rows a query asks for: `most` where that is no number."""
    limit = query.get("limit")
    if limit is None:
        return default
    return min(most, int(limit)) if limit.isascii() and limit.isdigit() and len(limit) < 10 else most
