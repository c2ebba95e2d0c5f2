"""Who may use the relay, from where, and how much of it."""

import hmac
import time
from collections import Counter
from collections.abc import Callable

from aiohttp import web
from aiohttp.typedefs import Middleware

from relay.config import Config
from relay.errors import Code, RequestError
from relay.web.problems import Handler, problem, problem_of

OPEN_PATHS = ("/healthz", "/readyz")


class TokenBucket:
    """Allows `burst` at once and `rate` a second in the long run."""

    __slots__ = ("_at", "_burst", "_clock", "_level", "_rate")

    def __init__(self, rate: float, burst: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate = rate
        self._burst = burst
        self._level = burst
        self._clock = clock
        self._at = clock()

    def take(self) -> bool:
        """Use one unit; return False if there is none."""
        now = self._clock()
        self._level = min(self._burst, self._level + (now - self._at) * self._rate)
        self._at = now
        if self._level < 1:
            return False
        self._level -= 1
        return True

    @property
    def wait_s(self) -> float:
        """Seconds until there is a unit again."""
        return max(0.0, (1 - self._level) / self._rate)


class Access:
    """Tokens, origins, and the number of WebSocket clients."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._tokens = tuple(token.reveal().strip().encode() for token in config.tokens)
        self._per_address: Counter[str] = Counter()
        self.clients = 0
        self.is_closing = False

    def check_token(self, request: web.Request) -> None:
        """Refuse a request without a valid token, if tokens are set. Raises `RequestError`.

        `?token=` counts on the WebSocket only, where a browser cannot send a header.
        """
        if not self._tokens:
            return
        scheme, _, given = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            is_websocket = request.headers.get("Upgrade", "").lower() == "websocket"
            given = request.query.get("token", "") if is_websocket else ""
        # What was no UTF-8 in the header comes as surrogates.
        offered = given.strip().encode("utf-8", "surrogateescape")
        # All are compared, so that the time taken does not tell which one nearly fitted.
        matches = [hmac.compare_digest(offered, token) for token in self._tokens]
        if not any(matches):
            raise RequestError(Code.UNAUTHORIZED, "a valid token is needed: send it as Authorization: Bearer TOKEN")

    def is_allowed_origin(self, request: web.Request) -> bool:
        """Say whether the request's origin may use the relay; no `Origin` means that no browser page sent it."""
        origin = request.headers.get("Origin")
        if origin is None:
            return True
        origin = origin.lower()
        return origin in self._config.allowed_origins or origin == f"{request.scheme}://{request.host}".lower()

    def check_origin(self, request: web.Request) -> None:
        """Refuse an origin that is not allowed. Raises `RequestError`."""
        if not self.is_allowed_origin(request):
            raise RequestError(Code.FORBIDDEN, "this Origin is not allowed; the operator can add it to allowed_origins")

    def admit(self, request: web.Request) -> str:
        """Count one more WebSocket client; return its address for `leave`. Raises `RequestError` when full."""
        address = request.remote or "unknown"
        if self.is_closing:
            raise RequestError(Code.INTERNAL, "the relay is shutting down", retry_after=5)
        if self.clients >= self._config.max_clients:
            raise RequestError(Code.INTERNAL, "the relay is full; try again later", retry_after=10)
        if self._per_address[address] >= self._config.max_clients_per_address:
            raise RequestError(
                Code.RATE_LIMITED,
                f"too many connections from one address; at most {self._config.max_clients_per_address} are allowed",
                retry_after=10,
            )
        self.clients += 1
        self._per_address[address] += 1
        return address

    def leave(self, address: str) -> None:
        """Count one client less."""
        self.clients -= 1
        self._per_address[address] -= 1
        if not self._per_address[address]:
            del self._per_address[address]


def access_middleware(access: Access) -> Middleware:
    """Check origins and tokens before everything else, and answer CORS by the list of allowed origins."""

    @web.middleware
    async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
        origin = request.headers.get("Origin")
        is_allowed = origin is not None and access.is_allowed_origin(request)
        if request.method == "OPTIONS" and "Access-Control-Request-Method" in request.headers:
            if not is_allowed:
                return problem(403, Code.FORBIDDEN, "this Origin is not allowed")
            answer: web.StreamResponse = web.Response(
                status=204,
                headers={
                    "Access-Control-Allow-Methods": "GET",
                    "Access-Control-Allow-Headers": "Authorization",
                    "Access-Control-Max-Age": "600",
                },
            )
        else:
            try:
                if request.path not in OPEN_PATHS:
                    access.check_origin(request)
                    access.check_token(request)
                answer = await handler(request)
            except RequestError as error:
                answer = problem_of(error)
        if not answer.prepared:
            answer.headers["Vary"] = "Origin"
            if is_allowed and origin is not None:
                answer.headers["Access-Control-Allow-Origin"] = origin
                answer.headers["Access-Control-Expose-Headers"] = "Retry-After, ETag"
        return answer

    return check
