"""An exchange of ccxt through faults of its connections, messages and answers: the candle contract holds."""

import asyncio
import random
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from relay.app import RelayLimits
from relay.supervision.timing import FeedTiming
from tests.peers.test_ccxt_provider import be_away, table_of
from tests.support.conditions import eventually
from tests.support.free_ports import free_port
from tests.support.running_relay import Running, start_relay
from tests.support.sandbox import Sandbox
from tests.support.soak import HABITS, PythonClient, SoakClient
from tests.support.troubled_kraken import KrakenTruth, TroubledKraken

pytestmark = [pytest.mark.peers, pytest.mark.timeout(300), pytest.mark.usefixtures("ccxt_library")]

STREAMS = ("BTC/USD@1m", "ETH/USD@1m", "BTC/USD@5m")
FAULTS = (
    *("cut", "away", "frozen", "refusing", "rest refused", "rest down", "rest errors", "slow", "garbage", "late"),
    *("repeated", "unconfirmed", "killed"),
)
SETTLES_S = 400.0
"""In time that jumps: a gap is repaired later, and the exchange may have to be left alone for a minute."""


class Play:
    """A relay and its exchange, one fault after the other; `moment` names the present one."""

    def __init__(self, sandbox: Sandbox, venue: TroubledKraken, database: Path, dice: random.Random) -> None:
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        self._dice = dice
        self._venue = venue
        self._in_force = "no fault"
        self._relay: Running | None = None
        self._began = time.time()
        off = {name: {"enabled": False} for name in ("binance", "twelve_data")}
        self._sandbox = sandbox
        self._settings: dict[str, Any] = {
            "instances": {**off, "kraken": {"uses": "ccxt", **table_of("kraken", venue)}},
            # So short that history is given up now and then: gaps and their repair belong to the contract.
            "limits": RelayLimits(feeds=FeedTiming(history_patience_s=5.0, repair_every_s=5.0)),
            **{"port": port, "database": str(database), "linger_seconds": 0.5},
        }

    def moment(self) -> str:
        """Name the second and the fault in force."""
        return f"second {time.time() - self._began:.0f}, {self._in_force}"

    async def start(self) -> None:
        """Start the relay."""
        self._relay = await start_relay(self._sandbox, **self._settings)

    async def end(self) -> None:
        """End the relay."""
        assert self._relay is not None
        await self._relay.close()

    async def run(self, faults: list[str]) -> None:
        """Let one fault after the other happen."""
        for fault in faults:
            self._in_force = fault
            await self._inject(fault)
            self._venue.get_well()
            self._in_force = f"after {fault}"
            await asyncio.sleep(self._dice.uniform(0, 60))

    async def _inject(self, fault: str) -> None:
        venue, dice = self._venue, self._dice
        match fault:
            case "cut":
                for _ in range(3):
                    venue.cut()
                    await asyncio.sleep(dice.uniform(0, 5))
                return
            case "away":
                await be_away(venue, dice.uniform(5, 90))
                return
            case "killed":
                await self.end()
                await asyncio.sleep(dice.uniform(0, 20))
                await self.start()
                return
            case "garbage":
                for _ in range(12):
                    await venue.litter()
                    await asyncio.sleep(dice.uniform(0, 8))
                return
            case "rest refused":
                venue.status, venue.headers = 429, dice.choice([{}, {"Retry-After": "7"}])
            case "rest down":
                venue.status = dice.choice([500, 502, 503, 520])
            case "rest errors":
                venue.errors = [dice.choice(["EService:Unavailable", "EGeneral:Internal error", "EQuery:x"])]
            case _:
                venue.refusal = dice.choice([200, 403, 429, 503])
                venue.troubles.add(fault)
        if fault in ("refusing", "unconfirmed") or dice.random() < 0.5:
            venue.cut()
        await asyncio.sleep(dice.uniform(10, 130))


@pytest.mark.parametrize("seed", [1])
async def test_no_fault_of_an_exchange_of_ccxt_breaks_the_contract(seed: int, sandbox: Sandbox, tmp_path: Path) -> None:
    dice = random.Random(seed)
    async with TroubledKraken(dice) as venue:
        play = Play(sandbox, venue, tmp_path / "relay.db", dice)
        await play.start()
        truths = {name: KrakenTruth(venue, name.partition("@")[2]) for name in STREAMS}
        comers = [
            SoakClient(f"client {number}", play.url, habit, truths, time.time, random.Random(number), play.moment)
            for number, habit in enumerate(HABITS[:2])
        ]
        library = PythonClient("library", truths, time.time, play.moment)
        tasks = [asyncio.create_task(one) for one in (*(comer.run() for comer in comers), library.run(play.url))]
        everybody: list[SoakClient | PythonClient] = [*comers, library]
        checks = [check for one in everybody for check in one.checks.values()]
        try:
            await play.run(dice.sample(FAULTS, len(FAULTS)))
            for comer in comers:
                comer.stays = True
            ended = time.time() + 1
            with suppress(TimeoutError):
                await eventually(lambda: all(check.is_settled(ended) for check in checks), SETTLES_S)
            for check in checks:
                check.finish(ended)
        finally:
            for task in tasks:
                task.cancel()
            ends = await asyncio.gather(*tasks, return_exceptions=True)
            await play.end()
    assert [str(one) for check in checks for one in check.found] == []
    assert {type(end) for end in ends} == {asyncio.CancelledError}
    assert min(len(check.closed) for check in library.checks.values()) > 2
