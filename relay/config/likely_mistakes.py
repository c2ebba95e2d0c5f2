"""What can be used as it is configured, and is most likely a mistake; told at start and by check-config."""

from collections.abc import Iterable, Iterator

from relay.config.environment import OF_CLIENTS, PREFIX, is_of_a_service, names_of_variable
from relay.config.settings import SETTINGS, Config, setting_variables
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


def likely_mistakes(config: Config, infos: Iterable[ProviderInfo]) -> Iterator[str]:
    """Yield one sentence for each; none holds a value."""
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
    if not config.tokens and config.environ.get(OF_CLIENTS[1]):
        yield f"{OF_CLIENTS[1]} is for commands, and no tokens are set; did you mean {SETTINGS['tokens'].variable}?"
    variables = [(setting.variable, setting.is_secret) for setting in SETTINGS.values()]
    for info in infos:
        for setting in info.settings:
            variables += [(name, setting.is_secret) for name in setting_variables(info, setting)]
    known = [each for name, is_secret in variables for each in names_of_variable(name, is_secret=is_secret)]
    for name, value in sorted(config.environ.items()):
        if name.startswith(PREFIX) and name not in (*known, *OF_CLIENTS) and not is_of_a_service(name, value):
            if name in FLAGS_ONLY:
                yield f"no setting reads the variable {name}; {FLAGS_ONLY[name]} is a flag only"
                continue
            # What they all begin with makes none of them alike.
            near = near_name(name.removeprefix(PREFIX), [each.removeprefix(PREFIX) for each in known])
            yield f"no setting reads the variable {name}" + (f"; did you mean {PREFIX}{near}?" if near else "")
