"""Who may use the relay, from where, and how much of it."""

from collections import Counter
from collections.abc import Awaitable
from typing import NamedTuple

from aiohttp import web
from aiohttp.typedefs import Middleware

from relay.config import Config
from relay.errors import Code, RequestError
from relay.limits import Buckets, Shares, TokenBucket
from relay.model import StreamKey
from relay.tokens import Token
from relay.web import callers, origins
from relay.web.problems import Handler, problem, problem_of

PREFIX = "/api/v1/market-data"
WEBSOCKET, HISTORY = f"{PREFIX}/ws", f"{PREFIX}/history"
# Asked by machines that watch the relay, as often as they like.
HEALTH = frozenset({"/healthz", "/readyz"})
# The pages and what they load, and the descriptions of the contract: they hold nothing that needs a token.
PAGES = frozenset(
    {"/", "/status.html", "/client.js", "/client.d.ts", "/favicon.ico", "/docs", "/openapi.json", "/asyncapi.json"}
)
PAGES_BELOW = ("/static/", "/docs/")
# Opened by `public_status`.
STATUS = frozenset({f"{PREFIX}/status", "/metrics"})

REQUEST_BURST_S = 10.0
LEAST_CONNECTS = 300
# Of an address that is not this machine itself, unless the configuration says otherwise.
REQUESTS_PER_SECOND = 1_000.0
ROWS_PER_MINUTE = 10_000_000
TOKEN_OWNER = "token:"


class Caller(NamedTuple):
    """Who opened a connection: the real address, whom limits count it for, and the token."""

    address: str
    owner: str
    token: Token | None


class Access:
    """Tokens, origins, and what each address may use. `reconfigure` changes all of it while the relay runs."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self._per_owner: Counter[str] = Counter()
        self._per_token: Counter[str] = Counter()
        self._connects: Buckets[str] = Buckets(*_connects(config))
        self._requests: Buckets[str] = Buckets(*requests_limit(_requests(config)))
        self._rows: Buckets[str] = Buckets(*rows_limit(_rows(config)))
        self.shares: Shares[str, tuple[str, StreamKey]] = Shares()
        self.clients = 0
        self.is_closing = False

    def reconfigure(self, config: Config) -> None:
        """Go by another configuration from now on; who is connected is the caller's concern."""
        self.config = config
        self._connects.set_limit(*_connects(config))
        self._requests.set_limit(*requests_limit(_requests(config)))
        self._rows.set_limit(*rows_limit(_rows(config)))

    # -- who ---------------------------------------------------------------------------------------

    def address(self, request: web.Request) -> str:
        """Return the address of the client, behind trusted proxies as well."""
        trusted = self.config.trusted_proxies
        forwarded = request.headers.getall("X-Forwarded-For", []) if trusted else ()
        return callers.client_address(request.remote, forwarded, trusted)

    def owner(self, request: web.Request) -> str:
        """Return whom limits count the address of a request for."""
        return callers.owner_of(self.address(request))

    def client(self, request: web.Request) -> str:
        """Return whom limits of HTTP count a request for: its token, wherever it comes from, else its address."""
        token = self._token(request)
        # No address is written so.
        return self.owner(request) if token is None else f"{TOKEN_OWNER}{token.name}"

    def check_token(self, request: web.Request) -> Token | None:
        """Return the token of a request, None if none are set. Raises `RequestError` without a valid one."""
        token = self._token(request)
        if token is None and self.config.tokens:
            raise RequestError(Code.UNAUTHORIZED, "a valid token is needed: send it as Authorization: Bearer TOKEN")
        return token

    def _token(self, request: web.Request) -> Token | None:
        """Return the valid token of a request; `?token=` is one on the WebSocket, where a browser sends no header."""
        tokens = self.config.tokens
        if not tokens:
            return None
        scheme, _, given = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            is_websocket = request.path == WEBSOCKET and _is_upgrade(request)
            given = request.query.get("token", "") if is_websocket else ""
        # What was no UTF-8 in the header comes as surrogates.
        return tokens.match(given.strip().encode("utf-8", "surrogateescape")) if given else None

    def stands(self, caller: Caller) -> bool:
        """Say whether a client that is connected could connect with its token now."""
        return self.config.tokens.still_has(caller.token)

    def clients_by_token(self) -> dict[str, dict[str, int]]:
        """Return how many clients are connected by which token, for the status; nothing when everybody may see that."""
        if not self.config.tokens or self.config.public_status:
            return {}
        return {"tokens": {token.name: self._per_token[token.name] for token in self.config.tokens}}

    # -- how much ----------------------------------------------------------------------------------

    def take_request(self, owner: str) -> float:
        """Count one request; return 0, or how many seconds to wait if there were too many from this address."""
        if self._counts_no_requests(owner):
            return 0.0
        bucket = self._requests.of(owner)
        return 0.0 if bucket.take() else bucket.wait_s

    def most_requests(self, owner: str) -> str:
        """Say how many requests a WebSocket client of an address may send."""
        own = f"{self.config.max_requests_per_second:g} requests a second"
        return own if self._counts_no_requests(owner) else f"{own}, or {_requests(self.config):g} from one address"

    # Programs on this machine are counted only where the configuration says so: they could as well stop the relay.

    def _counts_no_connects(self, owner: str) -> bool:
        return not self.config.max_connects_per_minute and callers.is_this_machine(owner)

    def _counts_no_requests(self, owner: str) -> bool:
        return not self.config.max_requests_per_second_per_address and callers.is_this_machine(owner)

    def _counts_no_rows(self, owner: str) -> bool:
        return not self.config.max_history_rows_per_minute_per_address and callers.is_this_machine(owner)

    def check_rate(self, request: web.Request) -> None:
        """Count one request, or one attempt to open a WebSocket. Raises `RequestError` when there were too many."""
        owner = self.owner(request)
        if _is_upgrade(request):
            if self._counts_no_connects(owner):
                return
            bucket = self._connects.of(owner)
            what = f"{_connects(self.config)[1]:g} new connections a minute from one address"
        elif self._counts_no_requests(owner):
            return
        else:
            client = self.client(request)
            bucket = self._requests.of(client)
            what = f"{_requests(self.config):g} requests a second from {_whose(client)}"
        if not bucket.take():
            raise RequestError(
                Code.RATE_LIMITED, f"more than {what}; wait {bucket.wait_s:.2f} s", retry_after=bucket.wait_s
            )

    def check_rows(self, owner: str) -> None:
        """Refuse candles of the past to an address that had its share. Raises `RequestError`."""
        if not self._counts_no_rows(owner):
            check_rows(self._rows.of(owner), _rows(self.config), _whose(owner))

    def spend_rows(self, owner: str, rows: int) -> None:
        """Count candles of the past that an address was given."""
        if not self._counts_no_rows(owner):
            self._rows.of(owner).spend(rows)

    def check_rows_of(self, request: web.Request) -> None:
        """Refuse candles of the past to who sends a request and had its share. Raises `RequestError`."""
        if not self._counts_no_rows(self.owner(request)):
            self.check_rows(self.client(request))

    def spend_rows_of(self, request: web.Request, rows: int) -> None:
        """Count candles of the past that a request was answered with."""
        if not self._counts_no_rows(self.owner(request)):
            self.spend_rows(self.client(request), rows)

    def admit(self, request: web.Request) -> Caller:
        """Count one more WebSocket client; return what `leave` wants. Raises `RequestError` when full."""
        token = self.check_token(request)
        address = self.address(request)
        owner = callers.owner_of(address)
        if self.is_closing:
            raise RequestError(Code.INTERNAL, "the relay is shutting down", retry_after=5)
        if self.clients >= self.config.max_clients:
            raise RequestError(Code.INTERNAL, "the relay is full; try again later", retry_after=10)
        if self._per_owner[owner] >= self.config.max_clients_per_address:
            raise RequestError(
                Code.RATE_LIMITED,
                f"too many connections from one address; at most {self.config.max_clients_per_address} are allowed",
                retry_after=10,
            )
        self.clients += 1
        self._per_owner[owner] += 1
        if token is not None:
            self._per_token[token.name] += 1
        return Caller(address, owner, token)

    def leave(self, caller: Caller) -> None:
        """Count one client less."""
        self.clients -= 1
        _count_down(self._per_owner, caller.owner)
        if caller.token is not None:
            _count_down(self._per_token, caller.token.name)


ACCESS = web.AppKey("access", Access)


def requests_limit(a_second: float) -> tuple[float, float]:
    """Return rate and burst of requests: those of ten seconds may come at once."""
    return a_second, max(1.0, a_second * REQUEST_BURST_S)


def rows_limit(a_minute: int) -> tuple[float, float]:
    """Return rate and burst of candles of the past: those of a minute may come at once."""
    return a_minute / 60, a_minute


def check_rows(bucket: TokenBucket, most: int, whose: str) -> None:
    """Refuse candles of the past while a bucket is empty. Raises `RequestError`."""
    wait_s = bucket.wait_s
    if wait_s:
        raise RequestError(
            Code.RATE_LIMITED,
            f"{whose} gets at most {most} candles of the past a minute; wait {wait_s:.2f} s",
            retry_after=wait_s,
        )


def _whose(owner: str) -> str:
    return "one token" if owner.startswith(TOKEN_OWNER) else "one address"


def _connects(config: Config) -> tuple[float, float]:
    # After an outage all clients behind one address come back at once.
    most = config.max_connects_per_minute or max(LEAST_CONNECTS, config.max_clients_per_address)
    return most / 60, most


def _requests(config: Config) -> float:
    return config.max_requests_per_second_per_address or REQUESTS_PER_SECOND


def _rows(config: Config) -> int:
    return config.max_history_rows_per_minute_per_address or ROWS_PER_MINUTE


def _count_down(counter: Counter[str], key: str) -> None:
    counter[key] -= 1
    if counter[key] <= 0:
        del counter[key]


def _is_upgrade(request: web.Request) -> bool:
    return request.headers.get("Upgrade", "").lower() == "websocket"


def _is_page(path: str) -> bool:
    return path in PAGES or path.startswith(PAGES_BELOW)


def access_middleware(access: Access) -> Middleware:
    """Check rates, origins and tokens before everything else, and answer what browsers ask before they ask."""

    @web.middleware
    def check(request: web.Request, handler: Handler) -> Awaitable[web.StreamResponse]:
        # No coroutine: its frame would be kept for as long as a WebSocket is open.
        try:
            if request.path not in HEALTH:
                access.check_rate(request)
                if request.method == "OPTIONS" and "Access-Control-Request-Method" in request.headers:
                    return _answered(_preflight(access, request))
                if not _is_page(request.path):
                    _check(access, request)
        except RequestError as error:
            return _answered(problem_of(error))
        return handler(request)

    return check


async def _answered(answer: web.Response) -> web.StreamResponse:
    return answer


def _check(access: Access, request: web.Request) -> None:
    origins.check(request, access.config)
    if not (request.path in STATUS and access.config.public_status):
        access.check_token(request)
    if request.path == HISTORY:
        access.check_rows_of(request)


def _preflight(access: Access, request: web.Request) -> web.Response:
    if "Origin" not in request.headers or not origins.is_allowed(request, access.config):
        return problem(403, Code.FORBIDDEN, "this Origin is not allowed")
    headers = {
        "Access-Control-Allow-Methods": "GET",
        "Access-Control-Allow-Headers": "Authorization, If-None-Match",
        "Access-Control-Max-Age": "600",
    }
    return web.Response(status=204, headers=headers)


async def say_origin(request: web.Request, answer: web.StreamResponse) -> None:
    """Let pages of allowed origins read an answer; the signal comes before the headers of every answer leave."""
    varies = answer.headers.get("Vary")
    answer.headers["Vary"] = f"{varies}, Origin" if varies else "Origin"
    origin = request.headers.get("Origin")
    if origin is not None and origins.is_allowed(request, request.app[ACCESS].config):
        answer.headers["Access-Control-Allow-Origin"] = origin
        answer.headers["Access-Control-Expose-Headers"] = "Retry-After, ETag"
