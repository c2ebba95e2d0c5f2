"""What can be used as it is configured, and is most likely a mistake; told at start and by check-config."""

from collections.abc import Iterable, Iterator

from relay.config.environment import FILE, OF_CLIENTS, PREFIX, is_empty, is_of_a_service, names_of_variable
from relay.config.provider_settings import enabled_variable, given_setting, setting_variables, uses_of
from relay.config.settings import CLUSTER, SETTINGS, Config
from relay.config.tokens import SHORT
from relay.core.model import ProviderInfo
from relay.core.near_names import near_name
from relay.core.outward_proxies import given_proxies

FLAGS_ONLY = {
    "RELAY_CONFIG": "--config",
    "RELAY_INSECURE": "--insecure",
    "RELAY_SANDBOX": "--sandbox",
    "RELAY_FOREX_ALWAYS_OPEN": "--forex-always-open",
}


def likely_mistakes(config: Config, infos: Iterable[ProviderInfo], others: Iterable[str] = ()) -> Iterator[str]:
    """Yield one sentence for each; none holds a value.

    `others` are the names of providers whose settings are not known: they are switched off, or were refused.
    """
    for token in config.tokens:
        if token.is_short:
            yield (
                f"the token of {token.name} has fewer than {SHORT} characters and can be guessed; "
                "relay token creates a longer one"
            )
    if config.proxy is None and not config.trust_env:
        for name, _ in given_proxies(config.environ).values():
            yield (
                f"{name} is set and not used: connections to providers go through no proxy; trust_env = true "
                "(RELAY_TRUST_ENV) uses it, and the setting proxy (RELAY_PROXY) names another"
            )
    if not config.cluster_nats:
        for name in sorted(config.sources):
            if name.startswith(f"{CLUSTER}_") and name != "cluster_nats":
                source = config.sources[name]
                yield f"{source} is set and [cluster] nats is not: this relay shares its work with no other"
    of_clients = (OF_CLIENTS[0], *names_of_variable(OF_CLIENTS[1], is_secret=True))
    for name, meant in zip(of_clients[1:], names_of_variable(SETTINGS["tokens"].variable, is_secret=True), strict=True):
        if not config.tokens and config.environ.get(name):
            yield f"{name} is for commands, and no tokens are set; did you mean {meant}?"
    infos = list(infos)
    yield from _shared_keys(config, infos)
    variables = [(setting.variable, setting.is_secret) for setting in SETTINGS.values()]
    for info in infos:
        variables.append((enabled_variable(info.name), False))
        for setting in info.settings:
            variables += [(name, setting.is_secret) for name in setting_variables(config, info, setting)]
    yield from _empty_files(config, [name for name, is_secret in variables if is_secret])
    unknown = tuple(f"{PREFIX}{name}_".upper() for name in others)
    known = [each for name, is_secret in variables for each in names_of_variable(name, is_secret=is_secret)]
    for name, value in sorted(config.environ.items()):
        if name.startswith(unknown) or name in (*known, *of_clients) or is_of_a_service(name, value):
            continue
        if name.startswith(PREFIX):
            if name in FLAGS_ONLY:
                yield f"no setting reads the variable {name}; {FLAGS_ONLY[name]} is a flag only"
                continue
            # What they all begin with makes none of them alike.
            near = near_name(name.removeprefix(PREFIX), [each.removeprefix(PREFIX) for each in known])
            yield f"no setting reads the variable {name}" + (f"; did you mean {PREFIX}{near}?" if near else "")


def _empty_files(config: Config, secrets: Iterable[str]) -> Iterator[str]:
    """Yield which files of secrets hold nothing. A space is meant: systemd writes one where there is no credential."""
    for name in secrets:
        path = config.environ.get(name + FILE)
        if path and is_empty(path):
            yield f"{name}{FILE} names a file with nothing in it, so the setting is not set; write the secret into it"


def _shared_keys(config: Config, infos: Iterable[ProviderInfo]) -> Iterator[str]:
    """Yield which instances of one provider have the same key."""
    owners: dict[tuple[str, str, str], str] = {}
    for info in infos:
        for setting in info.settings:
            given, _ = given_setting(config, info, setting)
            if setting.is_secret and isinstance(given, str):
                account = uses_of(config, info.name) or info.name, setting.name, given.strip()
                if (other := owners.setdefault(account, info.name)) != info.name:
                    yield (
                        f"{other} and {info.name} have the same {setting.name}: each spends its limits without regard "
                        "to the other"
                    )
