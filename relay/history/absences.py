"""Which symbols with stored candles are missing from their provider's list, and since when; kept across restarts."""

from collections.abc import Collection, Mapping
from contextlib import suppress
from typing import Any, NamedTuple

import orjson

from relay.core.clock import Clock
from relay.storage.documents import Documents

UNWATCHED_S = 2 * 86_400.0
"""Nobody saw the list for so long: any symbol of it may have left and come back meanwhile."""
_FEW = 3


class ListChange(NamedTuple):
    """What a list shows: who is `back`, and since when it was missing, and who may be, since it was `unwatched`.

    It is not believed when nearly all are back: then it is the list that was away.
    """

    back: Mapping[str, float]
    unwatched: Collection[str]
    is_believed: bool


class Absences:
    """Remembers for each provider who is missing, at most as many as have stored candles, and when its list was seen.

    Times are Unix seconds of this machine.
    """

    def __init__(self, documents: Documents, clock: Clock) -> None:
        self._documents = documents
        self._clock = clock
        self._absent: dict[str, dict[str, float]] = {}

    def forget(self) -> None:
        """Go by what is stored again, as after a restart."""
        self._absent.clear()

    async def take(self, provider: str, symbols: Collection[str], stored: Collection[str]) -> ListChange:
        """Take a list, which says something about those with `stored` candles. Raises `StoreError`."""
        listed, now = {symbol.upper() for symbol in symbols}, self._clock.wall()
        unwatched: Collection[str] = ()
        if provider not in self._absent:
            self._absent[provider], seen_at = await self._recall(provider)
            if now - seen_at >= UNWATCHED_S:
                unwatched = {symbol for symbol in stored if symbol.upper() in listed}
        was = {symbol: at for symbol, at in self._absent[provider].items() if symbol in stored}
        back = {symbol: at for symbol, at in was.items() if symbol.upper() in listed}
        self._absent[provider] = {symbol: was.get(symbol, now) for symbol in stored if symbol.upper() not in listed}
        return ListChange(back, unwatched, len(back) <= max(_FEW, len(stored) // 2))

    async def keep(self, provider: str, unanswered: Mapping[str, float]) -> None:
        """Store what is remembered of a provider, once what follows from its list was done. Raises `StoreError`.

        Who is `unanswered` counts as missing in the next run, as if it were back only then: with the time when that was
        seen.
        """
        # What a list showed of another file than the one that is there now does not count.
        if provider in self._absent:
            absent = {**self._absent[provider], **unanswered}
            body = orjson.dumps({"seen_at": self._clock.wall(), "absent": absent})
            await self._documents.put(f"listed:{provider}", body)

    async def _recall(self, provider: str) -> tuple[dict[str, float], float]:
        """Return who was missing when an earlier run ended, and when it saw the list, 0 if nobody knows."""
        document = await self._documents.get(f"listed:{provider}")
        absent: dict[str, float] = {}
        if document is not None:
            with suppress(ValueError, TypeError, LookupError, AttributeError):
                known: Any = orjson.loads(document.body)
                absent = {str(symbol): float(at) for symbol, at in known["absent"].items()}
                return absent, float(known["seen_at"])
        return absent, 0.0
