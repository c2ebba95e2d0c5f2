"""Log lines as text or JSON; what is logged is decided where it happens."""

import logging
import sys
import time
from collections.abc import Callable
from functools import partial

import orjson

log = logging.getLogger(__name__)

OWN_FIELDS = frozenset({"time", "level", "logger", "message", "exception"})
"""What each JSON line says by itself, whatever fields it is given."""


def _writable(text: str) -> str:
    """Replace what no encoding can write, such as bytes of a path that are no UTF-8."""
    return text.encode("utf-8", "backslashreplace").decode()


def _as_it_is(text: str) -> str:
    return text


class TextFormatter(logging.Formatter):
    """One line for people; what came from outside cannot start a second one."""

    def __init__(self) -> None:
        self.conceal = _as_it_is
        super().__init__("%(asctime)s %(levelname)-7s %(name)s: %(message)s", "%Y-%m-%dT%H:%M:%SZ")
        self.converter = time.gmtime

    def format(self, record: logging.LogRecord) -> str:
        """Return the line and the traceback if there is one."""
        return self.conceal(super().format(record))

    def formatMessage(self, record: logging.LogRecord) -> str:
        """Return the line with control characters escaped."""
        text = super().formatMessage(record)
        return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


class JsonFormatter(logging.Formatter):
    """One JSON object a line."""

    def __init__(self) -> None:
        self.conceal = _as_it_is
        super().__init__()

    def format(self, record: logging.LogRecord) -> str:
        """Return time, level, logger, the event with its fields, the message, and the traceback if there is one."""
        # A plugin may have put anything there.
        fields = getattr(record, "fields", None)
        shown = {str(name): self._shown(value) for name, value in fields.items()} if isinstance(fields, dict) else {}
        line = {
            "time": f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(record.created))}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            **{_writable(name): value for name, value in shown.items() if name not in OWN_FIELDS},
            "message": self._told(record.getMessage()),
        }
        if record.exc_info:
            line["exception"] = self._told(self.formatException(record.exc_info))
        return orjson.dumps(line).decode()

    def _told(self, text: str) -> str:
        return self.conceal(_writable(text))

    def _shown(self, value: object) -> object:
        """Return a field as JSON can hold it; else its text."""
        if not isinstance(value, str):
            try:
                orjson.dumps(value)
            except TypeError:
                return self._told(str(value))
            return value
        return self._told(value)


def set_up_logs(level: str, style: str) -> None:
    """Send log lines to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if style == "json" else TextFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    # A request line holds the query, and with it ?token=.
    logging.getLogger("aiohttp.access").setLevel(logging.WARNING)
    # At debug it tells every statement, twice; what is asked for there are the relay's own lines.
    logging.getLogger("aiosqlite").setLevel(logging.WARNING)


def conceal_in_logs(conceal: Callable[[str], str]) -> None:
    """Have this take secrets out of all lines, whoever logs them: a library, or asyncio for a plugin's own task."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler.formatter, TextFormatter | JsonFormatter):
            before = handler.formatter.conceal
            handler.formatter.conceal = partial(_both, before, conceal)


def _both(first: Callable[[str], str], second: Callable[[str], str], text: str) -> str:
    return second(first(text))
