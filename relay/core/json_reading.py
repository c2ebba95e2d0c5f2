"""Reads JSON that may be large: small texts at once, large ones in a thread that lets the event loop run."""

import json
import math
import re
import time
from typing import Any, NoReturn

import orjson

from relay.core.threads import in_thread

AT_ONCE = 256 * 1024
"""So many bytes take orjson a few milliseconds."""
WINDOW = 16 * 1024
"""So many characters take the scanner of the standard library less than a millisecond, whatever they hold."""
_SHARE, _SHARE_CHARACTERS = 250, 64
"""So many values are read before other threads run; so many characters of one count as one more."""
_MOST_WASTED = 8

_SPACE = re.compile(r"[ \t\n\r]*")


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
        raise NoJson("nested too deep" if "depth" in str(error) else "not JSON") from error


def parse_in_turns(text: bytes, window: int = WINDOW) -> Any:
    """Return what `parse` does, for a thread: other threads run again and again, whatever it holds. Raises `NoJson`.

    `orjson` gives the interpreter to nobody before it is done, and takes 0.1 s for the largest answers.
    """
    try:
        return _Reader(text.decode(), window).read()
    except (ValueError, RecursionError) as error:
        raise NoJson("nested too deep" if isinstance(error, RecursionError) else "not JSON") from error


class _Reader:
    """Reads what fits into a window by the scanner of the standard library, which is C; takes apart what is larger.

    Raises ValueError for what is no JSON, RecursionError where it is nested too deep.
    """

    def __init__(self, text: str, window: int) -> None:
        self._text = text
        self._window = window
        self._scan = json.JSONDecoder(parse_constant=_refuse, parse_float=_finite).raw_decode
        self._part = text[:window]
        self._start = 0
        self._left = _SHARE
        # What is read twice, since it did not fit: for each level, what is larger than a window.
        self._spare = _MOST_WASTED * (len(text) // window + 64)
        self._may_be_no_text = "\\ud" in text or "\\uD" in text

    def read(self) -> Any:
        """Return the value of the whole text."""
        value, end = self._value(self._skip(0))
        if self._skip(end) != len(self._text):
            raise ValueError("there is more than one value")
        return value

    def _value(self, at: int) -> tuple[Any, int]:
        """Return the value at a place, and where it ends."""
        found = self._in_window(at)
        if found is None:
            self._part, self._start = self._text[at : at + self._window], at
            found = self._in_window(at)
        if found is None:
            return self._apart(at)
        self._give_way(1 + (found[1] - at) // _SHARE_CHARACTERS)
        return found

    def _in_window(self, at: int) -> tuple[Any, int] | None:
        """Return what `_value` does; None if it does not end within the window, or is no value."""
        try:
            value, end = self._scan(self._part, at - self._start)
        except ValueError:
            return None
        end += self._start
        if end > self._start + len(self._part) - 3 and end < len(self._text):
            # A number may go on, after a point or an exponent that was not taken for a part of it.
            return None
        if self._may_be_no_text:
            _check_text(value)
        return value, end

    def _apart(self, at: int) -> tuple[Any, int]:
        self._spare -= 1
        if self._spare < 0:
            raise RecursionError
        first = self._text[at : at + 1]
        if first == "[":
            return self._array(at)
        if first == "{":
            return self._object(at)
        value, end = self._scan(self._text, at)
        _check_text(value)
        return value, end

    def _array(self, at: int) -> tuple[list[Any], int]:
        values: list[Any] = []
        at = self._skip(at + 1)
        if self._text[at : at + 1] == "]":
            return values, at + 1
        while True:
            value, at = self._value(at)
            values.append(value)
            at, is_over = self._next(at, "]")
            if is_over:
                return values, at

    def _object(self, at: int) -> tuple[dict[str, Any], int]:
        values: dict[str, Any] = {}
        at = self._skip(at + 1)
        if self._text[at : at + 1] == "}":
            return values, at + 1
        while True:
            if self._text[at : at + 1] != '"':
                raise ValueError("a key is not a string")
            key, at = self._value(at)
            at = self._skip(at)
            if self._text[at : at + 1] != ":":
                raise ValueError("a key without a value")
            values[key], at = self._value(self._skip(at + 1))
            at, is_over = self._next(at, "}")
            if is_over:
                return values, at

    def _next(self, at: int, last: str) -> tuple[int, bool]:
        """Step over what comes after a value; return where to go on, and whether that was the last one."""
        at = self._skip(at)
        sign = self._text[at : at + 1]
        if sign not in (",", last):
            raise ValueError("neither the end nor one more value")
        return (at + 1, True) if sign == last else (self._skip(at + 1), False)

    def _skip(self, at: int) -> int:
        match = _SPACE.match(self._text, at)
        return at if match is None else match.end()

    def _give_way(self, share: int) -> None:
        self._left -= share
        if self._left < 0:
            self._left = _SHARE
            time.sleep(0)


def _check_text(value: Any) -> None:
    """Raise ValueError for half of a pair of surrogates, which is no text: orjson refuses it, json does not."""
    json.dumps(value, ensure_ascii=False).encode()


def _finite(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise NoJson(f"{text:.20} is out of range")
    return value


def _refuse(constant: str) -> NoReturn:
    raise NoJson(f"{constant} is not JSON")
