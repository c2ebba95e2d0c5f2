"""The history route: candles of one stream, as JSON, CSV or newline-delimited JSON."""

from collections.abc import AsyncGenerator
from typing import NamedTuple

import orjson
from aiohttp import web

from relay.cache import BytesCache
from relay.chunks import CSV_HEAD, Chunk, as_csv, as_lines
from relay.directory import Directory, Target
from relay.errors import RelayError
from relay.history import History, Text
from relay.hub import Hub
from relay.snapshot import live_of
from relay.store import Store
from relay.stream import CONNECTED, Stream
from relay.web import callers
from relay.web.access import Access
from relay.web.bodies import Body, takes_gzip
from relay.web.parameters import (
    END_TIME,
    FORMAT,
    HISTORY,
    INTERVAL_PARAMETER,
    LIMIT,
    MOST_AT_ONCE,
    START_TIME,
    SYMBOL_PARAMETER,
)

CONTENT_TYPES = {
    "json": "application/json",
    "csv": "text/csv; charset=utf-8",
    "ndjson": "application/x-ndjson",
}


class _Asked(NamedTuple):
    # A request, understood.
    target: Target
    start: int | None
    end: int | None
    limit: int
    form: str
    client: str


class _Kept(NamedTuple):
    # A body, and what has to be as it was for it to be right.
    body: Body
    rows: int
    target: Target
    text: Text
    stream: Stream | None
    seq: int
    listed: int


def _closed(text: Text) -> Chunk:
    """Return the closed candles: lines have no place to say that the last one is not."""
    return text.chunk if text.last_is_closed else text.chunk.part(0, len(text.chunk.times) - 1)


class HistoryRoute:
    """Answers the history route. Bodies are kept, at most `cache_bytes` of them, by the path that asked for them."""

    def __init__(
        self, hub: Hub, directory: Directory, history: History, store: Store, access: Access, *, cache_bytes: int
    ) -> None:
        self._hub = hub
        self._directory = directory
        self._history = history
        self._store = store
        self._access = access
        self._kept: BytesCache[str, _Kept] = BytesCache(cache_bytes)

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Candles of one stream, ascending."""
        path = request.raw_path
        kept = self._kept.get(path)
        if kept is not None and self._holds(kept):
            self._history.served["cache"] += 1
        else:
            asked = await self._understand(request)
            if asked.limit > MOST_AT_ONCE:
                return await self._stream(request, asked)
            kept = await self._make(asked)
            if kept.text.version >= 0:
                self._kept.put(path, kept, 2 * len(path) + kept.body.size)
        self._access.spend_rows_of(request, kept.rows)
        return await kept.body.answer(request)

    def _holds(self, kept: _Kept) -> bool:
        """Say whether a body is what would be made now."""
        text, (provider, key, _) = kept.text, kept.target
        if text.version != self._store.version(provider.name, key) or kept.listed != self._directory.version:
            return False
        if text.is_live:
            stream = kept.stream
            return (
                stream is self._hub.streams.get((provider.name, key))
                and stream is not None
                and stream.seq == kept.seq
                and stream.status == CONNECTED
                and not stream.series.is_catching_up
                and provider.refusal is None
            )
        return provider.refusal is None and (text.until is None or self._history.now() < text.until)

    async def _understand(self, request: web.Request) -> _Asked:
        """Read the query. Raises `RequestError`."""
        asked = HISTORY.read(request)
        pin, symbol = asked[SYMBOL_PARAMETER]
        await self._directory.settled(pin, symbol)
        target = self._directory.resolve(pin, symbol, asked[INTERVAL_PARAMETER])
        token = self._access.check_token(request)
        client = token.name if token is not None else callers.owner_of(self._access.address(request))
        return _Asked(target, asked[START_TIME], asked[END_TIME], asked[LIMIT], asked[FORMAT], client)

    async def _make(self, asked: _Asked) -> _Kept:
        target = asked.target
        stream, listed = self._hub.streams.get((target.provider.name, target.key)), self._directory.version
        # Both are read without awaiting between: the sequence number belongs to what `live` then gives.
        seq = 0 if stream is None else stream.seq
        text = await self._text(asked, asked.start, asked.end, asked.limit)
        chunk = text.chunk
        if asked.form == "json":
            head = orjson.dumps({"symbol": target.name, "interval": target.key.interval})[:-1]
            tail = b"true}" if text.last_is_closed else b"false}"
            data = b'%b,"candles":[%b],"last_is_closed":%b' % (head, chunk.text, tail)
        else:
            chunk = _closed(text)
            data = CSV_HEAD + as_csv(chunk) if asked.form == "csv" else as_lines(chunk)
        kept = text._replace(chunk=Chunk((), b""))
        return _Kept(Body(data, CONTENT_TYPES[asked.form]), len(chunk.times), target, kept, stream, seq, listed)

    async def _text(self, asked: _Asked, start: int | None, end: int | None, limit: int) -> Text:
        provider, key, _ = asked.target
        return await self._history.text(
            provider,
            key,
            start=start,
            end=end,
            limit=limit,
            live=lambda: live_of(self._hub.streams.get((provider.name, key))),
            client=asked.client,
        )

    # -- large answers -----------------------------------------------------------------------------

    async def _stream(self, request: web.Request, asked: _Asked) -> web.StreamResponse:
        """Send page after page as the client takes them, so that no more than one is in memory."""
        pages = self._pages(asked)
        first = await anext(pages, None)
        answer = web.StreamResponse(headers={"Content-Type": CONTENT_TYPES[asked.form], "Cache-Control": "no-cache"})
        answer.headers["Vary"] = "Accept-Encoding"
        if takes_gzip(request.headers.get("Accept-Encoding", "")):
            answer.enable_compression(web.ContentCoding.gzip)
        await answer.prepare(request)
        try:
            if asked.form == "csv":
                await answer.write(CSV_HEAD)
            chunk = first
            while chunk is not None:
                self._access.spend_rows_of(request, len(chunk.times))
                await answer.write(as_csv(chunk) if asked.form == "csv" else as_lines(chunk))
                chunk = await anext(pages, None)
            await answer.write_eof()
        except (ConnectionError, RelayError):
            # The client left, or the rest cannot be had: then it must not take the half for the whole.
            if request.transport is not None:
                request.transport.abort()
        finally:
            await pages.aclose()
        return answer

    async def _pages(self, asked: _Asked) -> AsyncGenerator[Chunk, None]:
        """Yield the closed candles, ascending, in pages."""
        start, end, left = asked.start, asked.end, asked.limit
        if start is None:
            start, end = await self._begin(asked)
        while left > 0:
            text = await self._text(asked, start, end, min(left, MOST_AT_ONCE))
            count = len(text.chunk.times)
            chunk = _closed(text)
            if chunk.times:
                yield chunk
            if count < min(left, MOST_AT_ONCE) or not text.last_is_closed:
                return
            left -= count
            start = text.chunk.times[-1] + 1

    async def _begin(self, asked: _Asked) -> tuple[int, int | None]:
        """Walk back to where the last `limit` candles begin; return that, and where they end."""
        start, end, left, last = 0, asked.end, asked.limit, asked.end
        while left > 0:
            text = await self._text(asked, None, end, min(left, MOST_AT_ONCE))
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
