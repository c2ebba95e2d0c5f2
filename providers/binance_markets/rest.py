"""Calls of Binance's REST interface within the weight that is allowed, and what its refusals mean."""

import re
import time
from collections.abc import Callable, Mapping
from typing import Any

import aiohttp

from providers.binance_markets.weight import PAUSE_S, UNIT_S, Weight
from relay import (
    LIST_BOUNDS,
    PAGE_BOUNDS,
    Bounds,
    Hosts,
    ProviderError,
    RateLimited,
    RestAnswer,
    UnknownSymbol,
    ask_rest,
)

_BAN_S = 120.0
"""rest-api.md, "IP Limits": bans last two minutes to three days; this is for an answer 418 that names no time."""
_INVALID_SYMBOL = -1121
"""errors.md, BAD_SYMBOL."""
_TOO_MANY = -1003
"""errors.md, TOO_MANY_REQUESTS."""
# The texts of -1003 in errors.md, and in "Error Codes" of futures, which name the address as well where recorded.
_BANNED_UNTIL = re.compile(r"banned until (\d{13})")
_LIMIT_NOW = re.compile(r"limit is (\d{1,9}) request weight per (\d{1,4}) (SECOND|MINUTE|HOUR|DAY)")
_LIMIT_A_MINUTE = re.compile(r"limit (?:of IP\([^)]{1,64}\) )?is (\d{1,9}) requests per minute")


class RestCalls:
    """Asks whichever of the REST servers works, and counts the `weight` of each call."""

    def __init__(self, hosts_of: Callable[[tuple[str, ...]], Hosts], weight: Weight) -> None:
        self._hosts_of = hosts_of
        self._weight = weight

    async def ask(
        self,
        path: str,
        params: Mapping[str, str | int],
        weight: int,
        session: aiohttp.ClientSession,
        settings: Mapping[str, Any],
        bounds: Bounds = PAGE_BOUNDS,
    ) -> Any:
        """Return the body of an answer to a call of so much weight. Raises `ProviderError`."""
        answer, error = await self._ask(path, params, weight, session, settings, bounds)
        if error is not None:
            raise error
        return answer.body

    async def ask_natively(
        self,
        path: str,
        params: Mapping[str, str | int],
        weight: int,
        session: aiohttp.ClientSession,
        settings: Mapping[str, Any],
    ) -> RestAnswer:
        """Return an answer as it is, also if it refuses what was asked. Raises `ProviderError` for other refusals."""
        answer, error = await self._ask(path, params, weight, session, settings, LIST_BOUNDS)
        is_of_the_question = answer.status == 400 and isinstance(answer.body, dict)
        if isinstance(error, RateLimited) or (error is not None and not is_of_the_question):
            raise error
        return answer

    async def _ask(
        self,
        path: str,
        params: Mapping[str, str | int],
        weight: int,
        session: aiohttp.ClientSession,
        settings: Mapping[str, Any],
        bounds: Bounds,
    ) -> tuple[RestAnswer, ProviderError | None]:
        """Return an answer, and what it means if it is none."""
        self._weight.spend(weight)
        hosts = self._hosts_of(settings["rest_url"])
        answer = await ask_rest(session, hosts, path, params=params, bounds=bounds)
        self._weight.learn(answer.headers.get("X-MBX-USED-WEIGHT-1M"))
        if answer.status == 200:
            self._weight.relent()
            return answer, None
        error = _refusal(answer, self._weight)
        if isinstance(error, RateLimited):
            self._weight.block(error.retry_after, str(error))
        return answer, error


def _refusal(answer: RestAnswer, weight: Weight) -> ProviderError:
    body = answer.body if isinstance(answer.body, dict) else {}
    message = body.get("msg")
    reason = message if isinstance(message, str) else ""
    if body.get("code") == _INVALID_SYMBOL:
        return UnknownSymbol(reason)
    # Its words name this machine's address, and parameters that no client knows.
    error = answer.error("too many requests" if answer.status in (418, 429) else "", detail=reason)
    if body.get("code") == _TOO_MANY and not isinstance(error, RateLimited):
        error = RateLimited(str(error), PAUSE_S, detail=reason, by_provider=True)
    if not isinstance(error, RateLimited):
        weight.relent()
        return error
    if (stated := _LIMIT_NOW.search(reason)) is not None:
        weight.state(int(stated[1]), int(stated[2]) * UNIT_S[stated[3]])
    elif (stated := _LIMIT_A_MINUTE.search(reason)) is not None:
        weight.state(int(stated[1]), UNIT_S["MINUTE"])
    if "Retry-After" not in answer.headers:
        banned = _BANNED_UNTIL.search(reason)
        if banned is not None:
            error.retry_after = max(1.0, int(banned[1]) / 1000 - time.time())
        elif answer.status == 418:
            error.retry_after = max(_BAN_S, weight.pause_s())
        else:
            error.retry_after = weight.pause_s()
    return error
