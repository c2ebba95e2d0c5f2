"""Log lines as text or JSON; what is logged is decided where it happens."""

import logging
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import TextIO

import orjson

from relay.telemetry.events import UNNAMED, event, speaker_of
from relay.telemetry.line_writer import LineWriter

log = logging.getLogger(__name__)

LAST_LINES_S = 1.0
"""How long the end of the process waits for its last lines to be written."""
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
        speaker = speaker_of(record)
        if speaker is not None and speaker.is_instance:
            record.message = f"{speaker.provider}: {record.message}"
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
        speaker = speaker_of(record)
        if speaker is not None:
            shown.setdefault("event", UNNAMED)
            if speaker.is_instance or "provider" not in shown:
                shown["provider"] = speaker.provider
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


class LineHandler(logging.StreamHandler[TextIO]):
    """Sends lines to a stream. Where that is a file, a pipe or a terminal, whoever logs does not wait for it."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        self._writer: LineWriter | None = None
        with suppress(OSError, ValueError):
            self._writer = LineWriter(stream.fileno(), _note_lost)

    def emit(self, record: logging.LogRecord) -> None:
        """Write a line, or have it written soon."""
        if self._writer is None:
            super().emit(record)
            return
        try:
            self._writer.put(f"{self.format(record)}{self.terminator}".encode(errors="backslashreplace"))
        except Exception:  # noqa: BLE001 - whoever logs goes on, as with every handler
            self.handleError(record)

    def handleError(self, record: logging.LogRecord) -> None:
        """Say where a line came from that cannot be put together, and not of what: that may hold a secret."""
        if record.name == __name__:
            # This very line.
            return
        error, place = sys.exc_info()[0], f"{record.filename}:{record.lineno}"
        reason = "" if error is None else error.__name__
        log.error(
            "a log line of %s at %s cannot be formatted: %s",
            record.name,
            place,
            reason,
            extra=event("log_line_unmade", place=place),
        )

    def close(self) -> None:
        """Wait a moment for what is not written yet."""
        if self._writer is not None:
            self._writer.drain(LAST_LINES_S)
        super().close()


def _note_lost(count: int) -> None:
    about = event("log_lines_lost", count=count)
    log.warning("%d log lines are lost: the reader of the log was too slow", count, extra=about)


def set_up_logs(level: str, style: str) -> None:
    """Send log lines to standard error."""
    handler = LineHandler(sys.stderr)
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
