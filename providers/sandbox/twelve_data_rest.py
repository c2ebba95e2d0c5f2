"""The REST side of the simulated Twelve Data: the calls, and what they are answered."""

from collections.abc import Callable, Mapping
from datetime import UTC, tzinfo
from zoneinfo import ZoneInfo, available_timezones

import orjson
from aiohttp import web

from providers.sandbox.clock import SandboxClock
from providers.sandbox.listings import DAY_MS, Pair
from providers.sandbox.market import Market
from providers.sandbox.twelve_data_bars import (
    INTERVALS,
    SYDNEY,
    Bars,
    Moment,
    day_bounds,
    label,
    parse_moment,
    price_text,
    utc_text,
)
from providers.sandbox.twelve_data_credits import PRICING, Credits, Problem

Params = Mapping[str, str]

_MOST_BARS = 5000
"""`outputsize` in the OpenAPI file, and measured."""
_WRONG_KEY = (
    "**apikey** parameter is incorrect or not specified. You can get your free API key instantly following this link: "
    f"{PRICING}. If you believe that everything is correct, you can contact us at "
    "https://twelvedata.com/contact/customer"
)
_WRONG_SYMBOL = (
    "**symbol** or **figi** parameter is missing or invalid. Please provide a valid symbol according to API "
    "documentation: https://twelvedata.com/docs#reference-data"
)
_NO_DATA = "No data is available on the specified dates. Try setting different start/end dates."
_ZONES = frozenset(available_timezones())


class TwelveDataRest:
    """Answer the REST calls for currency pairs from the market."""

    def __init__(
        self, market: Market, clock: SandboxClock, *, api_key: str, credits_per_minute: int, credits_per_day: int
    ) -> None:
        self._market = market
        self._clock = clock
        self.api_key = api_key
        self.plan = "basic"
        self.credits = Credits(clock, credits_per_minute, credits_per_day)
        self.bars = Bars(market)
        self._calls: dict[str, Callable[[Params], object]] = {
            "/time_series": self._each(self._series),
            "/forex_pairs": self._forex_pairs,
            "/earliest_timestamp": self._each(self._earliest),
            "/api_usage": self._api_usage,
        }
        self._per_symbol = {"/time_series"}

    def answer(self, request: web.Request) -> web.Response:
        """Answer a request."""
        params = {name.lower(): value for name, value in request.query.items()}
        try:
            if not self.knows_key(request):
                raise Problem(401, _WRONG_KEY)
            call = self._calls.get(request.path)
            if call is None:
                raise Problem(404, f"{request.path} was not found on this server.")
            self.credits.spend(len(read_symbols(params)) if request.path in self._per_symbol else 1)
            response = self._write(call(params), params)
        except Problem as problem:
            response = _json(problem.body, problem.code)
        self.credits.roll()
        used = self.credits.used_this_minute
        response.headers["api-credits-used"] = str(used)
        response.headers["api-credits-left"] = str(max(0, self.credits.per_minute - used))
        return response

    def knows_key(self, request: web.Request) -> bool:
        """Tell whether a request carries the key in one of the ways the server takes."""
        scheme, _, key = request.headers.get("Authorization", "").partition(" ")
        given = [request.query.get("apikey"), request.headers.get("X-TD-APIKEY")]
        if scheme.lower() == "apikey":
            given.append(key)
        return self.api_key in given

    def _write(self, content: object, params: Params) -> web.Response:
        response = _json(content, 200)
        if isinstance(content, _Batch):
            response.headers["Is_batch"] = "true"
        return response

    # ---- time_series --------------------------------------------------------------------------------------------

    def _series(self, symbol: str, params: Params) -> object:
        interval = params.get("interval", "")
        if interval not in INTERVALS:
            listed = ", ".join(INTERVALS)
            message = f"Invalid **interval** provided: {interval}. Supported intervals: {listed}"
            raise Problem(400, message, {"symbol": symbol, "interval": interval, "exchange": ""})
        zone = read_zone(params)
        first, last_ms = self._dates(params, zone, interval, self._clock.now_ms())
        has_dates = any(name in params for name in ("start_date", "end_date", "date"))
        size = read_size(params, _MOST_BARS if has_dates else 30, _MOST_BARS)
        meta, values = self.rows(symbol.upper(), interval, zone, first, last_ms, size, read_decimals(params))
        if not values:
            raise Problem(400, _NO_DATA, {"symbol": symbol, "interval": interval, "exchange": ""})
        if params.get("order", "desc").lower() == "asc":
            values.reverse()
        return {"meta": meta, "values": values, "status": "ok"}

    def rows(
        self, symbol: str, interval: str, zone: tzinfo, first: Moment | None, last_ms: int | None, size: int, dp: int
    ) -> tuple[dict[str, str], list[dict[str, str]]]:
        """Give what is said of a series, and its rows, newest first."""
        pair = self._market.forex.get(symbol)
        if pair is None:
            raise Problem(404, _WRONG_SYMBOL, {"symbol": symbol, "interval": interval, "exchange": ""})
        now = self._clock.now_ms()
        first_ms = None if first is None else first.at_ms
        bars = self.bars.newest(pair, interval, zone, now, first_ms, now if last_ms is None else last_ms, size)
        meta = {
            "symbol": pair.symbol,
            "interval": interval,
            "currency_base": pair.base_name,
            "currency_quote": pair.quote_name,
            "type": "Physical Currency",
        }
        return meta, [
            {
                "datetime": label(interval, bar.start, zone),
                "open": price_text(bar.open, pair.price_decimals, dp),
                "high": price_text(bar.high, pair.price_decimals, dp),
                "low": price_text(bar.low, pair.price_decimals, dp),
                "close": price_text(bar.close, pair.price_decimals, dp),
            }
            for bar in bars
        ]

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

    def _each(self, call: Callable[[str, Params], object]) -> Callable[[Params], object]:
        def answer(params: Params) -> object:
            symbols = read_symbols(params)
            if len(symbols) == 1:
                return call(symbols[0], params)
            batch = _Batch()
            for symbol in symbols:
                try:
                    batch[symbol] = call(symbol, params)
                except Problem as problem:
                    batch[symbol] = problem.body
            return batch

        return answer

    def _pair(self, symbol: str) -> Pair:
        pair = self._market.forex.get(symbol.upper())
        if pair is None:
            raise Problem(404, _WRONG_SYMBOL)
        return pair

    def _earliest(self, symbol: str, params: Params) -> object:
        start = self._pair(symbol).listed_day * DAY_MS
        name = params.get("interval", "1day")
        return {"datetime": label(name, start, read_zone(params)), "unix_time": start // 1000}

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
        return {"data": rows, "count": len(rows), "status": "ok"}

    def _api_usage(self, _params: Params) -> object:
        return {
            "timestamp": utc_text(self._clock.now_ms()),
            "current_usage": self.credits.used_this_minute,
            "plan_limit": self.credits.per_minute,
            "daily_usage": self.credits.used_today,
            "plan_daily_limit": self.credits.per_day,
            "plan_category": self.plan,
        }


class _Batch(dict[str, object]):
    pass


def _json(content: object, status: int) -> web.Response:
    return web.Response(
        status=status, body=orjson.dumps(content), headers={"Content-Type": "application/json; charset=utf-8"}
    )


def read_symbols(params: Params) -> list[str]:
    """Read the symbols of a call, at least an empty one."""
    names = [name.strip() for name in params.get("symbol", "").split(",") if name.strip()]
    return names or [""]


def _code(row: Mapping[str, str], name: str) -> str:
    base, _, quote = row["symbol"].partition("/")
    return {"currency_base": base, "currency_quote": quote}.get(name, "")


def read_zone(params: Params) -> tzinfo:
    """Read the zone of labels and dates."""
    name = params.get("timezone", "Exchange")
    if name == "Exchange" or not name:
        return SYDNEY
    if name == "UTC":
        return UTC
    if name not in _ZONES:
        raise Problem(400, f"Invalid **timezone** provided: {name}.")
    return ZoneInfo(name)


def read_size(params: Params, default: int, most: int) -> int:
    """Read how many rows are asked for."""
    text = params.get("outputsize")
    if text is None:
        return default
    if not text.isdecimal() or not 1 <= int(text) <= most:
        raise Problem(400, f"Invalid **outputsize** provided: {text}. It has to be from 1 to {most}.")
    return int(text)


def read_decimals(params: Params) -> int:
    """Read how many decimals are asked for, -1 for all."""
    text = params.get("dp", "-1")
    try:
        dp = int(text)
    except ValueError:
        dp = 99
    if not -1 <= dp <= 11:
        raise Problem(400, f"Invalid **dp** provided: {text}. It has to be from 0 to 11.")
    return dp
