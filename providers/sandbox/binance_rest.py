"""The REST side of the Binance stand-in: selection of rows, weights, errors."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence

import orjson
from aiohttp import web

from providers.sandbox.binance_rows import INTERVALS, parse_zone, row, symbol_info
from providers.sandbox.clock import SandboxClock
from providers.sandbox.intervals import end_time, open_time
from providers.sandbox.listings import DAY_MS, Pair
from providers.sandbox.market import Market

_SYMBOL_RANGE = r"^[\\w\\-._&&[^a-z]]{1,50}$".replace("\\\\", "\\")
_NUMBER_RANGE = "^[0-9]{1,20}$"
_STATUSES = ("TRADING", "END_OF_DAY", "HALT", "BREAK", "CANCEL_ONLY")
_EARLIEST_MICROSECONDS = 10**14  # as milliseconds this would be the year 5138


class _Refusal(Exception):
    def __init__(self, code: int, message: str, status: int = 400, headers: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.status = status
        self.headers = headers or {}


class BinanceRest:
    """Answer the public REST calls from the market, counting weights by the exchange's clock minute."""

    def __init__(self, market: Market, clock: SandboxClock, *, weight_limit: int, ban_after: int, ban_s: float) -> None:
        self._market = market
        self._clock = clock
        self.weight_limit = weight_limit
        self.ban_after = ban_after
        self.ban_s = ban_s
        self.weight_used = 0
        self.largest_weight_in_a_minute = 0
        self.banned_until_ms = 0
        self._minute = 0
        self._refused_in_row = 0
        self._rows: dict[tuple[str, str], list[Sequence[object]]] = {}
        self._calls: dict[str, tuple[int, Callable[[web.Request], object]]] = {
            "/api/v3/ping": (1, self._ping),
            "/api/v3/time": (1, self._time),
            "/api/v3/klines": (2, self._klines),
            "/api/v3/uiKlines": (2, self._klines),
            "/api/v3/exchangeInfo": (20, self._exchange_info),
        }

    def serve_rows(self, symbol: str, interval: str, rows: Sequence[Sequence[object]]) -> None:
        """Answer klines of a symbol and interval from these rows."""
        self._rows[symbol, interval] = sorted(rows, key=_opened)

    def answer(self, request: web.Request) -> tuple[web.Response, int]:
        """Answer a request; also tell its weight."""
        weight, call = self._calls.get(request.path, (0, None))
        self._count(weight or 1)
        headers = {}
        try:
            self._check_limit()
            if call is None or request.method != "GET":
                response = web.Response(status=404 if call is None else 405)
            else:
                response = _json(call(request))
        except _Refusal as refusal:
            headers = refusal.headers
            response = _json({"code": refusal.code, "msg": refusal.message}, refusal.status)
        response.headers.update(headers)
        response.headers["X-MBX-USED-WEIGHT"] = str(self.weight_used)
        response.headers["X-MBX-USED-WEIGHT-1M"] = str(self.weight_used)
        return response, weight or 1

    # ---- limits -------------------------------------------------------------------------------------------------

    def _count(self, weight: int) -> None:
        minute = self._clock.now_ms() // 60_000
        if minute != self._minute:
            self._minute, self.weight_used = minute, 0
        self.weight_used += weight
        self.largest_weight_in_a_minute = max(self.largest_weight_in_a_minute, self.weight_used)

    def _check_limit(self) -> None:
        now = self._clock.now_ms()
        if now < self.banned_until_ms:
            raise self._ban(now)
        if self.weight_used <= self.weight_limit:
            self._refused_in_row = 0
            return
        self._refused_in_row += 1
        if self._refused_in_row > self.ban_after:
            self.banned_until_ms = now + round(self.ban_s * 1000)
            raise self._ban(now)
        wait = 60 - now // 1000 % 60
        raise _Refusal(
            -1003,
            f"Too much request weight used; current limit is {self.weight_limit} request weight per 1 MINUTE. "
            "Please use WebSocket Streams for live updates to avoid polling the API.",
            429,
            {"Retry-After": str(wait)},
        )

    def _ban(self, now: int) -> _Refusal:
        wait = -(-(self.banned_until_ms - now) // 1000)
        return _Refusal(
            -1003,
            f"Way too much request weight used; IP banned until {self.banned_until_ms}. "
            "Please use WebSocket Streams for live updates to avoid bans.",
            418,
            {"Retry-After": str(wait)},
        )

    # ---- calls --------------------------------------------------------------------------------------------------

    def _ping(self, request: web.Request) -> object:
        _check_names(request.query, ())
        return {}

    def _time(self, request: web.Request) -> object:
        _check_names(request.query, ())
        now = self._clock.now_ms()
        return {"serverTime": now * 1000 if _wants_microseconds(request) else now}

    def _klines(self, request: web.Request) -> object:
        query = request.query
        names = ("symbol", "interval", "startTime", "endTime", "limit", "timeZone")
        _check_duplicates(query)
        symbol, interval = _required(query, "symbol"), _required(query, "interval")
        _check_names(query, names)
        _check_symbol(symbol)
        start, end = _moment(query, "startTime"), _moment(query, "endTime")
        limit = _number(query, "limit", 500)
        if limit < 1:
            raise _Refusal(-1130, "Data sent for parameter 'limit' is not valid.")
        shift = 0
        if "timeZone" in query:
            zone = parse_zone(query["timeZone"])
            if zone is None:
                raise _Refusal(-1130, "Data sent for parameter 'timeZone' is not valid.")
            shift = zone
        pair = self._market.crypto.get(symbol)
        if pair is None:
            raise _Refusal(-1121, "Invalid symbol.")
        if interval not in INTERVALS:
            raise _Refusal(-1120, "Invalid interval.")
        micro = _wants_microseconds(request)
        return self.klines(pair, interval, start, end, min(limit, 1000), shift, microseconds=micro)

    def klines(
        self, pair: Pair, interval: str, start: int | None, end: int | None, limit: int, shift: int = 0,
        *, microseconds: bool = False,
    ) -> list[Sequence[object]]:  # fmt: skip
        """Select rows as the exchange does; times are in milliseconds and both ends inclusive on the open time."""
        recorded = self._rows.get((pair.symbol, interval))
        if recorded is not None:
            chosen = [
                r for r in recorded if (start is None or _opened(r) >= start) and (end is None or _opened(r) <= end)
            ]
            return chosen[:limit] if start is not None else chosen[-limit:]
        rows: list[Sequence[object]] = []
        now = self._clock.now_ms()
        for opened in self._opens(pair, interval, start, end, shift, now):
            ends = end_time(interval, opened, shift)
            if self._market.is_hidden(pair.symbol, opened, ends):
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
        _check_duplicates(query)
        _check_names(query, ("symbol", "symbols", "permissions", "showPermissionSets", "symbolStatus"))
        sets = query.get("showPermissionSets", "true").lower()
        if sets not in ("true", "false"):
            raise _Refusal(-1130, "Data sent for parameter 'showPermissionSets' is not valid.")
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
            raise _Refusal(-1128, "Combination of optional parameters invalid.")
        if "symbol" in query:
            _check_symbol(query["symbol"])
            return [self._listed(query["symbol"])]
        if "symbols" in query:
            try:
                names = orjson.loads(query["symbols"])
            except orjson.JSONDecodeError:
                names = None
            if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
                raise _Refusal(
                    -1100,
                    "Illegal characters found in parameter 'symbols'; legal range is "
                    r"""'^\["[\w\-._&&[^a-z]]{1,50}"(,"[\w\-._&&[^a-z]]{1,50}")*\]$'.""",
                )
            if len(set(names)) < len(names):
                raise _Refusal(-1151, "Symbol is present multiple times in the list.")
            return [self._listed(name) for name in names]
        pairs = list(self._market.crypto.values())
        if "symbolStatus" in query:
            status = query["symbolStatus"]
            if status not in _STATUSES:
                raise _Refusal(-1122, "Invalid symbolStatus.")
            pairs = [pair for pair in pairs if pair.status == status]
        if "permissions" in query:
            asked = set(re.findall(r"\w+", query["permissions"]))
            if not asked & {"SPOT", "LEVERAGED"}:
                pairs = [pair for pair in pairs if "MARGIN" in asked and pair.quote == "USDT"]
        return pairs

    def _listed(self, symbol: str) -> Pair:
        pair = self._market.crypto.get(symbol)
        if pair is None:
            raise _Refusal(-1121, "Invalid symbol.")
        return pair


def _opened(raw: Sequence[object]) -> int:
    assert isinstance(raw[0], int)
    return raw[0]


def _json(content: object, status: int = 200) -> web.Response:
    headers = {"Content-Type": "application/json;charset=UTF-8"}
    return web.Response(status=status, body=orjson.dumps(content), headers=headers)


def _wants_microseconds(request: web.Request) -> bool:
    return request.headers.get("X-MBX-TIME-UNIT", "").upper() == "MICROSECOND"


def _check_duplicates(query: Mapping[str, str]) -> None:
    if len(set(query)) < len(query):
        raise _Refusal(-1101, "Duplicate values for a parameter detected.")


def _check_names(query: Mapping[str, str], known: Sequence[str]) -> None:
    if not known and len(query) > 0:
        raise _Refusal(-1101, f"Too many parameters; expected '0' and received '{len(query)}'.")
    read = sum(1 for name in query if name in known)
    if read < len(query):
        raise _Refusal(
            -1104, f"Not all sent parameters were read; read '{read}' parameter(s) but was sent '{len(query)}'."
        )


def _required(query: Mapping[str, str], name: str) -> str:
    value = query.get(name, "")
    if not value:
        raise _Refusal(-1102, f"Mandatory parameter '{name}' was not sent, was empty/null, or malformed.")
    return value


def _check_symbol(symbol: str) -> None:
    legal = 1 <= len(symbol) <= 50 and all((c.isalnum() or c in "-._") and not "a" <= c <= "z" for c in symbol)
    if not legal:
        raise _Refusal(-1100, f"Illegal characters found in parameter 'symbol'; legal range is '{_SYMBOL_RANGE}'.")


def _number(query: Mapping[str, str], name: str, default: int) -> int:
    text = query.get(name)
    if text is None:
        return default
    if re.fullmatch(r"[0-9]{1,20}", text) is None:
        raise _Refusal(-1100, f"Illegal characters found in parameter '{name}'; legal range is '{_NUMBER_RANGE}'.")
    return int(text)


def _moment(query: Mapping[str, str], name: str) -> int | None:
    if name not in query:
        return None
    value = _number(query, name, 0)
    # Microseconds are told from milliseconds by their size.
    return (
        -(-value // 1000)
        if name == "startTime" and value >= _EARLIEST_MICROSECONDS
        else (value // 1000 if value >= _EARLIEST_MICROSECONDS else value)
    )
