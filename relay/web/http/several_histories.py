"""Candles of several symbols as one answer of lines, symbol after symbol; each that fails has a line of its own.

One bad name must not cost a nightly job the rest, and the status was sent long before the last symbol may fail. So
there is no status for all of them, and no last line that says "whole" either: the end of the answer says that in HTTP.
"""

import asyncio
from collections import defaultdict
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from functools import partial

import orjson

from relay.core.errors import Code, ProviderError, RateLimited, RequestError, UnknownSymbol
from relay.instruments.directory import Directory, Target
from relay.protocol.fields import check_is_past
from relay.protocol.symbol_names import parse_symbol
from relay.storage.chunks import Chunk, as_named_lines
from relay.web.access.access import Access, Caller
from relay.web.contract.queries import HistoryQuery
from relay.web.http.asked_history import AskedHistory
from relay.web.http.history_pages import HistoryPages
from relay.web.http.symbol_turns import Failures, SymbolTurns, error_line

SYMBOLS_PER_REQUEST = 5
"""So many further symbols count as one more request, as with streams over the WebSocket."""
LOOKED_UP_AT_ONCE = 25
"""A provider that lists nothing is asked for a symbol, and answers few questions at a time."""
PATIENCE_S = 2.0
"""So long an answer waits for what comes next in it, before other symbols come first."""


_Places = defaultdict[str | None, asyncio.Semaphore]


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
            failures = Failures()
            lines_of = partial(self._of_one, query, caller, failures)
            async with aclosing(SymbolTurns(finding, lines_of, failures, self._patience_s).lines()) as lines:
                async for part in lines:
                    yield part
        finally:
            for task in finding:
                task.cancel()
            await asyncio.gather(*finding, return_exceptions=True)

    async def _of_one(
        self, query: HistoryQuery, caller: Caller, failures: Failures, target: Target
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
            yield error_line(_about(error, target))
        except ProviderError as error:
            if known_fault is None:
                failures.note(provider, error)
            yield error_line(_about(_fault_of(known_fault or error), target))

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
