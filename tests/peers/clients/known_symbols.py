"""Hooks of Schemathesis: of the symbols that it invents, every other one becomes one that exists.

That a request needs one symbol or several, and which format goes with them and with a time to wait, a schema of each
parameter cannot say.
"""

import schemathesis
from schemathesis.generation import GenerationMode


@schemathesis.hook
def map_query(context, query):
    if query and isinstance(query.get("symbol"), str) and len(query["symbol"]) % 2:
        return {**query, "symbol": "BTCUSDT" if len(query["symbol"]) % 3 else "EUR/USD"}
    return query


@schemathesis.hook
def before_call(context, case, **kwargs):
    is_meant_to_fit = case.meta is not None and case.meta.generation.mode is GenerationMode.POSITIVE
    if not is_meant_to_fit or not case.operation.path.endswith("/history"):
        return
    query = dict(case.query or {})
    has_several = query.get("format") == "ndjson" and "symbols" in query
    if has_several:
        query.pop("symbol", None)
        if len(query["symbols"]) % 2:
            query["symbols"] = "BTCUSDT,EUR/USD,NOPE"
    else:
        query.pop("symbols", None)
        query.setdefault("symbol", "BTCUSDT")
    if query.get("format", "json") != "json":
        query.pop("wait_s", None)
    case.query = query
