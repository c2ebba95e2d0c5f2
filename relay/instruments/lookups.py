"""The instruments of a provider that answers for one symbol at a time: what it said is kept, and asked for once."""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import NamedTuple

from relay.core.errors import ProviderError, RateLimited, StoreError, log_text
from relay.core.fair_queue import FairQueue, QueueTurn
from relay.core.model import Instrument
from relay.core.rate_limits import FairQuota, TokenBucket
from relay.core.threads import in_thread
from relay.instruments.listing import BELIEVED_AFTER, Standing
from relay.instruments.saved_list import read_rows, rows_of
from relay.plugins.provider import Provider
from relay.storage.documents import Documents
from relay.telemetry.events import event
from relay.telemetry.rare_warning import RareWarning

log = logging.getLogger(__name__)


class LookupLimits(NamedTuple):
    """How much is kept and asked of one provider. All are our own choice: no provider is known that says more.

    A symbol that it has is valid for the life of its list (`instruments_ttl_s`), and stays in use while it is asked for
    again. That it has none is valid for `unknown_s`, a failure is told for `failed_s`. Of both at most `most` are kept.
    Clients cause at most `rate` questions a second in the long run, `burst` at once, and wait `wait_s` for an answer;
    at most `most_asked` symbols wait for theirs, of which no client has more than are free. What is known is stored
    `save_s` after it changed.
    """

    most: int = 10_000
    unknown_s: float = 600.0
    failed_s: float = 5.0
    rate: float = 5.0
    burst: float = 50.0
    wait_s: float = 8.0
    most_asked: int = 500
    save_s: float = 2.0


LOOKUP_LIMITS = LookupLimits()
NOBODY = ""
"""In place of a client: nobody waits for the answer."""
LEAST_WAIT_S = 0.001
"""What is left of a wait may be too short for a clock to pass it."""


class NoInstrument(NamedTuple):
    """Why there is no instrument of a symbol: the provider has none (`is_known`), or did not say; and until when."""

    is_known: bool
    text: str
    until: float


class _Known:
    """An instrument, when it is to be asked for again, and how many answers in a row were without it."""

    __slots__ = ("absent", "asks_at", "instrument")

    def __init__(self, instrument: Instrument, asks_at: float) -> None:
        self.instrument = instrument
        self.asks_at = asks_at
        self.absent = 0


class _Question:
    """A symbol that a provider is to be asked for, how many wait for the answer, and whether it was asked by now."""

    __slots__ = ("is_asked", "task", "turn", "waiting")

    def __init__(self, turn: QueueTurn) -> None:
        self.turn = turn
        self.task: asyncio.Task[None] | None = None
        self.waiting = 0
        self.is_asked = False


class Lookups:
    """What one provider said of the symbols that somebody asked for; symbols are in upper case.

    Questions of different clients take turns: who asks for many holds up no other. One that has not been put yet is
    forgotten once nobody waits for its answer any more.
    `on_answer` is called when the instruments that are known are others than before.
    """

    def __init__(
        self,
        provider: Provider,
        documents: Documents,
        on_answer: Callable[[bool], None],
        *,
        limits: LookupLimits = LOOKUP_LIMITS,
    ) -> None:
        self.provider = provider
        self.problem: str | None = None
        self._documents = documents
        self._on_answer = on_answer
        self._limits = limits
        self.instruments: dict[str, Instrument] = {}
        """Those that are known, by symbol. Never changed, but replaced: lists are made of it in a thread."""
        self._known: OrderedDict[str, _Known] = OrderedDict()
        self._missing: OrderedDict[str, NoInstrument] = OrderedDict()
        self._gone: set[str] = set()
        self._asking: dict[str, _Question] = {}
        self._turns = FairQueue(provider.info.calls_at_once, tuple)
        self._quota: FairQuota[str, str] = FairQuota()
        self._bucket = TokenBucket(limits.rate, limits.burst, self._now)
        self._saving: asyncio.Task[None] | None = None
        self._failed = RareWarning(log, "lookup_failed", provider=provider.name)

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()

    def get(self, symbol: str) -> Instrument | None:
        """Return the instrument of a symbol if it is known."""
        known = self._known.get(symbol)
        return None if known is None else known.instrument

    def standing(self, symbol: str) -> Standing:
        """Return what the provider said of a symbol last."""
        one = self.get(symbol)
        if one is not None:
            return "paused" if one.status == "paused" else "trading"
        return "gone" if symbol in self._gone else "unknown"

    def missing(self, symbol: str) -> NoInstrument | None:
        """Return why there is no instrument of a symbol, as long as that is valid."""
        found = self._missing.get(symbol)
        return found if found is not None and self._now() < found.until else None

    def asks_in_s(self, symbol: str) -> float:
        """Return in how many seconds the provider may be asked for a symbol that is missing; at least one."""
        found = self._missing.get(symbol)
        return 1.0 if found is None else max(1.0, found.until - self._now())

    def is_settled(self, symbol: str) -> bool:
        """Say whether `ask` has nothing to wait for."""
        return symbol in self._known or self.missing(symbol) is not None

    # -- asking ----------------------------------------------------------------------------------------

    def begin(self, symbol: str, client: str) -> None:
        """Have the provider asked for a symbol if its answer is needed; all who want to know it share one question."""
        known = self._known.get(symbol)
        if known is not None:
            self._known.move_to_end(symbol)
        is_needed = self.missing(symbol) is None if known is None else self._now() >= known.asks_at
        if not is_needed:
            return
        if symbol in self._asking:
            self._asking[symbol].turn.hasten(client)
        elif not self._quota.may_open(client, self._asking, self._limits.most_asked):
            if known is None:
                text = f"{self.provider.info.title} is asked for {len(self._asking)} other symbols"
                self._note_missing(symbol, is_known=False, text=text, valid_s=self._limits.failed_s)
        else:
            self._quota.opened(symbol, client, self._asking)
            question = self._asking[symbol] = _Question(self._turns.turn(client))
            name = f"lookup of {symbol} at {self.provider.name}"
            question.task = asyncio.create_task(self._ask(symbol, question), name=name)
            question.task.add_done_callback(lambda _: self._forget(symbol, question))

    def _forget(self, symbol: str, question: _Question) -> None:
        if self._asking.get(symbol) is question:
            del self._asking[symbol]

    def hasten(self, symbol: str, client: str) -> None:
        """Let a question that others wait for come in the turn of another client, too."""
        if symbol in self._asking:
            self._asking[symbol].turn.hasten(client)

    async def ask(self, symbol: str, clients: Sequence[str]) -> None:
        """Wait until it is known whether the provider has a symbol, for a few seconds; `clients` are who wants to know.

        One that is known already is not waited for. What is not known then is `missing` without an answer.
        """
        for client in clients:
            self.begin(symbol, client)
        question = self._asking.get(symbol)
        if question is None or question.task is None or symbol in self._known:
            return
        question.waiting += 1
        try:
            await asyncio.wait((question.task,), timeout=self._limits.wait_s)
        finally:
            question.waiting -= 1
            if not (question.waiting or question.is_asked):
                self._forget(symbol, question)
                question.task.cancel()
        if not self.is_settled(symbol):
            title = self.provider.info.title
            self._note_missing(symbol, is_known=False, text=f"{title} has not said yet whether it has it", valid_s=1.0)

    async def _ask(self, symbol: str, question: _Question) -> None:
        async with question.turn:
            while not self._bucket.try_acquire():  # noqa: ASYNC110 - only time makes room, nobody could set an event
                await asyncio.sleep(max(LEAST_WAIT_S, self._bucket.wait_s))
            question.is_asked = True
            try:
                found = await self.provider.instrument(symbol)
            except ProviderError as error:
                self._note_failure(symbol, error)
                return
        self.problem = None
        if found is None:
            self._note_absence(symbol)
        else:
            self._note(symbol, found)

    def _note(self, symbol: str, found: Instrument) -> None:
        known = self._known.get(symbol)
        asks_at = self._now() + self.provider.info.instruments_ttl_s
        self._missing.pop(symbol, None)
        self._gone.discard(symbol)
        self._known[symbol] = _Known(found, asks_at)
        if len(self._known) > self._limits.most:
            self._known.popitem(last=False)
        if known is None or known.instrument != found:
            self._change()

    def _note_absence(self, symbol: str) -> None:
        """Take that the provider has no such symbol. One that it had is believed to be gone after some answers."""
        known = self._known.get(symbol)
        if known is not None:
            known.absent += 1
            known.asks_at = self._now() + self._limits.unknown_s
            if known.absent < BELIEVED_AFTER:
                return
            del self._known[symbol]
            self._gone.add(symbol)
            self._change()
        self._note_missing(
            symbol, is_known=True, text=f"{self.provider.info.title} does not have it", valid_s=self._limits.unknown_s
        )

    def _note_failure(self, symbol: str, error: ProviderError) -> None:
        wait_s = max(self._limits.failed_s, error.retry_after if isinstance(error, RateLimited) else 0.0)
        self.problem = str(error)
        self._failed.say(
            "%s cannot be asked whether it has %s: %s",
            self.provider.name,
            symbol,
            log_text(error),
            symbol=symbol,
            reason=str(error),
        )
        known = self._known.get(symbol)
        if known is not None:
            known.asks_at = self._now() + wait_s
            return
        self._note_missing(symbol, is_known=False, text=str(error), valid_s=wait_s)

    def _note_missing(self, symbol: str, *, is_known: bool, text: str, valid_s: float) -> None:
        self._missing.pop(symbol, None)
        self._missing[symbol] = NoInstrument(is_known, text, self._now() + valid_s)
        if len(self._missing) > self._limits.most:
            self._gone.discard(self._missing.popitem(last=False)[0])

    def ask_anew(self) -> None:
        """Believe no earlier answer for longer than it takes to ask again: the settings changed."""
        self._missing.clear()
        for known in self._known.values():
            known.asks_at = self._now()

    # -- what outlives the process ---------------------------------------------------------------------

    def _show(self) -> None:
        self.instruments = {symbol: known.instrument for symbol, known in self._known.items()}
        self._on_answer(True)

    def _change(self) -> None:
        self._show()
        if self._saving is None or self._saving.done():
            self._saving = asyncio.create_task(self._save_soon(), name=f"lookups of {self.provider.name}")

    async def _save_soon(self) -> None:
        await asyncio.sleep(self._limits.save_s)
        await self.save()

    async def save(self) -> None:
        """Store what is known."""
        name = self.provider.name
        try:
            body = await in_thread(rows_of, [*self.instruments.values()])
            await self._documents.put(f"lookups:{name}", body)
        except (StoreError, TypeError) as error:
            about = event("lookups_not_stored", provider=name)
            log.debug("the known symbols of %s could not be stored: %s", name, error, extra=about)

    async def recall(self) -> None:
        """Begin with what an earlier run knew; each is asked for again when somebody wants it."""
        name = self.provider.name
        try:
            document = await self._documents.get(f"lookups:{name}")
            found = await in_thread(read_rows, document.body, self.provider.info) if document else []
        except (StoreError, ValueError, TypeError, LookupError, AttributeError) as error:
            about = event("lookups_not_recalled", provider=name)
            log.debug("the known symbols of %s from an earlier run cannot be read: %s", name, error, extra=about)
            return
        self._known.update((one.symbol.upper(), _Known(one, 0.0)) for one in found[: self._limits.most])
        self._show()

    async def close(self) -> None:
        """End what is asked, and store what is known."""
        tasks = [question.task for question in self._asking.values() if question.task is not None]
        saving = self._saving
        if saving is not None and not saving.done():
            tasks.append(saving)
            await self.save()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
