"""The provider author's API: everything a provider plugin needs, and nothing else.

It is loaded when the first name of it is used: the command line, whose modules stand below this package, does without.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from relay.plugins.author_api import *  # noqa: F403
else:
    # Hidden from type checkers, which would take it for a promise of any name.
    def __getattr__(name: str) -> object:
        # What the import system asks of every package is no name of the API.
        if name == "__all__" or not name.startswith("__"):
            from relay.plugins import author_api

            globals().update({each: getattr(author_api, each) for each in ("__all__", *author_api.__all__)})
            if name in globals():
                return globals()[name]
        raise AttributeError(f"module 'relay' has no attribute {name!r}")
