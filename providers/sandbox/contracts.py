"""The market of contracts: perpetual ones, and those that are delivered on the last Friday of a quarter."""

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta

from providers.sandbox.listings import Contract, Pair, synthetic_pair
from providers.sandbox.market import Market

# As in recorded lists of contracts; times are in UTC, and weekdays as in Python.
NO_DELIVERY_MS = 4_133_404_800_000
_DELIVERY_HOUR = 8
_FRIDAY = 4
_LISTED_BEFORE = 2
"""A contract is listed when the one is delivered that comes so many quarters before it, as in recorded lists."""


def last_friday(year: int, month: int) -> date:
    """Give the last Friday of a month."""
    after = date(year + month // 12, month % 12 + 1, 1)
    day = after - timedelta(days=1)
    return day - timedelta(days=(day.weekday() - _FRIDAY) % 7)


def deliveries(since: date) -> Iterator[date]:
    """Yield the days of delivery from a day on, one a quarter."""
    year, month = since.year, (since.month - 1) // 3 * 3 + 3
    while True:
        if (day := last_friday(year, month)) >= since:
            yield day
        year, month = (year + 1, 3) if month == 12 else (year, month + 3)


def moment_ms(day: date) -> int:
    """Give the time of a day at which contracts are listed and delivered, in Unix milliseconds."""
    return int(datetime(day.year, day.month, day.day, _DELIVERY_HOUR, tzinfo=UTC).timestamp()) * 1000


def perpetual(pair: Pair, kind: str = "PERPETUAL", delivered: date | None = None) -> Pair:
    """Give the perpetual contract on a pair; with a last day for one that is ended."""
    end = None if delivered is None else moment_ms(delivered)
    contract = Contract(kind, pair.symbol, moment_ms(pair.listed), end)
    return pair._replace(contract=contract, delisted=None if delivered is None else delivered + timedelta(days=1))


def dated(pair: Pair, day: date, kind: str) -> Pair:
    """Give the contract on a pair that is delivered on a day."""
    earlier = date(day.year - 1, day.month, 1)
    listed = [one for one, _ in zip(deliveries(earlier), range(8), strict=False) if one < day][-_LISTED_BEFORE]
    contract = Contract(kind, pair.symbol, moment_ms(listed), moment_ms(day))
    symbol = f"{pair.symbol}_{day:%y%m%d}"
    few = max(2_000, pair.trades_per_day // 60)
    return pair._replace(
        symbol=symbol, contract=contract, listed=listed, delisted=day + timedelta(days=1), trades_per_day=few,
        daily_volume=pair.daily_volume / 60,
    )  # fmt: skip


def contracts(today: date, extra_symbols: int = 0) -> dict[str, Pair]:
    """List the contracts of a day, with as many synthetic ones (`T001USDT` and so on) as asked for."""
    # fmt: off
    bitcoin = Pair("BTCUSDT", "BTC", "USDT", 71000.0, 1, 3, 150_000.0, 4_100_000, 0.026, date(2019, 9, 25))
    ether = Pair("ETHUSDT", "ETH", "USDT", 2150.0, 2, 3, 4_000_000.0, 4_300_000, 0.037, date(2019, 11, 27))
    found = [
        perpetual(bitcoin),
        perpetual(ether),
        perpetual(Pair("BNBUSDT", "BNB", "USDT", 630.0, 2, 2, 610_000.0, 800_000, 0.025, date(2020, 2, 10))),
        perpetual(Pair("SOLUSDT", "SOL", "USDT", 96.0, 2, 2, 21_000_000.0, 1_500_000, 0.043, date(2020, 9, 14))),
        perpetual(Pair("XRPUSDT", "XRP", "USDT", 1.42, 4, 1, 480_000_000.0, 900_000, 0.041, date(2020, 1, 6))),
        perpetual(Pair("ADAUSDT", "ADA", "USDT", 0.2715, 4, 0, 410_000_000.0, 200_000, 0.046, date(2020, 1, 31))),
        perpetual(Pair("DOGEUSDT", "DOGE", "USDT", 0.0964, 5, 0, 3_900_000_000.0, 700_000, 0.045, date(2020, 7, 10))),
        perpetual(Pair("1000PEPEUSDT", "1000PEPE", "USDT", 0.00412, 7, 0, 9e10, 450_000, 0.06, date(2023, 5, 5))),
        perpetual(Pair("BTCUSDC", "BTC", "USDC", 71000.0, 1, 3, 9_000.0, 600_000, 0.026, date(2024, 1, 3))),
        perpetual(Pair("币安人生USDT", "币安人生", "USDT", 0.1183, 4, 0, 9e7, 90_000, 0.07, date(2025, 10, 9))),
        perpetual(Pair("TSLAUSDT", "TSLA", "USDT", 402.0, 2, 2, 300_000.0, 60_000, 0.03, date(2026, 1, 28)),
                  "TRADIFI_PERPETUAL"),
        perpetual(Pair("NKNUSDT", "NKN", "USDT", 0.0182, 4, 0, 60_000_000.0, 9_000, 0.06, date(2020, 6, 5),
                       status="SETTLING"), delivered=date(2025, 7, 4)),
    ]
    # fmt: on
    coming = deliveries(today)
    for kind in ("CURRENT_QUARTER", "NEXT_QUARTER"):
        day = next(coming)
        found += [dated(bitcoin, day, kind), dated(ether, day, kind)]
    found += [perpetual(synthetic_pair(f"T{number:03d}USDT")) for number in range(1, extra_symbols + 1)]
    return {pair.symbol: pair for pair in found}


class ContractMarket(Market):
    """A market of its own, of contracts: `crypto` has those that are listed on `today`.

    There is no market of a contract before it is listed, nor after it is delivered. With the seed of the market of spot
    perpetual contracts are about as dear as what they are on; dated ones go their own way.
    """

    def __init__(self, seed: int | str = 1, *, today: date, extra_symbols: int = 0) -> None:
        super().__init__(seed)
        self.crypto = contracts(today, extra_symbols)

    def spans(self, symbol: str, start_ms: int, end_ms: int) -> list[tuple[int, int]]:
        """Give the part of a stretch in which the contract is traded."""
        contract = self.pair(symbol).contract
        if contract is None:
            return [(start_ms, end_ms)]
        start = max(start_ms, contract.listed_ms)
        end = end_ms if contract.delivered_ms is None else min(end_ms, contract.delivered_ms)
        return [(start, end)] if start < end else []

    def status(self, pair: Pair, now_ms: int) -> str:
        """Tell the status of a contract: once it is delivered, it is settled."""
        contract = pair.contract
        is_over = contract is not None and contract.delivered_ms is not None and contract.delivered_ms <= now_ms
        return "SETTLING" if is_over else pair.status


def contract_info(pair: Pair, status: str) -> dict[str, object]:
    """Write a contract as an entry of exchangeInfo."""
    contract = pair.contract
    assert contract is not None
    tick, step = _step(pair.price_decimals), _step(pair.volume_decimals)
    is_stock = contract.kind == "TRADIFI_PERPETUAL"
    return {
        "symbol": pair.symbol,
        "pair": contract.pair,
        "contractType": contract.kind,
        "deliveryDate": contract.delivered_ms or NO_DELIVERY_MS,
        "onboardDate": contract.listed_ms,
        "status": status,
        "maintMarginPercent": "2.5000",
        "requiredMarginPercent": "5.0000",
        "baseAsset": pair.base,
        "quoteAsset": pair.quote,
        "marginAsset": pair.quote,
        "pricePrecision": pair.price_decimals,
        "quantityPrecision": pair.volume_decimals,
        "baseAssetPrecision": 8,
        "quotePrecision": 8,
        "underlyingType": "EQUITY" if is_stock else "COIN",
        "underlyingSubType": ["TradFi"] if is_stock else ["PoW"],
        "triggerProtect": "0.0500",
        "liquidationFee": "0.012500",
        "marketTakeBound": "0.05",
        "maxMoveOrderLimit": 10000,
        "filters": [
            {"maxPrice": "4529764", "filterType": "PRICE_FILTER", "tickSize": tick, "minPrice": tick},
            {"filterType": "LOT_SIZE", "maxQty": "1000000", "minQty": step, "stepSize": step},
            {"maxQty": "120", "minQty": step, "filterType": "MARKET_LOT_SIZE", "stepSize": step},
            {"filterType": "MAX_NUM_ORDERS", "limit": 200},
            {"filterType": "MIN_NOTIONAL", "notional": "5"},
            {"multiplierDown": "0.9500", "multiplierUp": "1.0500", "multiplierDecimal": "4",
             "filterType": "PERCENT_PRICE"},
            {"positionControlSide": "NONE", "filterType": "POSITION_RISK_CONTROL"},
        ],
        "orderTypes": ["LIMIT", "MARKET", "STOP", "STOP_MARKET", "TAKE_PROFIT", "TAKE_PROFIT_MARKET",
                       "TRAILING_STOP_MARKET"],
        "timeInForce": ["GTC", "IOC", "FOK", "GTX", "GTD"],
        "permissionSets": ["GRID", "COPY"],
    }  # fmt: skip


def _step(decimals: int) -> str:
    return f"0.{'1'.rjust(decimals, '0')}" if decimals else "1"
