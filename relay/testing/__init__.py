"""Checks a provider from its author's side: one line in pytest, and the parts of it for tests of your own.

from relay.testing import check_provider

async def test_conformance():
    await check_provider("my_exchange.py", symbol="BTCUSD", interval="1m", settings={"rest_url": "http://…"})
"""

from relay.testing.check import Report, check_provider
from relay.testing.findings import DoesNotConform, FaultName, Finding
from relay.testing.load_provider import open_provider
from relay.testing.sped_up_time import sped_up
from relay.testing.tolerances import Tolerances
from relay.testing.watched_feed import Arrival, WatchedFeed

__all__ = [
    "Arrival",
    "DoesNotConform",
    "FaultName",
    "Finding",
    "Report",
    "Tolerances",
    "WatchedFeed",
    "check_provider",
    "open_provider",
    "sped_up",
]
