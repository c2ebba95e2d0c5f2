"""The live set of streams that one feed has to carry, and what the feed reports about them."""

import asyncio
from collections.abc import Awaitable, Callable, Container, Generator, Iterable
from typing import Any, Protocol

from relay.core.errors import ProviderError, UnknownSymbol
from relay.core.model import StreamKey
from relay.core.past_change import PastChange

PAUSES = ("market_closed", "throttled")
"""The states in which a stream may rest; the client contract names them."""

_REMEMBERED = 1000
_MOST_LATE = 200
"""So many updates of a stream may come after it left the list; a plugin that goes on ignores the list."""


def _ignore(*_: object) -> None:
    return None


class Done:
    """Awaited, returns at once."""

    def __await__(self) -> Generator[None, None, None]:
        yield from ()


def _done(*_: object) -> Done:
    return Done()


def _never(*_: object) -> bool:
    return False


class FeedHost(Protocol):
    """Who runs a feed: what the feed says goes through it, and what it raises is judged by it."""

    name: str

    def conceal(self, text: str) -> str:
        """Return a text without keys, for the log."""

    def tell(self, text: str) -> str:
        """Return a text as clients may read it: without keys and addresses."""

    def judge_stream(self, key: StreamKey, error: BaseException) -> ProviderError:
        """Return what may be told of an error of one stream alone; a mistake of the feed's is logged."""

    async def end_stream(self, task: asyncio.Task[Any]) -> None:
        """End a task that follows one stream, whatever it does about that."""


class Watchlist:
    """Streams wanted from one feed, now.

    The host adds and removes streams; a feed reads `streams`, waits with `changed`, and reports with `accept`,
    `reject`, `lose`, `pause`, `remark`, `expect`, `invalidate`, `skip` and `closing`. All methods except `changed` are
    synchronous and never block. Reports about streams that are not on the list (any more) are ignored, except by
    `invalidate`: the wish may have been withdrawn.
    """

    def __init__(
        self,
        streams: Iterable[StreamKey] = (),
        *,
        on_accept: Callable[[StreamKey], None] = _ignore,
        on_reject: Callable[[StreamKey, ProviderError], None] = _ignore,
        on_lose: Callable[[StreamKey, ProviderError, float], None] = _ignore,
        on_skip: Callable[[str], None] = _ignore,
        on_closing: Callable[[str], None] = _ignore,
        on_pause: Callable[[StreamKey, str, str], None] = _ignore,
        on_expect: Callable[[StreamKey, float, float | None], None] = _ignore,
        on_remark: Callable[[StreamKey, str], None] = _ignore,
        on_invalidate: Callable[[PastChange], Awaitable[None]] = _done,
        is_closed_for: Callable[[StreamKey, float], bool] = _never,
    ) -> None:
        self._streams: dict[StreamKey, int] = dict.fromkeys(streams, 0)
        # For the way of every update: `in` without a call.
        self.wanted: Container[StreamKey] = self._streams
        self._removed: dict[StreamKey, int] = {}
        self._on_accept = on_accept
        self._on_reject = on_reject
        self._on_lose = on_lose
        self._on_skip = on_skip
        self._on_closing = on_closing
        self._on_pause = on_pause
        self._on_expect = on_expect
        self._on_remark = on_remark
        self._on_invalidate = on_invalidate
        self._is_closed_for = is_closed_for
        # At which version each stream was added that was handed out to be polled since its market closed.
        self._polled: dict[StreamKey, int] = {}
        self.host: FeedHost | None = None
        self._waiters: set[asyncio.Future[None]] = set()
        self.version = 0

    @property
    def streams(self) -> tuple[StreamKey, ...]:
        """The streams that are wanted now, oldest first."""
        return tuple(self._streams)

    def __contains__(self, key: object) -> bool:
        return key in self._streams

    def __len__(self) -> int:
        return len(self._streams)

    def wanted_since(self, key: StreamKey) -> int:
        """Return the version at which a stream was added, -1 if it is not wanted; adding it again changes it."""
        return self._streams.get(key, -1)

    # -- the host's side ---------------------------------------------------------------------------

    def add(self, key: StreamKey) -> None:
        """Add a stream (host only)."""
        if key not in self._streams:
            self._removed.pop(key, None)
            self._streams[key] = self.version + 1
            self._wake()

    def remove(self, key: StreamKey) -> None:
        """Remove a stream (host only)."""
        if key in self._streams:
            del self._streams[key]
            self._removed[key] = _MOST_LATE
            if len(self._removed) > _REMEMBERED:
                del self._removed[next(iter(self._removed))]
            self._wake()

    def is_late(self, key: Any) -> bool:
        """Say whether an update of a stream that left the list is only late: the first few hundred are (host only)."""
        left = self._removed.get(key)
        if not left:
            return False
        self._removed[key] = left - 1
        return True

    def bind(self, host: FeedHost) -> None:
        """Let this host take the keys out of what the feed reports, and judge its errors (host only)."""
        self.host = host

    def _conceal(self, text: object) -> str:
        return str(text) if self.host is None else self.host.conceal(str(text))

    def _told(self, text: object) -> str:
        return str(text) if self.host is None else self.host.tell(str(text))

    def _wake(self) -> None:
        self.version += 1
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)

    # -- the feed's side ---------------------------------------------------------------------------

    async def changed(self, since: int, timeout_s: float | None = None) -> int:
        """Return the version once it differs from `since`: at once if it already does.

        With `timeout_s` it returns after so many seconds at the latest; then the version may still be `since`.
        """
        if self.version != since:
            return self.version
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.add(waiter)
        try:
            await asyncio.wait((waiter,), timeout=timeout_s)
        finally:
            self._waiters.discard(waiter)
        return self.version

    def to_poll(self, settle_s: float = 60.0) -> tuple[StreamKey, ...]:
        """Return the streams that a feed which polls has to ask for now: not those whose market is closed.

        A stream that was just added is among them once, whatever the hours. After a close it is until the market has
        been closed for `settle_s`, and once more, so that its last candle is fetched. The others are accepted: their
        next poll is after the opening. Without hours (`relay_hours`) these are all streams.
        """
        chosen = []
        for key, since in [*self._streams.items()]:
            is_closed = self._is_closed_for(key, settle_s)
            if is_closed and self._polled.get(key) == since:
                self._on_accept(key)
                continue
            chosen.append(key)
            # Handed out for the last time before the next opening; or not yet.
            self._polled[key] = since if is_closed else -1
        for key in self._polled.keys() - self._streams.keys():
            del self._polled[key]
        return tuple(chosen)

    def accept(self, keys: Iterable[StreamKey]) -> None:
        """Report that the provider confirmed these streams: from now on their updates arrive.

        Raises `TypeError` for a single one that stands in no list.
        """
        if isinstance(keys, StreamKey):
            raise TypeError(f"accept takes several streams: accept([{keys!r}])")
        for key in keys:
            if key in self._streams:
                self._on_accept(key)

    def reject(self, key: StreamKey, reason: str | ProviderError) -> None:
        """Report that the provider refused a stream: it leaves the watchlist, and is back when it is tried again.

        `reason` is a text for clients, or an error: then the log has its detail as well.
        """
        if key in self._streams:
            self.remove(key)
            error = reason if isinstance(reason, ProviderError) else UnknownSymbol(str(reason))
            self._on_reject(key, error if self.host is None else self.host.judge_stream(key, error))

    def lose(self, key: StreamKey, error: ProviderError, retry_in_s: float) -> None:
        """Report that this stream alone is not delivered any more, and in how many seconds the feed tries it again.

        Clients read the text of `error`, the log its detail as well. The next update of the stream, or `accept`, ends
        that; what was missed meanwhile comes from history. Raises `TypeError` for an `error` that is no
        `ProviderError`.
        """
        if not isinstance(error, ProviderError):
            raise TypeError(f"lose takes a ProviderError, not {type(error).__name__}")
        if key in self._streams:
            self._on_lose(key, error if self.host is None else self.host.judge_stream(key, error), retry_in_s)

    def skip(self, reason: str) -> None:
        """Report an invalid message, which was skipped."""
        self._on_skip(self._conceal(reason))

    def closing(self, reason: str) -> None:
        """Report that the provider announced the end of this feed: the host opens the next one at once."""
        self._on_closing(self._conceal(reason))

    def expect(self, key: StreamKey, in_s: float, every_s: float | None = None) -> None:
        """Report when a polled stream is asked for next, and how often it is: until then its silence is planned.

        The relay calls it neither stale nor asks history for candles that close meanwhile.
        """
        if key in self._streams:
            self._on_expect(key, in_s, every_s)

    def remark(self, key: StreamKey, message: str) -> None:
        """Set the message of the state `connected`, to explain how a stream is live; an empty text removes it."""
        if key in self._streams:
            self._on_remark(key, self._told(message))

    def invalidate(
        self,
        key: StreamKey,
        before: int | None = None,
        *,
        after: int | None = None,
        one_interval: bool = False,
        settle_s: float = 0.0,
    ) -> Awaitable[None]:
        """Report that the provider changed its past, as after a split: what it said earlier is not valid any more.

        It concerns trading from `after` up to `before` (Unix seconds), None: no bound. All candles of the symbol of
        `key` that hold a part of that time are forgotten at once, at any interval and whether it is wanted or not, with
        `one_interval` only those at that of `key`. They are asked for again when they are needed, but not for
        `settle_s` seconds, in which a part of the provider's servers may still have the old ones; and subscribers get
        the new ones. Await what is returned before you note anywhere that you reported it: it is written by then, so
        that a kill of the process does not lose it. Raises `TypeError` or `ValueError` for an invalid argument.
        """
        change = PastChange(key, before, after, one_interval, settle_s)
        change.check()
        return self._on_invalidate(change)

    def pause(self, key: StreamKey, status: str, message: str) -> None:
        """Report that a stream is paused: `status` is `market_closed` or `throttled`, `message` says until when.

        The next update of the stream, or `accept`, ends the pause. Raises `ValueError` for another status.
        """
        if status not in PAUSES:
            raise ValueError(f"a stream cannot be paused as {status!r}; use one of {', '.join(PAUSES)}")
        if key in self._streams:
            self._on_pause(key, status, self._told(message))
