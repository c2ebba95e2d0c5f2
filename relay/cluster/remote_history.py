"""History between relays: asks the owner of a stream, and answers those who ask this relay."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from relay.cluster.bus import Bus, BusError
from relay.cluster.wire.history_messages import (
    HistoryCall,
    candles_answer,
    error_answer,
    history_body,
    instruments_answer,
    instruments_body,
    read_candles,
    read_instruments,
    read_question,
)
from relay.core.errors import BadAnswer, ProviderError, ProviderTimeout, ProviderUnavailable, StoreError
from relay.core.intervals import next_open
from relay.core.model import Candle, Instrument, StreamKey, parted, unreadable
from relay.core.spans import FOREVER
from relay.history.requests import HistoryRequest
from relay.history.service import HistoryService
from relay.plugins.provider import Provider
from relay.protocol.symbol_names import is_symbol

ANSWER_S = 20.0
AWAIT_OWNER_S = 3.0
LOOK_S = 0.1
MOST_AT_ONCE = 64

T = TypeVar("T")
OwnerOf = Callable[[], str | None]
"""Gives the id of the relay to ask, "" for this one, and None while nobody is known."""


class RemoteHistory:
    """Asks other relays. `asked` counts questions, `failed` those without an answer."""

    def __init__(self, bus: Bus, address: Callable[[str], str]) -> None:
        self.asked = self.failed = 0
        self._bus = bus
        self._address = address

    async def candles(
        self, provider: Provider, owner_of: OwnerOf, key: StreamKey, start: int | None, end: int, limit: int
    ) -> Sequence[Candle] | None:
        """Return history from the owner of a stream; None: this relay is to ask the provider itself."""
        asked = HistoryCall(provider.name, key, start, end, limit)
        now = provider.clock.now()
        body = await self._ask(owner_of, history_body(asked))
        if body is None:
            return None
        candles, open_time = read_candles(body)
        if open_time is not None and next_open(key.interval, open_time) <= now:
            # Whoever takes it for closed takes values that are not its last ones.
            raise ProviderUnavailable("the last of these candles is not closed there yet")
        return candles

    async def instruments(self, provider: Provider, owner_of: OwnerOf) -> Sequence[Instrument] | None:
        """Return what the owner knows that a provider lists; None: this relay is to ask the provider itself."""
        body = await self._ask(owner_of, instruments_body(provider.name))
        return None if body is None else read_instruments(body)

    async def _ask(self, owner_of: OwnerOf, body: bytes) -> bytes | None:
        """Return the answer of the owner, and of the next one if it is gone meanwhile. Raises `ProviderError`."""
        loop = asyncio.get_running_loop()
        until = loop.time() + ANSWER_S
        without_since: float | None = None
        while True:
            owner = owner_of()
            if owner == "":
                return None
            if owner is None:
                without_since = loop.time() if without_since is None else without_since
                if loop.time() - without_since >= AWAIT_OWNER_S:
                    self.failed += 1
                    raise ProviderUnavailable("no relay has this provider at present")
                await asyncio.sleep(LOOK_S)
                continue
            without_since = None
            if loop.time() >= until:
                self.failed += 1
                raise ProviderTimeout("the relay that has this provider did not answer in time")
            self.asked += 1
            answer = asyncio.create_task(self._bus.request(self._address(owner), body, until - loop.time()))
            try:
                while not answer.done() and owner_of() == owner:
                    await asyncio.wait({answer}, timeout=LOOK_S)
                if answer.done():
                    return answer.result()
            except BusError:
                await asyncio.sleep(LOOK_S)
            finally:
                answer.cancel()
                await asyncio.gather(answer, return_exceptions=True)


class HistoryDesk:
    """Answers the questions of other relays with this one's own history; as `Bus.answer` wants it."""

    def __init__(self, providers: Mapping[str, Provider], history: HistoryService) -> None:
        self.answered = 0
        self._providers = providers
        self._history = history
        self._places = asyncio.Semaphore(MOST_AT_ONCE)
        self._lists: dict[str, asyncio.Task[Sequence[Instrument]]] = {}

    async def answer(self, body: bytes) -> bytes:
        """Return the answer to a question; an error is one too."""
        asked = read_question(body)
        name = asked.provider if isinstance(asked, HistoryCall) else asked
        provider = None if name is None else self._providers.get(name)
        if provider is None:
            return error_answer(BadAnswer("this relay cannot answer that"))
        self.answered += 1
        try:
            async with self._places:
                if isinstance(asked, HistoryCall):
                    return await self._candles(provider, asked)
                found = await provider.instruments()
            return await asyncio.to_thread(instruments_answer, found)
        except ProviderError as error:
            return error_answer(error)
        except StoreError:
            return error_answer(ProviderUnavailable("the store of the relay that has this provider cannot be read"))

    async def _candles(self, provider: Provider, asked: HistoryCall) -> bytes:
        # As a client's question: whoever can write to the bus may name anything.
        is_stream = is_symbol(asked.key.symbol) and asked.key.interval in provider.info.intervals
        if not is_stream or not provider.has_history:
            return error_answer(BadAnswer("this relay cannot answer that"))
        last = None if asked.end >= min(FOREVER, int(provider.clock.now())) else asked.end - 1
        past = await self._history.candles(
            HistoryRequest(
                provider, asked.key, asked.start, last, asked.limit, must_be_new=True, extended=True, needs_extras=False
            )
        )
        if not past.is_whole:
            raise ProviderUnavailable("the answer was not complete")
        rows = [*past.candles, *(unreadable(span.start) for span in past.unreadable)]
        rows = sorted(rows, key=lambda candle: candle.time)
        _, forming = parted(past.candles, past.last_is_closed)
        return candles_answer(rows, None if forming is None else forming.time)
