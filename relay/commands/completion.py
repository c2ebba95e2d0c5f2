"""`relay completion`: the script that lets a shell complete commands and flags."""

import click
from click.shell_completion import get_completion_class

VARIABLE = "_RELAY_COMPLETE"
"""What the script sets when it asks `relay` for the words that fit."""


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
    click.echo(kind(context.find_root().command, {}, "relay", VARIABLE).source())
