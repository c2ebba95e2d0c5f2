"""The single trades of a part of the market: when each was, at what price, how much, and who took; pure."""

import math
from bisect import bisect_left
from random import Random

from providers.sandbox.apportionment import balance, normal, running, settle, shares, tilted, trade_prices
from providers.sandbox.parts import Part, flat


class Tape:
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
        takers = taker_shares(part, volumes, dice)
        taker_quotes = capped(_worth(takers, prices, [0] * n, volumes, part.taker_quote), part.taker_quote, quotes)
        self.volumes = running(volumes)
        self.quotes = running(quotes)
        self.takers = running(takers)
        self.taker_quotes = running(taker_quotes)

    def between(self, a: int, b: int) -> Part:
        """Add up the trades from `a` until before `b`."""
        i, j = bisect_left(self.times, a), bisect_left(self.times, b)
        previous = self.prices[i - 1] if i else self.previous
        if i >= j:
            return flat(a, b, previous, self.first_id + i)
        prices = self.prices[i:j]
        return Part(
            a, b, prices[0], max(prices), min(prices), prices[-1],
            self.volumes[j] - self.volumes[i], self.quotes[j] - self.quotes[i],
            self.takers[j] - self.takers[i], self.taker_quotes[j] - self.taker_quotes[i],
            j - i, self.first_id + i, previous,
        )  # fmt: skip


def taker_shares(part: Part, volumes: list[int], dice: Random) -> list[int]:
    """Divide what takers bought among the parts, none getting more than its volume."""
    fraction = part.taker / part.volume
    takers = [min(v, max(0, round(v * (fraction + 0.35 * (dice.random() - 0.5))))) for v in volumes]
    left = part.taker - sum(takers)
    settle(takers, left, [v - t for v, t in zip(volumes, takers, strict=True)] if left > 0 else list(takers))
    return takers


def _worth(amounts: list[int], prices: list[int], least: list[int], most: list[int], whole: int) -> list[int]:
    """Shift amounts between trades until price times amount adds up to the whole; give each trade's worth."""
    left = balance(amounts, prices, least, most, whole - sum(a * p for a, p in zip(amounts, prices, strict=True)))
    worth = [a * p for a, p in zip(amounts, prices, strict=True)]
    worth[max(range(len(amounts)), key=amounts.__getitem__)] += left
    return worth


def capped(worth: list[int], whole: int, most: list[int]) -> list[int]:
    """Bring the takers' worth of each part to at most the part's own, exact in sum."""
    worth = [min(w, top) if w > 0 else 0 for w, top in zip(worth, most, strict=True)]
    left = whole - sum(worth)
    settle(worth, left, [top - w for w, top in zip(worth, most, strict=True)] if left > 0 else list(worth))
    return worth
