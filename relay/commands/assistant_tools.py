"""What an assistant may ask of a running relay: each answer as a short text and as values; nothing about MCP itself."""

import asyncio
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from relay.client import BadArgument, Candle, ClientError, History, ListedInstrument, Refused, RelayClient, Unreachable
from relay.commands.formatting import listed, moment, number, printable
from relay.core.errors import Code
from relay.protocol.fields import PLUS_IN_ADDRESSES, WHERE_SYMBOLS_ARE, shown

MOST_INSTRUMENTS = 100
MOST_CANDLES = 500
MOST_LATEST = 20
MOST_STREAMS = 100
"""An assistant reads all of an answer: these limits keep it to some ten thousand characters."""
LATEST_WAIT_S, CANDLES_WAIT_S = 3, 10
"""Somebody waits for what the assistant says: a provider has so long, and then what is known has to do."""
_OF_ONE_SYMBOL = (Code.UNKNOWN_SYMBOL, Code.UNSUPPORTED_INTERVAL)
"""Other refusals are the same for every symbol of a call."""
_COLUMNS = ("time", *Candle._fields[1:])
_OF_INSTRUMENT = ("symbol", "id", "name", "asset_class", "base", "quote", "status", "session")
_OF_PROVIDER = (
    "name", "title", "state", "message", "streams", "instruments", "gaps", "backfilled", "revised", "compared",
    "differed", "lag_spread_ms",
)  # fmt: skip
_OF_BUDGET = ("provider", "name", "used", "limit")
_OF_STREAM = (
    "symbol",
    "interval",
    "provider",
    "status",
    "message",
    "subscribers",
    "kept_by",
    "lag_ms",
    "gaps",
    "revised",
)


class ToolAnswer(NamedTuple):
    """An answer: `text` for the assistant to read, `values` for programs; both say the same."""

    text: str
    values: dict[str, Any]


class AssistantTools:
    """Reads from a relay by its HTTP API, and changes nothing. Every method raises `ClientError`."""

    def __init__(self, client: RelayClient) -> None:
        self._client = client

    async def search_instruments(self, query: str, limit: int = 20) -> ToolAnswer:
        """Return the instruments that have all words of a query in symbol, name, base or quote, the best first."""
        if not query.strip():
            raise BadArgument("query is empty; give words such as 'bitcoin usdt' or a symbol such as BTCUSDT")
        found = await self._client.instruments(search=query, limit=limit)
        rows = [_instrument(one) for one in found]
        if not rows:
            return ToolAnswer(f"no instrument fits {shown(query)}", {"instruments": []})
        lines = _lines((*_OF_INSTRUMENT, "intervals"), rows)
        return ToolAnswer(_text(lines, {one.attribution for one in found}), {"instruments": rows})

    async def candles(
        self,
        symbol: str,
        interval: str,
        limit: int = 100,
        start: int | None = None,
        end: int | None = None,
    ) -> ToolAnswer:
        """Return candles, oldest first: the first ones from a start on, else the last ones up to an end or now."""
        if start is not None and end is not None and start > end:
            raise BadArgument(f"start {moment(start)} is after end {moment(end)}")
        found = await self._client.history(
            symbol, interval, start_time=start, end_time=end, limit=limit, wait_s=CANDLES_WAIT_S
        )
        rows = [_candle(candle) for candle in found.candles]
        names = {"symbol": found.symbol, "interval": found.interval, "provider": found.provider}
        facts = {"last_is_closed": found.last_is_closed, "is_complete": found.is_complete}
        head = f"{found.symbol} {found.interval} of {found.provider}, {len(rows)} candles, times in UTC"
        notes = [] if found.last_is_closed or not rows else ["the last candle is still open: its values change"]
        if not found.is_complete:
            notes.append("candles may be missing: the provider has not given all of them yet; ask again later")
        if start is not None and len(rows) == limit:
            notes.append(f"there may be more: ask again with a start after {rows[-1][0]}")
        return ToolAnswer(
            "\n".join(["; ".join([head, *notes]), ",".join(_COLUMNS), *(",".join(map(_cell, row)) for row in rows)]),
            {**names, **facts, "columns": [*_COLUMNS], "rows": rows},
        )

    async def latest(self, symbols: Sequence[str], interval: str = "1m") -> ToolAnswer:
        """Return the newest candle of each symbol; a symbol that fails has an error, and what is known of it.

        What fails in the same way for all of them is the error of the call.
        """
        names = [*dict.fromkeys(symbols)]
        found = await asyncio.gather(*[self._latest_of(name, interval) for name in names], return_exceptions=True)
        faults = [one for one in found if isinstance(one, BaseException)]
        for fault in faults:
            if len(faults) == len(found) or not isinstance(fault, Unreachable):
                raise fault
        rows = [
            {"symbol": name, "error": "the relay had no answer in time", "code": ""}
            if isinstance(one, BaseException)
            else one
            for name, one in zip(names, found, strict=True)
        ]
        lines = _lines(("symbol", "provider", *_COLUMNS, "is_closed", "error"), rows)
        return ToolAnswer(
            f"newest candles of {interval}, times in UTC\n{lines}", {"interval": interval, "latest": rows}
        )

    async def _latest_of(self, symbol: str, interval: str) -> dict[str, Any]:
        error, code = "", ""
        try:
            found = await self._client.history(symbol, interval, limit=1, wait_s=LATEST_WAIT_S)
            if not found.is_complete:
                error = f"the provider has given nothing newer within {LATEST_WAIT_S} s"
        except Refused as fault:
            if fault.status < 500 and fault.code not in _OF_ONE_SYMBOL:
                raise
            error, code = explained(fault), str(fault.code)
            known = await self._known_of(symbol, interval) if fault.status in (502, 503, 504) else None
            if known is None:
                return {"symbol": symbol, "error": error, "code": code}
            found = known
        if not found.candles:
            return {"symbol": found.symbol, "error": error or "there is no candle yet", "code": code}
        values = dict(zip(_COLUMNS, _candle(found.candles[-1]), strict=True))
        row = {"symbol": found.symbol, "provider": found.provider, **values, "is_closed": found.last_is_closed}
        if error:
            row |= {"error": f"this candle may be old: {error}", "code": code}
        return row

    async def _known_of(self, symbol: str, interval: str) -> History | None:
        """Return the newest candle that the relay knows although the provider failed, None if it knows none."""
        try:
            found = await self._client.history(symbol, interval, limit=1, wait_s=0)
        except Refused:
            return None
        return found if found.candles else None

    async def state(self) -> ToolAnswer:
        """Return the state of providers, budgets and streams, and the figures about the quality of data."""
        status = await self._client.status()
        providers = _picked(status.get("providers"), _OF_PROVIDER)
        budgets = _picked(status.get("budgets"), _OF_BUDGET)
        streams = _picked(status.get("streams"), _OF_STREAM)
        # Those that are not live matter most.
        streams.sort(key=lambda one: one.get("status") == "connected")
        store = status.get("store")
        problem = store.get("problem") if isinstance(store, dict) else None
        values = {
            "server_time": moment(float(status.get("server_time") or 0)),
            "uptime_s": status.get("uptime_s"),
            "store_problem": problem,
            "providers": providers,
            "budgets": budgets,
            "streams": streams[:MOST_STREAMS],
            "streams_in_all": len(streams),
        }
        not_live = sum(one.get("status") != "connected" for one in streams)
        parts = [f"relay time {values['server_time']}, {len(streams)} streams, {not_live} of them not live"]
        if problem:
            parts.append(f"the store cannot be used: {problem}")
        for title, columns, rows in (
            ("providers", _OF_PROVIDER, providers),
            ("budgets", _OF_BUDGET, budgets),
            ("streams", _OF_STREAM, streams[:MOST_STREAMS]),
        ):
            parts.append(f"\n{title}\n{_lines(columns, rows)}" if rows else f"\n{title}: none")
        return ToolAnswer("\n".join(parts), values)


_ARGUMENTS = {"start_time": "start", "end_time": "end", "q": "query", "search": "query"}
_PARAMETER = re.compile(r"\b(?:start_time|end_time)\b|^(?:q|search)\b")


def explained(fault: ClientError) -> str:
    """Return in one line what an assistant can tell its user about a fault, in the words of the tools."""
    text = printable(str(fault)).replace(WHERE_SYMBOLS_ARE, "search_instruments finds symbols")
    text = text.replace(PLUS_IN_ADDRESSES, "")
    text = _PARAMETER.sub(lambda found: _ARGUMENTS[found[0]], text)
    if isinstance(fault, Refused):
        if fault.code == Code.NOT_FOUND:
            return "RELAY_URL is not exactly the address of a relay; relay serve prints the address"
        if fault.status == 401:
            text = "a valid token is needed; start relay mcp with RELAY_TOKEN or RELAY_TOKEN_FILE"
        if fault.retry_after is not None:
            text += f"; try again in {fault.retry_after:.0f} s"
    return text


def _instrument(one: ListedInstrument) -> dict[str, Any]:
    found: dict[str, Any] = {name: getattr(one, name) for name in _OF_INSTRUMENT}
    return {**found, "intervals": [*one.intervals, *one.derived_intervals]}


def _candle(candle: Candle) -> list[Any]:
    return [moment(candle.time), *candle[1:6]]


def _picked(rows: object, names: Iterable[str]) -> list[dict[str, Any]]:
    """Return of objects in a status the fields that are named; a relay of another version may lack some."""
    found = rows if isinstance(rows, list) else []
    return [{name: row.get(name) for name in names} for row in found if isinstance(row, dict)]


def _lines(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> str:
    lines = ["|".join(columns)]
    lines += ["|".join(_cell(row.get(column)) for column in columns) for row in rows]
    return "\n".join(lines)


def _text(lines: str, attributions: Iterable[str]) -> str:
    return "\n".join([lines, *(text for text in sorted(attributions) if text)])


def _cell(value: object) -> str:
    if isinstance(value, bool) or value is None:
        return "" if value is None else str(value).lower()
    if isinstance(value, float):
        return number(value)
    if isinstance(value, list):
        return listed(value)
    return printable(str(value)).replace("|", "/")
