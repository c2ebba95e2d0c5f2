"""Hooks of Schemathesis: of the symbols that it invents, every other one becomes one that exists."""

import schemathesis


@schemathesis.hook
def map_query(context, query):
    if query and isinstance(query.get("symbol"), str) and len(query["symbol"]) % 2:
        return {**query, "symbol": "BTCUSDT" if len(query["symbol"]) % 3 else "EUR/USD"}
    return query
