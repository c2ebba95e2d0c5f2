"""The table of exchanges of ccxt, made from what ccxt says: `python -m tests.support.ccxt_venues` writes it."""

import time
from pathlib import Path

from providers.ccxt.capabilities import Capabilities, capabilities_of
from providers.ccxt.library import exchange_class, exchange_names
from relay.core.derived_intervals import GridOfHours, derived_intervals
from tests.peers.environments import CCXT, find_ccxt

PAGE = Path(__file__).parents[2] / "providers" / "ccxt" / "venues.md"
TESTED = ("kraken", "coinbase", "bybit", "okx")
"""Those whose formats a stand-in of the tests speaks."""
HEAD = f"""# Exchanges of ccxt

What {CCXT.replace("==", " ")} says of each exchange, and what becomes of it in [the provider](README.md).
`python -m tests.support.ccxt_venues` writes this page.

- **Live**: over a WebSocket; *together* means that one message subscribes to several streams. *Polled*: one request
  for each stream in each round.
- **Page**: how many candles an answer of history has. How far back an exchange goes, ccxt does not say.
- **Apart**: the time between two requests.
- **Types**: of markets, for `market_types`.
- **Built**: intervals that the exchange lacks, and that the relay builds of shorter candles.
- An exchange in bold is tested with a stand-in that speaks its format. Nothing here says how well an
  exchange keeps its promises.
"""


def page() -> str:
    """Return the page: first those that are tested, then those with live candles, then those that are polled."""
    found = {name: exchange_class(name)() for name in exchange_names()}
    known = {name: capabilities_of(one) for name, one in found.items() if one.has.get("fetchOHLCV")}
    order = sorted(known, key=lambda name: (name not in TESTED, not known[name].is_live, name))
    live = sum(one.is_live for one in known.values())
    count = f"{len(known)} of {len(found)} exchanges have candles: {live} live, {len(known) - live} polled."
    without = ", ".join(sorted(set(found) - set(known)))
    rows = "".join(f"| {' | '.join(_cells(name, known[name]))} |\n" for name in order)
    return (
        f"{HEAD}\n{count}\n\n"
        "| `exchange` | name | live | page | apart | types | intervals | built |\n"
        "| --- | --- | --- | ---: | ---: | --- | --- | --- |\n"
        f"{rows}\nWithout candles: {without}.\n"
    )


def _cells(name: str, known: Capabilities) -> tuple[str, ...]:
    how = "WebSocket, together" if known.is_batched else "WebSocket" if known.is_live else "polled"
    built = derived_intervals(known.intervals, GridOfHours(), int(time.time()))
    shown = f"**`{name}`**" if name in TESTED else f"`{name}`"
    return (
        shown,
        known.name,
        how,
        str(known.page),
        f"{known.request_s:.3g} s",
        " ".join(known.market_types) or "–",
        " ".join(known.intervals) or "–",
        " ".join(built) or "–",
    )


if __name__ == "__main__":
    find_ccxt()
    PAGE.write_text(page(), encoding="utf-8")
