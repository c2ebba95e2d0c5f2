"""The names of Binance's streams; pure.

web-socket-streams.md in https://github.com/binance/binance-spot-api-docs lists them, as of 2026-07-21; those of futures
have a page each at https://developers.binance.com/docs/derivatives/usds-margined-futures/websocket-market-streams.
"""

import re
from enum import Enum, auto
from typing import NamedTuple

from relay.core.intervals import INTERVALS

_KLINE = re.compile(r"kline_([0-9]{1,2}[a-zA-Z])")
_OTHER = re.compile(
    r"kline_[0-9]{1,2}[a-zA-Z]@[+-][0-9]{2}:[0-9]{2}|aggTrade|trade|blockTrade|bookTicker|miniTicker|ticker"
    r"|ticker_(?:1h|4h|1d)|avgPrice|referencePrice|depth(?:5|10|20)?(?:@[0-9]{2,5}ms)?|markPrice(?:@1s)?|forceOrder"
    r"|(?:continuous|indexPrice|markPrice)Kline_[0-9]{1,2}[a-zA-Z]|rpiDepth(?:@[0-9]{2,5}ms)?|compositeIndex"
)
_OF_ALL_PAIRS = re.compile(r"![a-zA-Z_0-9]+(?:@arr)?(?:@[0-9]{1,5}(?:ms|s))?")


class NameKind(Enum):
    """What a text names."""

    KLINES = auto()
    OTHER = auto()
    """A stream that the relay does not have."""
    NOTHING = auto()


class StreamName(NamedTuple):
    """A stream name taken apart; a stream that is not of klines has neither symbol nor interval.

    Upper-case letters name no stream, so the symbol of such a name is empty.
    """

    kind: NameKind
    symbol: str = ""
    interval: str = ""


_NOTHING, _OTHERS = StreamName(NameKind.NOTHING), StreamName(NameKind.OTHER)


def stream_name(text: object) -> StreamName:
    """Take a stream name apart. Whether there is such a symbol is not asked here."""
    if not isinstance(text, str) or len(text) > 100:
        return _NOTHING
    if _OF_ALL_PAIRS.fullmatch(text):
        return _OTHERS
    symbol, _, kind = text.partition("@")
    if not symbol or not kind or any(one.isspace() for one in symbol):
        return _NOTHING
    if _OTHER.fullmatch(kind):
        return _OTHERS
    found = _KLINE.fullmatch(kind)
    if found is None or found[1] not in INTERVALS:
        return _NOTHING
    return StreamName(NameKind.KLINES, symbol.upper() if symbol == symbol.lower() else "", found[1])
