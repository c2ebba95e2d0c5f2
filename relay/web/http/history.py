"""The history route: candles of one stream or several, as JSON, CSV or newline-delimited JSON."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

import orjson
from aiohttp import web

from relay.core.errors import Code, RequestError
from relay.core.intervals import length_s
from relay.history.known_answers import EncodedCandles
from relay.history.service import HistoryService
from relay.instruments.directory import Directory, Target
from relay.protocol.fields import check_is_past, shown
from relay.storage.chunks import CSV_HEAD, EXTENDED_CSV_HEAD, as_csv, as_lines
from relay.streams.hub import Hub
from relay.web.access.access import BELOW_TOKEN, PATH_OF_HISTORY, Access, Caller
from relay.web.contract.queries import HISTORY, MOST_AT_ONCE, WAIT, HistoryQuery
from relay.web.http.asked_history import AskedHistory, check_is_whole, closed_only
from relay.web.http.cached_body import Body, KeptBodies, KeptBody, ResponseHeads
from relay.web.http.history_pages import HistoryPages
from relay.web.http.several_histories import SeveralHistories
from relay.web.http.streamed_answer import send_parts

CONTENT_TYPES = {
    "json": "application/json",
    "csv": "text/csv; charset=utf-8",
    "ndjson": "application/x-ndjson",
}


RETRY_S = 1.0
"""So soon somebody may ask again for a symbol of which nobody knows yet."""


def _csv_head(query: HistoryQuery) -> bytes:
    return EXTENDED_CSV_HEAD if query.extended else CSV_HEAD


def _not_known_yet(symbol: str, what: str) -> RequestError:
    said = f"no provider has said yet whether it has {shown(symbol)}; {what}"
    return RequestError(Code.PROVIDER_UNAVAILABLE, said, retry_after=RETRY_S)


def _lacks_one(target: Target, text: EncodedCandles) -> bool:
    """Say whether a candle may be missing: not while the market was closed."""
    if not text.is_whole:
        return True
    if not text.doubted:
        return False
    market, length = target.provider.market(target.key.symbol), length_s(target.key.interval)
    return any(market.has_open_part(*span, length) for span in text.doubted)


class HistoryRoute:
    """Answers the history route; what is asked for twice is kept among the `bodies`, which others use as well."""

    def __init__(
        self, hub: Hub, directory: Directory, history: HistoryService, access: Access, bodies: KeptBodies
    ) -> None:
        self._hub = hub
        self._directory = directory
        self._history = history
        self._access = access
        self._pages = HistoryPages(hub, history)
        self._several = SeveralHistories(directory, self._pages, access)
        self._heads = ResponseHeads()
        self.bodies = bodies

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Candles of one stream, ascending; or of several symbols, one after the other."""
        path, caller = request.raw_path, self._access.caller(request)
        if request.match_info:
            # A token in the path makes no other answer, and is kept nowhere.
            path = f"{PATH_OF_HISTORY}?{request.rel_url.raw_query_string}"
        made = self.bodies.get(path)
        if made is not None:
            self._history.served["cache"] += 1
        else:
            query = HISTORY.read(request.query.items())
            if query.symbols is not None:
                lines = self._several.lines(query, query.symbols, caller)
                return await send_parts(request, CONTENT_TYPES["ndjson"], lines)
            asked = await self._understand(query, caller)
            if query.limit > MOST_AT_ONCE:
                return await send_parts(request, CONTENT_TYPES[query.form], self._streamed(asked))
            is_wanted = self.bodies.is_wanted(path)
            made = await self._make(asked, is_wanted=is_wanted)
            if is_wanted:
                self.bodies.keep(path, made)
        self._access.spend_rows(caller, made.rows)
        return await made.body.answer(request, self._heads)

    async def _understand(self, query: HistoryQuery, caller: Caller) -> AskedHistory:
        """Find out what a query names. Raises `RequestError`."""
        pin, symbol = query.one_symbol
        until = None if query.wait_s is None else asyncio.get_running_loop().time() + query.wait_s
        asks_nobody = query.wait_s == 0
        try:
            async with asyncio.timeout_at(until):
                if not asks_nobody:
                    await self._directory.settled(pin, symbol, [caller.client])
                elif not self._directory.is_settled(pin, symbol):
                    raise _not_known_yet(symbol, f"give a longer {WAIT.name}")
        except TimeoutError:
            if not self._directory.is_settled(pin, symbol):
                raise _not_known_yet(symbol, "ask again") from None
        target = self._directory.resolve(pin, symbol, query.interval)
        if query.start is not None:
            check_is_past("start_time", query.start, target.provider.clock.now())
        return AskedHistory(query, target, caller, is_known_only=asks_nobody, until=until)

    async def _make(self, asked: AskedHistory, *, is_wanted: bool) -> KeptBody:
        """Make the body; in one piece if it is wanted again."""
        (provider, key, name), query = asked.target, asked.query
        listed = self._directory.version
        text = await self._text(asked)
        if query.form == "json":
            names = (orjson.dumps(name), key.interval.encode(), provider.name.encode())
            parts = [b'{"symbol":%b,"interval":"%b","provider":"%b","candles":[' % names]
            rows = 0
            for chunk in text.chunks:
                if rows:
                    parts.append(b",")
                parts.append(chunk.text)
                rows += len(chunk.times)
            parts.append(b'],"last_is_closed":true' if text.last_is_closed else b'],"last_is_closed":false')
            parts.append(b',"complete":false}' if _lacks_one(asked.target, text) else b"}")
        else:
            check_is_whole(text, provider)
            chunk = closed_only(text, query.limit)
            rows = len(chunk.times)
            is_csv = query.form == "csv"
            parts = [_csv_head(query), as_csv(chunk, extended=query.extended)] if is_csv else [as_lines(chunk)]
        if is_wanted:
            parts = [b"".join(parts)]

        def is_current() -> bool:
            # It may have another name, or its provider may refuse the relay by now.
            return listed == self._directory.version and provider.refusal is None and text.is_current()

        return KeptBody(Body(parts, CONTENT_TYPES[query.form]), rows, is_current)

    async def _text(self, asked: AskedHistory) -> EncodedCandles:
        query = asked.query
        request = asked.request(self._hub.streams, query.start, query.end, asked.wanted())
        try:
            async with asyncio.timeout_at(asked.until):
                found = await self._history.text(request)
        except TimeoutError:
            return await self._history.known_text(request)
        if asked.is_known_only and not found.is_whole:
            # What is known next to the present or a start; there may be more behind what is not.
            return await self._history.known_text(request)
        return found

    async def _streamed(self, asked: AskedHistory) -> AsyncGenerator[bytes, None]:
        """Yield page after page, so that no more than one is in memory."""
        query = asked.query
        is_csv, head = query.form == "csv", _csv_head(query) if query.form == "csv" else b""
        async with aclosing(self._pages.closed(asked)) as pages:
            async for chunk in pages:
                self._access.spend_rows(asked.caller, len(chunk.times))
                yield head + (as_csv(chunk, extended=query.extended) if is_csv else as_lines(chunk))
                head = b""
        if head:
            yield head


ROUTE = web.AppKey("history_route", HistoryRoute)


async def _history(request: web.Request) -> web.StreamResponse:
    return await request.app[ROUTE].answer(request)


ROUTES = [web.get(PATH_OF_HISTORY, _history), web.get(BELOW_TOKEN + PATH_OF_HISTORY, _history)]
