"""Candles of several symbols as one answer of lines, symbol after symbol; each that fails has a line of its own.

One bad name must not cost a nightly job the rest, and the status was sent long before the last symbol may fail. So
there is no status for all of them, and no last line that says "whole" either: the end of the answer says that in HTTP.
"""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

import orjson

from relay.core.errors import BadAnswer, Code, ProviderError, RateLimited, RequestError, UnknownSymbol
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
MOST_FAILURES = 2
"""A provider that failed so often in a row is not asked for further symbols: each could take as long as it may."""


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


class SeveralHistories:
    """Makes the lines. Of a provider that fails the further symbols have what is stored, or an error."""

    def __init__(self, directory: Directory, pages: HistoryPages, access: Access) -> None:
        self._directory = directory
        self._pages = pages
        self._access = access

    async def lines(self, query: HistoryQuery, names: Sequence[str], caller: Caller) -> AsyncGenerator[bytes, None]:
        """Yield whole lines. Raises `RequestError` before the first one, and `StoreError` at any time."""
        self._access.spend_requests(caller, (len(names) - 1) // SYMBOLS_PER_REQUEST)
        places = asyncio.Semaphore(LOOKED_UP_AT_ONCE)
        found = await asyncio.gather(*[self._find(name, query.interval, places) for name in names])
        if query.start is not None:
            for one in found:
                if isinstance(one, Target):
                    check_is_past("start_time", query.start, one.provider.clock.now())
        failures, done = _Failures(), set()
        for one in found:
            if isinstance(one, RequestError):
                yield _error_line(one)
            elif (identity := (one.provider.name, one.key)) not in done:  # else another name of it came before
                done.add(identity)
                async with aclosing(self._of_one(query, one, caller, failures)) as parts:
                    async for part in parts:
                        yield part
                        # Prices come in between, also where nothing has to be waited for.
                        await asyncio.sleep(0)

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

    async def _find(self, name: str, interval: str, places: asyncio.Semaphore) -> Target | RequestError:
        try:
            pin, symbol = parse_symbol(name)
            async with places:
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
