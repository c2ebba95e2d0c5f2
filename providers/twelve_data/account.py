"""One account of Twelve Data: calls within its credits, and what the answers say about credits and time."""

import asyncio
import hashlib
import logging
import math
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Any

import aiohttp

from providers.twelve_data.answers import KeyRefused, contradiction, refusal
from providers.twelve_data.credits import Credits, CreditUse
from relay import (
    AuthenticationFailed,
    Clock,
    Hosts,
    Memory,
    ProviderClock,
    ProviderError,
    RateLimited,
    Secret,
    ask_rest,
    event,
    retry_after_s,
)

log = logging.getLogger(__name__)

_USAGE_EVERY_S = 6 * 3600.0
"""Our choice, as a question costs a credit (OpenAPI file, `/api_usage`)."""
_USAGE_EVERY_S_SHARED = 900.0
"""Our choice, where another program spends of the same key."""
_WARN_EVERY_S = 60.0
"""Our choice: a relay that sends nonsense again and again fills no log."""
_LONGEST_REASON = 200
"""Our choice, in characters."""
_FORGOTTEN_S = 600.0
"""Our choice: an earlier run that ended so recently has asked already."""


class Account:
    """The credits of one key. What is spent is remembered before a call is made, so that not even a kill forgets it.

    What other programs spend of the day is asked for (`/api_usage`, a credit itself): at the start unless an earlier
    run ended minutes ago, then every six hours, every quarter of an hour while the answers show that there are others.
    `is_answering` says whether the newest call was answered.
    """

    def __init__(
        self,
        settings: Mapping[str, Any],
        clock: Clock,
        server_clock: ProviderClock,
        memory: Memory | None,
        *,
        timeout_s: float,
    ) -> None:
        self._key: Secret = settings["api_key"]
        self._settings = settings
        self._clock = clock
        self._server_clock = server_clock
        self._memory = memory
        self._timeout_s = timeout_s
        self._hosts = Hosts(settings["rest_url"])
        self.is_answering = False
        self._checking = asyncio.Lock()
        self._checked_at: float | None = None
        self._foreign_known = 0
        self._warned_at = -math.inf
        self.credits = Credits(
            settings["credits_per_minute"],
            settings["credits_per_day"],
            wall=server_clock.now,
            monotonic=clock.monotonic,
            knows_time=lambda: server_clock.is_synchronised,
        )
        self.recall(memory)

    def follow(self, settings: Mapping[str, Any]) -> None:
        """Go on with other settings of the same key; with another plan the provider is asked what it says of it."""
        before, self._settings = self._settings, settings
        if settings["rest_url"] != before["rest_url"]:
            self._hosts = Hosts(settings["rest_url"])
        plan = settings["credits_per_minute"], settings["credits_per_day"]
        if plan != (before["credits_per_minute"], before["credits_per_day"]):
            self.credits.reconfigure(*plan)
            self._checked_at = None

    def recall(self, memory: Memory | None) -> None:
        """Go on where the last one ended who spent credits of the key: an earlier run, or another relay."""
        self._memory = memory
        state = None if memory is None else memory.value
        # Earlier versions did not say whose credits they were.
        if not isinstance(state, dict) or state.get("key", _mark(self._key)) != _mark(self._key):
            return
        try:
            wall = self._clock.wall()
            self.credits.restore(state, wall)
            age_s = wall - float(state["at"])
        except (ValueError, TypeError) as error:
            self._warn_of_memory(str(error)[:_LONGEST_REASON])
            return
        if 0 <= age_s < _FORGOTTEN_S:
            self._checked_at = self._clock.monotonic()

    def _warn_of_memory(self, reason: str) -> None:
        now = self._clock.monotonic()
        if now - self._warned_at < _WARN_EVERY_S:
            return
        self._warned_at = now
        log.warning(
            "the credits that an earlier run or another relay spent cannot be read (%r); asking the provider",
            reason,
            extra=event("spent_credits_unreadable", provider="twelve_data", reason=reason),
        )

    async def ask(
        self, path: str, params: Mapping[str, str | int], cost: int, session: aiohttp.ClientSession, use: CreditUse
    ) -> Any | KeyRefused:
        """Ask within the credits, and take what the answer says about credits and time.

        Returns the body, or the refusal of this request; raises the errors of the key, the credits and the server.
        """
        if not self._key:
            raise AuthenticationFailed("the API key is not set")
        if self._wants_usage():
            await self._ask_usage(session, use)
        return await self._call(path, params, cost, session, use)

    def _wants_usage(self) -> bool:
        if self._checked_at is None:
            return True
        has_others = self.credits.foreign_total > self._foreign_known
        every_s = _USAGE_EVERY_S_SHARED if has_others else _USAGE_EVERY_S
        return self._clock.monotonic() - self._checked_at >= every_s

    async def _ask_usage(self, session: aiohttp.ClientSession, use: CreditUse) -> None:
        """Ask how much of the day is used; whoever needs the answer first waits for it."""
        async with self._checking:
            if not self._wants_usage():
                return
            try:
                body = await self._call("/api_usage", {}, 1, session, use)
            except (AuthenticationFailed, RateLimited):
                raise
            except ProviderError:
                # Not worth standing still for; asked again in a quarter of an hour.
                self._checked_at = self._clock.monotonic() - _USAGE_EVERY_S + _USAGE_EVERY_S_SHARED
                return
            self._checked_at = self._clock.monotonic()
            self._foreign_known = self.credits.foreign_total
            if isinstance(body, dict):
                used, per_minute, per_day = map(
                    _number, map(str, map(body.get, ("daily_usage", "plan_limit", "plan_daily_limit")))
                )
                self.credits.correct(used or 0, per_minute, per_day)

    async def _call(
        self, path: str, params: Mapping[str, str | int], cost: int, session: aiohttp.ClientSession, use: CreditUse
    ) -> Any | KeyRefused:
        key, limits = self._key, self.credits
        spent = limits.spend(cost, use)
        self.is_answering = False
        used = left = None
        try:
            if self._memory is not None:
                await self._memory.save({**limits.state(self._clock.wall()), "key": _mark(key)})
            # One host a call: each request may cost its credits.
            answer = await ask_rest(
                session,
                self._hosts,
                path,
                params={"timezone": "UTC", **params},
                headers={"Authorization": f"apikey {key.reveal()}"},
                timeout_s=self._timeout_s,
                tries=1,
            )
            self._learn_time(answer.headers.get("Date"))
            used = _number(answer.headers.get("api-credits-used"))
            left = _number(answer.headers.get("api-credits-left"))
        finally:
            limits.settle(spent, used, left)
        refused = refusal(answer.body, answer.status, key)
        # Whatever the body says: a CDN in front of the provider refuses with words, and codes, of its own.
        if refused is not None and 429 in (refused.code, answer.status):
            limits.refuse(refused.message, retry_after_s(answer.headers.get("Retry-After"), self._clock.wall()))
            raise limits.shortage(cost, use)
        inside = None if refused is not None else _refusal_within(answer.body, key)
        if inside is not None:
            limits.refuse(inside.message)
        else:
            limits.relent()
        if refused is not None and (refused.code == 401 or refused.code >= 500):
            raise refused.error()
        self.is_answering = True
        if refused is None:
            return answer.body
        wrong = contradiction(answer.body, str(params.get("symbol", "")), str(params.get("interval", "")))
        # That there is nothing is believed only of what was asked for.
        return KeyRefused(0, wrong) if refused.is_empty and wrong is not None else refused

    def _learn_time(self, date: str | None) -> None:
        if date is None:
            return
        try:
            self._server_clock.observe(parsedate_to_datetime(date).timestamp())
        except (ValueError, OverflowError):
            return


def _refusal_within(body: Any, key: Secret) -> KeyRefused | None:
    """Return what one of the answers of a batch says of spent credits, None if none does."""
    entries = body.values() if isinstance(body, dict) else ()
    refusals = (refusal(entry, 200, key) for entry in entries if isinstance(entry, dict))
    return next((one for one in refusals if one is not None and one.code == 429), None)


def _mark(key: Secret) -> str:
    """Return what tells one key from another and gives none away: of so few bits many keys have the same."""
    return hashlib.blake2b(key.reveal().encode(), digest_size=3).hexdigest()


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and text.isascii() and text.isdigit() and len(text) < 10 else None
