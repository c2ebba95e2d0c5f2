"""What a log line is about, for machines: the name of the event, and the fields that a JSON line holds beside it."""

import logging
from contextvars import ContextVar
from typing import NamedTuple

UNNAMED = "plugin_line"
"""The event of a plugin's line that names none, such as one of a library that it uses."""


class Speaker(NamedTuple):
    """The provider whose plugin runs here, and whether it is an instance with another name than the plugin knows."""

    provider: str
    is_instance: bool


SPEAKER: ContextVar[Speaker | None] = ContextVar("speaker", default=None)
"""Set while a plugin runs. Tasks and threads that it starts inherit it."""


def speaker_of(record: logging.LogRecord) -> Speaker | None:
    """Return whose plugin a line comes from, None for the relay's own: they say themselves whom they are about."""
    return None if record.name.partition(".")[0] == "relay" else SPEAKER.get()


def event(name: str, **fields: object) -> dict[str, dict[str, object]]:
    """Return the `extra` of a log call: `log.warning("no ticks of %s", key, extra=event("no_ticks", stream=str(key)))`.

    The name stays when the sentence changes. A field that is no value of JSON is written as its text; fields named
    `time`, `level`, `logger`, `message` or `exception` are left out, since the line has its own. Who or what it is
    about has the same name everywhere: `provider`, `feed` (its number), `stream` (`BTCUSDT@1m`), `client` (its
    number), `source` (of a plugin).
    """
    return {"fields": {"event": name, **fields}}
