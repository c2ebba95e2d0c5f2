"""The REST side of the Twelve Data stand-in: calls, credits, errors."""

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, tzinfo
from zoneinfo import ZoneInfo, available_timezones

import orjson
from aiohttp import web

from providers.sandbox.clock import SandboxClock
from providers.sandbox.listings import DAY_MS, Pair
from providers.sandbox.market import Market
from providers.sandbox.twelve_data_series import (
    INTERVALS,
    SYDNEY,
    Bars,
    Moment,
    day_bounds,
    label,
    parse_moment,
    price_text,
    select_rows,
    utc_text,
)

Params = Mapping[str, str]

_MOST_BARS = 5000
_PRICING = "https://twelvedata.com/pricing"
_WRONG_KEY = (
    "**apikey** parameter is incorrect or not specified. You can get your free API key instantly following this link: "
    f"{_PRICING}. If you believe that everything is correct, you can contact us at "
    "https://twelvedata.com/contact/customer"
)
_WRONG_SYMBOL = (
    "**symbol** or **figi** parameter is missing or invalid. Please provide a valid symbol according to API "
    "documentation: https://twelvedata.com/docs#reference-data"
)
_NO_DATA = "No data is available on the specified dates. Try setting different start/end dates."
_ZONES = frozenset(available_timezones())


class Problem(Exception):
    """An error as the server reports it."""

    def __init__(self, code: int, message: str, meta: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.meta = meta

    @property
    def body(self) -> dict[str, object]:
        """Give the error's JSON."""
        body: dict[str, object] = {"code": self.code, "message": self.message, "status": "error"}
        if self.meta is not None:
            body["meta"] = self.meta
        return body


class Credits:
    """Count credits by the exchange's clock minute and UTC day; refused calls count as well."""

    def __init__(self, clock: SandboxClock, per_minute: int, per_day: int) -> None:
        self._clock = clock
        self.per_minute = per_minute
        self.per_day = per_day
        self.used_this_minute = 0
        self.used_today = 0
        self.refusals = 0
        self.largest_in_a_minute = 0
        self._minute = self._day = 0

    def roll(self) -> None:
        """Begin a new minute or day when it is time."""
        now = self._clock.now_ms()
        if now // 60_000 != self._minute:
            self._minute, self.used_this_minute = now // 60_000, 0
        if now // DAY_MS != self._day:
            self._day, self.used_today = now // DAY_MS, 0

    def take(self, cost: int) -> None:
        """Take credits for a call; raises `Problem` 429 when they do not suffice for the whole of it."""
        self.roll()
        self.used_this_minute += cost
        self.used_today += cost
        self.largest_in_a_minute = max(self.largest_in_a_minute, self.used_this_minute)
        if self.used_today > self.per_day:
            self.refusals += 1
            raise Problem(
                429,
                f"You have run out of API credits for the day. {self.used_today} API credits were used, with the "
                f"current limit being {self.per_day}. Wait for the next day or consider switching to a higher tier "
                f"plan at {_PRICING}",
            )
        if self.used_this_minute > self.per_minute:
            self.refusals += 1
            raise Problem(
                429,
                f"You have run out of API credits for the current minute. {self.used_this_minute} API credits were "
                f"used, with the current limit being {self.per_minute}. Wait for the next minute or consider "
                f"switching to a higher tier plan at {_PRICING}",
            )


class TwelveDataRest:
    """Answer the REST calls for currency pairs from the market."""

    def __init__(
        self, market: Market, clock: SandboxClock, *, api_key: str, credits_per_minute: int, credits_per_day: int,
        errors_as_200: bool, padding: bool, inconsistent_bars: bool,
    ) -> None:  # fmt: skip
        self._market = market
        self._clock = clock
        self.api_key = api_key
        self.errors_as_200 = errors_as_200
        self.plan = "basic"
        self.credits = Credits(clock, credits_per_minute, credits_per_day)
        self.bars = Bars(market, padding=padding, inconsistent=inconsistent_bars)
        self._rows: dict[tuple[str, str], tuple[dict[str, object], list[dict[str, str]]]] = {}
        self._calls: dict[str, Callable[[Params], object]] = {
            "/time_series": self._time_series,
            "/quote": self._each(self._quote),
            "/price": self._each(self._price),
            "/exchange_rate": self._each(self._exchange_rate),
            "/currency_conversion": self._each(self._conversion),
            "/forex_pairs": self._forex_pairs,
            "/symbol_search": self._symbol_search,
            "/earliest_timestamp": self._each(self._earliest),
            "/api_usage": self._api_usage,
            "/technical_indicators": self._indicators,
            "/market_state": self._market_state,
        }
        self._per_symbol = frozenset({"/time_series", "/quote", "/price", "/exchange_rate", "/currency_conversion"})

    def serve_rows(self, symbol: str, interval: str, answer: Mapping[str, object]) -> None:
        """Answer time_series of a symbol and interval from a recorded answer (`meta` and `values`)."""
        meta, values = answer.get("meta"), answer["values"]
        assert isinstance(values, list)
        self._rows[symbol, interval] = (dict(meta) if isinstance(meta, dict) else {}, values)

    def answer(self, request: web.Request) -> tuple[web.Response, int]:
        """Answer a request; also tell what it cost in credits."""
        params = {name.lower(): value for name, value in request.query.items()}
        cost = 0
        try:
            if not self.knows_key(request):
                raise Problem(401, _WRONG_KEY)
            call = self._calls.get(request.path)
            if call is None:
                raise Problem(404, f"{request.path} was not found on this server.")
            cost = len(_symbols(params)) if request.path in self._per_symbol else 1
            self.credits.take(cost)
            response = self._write(call(params), params)
        except Problem as problem:
            response = _json(problem.body, 200 if self.errors_as_200 else problem.code)
        self.credits.roll()
        used = self.credits.used_this_minute
        response.headers["api-credits-used"] = str(used)
        response.headers["api-credits-left"] = str(max(0, self.credits.per_minute - used))
        return response, cost

    def knows_key(self, request: web.Request) -> bool:
        """Tell whether a request carries the key in one of the ways the server takes."""
        scheme, _, key = request.headers.get("Authorization", "").partition(" ")
        given = [request.query.get("apikey"), request.headers.get("X-TD-APIKEY")]
        if scheme.lower() == "apikey":
            given.append(key)
        return self.api_key in given

    def _write(self, content: object, params: Params) -> web.Response:
        if isinstance(content, _Table):
            delimiter = params.get("delimiter", ";")
            text = "".join(delimiter.join(line) + "\n" for line in (content.head, *content.lines))
            # No charset: the vendor's own client fails when there is one.
            return web.Response(body=text.encode(), headers={"Content-Type": "text/csv"})
        response = _json(content, 200)
        if isinstance(content, _Batch):
            response.headers["Is_batch"] = "true"
        return response

    # ---- time_series --------------------------------------------------------------------------------------------

    def _time_series(self, params: Params) -> object:
        symbols = _symbols(params)
        if len(symbols) == 1:
            return self._series(symbols[0], params)
        batch = _Batch()
        for symbol in symbols:
            try:
                batch[symbol] = self._series(symbol, {**params, "format": "JSON"})
            except Problem as problem:
                batch[symbol] = problem.body
        return batch

    def _series(self, symbol: str, params: Params) -> object:
        interval = params.get("interval", "")
        if interval not in INTERVALS:
            listed = ", ".join(INTERVALS)
            message = f"Invalid **interval** provided: {interval}. Supported intervals: {listed}"
            raise Problem(400, message, {"symbol": symbol, "interval": interval, "exchange": ""})
        recorded = self._rows.get((symbol.upper(), interval))
        pair = self._market.forex.get(symbol.upper())
        if pair is None and recorded is None:
            raise Problem(404, _WRONG_SYMBOL, {"symbol": symbol, "interval": interval, "exchange": ""})
        zone = _zone(params)
        now = self._clock.now_ms()
        first, last_ms = self._dates(params, zone, interval, now)
        has_dates = any(name in params for name in ("start_date", "end_date", "date"))
        size = _size(params, _MOST_BARS if has_dates else 30, _MOST_BARS)
        dp = _decimals(params)
        meta: dict[str, object]
        if recorded is not None:
            meta, rows = recorded
            values = select_rows(rows, zone, first, last_ms, size)
        else:
            assert pair is not None
            meta = {
                "symbol": pair.symbol,
                "interval": interval,
                "currency_base": pair.base_name,
                "currency_quote": pair.quote_name,
                "type": "Physical Currency",
            }
            first_ms = None if first is None else first.at_ms
            upto = now if last_ms is None else last_ms
            bars = self.bars.newest(pair, interval, zone, now, first_ms, upto, size)
            values = [
                {
                    "datetime": label(interval, bar.start, zone),
                    "open": price_text(bar.open, pair.price_decimals, dp),
                    "high": price_text(bar.high, pair.price_decimals, dp),
                    "low": price_text(bar.low, pair.price_decimals, dp),
                    "close": price_text(bar.close, pair.price_decimals, dp),
                }
                for bar in bars
            ]
        if not values:
            raise Problem(400, _NO_DATA, {"symbol": symbol, "interval": interval, "exchange": ""})
        if params.get("order", "desc").lower() == "asc":
            values.reverse()
        if params.get("format", "JSON").upper() == "CSV":
            return _Table(list(values[0]), [list(row.values()) for row in values])
        return {"meta": meta, "values": values, "status": "ok"}

    def _dates(self, params: Params, zone: tzinfo, interval: str, now: int) -> tuple[Moment | None, int | None]:
        if "date" in params:
            bounds = day_bounds(params["date"], zone, now)
            if bounds is None:
                raise Problem(400, f"Invalid **date** provided: {params['date']}.")
            return bounds
        found: list[Moment | None] = []
        for name in ("start_date", "end_date"):
            moment = parse_moment(params[name], zone) if params.get(name) else None
            if params.get(name) and moment is None:
                raise Problem(400, f"Invalid **{name}** provided: {params[name]}.")
            found.append(moment)
        first, last = found
        if first is not None and last is not None and first.at_ms > last.at_ms:
            raise Problem(400, "Invalid **start_date** provided: it is later than **end_date**.")
        if last is None:
            return first, None
        # A bare end date leaves its own day out of daily bars.
        return first, last.at_ms - 1 if last.is_day and interval == "1day" else last.at_ms

    # ---- the other calls ----------------------------------------------------------------------------------------

    def _each(self, call: Callable[[Pair, Params], object]) -> Callable[[Params], object]:
        def answer(params: Params) -> object:
            symbols = _symbols(params)
            if len(symbols) == 1:
                return call(self._pair(symbols[0]), params)
            batch = _Batch()
            for symbol in symbols:
                try:
                    batch[symbol] = call(self._pair(symbol), params)
                except Problem as problem:
                    batch[symbol] = problem.body
            return batch

        return answer

    def _pair(self, symbol: str) -> Pair:
        pair = self._market.forex.get(symbol.upper())
        if pair is None:
            raise Problem(404, _WRONG_SYMBOL)
        return pair

    def _last_price(self, pair: Pair) -> int:
        return self._market.price_at(pair.symbol, self._clock.now_ms())

    def _quote(self, pair: Pair, params: Params) -> object:
        now = self._clock.now_ms()
        zone = _zone(params)
        interval = params.get("interval", "1day")
        bars = self.bars.newest(pair, interval, zone, now, None, now, 2)
        year = self._market.span(pair.symbol, now - 364 * DAY_MS - now % DAY_MS, now + 1)
        bar, before = bars[0], bars[-1]

        def text(units: int) -> str:
            return price_text(units, pair.price_decimals)

        scale = 10**pair.price_decimals
        change = (bar.close - before.close) / scale
        return {
            "symbol": pair.symbol,
            "name": f"{pair.base_name} / {pair.quote_name}",
            "exchange": "Forex",
            "datetime": label(interval, bar.start, zone),
            "timestamp": bar.start // 1000,
            "last_quote_at": now // 60_000 * 60,
            "open": text(bar.open),
            "high": text(bar.high),
            "low": text(bar.low),
            "close": text(bar.close),
            "previous_close": text(before.close),
            "change": f"{change:.10f}",
            "percent_change": f"{100 * change * scale / before.close:.8f}",
            "is_market_open": self._market.is_open(pair.symbol, now),
            "fifty_two_week": {
                "low": text(year.low),
                "high": text(year.high),
                "low_change": f"{(bar.close - year.low) / scale:.8f}",
                "high_change": f"{(bar.close - year.high) / scale:.9f}",
                "low_change_percent": f"{100 * (bar.close - year.low) / year.low:.5f}",
                "high_change_percent": f"{100 * (bar.close - year.high) / year.high:.6f}",
                "range": f"{year.low / scale:.6f} - {year.high / scale:.6f}",
            },
        }

    def _price(self, pair: Pair, params: Params) -> object:
        return {"price": price_text(self._last_price(pair), pair.price_decimals, _decimals(params))}

    def _exchange_rate(self, pair: Pair, _params: Params) -> object:
        rate = self._last_price(pair) / 10**pair.price_decimals
        return {"symbol": pair.symbol, "rate": rate, "timestamp": self._clock.now_ms() // 60_000 * 60}

    def _conversion(self, pair: Pair, params: Params) -> object:
        rate = self._last_price(pair) / 10**pair.price_decimals
        try:
            amount = float(params.get("amount", ""))
        except ValueError:
            raise Problem(400, "**amount** parameter is missing or invalid.") from None
        stamp = self._clock.now_ms() // 60_000 * 60
        return {"symbol": pair.symbol, "rate": rate, "amount": round(amount * rate, 5), "timestamp": stamp}

    def _earliest(self, pair: Pair, params: Params) -> object:
        start = pair.listed_day * DAY_MS
        name = params.get("interval", "1day")
        return {"datetime": label(name, start, _zone(params)), "unix_time": start // 1000}

    def _forex_pairs(self, params: Params) -> object:
        rows = [
            {
                "symbol": pair.symbol,
                "currency_group": pair.group,
                "currency_base": pair.base_name,
                "currency_quote": pair.quote_name,
            }
            for _, pair in sorted(self._market.forex.items())
        ]
        for name in ("symbol", "currency_base", "currency_quote"):
            wanted = params.get(name, "").lower()
            if wanted:
                rows = [row for row in rows if row[name].lower() == wanted or _code(row, name).lower() == wanted]
        if params.get("format", "JSON").upper() == "CSV":
            return _Table(list(rows[0]) if rows else ["symbol"], [list(row.values()) for row in rows])
        return {"data": rows, "count": len(rows), "status": "ok"}

    def _symbol_search(self, params: Params) -> object:
        wanted = params.get("symbol", "").lower()
        if not wanted:
            raise Problem(400, "**symbol** parameter is missing or invalid.")
        found = []
        for pair in self._market.forex.values():
            name = f"{pair.base_name} / {pair.quote_name}"
            if wanted in pair.symbol.lower() or wanted in name.lower():
                found.append(
                    {
                        "symbol": pair.symbol,
                        "instrument_name": name,
                        "exchange": "PHYSICAL CURRENCY",
                        "mic_code": "Forex",
                        "exchange_timezone": "Australia/Sydney",
                        "instrument_type": "Physical Currency",
                        "country": "",
                        "currency": pair.quote,
                    }
                )
        return {"data": found[: _size(params, 30, 120)], "status": "ok"}

    def _api_usage(self, _params: Params) -> object:
        return {
            "timestamp": utc_text(self._clock.now_ms()),
            "current_usage": self.credits.used_this_minute,
            "plan_limit": self.credits.per_minute,
            "daily_usage": self.credits.used_today,
            "plan_daily_limit": self.credits.per_day,
            "plan_category": self.plan,
        }

    def _indicators(self, _params: Params) -> object:
        return {"data": {}, "status": "ok"}

    def _market_state(self, _params: Params) -> object:
        return []


class _Batch(dict[str, object]):
    pass


class _Table:
    def __init__(self, head: list[str], lines: Sequence[Sequence[str]]) -> None:
        self.head = head
        self.lines = lines


def _json(content: object, status: int) -> web.Response:
    return web.Response(
        status=status, body=orjson.dumps(content), headers={"Content-Type": "application/json; charset=utf-8"}
    )


def _symbols(params: Params) -> list[str]:
    names = [name.strip() for name in params.get("symbol", "").split(",") if name.strip()]
    return names or [""]


def _code(row: Mapping[str, str], name: str) -> str:
    base, _, quote = row["symbol"].partition("/")
    return {"currency_base": base, "currency_quote": quote}.get(name, "")


def _zone(params: Params) -> tzinfo:
    name = params.get("timezone", "Exchange")
    if name == "Exchange" or not name:
        return SYDNEY
    if name == "UTC":
        return UTC
    if name not in _ZONES:
        raise Problem(400, f"Invalid **timezone** provided: {name}.")
    return ZoneInfo(name)


def _size(params: Params, default: int, most: int) -> int:
    text = params.get("outputsize")
    if text is None:
        return default
    if not text.isdecimal() or not 1 <= int(text) <= most:
        raise Problem(400, f"Invalid **outputsize** provided: {text}. It has to be from 1 to {most}.")
    return int(text)


def _decimals(params: Params) -> int:
    text = params.get("dp", "-1")
    try:
        dp = int(text)
    except ValueError:
        dp = 99
    if not -1 <= dp <= 11:
        raise Problem(400, f"Invalid **dp** provided: {text}. It has to be from 0 to 11.")
    return dp
