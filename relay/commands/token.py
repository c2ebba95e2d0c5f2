"""`relay token`: makes a token for a client, and the line for the configuration that lets it in."""

import click

from relay.config.tokens import hashed, new_token


@click.command("token")
def command() -> None:
    """Make a token: print it, and its hash below.

    The client gets the first line. The second is for the relay, under a name in relay.toml, or in RELAY_TOKENS; it
    opens nothing, so the file need not be kept as secret as a key. The first line would do there as well.

    \b
    relay token
    relay_x2…                  for alice
    sha256:4c…                 for relay.toml: [tokens], and below it alice = "sha256:4c…"
    """
    token = new_token()
    click.echo(token.reveal())
    click.echo(hashed(token))
