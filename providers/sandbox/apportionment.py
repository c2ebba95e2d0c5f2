"""Dividing a whole into parts that make it up exactly: counts, volumes, money and a path between prices; pure."""

import math
from collections.abc import Sequence
from itertools import pairwise
from random import Random

_ROOT_3 = math.sqrt(3.0)


def normal(dice: Random) -> float:
    """Draw from a bell curve of spread 1, cut off at 3.5."""
    # Only random() is promised to give the same numbers in every Python version.
    return (dice.random() + dice.random() + dice.random() + dice.random() - 2.0) * _ROOT_3


def bridge_peak(a: float, b: float, sigma: float, dice: Random) -> float:
    """Draw the highest point of a Brownian bridge from a to b."""
    drop = -2.0 * sigma * sigma * math.log(1.0 - dice.random())
    return (a + b + math.sqrt((a - b) * (a - b) + drop)) / 2


def running(values: list[int]) -> list[int]:
    """Give the running sums, beginning with 0."""
    total, sums = 0, [0]
    for value in values:
        total += value
        sums.append(total)
    return sums


def shares(total: int, weights: list[float], least: int, floors: list[int] | None = None) -> list[int]:
    """Divide a whole number by weights, exactly, leaving everyone at least `least` (or its own floor)."""
    lowest = floors or [least] * len(weights)
    rest = total - sum(lowest)
    whole = sum(weights)
    shares, before, running = [], 0, 0.0
    for weight, floor in zip(weights, lowest, strict=True):
        running += weight
        upto = round(rest * (running / whole))
        shares.append(floor + upto - before)
        before = upto
    shares[-1] += rest - before
    return shares


def path_between(
    start: int, end: int, high: int, low: int, steps: list[float], weights: Sequence[float], mean: float, dice: Random
) -> tuple[list[int], list[float]]:
    """Walk from one price to another within high and low; also give each step's own spread.

    The walk bulges so that its weighted mean comes near to `mean`.
    """
    height = high - low
    whole = sum(steps)
    sigma = height / 1.665  # the mean square of a random walk's range is 4 ln 2 times its variance
    sigmas = [sigma * math.sqrt(step / whole) for step in steps]
    walk, at = [0.0], 0.0
    for spread in sigmas:
        at += spread * normal(dice)
        walk.append(at)
    done, level = 0.0, start
    points = [float(level)]
    for i, step in enumerate(steps):
        done += step / whole
        points.append(walk[i + 1] - at * done + start + (end - start) * done)
    reach = max(points) - min(points)
    if reach > 0.92 * height > 0:
        shrink = 0.92 * height / reach
        points = [p * shrink + (start + (end - start) * i / len(steps)) * (1 - shrink) for i, p in enumerate(points)]
    bulges = [math.sin(math.pi * i / len(steps)) for i in range(len(points))]
    middle = sum(w * (p + q) for w, p, q in zip(weights, points, points[1:], strict=False)) / 2 / sum(weights)
    share = sum(w * (p + q) for w, p, q in zip(weights, bulges, bulges[1:], strict=False)) / 2 / sum(weights)
    if share > 0:
        bulge = max(-0.6 * height, min(0.6 * height, (mean - middle) / share))
        points = [p + bulge * b for p, b in zip(points, bulges, strict=True)]
    path = []
    for point in points:
        if point > high:
            point = max(low, 2 * high - point)
        elif point < low:
            point = min(high, 2 * low - point)
        path.append(round(point))
    path[0], path[-1] = start, end
    return path, sigmas


def trade_prices(
    first: int, last: int, high: int, low: int, weights: list[float], mean: float, dice: Random
) -> list[int]:
    """Give a price to each weight's trade, so that they have this first, last, highest and lowest one."""
    count = len(weights)
    if count == 1:
        return [first]
    path, _ = path_between(first, last, high, low, [1.0] * (count - 1), weights[1:], mean, dice)
    inner = range(1, count - 1)
    top = -1
    if high > max(first, last):
        top = max(inner, key=path.__getitem__)
        path[top] = high
    if low < min(first, last):
        path[min((i for i in inner if i != top), key=path.__getitem__)] = low
    return path


def tilted(weights: list[float], prices: Sequence[float], wanted: float) -> list[float]:
    """Lean weights towards dear or cheap parts until their average price is the wanted one, as far as it can be."""
    whole = sum(weights)
    mean = sum(w * p for w, p in zip(weights, prices, strict=True)) / whole
    spread = math.sqrt(sum(w * (p - mean) ** 2 for w, p in zip(weights, prices, strict=True)) / whole)
    if spread <= 0:
        return weights
    places = [(p - mean) / spread for p in prices]
    target = max(0.9 * min(places), min(0.9 * max(places), (wanted - mean) / spread))
    lean, leaned = 0.0, weights
    for _ in range(8):
        middle = first = second = 0.0
        for weight, place in zip(leaned, places, strict=True):
            middle += weight
            first += weight * place
            second += weight * place * place
        first /= middle
        variance = second / middle - first * first
        if abs(first - target) < 1e-4 or variance < 1e-9:
            break
        lean = max(-6.0, min(6.0, lean + max(-1.0, min(1.0, (target - first) / variance))))
        leaned = [w * math.exp(max(-8.0, min(8.0, lean * z))) for w, z in zip(weights, places, strict=True)]
    return leaned


def settle(values: list[int], left: int, room: list[int]) -> int:
    """Spread what is left over in proportion to the room each value has, never past it; tells what found none."""
    total = sum(room)
    sign = 1 if left > 0 else -1
    rest = min(abs(left), total)
    if rest == 0:
        return left
    given = [rest * space // total for space in room]
    short = rest - sum(given)
    for i, space in enumerate(room):
        more = min(short, space - given[i])
        values[i] += sign * (given[i] + more)
        short -= more
    return left - sign * rest


def balance(amounts: list[int], prices: Sequence[int], least: Sequence[int], most: Sequence[int], left: int) -> int:
    """Move single units between amounts until they are worth `left` more together; tells what could not be reached.

    The sum of the amounts stays; each remains within its own bounds.
    """
    sign = 1 if left > 0 else -1
    need = abs(left)
    order = sorted(range(len(amounts)), key=lambda i: sign * prices[i])
    low, high = 0, len(order) - 1
    while need and low < high:
        giver, taker = order[low], order[high]
        gain = sign * (prices[taker] - prices[giver])
        if gain == 0:
            break
        spare, space = amounts[giver] - least[giver], most[taker] - amounts[taker]
        units = min(need // gain, spare, space)
        amounts[giver] -= units
        amounts[taker] += units
        need -= units * gain
        if units == spare:
            low += 1
        elif units == space or gain > need:
            high -= 1
    if need:
        need = _move_exactly(amounts, prices, least, most, need, sign)
    return sign * need


def _move_exactly(
    amounts: list[int], prices: Sequence[int], least: Sequence[int], most: Sequence[int], need: int, sign: int
) -> int:
    """Finish with the small differences between neighbouring prices, larger ones first."""
    order = sorted(range(len(amounts)), key=lambda i: sign * prices[i])
    gaps = [(sign * (prices[b] - prices[a]), a, b) for a, b in pairwise(order)]
    gaps.sort(reverse=True)
    for gain, giver, taker in gaps:
        if 0 < gain <= need:
            units = min(need // gain, amounts[giver] - least[giver], most[taker] - amounts[taker])
            amounts[giver] -= units
            amounts[taker] += units
            need -= units * gain
    return need
