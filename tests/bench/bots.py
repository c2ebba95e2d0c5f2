"""Measures what a relay saves: bots of freqtrade directly against a simulated Binance, and the same by a relay.

`python -m tests.bench.bots` prints a table for the README and the guide after a quarter of an hour: what the exchange
saw from the start of the bots to the end, first without a relay, then with one and an outage of the exchange. freqtrade
gets an environment of its own, as for `pytest -m peers`, which takes minutes the first time.
"""

import argparse
import asyncio
import tempfile
from pathlib import Path

from tests.peers.bot_runs import BotPlan, BotRun, run_bots


async def measure(plan: BotPlan, outage_s: float) -> None:
    """Run both sides, one after the other, and print what they cost."""
    with tempfile.TemporaryDirectory() as folder:
        runs = []
        for name, by_relay, out_s in (("direct", False, 0.0), ("relay", True, outage_s)):
            runs.append(await run_bots(plan, Path(folder, name), by_relay=by_relay, outage_s=out_s))
            print(f"{name}: {runs[-1].trades} orders filled, {runs[-1].connects} WebSocket connections", flush=True)
    direct, relay = runs
    print(table_of(direct, relay))
    print(f"\nOutage of {outage_s:g} s: {len(relay.faults)} candles missed", *relay.faults, sep="\n")


def table_of(direct: BotRun, relay: BotRun) -> str:
    """Return requests and weight by path, side by side."""
    lines = [
        "| asked of the exchange | directly | weight | by the relay | weight | less weight |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for path in sorted(direct.requests | relay.requests, key=lambda path: -direct.weight[path]):
        lines.append(
            _line(
                path.removeprefix("/api/v3/"),
                direct.requests[path],
                direct.weight[path],
                relay.requests[path],
                relay.weight[path],
            )
        )
    lines.append(
        _line(
            "all requests",
            direct.requests.total(),
            direct.weight.total(),
            relay.requests.total(),
            relay.weight.total(),
        )
    )
    later, less = direct.weight.total() - direct.begun, relay.weight.total() - relay.begun
    times = f"{later / less:.0f} ×" if less else "–"
    lines.append(f"| of that, once all bots had begun | – | {later:,} | – | {less:,} | {times} |")
    lines.append(f"| WebSocket connections | {direct.connects} | – | {relay.connects} | – | – |")
    lines.append(f"| messages on them | {direct.messages} | – | {relay.messages} | – | – |")
    return "\n".join(lines)


def _line(what: str, direct: int, direct_weight: int, relay: int, relay_weight: int) -> str:
    times = f"{direct_weight / relay_weight:.0f} ×" if relay_weight else "–"
    return f"| {what} | {direct:,} | {direct_weight:,} | {relay:,} | {relay_weight:,} | {times} |"


def main() -> None:
    """Read the command line and measure."""
    usual = BotPlan()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bots", type=int, default=usual.bots)
    parser.add_argument("--pairs", type=int, default=usual.pairs)
    parser.add_argument("--trades", type=int, default=usual.most_trades, help="trades that a bot holds at most")
    parser.add_argument("--seconds", type=float, default=usual.seconds)
    parser.add_argument("--outage", type=float, default=30.0, help="seconds; 0: none")
    parser.add_argument("--polling", action="store_true", help="bots poll candles: `enable_ws` is false")
    given = parser.parse_args()
    plan = BotPlan(given.bots, given.pairs, given.seconds, given.trades, not given.polling)
    asyncio.run(measure(plan, given.outage))


if __name__ == "__main__":
    main()
