"""`relay token`: makes a token for a client, and the line for the configuration that lets it in."""

import click

from relay.config.tokens import hashed, new_token


@click.command("token")
def command() -> None:
    """Create a token; print the token and its hash.

    The client needs the first line. The second line is for the relay: under a name in relay.toml, or in RELAY_TOKENS.
    It is a hash that gives no access, so it need not be secret. The first line works there, too.

    \b
    relay token
    relay_x2…                  for alice
    sha256:4c…                 for relay.toml: [tokens], and below it alice = "sha256:4c…"
    """
    token = new_token()
    click.echo(token.reveal())
    click.echo(hashed(token))
