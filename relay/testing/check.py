"""The conformance check: its parts in order, and what comes of it."""

import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple, cast

import aiohttp

from relay.core.clock import Clock
from relay.core.errors import ProviderError
from relay.core.intervals import INTERVALS
from relay.core.model import Candle, StreamKey
from relay.testing import (
    check_closing,
    check_history,
    check_intervals,
    check_pages,
    check_resilience,
    check_speed,
    check_streams,
)
from relay.testing.check_run import CheckPlan, CheckRun
from relay.testing.findings import DoesNotConform, FaultName, utc
from relay.testing.load_provider import open_provider
from relay.testing.tolerances import TOLERANCES, UNKNOWN_SYMBOL, Tolerances
from relay.testing.watched_feed import shown
from relay.testing.watched_session import WatchedSession


class Report(NamedTuple):
    """What was found in order, and what could not be checked, why, and what would make it possible.

    `updates_per_cpu_s` is how many updates a second of CPU gives, None where no messages could be played again.
    """

    checked: tuple[str, ...]
    unchecked: tuple[str, ...]
    updates_per_cpu_s: float | None = None

    def __str__(self) -> str:
        lines = [f"conforms; checked: {', '.join(self.checked)}"]
        if self.updates_per_cpu_s is not None:
            lines.append(f"{self.updates_per_cpu_s:,.0f} updates per second of CPU")
        return "\n".join(lines + [f"not checked: {what}" for what in self.unchecked])


WATCH_S = 200.0
"""Three candles of a minute, one of them joined at its beginning, take so long."""


async def check_provider(
    plugin: object,
    *,
    symbol: str,
    interval: str,
    settings: Mapping[str, object] | None = None,
    other: StreamKey | None = None,
    unknown_symbol: str = UNKNOWN_SYMBOL,
    timeout_s: float = 10.0,
    watch_s: float = WATCH_S,
    survives_loss: bool = False,
    intervals: Sequence[str] | None = None,
    expected: Mapping[StreamKey, Sequence[Candle]] = MappingProxyType({}),
    clock: Clock | None = None,
    tolerances: Tolerances = TOLERANCES,
) -> Report:
    """Check a provider against an upstream that works, and raise `DoesNotConform` with all that is wrong.

    `symbol` and `interval` name a stream that moves now and has a past. `other` is a second one, for the watchlist;
    by default the same symbol at another interval, else another symbol. Each wait for the upstream ends after
    `timeout_s`; to see candles close the stream is watched for `watch_s` at most, and shorter if three have begun
    before. `survives_loss` is for a feed that has another source beside its WebSocket: it need not end with that,
    but has to go on. `intervals` are those of the symbol that are checked, by default all, each with two requests.
    `expected` are closed candles as the venue publishes them elsewhere, such as on its chart. `tolerances` is what
    else is allowed before something is blamed. Returns what was checked, and what could not be and why. Raises
    `ConfigError` for `settings` that the provider does not have, and `ValueError` for an interval that there is not.
    """
    for each in (
        interval,
        *(intervals or ()),
        *([other.interval] if other else ()),
        *(one.interval for one in expected),
    ):
        if each not in INTERVALS:
            raise ValueError(f"{each!r} is not an interval; use one of {' '.join(INTERVALS)}")
    key = StreamKey(symbol, interval)
    plan = CheckPlan(
        key,
        other,
        StreamKey(unknown_symbol, interval),
        timeout_s,
        watch_s,
        survives_loss,
        intervals,
        expected,
        tolerances,
    )
    async with open_provider(plugin, settings, clock=clock, timing=tolerances.plugin) as provider:
        session = WatchedSession(provider.session)
        provider.open(cast(aiohttp.ClientSession, session))
        run = CheckRun(provider, session, plan)

        async def refusal() -> None:
            async with open_provider(plugin, settings, clock=clock, timing=tolerances.plugin) as fresh:
                led = WatchedSession(fresh.session)
                fresh.open(cast(aiohttp.ClientSession, led))
                await check_resilience.check_refusal(run, fresh, led)

        async with run.watching():
            for name, part in (*_parts(run), ("refusal", refusal)):
                await _check(run, name, part)
            if provider.keeps_clients:
                await provider.close()
                await _check(run, "relay_close", run.look_for_left_tasks)
    if run.findings:
        raise DoesNotConform(provider.name, run.findings, run.unchecked)
    return Report(tuple(run.checked), tuple(run.unchecked), run.updates_per_cpu_s)


async def _check(run: CheckRun, name: str, part: Callable[[], Awaitable[None]]) -> None:
    """Run one part; a fault in it does not keep the others from running."""
    before = len(run.findings)
    try:
        await part()
    except ProviderError as error:
        run.blame(_RAISED.get(name, FaultName.HISTORY_FAILS), f"{name}: {shown(error)}")
    await run.look_for_leftovers(name)
    if len(run.findings) == before and not (run.unchecked and run.unchecked[-1].startswith(f"{name}: ")):
        run.checked.append(name)


_DAY_S = 86_400
_RAISED = {"instruments": FaultName.WRONG_INSTRUMENTS, "past changes": FaultName.CHANGES_PAST}


def _parts(run: CheckRun) -> Iterator[tuple[str, Callable[[], Awaitable[None]]]]:
    yield "relay_provider is pure", lambda: _check_info(run)
    yield "instruments", lambda: _check_instruments(run)
    yield "hours", lambda: _check_hours(run)
    yield "stream", lambda: check_streams.check_stream(run)
    yield "closing", lambda: check_closing.check_closing(run)
    yield "a second feed, closed between updates", lambda: check_streams.check_second_feed(run)
    yield "reconnect", lambda: check_resilience.check_reconnect(run)
    yield "unknown symbol in a stream", lambda: check_streams.check_unknown_symbol(run)
    yield "speed", lambda: check_speed.check_speed(run)
    yield "history", lambda: check_history.check_history(run)
    yield "pages", lambda: check_pages.check_pages(run)
    yield "intervals", lambda: check_intervals.check_intervals(run)
    yield "values", lambda: check_intervals.check_values(run)
    yield "unknown symbol in history", lambda: check_history.check_unknown_symbol(run)
    yield "cancelled history", lambda: check_history.check_cancellation(run)
    yield "budgets", lambda: _check_budgets(run)
    if run.provider.tells_past_changes:
        yield "past changes", lambda: _check_past_changes(run)


async def _check_info(run: CheckRun) -> None:
    info, said = run.provider.info, run.provider.said_again()
    if said._replace(settings=()) != info._replace(settings=()):
        run.blame(FaultName.INFO_CHANGES, "relay_provider returns another value when it is called again")
    if run.key.interval not in info.intervals:
        declared = " ".join(info.intervals)
        run.blame(
            FaultName.INTERVAL_NOT_SERVED,
            f"{run.key.interval} is not among the intervals of relay_provider: {declared}",
        )


async def _check_hours(run: CheckRun) -> None:
    """Ask when the market is open, now and in a week. What the hook raises is in the log, which is judged last."""
    now = int(run.provider.clock.now())
    for moment in (now, now + 7 * 86_400):
        run.provider.market(run.key.symbol).opens_at(moment)


async def _check_instruments(run: CheckRun) -> None:
    provider = run.provider
    if provider.looks_up_instruments:
        await _check_lookup(run)
    if not provider.lists_instruments:
        if not provider.looks_up_instruments:
            run.leave_out("instruments", "relay_instruments is not implemented")
        return
    run.instruments = await provider.instruments()
    symbols = [instrument.symbol for instrument in run.instruments]
    if not symbols:
        run.blame(FaultName.WRONG_INSTRUMENTS, "relay_instruments returned an empty list")
    elif run.key.symbol not in symbols:
        run.blame(FaultName.WRONG_INSTRUMENTS, f"relay_instruments does not list {run.key.symbol}")
    twice = [symbol for symbol, count in Counter(symbol.upper() for symbol in symbols).items() if count > 1]
    if twice:
        said = f"relay_instruments lists {twice[0]} more than once; symbols differ in more than case"
        run.blame(FaultName.WRONG_INSTRUMENTS, said)
    if run.unknown.symbol in symbols:
        said = f"relay_instruments lists {run.unknown.symbol}; give the check another unknown_symbol"
        run.blame(FaultName.WRONG_INSTRUMENTS, said)


async def _check_lookup(run: CheckRun) -> None:
    """Ask for the symbol, in upper case as clients' symbols are, and for one that does not exist."""
    found = await run.provider.instrument(run.key.symbol.upper())
    if found is None:
        run.blame(FaultName.WRONG_INSTRUMENTS, f"relay_instrument does not have {run.key.symbol}")
    elif not run.provider.lists_instruments:
        run.instruments = [found]
    if await run.provider.instrument(run.unknown.symbol.upper()) is not None:
        run.blame(FaultName.UNKNOWN_SYMBOL, f"relay_instrument has {run.unknown.symbol}, which does not exist")


async def _check_past_changes(run: CheckRun) -> None:
    now = int(run.provider.clock.now())
    for since in (None, now):
        for change in await run.provider.past_changes(since):
            if (change.before or 0) > now + _DAY_S:
                said = f"relay_past_changes names a change of the future: {change.key} before {utc(change.before or 0)}"
                run.blame(FaultName.CHANGES_PAST, said)


async def _check_budgets(run: CheckRun) -> None:
    began = time.monotonic()
    for budget in run.provider.budgets():
        if budget.limit < 0 or budget.used < 0:
            run.blame(FaultName.WRONG_BUDGET, f"the budget {budget.name!r} has negative numbers")
    if time.monotonic() - began > 0.1:
        run.blame(FaultName.WRONG_BUDGET, "relay_budgets took more than 0.1 s; it is asked often and must do no I/O")
