"""What of Binance's REST interface is passed on as it is: public market data only."""

from collections.abc import Mapping
from typing import Any

import aiohttp

from providers.binance_markets.rest import RestCalls
from providers.binance_markets.rules import MarketRules, Query
from relay import BadAnswer, NativeAnswer


async def native_answer(
    rules: MarketRules,
    calls: RestCalls,
    path: str,
    query: Query,
    session: aiohttp.ClientSession,
    settings: Mapping[str, Any],
) -> NativeAnswer:
    """Return Binance's own answer. Raises `BadAnswer` for a path that is not passed on, and what `calls` raise."""
    weights = {f"{rules.root}/{name}": weigh for name, weigh in rules.native_weights.items()}
    weigh = weights.get(path)
    if weigh is None:
        raise BadAnswer(f"{path} is not passed on; what is passed on: {', '.join(weights)}")
    weight = weigh(query)
    answer = await calls.ask_natively(path, query, weight, session, settings)
    return NativeAnswer(answer.status, answer.text, weight)
