"""Stand-ins that are untidy as real exchanges are: late lists, bad rows, wrong stamps, answers for somebody else.

`Untidy` holds the orders in force, as `Faults` does for what every stand-in can; `UntidySandbox` has both exchanges.
"""

import asyncio
import random
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from datetime import UTC, datetime, tzinfo
from typing import Any, NamedTuple, TypeVar

from aiohttp import web

from providers.sandbox import SimulatedBinance
from providers.sandbox.binance_usdm_rest import BinanceUsdmRest
from providers.sandbox.intervals import FIXED_MS, local_end_time
from providers.sandbox.listings import Pair
from providers.sandbox.twelve_data_bars import Bar
from tests.support.sandbox import (
    BinanceStandIn,
    BinanceUsdmStandIn,
    Faults,
    Sandbox,
    StagedClock,
    StagedMarket,
    TwelveDataStandIn,
)
from tests.support.sandbox.binance import PlayedRest
from tests.support.sandbox.twelve_data_rest import FurtherCalls, StagedBars

T = TypeVar("T")
Message = dict[str, Any]
Values = tuple[float, float, float, float, float]
"""Open, high, low, close, volume."""

BAD_CELLS: Mapping[str, object] = {
    "null": None,
    "no price": "n/a",
    "zero": "0.00000000",
    "negative": "-1.00000000",
    "underscore": "1_00",
    "other digits": "٤٢.٥",
    "huge": "1e308",
    "not finite": "NaN",
}
"""What stands for a close that is no price; "above high" lifts it by one in the last place."""
BAD_ROWS = ("above high", *BAD_CELLS)
_SHORT = {"1min": "1m", "5min": "5m", "15min": "15m", "30min": "30m", "45min": "45m",
          "1day": "1d", "1week": "1w", "1month": "1M"}  # fmt: skip


class Refusal(NamedTuple):
    """An answer that refuses."""

    status: int
    body: str
    content_type: str = "application/json"
    retry_after: int | None = None


_CDN = "<html><head><title>Access denied</title></head><body>Error 1020, Ray ID 7c0ffee</body></html>"
REFUSALS: Mapping[str, Refusal] = {
    "a CDN's 403": Refusal(403, _CDN, "text/html"),
    "a CDN's 404": Refusal(404, "<html>Not found</html>", "text/html"),
    "404": Refusal(404, '{"code":404,"message":"The requested data was not found.","status":"error"}'),
    "401": Refusal(401, '{"code":401,"message":"**apikey** parameter is incorrect.","status":"error"}'),
    "429": Refusal(429, '{"code":-1003,"msg":"Too many requests."}'),
    "429 with Retry-After": Refusal(429, '{"code":-1003,"msg":"Too many requests."}', retry_after=1),
    "418": Refusal(418, '{"code":-1003,"msg":"Way too many requests."}', retry_after=2),
    "418 without Retry-After": Refusal(418, '{"code":-1003,"msg":"Way too many requests."}'),
    "500": Refusal(500, "{}"),
    "502 of a proxy": Refusal(502, "<html>Bad gateway</html>", "text/html"),
    "503": Refusal(503, "", "text/plain"),
}


def refuse_rest(faults: Faults, name: str, *, times: int | None = None, path: str | None = None) -> None:
    """Answer REST requests with one of `REFUSALS`, so many times or until `answer_rest_normally`."""
    refusal = REFUSALS[name]
    faults.answer_rest(
        refusal.status, refusal.body, content_type=refusal.content_type, retry_after=refusal.retry_after,
        times=times, path=path,
    )  # fmt: skip


class Untidy:
    """The orders in force for one stand-in; each takes effect at once and lasts until `clear`."""

    def __init__(self, dice: random.Random) -> None:
        self.dice = dice
        self.also: dict[tuple[str, int], list[Values]] = {}
        """What was said or follows from it and history never says, by stream (`BTCUSDT@1m`) and open time: closings
        that differ, and the two ways to repair a close above its high."""
        self._later: set[asyncio.TimerHandle] = set()
        self.clear()

    def clear(self) -> None:
        """Be tidy again. Events that wait still come."""
        self.lag_s: float | None = None
        self.bad: tuple[str, frozenset[int] | None] | None = None
        self.settles_after_s = 0.0
        self.four_hours_from: Callable[[int], int] | None = None
        self.is_empty = False
        self.frozen_at: float | None = None
        self.ahead_s: dict[str, float] = {}
        self.someone_else: dict[str, str] = {}
        self.other_interval: str | None = None
        self.listed_as: str | None = None
        self.listed: frozenset[str] | None = None
        self.differing_share = 0.0
        self.closing_delay_s: tuple[float, float] | None = None
        self.repeated_share = 0.0
        self.overtaken_share = 0.0

    # ---- history ------------------------------------------------------------------------------------------------

    def list_closed_only(self, lag_s: float = 0.0) -> None:
        """Leave a candle out of history until it has been closed for so many seconds."""
        self.lag_s = lag_s

    def spoil_rows(self, kind: str, opens: Collection[int] | None = None) -> None:
        """Write rows badly, one of `BAD_ROWS`: those that open then (Unix seconds), or one drawn row of each answer."""
        self.bad = (kind, None if opens is None else frozenset(opens))

    def settle_after(self, seconds: float) -> None:
        """Give every other closed bar of Twelve Data another close at first, and its own only so long after its end."""
        self.settles_after_s = seconds

    def cut_four_hours(self, opened: Callable[[int], int]) -> None:
        """Let bars of four hours open where this says: it gives the open time of the one that holds a moment."""
        self.four_hours_from = opened

    def answer_empty(self) -> None:
        """Know no candle at all."""
        self.is_empty = True

    def freeze(self, moment: float) -> None:
        """Answer Twelve Data's history as it was at a moment (Unix seconds), whenever it is asked."""
        self.frozen_at = moment

    def list_as(self, status: str) -> None:
        """Give each instrument this status in the list; what streams goes on."""
        self.listed_as = status

    def list_only(self, *symbols: str) -> None:
        """Leave all others out of the list; what streams goes on."""
        self.listed = frozenset(symbols)

    def answer_for(self, other: Mapping[str, str], interval: str | None = None) -> None:
        """Speak of another symbol (by the one that was asked for) or interval where an answer or event names it."""
        self.someone_else = dict(other)
        self.other_interval = interval

    # ---- streams ------------------------------------------------------------------------------------------------

    def stamp(self, symbol: str, ahead_s: float) -> None:
        """Shift all times in this symbol's events."""
        self.ahead_s[symbol] = ahead_s

    def close_otherwise(self, share: float = 1.0) -> None:
        """Close this share of candles with values that history does not have; `also` keeps them."""
        self.differing_share = share

    def close_late(self, least_s: float, most_s: float) -> None:
        """Send closing events later than due, when the next candle has begun; by real seconds, drawn for each."""
        self.closing_delay_s = (least_s, most_s)

    def repeat(self, share: float) -> None:
        """Send this share of events twice."""
        self.repeated_share = share

    def disorder(self, share: float) -> None:
        """Let this share of events be overtaken by those of the next half second."""
        self.overtaken_share = share

    def sends(self, send: Callable[[], None], *, is_closing: bool) -> None:
        """Send an event in the way that is in force."""
        times = 2 if self.dice.random() < self.repeated_share else 1
        for _ in range(times):
            delay_s = 0.0
            if is_closing and self.closing_delay_s is not None:
                delay_s = self.dice.uniform(*self.closing_delay_s)
            elif self.dice.random() < self.overtaken_share:
                delay_s = self.dice.uniform(0.05, 0.5)
            if delay_s:
                self._send_later(send, delay_s)
            else:
                send()

    def _send_later(self, send: Callable[[], None], delay_s: float) -> None:
        def due() -> None:
            self._later.discard(handle)
            send()

        handle = asyncio.get_running_loop().call_later(delay_s, due)
        self._later.add(handle)

    def forget_waiting(self) -> None:
        """Never send what waits."""
        for handle in self._later:
            handle.cancel()
        self._later.clear()

    def may_say(self, stream: str, opened: int, values: Values) -> None:
        """Allow values that history never says."""
        known = self.also.setdefault((stream, opened), [])
        if values not in known:
            known.append(values)

    def spoilt(self, rows: Sequence[T], opened: Callable[[T], int], spoil: Callable[[T, str], T]) -> list[T]:
        """Return rows of one answer with the bad ones in their places."""
        if self.bad is None or not rows:
            return list(rows)
        kind, opens = self.bad
        chosen = opens if opens is not None else {opened(self.dice.choice(rows))}
        return [spoil(row, kind) if opened(row) in chosen else row for row in rows]


def _lifted(price: object) -> str:
    """Return a price that is one more in its last place."""
    text = str(price)
    whole, _, decimals = text.partition(".")
    units = str(int(whole + decimals) + 1).rjust(len(decimals) + 1, "0")
    return f"{units[: -len(decimals)]}.{units[-len(decimals) :]}" if decimals else units


# -- Binance ---------------------------------------------------------------------------------------


class _BinanceRest(PlayedRest):
    def __init__(self, market: StagedMarket, clock: StagedClock, untidy: Untidy, *, weight_limit: int) -> None:
        super().__init__(market, clock, weight_limit=weight_limit, ban_after=10, ban_s=120.0)
        self._untidy = untidy

    def klines(
        self, pair: Pair, interval: str, start: int | None, end: int | None, limit: int, shift: int = 0,
        *, microseconds: bool = False,
    ) -> list[Sequence[object]]:  # fmt: skip
        untidy, scale = self._untidy, 1000 if microseconds else 1
        more = 0
        if untidy.lag_s is not None:
            more = 2 + int(untidy.lag_s * 1000) // FIXED_MS.get(interval, 7 * 86_400_000)
        rows = super().klines(pair, interval, start, end, limit + more, shift, microseconds=microseconds)
        if untidy.lag_s is not None:
            upto = self._clock.now_ms() - untidy.lag_s * 1000
            rows = [row for row in rows if _integer(row[6]) // scale < upto]
        rows = rows[:limit] if start is not None else rows[-limit:]
        if untidy.is_empty:
            return []

        def opened(row: Sequence[object]) -> int:
            return _integer(row[0]) // scale // 1000

        def spoil(row: Sequence[object], kind: str) -> Sequence[object]:
            if _integer(row[6]) // scale >= self._clock.now_ms():
                return row  # it changes anyway
            cells = list(row)
            cells[4] = _lifted(row[2]) if kind == "above high" else BAD_CELLS[kind]
            if kind == "above high":
                first, high, low, volume = (float(str(row[place])) for place in (1, 2, 3, 5))
                lifted = float(str(cells[4]))
                for repaired in ((first, high, low, high, volume), (first, lifted, low, lifted, volume)):
                    untidy.may_say(f"{pair.symbol}@{interval}", opened(row), repaired)
            return cells

        return untidy.spoilt(rows, opened, spoil)

    def _exchange_info(self, request: web.Request) -> object:
        found: Any = super()._exchange_info(request)
        untidy = self._untidy
        if untidy.listed is not None:
            found["symbols"] = [info for info in found["symbols"] if info["symbol"] in untidy.listed]
        if untidy.listed_as is not None:
            for info in found["symbols"]:
                info["status"] = untidy.listed_as
        return found


class UntidyBinance(BinanceStandIn):
    """The Binance stand-in that also obeys the orders of `untidy`."""

    untidy_rest_type: type[_BinanceRest] = _BinanceRest

    def __init__(
        self,
        market: StagedMarket,
        clock: StagedClock,
        dice: random.Random,
        *,
        pace_s: float = 2.0,
        weight_limit: int = 6000,
    ) -> None:
        super().__init__(market, clock, pace_s=pace_s)
        self.untidy = Untidy(dice)
        self.rest = self.untidy_rest_type(market, clock, self.untidy, weight_limit=weight_limit)

    async def close(self) -> None:
        self.untidy.forget_waiting()
        await super().close()

    def send_event(self, stream: str, event: Message) -> None:
        untidy, kline = self.untidy, event["k"]
        if kline["x"] and self.faults.takes_closing(stream):
            return
        symbol = event["s"]
        if kline["x"] and untidy.dice.random() < untidy.differing_share:
            self._close_otherwise(kline)
        ahead_ms = round(untidy.ahead_s.get(symbol, 0) * 1000)
        if ahead_ms:
            event["E"] += ahead_ms
            kline["t"] += ahead_ms
            kline["T"] += ahead_ms
        other = untidy.someone_else.get(symbol)
        if other is not None:
            event["s"] = kline["s"] = other
        if untidy.other_interval is not None:
            kline["i"] = untidy.other_interval
        untidy.sends(lambda: SimulatedBinance.send_event(self, stream, event), is_closing=kline["x"])

    def _close_otherwise(self, kline: Message) -> None:
        kline["c"] = kline["l"] if kline["c"] != kline["l"] else kline["h"]
        first, high, low, close, volume = (float(kline[name]) for name in ("o", "h", "l", "c", "v"))
        self.untidy.may_say(f"{kline['s']}@{kline['i']}", kline["t"] // 1000, (first, high, low, close, volume))


def _integer(value: object) -> int:
    assert isinstance(value, int)
    return value


class _UsdmRest(_BinanceRest, BinanceUsdmRest):
    """The calls of futures."""


class UntidyUsdm(UntidyBinance, BinanceUsdmStandIn):
    """The stand-in for futures that also obeys the orders of `untidy`."""

    untidy_rest_type = _UsdmRest


# -- Twelve Data -----------------------------------------------------------------------------------


class UntidyTwelveData(TwelveDataStandIn):
    """The Twelve Data stand-in that also obeys the orders of `untidy`."""

    def __init__(self, market: StagedMarket, clock: StagedClock, dice: random.Random, **settings: Any) -> None:
        super().__init__(market, clock, **settings)
        self.untidy = Untidy(dice)
        rest = self.rest
        self.rest = _TwelveDataRest(
            market,
            clock,
            self.untidy,
            api_key=rest.api_key,
            credits_per_minute=rest.credits.per_minute,
            credits_per_day=rest.credits.per_day,
        )

    async def close(self) -> None:
        self.untidy.forget_waiting()
        await super().close()

    def send_event(self, stream: str, event: Message) -> None:
        event["timestamp"] += round(self.untidy.ahead_s.get(stream, 0))
        event["symbol"] = self.untidy.someone_else.get(stream, stream)
        self.untidy.sends(lambda: super(UntidyTwelveData, self).send_event(stream, event), is_closing=False)


class _TwelveDataRest(FurtherCalls):
    def __init__(
        self,
        market: StagedMarket,
        clock: StagedClock,
        untidy: Untidy,
        *,
        api_key: str,
        credits_per_minute: int,
        credits_per_day: int,
    ) -> None:
        super().__init__(
            market, clock, api_key=api_key, credits_per_minute=credits_per_minute, credits_per_day=credits_per_day
        )
        self._untidy = untidy
        self.bars = _Bars(market, untidy)

    def _series(self, symbol: str, params: Mapping[str, str]) -> object:
        untidy = self._untidy
        asked_for = untidy.someone_else.get(symbol.upper(), symbol)
        if untidy.other_interval is not None:
            params = {**params, "interval": untidy.other_interval}
        found: Any = super()._series(asked_for, params)
        if not isinstance(found, dict):
            return found  # a table: nobody asks for CSV
        if untidy.is_empty:
            found["values"] = []
        opens = {value["datetime"]: place for place, value in enumerate(found["values"])}
        if untidy.bad is not None and untidy.bad[1] is not None:
            opens = {value["datetime"]: _unix_s(value["datetime"]) for value in found["values"]}
        found["values"] = untidy.spoilt(found["values"], lambda value: opens[value["datetime"]], _spoil_value)
        return found

    def _forex_pairs(self, params: Mapping[str, str]) -> object:
        found: Any = super()._forex_pairs(params)
        if self._untidy.listed is not None:
            found["data"] = [row for row in found["data"] if row["symbol"] in self._untidy.listed]
            found["count"] = len(found["data"])
        return found


def _unix_s(text: str) -> int:
    """Read a label that was asked for in UTC."""
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp())


def _spoil_value(value: Mapping[str, object], kind: str) -> dict[str, object]:
    return {**value, "close": _lifted(value["high"]) if kind == "above high" else BAD_CELLS[kind]}


class _Bars(StagedBars):
    def __init__(self, market: StagedMarket, untidy: Untidy) -> None:
        super().__init__(market)
        self._untidy = untidy

    def _opens(self, pair: Pair, short: str, zone: tzinfo, last_ms: int) -> Iterator[int]:
        opened = self._untidy.four_hours_from
        if short != "4h" or opened is None:
            yield from super()._opens(pair, short, zone, last_ms)
            return
        at = last_ms
        while at >= pair.listed_day * 86_400_000:
            at = opened(at // 1000) * 1000
            yield at
            at -= 1

    def newest(
        self, pair: Pair, interval: str, zone: tzinfo, now_ms: int, first_ms: int | None, last_ms: int, limit: int
    ) -> list[Bar]:
        lag_s, frozen_at = self._untidy.lag_s, self._untidy.frozen_at
        if frozen_at is not None:
            now_ms = min(now_ms, round(frozen_at * 1000))
            last_ms = min(last_ms, now_ms)
        # Nothing that was still open so long ago is listed yet.
        upto = last_ms if lag_s is None else min(last_ms, now_ms - round(lag_s * 1000))
        bars = super().newest(pair, interval, zone, now_ms, first_ms, upto, limit + 1)
        short = _SHORT.get(interval, interval)
        if lag_s is not None:
            bars = [bar for bar in bars if local_end_time(short, bar.start, zone) <= upto]
        unsettled_ms = now_ms - round(self._untidy.settles_after_s * 1000)
        return [
            bar._replace(close=bar.low if bar.close != bar.low else bar.high)
            if unsettled_ms < (ends := local_end_time(short, bar.start, zone)) <= now_ms and ends // 60_000 % 2
            else bar
            for bar in bars[:limit]
        ]


# -- both ------------------------------------------------------------------------------------------


class UntidySandbox(Sandbox):
    """Both untidy stand-ins on one market and one clock; what they draw comes from `seed`."""

    binance: UntidyBinance
    twelve_data: UntidyTwelveData

    def __init__(self, *, seed: int | str = 1, pace_s: float = 2.0, **settings: Any) -> None:
        super().__init__(seed=seed, pace_s=pace_s, **settings)
        tidy = self.twelve_data
        self.binance = UntidyBinance(self.market, self.clock, random.Random(f"binance {seed}"), pace_s=pace_s)
        if self.binance_usdm is not None:
            contracts, dice = self.futures.market, random.Random(f"binance_usdm {seed}")
            self.binance_usdm = UntidyUsdm(contracts, self.clock, dice, pace_s=pace_s, weight_limit=2400)
        self.twelve_data = UntidyTwelveData(
            self.market,
            self.clock,
            random.Random(f"twelve_data {seed}"),
            api_key=tidy.api_key,
            credits_per_minute=tidy.rest.credits.per_minute,
            credits_per_day=tidy.rest.credits.per_day,
            stream_symbols=tidy.stream_symbols,
        )
