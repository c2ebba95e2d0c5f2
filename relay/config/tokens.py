"""Tokens that open the relay: reading their written forms, making new ones, comparing; no I/O, no HTTP.

A token is written as it is, or as `sha256:` and 64 hexadecimal digits. One plain SHA-256 is right here, and scrypt or
a salt would not be: those slow down the guessing of passwords that people choose, while `new_token` draws 256 random
bits, which nobody guesses or tabulates; and a token is checked on every request, where a slow hash would be a lever to
keep the relay busy. A password is no token.
"""

import hashlib
import hmac
import re
import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from relay.core.secret import Secret, clean_secret

HASHED = "sha256:"
SHORT = 16
"""Tokens of fewer characters can be guessed by who may try often. Our own choice."""
_DIGEST = re.compile(r"[0-9a-fA-F]{64}")
_NAME = re.compile(r"[\w.@-]{1,40}")
_NAMED = re.compile(r"[\w.@-]{1,40}\s*=(?!=*$)")
"""A token in Base64 has such signs at its end only."""


class Token(NamedTuple):
    """One token: what the operator calls it, and the SHA-256 of it. Neither opens anything.

    `is_short` says that it has fewer than 16 characters, as far as that is known.
    """

    name: str
    digest: bytes
    is_short: bool = False

    def __repr__(self) -> str:
        return f"Token({self.name!r}, ***)"


class Tokens:
    """The tokens that are valid now; none at all means that the relay is open."""

    __slots__ = ("_tokens",)

    def __init__(self, tokens: Iterable[Token] = ()) -> None:
        self._tokens = tuple(tokens)

    def match(self, offered: bytes) -> Token | None:
        """Return the token that was offered, or None.

        Digests are compared, each in constant time and all of them, so that the time taken tells neither how much of a
        token was right, nor how long it is, nor which one it nearly was.
        """
        digest = hashlib.sha256(offered).digest()
        found = None
        for token in self._tokens:
            if hmac.compare_digest(digest, token.digest):
                found = token
        return found

    def still_has(self, token: Token | None) -> bool:
        """Say whether who came with this token (None: without one) could come with it now, whatever its name is."""
        if token is None or not self._tokens:
            return not self._tokens
        return any(hmac.compare_digest(token.digest, one.digest) for one in self._tokens)

    def __bool__(self) -> bool:
        return bool(self._tokens)

    def __len__(self) -> int:
        return len(self._tokens)

    def __iter__(self) -> Iterator[Token]:
        return iter(self._tokens)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Tokens) and self._tokens == other._tokens

    def __hash__(self) -> int:
        return hash(self._tokens)

    def __repr__(self) -> str:
        return f"Tokens({', '.join(token.name for token in self._tokens)})"


def new_token() -> Secret:
    """Draw a token: 256 random bits, in letters that need no quoting anywhere."""
    return Secret(f"relay_{secrets.token_urlsafe(32)}")


def hashed(token: Secret) -> str:
    """Return the form of a token that opens nothing, for the configuration."""
    return HASHED + hashlib.sha256(token.reveal().encode()).hexdigest()


def parse_tokens(value: Any) -> Tokens:
    """Read a table of names, a list, or a text with commas or line ends. Raises `ValueError` that names no token."""
    if isinstance(value, str):
        # A comma at the end is harmless, a variable without any token in it is a mistake.
        value = [part for part in (part.strip() for part in re.split(r"[,\r\n]", value)) if part]
        if not value:
            raise ValueError("contains no token; relay token creates one")
        if any(map(_NAMED.match, value)):
            raise ValueError("contains NAME=TOKEN; names are possible only in the table [tokens] of a file")
    if isinstance(value, Mapping):
        named = [(str(name), written) for name, written in value.items()]
        if not all(_NAME.fullmatch(name) for name, _ in named):
            # It is not repeated: name and token may have been swapped.
            raise ValueError("contains an invalid name; a name in [tokens] has up to 40 letters, digits and . _ @ -")
    elif isinstance(value, Sequence) and not isinstance(value, bytes):
        named = [(f"token {number}", written) for number, written in enumerate(value, 1)]
    else:
        raise ValueError('is neither a list of tokens nor a table such as [tokens] with lines like alice = "…"')
    tokens = [_token(name, written) for name, written in named]
    names: dict[bytes, str] = {}
    for token in tokens:
        if token.digest in names:
            raise ValueError(f"contains the same token twice, as {names[token.digest]} and as {token.name}")
        names[token.digest] = token.name
    return Tokens(tokens)


def _token(name: str, written: Any) -> Token:
    if not isinstance(written, str) or not written.strip():
        raise ValueError(f"contains no token for {name}; relay token creates one")
    try:
        written = clean_secret(written)
    except ValueError as fault:
        raise ValueError(f"is not valid for {name}: it {fault}") from None
    if not written.startswith(HASHED):
        return Token(name, hashlib.sha256(written.encode()).digest(), len(written) < SHORT)
    digest = written.removeprefix(HASHED)
    if not _DIGEST.fullmatch(digest):
        raise ValueError(f"needs 64 hexadecimal digits after {HASHED} for {name}; relay token prints such a line")
    return Token(name, bytes.fromhex(digest))
