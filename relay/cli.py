"""The `relay` command: serves, or talks to a relay that runs."""

import importlib
import signal
import sys
from collections.abc import Iterable
from contextlib import AbstractAsyncContextManager
from difflib import get_close_matches
from typing import Any

import click

from relay.commands.distribution import Distribution, Replay
from relay.core.version import VERSION

COMMANDS = {
    "serve": "Serve clients until SIGINT or SIGTERM.",
    "tail": "Follow streams of a running relay in the terminal.",
    "history": "Print candles of SYMBOL at INTERVAL, oldest first.",
    "symbols": "List the symbols that a running relay can stream.",
    "status": "Show the state of a running relay.",
    "health": "Say whether a running relay serves, for a health check.",
    "mcp": "Let an assistant read from a running relay, over MCP.",
    "check-config": "Show what `relay serve` would do, without starting it.",
    "plugins": "Show which provider plugins load, or the settings of one; `new` creates one.",
    "store": "Show, check, back up and shrink the database.",
    "token": "Create a token; print the token and its hash.",
    "licenses": "List the packages of this installation and their licences.",
    "completion": "Print a shell script that completes commands and flags.",
}
"""The commands and what each does in one line; a command's module is imported when the command is used."""


class _Commands(click.Group):
    def list_commands(self, context: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, context: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        module = importlib.import_module(f"relay.commands.{name.replace('-', '_')}")
        command: click.Command = module.command
        if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
            # All is imported, so Ctrl-C may raise KeyboardInterrupt again.
            signal.signal(signal.SIGINT, signal.default_int_handler)
        return command

    def invoke(self, context: click.Context) -> Any:
        try:
            return super().invoke(context)
        except KeyboardInterrupt:
            sys.exit(128 + signal.SIGINT)

    def resolve_command(
        self, context: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0] not in COMMANDS and (near := get_close_matches(args[0], COMMANDS, 1)):
            context.fail(f"there is no command {args[0]!r}; did you mean {near[0]}?")
        return super().resolve_command(context, args)

    def format_commands(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


def _providers() -> Iterable[object]:
    from providers import BUILTIN

    return BUILTIN


def _sandbox(**options: Any) -> AbstractAsyncContextManager[Any]:
    from providers.sandbox import demo

    return demo(**options)


def _replay(**options: Any) -> Replay:
    from providers.replay import replayed

    return Replay(*replayed(**options))


@click.group(
    cls=_Commands,
    context_settings={
        "help_option_names": ["-h", "--help"],
        "max_content_width": 100,
        "obj": Distribution(_providers, _sandbox, _replay),
    },
)
@click.version_option(VERSION, prog_name="market-relay", message="%(prog)s %(version)s")
def main() -> None:
    """Relays live and historical candles from market-data providers to any number of clients.

    \b
    relay serve --sandbox            try it: no network, no key
    relay serve --replay relay.db    play recorded candles again
    relay tail BTCUSDT@1m            watch a stream of a running relay
    relay history EUR/USD 1h         print candles
    """
