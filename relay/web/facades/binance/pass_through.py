"""What only Binance can say: by its live streams, or asked there once for all who ask the same in a second."""

import asyncio
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import orjson
from aiohttp import web

from relay.core.errors import RateLimited
from relay.core.model import NativeAnswer
from relay.core.threads import in_thread_if_many
from relay.plugins.provider import Provider
from relay.web.facade_counts import FacadeCounts
from relay.web.facades.binance import reading
from relay.web.facades.binance.lacking_texts import why_not_asked
from relay.web.facades.binance.polled_answers import PolledAnswers
from relay.web.facades.binance.refusals import JSON, BinanceRefusal, bad_symbol, invalid, unsupported
from relay.web.facades.binance.venue_markets import SPOT, STATUSES, USDM, HeadersNow, VenueMarket, no_provider
from relay.web.facades.facade import FacadeParts
from relay.web.http.cached_body import Body, ResponseHeads

FRESH_S = 1.0
"""So long an answer is given again."""
_TIMES = frozenset({"time", "T", "openTime", "closeTime", "serverTime"})
_BYTES_EACH = 100
MOST_KNOWN = 2_000
"""So many answers are given again at most."""

Asked = tuple[str, str, tuple[tuple[str, str], ...]]


class PassedAnswer(NamedTuple):
    """An answer of the exchange, and its body as it leaves."""

    answer: NativeAnswer
    body: Body


class PassThrough:
    """Asks providers in their own protocol. Calls take turns with all others to the provider, behind live streams."""

    def __init__(self, parts: FacadeParts, counts: FacadeCounts) -> None:
        self._calls = parts.history.calls
        self._counts = counts
        self._known: dict[Asked, tuple[asyncio.Task[PassedAnswer], str]] = {}
        self._polled = PolledAnswers(parts, counts, FRESH_S)

    async def ask(self, provider: Provider, path: str, query: Mapping[str, str], client: str) -> PassedAnswer:
        """Return the venue's answer. Cancelling ends the request, not the call: others wait.

        Raises `ProviderError`, and `BinanceRefusal` if this provider cannot be asked.
        """
        if not provider.answers_natively:
            raise unsupported(why_not_asked(provider.info))
        live = provider.native_live(path, query)
        if live is not None and (body := await self._polled.body(provider, live)) is not None:
            self._counts.weight_asked += live.weight
            return PassedAnswer(NativeAnswer(200, body, live.weight), Body([body], JSON))
        asked = (provider.name, path, tuple(sorted(query.items())))
        known = self._answered(asked)
        if live is not None and known is not None and self._polled.is_passed(provider, live, known):
            del self._known[asked]
        while True:
            task, owner = self._known.get(asked) or self._begin(asked, provider, path, query, client)
            try:
                passed = await asyncio.shield(task)
            except RateLimited:
                if owner == client:
                    raise
                # Another client had its share; this one has a share of its own.
                continue
            self._counts.weight_asked += passed.answer.weight
            if live is not None:
                self._polled.note(provider, live, passed.answer)
            return passed

    def _answered(self, asked: Asked) -> NativeAnswer | None:
        task, _ = self._known.get(asked, (None, ""))
        if task is None or not task.done() or task.cancelled() or task.exception() is not None:
            return None
        return task.result().answer

    def _begin(
        self, asked: Asked, provider: Provider, path: str, query: Mapping[str, str], client: str
    ) -> tuple[asyncio.Task[PassedAnswer], str]:
        task = asyncio.create_task(self._ask(provider, path, query, client))
        task.add_done_callback(lambda done: self._keep(asked, done))
        self._known[asked] = task, client
        return task, client

    async def _ask(self, provider: Provider, path: str, query: Mapping[str, str], client: str) -> PassedAnswer:
        if (refusal := provider.outage.refusal(path)) is not None:
            # All who ask would wait for the same failure.
            raise type(refusal)(str(refusal))
        async with self._calls.turn(provider, client) as turn:
            # A call that fails is no measure of what others cost.
            turn.weight = 0
            answer = await provider.native(path, query)
            turn.weight = answer.weight
        self._counts.calls += 1
        self._counts.weight += answer.weight
        return PassedAnswer(answer, Body([answer.body], JSON))

    def _keep(self, asked: Asked, done: "asyncio.Task[PassedAnswer]") -> None:
        """Give an answer again for a moment; a failure only to those who waited for it."""
        if done.cancelled() or done.exception() is not None or len(self._known) > MOST_KNOWN:
            self._forget(asked, done)
        else:
            asyncio.get_running_loop().call_later(FRESH_S, self._forget, asked, done)

    def _forget(self, asked: Asked, done: "asyncio.Task[PassedAnswer]") -> None:
        if asked in self._known and self._known[asked][0] is done:
            del self._known[asked]

    async def close(self) -> None:
        """End the calls under way, and let streams go."""
        self._polled.close()
        running = [task for task, _ in self._known.values() if not task.done()]
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


class PassedCall(NamedTuple):
    """A call that is passed on: its parameters, and those without which there is no answer."""

    names: Sequence[str]
    needed: Sequence[str] = ()


_LEGAL = {"type": re.compile("FULL|MINI"), "windowSize": re.compile("[1-9][0-9]?[mhd]")}
_OF_SYMBOLS = ("symbol", "symbols", "symbolStatus")
_TRADES = {
    "trades": PassedCall(("symbol", "limit"), ("symbol",)),
    "aggTrades": PassedCall(("symbol", "fromId", "startTime", "endTime", "limit"), ("symbol",)),
}
PASSED_CALLS: Mapping[str, Mapping[str, PassedCall]] = {
    SPOT.provider: {
        "ticker/24hr": PassedCall((*_OF_SYMBOLS, "type")),
        "ticker/price": PassedCall(_OF_SYMBOLS),
        "ticker/bookTicker": PassedCall(_OF_SYMBOLS),
        "ticker": PassedCall((*_OF_SYMBOLS, "type", "windowSize")),
        "avgPrice": PassedCall(("symbol",), ("symbol",)),
        "depth": PassedCall(("symbol", "limit", "symbolStatus"), ("symbol",)),
        **_TRADES,
    },
    USDM.provider: {
        "ticker/24hr": PassedCall(("symbol",)),
        "ticker/price": PassedCall(("symbol",)),
        "ticker/bookTicker": PassedCall(("symbol",)),
        "depth": PassedCall(("symbol", "limit"), ("symbol",)),
        **_TRADES,
    },
}
"""What is passed on by provider, and the parameters of each: rest-api.md, "Market Data endpoints", for spot.

The same calls of futures have a page each at
https://developers.binance.com/docs/derivatives/usds-margined-futures/market-data/rest-api.
"""


def in_microseconds(text: bytes) -> bytes:
    """Return an answer with its times in microseconds; it was asked for in milliseconds, once for all."""
    return orjson.dumps(_in_microseconds(orjson.loads(text)))


def _in_microseconds(value: Any) -> Any:
    if isinstance(value, list):
        return [*map(_in_microseconds, value)]
    if not isinstance(value, dict):
        return value
    return {
        name: one * 1000 if name in _TIMES and isinstance(one, int) else _in_microseconds(one)
        for name, one in value.items()
    }


class PassedRoute:
    """Answers what is passed on of one market. What the relay knows to be refused is refused here."""

    def __init__(self, parts: FacadeParts, market: VenueMarket, passed: PassThrough) -> None:
        self._parts = parts
        self._market = market
        self._passed = passed
        self._heads = ResponseHeads()

    async def answer(self, request: web.Request, name: str, headers: HeadersNow) -> web.StreamResponse:
        """Return the exchange's own answer. `headers` go with it."""
        client = self._parts.access.caller(request).client
        async with self._parts.timing.in_time():
            await self._check(request.query, name, client)
            query = dict(request.query)
            if "symbol" in query:
                query["symbol"] = self._market.spelt(query["symbol"])
            provider = self._parts.providers.get(self._market.provider)
            if provider is None:
                raise bad_symbol(no_provider(self._market))
            answer, body = await self._passed.ask(provider, f"{self._market.root}/{name}", query, client)
        if answer.status != 200:
            return web.Response(status=answer.status, body=answer.body, headers={"Content-Type": JSON, **headers()})
        if reading.wants_microseconds(request, self._market):
            body = Body([await in_thread_if_many(len(answer.body) // _BYTES_EACH, in_microseconds, answer.body)], JSON)
        return await body.answer(request, self._heads, headers())

    async def _check(self, query: Mapping[str, str], name: str, client: str) -> None:
        """Refuse what the exchange would refuse, at no cost. Raises `BinanceRefusal`."""
        call = PASSED_CALLS[self._market.provider][name]
        reading.check_names(query, call.names, call.needed)
        if "symbol" in query and "symbols" in query:
            raise BinanceRefusal(-1128, "Combination of optional parameters invalid.")
        symbols = [reading.symbol_of(self._market.spelt(query["symbol"]))] if "symbol" in query else []
        if "symbols" in query:
            symbols = reading.symbols_of(query["symbols"])
        if name == "ticker" and not symbols:
            said = "Param 'symbol' or 'symbols' must be sent, but both were empty/null!"
            raise BinanceRefusal(-1102, said)
        for number in ("limit", "fromId", "startTime", "endTime"):
            reading.whole(query, number)
        if query.get("symbolStatus", STATUSES[0]) not in STATUSES:
            raise BinanceRefusal(-1122, "Invalid symbolStatus.")
        # What a firewall before the exchange takes for an attack counts against the address of the relay.
        for text, legal in _LEGAL.items():
            if text in query and not legal.fullmatch(query[text]):
                raise invalid(text)
        directory, provider = self._parts.directory, self._market.provider
        for symbol in symbols if provider in self._parts.providers else ():
            await directory.settled(provider, symbol, [client])
            if directory.instrument(provider, symbol) is None:
                raise bad_symbol()
