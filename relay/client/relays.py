"""The relays that a client may use, of which each serves the same: requests go to the one that worked last."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from yarl import URL

from relay.client.errors import BadReply, ClientClosed, ClientError, Refused, Unreachable
from relay.client.http import Http
from relay.core.errors import Code

T = TypeVar("T")


class Relays:
    """One relay or several, in their order; `preferred` is the number of the one that worked last."""

    def __init__(self, relays: Sequence[Http], timeout_s: float, first: int) -> None:
        self._relays = relays
        self._timeout_s = timeout_s
        self.preferred = first

    def __getitem__(self, number: int) -> Http:
        return self._relays[number]

    @property
    def url(self) -> URL:
        """The address of the preferred one."""
        return self._relays[self.preferred].url

    async def get(
        self, route: str, asked: Mapping[str, str | int | None], read: Callable[[Any], T], *, wait_s: int = 0
    ) -> T:
        """Return what `read` makes of an answer of the first relay that has one. Raises `ClientError`.

        All of them together have `timeout_s`: each takes an equal part of what is left. What each takes of the time in
        which it was allowed to answer, `wait_s`, does not count.
        """
        first, count = self.preferred, len(self._relays)
        left_s = self._timeout_s
        faults: list[ClientError] = []
        for step in range(count):
            number = (first + step) % count
            part_s, began = max(0.001, left_s) / (count - step), time.monotonic()
            try:
                answer = await self._relays[number].get(route, asked, read, wait_s + part_s)
            except ClientError as fault:
                if not is_of_relay(fault):
                    raise
                faults.append(fault)
                left_s -= max(0.0, time.monotonic() - began - wait_s)
            else:
                self.preferred = number
                return answer
        raise fault_of_all(faults)

    async def close(self) -> None:
        """Close the connections of all."""
        for relay in self._relays:
            await relay.close()


def is_of_relay(fault: ClientError) -> bool:
    """Say whether another relay may answer where one did not.

    A wrong request is wrong everywhere; one that is too many is too many for the next relay as well, and so is one to
    a provider that is not available.
    """
    if isinstance(fault, Refused):
        if not fault.code or fault.status in {401, 403}:
            return True
        return fault.status >= 500 and fault.code != Code.PROVIDER_UNAVAILABLE
    return isinstance(fault, Unreachable | BadReply)


def is_for_good(fault: ClientError | None) -> bool:
    """Say whether asking the same relay again would end the same way; None is a connection that was open."""
    return isinstance(fault, ClientClosed) or (isinstance(fault, Refused) and fault.status in {401, 403})


def fault_of_all(faults: Sequence[ClientError]) -> ClientError:
    """Return what to raise where every relay failed."""
    if len(faults) == 1 or all(map(is_for_good, faults)):
        return faults[-1]
    return Unreachable(f"none of {len(faults)} relays can be used: {'; '.join(map(str, faults))}")
