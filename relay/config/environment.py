"""Which variables of the environment are settings, and which only look like some."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from relay.core.errors import ConfigError

FILE = "_FILE"
"""Behind the name of a secret's variable: the file that the secret is in, as containers and systemd hand them over."""
PREFIX = "RELAY_"
OF_CLIENTS = ("RELAY_URL", "RELAY_TOKEN")
"""What the commands read that talk to a running relay; the second is a secret, and may be in a file."""

# Kubernetes describes each Service of a namespace to every container, so that one called `relay` makes a RELAY_PORT:
# https://kubernetes.io/docs/tutorials/services/connect-applications-service/#environment-variables
_OF_A_SERVICE = re.compile(r"\w+_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)")
_ADDRESS = re.compile(r"(tcp|udp|sctp)://.*")


def is_of_a_service(name: str, value: str) -> bool:
    """Say whether Kubernetes made this variable to describe a Service; it is no setting then."""
    return bool(_OF_A_SERVICE.fullmatch(name) or (name.endswith("_PORT") and _ADDRESS.fullmatch(value)))


def names_of_variable(name: str, *, is_secret: bool) -> Iterator[str]:
    """Yield the variables that a setting is read from by one name; a secret may be in a file too."""
    yield name
    if is_secret:
        yield name + FILE


def given_variable(environ: Mapping[str, str], name: str, *, is_secret: bool = False) -> tuple[str, str] | None:
    """Return the value of a variable that is a setting, and where it is from; None where it is not given.

    An empty variable, or a file with nothing in it, gives nothing. Raises `ConfigError` when a file cannot be read, or
    when a secret is given in both ways.
    """
    found = []
    for each in names_of_variable(name, is_secret=is_secret):
        value = environ.get(each)
        if value and not is_of_a_service(each, value):
            value = value if each == name else _content_of(each, value)
            if value.strip():
                found.append((value, each))
    if len(found) > 1:
        raise ConfigError(f"{found[0][1]} and {found[1][1]} are both set; set one of them")
    return found[0] if found else None


def _content_of(variable: str, path: str) -> str:
    try:
        # Some editors put a byte order mark before the text.
        return Path(path).read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ConfigError(f"{variable}: cannot read {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{variable}: {path} is not UTF-8 text") from None


def is_empty(path: str) -> bool:
    """Say whether a file that a secret is to be in has nothing in it, or line ends only."""
    try:
        return not Path(path).read_text(encoding="utf-8-sig").strip("\r\n")
    except (OSError, UnicodeDecodeError):
        return False
