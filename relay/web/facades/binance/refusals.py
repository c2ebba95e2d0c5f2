"""What Binance refuses, in its codes and words; and what the relay's own errors are in these. Pure but for the log.

Codes and texts are those of errors.md in https://github.com/binance/binance-spot-api-docs, as of 2026-07-21.
"""

from collections.abc import Mapping

import orjson
from aiohttp import web

from relay.core.errors import Code, ProviderTimeout, RateLimited, RequestError, UnknownSymbol
from relay.web.problems import problem_of

JSON = "application/json;charset=UTF-8"
TOO_MANY, TIMEOUT, UNAUTHORIZED, DISCONNECTED, UNKNOWN, UNSUPPORTED = -1003, -1007, -1002, -1001, -1000, -1020
BAD_KEY, BAD_INTERVAL, BAD_SYMBOL = -2015, -1120, -1121
MARKET_DATA_ONLY = (
    "This relay serves market data only: nothing that is signed, trades or shows an account. Send such requests to the "
    "exchange itself."
)
_TOO_MANY = "Too much request weight used; {}. Please use WebSocket Streams for live updates to avoid polling the API."
_TIMED_OUT = "Timeout waiting for response from backend server. Send status unknown; execution status unknown."


class BinanceRefusal(RequestError):
    """A request that Binance would refuse: its `number` and words, with HTTP's `status`."""

    def __init__(self, number: int, message: str, status: int = 400) -> None:
        super().__init__(Code.INVALID_REQUEST, message)
        self.number = number
        self.status = status


def mandatory(name: str) -> BinanceRefusal:
    """Refuse that a parameter is missing."""
    return BinanceRefusal(-1102, f"Mandatory parameter '{name}' was not sent, was empty/null, or malformed.")


def illegal(name: str, legal: str) -> BinanceRefusal:
    """Refuse the characters of a parameter."""
    return BinanceRefusal(-1100, f"Illegal characters found in parameter '{name}'; legal range is '{legal}'.")


def invalid(name: str) -> BinanceRefusal:
    """Refuse the value of a parameter."""
    return BinanceRefusal(-1130, f"Data sent for parameter '{name}' is not valid.")


def bad_symbol(why: str = "") -> BinanceRefusal:
    """Refuse a symbol that is not listed; `why` is for people, where Binance itself may list it."""
    return BinanceRefusal(BAD_SYMBOL, _with("Invalid symbol.", why))


def bad_interval(why: str = "") -> BinanceRefusal:
    """Refuse an interval that there is not; `why` is for people, where Binance itself may have it."""
    return BinanceRefusal(BAD_INTERVAL, _with("Invalid interval.", why))


def unsupported(why: str) -> BinanceRefusal:
    """Refuse what this relay cannot have, however often it is asked for."""
    return BinanceRefusal(UNSUPPORTED, _with("This operation is not supported.", why))


def _with(text: str, why: str) -> str:
    return f"{text} ({why})" if why else text


def market_data_only() -> BinanceRefusal:
    """Refuse what concerns an account."""
    return BinanceRefusal(UNAUTHORIZED, MARKET_DATA_ONLY, 403)


def answer_of(error: Exception, headers: Mapping[str, str], way_of_token: str = "") -> web.Response:
    """Return an error of the relay as Binance would say it; `way_of_token` for who sent none. Logs the unexpected."""
    if isinstance(error, BinanceRefusal):
        return refused(error.status, error.number, error.message, headers)
    plain = problem_of(error)
    status, (number, message) = plain.status, _said(error, plain.status, way_of_token)
    if number == TOO_MANY:
        status = 429
    elif number in (BAD_SYMBOL, BAD_INTERVAL):
        status = 400
    if (wait := plain.headers.get("Retry-After")) is not None:
        headers = {**headers, "Retry-After": wait}
    return refused(status, number, message, headers)


def refused(status: int, number: int, message: str, headers: Mapping[str, str]) -> web.Response:
    """Return an error in Binance's form."""
    body = orjson.dumps({"code": number, "msg": message})
    return web.Response(status=status, body=body, headers={"Content-Type": JSON, **headers})


def _said(error: Exception, status: int, way_of_token: str) -> tuple[int, str]:
    if isinstance(error, RateLimited):
        return TOO_MANY, _TOO_MANY.format(error)
    if isinstance(error, UnknownSymbol):
        return BAD_SYMBOL, "Invalid symbol."
    if isinstance(error, ProviderTimeout):
        return TIMEOUT, _TIMED_OUT
    if isinstance(error, RequestError):
        return _of_code(error, status, way_of_token)
    if status == 500:
        return UNKNOWN, "An unknown error occurred while processing the request."
    return DISCONNECTED, f"Internal error; unable to process your request. Please try again. ({error})"


def _of_code(error: RequestError, status: int, way_of_token: str) -> tuple[int, str]:
    if error.code is Code.RATE_LIMITED:
        return TOO_MANY, f"Too many requests; {error.message}."
    if error.code is Code.UNKNOWN_SYMBOL:
        return BAD_SYMBOL, "Invalid symbol."
    if error.code in (Code.UNKNOWN_INTERVAL, Code.UNSUPPORTED_INTERVAL):
        return BAD_INTERVAL, "Invalid interval."
    if error.code is Code.UNAUTHORIZED:
        return BAD_KEY, f"A valid token of the relay is needed: {way_of_token}."
    if status == 503:
        return DISCONNECTED, f"Internal error; unable to process your request. Please try again. ({error.message})"
    return (UNAUTHORIZED if error.code is Code.FORBIDDEN else UNKNOWN), error.message
