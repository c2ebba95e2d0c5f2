"""Candles of several symbols as one answer of lines, symbol after symbol; each that fails has a line of its own.

One bad name must not cost a nightly job the rest, and the status was sent long before the last symbol may fail. So
there is no status for all of them, and no last line that says "whole" either: the end of the answer says that in HTTP.
"""

import asyncio
from collections import defaultdict, deque
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from functools import partial

import orjson

from relay.core.errors import BadAnswer, Code, ProviderError, RateLimited, RequestError, UnknownSymbol
from relay.core.model import StreamKey
from relay.instruments.directory import Directory, Target
from relay.protocol.fields import check_is_past
from relay.protocol.frames import error_message
from relay.protocol.symbol_names import parse_symbol
from relay.storage.chunks import Chunk, as_named_lines
from relay.web.access.access import Access, Caller
from relay.web.contract.queries import HistoryQuery
from relay.web.http.asked_history import AskedHistory
from relay.web.http.history_pages import HistoryPages

SYMBOLS_PER_REQUEST = 5
"""So many further symbols count as one more request, as with streams over the WebSocket."""
LOOKED_UP_AT_ONCE = 25
"""A provider that lists nothing is asked for a symbol, and answers few questions at a time."""
PATIENCE_S = 2.0
"""So long an answer waits for what comes next in it, before other providers' symbols come first."""
MOST_FAILURES = 2
"""A provider that failed so often in a row is not asked for further symbols: each could take as long as it may."""


_Places = defaultdict[str | None, asyncio.Semaphore]
_Finding = asyncio.Task[Target | RequestError]


class _Failures:
    # What providers failed with in a row, within one request.
    def __init__(self) -> None:
        self._of: dict[str, list[ProviderError]] = {}

    def last_of(self, provider: str) -> ProviderError | None:
        """Return the error for which a provider is not asked any more; None while it is."""
        errors = self._of.get(provider, [])
        is_over = len(errors) >= MOST_FAILURES or any(isinstance(error, RateLimited) for error in errors)
        return errors[-1] if is_over else None

    def note(self, provider: str, error: ProviderError) -> None:
        if not isinstance(error, UnknownSymbol | BadAnswer):
            self._of.setdefault(provider, []).append(error)

    def forget(self, provider: str) -> None:
        self._of.pop(provider, None)


class _Symbol:
    """The lines of one symbol, of which the first are on their way."""

    def __init__(self, lines: AsyncGenerator[bytes, None]) -> None:
        self._lines = lines
        self.first = asyncio.create_task(self._next())

    async def _next(self) -> bytes | None:
        return await anext(self._lines, None)

    async def lines(self) -> AsyncGenerator[bytes, None]:
        """Yield all lines."""
        part = await self.first
        while part is not None:
            yield part
            # Prices come in between, also where nothing has to be waited for.
            await asyncio.sleep(0)
            part = await self._next()

    async def close(self) -> None:
        """Leave off."""
        self.first.cancel()
        await asyncio.gather(self.first, return_exceptions=True)
        await self._lines.aclose()


class SeveralHistories:
    """Makes the lines. Of a provider that fails the further symbols have what is stored, or an error.

    Symbols come in the order in which they are asked for; but a symbol that nothing is known of after `patience_s`, and
    with it the others of its provider, comes after those of other providers.
    """

    def __init__(
        self, directory: Directory, pages: HistoryPages, access: Access, *, patience_s: float = PATIENCE_S
    ) -> None:
        self._directory = directory
        self._pages = pages
        self._access = access
        self._patience_s = patience_s

    async def lines(self, query: HistoryQuery, names: Sequence[str], caller: Caller) -> AsyncGenerator[bytes, None]:
        """Yield whole lines. Raises `RequestError` before the first one, and `StoreError` at any time."""
        self._access.spend_requests(caller, (len(names) - 1) // SYMBOLS_PER_REQUEST)
        places: _Places = defaultdict(partial(asyncio.Semaphore, LOOKED_UP_AT_ONCE))
        finding = [asyncio.create_task(self._find(name, query.interval, places)) for name in names]
        try:
            await asyncio.wait(finding, timeout=self._patience_s)
            if query.start is not None:
                for task in finding:
                    if task.done() and isinstance(found := task.result(), Target):
                        check_is_past("start_time", query.start, found.provider.clock.now())
            async with aclosing(self._in_turn(query, finding, caller)) as lines:
                async for part in lines:
                    yield part
        finally:
            for task in finding:
                task.cancel()
            await asyncio.gather(*finding, return_exceptions=True)

    async def _in_turn(
        self, query: HistoryQuery, finding: Sequence[_Finding], caller: Caller
    ) -> AsyncGenerator[bytes, None]:
        """Yield the lines of all symbols; those of providers that are slow last, as they come."""
        failures, late = _Failures(), {task for task in finding if not task.done()}
        done: set[tuple[str, StreamKey]] = set()
        begun: dict[str, _Symbol] = {}
        waiting: defaultdict[str, deque[Target]] = defaultdict(deque)

        def begin(target: Target) -> _Symbol:
            return _Symbol(self._of_one(query, target, caller, failures))

        def is_new(target: Target) -> bool:
            # Else another name of it came before.
            identity, count = (target.provider.name, target.key), len(done)
            done.add(identity)
            return len(done) > count

        try:
            for task in finding:
                if task in late:
                    continue
                if isinstance(found := task.result(), RequestError):
                    yield _error_line(found)
                elif is_new(found):
                    provider = found.provider.name
                    if provider in begun:
                        waiting[provider].append(found)
                        continue
                    symbol = begun[provider] = begin(found)
                    await asyncio.wait((symbol.first,), timeout=self._patience_s)
                    if symbol.first.done():
                        async for part in symbol.lines():
                            yield part
                        del begun[provider]
            while late or begun:
                firsts = [symbol.first for symbol in begun.values()]
                await asyncio.wait((*late, *firsts), return_when=asyncio.FIRST_COMPLETED)
                for task in [task for task in late if task.done()]:
                    late.discard(task)
                    if isinstance(found := task.result(), RequestError):
                        yield _error_line(found)
                    elif is_new(found):
                        waiting[found.provider.name].append(found)
                for provider, symbol in [*begun.items()]:
                    if symbol.first.done():
                        async for part in symbol.lines():
                            yield part
                        del begun[provider]
                for provider, targets in waiting.items():
                    if targets and provider not in begun:
                        begun[provider] = begin(targets.popleft())
        finally:
            await asyncio.gather(*[symbol.close() for symbol in begun.values()], return_exceptions=True)

    async def _of_one(
        self, query: HistoryQuery, target: Target, caller: Caller, failures: _Failures
    ) -> AsyncGenerator[bytes, None]:
        provider = target.provider.name
        known_fault = failures.last_of(provider)
        asked = AskedHistory(query, target, caller, is_known_only=known_fault is not None)
        try:
            self._access.check_rows(caller)
            async with aclosing(self._pages.closed(asked)) as pages:
                async for chunk in pages:
                    self._access.spend_rows(caller, len(chunk.times))
                    yield _lines(chunk, target)
            if known_fault is None:
                failures.forget(provider)
        except RequestError as error:
            yield _error_line(_about(error, target))
        except ProviderError as error:
            if known_fault is None:
                failures.note(provider, error)
            yield _error_line(_about(_fault_of(known_fault or error), target))

    async def _find(self, name: str, interval: str, places: _Places) -> Target | RequestError:
        try:
            pin, symbol = parse_symbol(name)
            if not self._directory.is_settled(pin, symbol):
                async with places[pin]:
                    await self._directory.settled(pin, symbol)
            return self._directory.resolve(pin, symbol, interval)
        except RequestError as error:
            error.symbol, error.interval = error.symbol or name, interval
            return error


def _lines(chunk: Chunk, target: Target) -> bytes:
    names = (orjson.dumps(target.name), target.key.interval.encode(), orjson.dumps(target.provider.name))
    return as_named_lines(chunk, b'"symbol":%b,"interval":"%b","provider":%b,' % names)


def _about(error: RequestError, target: Target) -> RequestError:
    error.symbol, error.interval = target.name, target.key.interval
    return error


def _fault_of(error: ProviderError) -> RequestError:
    code = Code.UNKNOWN_SYMBOL if isinstance(error, UnknownSymbol) else Code.PROVIDER_UNAVAILABLE
    return RequestError(code, str(error), retry_after=error.retry_after if isinstance(error, RateLimited) else None)


def _error_line(error: RequestError) -> bytes:
    return orjson.dumps(error_message(error)) + b"\n"
