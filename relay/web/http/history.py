"""The history route: candles of one stream, as JSON, CSV or newline-delimited JSON."""

from collections.abc import AsyncGenerator
from typing import NamedTuple

import orjson
from aiohttp import web

from relay.core.errors import ProviderUnavailable, RelayError
from relay.core.intervals import length_s
from relay.history.known_answers import EncodedCandles
from relay.history.live_edge import LiveEdge, live_of
from relay.history.requests import HistoryRequest
from relay.history.service import HistoryService
from relay.instruments.directory import Directory, Target
from relay.network.reset import reset
from relay.plugins.provider import Provider
from relay.protocol.fields import check_is_past
from relay.storage.chunks import CSV_HEAD, EXTENDED_CSV_HEAD, Chunk, as_csv, as_lines
from relay.storage.store import Store
from relay.streams.hub import Hub
from relay.web.access.access import Access, Caller
from relay.web.contract.parameters import HISTORY, MOST_AT_ONCE, HistoryQuery
from relay.web.http.cached_body import Body, KeptBodies, KeptBody, ResponseHeads, takes_gzip

CONTENT_TYPES = {
    "json": "application/json",
    "csv": "text/csv; charset=utf-8",
    "ndjson": "application/x-ndjson",
}


class _Asked(NamedTuple):
    # A request, understood.
    query: HistoryQuery
    target: Target
    caller: Caller


def _closed(text: EncodedCandles) -> Chunk:
    """Return the closed candles: lines have no place to say that the last one is not."""
    chunk = text.chunk
    return chunk if text.last_is_closed else chunk.part(0, len(chunk.times) - 1)


def _csv_head(query: HistoryQuery) -> bytes:
    return EXTENDED_CSV_HEAD if query.extended else CSV_HEAD


def _lacks_one(target: Target, text: EncodedCandles) -> bool:
    """Say whether a candle may be missing: not while the market was closed."""
    if not text.is_whole:
        return True
    if not text.doubted:
        return False
    market, length = target.provider.market(target.key.symbol), length_s(target.key.interval)
    return any(market.has_open_part(*span, length) for span in text.doubted)


def _check_is_whole(text: EncodedCandles, provider: Provider) -> None:
    """Refuse what has no place to say that candles are missing. Raises `ProviderUnavailable`."""
    if not text.is_whole:
        title = provider.info.title
        raise ProviderUnavailable(f"one request may not send so many requests to {title}; ask again for the rest")


class HistoryRoute:
    """Answers the history route; what is asked for twice is kept among the `bodies`, which others use as well."""

    def __init__(
        self, hub: Hub, directory: Directory, history: HistoryService, store: Store, access: Access, bodies: KeptBodies
    ) -> None:
        self._hub = hub
        self._directory = directory
        self._history = history
        self._store = store
        self._access = access
        self._heads = ResponseHeads()
        self.bodies = bodies

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Candles of one stream, ascending."""
        path, caller = request.raw_path, self._access.caller(request)
        made = self.bodies.get(path)
        if made is not None:
            self._history.served["cache"] += 1
        else:
            asked = await self._understand(request, caller)
            if asked.query.limit > MOST_AT_ONCE:
                return await self._stream(request, asked)
            is_wanted = self.bodies.is_wanted(path)
            made = await self._make(asked, is_wanted=is_wanted)
            if is_wanted:
                self.bodies.keep(path, made)
        self._access.spend_rows(caller, made.rows)
        return await made.body.answer(request, self._heads)

    async def _understand(self, request: web.Request, caller: Caller) -> _Asked:
        """Read the query. Raises `RequestError`."""
        query = HISTORY.read(request)
        pin, symbol = query.symbol
        await self._directory.settled(pin, symbol)
        target = self._directory.resolve(pin, symbol, query.interval)
        if query.start is not None:
            check_is_past("start_time", query.start, target.provider.clock.now())
        return _Asked(query, target, caller)

    async def _make(self, asked: _Asked, *, is_wanted: bool) -> KeptBody:
        """Make the body; in one piece if it is wanted again."""
        (provider, key, name), query = asked.target, asked.query
        listed = self._directory.version
        text = await self._text(asked, query.start, query.end, query.limit)
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
            _check_is_whole(text, provider)
            chunk = _closed(text)
            rows = len(chunk.times)
            is_csv = query.form == "csv"
            parts = [_csv_head(query), as_csv(chunk, extended=query.extended)] if is_csv else [as_lines(chunk)]
        if is_wanted:
            parts = [b"".join(parts)]

        def is_current() -> bool:
            # It may have another name, or its provider may refuse the relay by now.
            return listed == self._directory.version and provider.refusal is None and text.is_current()

        return KeptBody(Body(parts, CONTENT_TYPES[query.form]), rows, is_current)

    async def _text(self, asked: _Asked, start: int | None, end: int | None, limit: int) -> EncodedCandles:
        provider, key, _ = asked.target

        def live() -> LiveEdge | None:
            return live_of(self._hub.streams.get((provider.name, key)))

        extended = asked.query.extended
        request = HistoryRequest(
            provider,
            key,
            start,
            end,
            limit,
            live,
            client=asked.caller.client,
            extended=extended,
            needs_extras=extended,
        )
        return await self._history.text(request)

    # -- large answers -----------------------------------------------------------------------------

    async def _stream(self, request: web.Request, asked: _Asked) -> web.StreamResponse:
        """Send page after page as the client takes them, so that no more than one is in memory."""
        pages = self._pages(asked)
        first = await anext(pages, None)
        answer = web.StreamResponse(
            headers={"Content-Type": CONTENT_TYPES[asked.query.form], "Cache-Control": "no-cache"}
        )
        answer.headers["Vary"] = "Accept-Encoding"
        if takes_gzip(request.headers.get("Accept-Encoding", "")):
            answer.enable_compression(web.ContentCoding.gzip)
        await answer.prepare(request)
        try:
            if asked.query.form == "csv":
                await answer.write(_csv_head(asked.query))
            chunk = first
            while chunk is not None:
                self._access.spend_rows(asked.caller, len(chunk.times))
                is_csv, extended = asked.query.form == "csv", asked.query.extended
                await answer.write(as_csv(chunk, extended=extended) if is_csv else as_lines(chunk))
                chunk = await anext(pages, None)
            await answer.write_eof()
        except (ConnectionError, RelayError):
            # The client left, or the rest cannot be had: then it must not take the half for the whole.
            if request.transport is not None:
                reset(request.transport)
        finally:
            await pages.aclose()
        return answer

    async def _pages(self, asked: _Asked) -> AsyncGenerator[Chunk, None]:
        """Yield the closed candles, ascending, in pages."""
        start, end, left = asked.query.start, asked.query.end, asked.query.limit
        if start is None:
            start, end = await self._begin(asked)
        provider, key, _ = asked.target
        age: int | None = None
        while left > 0:
            text = await self._text(asked, start, end, min(left, MOST_AT_ONCE))
            before, age = age, self._store.age(provider.name, key.symbol)
            if before not in (None, age):
                raise ProviderUnavailable(f"the past of {asked.target.name} changed while it was read; ask again")
            _check_is_whole(text, provider)
            chunk = text.chunk
            count = len(chunk.times)
            closed = _closed(text)
            if closed.times:
                yield closed
            if count < min(left, MOST_AT_ONCE) or not text.last_is_closed:
                return
            left -= count
            start = chunk.times[-1] + 1

    async def _begin(self, asked: _Asked) -> tuple[int, int | None]:
        """Walk back to where the last `limit` candles begin; return that, and where they end."""
        start, end, left, last = 0, asked.query.end, asked.query.limit, asked.query.end
        while left > 0:
            text = await self._text(asked, None, end, min(left, MOST_AT_ONCE))
            _check_is_whole(text, asked.target.provider)
            times = text.chunk.times
            if not times:
                break
            if last is None:
                last = times[-1]
            start, end = times[0], times[0] - 1
            if len(times) < min(left, MOST_AT_ONCE):
                break
            left -= len(times)
        return start, last


ROUTE = web.AppKey("history_route", HistoryRoute)


async def _history(request: web.Request) -> web.StreamResponse:
    return await request.app[ROUTE].answer(request)


ROUTES = [web.get("/api/v1/market-data/history", _history)]
