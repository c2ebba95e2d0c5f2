"""What a plugin's code raises, turned into what clients and the log may read of it: no error here holds a secret."""

import logging
import re
import traceback
from collections.abc import Callable

from relay.core.errors import (
    AuthenticationFailed,
    BadAnswer,
    Flooded,
    ProviderError,
    ProviderTimeout,
    ProviderUnavailable,
    RateLimited,
    UnknownSymbol,
    log_text,
)
from relay.core.model import StreamKey
from relay.plugins.validation import shown, text_of
from relay.telemetry.events import event
from relay.telemetry.rare_warning import RareWarning
from relay.upstream.rest import MAX_RETRY_AFTER_S, NETWORK_ERRORS, RETRY_AFTER_S, network_failure

log = logging.getLogger(__name__)

_MESSAGE_LENGTH = 300
"""Of what a plugin says to clients."""
_DETAIL_LENGTH = 2000
"""Of what it says to the log."""
_ADDRESS = re.compile(r"(proxy )?\b[a-z][a-z0-9+.-]*://[^\s<>\"']*[^\s<>\"'.,:;!?)\]}]", re.IGNORECASE)
"""Without the sign behind it. The relay's own texts name a proxy by its address, and are whole without."""
_MOST_KINDS = 1000
"""So many kinds of mistakes are told apart; a plugin that has more is only counted."""


def without_addresses(text: str) -> str:
    """Return a text for clients: what begins with `https://` and the like is left out, and `…` where it was."""
    return _ADDRESS.sub(lambda found: "proxy" if found[1] else "…", text)


class FailureJudge:
    """Judges the errors of one provider's plugin. `failed` counts its mistakes: what is raised and no `ProviderError`.

    Without a key (`has_key` is false) no key was refused: somebody in front of the provider answered so, which passes.
    """

    def __init__(self, name: str, conceal: Callable[[str], str], has_key: Callable[[], bool]) -> None:
        self.failed = 0
        self._name = name
        self._conceal = conceal
        self._has_key = has_key
        self._history_failed = RareWarning(log, "history_failed", provider=name)
        self._blamed: dict[str, str] = {}
        self._kinds: set[tuple[str, str, int | None]] = set()

    def judged(self, hook: str, error: BaseException) -> ProviderError:
        """Return what may be told of an error of a hook: it holds no secret, and drags no other error along.

        A mistake is logged in full when it is news, else in one line. Of an error that keeps something from clients,
        and that nobody else logs, there is a line once a minute.
        """
        known = self._known(error)
        failure = self._bare(self._blame(hook, error) if known is None else known)
        if failure.detail and hook == "relay_candles" and not isinstance(failure, UnknownSymbol):
            self._history_failed.say("history of %s: %s", self._name, log_text(failure))
        return failure

    def judged_in_stream(self, key: StreamKey, error: BaseException) -> ProviderError:
        """Do the same for an error of one stream alone. Each kind of mistake is logged once, with its first stream."""
        known = self._known(error)
        return self._bare(self._blame_stream(key, error) if known is None else known)

    def _known(self, error: BaseException) -> ProviderError | None:
        if isinstance(error, ProviderError):
            return self._concealed(error)
        return network_failure(error) if isinstance(error, NETWORK_ERRORS) else None

    def _bare(self, failure: ProviderError) -> ProviderError:
        if isinstance(failure, AuthenticationFailed) and not self._has_key():
            failure = ProviderUnavailable(str(failure), detail=failure.detail)
        said = str(failure)
        if (told := without_addresses(said)) != said:
            # Where something is, is for the log; who writes errors may not know that clients read them.
            failure = self._with(failure, told, failure.detail)
            failure.unabridged = said
        failure.__cause__ = failure.__context__ = None
        return failure

    def _concealed(self, error: ProviderError) -> ProviderError:
        said, given = text_of(error), error.detail
        text = self._conceal(said)
        detail = self._conceal(given if isinstance(given, str) else repr(given))[:_DETAIL_LENGTH]
        if isinstance(error, RateLimited):
            wait_s = error.retry_after
            is_usable = isinstance(wait_s, int | float) and 0 <= wait_s <= MAX_RETRY_AFTER_S
            wait_s = float(wait_s) if is_usable else RETRY_AFTER_S
            failure: ProviderError = RateLimited(
                text[:_MESSAGE_LENGTH], wait_s, detail=detail, by_provider=error.by_provider
            )
        elif (text, detail) == (said, given) and len(text) <= _MESSAGE_LENGTH:
            return error
        else:
            failure = self._with(error, text[:_MESSAGE_LENGTH], detail)
        failure.unabridged = self._conceal(error.unabridged)[:_MESSAGE_LENGTH]
        return failure

    def _with(self, error: ProviderError, text: str, detail: str) -> ProviderError:
        """Return an error of the same kind with other texts."""
        if isinstance(error, RateLimited):
            return RateLimited(text, error.retry_after, detail=detail, by_provider=error.by_provider)
        kinds = (AuthenticationFailed, ProviderTimeout, UnknownSymbol, Flooded, BadAnswer)
        kind = next((kind for kind in kinds if isinstance(error, kind)), ProviderUnavailable)
        return kind(text, detail=detail)

    def _blame(self, hook: str, error: BaseException) -> ProviderUnavailable:
        """Log what a plugin raised, in full only when it is news, and return what clients may know of it."""
        self.failed += 1
        summary = self._conceal(shown(error))
        about = event("provider_failed", provider=self._name, hook=hook)
        if self._blamed.get(hook) == summary:
            text = summary[:_MESSAGE_LENGTH]
            log.error("provider %s failed in %s again: %s", self._name, hook, text, extra=about)
        else:
            self._blamed[hook] = summary
            log.error("provider %s failed in %s\n%s", self._name, hook, self._lines(error), extra=about)
        return ProviderUnavailable(f"provider {self._name} failed ({type(error).__name__} in {hook})")

    def _blame_stream(self, key: StreamKey, error: BaseException) -> ProviderUnavailable:
        self.failed += 1
        place = traceback.extract_tb(error.__traceback__)[-1:]
        kind = (type(error).__name__, *((place[0].filename, place[0].lineno) if place else ("", 0)))
        if kind not in self._kinds and len(self._kinds) < _MOST_KINDS:
            self._kinds.add(kind)
            log.error(
                "provider %s failed in the stream %s (more of this kind are only counted)\n%s",
                self._name,
                key,
                self._lines(error),
                extra=event("stream_failed", provider=self._name, stream=str(key)),
            )
        return ProviderUnavailable(f"provider {self._name} failed ({type(error).__name__} in the stream {key})")

    def _lines(self, error: BaseException) -> str:
        return self._conceal("".join(traceback.format_exception(error))).rstrip()
