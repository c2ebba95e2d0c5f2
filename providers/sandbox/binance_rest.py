"""The REST side of the Binance stand-in: selection of rows, weights, errors."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence

import orjson
from aiohttp import web

from providers.sandbox.binance_klines import INTERVALS, parse_zone, row, symbol_info
from providers.sandbox.binance_parameters import (
    Refusal,
    check_duplicates,
    check_names,
    check_symbol,
    moment,
    number,
    required,
)
from providers.sandbox.binance_tickers import Tickers, Weight
from providers.sandbox.clock import SandboxClock
from providers.sandbox.intervals import end_time, open_time
from providers.sandbox.listings import DAY_MS, Pair
from providers.sandbox.market import Market

_STATUSES = ("TRADING", "END_OF_DAY", "HALT", "BREAK", "CANCEL_ONLY")


def flat(weight: int) -> Weight:
    """Weigh each call the same."""
    return lambda query: weight


class BinanceRest:
    """Answer the public REST calls from the market, counting weights by the exchange's clock minute."""

    tickers_type = Tickers

    def __init__(self, market: Market, clock: SandboxClock, *, weight_limit: int, ban_after: int, ban_s: float) -> None:
        self._market = market
        self._clock = clock
        self.weight_limit = weight_limit
        self.ban_after = ban_after
        self.ban_s = ban_s
        self.weight_used = 0
        self.banned_until_ms = 0
        self._minute = 0
        self._refused_in_row = 0
        self._calls = self._routes()
        self.tickers = self.tickers_type(market, clock)

    def _routes(self) -> dict[str, tuple[Weight, Callable[[web.Request], object]]]:
        """Give the calls by path, each with what it weighs."""
        return {
            "/api/v3/ping": (flat(1), self._ping),
            "/api/v3/time": (flat(1), self._time),
            "/api/v3/klines": (flat(2), self._klines),
            "/api/v3/uiKlines": (flat(2), self._klines),
            "/api/v3/exchangeInfo": (flat(20), self._exchange_info),
        }

    def answer(self, request: web.Request) -> web.Response:
        """Answer a request."""
        weigh, call = self._calls.get(request.path, (flat(1), None))
        weight = weigh(request.query)
        if (ticker := self.tickers.calls.get(request.path)) is not None:
            weight, call = ticker[0](request.query), lambda asked: ticker[1](asked.query)
        self._count(weight)
        headers = {}
        try:
            self._check_limit()
            if call is None or request.method != "GET":
                response = web.Response(status=404 if call is None else 405)
            else:
                response = _json(call(request))
        except Refusal as refusal:
            headers = refusal.headers
            response = _json({"code": refusal.code, "msg": refusal.message}, refusal.status)
        response.headers.update(headers)
        response.headers["X-MBX-USED-WEIGHT"] = str(self.weight_used)
        response.headers["X-MBX-USED-WEIGHT-1M"] = str(self.weight_used)
        return response

    # ---- limits -------------------------------------------------------------------------------------------------

    def _count(self, weight: int) -> None:
        minute = self._clock.now_ms() // 60_000
        if minute != self._minute:
            self._minute, self.weight_used = minute, 0
        self.weight_used += weight

    def _check_limit(self) -> None:
        now = self._clock.now_ms()
        if now < self.banned_until_ms:
            raise self.banned(now)
        if self.weight_used <= self.weight_limit:
            self._refused_in_row = 0
            return
        self._refused_in_row += 1
        if self._refused_in_row > self.ban_after:
            self.banned_until_ms = now + round(self.ban_s * 1000)
            raise self.banned(now)
        raise self.too_many(60 - now // 1000 % 60)

    def too_many(self, wait_s: int) -> Refusal:
        """Refuse a call above the limit of this minute, which ends in so many seconds."""
        return Refusal(
            -1003,
            f"Too much request weight used; current limit is {self.weight_limit} request weight per 1 MINUTE. "
            "Please use WebSocket Streams for live updates to avoid polling the API.",
            429,
            {"Retry-After": str(wait_s)},
        )

    def banned(self, now: int) -> Refusal:
        """Refuse a call of an address that is banned."""
        wait = -(-(self.banned_until_ms - now) // 1000)
        return Refusal(
            -1003,
            f"Way too much request weight used; IP banned until {self.banned_until_ms}. "
            "Please use WebSocket Streams for live updates to avoid bans.",
            418,
            {"Retry-After": str(wait)},
        )

    # ---- calls --------------------------------------------------------------------------------------------------

    def _ping(self, request: web.Request) -> object:
        check_names(request.query, ())
        return {}

    def _time(self, request: web.Request) -> object:
        check_names(request.query, ())
        now = self._clock.now_ms()
        return {"serverTime": now * 1000 if _wants_microseconds(request) else now}

    def _klines(self, request: web.Request) -> object:
        query = request.query
        names = ("symbol", "interval", "startTime", "endTime", "limit", "timeZone")
        check_duplicates(query)
        symbol, interval = required(query, "symbol"), required(query, "interval")
        check_names(query, names)
        check_symbol(symbol)
        start, end = moment(query, "startTime"), moment(query, "endTime")
        limit = number(query, "limit", 500)
        if limit < 1:
            raise Refusal(-1130, "Data sent for parameter 'limit' is not valid.")
        shift = 0
        if "timeZone" in query:
            zone = parse_zone(query["timeZone"])
            if zone is None:
                raise Refusal(-1130, "Data sent for parameter 'timeZone' is not valid.")
            shift = zone
        pair = self._market.crypto.get(symbol)
        if pair is None:
            raise Refusal(-1121, "Invalid symbol.")
        if interval not in INTERVALS:
            raise Refusal(-1120, "Invalid interval.")
        micro = _wants_microseconds(request)
        return self.klines(pair, interval, start, end, min(limit, 1000), shift, microseconds=micro)

    def klines(
        self, pair: Pair, interval: str, start: int | None, end: int | None, limit: int, shift: int = 0,
        *, microseconds: bool = False,
    ) -> list[Sequence[object]]:  # fmt: skip
        """Select rows as the exchange does; times are in milliseconds and both ends inclusive on the open time."""
        rows: list[Sequence[object]] = []
        now = self._clock.now_ms()
        for opened in self._opens(pair, interval, start, end, shift, now):
            ends = end_time(interval, opened, shift)
            if not self._market.exists(pair.symbol, opened, ends):
                continue
            part = self._market.candle(pair.symbol, interval, opened, now + 1, shift)
            rows.append(row(pair, part, self._market.last_ms(pair.symbol, opened, ends), microseconds=microseconds))
            if len(rows) == limit:
                break
        if start is None:
            rows.reverse()
        return rows

    def _opens(
        self, pair: Pair, interval: str, start: int | None, end: int | None, shift: int, now: int
    ) -> Iterator[int]:
        """Walk over open times: forwards from a start, else backwards from the end."""
        listed = pair.listed_day
        earliest = open_time(interval, listed * DAY_MS, listed, shift)
        newest = now if pair.delisted_day is None else min(now, pair.delisted_day * DAY_MS - 1)
        newest = newest if end is None else min(newest, end)
        if newest < earliest:
            return
        last = open_time(interval, newest, listed, shift)
        if start is None:
            opened = last
            while opened >= earliest:
                yield opened
                opened = open_time(interval, opened - 1, listed, shift)
            return
        opened = open_time(interval, max(start, earliest), listed, shift)
        if opened < start:
            opened = end_time(interval, opened, shift)
        while opened <= last:
            yield opened
            opened = end_time(interval, opened, shift)

    def _exchange_info(self, request: web.Request) -> object:
        query = request.query
        check_duplicates(query)
        check_names(query, ("symbol", "symbols", "permissions", "showPermissionSets", "symbolStatus"))
        sets = query.get("showPermissionSets", "true").lower()
        if sets not in ("true", "false"):
            raise Refusal(-1130, "Data sent for parameter 'showPermissionSets' is not valid.")
        pairs = self._chosen_pairs(query)
        return {
            "timezone": "UTC",
            "serverTime": self._clock.now_ms(),
            "rateLimits": [
                {"rateLimitType": "REQUEST_WEIGHT", "interval": "MINUTE", "intervalNum": 1, "limit": self.weight_limit},
                {"rateLimitType": "ORDERS", "interval": "SECOND", "intervalNum": 10, "limit": 100},
                {"rateLimitType": "ORDERS", "interval": "DAY", "intervalNum": 1, "limit": 200000},
                {"rateLimitType": "RAW_REQUESTS", "interval": "MINUTE", "intervalNum": 5, "limit": 300000},
            ],
            "exchangeFilters": [],
            "symbols": [symbol_info(pair, permission_sets=sets == "true") for pair in pairs],
        }

    def _chosen_pairs(self, query: Mapping[str, str]) -> list[Pair]:
        wanted = [name for name in ("symbol", "symbols", "permissions", "symbolStatus") if name in query]
        if len(wanted) > 1 and set(wanted) != {"permissions", "symbolStatus"}:
            raise Refusal(-1128, "Combination of optional parameters invalid.")
        if "symbol" in query:
            check_symbol(query["symbol"])
            return [self._listed(query["symbol"])]
        if "symbols" in query:
            try:
                names = orjson.loads(query["symbols"])
            except orjson.JSONDecodeError:
                names = None
            if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
                raise Refusal(
                    -1100,
                    "Illegal characters found in parameter 'symbols'; legal range is "
                    r"""'^\["[\w\-._&&[^a-z]]{1,50}"(,"[\w\-._&&[^a-z]]{1,50}")*\]$'.""",
                )
            if len(set(names)) < len(names):
                raise Refusal(-1151, "Symbol is present multiple times in the list.")
            return [self._listed(name) for name in names]
        pairs = list(self._market.crypto.values())
        if "symbolStatus" in query:
            status = query["symbolStatus"]
            if status not in _STATUSES:
                raise Refusal(-1122, "Invalid symbolStatus.")
            pairs = [pair for pair in pairs if pair.status == status]
        if "permissions" in query:
            asked = set(re.findall(r"\w+", query["permissions"]))
            if not asked & {"SPOT", "LEVERAGED"}:
                pairs = [pair for pair in pairs if "MARGIN" in asked and pair.quote == "USDT"]
        return pairs

    def _listed(self, symbol: str) -> Pair:
        pair = self._market.crypto.get(symbol)
        if pair is None:
            raise Refusal(-1121, "Invalid symbol.")
        return pair


def _json(content: object, status: int = 200) -> web.Response:
    headers = {"Content-Type": "application/json;charset=UTF-8"}
    return web.Response(status=status, body=orjson.dumps(content), headers=headers)


def _wants_microseconds(request: web.Request) -> bool:
    return request.headers.get("X-MBX-TIME-UNIT", "").upper() == "MICROSECOND"
