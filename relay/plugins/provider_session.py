"""The HTTP session that the relay opens for one provider, and opens again when a plugin closed it."""

import logging
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC
from email.utils import parsedate_to_datetime

import aiohttp

from relay.core.clock import ProviderClock
from relay.core.errors import ProviderUnavailable
from relay.core.intake import Intake
from relay.core.outward_proxies import OutwardProxies
from relay.network.http_sessions import open_session
from relay.plugins.failure_judge import FailureJudge
from relay.telemetry.events import event

log = logging.getLogger(__name__)

SESSION_TIMEOUT = aiohttp.ClientTimeout(total=30, sock_connect=10)


def new_session(
    clock: ProviderClock, proxies: OutwardProxies | None = None, intake: Intake | None = None
) -> aiohttp.ClientSession:
    """Return an HTTP session for one provider, which reads the provider's clock from every answer.

    Its connections go through `proxies`, and its WebSockets are read when `intake` lets them be.
    """

    def read(headers: Mapping[str, str]) -> None:
        with suppress(TypeError, ValueError):
            stamp = parsedate_to_datetime(headers.get("Date", ""))
            clock.observe(stamp.replace(tzinfo=stamp.tzinfo or UTC).timestamp())

    return open_session(timeout=SESSION_TIMEOUT, on_headers=read, proxies=proxies, intake=intake)


class ProviderSession:
    """The session of one provider from `open` on; `clock` is read from its answers."""

    def __init__(self, name: str, clock: ProviderClock, proxies: OutwardProxies, failures: FailureJudge) -> None:
        self._name = name
        self._clock = clock
        self._proxies = proxies
        self._failures = failures
        self._session: aiohttp.ClientSession | None = None
        self._intake: Intake | None = None

    def open(self, session: aiohttp.ClientSession, intake: Intake | None) -> None:
        """Use this session from now on; another one in its place gets this `intake`."""
        self._session = session
        self._intake = intake

    @property
    def is_open(self) -> bool:
        """Whether there is a session, even one that the plugin closed."""
        return self._session is not None

    @property
    def present(self) -> aiohttp.ClientSession:
        """The session; another one when the plugin closed it, or its connector. Raises `ProviderUnavailable`."""
        if self._session is None:
            raise ProviderUnavailable(f"{self._name} is not open")
        if self._session.closed:
            self._failures.failed += 1
            log.error(
                "provider %s closed its session, which belongs to the relay; it must be corrected",
                self._name,
                extra=event("session_closed", provider=self._name),
            )
            self._session = new_session(self._clock, self._proxies, self._intake)
        return self._session

    async def close(self) -> None:
        """Close the session that is used now."""
        if self._session is not None:
            await self._session.close()
