"""Splitting a part of the market into hours, minutes or seconds that make it up exactly; pure."""

import math
from collections.abc import Sequence
from random import Random

from providers.sandbox.apportionment import bridge_peak, normal, path_between, settle, shares, tilted
from providers.sandbox.listings import HOUR_MS
from providers.sandbox.parts import Part, flat
from providers.sandbox.tape import capped, taker_shares

LEVELS = ((24, HOUR_MS), (60, 60_000), (60, 1_000))
"""Into how many parts of what length a day, an hour and a minute are split."""
WICK_TRADES = 4
"""So many trades a part needs to reach its four prices."""
_VOLUME_SPREAD = (0.50, 0.70, 0.90)

# Share of a day's volume by hour of the day (UTC): quiet before Asia wakes, busiest while New York opens.
_CRYPTO_HOURS = (1.05, 0.98, 0.85, 0.75, 0.70, 0.68, 0.75, 0.88, 0.95, 0.92, 0.92, 1.00,
                 1.15, 1.55, 1.80, 1.60, 1.35, 1.15, 1.05, 1.00, 0.95, 0.90, 0.82, 0.85)  # fmt: skip
_FOREX_HOURS = (0.65, 0.70, 0.60, 0.50, 0.50, 0.65, 1.10, 1.60, 1.50, 1.30, 1.15, 1.15,
                1.55, 2.00, 2.10, 1.80, 1.20, 0.90, 0.75, 0.60, 0.45, 0.30, 0.35, 0.55)  # fmt: skip


def split(part: Part, level: int, session: str, hours: Sequence[bool], dice: Random) -> tuple[Part, ...]:
    """Split a part of one of `LEVELS` into those of the next; `hours` says of a day in which its market is open."""
    count, length = LEVELS[level]
    spread = _VOLUME_SPREAD[level]
    weights = [math.exp(spread * normal(dice)) for _ in range(count)]
    if level == 0:
        profile = _CRYPTO_HOURS if session == "always" else _FOREX_HOURS
        weights = [w * profile[i] if hours[i] else 0.0 for i, w in enumerate(weights)]
    active = [i for i, weight in enumerate(weights) if weight > 0]
    weights = [weights[i] for i in active]
    trades = shares(part.trades, [w**0.9 for w in weights], WICK_TRADES)
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
    takers = taker_shares(part, volumes, dice)
    taker_quotes = [q * t // v for q, t, v in zip(quotes, takers, volumes, strict=True)]
    _fit(taker_quotes, part.taker_quote, takers, lows, highs)
    taker_quotes = capped(taker_quotes, part.taker_quote, quotes)
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
            child = flat(start, start + length, previous, next_id)
        children.append(child)
        previous, next_id = child.close, next_id + child.trades
    return tuple(children)


def _fit(quotes: list[int], whole: int, volumes: list[int], lows: list[int], highs: list[int]) -> None:
    """Adjust the worth of parts to their exact sum, keeping each one's average price between its low and high."""
    left = whole - sum(quotes)
    bounds = highs if left > 0 else lows
    left = settle(quotes, left, [abs(b * v - q) for b, v, q in zip(bounds, volumes, quotes, strict=True)])
    quotes[max(range(len(volumes)), key=volumes.__getitem__)] += left
