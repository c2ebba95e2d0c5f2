"""What errors of ccxt mean for the relay; its words hold addresses, so they are for the log."""

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import ModuleType
from typing import Any

from relay import (
    AuthenticationFailed,
    BadAnswer,
    ProviderError,
    ProviderTimeout,
    ProviderUnavailable,
    RateLimited,
    UnknownSymbol,
)

REFUSED_S = 30.0
"""Our choice, for an exchange that does not say how long to wait; ccxt does not say it either."""
GUARDED_S = 60.0
"""Our choice, for a guard in front of an exchange (`DDoSProtection`): asking on makes it refuse for longer."""
_LONGEST_S = 3600.0
"""Our choice."""
_READING = (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RecursionError)
"""What the code of ccxt for an exchange raises for an answer that it does not expect."""


@contextmanager
def judged(kinds: ModuleType, what: str, client: Any = None) -> Iterator[None]:
    """Raise what an error of ccxt means instead of it. `kinds` is its module of errors, `what` was asked for.

    The `client` has the headers of the last answer, which say how long to wait. A cancellation passes only if this task
    is cancelled: ccxt lets several calls wait for one task, and cancels that with any of them.
    """
    try:
        yield
    except kinds.BaseError as error:
        headers = getattr(client, "last_response_headers", None) or {}
        raise meaning_of(error, kinds, what, headers) from None
    except _READING as error:
        raise BadAnswer(f"the answer of the exchange cannot be read: {what}", detail=repr(error)) from None
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        raise ProviderUnavailable(f"the connection was closed: {what}") from None


def meaning_of(error: Exception, kinds: ModuleType, what: str, headers: Mapping[str, str]) -> ProviderError:
    """Return the error of the relay that an error of ccxt is; those come first that are kinds of later ones."""
    detail = f"{type(error).__name__}: {error}"[:1000]
    if isinstance(error, kinds.BadSymbol):
        return UnknownSymbol(f"the exchange does not list it: {what}", detail=detail)
    if isinstance(error, kinds.RateLimitExceeded):
        said = "the exchange answers no more requests for now"
        return RateLimited(said, _wait_s(headers, REFUSED_S), detail=detail, by_provider=True)
    if isinstance(error, kinds.DDoSProtection):
        said = "the exchange holds off requests for now"
        return RateLimited(said, _wait_s(headers, GUARDED_S), detail=detail, by_provider=True)
    if isinstance(error, kinds.AuthenticationError):
        return AuthenticationFailed("the exchange refused the key, or needs one", detail=detail)
    if isinstance(error, kinds.RequestTimeout):
        return ProviderTimeout(f"the exchange did not answer in time: {what}", detail=detail)
    if isinstance(error, kinds.OnMaintenance):
        return ProviderUnavailable("the exchange says that it is under maintenance", detail=detail)
    if isinstance(error, kinds.NetworkError):
        return ProviderUnavailable("the exchange cannot be reached, or says that it is not available", detail=detail)
    if isinstance(error, kinds.BadResponse):
        return BadAnswer(f"what the exchange sent cannot be read: {what}", detail=detail)
    if isinstance(error, kinds.NotSupported):
        return BadAnswer(f"ccxt cannot do this with the exchange: {what}", detail=detail)
    return BadAnswer(f"the exchange refused the request: {what}", detail=detail)


def _wait_s(headers: Mapping[str, str], usual_s: float) -> float:
    """Return for how long an exchange says to wait. Its header has seconds; a date is none that ccxt keeps apart."""
    said = next((text for name, text in headers.items() if name.lower() == "retry-after"), "")
    return min(float(said), _LONGEST_S) if said.isascii() and said.isdecimal() else usual_s
