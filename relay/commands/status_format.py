"""What `GET …/status` answers as texts: single values, and lists as sections of rows; pure.

What this version does not know is shown all the same.
"""

import math
from typing import Any, NamedTuple

import orjson

from relay.commands.formatting import duration, listed, moment, printable

GOOD = {"connected", "live", "ok", "ready", "running", "market_closed"}

_FIRST = ("version", "uptime_s", "clients")
# The order of columns, the most telling first; a narrow terminal leaves out the last ones. Unknown ones follow.
_COLUMNS = (
    *("id", "name", "symbol", "interval", "provider", "state", "status", "wait_s", "wait_reason"),
    *("connections", "streams", "subscribers", "kept_by"),
    *("left", "limit", "resets_in_s", "lag_ms", "lag_spread_ms", "last_update", "gaps", "conflated", "used"),
    *("updates_in", "updates_out", "backfills", "backfilled", "revised", "seq", "reconnects", "title"),
)
# Long, and of no use in a row; `--json` has them.
_LEFT_OUT = {"events", "intervals", "source", "resets_at", "connects"}
# Marks by which relays find out that they ask themselves; nothing for people.
_OF_RELAYS = {"origins"}
_TIMES = ("last_update", "server_time", "since", "started", "time")


class Section(NamedTuple):
    """A list of the answer as a table of texts; `notes` holds the message of each row."""

    title: str
    columns: list[str]
    rows: list[list[str]]
    notes: list[str]


def sorted_out(answer: dict[str, Any]) -> tuple[list[tuple[str, str]], list[Section]]:
    """Return single values and lists apart."""
    facts: list[tuple[str, str]] = []
    sections: list[Section] = []
    inner: list[Section] = []
    now = answer.get("server_time")
    shown = [name for name in answer if name not in _OF_RELAYS]
    for name in sorted(shown, key=lambda name: _FIRST.index(name) if name in _FIRST else len(_FIRST)):
        value = answer[name]
        title = printable(name)
        if isinstance(value, dict) and value and all(isinstance(item, dict) for item in value.values()):
            value = [{"name": key, **item} for key, item in value.items()]
        if _is_table(value):
            sections.append(_section(title, value, now))
        elif isinstance(value, dict):
            tables = {key: item for key, item in value.items() if item and _is_table(item)}
            cells = [(_label(key), _cell(key, item)) for key, item in value.items() if key not in tables]
            facts.append((title, ", ".join(f"{label} {cell}" for label, cell in cells if cell) or "none"))
            inner += [_section(f"{title}, {printable(key)}", item, now) for key, item in tables.items()]
        else:
            facts.append((_label(title), _cell(name, value)))
    return facts, sections + inner


def _is_table(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(item, dict) for item in value)


def _section(title: str, items: list[dict[str, Any]], now: object) -> Section:
    items = sorted(items, key=_is_good)
    names = list(dict.fromkeys(name for item in items for name in item if name != "message" and name not in _LEFT_OUT))
    names.sort(key=lambda name: _COLUMNS.index(name) if name in _COLUMNS else len(_COLUMNS))
    filled = [name for name in names if any(_cell(name, item.get(name)) for item in items)]
    rows = [[_aged(name, item.get(name), now) for name in filled] for item in items]
    notes = ["" if _is_good(item) else _cell("message", item.get("message")) for item in items]
    return Section(title, [_label(name) for name in filled], rows, notes)


def _is_good(item: dict[str, Any]) -> bool:
    """Say whether nobody has to look at this one; the others come first, and say why."""
    state = item.get("status", item.get("state"))
    return state is None or state in GOOD


def _aged(name: str, value: Any, now: object) -> str:
    """Return a cell; moments of interest as what lies between them and now, where the relay says what time it is."""
    if name in ("last_update", "next_poll") and isinstance(value, int | float) and isinstance(now, int | float):
        return duration(abs(now - value))
    return _cell(name, value)


def _label(name: str) -> str:
    # The unit stands with the value.
    return printable(name.removesuffix("_s").removesuffix("_ms"))


def _cell(name: str, value: Any) -> str:
    if value is None or value in ([], {}):
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float) and math.isfinite(value):
        if name.endswith("_ms"):
            return (
                duration(value / 1000) if value >= 1000 else f"{value:.1f}ms" if 0 < value < 9.95 else f"{value:.0f}ms"
            )
        if name.endswith("_s"):
            return duration(value)
        if name.endswith("_bytes") or name.startswith("bytes_"):
            return _size(value)
        if (name in _TIMES or name.endswith("_at")) and value > 1e8:
            return moment(value / 1000 if value > 1e11 else value)
        return f"{value:g}" if isinstance(value, float) else str(value)
    if isinstance(value, list) and all(isinstance(item, str | int) for item in value):
        return printable(listed(value))
    if isinstance(value, dict):
        parts = [item.items() if isinstance(item, dict) else ((own, item),) for own, item in value.items()]
        flat = {own: item for part in parts for own, item in part}
        if not any(isinstance(item, dict | list) for item in flat.values()):
            return _pairs(name, flat)
    return printable(value if isinstance(value, str) else orjson.dumps(value).decode())


def _pairs(name: str, value: dict[str, Any]) -> str:
    """Return a small table on one line: `p50 0.1ms p99 23ms`; nothing where all of it is nothing."""
    if not any(value.values()):
        return ""
    unit = "_ms" if name.endswith("_ms") else ""
    return " ".join(f"{_label(key)} {_cell(key + unit, item)}" for key, item in value.items() if item is not None)


def _size(count: float) -> str:
    """Return a number of bytes: `512B`, `42.6kB`, `1.2MB`."""
    for limit, unit in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if count >= limit:
            return f"{count / limit:.1f}{unit}"
    return f"{count:.0f}B"
