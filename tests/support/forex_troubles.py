"""What the stand-in for Twelve Data does to the relay in `forex_week`, beside being slow and late at all times."""

import asyncio
import random
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, NamedTuple

from providers.sandbox.twelve_data_credits import Problem
from tests.support.forex_judge import HOUR_S, PLANS, RECOVERS_S, Scenario, Trouble, Truth
from tests.support.untidy import REFUSALS, UntidyTwelveData, refuse_rest

TROUBLE_EVERY_S = 5400.0
KEY_AWAY_S = 3 * HOUR_S
OTHER_PLAN_S = 48 * HOUR_S
NO_TICKS_S = 24 * HOUR_S


class Ordeal(NamedTuple):
    """One scenario as it runs. `reconfigure` gives the relay other settings, as SIGHUP does."""

    scenario: Scenario
    stand_in: UntidyTwelveData
    troubles: list[Trouble]
    reconfigure: Callable[[Mapping[str, Any]], None]

    def be_usual(self) -> None:
        """Be as slow, late and untidy as on any day."""
        scenario, faults, untidy = self.scenario, self.stand_in.faults, self.stand_in.untidy
        untidy.settle_after(scenario.settles_s)
        if scenario.is_new_york:
            untidy.cut_four_hours(Truth(self.stand_in.market, "EUR/USD", "4h", is_new_york=True).opened)
        if not scenario.is_tidy:
            faults.delay_rest(0, 3, computed="either")
            untidy.disorder(0.05)
            untidy.repeat(0.02)

    def note(self, name: str, start: float, allowed: frozenset[str] | None = None, required: str = "") -> None:
        """Note a trouble that is over now."""
        self.troubles.append(Trouble(name, start, time.time(), allowed, required))


async def one_after_the_other(ordeal: Ordeal) -> None:
    """Let one thing after the other be wrong with the provider, each for a short time."""
    stand_in = ordeal.stand_in
    faults, untidy = stand_in.faults, stand_in.untidy

    def lose_ticks() -> None:
        faults.refuse(401)
        faults.drop()

    kinds: dict[str, tuple[float, Callable[[], None]]] = {
        name: (15.0, partial(refuse_rest, faults, name)) for name in REFUSALS
    }
    kinds |= {
        "a null in each answer": (90.0, lambda: untidy.spoil_rows("null")),
        "a close above high in each answer": (90.0, lambda: untidy.spoil_rows("above high")),
        "empty answers": (90.0, untidy.answer_empty),
        "answers for somebody else": (90.0, lambda: untidy.answer_for({"EUR/USD": "USD/JPY", "AUD/USD": "USD/JPY"})),
        "answers of another interval": (90.0, lambda: untidy.answer_for({}, "5min")),
        "slow answers": (600.0, lambda: faults.delay_rest(0, 5, computed="either")),
        "closed candles only": (600.0, lambda: untidy.list_closed_only(20)),
        "no tick stream": (60.0, lose_ticks),
        "a mute tick stream": (300.0, faults.mute),
        "wrong stamps": (300.0, lambda: untidy.stamp("EUR/USD", 7200)),
    }
    while True:
        for name, (seconds, begin) in kinds.items():
            if time.time() + TROUBLE_EVERY_S + RECOVERS_S > ordeal.scenario.end:
                return
            await asyncio.sleep(TROUBLE_EVERY_S)
            started = time.time()
            begin()
            await asyncio.sleep(seconds)
            faults.clear()
            untidy.clear()
            ordeal.be_usual()
            ordeal.note(name, started)


async def another_key(ordeal: Ordeal) -> None:
    """Refuse the key on a working day; after some hours the relay is given the one that is taken."""
    await asyncio.sleep(_working_noon(ordeal.scenario) - time.time())
    started = time.time()
    ordeal.stand_in.rest.api_key = "another-key"
    ordeal.stand_in.faults.drop()
    await asyncio.sleep(KEY_AWAY_S)
    ordeal.reconfigure({"api_key": "another-key"})
    ordeal.note("the key is refused", started, required="error")


async def a_smaller_plan(ordeal: Ordeal) -> None:
    """Let the key have the free plan for two days, and the plan that the relay was told again then."""
    credits, usual = ordeal.stand_in.rest.credits, PLANS[ordeal.scenario.plan]
    await asyncio.sleep(_working_noon(ordeal.scenario) - time.time())
    started = time.time()
    credits.per_minute, credits.per_day = PLANS["free"]
    await asyncio.sleep(OTHER_PLAN_S)
    credits.per_minute, credits.per_day = usual
    # The relay asks for its plan every six hours.
    await asyncio.sleep(6 * HOUR_S)
    ordeal.note("a smaller plan", started, allowed=frozenset({"throttled"}))


async def another_program(ordeal: Ordeal) -> None:
    """Spend credits of the same key elsewhere: one or two in every other minute of eight hours a day."""
    credits, dice = ordeal.stand_in.rest.credits, random.Random("another program")
    while True:
        await asyncio.sleep(dice.uniform(60, 180))
        if 8 <= time.time() // HOUR_S % 24 < 16:
            try:
                type(credits).spend(credits, dice.choice((1, 2)))
            except Problem:
                credits.refusals -= 1


async def no_ticks_at_first(ordeal: Ordeal) -> None:
    """Refuse the tick stream for a day, as plans without it do."""
    ordeal.stand_in.faults.refuse(401)
    await asyncio.sleep(NO_TICKS_S)
    ordeal.stand_in.faults.clear()
    ordeal.be_usual()


ORDEALS = {
    "troubles": one_after_the_other,
    "another key": another_key,
    "a smaller plan": a_smaller_plan,
    "another program": another_program,
    "no ticks at first": no_ticks_at_first,
}
REFUSALS_ALLOWED = {"a smaller plan": 6, "another program": 12}
"""So often may the provider say that credits are spent: nobody knows that before it does."""


def _working_noon(scenario: Scenario) -> float:
    """Return the first noon of a working day that is more than a day away from the start."""
    day = datetime.fromtimestamp(scenario.start + 24 * HOUR_S, UTC).replace(hour=12, minute=0, second=0)
    while day.timestamp() < scenario.start + 24 * HOUR_S or day.weekday() > 3:
        day += timedelta(days=1)
    return day.timestamp()
