"""What answers show of candles that are over, held against what is known and what somebody was given already.

What is new goes into the store, or is in doubt; where an answer speaks of candles that are known, the two are compared.
"""

import asyncio
import logging
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from relay.core.errors import StoreError
from relay.core.intervals import length_s, next_open
from relay.core.model import Candle, StreamKey, has_other_extras, is_bare, is_widened, repeats
from relay.core.spans import Span, gaps_between, span_at
from relay.history.comparison import Comparison, compare
from relay.history.doubts import Doubts
from relay.history.requests import CandleSource, PageRequest
from relay.storage.past_seen import PastSeen
from relay.storage.store import Store
from relay.telemetry.events import event

log = logging.getLogger(__name__)

_MOST_STREAMS = 4096
_MOST_GIVEN = 64


class News(NamedTuple):
    """What a provider says of the past of a stream that is not what was known: values that `changed`, candles `found`.

    It was asked at `asked_at` of its own time. Of other candles only extras are new: of those that are `refined` others
    were known, of those that are `filled` none.
    """

    provider: str
    key: StreamKey
    changed: Sequence[Candle]
    found: Sequence[Candle]
    asked_at: float
    refined: Sequence[Candle] = ()
    filled: Sequence[Candle] = ()


class KnownCandles(NamedTuple):
    """What the store knew before a call."""

    spans: list[Span]
    rows: dict[int, Candle]


class FinalCandles:
    """Takes what answers show of what is over; `doubts` has what they leave out.

    By provider, `compared` counts known candles that an answer spoke of again, and `differed` those that it gave other
    values.
    """

    def __init__(self, store: Store, doubts: Doubts) -> None:
        self.compared: Counter[str] = Counter()
        self.differed: Counter[str] = Counter()
        self._store = store
        self._doubts = doubts
        self._given: dict[tuple[str, StreamKey], dict[int, Candle]] = {}
        self._logged: dict[tuple[str, StreamKey, str], None] = {}
        self._putting_right = asyncio.Lock()

    def note_given(self, source: CandleSource, key: StreamKey, candles: Iterable[Candle]) -> None:
        """Note closed candles that somebody was given; those that had not settled then are compared when they have."""
        given = {candle.time: candle for candle in candles}
        if given:
            known = self._given.pop((source.name, key), {}) | given
            self._given[source.name, key] = dict(sorted(known.items())[-_MOST_GIVEN:])
        while len(self._given) > _MOST_STREAMS:
            del self._given[next(iter(self._given))]

    def given(self, provider: str, key: StreamKey) -> Mapping[int, Candle]:
        """Return what somebody was given of a stream before it had settled, by open time."""
        return self._given.get((provider, key), {})

    def forget(self, provider: str, symbol: str) -> None:
        """Forget what somebody was given of a symbol: it is not its past any more."""
        for stream in [one for one in self._given if (one[0], one[1].symbol) == (provider, symbol)]:
            del self._given[stream]

    async def known(self, source: CandleSource, key: StreamKey, piece: PageRequest) -> KnownCandles:
        """Return what the store knows of what an answer may speak of, some candles before it too."""
        if piece.start is None:
            return KnownCandles([], {})
        start = max(0, piece.start - source.info.candles_back * length_s(key.interval))
        spans = await self._store.spans(source.name, key, start, piece.end)
        # Rows outside of what is known stand in, since they had to be widened; it is mostly one that is asked for.
        is_short = piece.end - start <= length_s(key.interval)
        has_rows = bool(spans) or is_short or bool(self._doubts.of((source.name, key)))
        rows = await self._store.read(source.name, key, start, piece.end, extended=True) if has_rows else []
        return KnownCandles(spans, {row.time: row for row in rows})

    def compare(
        self, source: CandleSource, key: StreamKey, known: KnownCandles, candles: Sequence[Candle], now: float
    ) -> Comparison:
        """Hold what an answer shows of candles that were known before the question against them, and count it.

        Only what is over at `now`, by the provider's time, is final.
        """
        name = source.name
        result = compare(
            known.rows,
            [
                candle
                for candle in candles
                if (candle.time in known.rows or span_at(known.spans, candle.time) is not None)
                and next_open(key.interval, candle.time) + source.info.close_grace_s <= now
            ],
        )
        differing = len(result.changed) + len(result.refined)
        self.compared[name] += result.compared
        self.differed[name] += differing
        if result.is_other and self._is_first((name, key), "far"):
            log.warning(
                "%s of %s: %d of %d candles are far from those stored: it may be another instrument now",
                key,
                name,
                differing,
                result.compared,
                extra=event("past_disagrees", provider=name, stream=str(key)),
            )
        return result

    async def take(
        self,
        source: CandleSource,
        key: StreamKey,
        final: Span,
        known: KnownCandles,
        compared: Comparison,
        candles: Sequence[Candle],
        times: Sequence[int],
        now: float,
        asked_at: float,
        seen: PastSeen,
    ) -> News | None:
        """Take what an answer shows of what is over, which is the span `final` and what is known of before it.

        What was not known is stored, or in doubt. What was known before the question is put right, unless the stream
        told something newer meanwhile, and so is what was learnt of it while the answer was under way. What had to be
        widened puts nothing right, also not what somebody was given, and is looked at again. Returns what is new once
        it is on its way into the store. Nothing is taken once the symbol has another past than was `seen` when it was
        asked for.
        """
        name, stream = source.name, (source.name, key)
        grace_s = source.info.close_grace_s
        wide = [one.time for one in candles if is_widened(one) and next_open(key.interval, one.time) + grace_s <= now]
        if wide:
            self._doubts.look_again(stream, Span(wide[0], wide[-1] + 1), asked_at)
        if compared.changed and self._is_first(stream, "changed"):
            log.warning(
                "%s of %s: the provider changed candles after their close, for example at %d",
                key,
                name,
                compared.changed[0].time,
                extra=event("past_changed", provider=name, stream=str(key)),
            )
        right = await self._put_right(name, key, known, compared, seen)
        if right is None:
            return None
        changed, found, refined = [*right.changed], [*right.found], [*right.refined]
        given = self._given.get(stream, {})
        if given:
            candles = [given.get(one.time, one) if is_widened(one) else one for one in candles]
        if wide:
            # There may never be a better one.
            candles = [
                Candle(*one) if is_widened(one) and self._doubts.is_last(stream, one.time, asked_at) else one
                for one in candles
            ]
        # What the live stream put there while the answer was under way is newer.
        spans = await self._store.spans(name, key, *final)
        if not seen.is_same(name, key.symbol):
            return None
        writes: list[Span] = []
        good = [candle.time for candle in candles]
        for part in gaps_between(spans, *final):
            inside = [time for time in times if part.start <= time < part.end]
            if self._doubts.of(stream):
                found += [
                    one for one in _part(candles, good, part) if self._doubts.touch(stream, one.time, one.time + 1)
                ]
            bad = {*inside}.difference(good)
            if source.info.is_recorded and not bad:
                writes.append(part)
                continue
            market = source.market(key.symbol)
            writes += self._doubts.weigh(stream, part, inside, bad, asked_at, is_bare=not times, market=market)
        if given:
            settled = [candle for span in writes for candle in _part(candles, good, span)]
            for one in settled:
                if (before := given.pop(one.time, one)) != one:
                    changed.append(one)
                elif has_other_extras(before, one):
                    refined.append(one)
        adding = [self._store.add(name, key, _part(candles, good, span), span, seen=seen) for span in writes]
        # When the disk fails the store keeps them in memory and says so itself.
        for result in await asyncio.gather(*adding, return_exceptions=True):
            if isinstance(result, BaseException) and not isinstance(result, StoreError):
                raise result
        is_news = changed or found or refined or right.filled
        return News(name, key, changed, found, now, tuple(refined), right.filled) if is_news else None

    async def _put_right(
        self, name: str, key: StreamKey, known: KnownCandles, compared: Comparison, seen: PastSeen
    ) -> Comparison | None:
        """Put right what was known before the question; return what of that is new, None if the past is another one."""
        told = [
            one.time for some in (compared.changed, compared.found, compared.refined, compared.filled) for one in some
        ]
        if not told:
            return compared
        # Of two answers that show the same, the second one finds what the first has put right.
        async with self._putting_right:
            rows = await self._store.read(name, key, min(told), max(told) + 1, extended=True)
            stored = {row.time: row for row in rows}
            changed = [one for one in compared.changed if stored.get(one.time) == known.rows.get(one.time)]
            found = [one for one in compared.found if one.time not in stored]
            refined = [one for one in compared.refined if _is_refined(stored.get(one.time), known.rows[one.time], one)]
            filled = [one for one in compared.filled if stored.get(one.time) == one and is_bare(stored[one.time])]
            if not seen.is_same(name, key.symbol):
                return None
            for candle in (*changed, *found):
                self._store.put_closed(name, key, candle, None)
            self._store.put_extras(name, key, [*refined, *filled])
        return compared._replace(
            changed=tuple(changed), found=tuple(found), refined=tuple(refined), filled=tuple(filled)
        )

    def _is_first(self, stream: tuple[str, StreamKey], what: str) -> bool:
        """Say whether something is to be logged of a stream: it is once."""
        name, key = stream
        if (name, key, what) in self._logged:
            return False
        self._logged[name, key, what] = None
        if len(self._logged) > _MOST_STREAMS:
            del self._logged[next(iter(self._logged))]
        return True


def _is_refined(stored: Candle | None, known: Candle, candle: Candle) -> bool:
    """Say whether a candle still carries other extras than stored, and nobody changed it since it was known."""
    return stored is not None and repeats(stored, known) and stored == candle and has_other_extras(stored, candle)


def _part(candles: Sequence[Candle], times: Sequence[int], span: Span) -> Sequence[Candle]:
    """Return the candles of a span; `times` are the open times of all, ascending."""
    return candles[bisect_left(times, span.start) : bisect_left(times, span.end)]
