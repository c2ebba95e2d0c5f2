"""`relay licenses`: which packages this installation consists of, and under which licences they may be used."""

import json

import click

from relay.packaging.components import Component, components


@click.command("licenses", short_help="List the packages of this installation and their licences.")
@click.option("--texts", is_flag=True, help="Print the texts of the licences, too.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object for each package.")
def command(texts: bool, as_json: bool) -> None:
    """List the relay, the plugins that are installed, and what they need, with versions and licences.

    Parts of Python itself come last. The single binary contains all of them.

    \b
    relay licenses
    relay licenses --texts > NOTICES
    """
    found = components()
    if as_json:
        for one in found:
            click.echo(json.dumps({"name": one.name, "version": one.version, "license": one.licence or None}))
        return
    name_width = max(len(one.name) for one in found)
    version_width = max(len(one.version) for one in found)
    for one in found:
        click.echo(f"{one.name:<{name_width}}  {one.version:<{version_width}}  {one.licence or 'not stated'}")
    if texts:
        for one in found:
            _print_texts(one)


def _print_texts(one: Component) -> None:
    for text in one.texts:
        click.echo(f"\n{'=' * 80}\n{one.name} {one.version}\n{'=' * 80}\n\n{text.strip()}")
