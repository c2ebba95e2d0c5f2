"""How a symbol is spelt: the one place that says which characters it has, and where a provider's name ends; pure.

A symbol is the provider's own name of an instrument, so it holds what venues use: letters and digits of any script
(Binance lists Chinese names) and the signs `. _ / : - ^ = & ! + # $`, as in `BRK.B`, `EUR/USD`, `BTC/USDT:USDT`,
`^GSPC`, `ES=F`, `M&M.NS`, `NQ1!`, `EURUSD+`, `US30#` and `BAC$B`. It has at most 48 characters. It begins with a letter
or digit, or with one of `^ . # $ /` and then a letter or digit: `^GSPC`, `.DJI`, `#AAPL`, `$SPX`, `/ES`. Case does not
matter.

Other characters are refused, each for a reason:

- control characters, line ends and invisible ones: they change what a log line or a terminal shows
- spaces: they end an argument of a command, and nobody sees one at an end; a `+` that was not escaped in an address
  arrives as one
- `,` and `;` separate names in lists, `@` the symbol from the interval
- `%` begins an escape of addresses: a name that is escaped twice would be another name
- quotation marks and `\\` begin and end texts in JSON, CSV, shells and labels of metrics
- `* ? ( ) [ ] { } < > | ~` and the grave accent mean something to shells, patterns and HTML
- `-`, `_`, `:`, `=`, `+`, `&` and `!` at the beginning: an option of a command, a formula of a spreadsheet, a provider
  without a name

`provider:SYMBOL` names the provider too. What is before the first colon is a provider's name only if a provider is
called so; else it belongs to the symbol. A stream is `SYMBOL@INTERVAL`; a symbol has no `@`, so the last one divides.
"""

import re

from relay.core.errors import Code, RequestError
from relay.protocol.fields import Schema, shown

SYMBOL_LENGTH = 48
NAME_LENGTH = 2 * SYMBOL_LENGTH + 1
"""Of a symbol with the name of its provider."""
SIGNS = "._/:-^=&!+#$"
FIRST_SIGNS = "^.#$/"
SPELLING = (
    f"at most {SYMBOL_LENGTH} letters, digits and {' '.join(SIGNS)} "
    f"and starts with a letter or digit, or one of {' '.join(FIRST_SIGNS)} before it"
)
"""How an error says what a symbol is made of."""

# Spelt so that all dialects of regular expressions read it alike: what of ASCII is excluded, all else is taken.
_FIRST = r"[^\x00-/:-@\[-`{-\x7f]"
_REST = r"[^\x00-\x20\"%'-*,;<>-@\[-\]`{-\x7f]"
_PIN = r"([A-Za-z_][0-9A-Za-z_]{0,47}:)?"
SYMBOL: Schema = {
    "type": "string",
    "pattern": rf"^{_PIN}({_FIRST}{_REST}{{0,47}}|[#$./^]{_FIRST}{_REST}{{0,46}})$",
}

_SYMBOL = re.compile(r"(?=.{1,48}\Z)[\^.#$/]?(?!_)\w[\w./:^=&!+#$-]*", re.DOTALL)
_PROVIDER = re.compile(r"[a-z_][a-z0-9_]{0,47}", re.ASCII | re.IGNORECASE)
_NEVER = re.compile(r"[^\w./:^=&!+#$-]")


def is_symbol(text: str) -> bool:
    """Say whether a text can be a symbol, without the name of a provider."""
    return _SYMBOL.fullmatch(text) is not None


def parse_symbol(text: str) -> tuple[str | None, str]:
    """Return (provider or None, symbol in upper case) of `BTCUSDT` or `binance:BTCUSDT`.

    The provider is what may be one: `X:BTCUSD` and `BTC/USDT:USDT` may be whole symbols, which `whole_symbol` puts
    together again. Raises `RequestError` (unknown_symbol) when it cannot be a symbol at all.
    """
    provider, colon, symbol = text.partition(":")
    if colon and _PROVIDER.fullmatch(provider) and is_symbol(symbol):
        return provider.lower(), symbol.upper()
    if is_symbol(text):
        return None, text.upper()
    raise RequestError(
        Code.UNKNOWN_SYMBOL,
        f"unknown symbol {shown(text)}; a symbol has {SPELLING}, for example BTCUSDT, EUR/USD or ^GSPC"
        f"{_wrong_character(text)}{_symbol_meant(text)}",
        symbol=text[:NAME_LENGTH],
    )


def without_pin(name: str) -> str:
    """Return a name without what may be its provider: `BTC/USDT:USDT` of `ccxt:BTC/USDT:USDT`, and of itself."""
    provider, colon, symbol = name.partition(":")
    return symbol if colon and _PROVIDER.fullmatch(provider) else name


def whole_symbol(pin: str | None, symbol: str) -> str:
    """Return a symbol in upper case with what was taken for a provider before it."""
    return symbol.upper() if pin is None else f"{pin}:{symbol}".upper()


def _wrong_character(text: str) -> str:
    wrong = _NEVER.search(text)
    return "" if wrong is None or len(text) == 1 else f"; {shown(wrong[0])} cannot be in one"


def _symbol_meant(text: str) -> str:
    """Return the end of a complaint: the symbol without spaces in it and without its interval, if it is one then."""
    meant = "".join(text.partition("@")[0].split()).upper()
    return f"; did you mean {meant}?" if meant != text.upper() and is_symbol(meant) else ""
