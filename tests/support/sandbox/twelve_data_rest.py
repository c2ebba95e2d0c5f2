"""The REST side of the stand-in for Twelve Data: further calls, recorded answers, and flaws on order."""

from collections.abc import Mapping, Sequence
from datetime import tzinfo
from typing import Any

from aiohttp import web

from providers.sandbox.listings import DAY_MS, Pair
from providers.sandbox.twelve_data_bars import Bar, Bars, Moment, bar_dice, label, parse_moment, price_text
from providers.sandbox.twelve_data_credits import Credits, Problem
from providers.sandbox.twelve_data_rest import (
    Params,
    TwelveDataRest,
    read_decimals,
    read_size,
    read_zone,
)

_BAD_BAR_IN = 700


class CountedCredits(Credits):
    """The credits, with what a test wants to know of them."""

    refusals = 0
    largest_in_a_minute = 0

    def spend(self, cost: int) -> None:
        """Take credits for a call; raises `Problem` 429 when they do not suffice for the whole of it."""
        try:
            super().spend(cost)
        except Problem:
            self.refusals += 1
            raise
        finally:
            self.largest_in_a_minute = max(self.largest_in_a_minute, self.used_this_minute)


class StagedBars(Bars):
    """The bars. `padding` fills closed hours; `inconsistent` lets a few closes lie outside high and low."""

    padding = True
    inconsistent = False

    def newest(
        self, pair: Pair, interval: str, zone: tzinfo, now_ms: int, first_ms: int | None, last_ms: int, limit: int
    ) -> list[Bar]:
        bars = super().newest(pair, interval, zone, now_ms, first_ms, last_ms, limit)
        if not self.inconsistent:
            return bars
        # The newest one may be open.
        return [
            bar._replace(close=bar.high + max(1, (bar.high - bar.low) // 3))
            if number and bar_dice(pair.symbol, interval, bar.start) % _BAD_BAR_IN == 0
            else bar
            for number, bar in enumerate(bars)
        ]

    def padded(self, pair: Pair, short: str, start: int, price: int) -> Bar | None:
        return super().padded(pair, short, start, price) if self.padding else None


class FurtherCalls(TwelveDataRest):
    """The calls that the relay asks and those that only other clients ask.

    `errors_as_200` delivers errors inside HTTP 200.
    """

    credits: CountedCredits
    bars: StagedBars

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.errors_as_200 = False
        self.credits = CountedCredits(self._clock, self.credits.per_minute, self.credits.per_day)
        self.bars = StagedBars(self._market)
        self._rows: dict[tuple[str, str], tuple[dict[str, str], list[dict[str, str]]]] = {}
        for path, call in {
            "/quote": self._quote,
            "/price": self._price,
            "/exchange_rate": self._exchange_rate,
            "/currency_conversion": self._conversion,
        }.items():
            self._calls[path] = self._each(call)
        self._calls |= {
            "/symbol_search": self._symbol_search,
            "/technical_indicators": self._indicators,
            "/market_state": self._market_state,
        }
        self._per_symbol |= {"/quote", "/price", "/exchange_rate", "/currency_conversion"}

    def serve_rows(self, symbol: str, interval: str, answer: Mapping[str, object]) -> None:
        """Answer time_series of a symbol and interval from a recorded answer (`meta` and `values`)."""
        meta, values = answer.get("meta"), answer["values"]
        assert isinstance(values, list)
        self._rows[symbol, interval] = (dict(meta) if isinstance(meta, dict) else {}, values)

    def answer(self, request: web.Request) -> web.Response:
        """Answer a request."""
        response = super().answer(request)
        if self.errors_as_200:
            response.set_status(200)
        return response

    def rows(
        self, symbol: str, interval: str, zone: tzinfo, first: Moment | None, last_ms: int | None, size: int, dp: int
    ) -> tuple[dict[str, str], list[dict[str, str]]]:
        """Give what is said of a series, and its rows, newest first; recorded ones if there are any."""
        recorded = self._rows.get((symbol, interval))
        if recorded is None:
            return super().rows(symbol, interval, zone, first, last_ms, size, dp)
        return recorded[0], select_rows(recorded[1], zone, first, last_ms, size)

    def _write(self, content: object, params: Params) -> web.Response:
        if params.get("format", "JSON").upper() != "CSV" or not isinstance(content, dict):
            return super()._write(content, params)
        rows: list[dict[str, str]] | None = content.get("values", content.get("data"))
        if rows is None:
            return super()._write(content, params)
        delimiter = params.get("delimiter", ";")
        lines = [list(rows[0]) if rows else ["symbol"], *(row.values() for row in rows)]
        text = "".join(delimiter.join(line) + "\n" for line in lines)
        # No charset: the vendor's own client fails when there is one.
        return web.Response(body=text.encode(), headers={"Content-Type": "text/csv"})

    def _last_price(self, pair: Pair) -> int:
        return self._market.price_at(pair.symbol, self._clock.now_ms())

    def _quote(self, symbol: str, params: Params) -> object:
        pair = self._pair(symbol)
        now = self._clock.now_ms()
        zone = read_zone(params)
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

    def _price(self, symbol: str, params: Params) -> object:
        pair = self._pair(symbol)
        return {"price": price_text(self._last_price(pair), pair.price_decimals, read_decimals(params))}

    def _exchange_rate(self, symbol: str, _params: Params) -> object:
        pair = self._pair(symbol)
        rate = self._last_price(pair) / 10**pair.price_decimals
        return {"symbol": pair.symbol, "rate": rate, "timestamp": self._clock.now_ms() // 60_000 * 60}

    def _conversion(self, symbol: str, params: Params) -> object:
        pair = self._pair(symbol)
        rate = self._last_price(pair) / 10**pair.price_decimals
        try:
            amount = float(params.get("amount", ""))
        except ValueError:
            raise Problem(400, "**amount** parameter is missing or invalid.") from None
        stamp = self._clock.now_ms() // 60_000 * 60
        return {"symbol": pair.symbol, "rate": rate, "amount": round(amount * rate, 5), "timestamp": stamp}

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
        return {"data": found[: read_size(params, 30, 120)], "status": "ok"}

    def _indicators(self, _params: Params) -> object:
        return {"data": {}, "status": "ok"}

    def _market_state(self, _params: Params) -> object:
        return []


def select_rows(
    rows: Sequence[dict[str, str]], zone: tzinfo, first: Moment | None, last_ms: int | None, limit: int
) -> list[dict[str, str]]:
    """Choose from recorded rows as the server does: the newest ones within the dates, newest first."""
    chosen = []
    for values in rows:
        moment = parse_moment(values["datetime"], zone)
        assert moment is not None
        if (first is None or moment.at_ms >= first.at_ms) and (last_ms is None or moment.at_ms <= last_ms):
            chosen.append((moment.at_ms, values))
    chosen.sort(key=lambda pair: pair[0], reverse=True)
    return [values for _, values in chosen[:limit]]
