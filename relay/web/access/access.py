"""Who may use the relay, from where, and how much of it."""

import functools
import logging
from collections import Counter
from typing import NamedTuple

from aiohttp import web

from relay.config.settings import Config
from relay.config.tokens import Token
from relay.core.errors import Code, RequestError
from relay.core.model import StreamKey
from relay.core.rate_limits import Buckets, FairQuota, TokenBucket
from relay.core.version import NAME
from relay.telemetry.rare_warning import RareWarning
from relay.web.access import client_address, forwarded
from relay.web.access.origins import PAGE_ORIGIN, Origins
from relay.web.problems import problem_of

log = logging.getLogger(__name__)

PREFIX = "/api/v1/market-data"
WEBSOCKET, EVENTS, PATH_OF_HISTORY = f"{PREFIX}/ws", f"{PREFIX}/sse", f"{PREFIX}/history"
PATH_TOKEN = "path_token"
"""The name of the part of a path that is a token, in routes for programs that cannot send it in a header."""
TOKEN_IN_HEADER = "send it as Authorization: Bearer TOKEN"
BELOW_TOKEN = f"/t/{{{PATH_TOKEN}}}"
"""What comes before a path where the token is a part of it."""
# Asked by machines that watch the relay, as often as they like.
HEALTH = frozenset({"/healthz", "/readyz"})
# The pages and what they load, and the descriptions of the contract: they hold nothing that needs a token.
PAGES = frozenset(
    {"/", "/status.html", "/client.js", "/client.d.ts", "/favicon.ico", "/docs", "/openapi.json", "/asyncapi.json"}
)
PAGES_BELOW = ("/static/", "/docs/", "/openapi/", "/asyncapi/")
# Opened by `public_status`.
STATUS = frozenset({f"{PREFIX}/status", "/metrics"})

REQUEST_BURST_S = 10.0
FRAMES_PER_REQUEST = 3
LEAST_FRAMES = 1_000
TOKEN_OWNER = "token:"
STREAMS_PER_CLIENT = 200
"""Streams that a client of the relay's own protocol may have, unless the configuration says otherwise."""


class AddressLimits(NamedTuple):
    """How much an address gets that is not this machine itself, unless the configuration says otherwise."""

    least_connects_per_minute: int = 300
    """As many as it may have connections, but never fewer than this."""
    requests_per_second: float = 1_000.0
    rows_per_minute: int = 10_000_000


ADDRESS_LIMITS = AddressLimits()


class Caller(NamedTuple):
    """Who sends a request or opened a connection: the real address, and the token if it is a valid one.

    `owner` is whom connections, frames and streams count for, the address or its network; `client` is whom requests
    over HTTP and candles of the past count for, the token wherever it comes from, else the address.
    """

    address: str
    owner: str
    client: str
    token: Token | None


class Access:
    """Tokens, origins, and what each address may use. `reconfigure` changes all of it while the relay runs."""

    def __init__(self, config: Config, limits: AddressLimits = ADDRESS_LIMITS) -> None:
        self._limits = limits
        self._go_by(config)
        self._per_owner: Counter[str] = Counter()
        self._per_token: Counter[str] = Counter()
        self._connects: Buckets[str] = Buckets(*self._most_connects())
        self._requests: Buckets[str] = Buckets(*requests_limit(self._requests_per_second()))
        self._rows: Buckets[str] = Buckets(*rows_limit(self._rows_per_minute()))
        self.shares: FairQuota[str, tuple[str, StreamKey]] = FairQuota()
        self._unknown_proxy = RareWarning(log, "proxy_not_trusted")
        self.clients = 0
        self.is_closing = False

    def reconfigure(self, config: Config) -> None:
        """Go by another configuration from now on; who is connected is the caller's concern."""
        self._go_by(config)
        self._connects.set_limit(*self._most_connects())
        self._requests.set_limit(*requests_limit(self._requests_per_second()))
        self._rows.set_limit(*rows_limit(self._rows_per_minute()))

    def _go_by(self, config: Config) -> None:
        self.config = config
        self.origins = Origins(config)
        self._wants_token = bool(config.tokens)
        self._knows_addresses_only = not config.tokens and not config.trusted_proxies

    # -- who ---------------------------------------------------------------------------------------

    def caller(self, request: web.Request) -> Caller:
        """Return who sends a request, also from behind trusted proxies."""
        if self._knows_addresses_only:
            return _stranger(request.remote)
        trusted = self.config.trusted_proxies
        hops = request.headers.getall(forwarded.FOR, []) if trusted else ()
        address = client_address.client_address(request.remote, hops, trusted)
        owner, token = client_address.owner_of(address), self._token(request)
        # No address is written so.
        return Caller(address, owner, owner if token is None else f"{TOKEN_OWNER}{token.name}", token)

    def _token(self, request: web.Request) -> Token | None:
        """Return the valid token of a request; `?token=` is one where a browser sends no header: where updates come.

        Routes of facades and history may have it in their path: few programs and no spreadsheet can send a header.
        """
        tokens = self.config.tokens
        if not tokens:
            return None
        scheme, _, given = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            by_query = request.path in (EVENTS, WEBSOCKET)
            given = request.query.get("token", "") if by_query else request.match_info.get(PATH_TOKEN, "")
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

    def _most_connects(self) -> tuple[float, float]:
        """Return rate and burst of attempts to open a WebSocket."""
        # After an outage all clients behind one address come back at once.
        least = max(self._limits.least_connects_per_minute, self.config.max_clients_per_address)
        most = self.config.max_connects_per_minute or least
        return most / 60, most

    def most_streams(self, usual: int) -> int:
        """Return how many streams a client may have; `usual` is what holds in its protocol unless it is configured."""
        return self.config.max_streams_per_client or usual

    def _requests_per_second(self) -> float:
        return self.config.max_requests_per_second_per_address or self._limits.requests_per_second

    def _rows_per_minute(self) -> int:
        return self.config.max_history_rows_per_minute_per_address or self._limits.rows_per_minute

    def take_request(self, owner: str) -> float:
        """Count one request; return 0, or how many seconds to wait if there were too many from this address."""
        if self._counts_no_requests(owner):
            return 0.0
        bucket = self._requests.of(owner)
        return 0.0 if bucket.try_acquire() else bucket.wait_s

    def spend_requests(self, caller: Caller, more: int) -> None:
        """Count a request over HTTP as so many more: the next ones wait for it."""
        if more and not self._counts_no_requests(caller.owner):
            self._requests.of(caller.client).spend(more)

    def most_requests(self, owner: str) -> str:
        """Say how many requests a WebSocket client of an address may send."""
        own = f"{self.config.max_requests_per_second:g} requests per second"
        return own if self._counts_no_requests(owner) else f"{own}, or {self._requests_per_second():g} from one address"

    # Programs on this machine are counted only where the configuration says so: they could as well stop the relay.

    def _counts_no_connects(self, owner: str) -> bool:
        return not self.config.max_connects_per_minute and client_address.is_this_machine(owner)

    def _counts_no_requests(self, owner: str) -> bool:
        return not self.config.max_requests_per_second_per_address and client_address.is_this_machine(owner)

    def _counts_no_rows(self, owner: str) -> bool:
        return not self.config.max_history_rows_per_minute_per_address and client_address.is_this_machine(owner)

    def new_frames(self) -> TokenBucket:
        """Return what counts the frames of one more WebSocket."""
        return TokenBucket(*frames_limit(self.config.max_requests_per_second))

    def check_rows(self, caller: Caller) -> None:
        """Refuse candles of the past to who had its share. Raises `RequestError`."""
        if not self._counts_no_rows(caller.owner):
            check_rows(self._rows.of(caller.client), self._rows_per_minute(), _whose(caller))

    def spend_rows(self, caller: Caller, rows: int) -> None:
        """Count candles of the past that somebody was given."""
        if not self._counts_no_rows(caller.owner):
            self._rows.of(caller.client).spend(rows)

    # -- what is let in ----------------------------------------------------------------------------

    def check(self, request: web.Request) -> web.Response | None:
        """Check rate, origin and token of a request, before anything else is done; it may open what updates come over.

        Returns the answer if that is all the browser wanted to know. Raises `RequestError`.
        """
        path = request.path
        if path in HEALTH:
            return None
        if forwarded.is_unknown_proxy(request, self.config):
            self._unknown_proxy.say(
                "%s sends X-Forwarded-For, but is not in trusted_proxies: all clients behind it count as one address",
                request.remote,
            )
        caller = self.caller(request)
        self._check_rate(caller, opens=opens_updates(request))
        if request.method == "OPTIONS" and "Access-Control-Request-Method" in request.headers:
            return self._preflight(request)
        if _is_page(path):
            self.origins.check_host(request)
            return None
        self.origins.check(request)
        if self._wants_token and caller.token is None and not (self.config.public_status and path in STATUS):
            raise RequestError(Code.UNAUTHORIZED, f"a valid token is needed: {TOKEN_IN_HEADER}{_other_way(path)}")
        if path.endswith(PATH_OF_HISTORY):
            self.check_rows(caller)
        return None

    def _check_rate(self, caller: Caller, *, opens: bool) -> None:
        """Count one request, or one attempt to have updates. Raises `RequestError` when there were too many."""
        if opens:
            if self._counts_no_connects(caller.owner):
                return
            bucket = self._connects.of(caller.owner)
            what = self._what_connects()
        elif self._counts_no_requests(caller.owner):
            return
        else:
            bucket = self._requests.of(caller.client)
            what = f"{self._requests_per_second():g} requests per second from {_whose(caller)}"
        if not bucket.try_acquire():
            raise _too_many(what, bucket.wait_s)

    def _what_connects(self) -> str:
        return f"{self._most_connects()[1]:g} new connections per minute from one address"

    def _preflight(self, request: web.Request) -> web.Response:
        if "Origin" not in request.headers or not self.origins.is_allowed(request):
            return problem_of(self.origins.refusal(request, request.headers.get("Origin", "")))
        headers = {
            "Access-Control-Allow-Methods": "GET",
            "Access-Control-Allow-Headers": "Authorization, Content-Type, If-None-Match, Last-Event-ID",
            "Access-Control-Max-Age": "600",
        }
        return web.Response(status=204, headers=headers)

    def check_opening(self, request: web.Request) -> None:
        """Raise the `RequestError` that an attempt to open a WebSocket would get now; counts nothing.

        A browser does not tell a page why an attempt failed, so the page asks the same address without one.
        """
        caller = self.caller(request)
        if (page := request.headers.get(PAGE_ORIGIN)) is not None:
            self.origins.check_page(request, page)
        if not self._counts_no_connects(caller.owner) and (wait_s := self._connects.of(caller.owner).wait_s):
            raise _too_many(self._what_connects(), wait_s)
        self._check_room(caller)

    def admit(self, request: web.Request) -> Caller:
        """Count one more client that gets updates; return what `leave` wants. Raises `RequestError` when full."""
        caller = self.caller(request)
        self._check_room(caller)
        self.clients += 1
        self._per_owner[caller.owner] += 1
        if caller.token is not None:
            self._per_token[caller.token.name] += 1
        return caller

    def _check_room(self, caller: Caller) -> None:
        if self.is_closing:
            raise RequestError(Code.INTERNAL, "the relay is shutting down", retry_after=5)
        if self.clients >= self.config.max_clients:
            raise RequestError(Code.INTERNAL, "the relay is full; try again later", retry_after=10)
        if self._per_owner[caller.owner] >= self.config.max_clients_per_address:
            raise RequestError(
                Code.RATE_LIMITED,
                f"too many connections from one address; at most {self.config.max_clients_per_address} are allowed",
                retry_after=10,
            )

    def leave(self, caller: Caller) -> None:
        """Count one client less."""
        self.clients -= 1
        _count_down(self._per_owner, caller.owner)
        if caller.token is not None:
            _count_down(self._per_token, caller.token.name)


class HistoryQuota:
    """Counts the candles of the past that one connection is given, and with it its token or address."""

    __slots__ = ("_access", "_bucket", "_caller")

    def __init__(self, access: Access, caller: Caller) -> None:
        self._access = access
        self._caller = caller
        self._bucket = TokenBucket(*rows_limit(access.config.max_history_rows_per_minute))

    @property
    def client(self) -> str:
        """Whom the past is for, as history's calls take turns."""
        return self._caller.client

    def check(self) -> None:
        """Refuse when either had its share. Raises `RequestError`."""
        check_rows(self._bucket, self._access.config.max_history_rows_per_minute, "one client")
        self._access.check_rows(self._caller)

    def spend(self, rows: int) -> None:
        """Count candles that were fetched."""
        self._bucket.spend(rows)
        self._access.spend_rows(self._caller, rows)

    def set_limit(self) -> None:
        """Go by the limit that is in force now."""
        self._bucket.set_limit(*rows_limit(self._access.config.max_history_rows_per_minute))


ACCESS = web.AppKey("access", Access)


def requests_limit(a_second: float) -> tuple[float, float]:
    """Return rate and burst of requests: those of ten seconds may come at once."""
    return a_second, max(1.0, a_second * REQUEST_BURST_S)


def frames_limit(requests_a_second: float) -> tuple[float, float]:
    """Return rate and burst of frames, of which a request may take several; pongs are frames too."""
    return FRAMES_PER_REQUEST * requests_a_second, max(LEAST_FRAMES, 2 * requests_a_second * REQUEST_BURST_S)


def rows_limit(a_minute: int) -> tuple[float, float]:
    """Return rate and burst of candles of the past: those of a minute may come at once."""
    return a_minute / 60, a_minute


def check_rows(bucket: TokenBucket, most: int, whose: str) -> None:
    """Refuse candles of the past while a bucket is empty. Raises `RequestError`."""
    wait_s = bucket.wait_s
    if wait_s:
        raise RequestError(
            Code.RATE_LIMITED,
            f"{whose} can get at most {most} past candles per minute; wait {wait_s:.2f} s",
            retry_after=wait_s,
        )


def _whose(caller: Caller) -> str:
    return "one address" if caller.token is None else "one token"


@functools.lru_cache(4096)
def _stranger(peer: str | None) -> Caller:
    """Return who has an address and nothing else."""
    address = client_address.client_address(peer, (), ())
    owner = client_address.owner_of(address)
    return Caller(address, owner, owner, None)


def _too_many(what: str, wait_s: float) -> RequestError:
    return RequestError(Code.RATE_LIMITED, f"more than {what}; wait {wait_s:.2f} s", retry_after=wait_s)


def _count_down(counter: Counter[str], key: str) -> None:
    counter[key] -= 1
    if counter[key] <= 0:
        del counter[key]


def is_websocket(request: web.Request) -> bool:
    """Say whether a request asks for a WebSocket."""
    return request.headers.get("Upgrade", "").lower() == "websocket"


def opens_updates(request: web.Request) -> bool:
    """Say whether a request asks for a connection over which updates come."""
    return request.path == EVENTS or is_websocket(request)


def _other_way(path: str) -> str:
    """Say how a token may be sent to a route apart from the header."""
    if path in (EVENTS, WEBSOCKET):
        return ", or as ?token=TOKEN in the address"
    return f", or in the path: /t/TOKEN{PATH_OF_HISTORY}" if path.endswith(PATH_OF_HISTORY) else ""


def _is_page(path: str) -> bool:
    return path in PAGES or path.startswith(PAGES_BELOW)


async def add_headers(request: web.Request, answer: web.StreamResponse) -> None:
    """Let pages of allowed origins read an answer, and name the server, but not what it is made of.

    The signal comes before the headers of every answer leave.
    """
    answer.headers["Server"] = NAME
    varies = answer.headers.get("Vary")
    answer.headers["Vary"] = f"{varies}, Origin" if varies else "Origin"
    origin = request.headers.get("Origin")
    if origin is not None and request.app[ACCESS].origins.is_allowed(request):
        answer.headers["Access-Control-Allow-Origin"] = origin
        answer.headers["Access-Control-Expose-Headers"] = "Retry-After, ETag, X-MBX-USED-WEIGHT-1M"
