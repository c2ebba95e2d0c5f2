"""What is delivered with the relay and is no part of it: commands get it, since only the command line may import it."""

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, NamedTuple


class Replay(NamedTuple):
    """The providers of a recording, and what time it is for all of them, in Unix seconds."""

    providers: Sequence[object]
    now: Callable[[], float]


class Distribution(NamedTuple):
    """The built-in providers, the stand-ins of their exchanges, and what plays a recording; each is imported when it is
    called.
    """

    providers: Callable[[], Iterable[object]]
    sandbox: Callable[..., AbstractAsyncContextManager[Any]]
    replay: Callable[..., Replay]
