"""How else somebody may have meant to spell a symbol, the likeliest first; pure, and quick however many there are."""

import re
from collections.abc import Iterator
from itertools import product
from string import ascii_uppercase, digits

SIGNS = ("", "/", "-", "_")
DECORATIONS = ("^{}", ".{}", "${}", "/{}", "#{}", "{}=F", "{}=X", "{}1!", "{}!")
"""Signs that venues put around indices, futures and currencies, and that people leave out: `^GSPC`, `ES=F`, `NQ1!`."""
QUOTES = ("USDT", "USDC", "USD", "EUR", "BTC")
"""The currencies that most people mean who name none, and who write USD. Our own choice."""
COMMON_NAMES = {
    "BITCOIN": "BTC", "XBT": "BTC", "ETHEREUM": "ETH", "ETHER": "ETH", "RIPPLE": "XRP", "SOLANA": "SOL",
    "CARDANO": "ADA", "DOGECOIN": "DOGE", "LITECOIN": "LTC", "POLKADOT": "DOT", "AVALANCHE": "AVAX",
    "CHAINLINK": "LINK", "TRON": "TRX", "STELLAR": "XLM", "MONERO": "XMR", "TONCOIN": "TON", "SHIBA": "SHIB",
    "UNISWAP": "UNI", "COSMOS": "ATOM", "POLYGON": "POL", "APTOS": "APT", "TETHER": "USDT",
    "GOLD": "XAU", "SILVER": "XAG", "EURO": "EUR", "POUND": "GBP", "STERLING": "GBP", "DOLLAR": "USD", "YEN": "JPY",
    "FRANC": "CHF",
}  # fmt: skip
"""What people call currencies, by no provider's list. Our own choice."""

_SIGNS = re.compile(r"[/:_.\s^=&!+#$-]+")
_DECORATED = re.compile(r"([\^.#$/]?)(.*?)(=[FX]|!|)", re.DOTALL)
_LETTERS = ascii_uppercase + digits
_LONGEST_EDITED = 16
_SHORTEST_EDITED = 4


def other_spellings(asked: str) -> Iterator[str]:
    """Yield symbols in upper case that may be meant by `asked`; some come twice.

    In turn: as it is, with signs around it, with other signs, by names of currencies, with another dollar, a currency
    alone, and without the name of a provider in front.
    """
    yield asked.upper()
    parts = [COMMON_NAMES.get(part, part) for part in _SIGNS.split(asked.upper()) if part]
    if not parts:
        return
    whole = "".join(parts)
    for bare in (asked.upper(), whole):
        yield from (decoration.format(bare) for decoration in DECORATIONS)
    pairs = [(parts[0], whole[len(parts[0]) :])] if len(parts) > 1 else []
    pairs += [(whole[:at], whole[at:]) for at in range(2, len(whole) - 1)]
    yield whole
    yield from _joined(pairs)
    yield from _joined([(COMMON_NAMES.get(base, base), COMMON_NAMES.get(quote, quote)) for base, quote in pairs])
    # Most venues trade against a dollar that is not USD.
    yield from _joined(
        [(COMMON_NAMES.get(base, base), other) for base, quote in pairs if quote in QUOTES[:3] for other in QUOTES[:3]]
    )
    if len(parts) == 1:
        yield from _joined([(whole, quote) for quote in QUOTES])
    _, colon, rest = asked.partition(":")
    if colon:
        yield from other_spellings(rest)


def typing_errors(asked: str) -> Iterator[str]:
    """Yield symbols in upper case that differ by one letter, wrong, missing or too many, or two in the wrong order."""
    before, whole, after = _DECORATED.fullmatch(asked.upper()).groups()  # type: ignore[union-attr]  # it fits any text
    whole = "".join(filter(str.isalnum, whole))
    if _SHORTEST_EDITED <= len(whole) <= _LONGEST_EDITED:
        for edited in _edited(whole):
            yield before + edited + after
            yield f"{edited[:3]}/{edited[3:]}"


def _joined(pairs: list[tuple[str, str]]) -> Iterator[str]:
    for (base, quote), sign in product(pairs, SIGNS):
        yield base + sign + quote


def _edited(word: str) -> Iterator[str]:
    for at in range(len(word) - 1):
        yield word[:at] + word[at + 1] + word[at] + word[at + 2 :]
    for at in range(len(word)):
        yield word[:at] + word[at + 1 :]
    for at, letter in product(range(len(word)), _LETTERS):
        yield word[:at] + letter + word[at + 1 :]
    for at, letter in product(range(len(word) + 1), _LETTERS):
        yield word[:at] + letter + word[at:]
