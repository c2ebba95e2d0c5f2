"""Several bots of freqtrade together: by the relay they cost the exchange less, and an outage takes no candle from any.

`python -m tests.bench.bots` does this with more bots, pairs and time, and without a relay for comparison.
"""

from pathlib import Path

import pytest

from tests.peers.bot_runs import BotPlan, run_bots

pytestmark = [pytest.mark.peers, pytest.mark.timeout(1200)]

PLAN = BotPlan(bots=2, pairs=5, seconds=60.0, most_trades=2)
KLINES_WEIGHT = 2
OUTAGE_S = 30.0


async def test_bots_cost_less_by_the_relay_and_miss_no_candle_through_an_outage(tmp_path: Path) -> None:
    run = await run_bots(PLAN, tmp_path / "run", by_relay=True, outage_s=OUTAGE_S)
    assert run.faults == []
    assert run.trades >= 1
    # The list is asked for once for all, and the past at most as often as they ask for it.
    assert run.requests["/api/v3/exchangeInfo"] == 1
    assert run.weight["/api/v3/klines"] <= KLINES_WEIGHT * run.polled
    assert run.weight.total() < run.asked
    # One connection, and another one after the outage.
    assert run.connects == 2
