"""`relay symbols`: what a running relay can stream."""

import click

from relay.client import RelayClient
from relay.commands.formatting import json_line, printable
from relay.commands.run_client import call, relay_options


@click.command("symbols", short_help="List the symbols that a running relay can stream.")
@click.option("--asset-class", metavar="NAME", help="Only this asset class, for example crypto or forex.")
@click.option("--json", "as_json", is_flag=True, help="Print the answer of the relay as JSON.")
@relay_options
def command(asset_class: str | None, as_json: bool, url: str, token: str | None) -> None:
    """List the symbols that a running relay can stream, one a line, sorted.

    \b
    Examples:
      relay symbols
      relay symbols --asset-class forex
      relay symbols | grep USDT
    """

    async def work(client: RelayClient) -> None:
        symbols = await client.symbols(asset_class)
        if as_json:
            click.echo(json_line(symbols))
        elif symbols:
            click.echo("\n".join(map(printable, symbols)))

    call(url, token, work)
