"""`relay completion`: the script that lets a shell complete commands and flags."""

from collections.abc import Callable, Iterable

import click
from click.shell_completion import get_completion_class

VARIABLE = "_RELAY_COMPLETE"
"""What the script sets when it asks `relay` for the words that fit."""


def completes(words: Iterable[str]) -> Callable[..., list[str]]:
    """Make what completes a value that is one of some words."""
    return lambda context, parameter, begun: [word for word in words if word.startswith(begun)]


@click.command("completion", short_help="Print a shell script that completes commands and flags.")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def command(context: click.Context, shell: str) -> None:
    """Print a shell script that completes the commands and flags of relay.

    \b
    eval "$(relay completion bash)"          in ~/.bashrc
    eval "$(relay completion zsh)"           in ~/.zshrc
    relay completion fish | source           in ~/.config/fish/config.fish
    """
    kind = get_completion_class(shell)
    assert kind is not None, "click knows all three"
    script = kind(context.find_root().command, {}, "relay", VARIABLE).source()
    # Else fish gets an explanation up to its first comma only.
    click.echo(script.replace('string split ","', 'string split --max 1 ","'))
