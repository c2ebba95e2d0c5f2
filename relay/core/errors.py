"""The exception tree, the error codes and the WebSocket close codes of the client contract.

    RelayError
    ├── ConfigError              a setting is unknown, out of range or contradicts another: exit 2
    ├── StoreError               the database cannot be opened or used
    ├── RequestError             a client asked for something it cannot have; carries a code of the contract
    ├── OutboxFull               a subscriber does not take its closed candles
    ├── PluginError              a plugin cannot be used: import, api number, missing hook
    └── ProviderError            a provider could not do what it was asked
        ├── AuthenticationFailed     refused until a person changes something; asked again now and then
        ├── RateLimited              wait exactly `retry_after` seconds
        ├── ProviderUnavailable      it cannot be reached, or says it is broken (5xx)
        ├── ProviderTimeout          it did not answer in time
        ├── UnknownSymbol            it does not know the symbol, or the plan does not include it
        └── BadAnswer                its answer is invalid
            └── Flooded                  it sent so much without news that it is not listened to

The messages reach clients: they never carry a key, a token, a file path or an address with a query. What only an
operator may read of a `ProviderError` is its `detail`, and `log_text` puts both together.
"""

from enum import IntEnum, StrEnum


class Code(StrEnum):
    """Error codes that clients see."""

    INVALID_JSON = "invalid_json"
    INVALID_REQUEST = "invalid_request"
    UNKNOWN_ACTION = "unknown_action"
    UNKNOWN_SYMBOL = "unknown_symbol"
    UNKNOWN_INTERVAL = "unknown_interval"
    UNSUPPORTED_INTERVAL = "unsupported_interval"
    NOT_SUBSCRIBED = "not_subscribed"
    TOO_MANY_SUBSCRIPTIONS = "too_many_subscriptions"
    RATE_LIMITED = "rate_limited"
    PROVIDER_UNAVAILABLE = "provider_unavailable"
    UNAUTHORIZED = "unauthorized"
    FORBIDDEN = "forbidden"
    NOT_FOUND = "not_found"
    INTERNAL = "internal"


_KNOWN_CODES = frozenset(map(str, Code))


def code_of(text: str) -> Code | str:
    """Return the code that a text is, or the text itself: a newer relay may have more of them."""
    return Code(text) if text in _KNOWN_CODES else text


class CloseCode(IntEnum):
    """WebSocket close codes that the relay sends."""

    GOING_AWAY = 1001
    TOO_BIG = 1009
    SLOW_CONSUMER = 4000
    TOO_MANY_INVALID = 4001
    RATE_LIMITED = 4002
    TOKEN_REVOKED = 4003


RESTART_S = 3600.0
"""Seconds after which it is worth another try where only a restart of the relay changes the answer."""

READMIT_S = 60.0
"""Seconds after which a provider that refused the relay's key is asked again at the earliest."""


class RelayError(Exception):
    """Root of all errors that the relay raises on purpose."""


class ConfigError(RelayError):
    """A setting is unknown, out of range, or contradicts another."""


class StoreError(RelayError):
    """The database cannot be opened or used; `reason` says why and names no file."""

    def __init__(self, message: str, reason: str = "") -> None:
        super().__init__(message)
        self.reason = reason


class OutboxFull(RelayError):
    """A subscriber does not take its closed candles; it has to be disconnected."""


class PluginError(RelayError):
    """A plugin cannot be used; `source` says where it came from, `name` who it said it is, if it got that far."""

    def __init__(self, source: str, reason: str, name: str = "") -> None:
        super().__init__(f"plugin {source}: {reason}")
        self.source = source
        self.reason = reason
        self.name = name


class RequestError(RelayError):
    """A request of a client is refused.

    `code` is one of the contract's; the message names the wrong value and what is accepted. `symbol` and
    `interval` are filled in where the error concerns one stream; `retry_after` (seconds) where waiting helps.
    """

    def __init__(
        self,
        code: Code,
        message: str,
        *,
        symbol: str | None = None,
        interval: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.symbol = symbol
        self.interval = interval
        self.retry_after = retry_after


class ProviderError(RelayError):
    """A provider could not do what it was asked.

    `message` is what clients are told; `detail` goes to the log only: addresses, the venue's own words, what was wrong
    with an answer. Neither may hold a key.
    """

    detail: str = ""
    unabridged: str = ""
    """The message with the addresses that clients do not read, empty where there are none; set by the relay."""

    def __init__(self, message: str = "", *, detail: str = "") -> None:
        super().__init__(message)
        self.detail = detail


def log_text(error: BaseException) -> str:
    """Return what the log says of an error: its message, and the `detail` that a `ProviderError` keeps from clients."""
    if not isinstance(error, ProviderError):
        return str(error)
    text = error.unabridged or str(error)
    return f"{text} ({error.detail})" if error.detail else text


class AuthenticationFailed(ProviderError):
    """The provider refused the key, or there is none: a person has to change that; asked again now and then."""


class RateLimited(ProviderError):
    """The provider, or its budget here, asks to wait `retry_after` seconds.

    `by_provider` says that it is the provider's own answer: then it holds for whoever asks it.
    """

    def __init__(self, message: str, retry_after: float, *, detail: str = "", by_provider: bool = False) -> None:
        super().__init__(message, detail=detail)
        self.retry_after = retry_after
        self.by_provider = by_provider


class ProviderUnavailable(ProviderError):
    """The provider cannot be reached or says that it is broken."""


class ProviderTimeout(ProviderError):
    """The provider did not answer in time."""


class UnknownSymbol(ProviderError):
    """The provider does not know the symbol, or the plan does not include it."""


class BadAnswer(ProviderError):
    """The answer of the provider is invalid."""


class Flooded(BadAnswer):
    """The provider sent so much that is no news that it is not listened to any more."""


class Killed(BaseException):
    """Thrown into code that did not end when it was cancelled, where it waits.

    `GeneratorExit` would end the coroutine that waits for an async generator, and leave the generator as it is.
    """
