"""How Binance writes numbers, klines and kline events; pure."""

import re
from typing import NamedTuple

from providers.sandbox.listings import Pair
from providers.sandbox.parts import Part

INTERVALS = ("1s", "1m", "3m", "5m", "15m", "30m", "1h", "2h", "4h", "6h", "8h", "12h", "1d", "3d", "1w", "1M")
CONTRACT_INTERVALS = INTERVALS[1:]
"""USD-M, "Kline/Candlestick Streams"; `1s` was measured to be refused there."""

_KLINE = re.compile(r"kline_([0-9]+[a-zA-Z])(?:@([+-])(\d{2}):(\d{2}))?")
_OTHER = re.compile(
    r"(aggTrade|trade|bookTicker|miniTicker|ticker|avgPrice|referencePrice|blockTrade"
    r"|ticker_(1h|4h|1d)|depth(5|10|20)?(@100ms|@1000ms)?)"
)
_ALL_MARKET = re.compile(r"!(ticker|miniTicker|bookTicker|ticker_(1h|4h|1d))(@arr)?(@\d+ms)?")


class StreamName(NamedTuple):
    """A stream name taken apart; `interval` is None for everything that is no kline."""

    symbol: str
    interval: str | None
    shift_ms: int


def parse_stream(name: str) -> StreamName | None:
    """Take a stream name apart; None if it cannot be one. A symbol that does not exist is no matter here."""
    if _ALL_MARKET.fullmatch(name):
        return StreamName("", None, 0)
    symbol, at, kind = name.partition("@")
    if not at or not symbol or any(letter.isspace() for letter in symbol):
        return None
    match = _KLINE.fullmatch(kind)
    if match is None:
        return StreamName(symbol, None, 0) if _OTHER.fullmatch(kind) else None
    interval, sign, hours, minutes = match.groups()
    if interval not in INTERVALS:
        return None
    shift = 0
    if sign is not None:
        shift = (int(hours) * 60 + int(minutes)) * 60_000 * (-1 if sign == "-" else 1)
    # Upper-case letters name no stream, so such a name is kept but never matches a pair.
    known = symbol.upper() if symbol == symbol.lower() else ""
    return StreamName(known, interval, shift)


def parse_book(name: str) -> tuple[str, int, int] | None:
    """Take a name such as `btcusdt@depth20@100ms` apart: symbol, levels, and milliseconds from event to event."""
    match = re.fullmatch(r"([^@A-Z\s]+)@depth(5|10|20)(?:@(100|1000)ms)?", name)
    return None if match is None else (match[1].upper(), int(match[2]), int(match[3] or 1000))


def parse_continuous(name: str) -> tuple[str, str, str] | None:
    """Take a name such as `btcusdt_perpetual@continuousKline_1m` apart: pair, kind of contract and interval."""
    match = re.fullmatch(r"([^@\s]+?)_([a-z_]+)@continuousKline_([0-9]+[a-zA-Z])", name)
    if match is None or match[3] not in CONTRACT_INTERVALS:
        return None
    return match[1].upper(), match[2].upper(), match[3]


def parse_zone(text: str) -> int | None:
    """Read a `timeZone` value such as `0`, `8`, `-1:00` or `05:45` as milliseconds; None if it is no zone."""
    match = re.fullmatch(r"([+-]?)(\d{1,2})(?::(\d{2}))?", text)
    if match is None:
        return None
    minutes = int(match[2]) * 60 + int(match[3] or 0)
    if match[1] == "-":
        minutes = -minutes
    return minutes * 60_000 if -720 <= minutes <= 840 else None


def fixed(value: int, decimals: int) -> str:
    """Write a count of 10**-decimals units with eight decimals; more are cut off."""
    digits = str(value * 10**8 // 10**decimals).rjust(9, "0")
    return f"{digits[:-8]}.{digits[-8:]}"


def exact(value: int, decimals: int) -> str:
    """Write a count of 10**-decimals units with so many decimals."""
    digits = str(value).rjust(decimals + 1, "0")
    return f"{digits[:-decimals]}.{digits[-decimals:]}" if decimals else digits


def written(pair: Pair, value: int, decimals: int) -> str:
    """Write a number of a symbol: those of contracts have as many decimals as they need."""
    return fixed(value, decimals) if pair.contract is None else exact(value, decimals)


def row(pair: Pair, part: Part, close_ms: int, *, microseconds: bool = False) -> list[object]:
    """Write a candle as a row of the klines call; `close_ms` is its last millisecond."""
    opened, closed = part.start, close_ms
    if microseconds:
        opened, closed = opened * 1000, closed * 1000 + 999
    prices, volumes = pair.price_decimals, pair.volume_decimals
    return [
        opened,
        written(pair, part.open, prices),
        written(pair, part.high, prices),
        written(pair, part.low, prices),
        written(pair, part.close, prices),
        written(pair, part.volume, volumes),
        closed,
        written(pair, part.quote, prices + volumes),
        part.trades,
        written(pair, part.taker, volumes),
        written(pair, part.taker_quote, prices + volumes),
        "0",
    ]


def event(pair: Pair, interval: str, part: Part, close_ms: int, event_ms: int, is_final: bool) -> dict[str, object]:
    """Write a candle as a kline event, in the exchange's order of keys."""
    prices, volumes = pair.price_decimals, pair.volume_decimals
    return {
        "e": "kline",
        "E": event_ms,
        "s": pair.symbol,
        "k": {
            "t": part.start,
            "T": close_ms,
            "s": pair.symbol,
            "i": interval,
            "f": part.first_id if part.trades else -1,
            "L": part.last_id if part.trades else -1,
            "o": written(pair, part.open, prices),
            "c": written(pair, part.close, prices),
            "h": written(pair, part.high, prices),
            "l": written(pair, part.low, prices),
            "v": written(pair, part.volume, volumes),
            "n": part.trades,
            "x": is_final,
            "q": written(pair, part.quote, prices + volumes),
            "V": written(pair, part.taker, volumes),
            "Q": written(pair, part.taker_quote, prices + volumes),
            "B": "0",
        },
    }


def in_microseconds(message: dict[str, object]) -> dict[str, object]:
    """Give an event with its times in microseconds: a kline event has three, an order book none."""
    kline = message.get("k")
    if kline is None:
        return message
    assert isinstance(kline, dict)
    changed = {**kline, "t": kline["t"] * 1000, "T": kline["T"] * 1000 + 999}
    stamp = message["E"]
    assert isinstance(stamp, int)
    return {**message, "E": stamp * 1000, "k": changed}


def symbol_info(pair: Pair, *, permission_sets: bool) -> dict[str, object]:
    """Write a pair as an entry of exchangeInfo."""
    tick, step = fixed(1, pair.price_decimals), fixed(1, pair.volume_decimals)
    info: dict[str, object] = {
        "symbol": pair.symbol,
        "status": pair.status,
        "baseAsset": pair.base,
        "baseAssetPrecision": 8,
        "quoteAsset": pair.quote,
        "quotePrecision": 8,
        "quoteAssetPrecision": 8,
        "baseCommissionPrecision": 8,
        "quoteCommissionPrecision": 8,
        "orderTypes": ["LIMIT", "LIMIT_MAKER", "MARKET", "STOP_LOSS", "STOP_LOSS_LIMIT", "TAKE_PROFIT",
                       "TAKE_PROFIT_LIMIT"],
        "icebergAllowed": True,
        "ocoAllowed": True,
        "otoAllowed": True,
        "opoAllowed": True,
        "quoteOrderQtyMarketAllowed": True,
        "allowTrailingStop": True,
        "cancelReplaceAllowed": True,
        "amendAllowed": True,
        "pegInstructionsAllowed": True,
        "isSpotTradingAllowed": True,
        "isMarginTradingAllowed": pair.quote == "USDT",
        "filters": [
            {"filterType": "PRICE_FILTER", "minPrice": tick, "maxPrice": "1000000.00000000", "tickSize": tick},
            {"filterType": "LOT_SIZE", "minQty": step, "maxQty": "9000000.00000000", "stepSize": step},
            {"filterType": "ICEBERG_PARTS", "limit": 10},
            {"filterType": "MARKET_LOT_SIZE", "minQty": "0.00000000", "maxQty": "100.00000000",
             "stepSize": "0.00000000"},
            {"filterType": "TRAILING_DELTA", "minTrailingAboveDelta": 10, "maxTrailingAboveDelta": 2000,
             "minTrailingBelowDelta": 10, "maxTrailingBelowDelta": 2000},
            {"filterType": "PERCENT_PRICE_BY_SIDE", "bidMultiplierUp": "5", "bidMultiplierDown": "0.2",
             "askMultiplierUp": "5", "askMultiplierDown": "0.2", "avgPriceMins": 5},
            {"filterType": "NOTIONAL", "minNotional": "5.00000000", "applyMinToMarket": True,
             "maxNotional": "9000000.00000000", "applyMaxToMarket": False, "avgPriceMins": 5},
            {"filterType": "MAX_NUM_ORDERS", "maxNumOrders": 200},
            {"filterType": "MAX_NUM_ALGO_ORDERS", "maxNumAlgoOrders": 5},
        ],
        "permissions": [],
        "permissionSets": [],
        "defaultSelfTradePreventionMode": "EXPIRE_MAKER",
        "allowedSelfTradePreventionModes": ["EXPIRE_TAKER", "EXPIRE_MAKER", "EXPIRE_BOTH", "DECREMENT", "TRANSFER"],
    }  # fmt: skip
    if permission_sets:
        # Real pairs carry hundreds of group names here; clients must not choke on the size.
        groups = [f"TRD_GRP_{number:03d}" for number in range(2, 210)]
        margin = ["MARGIN"] if pair.quote == "USDT" else []
        info["permissionSets"] = [["SPOT", *margin, *groups]]
    return info
