"""Whose lines come next in an answer of several symbols: in their order, but nothing slow holds up the others."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing

import orjson

from relay.core.errors import BadAnswer, ProviderError, RateLimited, RequestError, UnknownSymbol
from relay.core.model import StreamKey
from relay.instruments.directory import Target
from relay.protocol.frames import error_message

MOST_FAILURES = 2
"""A provider that failed so often in a row is not asked for further symbols: each could take as long as it may."""

Finding = asyncio.Task[Target | RequestError]
"""Finds out what a name stands for."""


class Failures:
    """What providers failed with in a row, within one answer."""

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
        """Note that a provider failed; not if only the symbol is at fault."""
        if not isinstance(error, UnknownSymbol | BadAnswer):
            self._of.setdefault(provider, []).append(error)

    def forget(self, provider: str) -> None:
        """Note that a provider answered."""
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
            # A task of its own, so prices come in between, also where nothing has to be waited for.
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


class SymbolTurns:
    """Puts the lines of one answer in order; what names stand for is being found, and `lines_of` makes their lines.

    Symbols that are found in time come in the order of their names. Others of a provider that lets one of them wait for
    `patience_s`, and what is found late, come after those, as lines come.
    """

    def __init__(
        self,
        finding: Sequence[Finding],
        lines_of: Callable[[Target], AsyncGenerator[bytes, None]],
        failures: Failures,
        patience_s: float,
    ) -> None:
        self._lines_of = lines_of
        self._failures = failures
        self._patience_s = patience_s
        self._in_time = deque(task for task in finding if task.done())
        self._late = [task for task in finding if not task.done()]
        self._seen: set[tuple[str, StreamKey]] = set()
        self._waiting: deque[Target] = deque()
        self._begun: list[_Symbol] = []
        self._heard: deque[_Symbol] = deque()

    async def lines(self) -> AsyncGenerator[bytes, None]:
        """Yield the lines of all symbols."""
        try:
            while (turn := await self._next()) is not None:
                if isinstance(turn, RequestError):
                    yield error_line(turn)
                    continue
                async with aclosing(turn.parts(self._patience_s)) as parts:
                    async for part in parts:
                        yield part
                if turn.is_over:
                    self._begun.remove(turn)
        finally:
            await asyncio.gather(*[symbol.close() for symbol in self._begun], return_exceptions=True)

    async def _next(self) -> _Symbol | RequestError | None:
        """Return whose turn it is, or the error that a name has in place of lines; None at the end."""
        while self._in_time:
            found = self._in_time.popleft().result()
            if isinstance(found, RequestError):
                return found
            if self._is_new(found):
                if not self._begun_of(found):
                    return self._begin(found)
                self._waiting.append(found)
        while self._heard or self._late or self._waiting or self._begun:
            if self._heard:
                return self._heard.popleft()
            for task in [task for task in self._late if task.done()]:
                self._late.remove(task)
                if isinstance(found := task.result(), RequestError):
                    return found
                if self._is_new(found):
                    self._waiting.append(found)
            target = next(filter(self._may_begin, self._waiting), None)
            if target is not None:
                self._waiting.remove(target)
                return self._begin(target)
            self._heard.extend(symbol for symbol in self._begun if symbol.part.done())
            if not self._heard:
                coming = [*self._late, *(symbol.part for symbol in self._begun)]
                await asyncio.wait(coming, return_when=asyncio.FIRST_COMPLETED)
        return None

    def _is_new(self, target: Target) -> bool:
        """Say whether no other name of it came before."""
        identity, count = (target.provider.name, target.key), len(self._seen)
        self._seen.add(identity)
        return len(self._seen) > count

    def _begun_of(self, target: Target) -> int:
        return sum(symbol.provider == target.provider.name for symbol in self._begun)

    def _may_begin(self, target: Target) -> bool:
        provider = target.provider.name
        # Of one that is not asked any more there is what is stored.
        is_given_up = self._failures.last_of(provider) is not None
        return is_given_up or self._failures.may_ask(provider, self._begun_of(target))

    def _begin(self, target: Target) -> _Symbol:
        symbol = _Symbol(target.provider.name, self._lines_of(target))
        self._begun.append(symbol)
        return symbol


def error_line(error: RequestError) -> bytes:
    """Return an error as a line among lines."""
    return orjson.dumps(error_message(error)) + b"\n"
