"""A text that must not show up in logs, errors, status or `repr`."""

import re
from base64 import b64encode
from collections.abc import Iterable, Iterator

_LEAST_SECRET = 4
"""Shorter texts appear anywhere by chance."""
_LEAST_ENCODED = 6
_QUOTES = "\"'`“”„‘’«»"
# Of addresses, of Base64 for addresses, and of HTML.
_OTHERS = {
    " ": r"\+", "+": "-", "/": "_", "&": "&(?:amp;){1,4}", "<": "&(?:amp;){0,4}lt;", ">": "&(?:amp;){0,4}gt;",
    '"': "&(?:amp;){0,4}quot;", "'": "&(?:amp;){0,4}apos;",
}  # fmt: skip


class Secret:
    """Wraps a key or token; only `reveal` gives it away."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """Return the text, for the one place that sends it."""
        return self._text

    def __bool__(self) -> bool:
        return bool(self._text)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._text == self._text

    def __hash__(self) -> int:
        return hash(self._text)

    def __repr__(self) -> str:
        return "Secret(***)"

    __str__ = __repr__


def clean_secret(text: str) -> str:
    """Return a key or a token without what files and shells leave around it: spaces and line ends.

    Raises `ValueError`, whose text does not repeat it, when nothing is left, when there is a line end or another
    character in it that nobody sees, or a quotation mark at its begin or end: some readers of such files take those
    away, and some leave them.
    """
    text = text.strip()
    if not text:
        raise ValueError("is empty")
    if not text.isprintable():
        raise ValueError("holds a line end, a tab or another character that cannot be seen; leave it out")
    if text[0] in _QUOTES or text[-1] in _QUOTES:
        raise ValueError("begins or ends with a quotation mark; write it without quotation marks")
    return text


def texts_of(values: Iterable[object]) -> Iterator[str]:
    """Give the texts of those values that are secrets, without those too short to be looked for."""
    for value in values:
        text = value.reveal() if isinstance(value, Secret) else ""
        if len(text) >= _LEAST_SECRET:
            yield text


def pattern_of(texts: Iterable[str]) -> re.Pattern[str]:
    """Return what finds secrets in a text, however it spells them; it finds nothing where there are none.

    Each character may be as it is, in another case, or escaped as in an address (also twice), in JSON, in a `repr` or
    in HTML. The whole may be hexadecimal, or somewhere in what is Base64, as in `Authorization: Basic`.
    """
    wholes = sorted({whole for text in texts for whole in _wholes(text)}, key=len, reverse=True)
    # By its first sign nearly every place of a text is passed over at once.
    first = {sign for whole in wholes for sign in (whole[0], *_OTHERS.get(whole[0], ""))}
    ways = "|".join("".join(map(_spelled, whole)) for whole in wholes)
    return re.compile(rf"(?=[{re.escape(''.join(first))}%&\\])(?:{ways})" if wholes else r"(?!)", re.IGNORECASE)


def _wholes(text: str) -> Iterator[str]:
    content = text.encode("utf-8", "surrogatepass")
    yield text
    yield content.hex()
    for before in range(3):
        # What stands around it shares its first and its last sign with it.
        inner = b64encode(bytes(before) + content).rstrip(b"=").decode()
        inner = inner[(0, 2, 3)[before] : None if (before + len(content)) % 3 == 0 else -1]
        if len(inner) >= _LEAST_ENCODED:
            yield inner


def _spelled(sign: str) -> str:
    """Return an expression for one character in all its spellings."""
    number = ord(sign)
    content = sign.encode("utf-8", "surrogatepass")
    units = sign.encode("utf-16-be", "surrogatepass").hex()
    ways = [
        re.escape(sign),
        "".join(f"%(?:25){{0,4}}{byte:02x}" for byte in content),
        "".join(rf"\\{{1,8}}u{units[at : at + 4]}" for at in range(0, len(units), 4)),
        "".join(rf"\\{{1,8}}x{byte:02x}" for byte in content),
        rf"&(?:amp;){{0,4}}#(?:0{{0,8}}{number}|x0{{0,8}}{number:x});",
    ]
    if sign in _OTHERS:
        ways.append(_OTHERS[sign])
    if not sign.isalnum():
        ways.append(r"\\{1,8}" + re.escape(sign))
    return f"(?:{'|'.join(ways)})"
