"""What a relay needs to be one of several, beside its settings: packages that others do without, and a file."""

import os
from importlib.util import find_spec

from relay.config.settings import Config
from relay.core.errors import ConfigError


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
    if not os.path.isfile(config.cluster_credentials) or not os.access(config.cluster_credentials, os.R_OK):
        raise ConfigError(
            f"[cluster] credentials {config.cluster_credentials!r} is not a file that can be read; name a .creds file"
        )
