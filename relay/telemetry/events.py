"""What a log line is about, for machines: the name of the event, and the fields that a JSON line holds beside it."""


def event(name: str, **fields: object) -> dict[str, dict[str, object]]:
    """Return the `extra` of a log call: `log.warning("no ticks of %s", key, extra=event("no_ticks", stream=str(key)))`.

    The name stays when the sentence changes. A field that is no value of JSON is written as its text; fields named
    `time`, `level`, `logger`, `message` or `exception` are left out, since the line has its own. Who or what it is
    about has the same name everywhere: `provider`, `feed` (its number), `stream` (`BTCUSDT@1m`), `client` (its
    number), `source` (of a plugin).
    """
    return {"fields": {"event": name, **fields}}
