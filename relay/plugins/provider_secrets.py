"""What may not be read of one provider: its secrets, whichever way they are spelt, and for clients addresses."""

from collections.abc import Mapping
from typing import Any

from relay.core.outward_proxies import OutwardProxies
from relay.core.secret import pattern_of, texts_of
from relay.plugins.failure_judge import without_addresses

_MOST_TOLD = 100_000
_LONGEST_SPELLING = 10_000
"""More than any spelling of a secret has."""


class ProviderSecrets:
    """The secrets in a provider's settings, present and earlier, and those of proxies."""

    def __init__(self, settings: Mapping[str, Any], proxies: OutwardProxies) -> None:
        self._proxies = proxies
        self._texts = {*texts_of(settings.values())}
        self._pattern = pattern_of(self._texts)

    def __bool__(self) -> bool:
        """Whether the provider was ever given a secret."""
        return bool(self._texts)

    def add(self, settings: Mapping[str, Any]) -> None:
        """Conceal the secrets of these settings, too: who was given the earlier ones may still speak of them."""
        self._texts.update(texts_of(settings.values()))
        self._pattern = pattern_of(self._texts)

    def conceal(self, text: str) -> str:
        """Return a text without secrets of the provider and of proxies, whichever way it spells them."""
        told = self._proxies.conceal(self._pattern.sub("***", text[:_MOST_TOLD]))
        # A secret may be cut in two there.
        return told if len(text) <= _MOST_TOLD else f"{told[:-_LONGEST_SPELLING]} …"

    def tell(self, text: str) -> str:
        """Return a text as clients may read it: without secrets and addresses."""
        return without_addresses(self.conceal(text))
