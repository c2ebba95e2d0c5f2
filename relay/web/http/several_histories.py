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
"""So long an answer waits for what comes next in it, before other symbols come first."""
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

    def may_ask(self, provider: str, silent: int) -> bool:
        """Say whether a provider may be asked for one symbol more while so many are silent: each could fail."""
        return silent + len(self._of.get(provider, [])) < MOST_FAILURES

    def note(self, provider: str, error: ProviderError) -> None:
        if not isinstance(error, UnknownSymbol | BadAnswer):
            self._of.setdefault(provider, []).append(error)

    def forget(self, provider: str) -> None:
        self._of.pop(provider, None)


class _Symbol:
    """The lines of one symbol, of which the next `part` is on its way; None is the end."""

    def __init__(self, provider: str, lines: AsyncGenerator[bytes, None]) -> None:
        self.provider = provider
        self._lines = lines
        self.part = self._next()

    def _next(self) -> asyncio.Task[bytes | None]:
        async def part() -> bytes | None:
            return await anext(self._lines, None)

        return asyncio.create_task(part())

    async def parts(self, patience_s: float) -> AsyncGenerator[bytes, None]:
        """Yield parts, as long as each comes soon."""
        while True:
            await asyncio.wait((self.part,), timeout=patience_s)
            if not self.part.done() or (part := self.part.result()) is None:
                return
            yield part
            # Prices come in between, also where nothing has to be waited for.
            await asyncio.sleep(0)
            self.part = self._next()

    @property
    def is_over(self) -> bool:
        """Whether all was yielded."""
        return self.part.done() and self.part.result() is None

    async def close(self) -> None:
        """Leave off."""
        self.part.cancel()
        await asyncio.gather(self.part, return_exceptions=True)
        await self._lines.aclose()


class SeveralHistories:
    """Makes the lines. Of a provider that fails the further symbols have what is stored, or an error.

    Symbols come in the order in which they are asked for; but one of which nothing more comes for `patience_s`, and
    with it the others of its provider, comes after those of other providers, and then as lines come.
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
        finding = [asyncio.create_task(self._find(name, query.interval, places, caller)) for name in names]
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
        silent: list[_Symbol] = []
        waiting: deque[Target] = deque()

        def is_new(target: Target) -> bool:
            # Else another name of it came before.
            identity, count = (target.provider.name, target.key), len(done)
            done.add(identity)
            return len(done) > count

        def silent_of(target: Target) -> int:
            return sum(symbol.provider == target.provider.name for symbol in silent)

        def may_begin(target: Target) -> bool:
            provider = target.provider.name
            return failures.may_ask(provider, silent_of(target)) or failures.last_of(provider) is not None

        def begin(target: Target) -> _Symbol:
            symbol = _Symbol(target.provider.name, self._of_one(query, target, caller, failures))
            silent.append(symbol)
            return symbol

        async def said_by(symbol: _Symbol) -> AsyncGenerator[bytes, None]:
            async with aclosing(symbol.parts(self._patience_s)) as parts:
                async for part in parts:
                    yield part
            if symbol.is_over:
                silent.remove(symbol)

        try:
            for task in finding:
                if task in late:
                    continue
                if isinstance(found := task.result(), RequestError):
                    yield _error_line(found)
                elif is_new(found):
                    if silent_of(found):
                        waiting.append(found)
                        continue
                    async for part in said_by(begin(found)):
                        yield part
            while late or silent or waiting:
                for task in [task for task in late if task.done()]:
                    late.discard(task)
                    if isinstance(found := task.result(), RequestError):
                        yield _error_line(found)
                    elif is_new(found):
                        waiting.append(found)
                target = next(filter(may_begin, waiting), None)
                if target is not None:
                    waiting.remove(target)
                    symbols = [begin(target)]
                else:
                    symbols = [symbol for symbol in silent if symbol.part.done()]
                coming = [*late, *(symbol.part for symbol in silent)]
                if not symbols and coming:
                    await asyncio.wait(coming, return_when=asyncio.FIRST_COMPLETED)
                for symbol in symbols:
                    async for part in said_by(symbol):
                        yield part
        finally:
            await asyncio.gather(*[symbol.close() for symbol in silent], return_exceptions=True)

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

    async def _find(self, name: str, interval: str, places: _Places, caller: Caller) -> Target | RequestError:
        try:
            pin, symbol = parse_symbol(name)
            if not self._directory.is_settled(pin, symbol):
                async with places[pin]:
                    await self._directory.settled(pin, symbol, [caller.client])
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
