"""How a command reaches a running relay and how it ends: address and token, one line for an error, no traceback."""

import asyncio
import contextlib
import io
import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, TypeVar

import click
from click.core import ParameterSource
from rich.console import Console

from relay.client import DEFAULT_URL, ClientError, Refused, RelayClient, parse_url
from relay.commands.formatting import printable
from relay.config.environment import FILE, OF_CLIENTS, given_variable
from relay.core.errors import ConfigError
from relay.core.secret import clean_secret
from relay.protocol.fields import PLUS_IN_ADDRESSES, WHERE_SYMBOLS_ARE

F = TypeVar("F", bound=Callable[..., object])

Work = Callable[[RelayClient], Coroutine[Any, Any, None]]

INTERRUPTED = 128 + signal.SIGINT
TERMINATED = 128 + signal.SIGTERM


def _check_url(context: click.Context, option: click.Parameter, value: str) -> str:
    try:
        return ",".join(str(parse_url(one)) for one in value.split(","))
    except ValueError as fault:
        raise click.BadParameter(str(fault)) from None


def _check_token(context: click.Context, option: click.Parameter, value: str | None) -> str | None:
    where = "--token"
    if option.name is None or context.get_parameter_source(option.name) is not ParameterSource.COMMANDLINE:
        try:
            given = given_variable(os.environ, OF_CLIENTS[1], is_secret=True)
        except ConfigError as error:
            raise click.UsageError(str(error), context) from None
        value, where = ("", "") if given is None else given
    if not value:
        return None
    # The value itself stays out of the messages.
    try:
        value = clean_secret(value)
    except ValueError as fault:
        raise click.UsageError(f"{where}: the token {fault}", context) from None
    if not value.isascii() or not value.isprintable() or " " in value:
        raise click.UsageError(f"{where}: a token is one word of printable ASCII characters", context)
    return value


def relay_options(command: F) -> F:
    """Give a command `--url` and `--token`."""
    token = click.option(
        "--token",
        envvar=OF_CLIENTS[1],
        show_envvar=True,
        callback=_check_token,
        help=f"Token, if the relay needs one. Better in the environment, or in a file that {OF_CLIENTS[1]}{FILE} "
        "names: the list of processes shows flags.",
    )
    url = click.option(
        "--url",
        envvar=OF_CLIENTS[0],
        show_envvar=True,
        default=DEFAULT_URL,
        show_default=True,
        callback=_check_url,
        help="Address of the relay; or of several that serve the same, with commas: each is tried in turn.",
    )
    return url(token(command))


def shows_table() -> bool:
    """Say whether stdout is a terminal that can redraw; if not, plain lines are due."""
    return sys.stdout.isatty() and not Console().is_dumb_terminal


def call(url: str, token: str | None, work: Work) -> None:
    """Run `work` with a client of the relay, or of the relays whose addresses are joined by commas, to its end.

    An error of the client becomes one line and exit 1; Ctrl-C exits 130, SIGTERM 143 and a reader of stdout who left
    0, all without a word.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A symbol that the terminal's encoding lacks must not end the command.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        asyncio.run(_run(url, token, work))
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except BrokenPipeError:
        _leave_stdout()
        sys.exit(0)
    except ClientError as fault:
        raise click.ClickException(_explained(fault, url)) from None


async def _run(url: str, token: str | None, work: Work) -> None:
    with _terminations() as came:
        try:
            # As with curl: whoever types a command has set the environment that it runs in.
            async with RelayClient(url.split(","), token, in_order=True, trust_env=True) as client:
                await work(client)
        except asyncio.CancelledError:
            if came:
                sys.exit(TERMINATED)
            raise


@contextlib.contextmanager
def _terminations() -> Iterator[list[int]]:
    """Let SIGTERM cancel the running task, since it would leave a terminal without its cursor; give those that came.

    Not by the loop, which has no handlers on some platforms. In a thread that is not the main one a command is not the
    process, and signals are none of its business.
    """
    came: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield came
        return
    loop, task = asyncio.get_running_loop(), asyncio.current_task()

    def terminate(number: int, frame: object) -> None:
        came.append(number)
        if task is not None:
            loop.call_soon_threadsafe(task.cancel)

    before = signal.signal(signal.SIGTERM, terminate)
    try:
        yield came
    finally:
        signal.signal(signal.SIGTERM, before)


def in_words_of_the_command(text: str) -> str:
    """Return what a relay says, printable, and with commands and flags in the place of its routes and parameters."""
    text = printable(text).replace(WHERE_SYMBOLS_ARE, "relay symbols lists all").replace(PLUS_IN_ADDRESSES, "")
    return re.sub(r"\b(start|end)_time\b", r"--\1", text)


def _explained(fault: ClientError, url: str) -> str:
    text = in_words_of_the_command(str(fault))
    if isinstance(fault, Refused):
        if fault.code == "not_found":
            return f"{url} is not exactly the address of a relay; relay serve prints the address"
        if fault.status == 401:
            text = "a valid token is needed; give it with --token, RELAY_TOKEN or RELAY_TOKEN_FILE"
        if fault.retry_after is not None:
            text += f" (try again in {fault.retry_after:.0f} s)"
    return text


def _leave_stdout() -> None:
    # Python flushes stdout once more at exit and would complain.
    with contextlib.suppress(OSError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)
