"""Counts HTTP requests by route and status, for the metrics."""

from collections import Counter

from aiohttp import web

from relay.telemetry.histogram import Histogram

BOUNDS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
CLIENT_LEFT = 499
"""Not on the wire: the client was gone before there was an answer."""


class RequestCounts:
    """How many requests each route answered and how. A WebSocket is counted when it begins, and not timed."""

    def __init__(self) -> None:
        self.answered: Counter[tuple[str, int]] = Counter()
        self.durations: dict[str, Histogram] = {}

    def count(self, route: str, status: int, seconds: float | None) -> None:
        """Count one answer; None: it is not timed."""
        self.answered[(route, status)] += 1
        if seconds is not None:
            durations = self.durations.get(route)
            if durations is None:
                durations = self.durations[route] = Histogram(BOUNDS_S)
            durations.observe(seconds)


def route_of(request: web.Request) -> str:
    """Return the pattern that the path fits, never the path itself: a client can make up paths without end."""
    resource = request.match_info.route.resource
    return "unmatched" if resource is None else resource.canonical
