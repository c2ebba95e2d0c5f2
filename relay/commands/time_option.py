"""Moments as flags of commands take them: dates, times and Unix seconds."""

import re

import click

from relay.core.errors import RequestError
from relay.protocol.fields import Moment, parse_date, shown


class _Time(Moment):
    """A time as the flags take it."""

    forms = f"{Moment.forms}, or dates such as 2025-11-24 and 2025-11-24T16:00"


_TIME = _Time()
_YEAR_OR_DAY = re.compile(r"((?:19|20)[0-9]{2})(?:(0[1-9]|1[0-2])([0-3][0-9]))?")


def moment_option(context: click.Context, option: click.Parameter, value: str | None) -> int | None:
    """Return the Unix seconds that a flag names as a date, a time or a number; a callback of click."""
    if value is None:
        return None
    text = value.strip()
    if found := _YEAR_OR_DAY.fullmatch(text):
        date = "-".join([found[1], found[2] or "01", found[3] or "01"])
        raise click.BadParameter(f"{text} would be a second of 1970; did you mean {date}?")
    moment = parse_date(text)
    if moment is None and not text.isdecimal():
        raise click.BadParameter(
            f"{shown(text)} is not a time; write a date such as 2025-11-24 or 2025-11-24T16:00 (UTC), or Unix seconds"
        )
    try:
        return _TIME.of_text("", text) if moment is None else _TIME.of_json("", moment)
    except RequestError as fault:
        # The message begins with the name of a field, which is none here.
        raise click.BadParameter(fault.message.strip()) from None
