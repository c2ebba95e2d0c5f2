"""Reads JSON that may be large: small texts at once, large ones in a thread that lets the event loop run."""

import json
import time
from typing import Any, NoReturn

import orjson

from relay.core.threads import in_thread

AT_ONCE = 256 * 1024
"""So many bytes take orjson a few milliseconds."""
_OBJECTS_A_TURN = 20


class NoJson(ValueError):
    """A text that is no JSON, or is nested too deep; the message says which."""


async def read_json(text: bytes) -> Any:
    """Return the value of a JSON text. Raises `NoJson`."""
    return parse(text) if len(text) <= AT_ONCE else await in_thread(parse_in_turns, text)


def parse(text: bytes) -> Any:
    """Return the value of a JSON text; nothing else runs meanwhile. Raises `NoJson`."""
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise NoJson("nested too deep" if "depth" in str(error) else "no JSON") from error


def parse_in_turns(text: bytes) -> Any:
    """Return what `parse` does, for a thread: other threads run after every few objects. Raises `NoJson`.

    `orjson` gives the interpreter to nobody before it is done, and takes 0.1 s for the largest answers.
    """
    left = _OBJECTS_A_TURN

    def give_way(value: dict[str, Any]) -> dict[str, Any]:
        nonlocal left
        left -= 1
        if not left:
            left = _OBJECTS_A_TURN
            time.sleep(0)
        return value

    try:
        value = json.loads(text.decode(), object_hook=give_way, parse_constant=_refuse)
        if b"\\ud" in text or b"\\uD" in text:
            # Half of a pair of surrogates is no text: orjson refuses it, json does not.
            orjson.dumps(value)
    except (ValueError, TypeError, RecursionError) as error:
        raise NoJson("nested too deep" if isinstance(error, RecursionError) else "no JSON") from error
    return value


def _refuse(constant: str) -> NoReturn:
    raise NoJson(f"{constant} is no JSON")
