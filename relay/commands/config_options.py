"""What the commands that read the configuration have in common: their flags, and how a wrong value ends them."""

import contextlib
import sys
from collections.abc import Callable, Iterator

import click

from relay.commands.completion import completes
from relay.config.settings import SETTINGS, RelaySetting
from relay.core.errors import ConfigError, StoreError

CONFIG_HELP = "Configuration file (TOML). Default: relay.toml in the working directory, if it exists."
INSECURE_HELP = "Let other machines connect without a token."


def takes_settings(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command a flag for each setting that is no secret."""
    command = click.option("--insecure", is_flag=True, help=INSECURE_HELP)(command)
    for setting in reversed(SETTINGS.values()):
        if not setting.is_secret:
            command = _flag_of(setting)(command)
    return click.option("--config", "file", type=click.Path(), metavar="FILE", help=CONFIG_HELP)(command)


def _flag_of(setting: RelaySetting) -> Callable[[Callable[..., None]], Callable[..., None]]:
    text = f"{setting.help.removesuffix('.')}.  [default: {setting.default_text}]"
    if isinstance(setting.default, bool):
        return click.option(f"{setting.flag}/--no-{setting.flag[2:]}", default=None, help=text)
    if setting.name == "plugins":
        help_text = f"{setting.help} Can be repeated."
        return click.option(setting.flag, multiple=True, type=click.Path(), metavar=setting.form, help=help_text)
    kind = click.Path() if setting.form == "FILE" else str
    words = setting.form.split("|") if "|" in setting.form and setting.form.islower() else []
    return click.option(
        setting.flag,
        type=kind,
        metavar=setting.form or None,
        help=text,
        shell_complete=completes(words) if words else None,
    )


@contextlib.contextmanager
def exit_on_relay_error() -> Iterator[None]:
    """End the command with one line on stderr, exit code 2, when the configuration or the database is no use."""
    try:
        yield
    except (ConfigError, StoreError) as error:
        click.echo(f"relay: {error}", err=True)
        sys.exit(2)
