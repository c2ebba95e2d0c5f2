"""What a facade is: routes in the protocol of another service, over the parts that the relay has anyway."""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

from aiohttp import web

from relay.core.errors import ProviderTimeout
from relay.core.intervals import length_s
from relay.history.service import HistoryService
from relay.instruments.directory import Directory
from relay.plugins.provider import Provider
from relay.streams.hub import Hub
from relay.supervision.supervisor import Supervisor
from relay.web.access.access import BELOW_TOKEN, TOKEN_IN_HEADER, Access
from relay.web.facade_counts import FacadeCounts
from relay.web.http.cached_body import KeptBodies
from relay.web.http.instrument_lists import InstrumentLists
from relay.web.ws.route import Clients

Document = dict[str, Any]


class FacadeTiming(NamedTuple):
    """How long facades keep a series live that is polled, and how long they wait for what is due.

    Two requests within `kept_intervals`, but not within less than `least_kept_s` or more than `most_kept_s`, make a
    series live, and so long it stays live after the last one. The first event of a candle is waited for so long.
    """

    kept_intervals: int = 3
    least_kept_s: float = 60.0
    most_kept_s: float = 12 * 3600.0
    first_event_s: float = 3.5
    """On record the first event of a candle came up to 2.7 s after the end of the one before."""
    first_answer_s: float = 1.0
    """So long the first word of a stream of the exchange's own is waited for, before the exchange is asked."""
    answer_s: float = 9.0
    """So long an answer may take to make where programs give up after 10 s, and then know no reason."""

    def kept_s(self, interval: str) -> float:
        """Return how long a series stays live after the last request."""
        return min(self.most_kept_s, max(self.least_kept_s, self.kept_intervals * length_s(interval)))

    @asynccontextmanager
    async def in_time(self) -> AsyncIterator[None]:
        """Raise `ProviderTimeout` where an answer takes too long to make; what is on its way then goes on."""
        limit = asyncio.timeout(self.answer_s)
        try:
            async with limit:
                yield
        except TimeoutError:
            if not limit.expired():
                raise
            raise ProviderTimeout(f"the answer is not there after {self.answer_s:g} s; ask again") from None


FACADE_TIMING = FacadeTiming()


@dataclass(frozen=True, slots=True)
class FacadeParts:
    """The parts of the relay that facades are made of: no facade has a cache, or a way upstream, of its own."""

    access: Access
    hub: Hub
    directory: Directory
    history: HistoryService
    providers: dict[str, Provider]
    supervisors: dict[str, Supervisor]
    clients: Clients
    bodies: KeptBodies
    lists: InstrumentLists
    timing: FacadeTiming = FACADE_TIMING


class Facade(ABC):
    """One protocol. `roots` are the paths at and below which it answers, errors too; `counts` is what it did.

    `title` is what operators are told of the programs that speak it.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    roots: ClassVar[tuple[str, ...]]

    def __init__(self) -> None:
        self.counts = FacadeCounts(self.title)

    @abstractmethod
    def routes(self) -> Sequence[web.RouteDef]:
        """Return its routes, as they are without tokens."""

    @abstractmethod
    def openapi(self, *, needs_token: bool) -> Document:
        """Describe its routes over HTTP as an OpenAPI 3.1 document."""

    @abstractmethod
    def asyncapi(self, host: str, prefix: str, *, is_secure: bool, needs_token: bool) -> Document:
        """Describe its WebSocket as an AsyncAPI 3.0 document, for clients that reach the relay at `host`."""

    @abstractmethod
    def begin(self, parts: FacadeParts) -> None:
        """Answer by these parts from now on."""

    @abstractmethod
    def answer_of(self, request: web.Request, error: Exception) -> web.StreamResponse:
        """Return an error in the form of the protocol, also that there is no such route."""

    @abstractmethod
    async def close(self) -> None:
        """Let go of what was begun."""


class Facades:
    """The facades that are served, by name."""

    def __init__(self, facades: Iterable[Facade] = ()) -> None:
        self._facades = {facade.name: facade for facade in facades}

    def __iter__(self) -> Any:
        return iter(self._facades.values())

    @property
    def by_name(self) -> Mapping[str, Facade]:
        """All of them."""
        return self._facades

    @property
    def counts(self) -> Mapping[str, FacadeCounts]:
        """What each of them did."""
        return {name: facade.counts for name, facade in self._facades.items()}

    def routes(self) -> list[web.RouteDef]:
        """Return the routes of all, each with and without a token in its path."""
        found = []
        for facade in self:
            for route in facade.routes():
                found += [route, web.route(route.method, BELOW_TOKEN + route.path, route.handler, **route.kwargs)]
        return found

    def of(self, request: web.Request) -> Facade | None:
        """Return the facade that a path belongs to, whether there is such a route or not."""
        path = without_token(request.path)
        return next((facade for facade in self if any(map(_is_at(path), facade.roots))), None)

    def begin(self, parts: FacadeParts) -> None:
        """Answer by these parts from now on."""
        for facade in self:
            facade.begin(parts)

    async def close(self) -> None:
        """Let go of what was begun."""
        for facade in self:
            await facade.close()


FACADES = web.AppKey("facades", Facades)


def without_token(path: str) -> str:
    """Return a path without the part that holds a token."""
    if not path.startswith("/t/"):
        return path
    return "/" + path[3:].partition("/")[2]


def way_of_token(request: web.Request, roots: Iterable[str]) -> str:
    """Return how a token is sent to the route of a facade, which has one of these roots."""
    path = without_token(request.path)
    root = next(filter(_is_at(path), roots), "")
    return f"put it into the path, which then begins with /t/TOKEN{root}, or {TOKEN_IN_HEADER}"


def _is_at(path: str) -> Callable[[str], bool]:
    def is_at(root: str) -> bool:
        return path == root or path.startswith(root + "/")

    return is_at
