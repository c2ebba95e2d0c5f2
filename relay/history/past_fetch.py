"""What a subscription fetches of the past: as much as it is to send, and what of older candles is another one now."""

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from itertools import takewhile
from types import MappingProxyType
from typing import NamedTuple, Protocol, TypeVar

from relay.core.errors import ProviderError, ProviderTimeout, ProviderUnavailable, RateLimited, StoreError
from relay.core.intervals import length_s
from relay.core.model import Candle, parted
from relay.history.live_edge import LiveEdge, live_of
from relay.history.requests import HistoryRequest, PastCandles
from relay.history.service import HistoryService
from relay.history.snapshot import is_joined
from relay.plugins.provider import Provider
from relay.protocol.client_requests import PastWanted, SubscribeOptions
from relay.storage.past_seen import PastSeen
from relay.streams.subscriptions import Stream

T = TypeVar("T")

MOST_SINCE = 20_000
"""Candles that a resume may bring; beyond, the newest are sent and the snapshot is not complete."""
MOST_REVISED = 2000
"""Revised candles that a resume brings, the newest; beyond, it says that there are others."""
MOST_WAIT_S = 150.0
"""A past that has to wait for the provider's budget is waited for so long at most."""
NOT_GIVEN = "the provider could not deliver these candles"
NOT_YET = "the provider has not answered yet; these candles follow once it does"
TOO_MANY = f"one answer has at most {MOST_SINCE} candles, the newest; request these from history"
LAG_WAIT_S = 0.5
"""So long history that may lag is waited for before it is asked again; twice as long each time."""


class PastWaits(NamedTuple):
    """How long a subscription waits for its past, in seconds. Both are our own choice."""

    confirm_s: float = 2.0
    """Then the client is told that the stream is accepted, and what it waits for."""
    patience_s: float = 10.0
    """A provider that gave the client nothing for so long is silent: what is known is sent, and live updates."""


PAST_WAITS = PastWaits()


class PastTurns:
    """The pasts of one client from one provider: one at a time, as they are large, as long as the provider answers.

    `heard_at` is when it last answered one, or was asked.
    """

    def __init__(self, waits: PastWaits = PAST_WAITS) -> None:
        self.waits = waits
        self._lock = asyncio.Lock()
        self._holder: object | None = None
        self._is_silent = False
        self.heard_at = self._now()

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()

    def hear(self) -> None:
        """Know that the provider answers."""
        self._is_silent = False
        self.heard_at = self._now()

    def silent_in_s(self, since: float) -> float:
        """Return in how many seconds somebody who waits `since` then has waited long enough; 0 or less: already."""
        return max(since, self.heard_at) + self.waits.patience_s - self._now()

    def note_silence(self) -> None:
        """Know that the provider is silent: whoever waits for its turn need not wait any longer."""
        self._is_silent = True
        if self._holder is not None:
            self._let_go()

    async def run(self, until_ready: Callable[[], Awaitable[None]], fetch: Callable[[], Awaitable[T]]) -> T:
        """Return what is fetched when it is its turn and `until_ready` is over. Raises what the two raise."""
        await self._lock.acquire()
        holder = self._holder = object()
        try:
            await until_ready()
            if not self._is_silent:
                self.heard_at = self._now()
            elif self._holder is holder:
                self._let_go()
            return await fetch()
        finally:
            if self._holder is holder:
                self._let_go()

    def _let_go(self) -> None:
        self._holder = None
        self._lock.release()


class CandleQuota(Protocol):
    """Counts the candles that one client is given of the past."""

    @property
    def client(self) -> str:
        """Whom the past is for, as history's calls take turns."""
        ...

    def check(self) -> None:
        """Raise `RequestError` when the client had its share."""

    def spend(self, rows: int) -> None:
        """Count candles that were fetched."""


class Fetched(NamedTuple):
    """What history gave, asked at `asked_at` of the provider's time: all from `reaches_from` on, if `past` is whole.

    It is of one past while that is as it was `seen` before anything was asked for.
    `revised` are candles from before that are other ones than the client has, by open time; there may be others unless
    `revisions_known`. `gap_reason` is why something is missing, if it is.
    """

    seen: PastSeen
    past: PastCandles = PastCandles((), True, True)
    asked_at: float = 0.0
    reaches_from: int = 0
    gap_reason: str = NOT_GIVEN
    revised: Mapping[int, Candle] = MappingProxyType({})
    revisions_known: bool = True


class PastFetch:
    """Asks history for the past of one subscription, with the `options` of its newest request.

    The pasts of each provider come in `turns`, and each one waits until the client has read enough. Where it `may_lack`
    some, what cannot be had makes a past incomplete, else it is raised. `waited_s` is how long the subscription has
    waited for the provider's budget. What is asked for again, because the past changed meanwhile, counts once for the
    client.
    """

    def __init__(
        self,
        history: HistoryService,
        stream: Stream,
        provider: Provider,
        quota: CandleQuota,
        turns: Mapping[str, PastTurns],
        until_read: Callable[[], Awaitable[None]],
        options: SubscribeOptions,
        *,
        may_lack: bool,
    ) -> None:
        self.options = options
        self.waited_s = 0.0
        self._asks_at = asyncio.get_running_loop().time()
        # What was wanted last, how many of its candles were counted, and how many of those came this time.
        self._wanted: PastWanted | None = None
        self._counted = self._came = 0
        self._history = history
        self._stream = stream
        self._provider = provider
        self._quota = quota
        self.turns = turns[stream.provider]
        self._until_read = until_read
        self._may_lack = may_lack

    async def fetch(self, wanted: PastWanted) -> Fetched:
        """Fetch what is wanted. Raises `RequestError` when there were too many rows, and `RateLimited`.

        That says that the provider's budget is used up for a time that is worth waiting for.
        """
        if wanted != self._wanted:
            self._wanted, self._counted = wanted, 0
        self._came = 0
        seen = self._history.look()
        fetched = Fetched(seen) if wanted.bars == 0 else await self._fetch_past(wanted, seen)
        if wanted.wants_revised:
            came = fetched
            fetched = await self.turns.run(self._until_read, lambda: self._fetch_revised(wanted, came))
        return fetched

    def without_past(self) -> Fetched:
        """Return that nothing is known of the past as it is. Raises `ProviderUnavailable` where it may lack none."""
        reason = "the provider changes its history again and again; ask for these candles later"
        if not self._may_lack:
            raise ProviderUnavailable(reason)
        seen, asked_at = self._history.look(), self._provider.clock.now()
        return Fetched(seen, PastCandles((), True, False), asked_at, gap_reason=reason, revisions_known=False)

    async def pause(self, seconds: float) -> None:
        """Ask nobody for a while: a provider that is not asked is not silent."""
        self._asks_at = asyncio.get_running_loop().time() + seconds
        await asyncio.sleep(seconds)

    def silent_in_s(self) -> float:
        """Return in how many seconds the provider has been silent for too long; 0 or less: it is by now."""
        return self.turns.silent_in_s(self._asks_at)

    async def known(self, wanted: PastWanted) -> Fetched:
        """Return what is known of what is wanted without the provider. Raises `RequestError` as `fetch` does."""
        self._check()
        seen, asked_at = self._history.look(), self._provider.clock.now()
        most = MOST_SINCE if wanted.bars is None else min(MOST_SINCE, wanted.bars + self.options.closed_only)
        asked = dataclasses.replace(self._request(seen, most), is_spliced=True)
        past = PastCandles((), True, False)
        with suppress(ProviderError, StoreError):
            past = await self._history.known(asked)
        self._count(_rows_for(past, wanted))
        return Fetched(seen, past, asked_at, gap_reason=NOT_YET, revisions_known=False)

    async def _until_ready(self) -> None:
        await self._until_read()
        self._check()

    def _check(self) -> None:
        """Raise `RequestError` when the client had its share, unless what comes next was counted already."""
        if self._came >= self._counted:
            self._quota.check()

    def _count(self, rows: int) -> None:
        """Count candles that came."""
        self._came += rows
        if self._came > self._counted:
            self._quota.spend(self._came - self._counted)
            self._counted = self._came

    async def _fetch_past(self, wanted: PastWanted, seen: PastSeen) -> Fetched:
        """Ask until the answer reaches what the stream itself answers for, or is old enough to be believed."""
        series, info = self._stream.series, self._provider.info
        settled_at = self._provider.clock.now() + info.close_grace_s
        pause_s, spent, is_strict, more = LAG_WAIT_S, 0, False, 0
        while True:
            # Who waits to ask again leaves the turn to others.
            fetched = await self.turns.run(
                self._until_ready if not spent else self._until_read,
                partial(self._ask, wanted, seen, is_strict, more),
            )
            rows = _rows_for(fetched.past, wanted)
            self._count(max(0, rows - spent))
            spent = max(spent, rows)
            if not fetched.past.is_whole:
                return fetched
            if (lacking := self._rows_lacking(fetched, wanted)) > 0:
                # As many may become newer than the stream while it is asked again.
                more += 2 * lacking
                continue
            if is_joined(fetched.past, series, wanted, has_open=info.history_has_open):
                return fetched
            if is_strict:
                if info.history_has_open or fetched.asked_at >= settled_at:
                    return fetched
                await self.pause(pause_s)
                pause_s *= 2
            is_strict = True

    def _rows_lacking(self, fetched: Fetched, wanted: PastWanted) -> int:
        """Return how many older rows are to be asked for: too many of the answer are newer than what is sent first.

        Those come as updates. What the stream remembers of older ones does not make up for them: nobody vouches for
        what lies between.
        """
        past, series = fetched.past, self._stream.series
        if wanted.bars is None or fetched.reaches_from == 0 or len(past.candles) >= MOST_SINCE:
            return 0
        times = (candle.time for candle in reversed(past.candles))
        rows = len(past.candles) - sum(1 for _ in takewhile(series.is_to_come, times))
        # With `closed_only` the one that the stream has open does not count.
        has_open = series.last is not None and not series.last_is_closed
        return wanted.bars + (self.options.closed_only and has_open) - rows

    async def _ask(self, wanted: PastWanted, seen: PastSeen, is_strict: bool, more: int) -> Fetched:
        history, most, asked_at = self._history, MOST_SINCE, self._provider.clock.now()
        start: int | None = None
        is_live = self._live() is not None
        if wanted.since is not None and wanted.bars is None:
            start = wanted.since + 1
            if not is_live and self._provider.has_history:
                start = min(start, self._stream.series.needs_from())
            start = max(0, start)
        else:
            most = min(MOST_SINCE, self._rows_back(wanted.bars or 1, is_live) + more)
        # A stream that is not live learns from the answer, for others too.
        extended = not is_live or self.options.extended
        newest = dataclasses.replace(self._request(seen, most), is_spliced=True, extended=extended)
        gap_reason = NOT_GIVEN
        try:
            past = await history.candles(dataclasses.replace(newest, start=start, must_be_new=is_strict))
            if start is not None and len(past.candles) >= most:
                # It may go on beyond; the newest are worth more.
                await history.candles(newest)
                gap_reason = TOO_MANY
            elif past.is_whole:
                is_all = start is None and len(past.candles) < most
                asked_at = past.asked_by(self._provider.clock, asked_at)
                return Fetched(seen, past, asked_at, 0 if is_all else past.candles[0].time if start is None else start)
        except RateLimited as error:
            self.turns.hear()
            if not self._may_lack or self.waited_s + error.retry_after <= MOST_WAIT_S:
                raise
            gap_reason = f"the provider was not asked; these candles follow later: {error}"
        except ProviderError as error:
            if not isinstance(error, ProviderTimeout):
                self.turns.hear()
            if not self._may_lack:
                raise
        except StoreError:
            if not self._may_lack:
                raise
            return Fetched(seen, PastCandles((), True, False), asked_at)
        try:
            # All that is known by now, also of what the provider gave before it failed.
            return Fetched(seen, await history.stored(newest), asked_at, gap_reason=gap_reason)
        except (ProviderError, StoreError):
            return Fetched(seen, PastCandles((), True, False), asked_at, gap_reason=gap_reason)

    async def _fetch_revised(self, wanted: PastWanted, fetched: Fetched) -> Fetched:
        """Fetch what the client has not, or not as it is now, of what opened up to `since`."""
        history, since = self._history, wanted.since or 0
        revised: dict[int, Candle] = {}
        are_known = True
        if wanted.revision is not None:
            try:
                extended = self.options.extended
                # A number of another store says nothing of what was told: all that is known counts.
                after = wanted.revision if wanted.store in (None, history.store_id) else 0
                found = await history.revisions(self._provider, self._stream.key, after, extended=extended)
                known = (
                    found.candles
                    if not found.is_forgotten
                    else await self._all_anew(since, found.candles, fetched.seen)
                )
                candles = [candle for candle in known if candle.time <= since]
                revised = {candle.time: candle for candle in candles[-MOST_REVISED:]}
                are_known = found.is_complete and len(candles) <= MOST_REVISED
            except StoreError:
                are_known = False
        asked = self._request(fetched.seen, MOST_REVISED)
        for start, end in wanted.gaps:
            self._check()
            try:
                past = await history.candles(dataclasses.replace(asked, start=start, end=min(end - 1, since)))
            except (ProviderError, StoreError):
                # The client has not got it, knows so, and asks again.
                continue
            closed, _ = parted(past.candles, past.last_is_closed)
            self._count(len(closed))
            revised |= {candle.time: candle for candle in closed}
        return fetched._replace(revised=revised, revisions_known=are_known)

    async def _all_anew(self, since: int, revised: Sequence[Candle], seen: PastSeen) -> Sequence[Candle]:
        """Return what is revised, and the newest candles up to `since`: all of them may be other ones now.

        Only the former where nothing else can be had. Raises `StoreError`.
        """
        self._check()
        try:
            asked = dataclasses.replace(self._request(seen, MOST_REVISED), end=since)
            past = await self._history.candles(asked)
        except ProviderError:
            return revised
        closed, _ = parted(past.candles, past.last_is_closed)
        self._count(len(closed))
        found = {candle.time: candle for candle in (*closed, *revised)}
        return [found[time] for time in sorted(found)]

    def _request(self, seen: PastSeen, most: int) -> HistoryRequest:
        """Return the question for the newest `most` candles."""
        extended = self.options.extended
        return HistoryRequest(
            self._provider,
            self._stream.key,
            None,
            None,
            most,
            self._live,
            client=self._quota.client,
            extended=extended,
            needs_extras=extended,
            seen=seen,
            on_answer=self.turns.hear,
        )

    def _live(self) -> LiveEdge | None:
        return live_of(self._stream)

    def _rows_back(self, bars: int, is_live: bool) -> int:
        """Return how many of the newest candles to ask for; a stream that is not live needs what it has missed, too."""
        bars += self.options.closed_only
        if is_live or not self._provider.has_history:
            return bars
        series = self._stream.series
        behind_s = max(0.0, self._provider.clock.now() - series.needs_from())
        # The first of them is still to come where the stream has told nothing.
        return min(MOST_SINCE, bars + (series.last is None) + int(behind_s // length_s(self._stream.key.interval)))


def _rows_for(past: PastCandles, wanted: PastWanted) -> int:
    """Return how many candles of an answer a client asked for; others were fetched for the stream's sake."""
    rows = len(past.candles)
    if wanted.since is not None:
        rows = sum(candle.time > wanted.since for candle in past.candles)
    return rows if wanted.bars is None else min(rows, wanted.bars)
