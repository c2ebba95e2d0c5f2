"""The list of one provider as it is kept: asked for again and again, remembered across restarts, woken by clients."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Collection, Iterator, Sequence
from typing import Any, NamedTuple

import orjson

from relay.core.compact_instruments import compact
from relay.core.errors import BadAnswer, ProviderError, RateLimited, StoreError, log_text
from relay.core.json_reading import AT_ONCE, parse, parse_in_turns
from relay.core.model import Instrument, ProviderInfo
from relay.core.packed_extras import PackedExtras, each_json
from relay.core.threads import in_thread, in_thread_if_many
from relay.instruments.listing import Listing
from relay.plugins.provider import Provider
from relay.plugins.validation import fault_of_instrument
from relay.storage.documents import Documents
from relay.telemetry.events import event

log = logging.getLogger(__name__)

LATER_PART = 12
"""A list that is doubted is asked for again ever later, at last after a 12th part of its life."""


class ListWaits(NamedTuple):
    """How long a list is left alone where it is doubted, or lacks a symbol that somebody wants, and after failures.

    The former is at first the `soon_part`th part of its life, `soon_s` at least. After failures in a row it is
    `retry_s`, ever longer, since a list may cost credits that streams need. `settle_s` after the start nobody waits for
    a first list any more. Who wants a symbol that no list has waits `quick_s` for the answer to another question.
    """

    soon_s: float = 5.0
    soon_part: int = 720
    retry_s: Sequence[float] = (2.0, 5.0, 15.0, 60.0, 120.0, 300.0, 900.0)
    settle_s: float = 10.0
    quick_s: float = 2.0


WAITS = ListWaits()

OnAnswer = Callable[[bool], None]
OnList = Callable[[Provider, Collection[str]], Awaitable[None]]


async def take_no_notice(*_: object) -> None:
    """Do nothing with a list."""


class SavedList:
    """The list of one provider, and when it is asked for. `on_answer` is called when there is one.

    It is told whether anything but extras may be different.
    `settled` is set once there was an answer, `problem` says why there was none lately. `is_wanted` says whether
    anybody misses the list when there is none: if symbols are always pinned, only who names their provider.
    """

    def __init__(
        self,
        provider: Provider,
        documents: Documents,
        on_answer: OnAnswer,
        on_list: OnList,
        *,
        waits: ListWaits = WAITS,
    ) -> None:
        self.provider = provider
        self._documents = documents
        self._on_answer = on_answer
        self._on_list = on_list
        self._waits = waits
        self.listing = Listing(
            provider.info.least_instruments, provider.info.always_listed, provider.info.instruments_ttl_s
        )
        self.problem: str | None = None
        self.is_wanted = not provider.info.always_pinned
        self.settled = asyncio.Event()
        # By the event loop's clock.
        self._asked_at = 0.0
        self._asks_at: float | None = None
        self._answered = asyncio.Event()
        self._wake = asyncio.Event()
        self._not_before = 0.0
        self._looks = 0

    @property
    def asks_in_s(self) -> float:
        """In how many seconds there may be another answer; at least a moment, since it takes one."""
        left_s = 0.0 if self._asks_at is None else self._asks_at - asyncio.get_running_loop().time()
        return max(left_s, self._waits.retry_s[0])

    def look(self) -> None:
        """Have the list asked for now, unless that was done a moment ago; ever more rarely if it brings nothing new."""
        now = asyncio.get_running_loop().time()
        is_asking = not self._answered.is_set()
        if is_asking or now < max(self._not_before, self._asked_at + self._wait_s(self._looks)):
            return
        if self.provider.refusal is None:
            self._looks += 1
            self._begin()
            self._wake.set()

    def ask_anew(self) -> None:
        """Have the list asked for now, whatever was answered before."""
        self._not_before = 0.0
        self._wake.set()

    async def answer(self) -> None:
        """Wait for the answer to a question that was asked a moment ago, if that is quick."""
        if self._answered.is_set():
            return
        try:
            async with asyncio.timeout_at(self._asked_at + self._waits.quick_s):
                await self._answered.wait()
        except TimeoutError:
            return

    def _wait_s(self, times: int) -> float:
        """Return how long to wait before an answer is doubted for the next time."""
        life_s = self.provider.info.instruments_ttl_s
        least_s = min(max(self._waits.soon_s, life_s / self._waits.soon_part), life_s)
        return float(min(least_s * 2 ** min(times, 16), max(least_s, life_s / LATER_PART)))

    def _begin(self) -> None:
        """Note that the list is asked for now."""
        self._asked_at = asyncio.get_running_loop().time()
        self._answered.clear()
        self._wake.clear()

    async def _end(self, wait_s: float, *, is_new: bool, not_before_s: float = 0.0) -> bool:
        """Note that there was an answer; return when it is time for the next question, True if a client caused it."""
        now = asyncio.get_running_loop().time()
        self._asks_at, self._not_before = now + wait_s, now + not_before_s
        if is_new:
            self._looks = 0
        self.settled.set()
        self._answered.set()
        try:
            async with asyncio.timeout(wait_s):
                await self._wake.wait()
        except TimeoutError:
            return False
        return True

    async def keep(self) -> None:
        """Ask for the list, for as long as this runs: sooner where it is doubted or somebody wants what it lacks."""
        provider, listing = self.provider, self.listing
        failures = doubts = 0
        # What clients cause makes the planned questions no rarer.
        is_planned = True
        while True:
            self._begin()
            not_before_s, is_new = 0.0, False
            try:
                instruments = await provider.instruments()
                # Before anybody can ask for what is new in it.
                trading = await in_thread_if_many(len(instruments), self._trading, instruments)
                await self._on_list(provider, trading)
                is_new = await self._take(instruments)
            except ProviderError as error:
                if isinstance(error, RateLimited):
                    not_before_s = error.retry_after
                is_first = not failures
                failures += is_planned or is_first
                wait_s = self._waits.retry_s[min(failures, len(self._waits.retry_s)) - 1]
                if is_first:
                    about = event("symbols_missing", provider=provider.name, reason=str(error))
                    log.log(
                        logging.WARNING if self.is_wanted else logging.INFO,
                        "the symbol list of %s is not available (%s); retrying",
                        provider.name,
                        log_text(error),
                        extra=about,
                    )
                self.problem = str(error)
            else:
                wait_s, failures = provider.info.instruments_ttl_s, 0
                self.problem = None if listing.is_known else listing.doubt
                if listing.doubt:
                    wait_s = self._wait_s(doubts)
                if listing.doubt and not doubts:
                    about = event("symbols_doubted", provider=provider.name, reason=listing.doubt)
                    log.warning(
                        "the symbol list of %s is not used yet and will be requested again soon: %s",
                        provider.name,
                        listing.doubt,
                        extra=about,
                    )
                doubts = doubts + (is_planned or not doubts) if listing.doubt else 0
                if is_new:
                    await self._remember()
            wait_s = max(wait_s, not_before_s)
            is_planned = not await self._end(wait_s, is_new=is_new, not_before_s=not_before_s)

    def _trading(self, instruments: Sequence[Instrument]) -> set[str]:
        """Return the symbols that trade; one answer alone makes nothing absent."""
        answered = {str(one.symbol).upper() for one in instruments}
        absent = {one.symbol for symbol, one in self.listing.instruments.items() if symbol not in answered}
        return absent.union(str(one.symbol) for one in instruments if one.status == "trading")

    async def _take(self, instruments: Sequence[Instrument]) -> bool:
        was_known, now = self.listing.is_known, asyncio.get_running_loop().time()
        try:
            is_new = await in_thread_if_many(len(instruments), self.listing.take, instruments, now)
        except AttributeError:
            raise BadAnswer(f"provider {self.provider.name}: a symbol in its list is not a text") from None
        self._on_answer(is_new or self.listing.is_known != was_known)
        return is_new

    async def _remember(self) -> None:
        name = self.provider.name
        try:
            body = await in_thread(rows_of, [*self.listing.instruments.values()])
            await self._documents.put(f"instruments:{name}", body)
        except (StoreError, TypeError) as error:
            about = event("symbols_not_stored", provider=name)
            log.debug("the symbol list of %s could not be stored: %s", name, error, extra=about)

    async def keep_again(self) -> None:
        """Store the list in another database than before, and let who follows lists see what is in it."""
        if self.listing.is_known:
            await self._remember()
            instruments = [*self.listing.instruments.values()]
            await self._on_list(self.provider, await in_thread_if_many(len(instruments), self._trading, instruments))

    async def recall(self) -> None:
        """Begin with the list of an earlier run, if there is one."""
        name = self.provider.name
        try:
            document = await self._documents.get(f"instruments:{name}")
            instruments = await in_thread(read_rows, document.body, self.provider.info) if document else []
            self.listing.recall(instruments)
            self._on_answer(True)
        except (StoreError, ValueError, TypeError, LookupError, AttributeError) as error:
            about = event("symbols_not_recalled", provider=name)
            log.debug("the symbol list of %s from an earlier run cannot be read: %s", name, error, extra=about)


_AT_A_TIME = 500
"""So many rows take orjson a millisecond, in which no other thread runs."""
_BETWEEN = b",\n"
"""Stands between so many rows: JSON has no line ends but between values, so a list can be read part by part."""


def rows_of(instruments: Sequence[Instrument]) -> bytes:
    """Return instruments as the JSON in which they are stored: a row each, in the order of the fields."""
    parts = []
    for start in range(0, len(instruments), _AT_A_TIME):
        some = instruments[start : start + _AT_A_TIME]
        extras = each_json([one.extras for one in some if isinstance(one.extras, PackedExtras)])
        parts.append(orjson.dumps([_row(one, extras) for one in some])[1:-1])
    return b"[%b]" % _BETWEEN.join(parts)


def _row(one: Instrument, extras: Iterator[bytes]) -> list[object]:
    # A plain list: orjson takes no named tuples. What is unknown at the end is left out.
    row: list[object] = [*one]
    if isinstance(one.extras, PackedExtras):
        row[-1] = orjson.Fragment(next(extras))
    while row[-1] is None:
        row.pop()
    return row


def read_rows(body: bytes, info: ProviderInfo) -> list[Instrument]:
    """Return the instruments of a stored list, by whichever version, as they are kept; for a thread.

    Raises `NoJson`, `TypeError` or `LookupError` for what is none.
    """
    found: list[Instrument] = []
    for part in body.removeprefix(b"[").removesuffix(b"]").split(_BETWEEN):
        # A list of an earlier version is one part.
        text = b"[%b]" % part
        found += _instruments_of(parse(text) if len(text) <= AT_ONCE else parse_in_turns(text), info)
        time.sleep(0)
    return compact(found)


def _instruments_of(rows: Sequence[Sequence[Any]], info: ProviderInfo) -> list[Instrument]:
    # A row of an earlier version ends before the fields that it did not have, one of a later version has more.
    found = (
        Instrument(row[0], row[1], row[2], row[3], tuple(row[4]) if row[4] else None, *row[5 : len(Instrument._fields)])
        for row in rows
    )
    return [one for one in found if fault_of_instrument(one, info) is None]
