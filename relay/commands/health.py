"""`relay health`: whether the relay on this machine serves; made for the health check of a container."""

import http.client
import json
import os
import ssl
from contextlib import closing
from typing import Any
from urllib.parse import SplitResult, urlsplit

import click

from relay.commands.config_options import CONFIG_HELP, exit_on_relay_error
from relay.commands.formatting import printable
from relay.config.environment import OF_CLIENTS, names_of_variable
from relay.config.given_settings import load_config
from relay.config.settings import SETTINGS, Config

TIMEOUT_S = 4.0
_ANY = {"0.0.0.0": "127.0.0.1", "::": "::1"}


def _check_url(context: click.Context, option: click.Parameter, value: str | None) -> str | None:
    if not value:
        return None
    # Only here: it takes a part of the time that a health check has.
    from relay.client import parse_url

    if "," in value:
        raise click.BadParameter(f"{printable(value)} has several addresses; a health check asks one relay")
    try:
        return str(parse_url(value))
    except ValueError as fault:
        raise click.BadParameter(str(fault)) from None


@click.command("health", short_help="Say whether a running relay serves, for a health check.")
@click.option(
    "--url",
    envvar=OF_CLIENTS[0],
    show_envvar=True,
    callback=_check_url,
    help="Address of the relay.  [default: host and port of the configuration]",
)
@click.option("--config", "file", type=click.Path(), metavar="FILE", help=CONFIG_HELP)
@click.option("--ready", is_flag=True, help="Also fail while the relay stops, or cannot use its database.")
def command(url: str | None, file: str | None, ready: bool) -> None:
    """Exit with 0 if the relay on this machine answers, else with 1 and one line. It needs no token.

    Without --ready this is the check by which a container or a service manager restarts the relay. With --ready it also
    fails where a restart does not help, for example while the disk is full: for a load balancer.

    \b
    relay health
    relay health --ready --url http://127.0.0.1:9000
    """
    with exit_on_relay_error():
        place = urlsplit(url or _address(load_config({"insecure": True}, file=file, environ=_without_secrets())))
    if fault := _fault(place, "/readyz" if ready else "/healthz"):
        raise click.ClickException(printable(f"{place.geturl()}: {fault}"))
    click.echo("ready" if ready else "healthy")


def _without_secrets() -> dict[str, str]:
    """Return the environment without secrets: a file of one that is being changed makes no running relay unhealthy."""
    secrets = {
        name
        for setting in SETTINGS.values()
        if setting.is_secret
        for name in names_of_variable(setting.variable, is_secret=True)
    }
    return {name: value for name, value in os.environ.items() if name not in secrets}


def _address(config: Config) -> str:
    host = _ANY.get(config.host, config.host)
    return f"{'https' if config.tls_cert else 'http'}://{f'[{host}]' if ':' in host else host}:{config.port}"


def _fault(place: SplitResult, path: str) -> str:
    """Ask the relay; return why it is not well, "" if it is."""
    try:
        with closing(_connection(place)) as connection:
            connection.request("GET", place.path.rstrip("/") + path)
            answer = connection.getresponse()
            status, body = answer.status, answer.read(65536)
    except (OSError, ValueError, http.client.HTTPException) as error:
        return f"no answer ({getattr(error, 'strerror', None) or error or type(error).__name__})"
    return "" if status == 200 else _said(body) or f"it answered {status}"


def _connection(place: SplitResult) -> http.client.HTTPConnection:
    host = place.hostname or ""
    if place.scheme != "https":
        return http.client.HTTPConnection(host, place.port, timeout=TIMEOUT_S)
    # It asks itself, by an address that the certificate need not name; nothing secret is sent.
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return http.client.HTTPSConnection(host, place.port, timeout=TIMEOUT_S, context=context)


def _said(body: bytes) -> str:
    try:
        problem: Any = json.loads(body)
    except ValueError:
        return ""
    return str(problem.get("detail", "")) if isinstance(problem, dict) else ""
