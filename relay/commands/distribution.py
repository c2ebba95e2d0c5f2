"""What is delivered with the relay and is no part of it: commands get it, since only the command line may import it."""

from collections.abc import Callable, Iterable
from contextlib import AbstractAsyncContextManager
from typing import Any, NamedTuple


class Distribution(NamedTuple):
    """The built-in providers and the stand-ins of their exchanges; each is imported when it is called."""

    providers: Callable[[], Iterable[object]]
    sandbox: Callable[..., AbstractAsyncContextManager[Any]]
