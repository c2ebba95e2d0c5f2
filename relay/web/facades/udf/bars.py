"""Bars for charts: the candles of history in columns, and nothing where there is nothing."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import orjson
from aiohttp import web

from relay.core.errors import Code, ProviderUnavailable, RequestError
from relay.core.intervals import length_s
from relay.core.model import Candle, StreamKey
from relay.core.trading_calendar import TradingCalendar
from relay.history.known_answers import EncodedCandles
from relay.history.live_edge import LiveEdge, live_of
from relay.history.requests import HistoryRequest
from relay.instruments.directory import Target
from relay.plugins.provider import Provider
from relay.protocol.fields import shown
from relay.storage.chunks import decode
from relay.web.access.access import Caller
from relay.web.facade_counts import FacadeCounts
from relay.web.facades.facade import FacadeParts, without_token
from relay.web.facades.polled_series import PolledSeries
from relay.web.facades.udf.bars_query import BarsQuery, read_bars_query
from relay.web.facades.udf.refusals import JSON
from relay.web.facades.udf.resolutions import LONG
from relay.web.http.cached_body import Body, KeptBody, ResponseHeads

_DAY_S = 86_400
_AROUND = 3
"""So many days may open within a day of a time that is a date for charts, and a moment for the relay."""

BarTimes = Callable[[int], int]
"""Gives the time of a bar from when its candle opened; both in Unix seconds."""


class BarsRoute:
    """Answers `history`."""

    def __init__(self, parts: FacadeParts, polled: PolledSeries, counts: FacadeCounts) -> None:
        self._parts = parts
        self._polled = polled
        self._counts = counts
        self._heads = ResponseHeads()

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Bars in columns, ascending; `no_data` where there are none. Raises `RequestError`, `ProviderError`."""
        parts = self._parts
        caller = parts.access.caller(request)
        parts.access.check_rows(caller)
        path = without_token(request.raw_path)
        made = parts.bodies.get(path)
        if made is not None:
            parts.history.served["cache"] += 1
            made.on_use()
        else:
            asked = read_bars_query(request.query)
            target = await self._target(asked, caller)
            if asked.end + length_s(target.key.interval) >= target.provider.clock.now():
                self._polled.note(target, caller)
            is_wanted = parts.bodies.is_wanted(path)
            made = await self._make(asked, target, caller.client)
            if is_wanted:
                parts.bodies.keep(path, made)
        parts.access.spend_rows(caller, made.rows)
        return await made.body.answer(request, self._heads)

    async def _target(self, asked: BarsQuery, caller: Caller) -> Target:
        directory = self._parts.directory
        await directory.settled(asked.pin, asked.symbol, [caller.client])
        if asked.currency:
            instrument = directory.meant(asked.pin, asked.symbol).instrument
            if instrument is not None and instrument.quote.upper() != asked.currency.upper():
                raise RequestError(
                    Code.INVALID_REQUEST,
                    f"currencyCode {shown(asked.currency)}: {asked.symbol} is in {instrument.quote}, and the relay "
                    "converts nothing",
                )
        return directory.resolve(asked.pin, asked.symbol, asked.interval)

    async def _make(self, asked: BarsQuery, target: Target, client: str) -> KeptBody:
        listed, provider = self._parts.directory.version, target.provider
        bar_time = bar_times(provider, target.key)
        if asked.end > 0:
            text = await self._text(asked, target, client, is_shifted=bar_time is not None)
        else:
            text = EncodedCandles((), last_is_closed=True)
        candles = decode(text.chunk)
        times = [candle.time if bar_time is None else bar_time(candle.time) for candle in candles]
        if not candles and not text.is_whole:
            title = provider.info.title
            raise ProviderUnavailable(f"one request may not send so many requests to {title}; ask again for the rest")
        answer = _answer(asked, times, candles)

        def is_current() -> bool:
            return listed == self._parts.directory.version and provider.refusal is None and text.is_current()

        body = Body([orjson.dumps(answer)], JSON)
        return KeptBody(body, len(candles), is_current, partial(self._polled.touch, target))

    async def _text(self, asked: BarsQuery, target: Target, client: str, *, is_shifted: bool) -> EncodedCandles:
        provider, key, _ = target

        def live() -> LiveEdge | None:
            return live_of(self._parts.hub.streams.get((provider.name, key)))

        end, count = asked.end - 1, asked.most
        if is_shifted:
            end, count = end + _DAY_S, count + _AROUND
        request = HistoryRequest(provider, key, None, end, count, live, client=client, on_call=self._count_call)
        return await self._parts.history.text(request)

    def _count_call(self) -> None:
        self._counts.calls += 1


def bar_times(provider: Provider, key: StreamKey) -> BarTimes | None:
    """Return what gives bars of a day and more their times, None where those of candles are right.

    Charts want 0:00 UTC of the day of trading on which a bar begins, wherever that day opens.
    """
    calendar = provider.hours.calendar(key.symbol) if key.interval in LONG else None
    if calendar is None or calendar.is_always_open:
        return None
    return partial(_date_of, calendar, key.interval)


def _date_of(calendar: TradingCalendar, interval: str, opened: int) -> int:
    local = opened + calendar.offset_s(opened)
    if opened % _DAY_S == 0:
        return opened
    if interval == "1d" and local % _DAY_S == 0:
        # Its own date, whatever the calendar says of it.
        return local
    try:
        return calendar.day_of(opened).date * _DAY_S
    except ValueError:
        return local // _DAY_S * _DAY_S


def _answer(asked: BarsQuery, times: Sequence[int], candles: Sequence[Candle]) -> dict[str, Any]:
    """Return the bars that are asked for, of some before and after them."""
    rows = [(time, candle) for time, candle in zip(times, candles, strict=True) if time < asked.end]
    earlier = rows[-1][0] if rows else None
    if asked.start is not None:
        rows = [(time, candle) for time, candle in rows if time >= asked.start]
    rows = rows[-asked.most :]
    if not rows:
        # Also while it is doubted that there is nothing: charts ask again and again after an error, and a doubt that
        # proves wrong shows when the chart is loaded again. `nextTime` is in milliseconds, as "How nextTime works" of
        # https://www.tradingview.com/charting-library-docs has it, and the type that the client hands it to.
        return {"s": "no_data"} if earlier is None else {"s": "no_data", "nextTime": earlier * 1000}
    columns = zip(*(candle for _, candle in rows), strict=True)
    _, opened, high, low, close, volume = columns
    return {"s": "ok", "t": [time for time, _ in rows], "o": opened, "h": high, "l": low, "c": close, "v": volume}
