"""Symbols that may name another instrument than before: by which signs, and who has to wait until that is found out.

A sign alone never takes candles away for good: a few stored candles are compared with the provider's, twice, some time
apart. `symbol_check_runs` does that: `symbol_comparison` asks for them, `identity` judges what they show, and
`aside_candles` takes stored ones away and gives them back.
"""

import asyncio
import logging
import math
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from typing import NamedTuple

from relay.core.clock import Clock
from relay.core.errors import StoreError
from relay.core.model import Candle, StreamKey
from relay.core.past_change import PastChange
from relay.core.spans import FOREVER
from relay.history.absences import Absences
from relay.history.aside_candles import AsideCandles
from relay.history.identity import follows
from relay.history.requests import CandleSource
from relay.history.symbol_check import Identity, SymbolCheck
from relay.history.symbol_check_runs import SymbolCheckRuns
from relay.history.symbol_comparison import SymbolComparison
from relay.storage.set_aside import CHECKING, aside_name, is_aside, original
from relay.storage.store import Store
from relay.telemetry.events import event

log = logging.getLogger(__name__)

AGAIN_S = 60.0
"""Time between the two comparisons that have to show the same."""
PATIENCE_S = 5.0
"""So long requests wait for the comparison of what nobody watched before they are answered from what is stored."""
RETRY_S = (30.0, 1800.0)
"""Time until a comparison that showed nothing is made again: it doubles."""
PACE_S = 5.0
"""Time between two checks of symbols that are back with nearly all others, if nobody asks for them."""
SAME_S = 3600.0
"""So long after a symbol was found to be the same, candles that are far from the stored ones are revisions of them."""
_MOST_SETTLED = 4096


class _Settled(NamedTuple):
    # What of a symbol opened before an open time is of one instrument; found out at a moment of this machine's clock.
    before: int
    at: float


class IdentityChecks:
    """Owns the checks under way; `start` says whose. `set_aside` are the names of what was set aside, by provider.

    A symbol that was away and is back has its candles set aside at once and gets them back when they prove to be its
    own. On other signs they are compared before they are used again, and set aside for as long as that shows nothing;
    where nobody watched for long, which is hardly a sign, they are used then. All but these are compared whether
    anybody asks for them or not. When a comparison showed another instrument, `on_changed` is called with the provider,
    the symbol, and the open time before which nothing is its own (None: nothing that closed).
    """

    def __init__(
        self,
        store: Store,
        clock: Clock,
        *,
        on_changed: Callable[[str, str, int | None], None] = lambda provider, symbol, before: None,
        again_s: float = AGAIN_S,
        retry_s: tuple[float, float] = RETRY_S,
        patience_s: float = PATIENCE_S,
        pace_s: float = PACE_S,
    ) -> None:
        self._patience_s = patience_s
        self._store = store
        self._clock = clock
        self._sources: dict[str, CandleSource] = {}
        self._checks: dict[Identity, SymbolCheck] = {}
        self._settled: dict[Identity, _Settled] = {}
        self._aside = AsideCandles(store, clock)
        self.set_aside = self._aside.names
        self.runs = SymbolCheckRuns(
            self._aside,
            SymbolComparison(store),
            clock,
            on_changed=on_changed,
            on_over=self._end,
            is_under_way=lambda check: self._checks.get(check.identity) is check,
            again_s=again_s,
            retry_s=retry_s,
            patience_s=patience_s,
            pace_s=pace_s,
        )
        self._absences = Absences(store.documents, clock)
        # Symbols with stored candles of providers whose list this run has not seen yet; nearly always none.
        self._unseen: dict[Identity, asyncio.Event] = {}
        self._unseen_until = 0.0
        self._listing: tuple[str, ...] = ()

    async def start(self, sources: Iterable[CandleSource], listing: Collection[str] = ()) -> None:
        """Go on with the checks that an earlier run began.

        `listing` are the providers whose list follows: it says who was away meanwhile, so for a moment nobody is
        answered from what is stored of them.
        """
        self._sources = {source.name: source for source in sources}
        self._listing = tuple(listing)
        await self._begin_checks()

    async def begin_again(self) -> None:
        """Go on as after a restart: the store has another file now, and nothing is known of what that holds."""
        await self._end_checks()
        for known in (self._checks, self._settled, self.set_aside):
            known.clear()
        self._absences.forget()
        self._listing = ()
        await self._begin_checks()

    async def close(self) -> None:
        """End the checks under way; what waits for a comparison goes on waiting in the next run."""
        self.runs.close()
        await self._end_checks()

    async def _begin_checks(self) -> None:
        self._unseen_until = self._clock.monotonic() + self._patience_s
        seen = {name: asyncio.Event() for name in self._listing}
        with suppress(StoreError):
            for name, key in await self._store.streams():
                if not is_aside(key.symbol):
                    if name in seen:
                        self._unseen[name, key.symbol] = seen[name]
                    continue
                symbol = original(key.symbol)
                if key.symbol != aside_name(symbol, CHECKING):
                    self.set_aside[name, key.symbol] = None
                elif name in self._sources and (name, symbol) not in self._checks:
                    self._begin(self._sources[name], symbol).is_aside = True
        for check in self._checks.values():
            self.runs.start(check)

    async def _end_checks(self) -> None:
        await self.runs.end_turns()
        tasks = [check.task for check in self._checks.values() if check.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def told(self) -> list[dict[str, str]]:
        """Return what is set aside and what waits for a comparison, for the status."""
        rows = [(name, symbol, "set_aside") for name, symbol in self.set_aside]
        rows += [
            (name, aside_name(symbol, CHECKING), "checking")
            for (name, symbol), check in self._checks.items()
            if check.is_aside
        ]
        return [
            {"provider": name, "symbol": original(symbol), "kept_as": symbol, "state": state}
            for name, symbol, state in rows
        ]

    # -- signs -------------------------------------------------------------------------------------

    async def note_list(self, source: CandleSource, symbols: Collection[str]) -> None:
        """Take a list of what the provider has now, before anybody can ask for what is new in it."""
        if symbols and source.has_history:
            await self._note_list(source, symbols)
        for identity in [identity for identity in self._unseen if identity[0] == source.name]:
            self._unseen.pop(identity).set()

    async def _note_list(self, source: CandleSource, symbols: Collection[str]) -> None:
        try:
            stored = {key.symbol for name, key in await self._store.streams() if name == source.name}
            seen = await self._absences.take(source.name, symbols, {one for one in stored if not is_aside(one)})
            for symbol in seen.unwatched:
                self._begin(source, symbol).before = int(source.clock.now())
            checks = [self._begin(source, symbol) for symbol in seen.back]
            for check in checks:
                # What opened in the second in which it was seen to be away is the old one's.
                check.absent_at = math.ceil(seen.back[check.symbol])
            if seen.is_believed:
                for check in checks:
                    # What cannot be written now is tried again by the check.
                    with suppress(StoreError):
                        await self._aside.take_away(check)
                    self.runs.start(check)
            else:
                self.runs.start_in_turn(checks)
            await self._absences.keep(source.name, self._unanswered(source.name))
        except StoreError as error:
            about = event("absence_not_noted", provider=source.name)
            log.debug("the symbols missing from the list of %s were not stored: %s", source.name, error, extra=about)

    def _unanswered(self, provider: str) -> dict[str, float]:
        """Return who is back and still to be compared, and since when it was away: the next run has to know."""
        return {
            check.symbol: float(check.absent_at)
            for check in self._checks.values()
            if check.source.name == provider and check.absent_at is not None and not check.is_aside
        }

    async def note_answer(self, source: CandleSource, key: StreamKey, first: Candle) -> bool:
        """Take the first candle of a provider's answer.

        Returns when what is stored before it was compared, if the two do not look like neighbours; and then whether
        that is the provider's all the same, so that it may be the answer that is another one's.
        """
        identity = (source.name, key.symbol)
        settled = self._settled.get(identity)
        if (settled is not None and first.time <= settled.before) or not source.has_history:
            return False
        is_odd, check = False, self._checks.get(identity)
        if check is None or check.is_faint:
            try:
                last = await self._store.read(source.name, key, 0, first.time, 1, newest=True)
            except StoreError:
                return False
            is_odd = bool(last) and not follows(key.interval, last[0], first)
            if is_odd:
                self._sign(source, key, first.time)
        await self.settle(source, key)
        return is_odd and self._is_same(identity, first.time - 1)

    async def note_differences(self, provider: str, key: StreamKey, until: int) -> bool:
        """Take it that stored candles up to an open time are far from the provider's, however few they are.

        Returns whether they are the same instrument's all the same, once more of them were compared.
        """
        source, identity = self._sources.get(provider), (provider, key.symbol)
        if source is None:
            return False
        if not self._is_same(identity, until):
            self._sign(source, key, until + 1, is_parted=False)
            await self.settle(source, key)
        return self._is_same(identity, until)

    def note_past_change(self, provider: str, change: PastChange) -> None:
        """Take it that a symbol names what it named although its stored candles differ: its provider said why."""
        identity = (provider, change.symbol)
        if (check := self._checks.get(identity)) is not None:
            check.verdict = None
        self._settle(identity, FOREVER if change.before is None else change.before)

    def _is_same(self, identity: Identity, until: int) -> bool:
        settled = self._settled.get(identity)
        if settled is None or identity in self._checks:
            return False
        return until < settled.before and self._clock.monotonic() - settled.at < SAME_S

    def _sign(self, source: CandleSource, key: StreamKey, before: int, *, is_parted: bool = True) -> None:
        if source.has_history:
            check = self._begin(source, key.symbol)
            if check.is_faint:
                check.interval, check.before, check.retry_at = key.interval, before, 0.0
                check.is_parted = is_parted
            self.runs.start(check)

    # -- who has to wait ---------------------------------------------------------------------------

    def is_settled(self, source: CandleSource, key: StreamKey) -> bool:
        """Say whether there is nothing to wait for, which is nearly always so."""
        identity = (source.name, key.symbol)
        return not (self._checks or self._unseen) or not (identity in self._checks or identity in self._unseen)

    def may_be_used(self, source: CandleSource, key: StreamKey) -> bool:
        """Say whether `settle` would return now, without beginning a check."""
        identity, now = (source.name, key.symbol), self._clock.monotonic()
        if identity in self._unseen and now < self._unseen_until:
            return False
        check = self._checks.get(identity)
        if check is None or check.is_aside or check.is_compared.is_set():
            return True
        return check.is_faint and now >= check.patience_ends

    async def settle(self, source: CandleSource, key: StreamKey, *, is_spliced: bool = False) -> None:
        """Return when what is stored of a symbol may be used; soon, if nothing but time speaks for a check.

        What is `is_spliced` with what a stream remembers waits for the first comparison also where nothing is stored
        under the symbol meanwhile: the stream may remember another instrument until then.
        """
        identity = (source.name, key.symbol)
        if (seen := self._unseen.get(identity)) is not None:
            with suppress(TimeoutError):
                await asyncio.wait_for(seen.wait(), max(0.0, self._unseen_until - self._clock.monotonic()))
        check = self._checks.get(identity)
        if check is None:
            return
        if check.is_aside:
            if is_spliced:
                with suppress(TimeoutError):
                    await asyncio.wait_for(check.is_compared.wait(), self._patience_s)
            return
        self.runs.start(check)
        if check.task is None or check.task.done():
            return
        left_s = check.patience_ends - self._clock.monotonic() if check.is_faint else None
        with suppress(TimeoutError):
            await asyncio.wait_for(check.is_compared.wait(), left_s)

    def _begin(self, source: CandleSource, symbol: str) -> SymbolCheck:
        identity = (source.name, symbol)
        check = self._checks.get(identity)
        if check is None:
            check = self._checks[identity] = SymbolCheck(source, symbol)
        return check

    def _end(self, check: SymbolCheck) -> None:
        self._checks.pop(check.identity, None)
        self._settle(check.identity, min(check.before, int(check.source.clock.now())))

    def _settle(self, identity: Identity, before: int) -> None:
        self._settled.pop(identity, None)
        self._settled[identity] = _Settled(before, self._clock.monotonic())
        if len(self._settled) > _MOST_SETTLED:
            del self._settled[next(iter(self._settled))]
