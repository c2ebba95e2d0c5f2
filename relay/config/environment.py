"""Which variables of the environment are settings, and which only look like some; pure."""

import re
from collections.abc import Mapping

PREFIX = "RELAY_"
OF_CLIENTS = ("RELAY_URL", "RELAY_TOKEN")
"""What the commands read that talk to a running relay."""

# Kubernetes describes each Service of a namespace to every container, so that one called `relay` makes a RELAY_PORT:
# https://kubernetes.io/docs/tutorials/services/connect-applications-service/#environment-variables
_OF_A_SERVICE = re.compile(r"\w+_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)")
_ADDRESS = re.compile(r"(tcp|udp|sctp)://.*")


def is_of_a_service(name: str, value: str) -> bool:
    """Say whether Kubernetes made this variable to describe a Service; it is no setting then."""
    return bool(_OF_A_SERVICE.fullmatch(name) or (name.endswith("_PORT") and _ADDRESS.fullmatch(value)))


def given_variable(environ: Mapping[str, str], name: str) -> str | None:
    """Return the value of a variable that is a setting; None where it is not given. An empty one is not given."""
    value = environ.get(name)
    return value if value and not is_of_a_service(name, value) else None
