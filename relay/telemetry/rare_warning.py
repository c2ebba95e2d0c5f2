"""Warnings about what anybody can make happen: said now and then, so that nobody fills the log with them."""

import logging
import time

from relay.telemetry.events import event

EVERY_S = 60.0


class RareWarning:
    """One kind of warning, logged as one event, once a minute at most."""

    def __init__(self, log: logging.Logger, name: str, **fields: object) -> None:
        self._log = log
        self._name = name
        self._fields = fields
        self._at = -EVERY_S

    def say(self, text: str, *values: object, **fields: object) -> None:
        """Log it with some more fields, unless that was done within the last minute."""
        now = time.monotonic()
        if now - self._at >= EVERY_S:
            self._at = now
            self._log.warning(text, *values, extra=event(self._name, **self._fields, **fields))
