"""`relay symbols`: what a running relay can stream."""

from collections.abc import Sequence

import click

from relay.client import RelayClient
from relay.commands.formatting import json_line, printable
from relay.commands.run_client import call, relay_options


@click.command("symbols", short_help="List the symbols that a running relay can stream.")
@click.argument("words", nargs=-1)
@click.option("--asset-class", metavar="NAME", help="Only this asset class, for example crypto or forex.")
@click.option("--provider", metavar="NAME", help="Only this provider, for example binance.")
@click.option("--names", is_flag=True, help="Print the name of each after its symbol, where it is known.")
@click.option("--limit", type=click.IntRange(1, 5000), metavar="N", help="At most N symbols; 100 with WORDS.")
@click.option("--json", "as_json", is_flag=True, help="Print a list as JSON; with --names the instruments.")
@relay_options
def command(
    words: tuple[str, ...],
    asset_class: str | None,
    provider: str | None,
    names: bool,
    limit: int | None,
    as_json: bool,
    url: str,
    token: str | None,
) -> None:
    """List the symbols that a running relay can stream, one a line, sorted.

    With WORDS those that have all of them in symbol, name, base or quote, the best first.

    \b
    Examples:
      relay symbols
      relay symbols euro dollar --names
      relay symbols --asset-class forex
      relay symbols | grep USDT
    """

    async def work(client: RelayClient) -> None:
        if not (words or provider or names or limit):
            symbols = await client.symbols(asset_class)
            _print([(symbol,) for symbol in symbols], json_line(symbols) if as_json else None)
            return
        search = " ".join(words) or None
        found = await client.instruments(asset_class, provider=provider, search=search, limit=limit)
        value = [one._asdict() for one in found] if names else [one.symbol for one in found]
        rows = [(one.symbol, one.name or "") if names else (one.symbol,) for one in found]
        _print(rows, json_line(value) if as_json else None)

    call(url, token, work)


def _print(rows: Sequence[tuple[str, ...]], json: str | None) -> None:
    if json is not None:
        click.echo(json)
    elif rows:
        click.echo("\n".join("\t".join(map(printable, row)).rstrip("\t") for row in rows))
