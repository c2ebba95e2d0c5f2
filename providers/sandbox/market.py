"""The invented market: prices and volumes of every pair at any time as a pure function of the seed; no I/O, no clock.

A day is split into hours, minutes, seconds and at last trades, always so that the parts make up the whole exactly.
A part with few trades is resolved into its trades at once, so thin pairs have candles without any.
"""

import math
from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Iterable
from datetime import UTC, datetime
from hashlib import blake2b
from random import Random
from typing import NamedTuple

from providers.sandbox.apportion import (
    balance,
    bridge_peak,
    normal,
    path_between,
    running,
    settle,
    shares,
    tilted,
    trade_prices,
)
from providers.sandbox.intervals import end_time, open_time
from providers.sandbox.listings import DAY_MS, HOUR_MS, Pair, crypto_pairs, forex_pairs, open_hours, synthetic_pair

_EXPLICIT_TRADES = 600
_LEVELS = ((24, HOUR_MS), (60, 60_000), (60, 1_000))
_SECOND_LEVEL = 3
_WICK_TRADES = 4
_VOLUME_SPREAD = (0.50, 0.70, 0.90)
_CACHE_SPLITS = 1_500
_CACHE_TRADES = 2_500

# Share of a day's volume by hour of the day (UTC): quiet before Asia wakes, busiest while New York opens.
_CRYPTO_HOURS = (1.05, 0.98, 0.85, 0.75, 0.70, 0.68, 0.75, 0.88, 0.95, 0.92, 0.92, 1.00,
                 1.15, 1.55, 1.80, 1.60, 1.35, 1.15, 1.05, 1.00, 0.95, 0.90, 0.82, 0.85)  # fmt: skip
_FOREX_HOURS = (0.65, 0.70, 0.60, 0.50, 0.50, 0.65, 1.10, 1.60, 1.50, 1.30, 1.15, 1.15,
                1.55, 2.00, 2.10, 1.80, 1.20, 0.90, 0.75, 0.60, 0.45, 0.30, 0.35, 0.55)  # fmt: skip


class Part(NamedTuple):
    """A stretch of one pair's market, all numbers whole units; flat at the last price when `trades` is 0.

    `quote` and `taker_quote` count price units times volume units. `end` is the first millisecond after it.
    """

    start: int
    end: int
    open: int
    high: int
    low: int
    close: int
    volume: int
    quote: int
    taker: int
    taker_quote: int
    trades: int
    first_id: int
    previous: int

    @property
    def last_id(self) -> int:
        """Tell the id of the last trade; meaningless without trades."""
        return self.first_id + self.trades - 1


class UnknownSymbol(LookupError):
    """The market has no such symbol."""


class Market:
    """Answer what any pair did in any stretch of time since its listing; equal seeds give equal answers.

    Not thread-safe. `hide`, `add_symbols`, `delist` and `list_other` are the only things that change an answer.
    """

    def __init__(self, seed: int | str = 1, *, extra_symbols: int = 0, forex_always_open: bool = False) -> None:
        self.seed = seed
        self.forex_always_open = forex_always_open
        self.crypto: dict[str, Pair] = crypto_pairs(extra_symbols)
        self.forex: dict[str, Pair] = forex_pairs()
        self._days: dict[str, list[Part]] = {}
        self._moods: dict[str, float] = {}
        self._splits: OrderedDict[tuple[str, int, int], tuple[Part, ...]] = OrderedDict()
        self._tapes: OrderedDict[tuple[str, int, int], _Tape] = OrderedDict()
        self._hidden: dict[str, list[tuple[int, int]]] = {}

    def pair(self, symbol: str) -> Pair:
        """Find a pair by its symbol; raises `UnknownSymbol`."""
        found = self.crypto.get(symbol) or self.forex.get(symbol)
        if found is None:
            raise UnknownSymbol(symbol)
        return found

    def add_symbols(self, pairs: Iterable[Pair | str]) -> None:
        """List more pairs; a bare name gets invented properties. A name with a slash is a currency pair."""
        for item in pairs:
            pair = synthetic_pair(item) if isinstance(item, str) else item
            if "/" in pair.symbol:
                base, _, quote = pair.symbol.partition("/")
                pair = pair._replace(base=base, quote=quote, session="forex", group=pair.group or "Exotic",
                                     base_name=pair.base_name or base, quote_name=pair.quote_name or quote)  # fmt: skip
                self.forex[pair.symbol] = pair
            else:
                self.crypto[pair.symbol] = pair

    def delist(self, symbol: str) -> Pair:
        """Take a crypto pair away with all its past; return it. Raises `UnknownSymbol`."""
        pair = self.crypto.pop(symbol, None)
        if pair is None:
            raise UnknownSymbol(symbol)
        return pair

    def list_other(self, pair: Pair, price: float, since_ms: int) -> None:
        """List another coin under the symbol of a pair that was delisted; nothing is known of it before `since_ms`."""
        symbol, since = pair.symbol, datetime.fromtimestamp(since_ms / 1000, UTC).date()
        for kept in (self._splits, self._tapes):
            for key in [key for key in kept if key[0] == symbol]:
                del kept[key]
        self._days.pop(symbol, None)
        self._moods.pop(symbol, None)
        self._hidden[symbol] = [(0, since_ms)]
        self.crypto[symbol] = pair._replace(price=price, listed=since, delisted=None, status="TRADING")

    def hide(self, symbol: str, start_ms: int, end_ms: int) -> None:
        """Make a stretch of a pair's market never have happened, as in an outage of the exchange."""
        self.pair(symbol)
        self._hidden.setdefault(symbol, []).append((start_ms, end_ms))
        self._hidden[symbol].sort()

    def is_hidden(self, symbol: str, start_ms: int, end_ms: int) -> bool:
        """Tell whether the whole stretch lies in what was hidden."""
        return not self._visible(symbol, start_ms, end_ms)

    def before_hidden(self, symbol: str, at_ms: int) -> int:
        """Give the beginning of the hidden stretch that holds a moment, or else the moment itself."""
        for a, b in self._hidden.get(symbol, ()):
            if a <= at_ms < b:
                return a
        return at_ms

    def last_ms(self, symbol: str, start_ms: int, end_ms: int) -> int:
        """Give a candle's close time: its last millisecond, or the one before an outage that cut it short."""
        for a, b in self._hidden.get(symbol, ()):
            if start_ms < a < end_ms <= b:
                return a - 1
        return end_ms - 1

    def is_open(self, symbol: str, at_ms: int) -> bool:
        """Tell whether the pair's session is running at that moment."""
        pair = self.pair(symbol)
        return self._hours(pair, at_ms // DAY_MS)[at_ms % DAY_MS // HOUR_MS]

    def span(self, symbol: str, start_ms: int, end_ms: int) -> Part:
        """Add up what happened from `start_ms` until before `end_ms`; before the listing nothing did."""
        pair = self.pair(symbol)
        parts: list[Part] = []
        for visible_start, visible_end in self._visible(symbol, start_ms, end_ms):
            self._collect_days(parts, pair, visible_start, visible_end)
        if not parts:
            price = self._day(pair, start_ms // DAY_MS).previous
            return _flat(start_ms, end_ms, price, 0)
        return _merged(parts, start_ms, end_ms)

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
        for a, b in self._visible(symbol, start_ms, end_ms):
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
            return _flat(day * DAY_MS, (day + 1) * DAY_MS, first.previous, 0)
        days = self._days.setdefault(pair.symbol, [])
        while len(days) <= index:
            days.append(self._next_day(pair, days))
        return days[index]

    def _next_day(self, pair: Pair, days: list[Part]) -> Part:
        day = pair.listed_day + len(days)
        scale = 10**pair.price_decimals
        previous = days[-1].close if days else max(100, round(pair.price * scale))
        next_id = days[-1].first_id + days[-1].trades if days else 1
        start, end = day * DAY_MS, (day + 1) * DAY_MS
        hours = sum(self._hours(pair, day))
        gone = pair.delisted_day
        if hours == 0 or (gone is not None and day >= gone):
            return _flat(start, end, previous, next_id)
        dice = self._dice(pair.symbol, 0, start)
        mood = 0.92 * self._moods.get(pair.symbol, 0.0) + 0.25 * normal(dice)
        self._moods[pair.symbol] = mood
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
        trades = max(_WICK_TRADES, round(pair.trades_per_day * activity))
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

    def _visible(self, symbol: str, start: int, end: int) -> list[tuple[int, int]]:
        hidden = self._hidden.get(symbol)
        if not hidden:
            return [(start, end)]
        pieces = []
        for a, b in hidden:
            if b <= start or a >= end:
                continue
            if a > start:
                pieces.append((start, a))
            start = b
            if start >= end:
                break
        if start < end:
            pieces.append((start, end))
        return pieces

    def _collect_days(self, out: list[Part], pair: Pair, a: int, b: int) -> None:
        if b <= a:
            # An empty stretch still knows the price it starts from.
            price = self.price_before(pair, a)
            out.append(_flat(a, b, price, 0))
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
            length = _LEVELS[level][1]
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
        for child in self._children(pair, level, part):
            self._collect_ticks(out, pair, level + 1, child, a, b)

    # ---- splitting ----------------------------------------------------------------------------------------------

    def _dice(self, symbol: str, level: int, start: int) -> Random:
        digest = blake2b(f"{self.seed}|{symbol}|{level}|{start}".encode(), digest_size=8).digest()
        return Random(int.from_bytes(digest, "big"))

    def _children(self, pair: Pair, level: int, part: Part) -> tuple[Part, ...]:
        key = (pair.symbol, level, part.start)
        children = self._splits.get(key)
        if children is None:
            children = self._split(pair, level, part)
            self._splits[key] = children
            if len(self._splits) > _CACHE_SPLITS:
                self._splits.popitem(last=False)
        else:
            self._splits.move_to_end(key)
        return children

    def _tape(self, pair: Pair, level: int, part: Part) -> "_Tape":
        key = (pair.symbol, level, part.start)
        tape = self._tapes.get(key)
        if tape is None:
            tape = _Tape(part, self._dice(pair.symbol, level + 10, part.start))
            self._tapes[key] = tape
            if len(self._tapes) > _CACHE_TRADES:
                self._tapes.popitem(last=False)
        else:
            self._tapes.move_to_end(key)
        return tape

    def _split(self, pair: Pair, level: int, part: Part) -> tuple[Part, ...]:
        count, length = _LEVELS[level]
        dice = self._dice(pair.symbol, level + 1, part.start)
        spread = _VOLUME_SPREAD[level]
        weights = [math.exp(spread * normal(dice)) for _ in range(count)]
        if level == 0:
            profile = _CRYPTO_HOURS if pair.session == "always" else _FOREX_HOURS
            hours = self._hours(pair, part.start // DAY_MS)
            weights = [w * profile[i] if hours[i] else 0.0 for i, w in enumerate(weights)]
        active = [i for i, weight in enumerate(weights) if weight > 0]
        weights = [weights[i] for i in active]
        trades = shares(part.trades, [w**0.9 for w in weights], _WICK_TRADES)
        steps = [w**0.8 for w in weights]
        path, sigmas = path_between(
            part.open, part.close, part.high, part.low, steps, weights, part.quote / part.volume, dice
        )
        highs, lows = [], []
        for i, sigma in enumerate(sigmas):
            a, b = path[i], path[i + 1]
            highs.append(min(part.high, max(a, b, round(bridge_peak(a, b, sigma, dice)))))
            lows.append(max(part.low, min(a, b, round(-bridge_peak(-a, -b, sigma, dice)))))
        highs[max(range(len(active)), key=highs.__getitem__)] = part.high
        lows[min(range(len(active)), key=lows.__getitem__)] = part.low
        middles = [(path[i] + path[i + 1] + highs[i] + lows[i]) / 4 for i in range(len(active))]
        volumes = shares(part.volume, tilted(weights, middles, part.quote / part.volume), 1, trades)
        quotes = [round(m * v) for m, v in zip(middles, volumes, strict=True)]
        _fit(quotes, part.quote, volumes, lows, highs)
        takers = _takers(part, volumes, dice)
        taker_quotes = [q * t // v for q, t, v in zip(quotes, takers, volumes, strict=True)]
        _fit(taker_quotes, part.taker_quote, takers, lows, highs)
        taker_quotes = _capped(taker_quotes, part.taker_quote, quotes)
        children: list[Part] = []
        previous, next_id, at = part.previous, part.first_id, 0
        for i in range(count):
            start = part.start + i * length
            if at < len(active) and active[at] == i:
                child = Part(
                    start, start + length, path[at], highs[at], lows[at], path[at + 1], volumes[at], quotes[at],
                    takers[at], taker_quotes[at], trades[at], next_id, previous,
                )  # fmt: skip
                at += 1
            else:
                child = _flat(start, start + length, previous, next_id)
            children.append(child)
            previous, next_id = child.close, next_id + child.trades
        return tuple(children)


class _Tape:
    """The single trades of a part, with running sums, so any stretch of it is added up quickly."""

    __slots__ = ("first_id", "previous", "prices", "quotes", "taker_quotes", "takers", "times", "volumes")

    def __init__(self, part: Part, dice: Random) -> None:
        n = part.trades
        length = part.end - part.start
        self.first_id, self.previous = part.first_id, part.previous
        self.times = sorted(part.start + int(dice.random() * length) for _ in range(n))
        weights = [math.exp(1.1 * normal(dice)) for _ in range(n)]
        mean = part.quote / part.volume
        prices = trade_prices(part.open, part.close, part.high, part.low, weights, mean, dice)
        self.prices = prices
        volumes = shares(part.volume, tilted(weights, prices, mean), 1)
        quotes = _worth(volumes, prices, [1] * n, [part.volume] * n, part.quote)
        takers = _takers(part, volumes, dice)
        taker_quotes = _capped(_worth(takers, prices, [0] * n, volumes, part.taker_quote), part.taker_quote, quotes)
        self.volumes = running(volumes)
        self.quotes = running(quotes)
        self.takers = running(takers)
        self.taker_quotes = running(taker_quotes)

    def between(self, a: int, b: int) -> Part:
        i, j = bisect_left(self.times, a), bisect_left(self.times, b)
        previous = self.prices[i - 1] if i else self.previous
        if i >= j:
            return _flat(a, b, previous, self.first_id + i)
        prices = self.prices[i:j]
        return Part(
            a, b, prices[0], max(prices), min(prices), prices[-1],
            self.volumes[j] - self.volumes[i], self.quotes[j] - self.quotes[i],
            self.takers[j] - self.takers[i], self.taker_quotes[j] - self.taker_quotes[i],
            j - i, self.first_id + i, previous,
        )  # fmt: skip


def _flat(start: int, end: int, price: int, next_id: int) -> Part:
    return Part(start, end, price, price, price, price, 0, 0, 0, 0, 0, next_id, price)


def _merged(parts: list[Part], start: int, end: int) -> Part:
    if len(parts) == 1:
        part = parts[0]
        return part if part.start == start and part.end == end else part._replace(start=start, end=end)
    traded = [part for part in parts if part.trades]
    if not traded:
        return parts[0]._replace(start=start, end=end)
    return Part(
        start, end, traded[0].open, max(p.high for p in traded), min(p.low for p in traded), traded[-1].close,
        sum(p.volume for p in traded), sum(p.quote for p in traded), sum(p.taker for p in traded),
        sum(p.taker_quote for p in traded), sum(p.trades for p in traded), traded[0].first_id, parts[0].previous,
    )  # fmt: skip


def _takers(part: Part, volumes: list[int], dice: Random) -> list[int]:
    """Divide what takers bought among the parts, none getting more than its volume."""
    fraction = part.taker / part.volume
    takers = [min(v, max(0, round(v * (fraction + 0.35 * (dice.random() - 0.5))))) for v in volumes]
    left = part.taker - sum(takers)
    settle(takers, left, [v - t for v, t in zip(volumes, takers, strict=True)] if left > 0 else list(takers))
    return takers


def _fit(quotes: list[int], whole: int, volumes: list[int], lows: list[int], highs: list[int]) -> None:
    """Adjust the worth of parts to their exact sum, keeping each one's average price between its low and high."""
    left = whole - sum(quotes)
    bounds = highs if left > 0 else lows
    left = settle(quotes, left, [abs(b * v - q) for b, v, q in zip(bounds, volumes, quotes, strict=True)])
    quotes[max(range(len(volumes)), key=volumes.__getitem__)] += left


def _worth(amounts: list[int], prices: list[int], least: list[int], most: list[int], whole: int) -> list[int]:
    """Shift amounts between trades until price times amount adds up to the whole; give each trade's worth."""
    left = balance(amounts, prices, least, most, whole - sum(a * p for a, p in zip(amounts, prices, strict=True)))
    worth = [a * p for a, p in zip(amounts, prices, strict=True)]
    worth[max(range(len(amounts)), key=amounts.__getitem__)] += left
    return worth


def _capped(worth: list[int], whole: int, most: list[int]) -> list[int]:
    """Bring the takers' worth of each part to at most the part's own, exact in sum."""
    worth = [min(w, top) if w > 0 else 0 for w, top in zip(worth, most, strict=True)]
    left = whole - sum(worth)
    settle(worth, left, [top - w for w, top in zip(worth, most, strict=True)] if left > 0 else list(worth))
    return worth
