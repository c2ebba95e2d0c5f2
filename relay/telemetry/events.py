"""What a log line is about, for machines: the name of the event, and the fields that a JSON line holds beside it."""

import logging
from contextvars import ContextVar

INSTANCE: ContextVar[str] = ContextVar("instance", default="")
"""The instance for which a plugin runs here, "" for one that has its provider's own name.

A plugin knows its provider's name only. Tasks and threads that it starts inherit this.
"""


def speaker_of(record: logging.LogRecord) -> str:
    """Return the instance that a line of a plugin is about, "" where the line says itself whom it is about."""
    return "" if record.name.partition(".")[0] == "relay" else INSTANCE.get()


def event(name: str, **fields: object) -> dict[str, dict[str, object]]:
    """Return the `extra` of a log call: `log.warning("no ticks of %s", key, extra=event("no_ticks", stream=str(key)))`.

    The name stays when the sentence changes. A field that is no value of JSON is written as its text; fields named
    `time`, `level`, `logger`, `message` or `exception` are left out, since the line has its own. Who or what it is
    about has the same name everywhere: `provider`, `feed` (its number), `stream` (`BTCUSDT@1m`), `client` (its
    number), `source` (of a plugin).
    """
    return {"fields": {"event": name, **fields}}
