"""What a relay needs to be one of several, beside its settings: packages that others do without, and a file."""

import os
from importlib.util import find_spec

from relay.config.settings import Config
from relay.core.errors import ConfigError

_PARTS = (b"NATS USER JWT", b"USER NKEY SEED")
"""What a file of credentials has, each between lines that say so."""
_MOST_BYTES = 1_000_000


def check_cluster(config: Config) -> None:
    """Raise `ConfigError` if what `[cluster]` needs is not there."""
    if config.cluster_nats and find_spec("nats") is None:
        raise ConfigError(
            "[cluster] nats is set and the package nats-py is not installed; install market-relay[cluster]"
        )
    if not config.cluster_nats or not config.cluster_credentials:
        return
    if find_spec("nkeys") is None:
        raise ConfigError(
            "[cluster] credentials is set and the package nkeys is not installed; install market-relay[credentials], "
            "or put user and password into the address of [cluster] nats"
        )
    try:
        if not os.path.isfile(config.cluster_credentials):
            raise FileNotFoundError  # also of a pipe, which would be empty for the bus
        with open(config.cluster_credentials, "rb") as file:
            held = file.read(_MOST_BYTES)
    except OSError:
        raise ConfigError(
            f"[cluster] credentials {config.cluster_credentials!r} is not a file that can be read; name a .creds file"
        ) from None
    if lacking := [part.decode() for part in _PARTS if b"BEGIN " + part not in held]:
        raise ConfigError(
            f"[cluster] credentials {config.cluster_credentials!r} is not a .creds file: it has no {lacking[0]}; "
            "nsc generate creds writes one"
        )
