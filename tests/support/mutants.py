"""Faulty providers: each is the good one of `tests/plugins/walk.py` with one small change."""

from pathlib import Path
from types import ModuleType
from typing import NamedTuple

from relay.testing import FaultName

SOURCE = Path(__file__).parents[1] / "plugins" / "walk.py"


class Mutant(NamedTuple):
    """What is changed, `old` to `new`, and the fault by which the check has to blame it."""

    name: str
    fault: FaultName
    old: str
    new: str


def plugin_of(mutant: Mutant | None) -> ModuleType:
    """Make the module of a mutant, of the good provider without one."""
    source = SOURCE.read_text(encoding="utf-8")
    if mutant is not None:
        assert source.count(mutant.old) == 1, mutant
        source = source.replace(mutant.old, mutant.new)
    module = ModuleType("walk")
    exec(compile(source, str(SOURCE), "exec"), vars(module))
    return module


_CANDLE = "    return Candle(opened // 1000, first, high, low, last, volume)"
_OPENED = "    opened, first, high, low, last, volume = row[:6]\n"
_YIELD = '            yield PriceUpdate(key, candle, message["final"], message["sent_ms"])'
_LIVE = '            candle = candle_of(message["row"], key.interval)\n'
_FEED = '    return websocket_feed(session, WalkCodec(settings["ws_url"]), watchlist)'
_PAGES = "        found = page + found if start is None else found + page\n"
_SIZE = "        size = min(PAGE, limit - len(found))"
_ROWS = "    return [candle_of(row, interval) for row in answer.body]"
_SPAN = '        span = {"to": end, "count": size} if start is None else {"from": start, "to": end, "count": size}'
_END = "    return found\n"
_STATUS = '    if answer.status != 200:\n        raise answer.error("")\n'

_TWICE = """
            if message["final"]:
                yield PriceUpdate(key, candle._replace(volume=candle.volume + 1), True, message["sent_ms"])"""
_AGAIN_OPEN = """
            if message["final"]:
                yield PriceUpdate(key, candle, False, message["sent_ms"])"""
_OLDER = """
            if key.interval == "1m" and not message["final"]:
                yield PriceUpdate(key, candle._replace(time=candle.time - 60))"""
_HELD = """            held, self.held = getattr(self, "held", None), None
            update = PriceUpdate(key, candle, message["final"], message["sent_ms"])
            if update.is_closed:
                self.held = update
            else:
                yield update
            if held is not None:
                yield held"""
_ONCE = """        first, self.asked = not hasattr(self, "asked"), True
        return [request("subscribe", keys)] if first else []"""
_WRAPPED = """    return wrapped(session, settings, watchlist)


async def wrapped(session, settings, watchlist):
    import asyncio

    while True:
        try:
            async for update in websocket_feed(session, WalkCodec(settings["ws_url"]), watchlist):
                yield update
        except %s"""
_BUDGETS = """@hookimpl
def relay_budgets():
    from relay import Budget

    return [Budget("calls", 10, -1, 2**31)]


@hookimpl
def relay_hours"""
_RETRYING = """    for left in range(4, -1, -1):
        try:
            answer = await ask_rest(session, Hosts(settings["rest_url"]), "/candles", params=params)
            break
        except Exception:
            if not left:
                raise
"""

MUTANTS = (
    # -- values ----------------------------------------------------------------------------------------
    Mutant(
        "open and close swapped live",
        FaultName.LIVE_PRICES_DIFFER,
        _LIVE,
        _LIVE + "            candle = candle._replace(open=candle.close, close=candle.open)\n",
    ),
    Mutant("high and low swapped", FaultName.UNSOUND_CANDLE, _CANDLE, _CANDLE.replace("high, low", "low, high")),
    Mutant(
        "turnover for volume live",
        FaultName.LIVE_VOLUME_DIFFERS,
        _LIVE,
        _LIVE + '            candle = candle._replace(volume=message["row"][6])\n',
    ),
    Mutant("turnover for volume everywhere", FaultName.WRONG_VALUES, _CANDLE, _CANDLE.replace("volume)", "row[6])")),
    Mutant(
        "turnover for volume in one interval",
        FaultName.INTERVALS_DISAGREE,
        _OPENED,
        _OPENED + '    volume = row[6] if interval == "1h" else volume\n',
    ),
    Mutant(
        "volume of the day",
        FaultName.LIVE_VOLUME_DIFFERS,
        _LIVE,
        _LIVE + '            candle = candle._replace(volume=message["day_volume"])\n',
    ),
    Mutant(
        "prices a hundred times too high live",
        FaultName.LIVE_PRICES_DIFFER,
        _LIVE,
        _LIVE + "            candle = Candle(candle[0], *(100 * price for price in candle[1:5]), candle.volume)\n",
    ),
    Mutant(
        "prices a hundred times too high everywhere",
        FaultName.WRONG_VALUES,
        _CANDLE,
        "    return Candle(opened // 1000, 100 * first, 100 * high, 100 * low, 100 * last, volume)",
    ),
    Mutant(
        "prices rounded live",
        FaultName.LIVE_PRICES_DIFFER,
        _LIVE,
        _LIVE + "            candle = Candle(candle[0], *map(float, map(round, candle[1:5])), candle.volume)\n",
    ),
    Mutant(
        "history of another instrument",
        FaultName.LIVE_PRICES_DIFFER,
        'params = {"symbol": symbol,',
        'params = {"symbol": {"AAA-BBB": "CCC-BBB"}.get(symbol, symbol),',
    ),
    Mutant(
        "updates under another symbol",
        FaultName.UNWANTED_STREAM,
        'key = StreamKey(message["symbol"],',
        'key = StreamKey("CCC-BBB",',
    ),
    # -- times -----------------------------------------------------------------------------------------
    Mutant("time in milliseconds", FaultName.TIME_UNIT, _CANDLE, _CANDLE.replace("opened // 1000", "opened")),
    Mutant(
        "time of the close",
        FaultName.OPENS_IN_FUTURE,
        _CANDLE,
        "    steps = {'1m': 60, '5m': 300, '1h': 3600}\n"
        + _CANDLE.replace("opened // 1000", "opened // 1000 + steps.get(interval, 86_400)"),
    ),
    Mutant(
        "daily candles in local time",
        FaultName.INTERVALS_DISAGREE,
        _CANDLE,
        "    shift = 5 * 3600 if interval == '1d' else 0\n"
        + _CANDLE.replace("opened // 1000", "opened // 1000 - shift"),
    ),
    Mutant(
        "weeks from Sunday",
        FaultName.INTERVALS_DISAGREE,
        _CANDLE,
        "    shift = 86_400 if interval == '1w' else 0\n" + _CANDLE.replace("opened // 1000", "opened // 1000 - shift"),
    ),
    Mutant(
        "months of thirty days",
        FaultName.WRONG_OPEN_TIME,
        _CANDLE,
        "    month = 30 * 86_400 * 1000\n    opened = opened // month * month if interval == '1M' else opened\n"
        + _CANDLE,
    ),
    Mutant(
        "times off the grid",
        FaultName.WRONG_OPEN_TIME,
        _CANDLE,
        _CANDLE.replace("opened // 1000", "opened // 1000 + 7"),
    ),
    Mutant(
        "stamps in seconds",
        FaultName.STAMP_UNIT,
        _YIELD,
        _YIELD.replace('message["sent_ms"]', 'message["sent_ms"] // 1000'),
    ),
    Mutant(
        "stamps in local time",
        FaultName.STAMP_OFF,
        _YIELD,
        _YIELD.replace('message["sent_ms"]', 'message["sent_ms"] + 7_200_000'),
    ),
    # -- closing ---------------------------------------------------------------------------------------
    Mutant("always closed", FaultName.CLOSES_EARLY, _YIELD, _YIELD.replace('message["final"]', "True")),
    Mutant(
        "closed four seconds early",
        FaultName.CLOSES_EARLY,
        _YIELD,
        _YIELD.replace('message["final"]', 'message["final"] or message["sent_ms"] // 1000 % 60 >= 56'),
    ),
    Mutant("never closed", FaultName.NEVER_CLOSES, _YIELD, _YIELD.replace('message["final"]', "False")),
    Mutant(
        "final messages swallowed",
        FaultName.NEVER_CLOSES,
        _YIELD,
        '            if message["final"]:\n                return\n' + _YIELD,
    ),
    Mutant(
        "closed twice with other values",
        FaultName.CLOSES_TWICE,
        _YIELD,
        _YIELD + _TWICE,
    ),
    Mutant(
        "past reported as changed with each candle",
        FaultName.CHANGES_PAST,
        _YIELD,
        "            import relay\n\n            yield relay.PastChange(key, candle.time)\n" + _YIELD,
    ),
    Mutant(
        "open again after the close",
        FaultName.REOPENS,
        _YIELD,
        _YIELD + _AGAIN_OPEN,
    ),
    Mutant(
        "closed after the next candle",
        FaultName.CLOSES_LATE,
        _YIELD,
        _HELD,
    ),
    Mutant(
        "final values left out of the close",
        FaultName.LIVE_VOLUME_DIFFERS,
        _YIELD,
        '            if message["final"]:\n                candle = candle._replace(volume=candle.volume / 2)\n'
        + _YIELD,
    ),
    Mutant(
        "candle by candle, one left out",
        FaultName.MISSES_CANDLES,
        _YIELD,
        '            if candle.time // 60 % 2 and key.interval == "1m":\n                return\n' + _YIELD,
    ),
    # -- intervals and streams -------------------------------------------------------------------------
    Mutant("1d is the venue's 1h", FaultName.WRONG_INTERVAL, '"1h": "1h", "1d": "1d"', '"1d": "1h"'),
    Mutant(
        "1h is the venue's 5m in history",
        FaultName.WRONG_INTERVAL,
        '"interval": NAMES[interval], **span}',
        '"interval": NAMES[interval].replace("1h", "5m"), **span}',
    ),
    Mutant(
        "an interval that the venue lacks", FaultName.INTERVAL_NOT_SERVED, '"1m": "1m",', '"1m": "1m", "15m": "15m",'
    ),
    Mutant(
        "another asset class", FaultName.WRONG_INSTRUMENTS, 'Instrument(symbol, "crypto"', 'Instrument(symbol, "forex"'
    ),
    Mutant(
        "a list without the symbol",
        FaultName.WRONG_INSTRUMENTS,
        'symbol.split("-")) for symbol in answer.body]',
        'symbol.split("-")) for symbol in answer.body[1:]]',
    ),
    Mutant(
        "streams that nobody wants",
        FaultName.UNWANTED_STREAM,
        _YIELD,
        _YIELD + '\n            yield PriceUpdate(StreamKey("ZZZ-BBB", key.interval), candle)',
    ),
    Mutant(
        "unsubscribe ignored",
        FaultName.IGNORES_REMOVED,
        '        return [request("unsubscribe", keys)]',
        "        return []",
    ),
    Mutant(
        "streams added later never come",
        FaultName.IGNORES_ADDED,
        '        return [request("subscribe", keys)]',
        _ONCE,
    ),
    Mutant("updates swallowed", FaultName.NO_UPDATES, _YIELD, "            return\n" + _YIELD),
    Mutant("refusals not read", FaultName.SKIPS_MESSAGES, '        if kind == "pong":\n            return\n', ""),
    # -- history ---------------------------------------------------------------------------------------
    Mutant("end included", FaultName.INCLUDES_END, _SPAN, _SPAN.replace('"to": end', '"to": end + 1')),
    Mutant("newest first", FaultName.NOT_IN_ORDER, _END, "    return found[::-1]\n"),
    Mutant(
        "a row twice at the seam of pages",
        FaultName.REPEATS_CANDLE,
        "            start = page[-1].time + 1",
        "            start = page[-1].time",
    ),
    Mutant(
        "a hole at the seam of pages",
        FaultName.HOLE_AT_SEAM,
        "            end = page[0].time\n",
        "            end = page[0].time - 60\n",
    ),
    Mutant(
        "a hole at the seam of pages, forwards",
        FaultName.HOLE_AT_SEAM,
        "            start = page[-1].time + 1",
        "            start = page[-1].time + 61",
    ),
    Mutant("a page size that the venue does not give", FaultName.STOPS_SHORT, "PAGE = 500", "PAGE = 1000"),
    Mutant("one page only", FaultName.STOPS_SHORT, _PAGES, _PAGES + "        break\n"),
    Mutant("limit ignored", FaultName.IGNORES_LIMIT, _SIZE, "        size = PAGE"),
    Mutant("start ignored", FaultName.IGNORES_START, _SPAN, '        span = {"to": end, "count": size}'),
    Mutant("start excluded", FaultName.WRONG_RANGE, _SPAN, _SPAN.replace('"from": start,', '"from": start + 1,')),
    Mutant(
        "the first instead of the last",
        FaultName.WRONG_RANGE,
        "    found = []\n",
        "    found, start = [], start or end - 86_400\n",
    ),
    Mutant(
        "the open candle left out, although history_has_open",
        FaultName.LACKS_OPEN,
        _END,
        "    import time\n\n    return found[:-1] if found and time.time() < found[-1].time + 60 else found\n",
    ),
    Mutant(
        "other values in each answer",
        FaultName.HISTORY_CHANGES,
        _ROWS,
        _ROWS.replace(
            "candle_of(row, interval) for", "candle_of(row, interval)._replace(volume=float(len(answer.body))) for"
        ),
    ),
    Mutant(
        "any symbol has candles",
        FaultName.UNKNOWN_SYMBOL,
        'params = {"symbol": symbol,',
        'params = {"symbol": "AAA-BBB",',
    ),
    # -- failures --------------------------------------------------------------------------------------
    Mutant(
        "CancelledError swallowed",
        FaultName.SWALLOWS_CANCELLATION,
        _FEED,
        _WRAPPED % "asyncio.CancelledError:\n            return",
    ),
    Mutant(
        "connects again by itself",
        FaultName.RECONNECTS_ITSELF,
        _FEED,
        _WRAPPED % "Exception:\n            await asyncio.sleep(1)",
    ),
    Mutant(
        "sleeps for ever after a loss",
        FaultName.HANGS_AFTER_LOSS,
        _FEED,
        _WRAPPED % "Exception:\n            await asyncio.Event().wait()",
    ),
    Mutant(
        "asks again by itself",
        FaultName.RETRIES_INSIDE,
        '    answer = await ask_rest(session, Hosts(settings["rest_url"]), "/candles", params=params)\n',
        _RETRYING,
    ),
    Mutant(
        "a refusal is an empty answer",
        FaultName.HIDES_REFUSAL,
        _STATUS,
        "    if answer.status != 200:\n        return []\n",
    ),
    Mutant(
        "a refusal without its wait",
        FaultName.WRONG_ERROR,
        _STATUS,
        "    if answer.status != 200:\n        raise ValueError(answer.status)\n",
    ),
    # -- the rest --------------------------------------------------------------------------------------
    Mutant(
        "another title each time",
        FaultName.INFO_CHANGES,
        'title="Walk",',
        'title=str(__import__("random").random()),',
    ),
    Mutant(
        "daily candles in local time, live",
        FaultName.LIVE_TIME_DIFFERS,
        _LIVE,
        _LIVE
        + '            if key.interval == "1d":\n                candle = candle._replace(time=candle.time - 18_000)\n',
    ),
    Mutant(
        "an exception for each message",
        FaultName.STREAM_FAILS,
        _LIVE,
        '            raise RuntimeError("decode")\n' + _LIVE,
    ),
    Mutant(
        "a feed that ends after some updates",
        FaultName.STREAM_ENDS,
        _FEED,
        _WRAPPED.replace("                yield update\n", "                yield update\n                return\n")
        % "ValueError:\n            pass",
    ),
    Mutant(
        "something else than updates",
        FaultName.WRONG_TYPE,
        _FEED,
        _WRAPPED.replace("yield update\n", "yield update.candle\n") % "ValueError:\n            pass",
    ),
    Mutant(
        "an older candle after the newest",
        FaultName.GOES_BACK,
        _YIELD,
        _YIELD + _OLDER,
    ),
    Mutant("None for no candles", FaultName.HISTORY_FAILS, _END, "    return found or None\n"),
    Mutant("three candles at most", FaultName.TOO_FEW_CANDLES, _END, "    return found[-3:]\n"),
    Mutant(
        "goes on after it was cancelled",
        FaultName.DOES_NOT_END,
        _FEED,
        _WRAPPED % "asyncio.CancelledError:\n            await asyncio.sleep(600)",
    ),
    Mutant(
        "a task that is left",
        FaultName.LEFTOVERS,
        _FEED,
        "    import asyncio\n\n    watchlist.task = asyncio.get_running_loop().create_task(asyncio.sleep(600))\n"
        + _FEED,
    ),
    Mutant(
        "the session closed",
        FaultName.CLOSES_SESSION,
        "    return [Instrument(",
        "    await session.close()\n    return [Instrument(",
    ),
    Mutant("slow decoding", FaultName.TOO_SLOW, _LIVE, _LIVE + "            sum(range(50_000))\n"),
    Mutant(
        "an exception from relay_hours",
        FaultName.HOOK_FAILS,
        "    if not closed_until:\n        return None\n",
        '    raise LookupError("hours")\n',
    ),
    Mutant("a negative budget", FaultName.WRONG_BUDGET, "@hookimpl\ndef relay_hours", _BUDGETS),
)
