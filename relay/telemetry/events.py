"""What a log line is about, for machines: the name of the event, and the fields that a JSON line holds beside it."""


def event(name: str, **fields: object) -> dict[str, dict[str, object]]:
    """Return the `extra` of a log call.

    The name stays when the sentence changes; no field may be `time`, `level`, `logger` or `message`. Who or what it
    is about has the same name everywhere: `provider`, `feed` (its number), `stream` (`BTCUSDT@1m`), `client` (its
    number), `source` (of a plugin).
    """
    return {"fields": {"event": name, **fields}}
