"""The invented market: prices and volumes of every pair at any time as a pure function of the seed; no I/O, no clock.

A day is split into hours, minutes, seconds and at last trades, always so that the parts make up the whole exactly.
A part with few trades is resolved into its trades at once, so thin pairs have candles without any.
"""

import math
from bisect import bisect_left
from collections import OrderedDict
from hashlib import blake2b
from random import Random
from typing import TypeAlias

from providers.sandbox.apportionment import bridge_peak, normal
from providers.sandbox.intervals import end_time, open_time
from providers.sandbox.listings import DAY_MS, HOUR_MS, Pair, crypto_pairs, forex_pairs, open_hours
from providers.sandbox.parts import Part, flat, merged
from providers.sandbox.splits import LEVELS, WICK_TRADES, split
from providers.sandbox.tape import Tape

_EXPLICIT_TRADES = 600
_SECOND_LEVEL = 3
_CACHE_SPLITS = 1_500
_CACHE_TRADES = 2_500


Splits: TypeAlias = OrderedDict[tuple[str, int, Part], tuple[Part, ...]]
Tapes: TypeAlias = OrderedDict[tuple[str, int, Part], Tape]


class UnknownSymbol(LookupError):
    """The market has no such symbol."""


class Walk:
    """The days of a pair from its listing on, as far as they were needed, and its mood after the last one."""

    def __init__(self) -> None:
        self.days: list[Part] = []
        self.mood = 0.0


class Market:
    """Answer what any pair did in any stretch of time since its listing; equal seeds give equal answers.

    Not thread-safe.
    """

    def __init__(self, seed: int | str = 1, *, extra_symbols: int = 0, forex_always_open: bool = False) -> None:
        self.seed = seed
        self.forex_always_open = forex_always_open
        self.crypto: dict[str, Pair] = crypto_pairs(extra_symbols)
        self.forex: dict[str, Pair] = forex_pairs()
        self._walks: dict[str, Walk] = {}
        self._splits: Splits = OrderedDict()
        self._tapes: Tapes = OrderedDict()

    def pair(self, symbol: str) -> Pair:
        """Find a pair by its symbol; raises `UnknownSymbol`."""
        found = self.crypto.get(symbol) or self.forex.get(symbol)
        if found is None:
            raise UnknownSymbol(symbol)
        return found

    def exists(self, symbol: str, start_ms: int, end_ms: int) -> bool:
        """Tell whether there is a market in any part of the stretch."""
        return bool(self.spans(symbol, start_ms, end_ms))

    def last_ms(self, symbol: str, start_ms: int, end_ms: int) -> int:
        """Give a candle's close time: the last millisecond in which there is a market."""
        spans = self.spans(symbol, start_ms, end_ms)
        return (spans[-1][1] if spans else end_ms) - 1

    def spans(self, symbol: str, start_ms: int, end_ms: int) -> list[tuple[int, int]]:
        """Give the parts of a stretch in which there is a market: all of it, unless a subclass knows of outages."""
        return [(start_ms, end_ms)]

    def is_open(self, symbol: str, at_ms: int) -> bool:
        """Tell whether the pair's session is running at that moment."""
        pair = self.pair(symbol)
        return self._hours(pair, at_ms // DAY_MS)[at_ms % DAY_MS // HOUR_MS]

    def span(self, symbol: str, start_ms: int, end_ms: int) -> Part:
        """Add up what happened from `start_ms` until before `end_ms`; before the listing nothing did."""
        pair = self.pair(symbol)
        parts: list[Part] = []
        for visible_start, visible_end in self.spans(symbol, start_ms, end_ms):
            self._collect_days(parts, pair, visible_start, visible_end)
        if not parts:
            price = self._day(pair, start_ms // DAY_MS).previous
            return flat(start_ms, end_ms, price, 0)
        return merged(parts, start_ms, end_ms)

    def candle(self, symbol: str, interval: str, at_ms: int, until_ms: int | None = None, shift_ms: int = 0) -> Part:
        """Give the candle that holds `at_ms`; with `until_ms` only what had happened before that moment.

        `end` is the end of the whole candle either way.
        """
        start = open_time(interval, at_ms, self.pair(symbol).listed_day, shift_ms)
        end = end_time(interval, start, shift_ms)
        if until_ms is None or until_ms >= end:
            return self.span(symbol, start, end)
        return self.span(symbol, start, max(start, until_ms))._replace(end=end)

    def price_at(self, symbol: str, at_ms: int) -> int:
        """Give the last price before a moment, in the pair's units."""
        return self.span(symbol, at_ms - at_ms % 1000, at_ms + 1).close

    def ticks(self, symbol: str, start_ms: int, end_ms: int) -> list[tuple[int, int]]:
        """List every trade of a stretch as (time in ms, price in units), oldest first; keep the stretch short."""
        pair = self.pair(symbol)
        found: list[tuple[int, int]] = []
        for a, b in self.spans(symbol, start_ms, end_ms):
            for day in range(a // DAY_MS, (b - 1) // DAY_MS + 1):
                self._collect_ticks(found, pair, 0, self._day(pair, day), a, b)
        return found

    # ---- days: walked forward once from the listing -------------------------------------------------------------

    def _hours(self, pair: Pair, day: int) -> tuple[bool, ...]:
        return open_hours("always" if self.forex_always_open else pair.session, day)

    def _day(self, pair: Pair, day: int) -> Part:
        index = day - pair.listed_day
        if index < 0:
            first = self._day(pair, pair.listed_day)
            return flat(day * DAY_MS, (day + 1) * DAY_MS, first.previous, 0)
        walk = self._walks.get(pair.symbol)
        if walk is None:
            walk = self._walks[pair.symbol] = self.walk(pair)
        while len(walk.days) <= index:
            walk.days.append(self._next_day(pair, walk))
        return walk.days[index]

    def walk(self, pair: Pair) -> Walk:
        """Begin with the days of a pair."""
        return Walk()

    def _next_day(self, pair: Pair, walk: Walk) -> Part:
        days = walk.days
        day = pair.listed_day + len(days)
        scale = 10**pair.price_decimals
        previous = days[-1].close if days else max(100, round(pair.price * scale))
        next_id = days[-1].first_id + days[-1].trades if days else 1
        start, end = day * DAY_MS, (day + 1) * DAY_MS
        hours = sum(self._hours(pair, day))
        gone = pair.delisted_day
        if hours == 0 or (gone is not None and day >= gone):
            return flat(start, end, previous, next_id)
        dice = self._dice(pair.symbol, 0, start)
        mood = walk.mood = 0.92 * walk.mood + 0.25 * normal(dice)
        share = hours / 24
        sigma = pair.daily_sigma * math.exp(0.55 * mood - 0.12) * math.sqrt(share)
        # A pull towards the pair's usual price keeps decades of prices plausible.
        pull = 0.004 * math.log(pair.price * scale / previous)
        step = pull + sigma * max(-4.0, min(4.0, normal(dice)))
        close = max(50, round(previous * math.exp(step)))
        top = bridge_peak(0.0, step, sigma, dice)
        bottom = -bridge_peak(0.0, -step, sigma, dice)
        high = max(previous, close, round(previous * math.exp(top)))
        low = max(25, min(previous, close, round(previous * math.exp(bottom))))
        is_quiet = pair.session == "always" and (day + 3) % 7 >= 5
        weekend_factor = 0.62 if is_quiet else 1.0
        activity = share * weekend_factor * math.exp(0.75 * mood + 0.25 * normal(dice) - 0.2)
        trades = max(WICK_TRADES, round(pair.trades_per_day * activity))
        step_units = 10**pair.volume_decimals
        volume = max(trades, round(pair.daily_volume * step_units * activity * math.exp(0.15 * normal(dice))))
        mean = (previous + high + low + close) / 4
        quote = round(mean * volume)
        taker_share = 0.5 + 0.04 * max(-4.0, min(4.0, normal(dice)))
        taker = round(volume * taker_share)
        taker_quote = quote * taker // volume
        return Part(
            start, end, previous, high, low, close, volume, quote, taker, taker_quote, trades, next_id, previous
        )

    # ---- collecting ---------------------------------------------------------------------------------------------

    def _collect_days(self, out: list[Part], pair: Pair, a: int, b: int) -> None:
        if b <= a:
            # An empty stretch still knows the price it starts from.
            price = self.price_before(pair, a)
            out.append(flat(a, b, price, 0))
            return
        for day in range(max(a // DAY_MS, pair.listed_day), (b - 1) // DAY_MS + 1):
            self._collect(out, pair, 0, self._day(pair, day), a, b)

    def price_before(self, pair: Pair, at_ms: int) -> int:
        """Give the last price strictly before a moment, in the pair's units."""
        parts: list[Part] = []
        self._collect(parts, pair, 0, self._day(pair, (at_ms - 1) // DAY_MS), at_ms - 1, at_ms)
        return parts[-1].close

    def _collect(self, out: list[Part], pair: Pair, level: int, part: Part, a: int, b: int) -> None:
        if part.trades == 0 or (a <= part.start and b >= part.end):
            out.append(part)
        elif part.trades <= _EXPLICIT_TRADES or level == _SECOND_LEVEL:
            out.append(self._tape(pair, level, part).between(max(a, part.start), min(b, part.end)))
        else:
            children = self._children(pair, level, part)
            length = LEVELS[level][1]
            first = max(0, (a - part.start) // length)
            last = min(len(children) - 1, (b - 1 - part.start) // length)
            child = children[first]
            if a > child.start:
                self._collect(out, pair, level + 1, child, a, b)
                first += 1
            if first <= last:
                child = children[last]
                if b < child.end:
                    out.extend(children[first:last])
                    self._collect(out, pair, level + 1, child, a, b)
                else:
                    out.extend(children[first : last + 1])

    def _collect_ticks(self, out: list[tuple[int, int]], pair: Pair, level: int, part: Part, a: int, b: int) -> None:
        if part.trades == 0 or part.end <= a or part.start >= b:
            return
        if part.trades <= _EXPLICIT_TRADES or level == _SECOND_LEVEL:
            tape = self._tape(pair, level, part)
            i, j = bisect_left(tape.times, a), bisect_left(tape.times, b)
            out.extend(zip(tape.times[i:j], tape.prices[i:j], strict=True))
            return
        children, length = self._children(pair, level, part), LEVELS[level][1]
        for child in children[max(0, (a - part.start) // length) : (b - 1 - part.start) // length + 1]:
            self._collect_ticks(out, pair, level + 1, child, a, b)

    # ---- splitting ----------------------------------------------------------------------------------------------

    def _dice(self, symbol: str, level: int, start: int) -> Random:
        digest = blake2b(f"{self.seed}|{symbol}|{level}|{start}".encode(), digest_size=8).digest()
        return Random(int.from_bytes(digest, "big"))

    def _children(self, pair: Pair, level: int, part: Part) -> tuple[Part, ...]:
        key = (pair.symbol, level, part)
        children = self._splits.get(key)
        if children is None:
            dice = self._dice(pair.symbol, level + 1, part.start)
            children = split(part, level, pair.session, self._hours(pair, part.start // DAY_MS), dice)
            self._splits[key] = children
            if len(self._splits) > _CACHE_SPLITS:
                self._splits.popitem(last=False)
        else:
            self._splits.move_to_end(key)
        return children

    def _tape(self, pair: Pair, level: int, part: Part) -> Tape:
        key = (pair.symbol, level, part)
        tape = self._tapes.get(key)
        if tape is None:
            tape = Tape(part, self._dice(pair.symbol, level + 10, part.start))
            self._tapes[key] = tape
            if len(self._tapes) > _CACHE_TRADES:
                self._tapes.popitem(last=False)
        else:
            self._tapes.move_to_end(key)
        return tape
