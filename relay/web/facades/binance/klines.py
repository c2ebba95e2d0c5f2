"""The klines of one market: rows of candles that came from Binance, as the text that it gave."""

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

from aiohttp import web

from relay.core.errors import ProviderUnavailable, RateLimited
from relay.core.intervals import length_s
from relay.history.known_answers import EncodedCandles
from relay.history.live_edge import LiveEdge
from relay.history.requests import HistoryRequest
from relay.instruments.directory import Target
from relay.plugins.provider import Provider
from relay.web.facade_counts import FacadeCounts
from relay.web.facades.binance import reading
from relay.web.facades.binance.kline_rows import KLINE_ROWS, in_microseconds
from relay.web.facades.binance.lacking_texts import recorded_intervals, why_no_texts
from relay.web.facades.binance.pass_through import PassThrough
from relay.web.facades.binance.refusals import JSON, bad_interval, bad_symbol, invalid, unsupported
from relay.web.facades.binance.venue_markets import HeadersNow, VenueMarket, no_provider
from relay.web.facades.facade import FacadeParts, without_token
from relay.web.facades.polled_series import PolledSeries
from relay.web.http.cached_body import Body, KeptBody, ResponseHeads

_NAMES = ("symbol", "interval", "startTime", "endTime", "limit")
KLINES_NEEDED = ("symbol", "interval")
_USED_UP = 0.9
AGAIN_S = 60.0
"""After so long candles that could not be had whole are asked for again."""


class KlinesQuery(NamedTuple):
    """What klines are asked for; `start` and `end` are open times in Unix seconds, both inclusive."""

    symbol: str
    interval: str
    start: int | None
    end: int | None
    limit: int
    zone_ms: int


def kline_names(market: VenueMarket) -> Sequence[str]:
    """Return the parameters that klines of a market take."""
    return _NAMES if market.is_plain else (*_NAMES, "timeZone")


def read_klines_query(request: web.Request, market: VenueMarket) -> KlinesQuery:
    """Read the parameters of a request. Raises `BinanceRefusal`."""
    query = request.query
    reading.check_names(query, kline_names(market), KLINES_NEEDED)
    symbol = reading.symbol_of(market.spelt(query["symbol"]))
    start, end = reading.first_second(query, "startTime"), reading.last_second(query, "endTime")
    limit = reading.whole(query, "limit")
    if limit == 0 or (market.refuses_more and limit is not None and limit > market.most_rows):
        raise invalid("limit")
    rows = market.default_rows if limit is None else min(limit, market.most_rows)
    return KlinesQuery(symbol, query["interval"], start, end, rows, reading.zone_ms(query))


class KlineRoute:
    """Answers `klines` and `uiKlines` of one market."""

    def __init__(
        self,
        parts: FacadeParts,
        market: VenueMarket,
        passed: PassThrough,
        polled: PolledSeries,
        counts: FacadeCounts,
    ) -> None:
        self._parts = parts
        self._polled = polled
        self._counts = counts
        self._market = market
        self._passed = passed
        self._provider = parts.providers.get(market.provider)
        self._heads = ResponseHeads()

    async def answer(self, request: web.Request, headers: HeadersNow) -> web.StreamResponse:
        """Rows, ascending, the forming one last. `headers` go with the answer."""
        parts = self._parts
        caller = parts.access.caller(request)
        parts.access.check_rows(caller)
        is_micro = reading.wants_microseconds(request, self._market)
        path = f"{without_token(request.raw_path)} {is_micro}"
        made = parts.bodies.get(path)
        if made is not None:
            parts.history.served["cache"] += 1
            made.on_use()
        else:
            asked = read_klines_query(request, self._market)
            async with parts.timing.in_time():
                target = await self._target(asked, caller.client)
                # What forms is not recorded.
                if not target.provider.info.is_recorded and _reaches_now(asked, target):
                    self._polled.note(target, caller)
                    await self._polled.settled(target)
                is_wanted = parts.bodies.is_wanted(path)
                made = await self._make(asked, target, caller.client, is_micro=is_micro, is_wanted=is_wanted)
            if is_wanted:
                parts.bodies.keep(path, made)
        parts.access.spend_rows(caller, made.rows)
        return await made.body.answer(request, self._heads, headers())

    async def _target(self, asked: KlinesQuery, client: str) -> Target:
        """Return the stream that is asked for. Raises `RequestError`."""
        provider, directory = self._provider, self._parts.directory
        if provider is None:
            raise bad_symbol(no_provider(self._market))
        await directory.settled(provider.name, asked.symbol, [client])
        instrument = directory.instrument(provider.name, asked.symbol)
        if instrument is None:
            raise bad_symbol("this recording does not have it" if provider.info.is_recorded else "")
        if why := why_no_texts(provider, instrument):
            raise unsupported(why)
        # Only what Binance itself has: what the relay makes of its candles is none of these.
        intervals = instrument.intervals or provider.info.intervals
        if asked.interval not in intervals or asked.interval not in KLINE_ROWS:
            raise bad_interval(recorded_intervals(asked.symbol, intervals) if provider.info.is_recorded else "")
        return directory.resolve(provider.name, asked.symbol, asked.interval)

    async def _make(
        self, asked: KlinesQuery, target: Target, client: str, *, is_micro: bool, is_wanted: bool
    ) -> KeptBody:
        """Make the body; in one piece if it is wanted again."""
        provider, key, _ = target
        if asked.zone_ms % (length_s(key.interval) * 1000):
            return await self._passed_on(asked, provider, client, is_micro=is_micro)
        listed = self._parts.directory.version
        text = await self._text(asked, target, client)
        _check_is_whole(text, target)
        parts = [b"["]
        count = 0
        for chunk in text.chunks:
            if count:
                parts.append(b",")
            parts.append(chunk.text)
            count += len(chunk.times)
        parts.append(b"]")
        if is_wanted or is_micro:
            parts = [b"".join(parts)]

        def is_current() -> bool:
            is_listed = listed == self._parts.directory.version and provider.refusal is None
            return is_listed and text.is_current() and self._polled.is_current(target)

        body = Body([in_microseconds(*parts)] if is_micro else parts, JSON)
        return KeptBody(body, count, is_current, partial(self._polled.touch, target))

    async def _text(self, asked: KlinesQuery, target: Target, client: str) -> EncodedCandles:
        provider, key, _ = target

        def live() -> LiveEdge | None:
            return self._polled.edge(target)

        request = HistoryRequest(
            provider,
            key,
            asked.start,
            asked.end,
            asked.limit,
            live,
            client=client,
            extended=True,
            needs_extras=True,
            form=KLINE_ROWS[key.interval],
            on_call=self._count_call,
        )
        return await self._parts.history.text(request)

    def _count_call(self) -> None:
        self._counts.calls += 1
        self._counts.weight += self._market.klines_weight(None)

    async def _passed_on(self, asked: KlinesQuery, provider: Provider, client: str, *, is_micro: bool) -> KeptBody:
        """Have the exchange itself cut candles by another zone's days: the relay has none of those."""
        minutes = abs(asked.zone_ms) // 60_000
        query = {
            "symbol": asked.symbol,
            "interval": asked.interval,
            "limit": str(asked.limit),
            "timeZone": f"{'-' if asked.zone_ms < 0 else ''}{minutes // 60}:{minutes % 60:02}",
        }
        if asked.start is not None:
            query["startTime"] = str(asked.start * 1000)
        if asked.end is not None:
            query["endTime"] = str(asked.end * 1000)
        answer, body = await self._passed.ask(provider, f"{self._market.root}/klines", query, client)
        if answer.status != 200:
            raise ProviderUnavailable(f"{provider.info.title} refused klines of another time zone")
        if is_micro:
            body = Body([in_microseconds(answer.body)], JSON)
        return KeptBody(body, asked.limit, _is_of_the_moment)


def _reaches_now(asked: KlinesQuery, target: Target) -> bool:
    """Say whether klines include the newest one."""
    now = target.provider.clock.now()
    reaches_so_far = asked.start is None or asked.start + asked.limit * length_s(target.key.interval) >= now
    return reaches_so_far and (asked.end is None or asked.end >= now)


def _is_of_the_moment() -> bool:
    """Say that nobody knows for how long an answer holds."""
    return False


def _check_is_whole(text: EncodedCandles, target: Target) -> None:
    """Refuse to give rows of which one is not known, or not as the exchange wrote it.

    Raises `ProviderError`, and `BinanceRefusal` where nobody will know.
    """
    provider, _key, _ = target
    bare = [time for chunk in text.chunks for time in chunk.bare_times()]
    if text.is_whole and not bare:
        return
    if provider.info.is_recorded and bare:
        # Not left out: programs take the last row for the forming one, and would act one candle late without knowing.
        raise unsupported(
            f"the kline of {bare[0] * 1000} has no texts of Binance in this recording; one that forms never has; ask "
            f"with endTime={bare[0] * 1000 - 1} or an earlier one"
        )
    for budget in provider.budgets():
        if budget.used >= budget.limit * _USED_UP:
            wait_s = max(1.0, budget.resets_at - provider.clock.now())
            raise RateLimited(
                f"some of these klines have to be requested again, and the {budget.name} is used up", wait_s
            )
    raise ProviderUnavailable("some of these klines have to be requested again; try again in a minute")
