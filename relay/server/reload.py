"""What SIGHUP does: reads the configuration again and lets what can change in a running relay change."""

import dataclasses
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from aiohttp import web

from relay.app import CLUSTER, DIRECTORY, HOST, PROVIDERS, PROXIES, SUPERVISORS
from relay.config.given_settings import outward_proxies
from relay.config.likely_mistakes import likely_mistakes
from relay.config.provider_settings import (
    ENABLED,
    USES,
    check_tables,
    heading_of,
    instances,
    is_enabled,
    provider_settings,
    uses_of,
)
from relay.config.settings import INSTANCES, SETTINGS, Config
from relay.core.errors import ConfigError, PluginError
from relay.server.tls import Tls
from relay.telemetry.events import event
from relay.web.access.access import ACCESS
from relay.web.ws.route import CLIENTS

log = logging.getLogger(__name__)

RELOADED = tuple(name for name, setting in SETTINGS.items() if setting.is_reloaded)


def warn_of_likely_mistakes(config: Config, app: web.Application, before: Config | None = None) -> None:
    """Log what is configured and is probably not meant, but for what was so `before`."""
    infos, unread = [provider.info for provider in app[PROVIDERS].values()], app[HOST].unread
    known = set() if before is None else {*likely_mistakes(before, infos, unread)}
    for mistake in likely_mistakes(config, infos, unread):
        if mistake not in known:
            log.warning("%s", mistake, extra=event("config_mistake"))


def tell_proxies(app: web.Application) -> None:
    """Log which proxies lead to the providers, if any do."""
    if said := str(app[PROXIES]):
        log.info("connections to providers go through the proxy %s", said, extra=event("proxy_used", proxy=said))


class Reload:
    """Takes the configuration over, all of it or nothing. `config` is what was read last and could be used."""

    def __init__(self, app: web.Application, config: Config, read: Callable[[], Config], tls: Tls | None) -> None:
        self._app = app
        self._config = config
        self._read = read
        self._tls = tls

    def __call__(self) -> None:
        """Read it again. What cannot be used changes nothing and is a line in the log."""
        if CLIENTS not in self._app:
            return  # it has not started yet
        try:
            config = self._read()
            self._check(config)
            settings, rest = self._settings_of_providers(config)
            if self._tls is not None:
                self._tls.reload(config.tls_cert, config.tls_key)
        except ConfigError as error:
            log.error(
                "the new configuration cannot be used, so the old one stays in use: %s",
                error,
                extra=event("config_refused"),
            )
            return
        self._warn_of_the_rest(config, rest)
        warn_of_likely_mistakes(config, self._app, self._config)
        way = (self._config.proxy, self._config.trust_env)
        self._config = config
        self._take_over(config)
        self._reconfigure(settings)
        if way != (config.proxy, config.trust_env):
            self._change_way(config)

    def _check(self, config: Config) -> None:
        if self._config.read_from and not config.read_from:
            raise ConfigError(f"{self._config.read_from} does not exist any more; restart the relay to run without it")
        if self._config.tokens and not config.tokens:
            raise ConfigError("there are no tokens any more; restart the relay to open it to everybody")
        if self._tls is not None and not config.tls_cert:
            raise ConfigError("tls_cert is not set any more; restart the relay to switch TLS off")

    def _settings_of_providers(self, config: Config) -> tuple[dict[str, Mapping[str, Any]], list[str]]:
        """Return the settings of providers that changed, and what a provider cannot take while it runs.

        That is what changes its intervals or anything else that it says of itself. Raises `ConfigError`.
        """
        if config.plugins == self._config.plugins:
            check_tables(config, self._app[HOST].names)
        else:
            instances(config)  # A table may be of a plugin that is loaded at the next start.
        found: dict[str, Mapping[str, Any]] = {}
        rest: list[str] = []
        for name, provider in self._app[PROVIDERS].items():
            if uses_of(config, name) != provider.loaded.uses:
                continue  # It is another instance, or none any more.
            settings, heading = provider_settings(config, provider.info), heading_of(config, name)
            if settings == provider.settings:
                continue
            try:
                said = self._app[HOST].with_settings(provider.loaded, settings)
            except PluginError as error:
                raise ConfigError(f"{heading} {error.reason}") from None
            if said.info == provider.info:
                found[name] = settings
            else:
                changed = (key for key in settings if settings[key] != provider.settings.get(key))
                rest += [f"{key} in {heading}" for key in sorted(changed)]
        return found, rest

    def _changed_instances(self, config: Config) -> Iterator[str]:
        before = self._config.instances
        for name in sorted(before.keys() | config.instances.keys()):
            old, new = before.get(name, {}), config.instances.get(name, {})
            is_idle = name not in self._app[PROVIDERS]
            if old.get(USES) != new.get(USES) or (is_idle and old.keys() | new.keys() != {ENABLED} and old != new):
                yield f"[{INSTANCES}.{name}]"
            elif is_enabled(self._config, name) != is_enabled(config, name):
                yield f"{ENABLED} in [{INSTANCES}.{name}]"

    def _warn_of_the_rest(self, config: Config, rest: Sequence[str]) -> None:
        # The tables hold keys: of them only the names are compared and said.
        mine = {*SETTINGS, "insecure"} - {*RELOADED}
        names = sorted(name for name in mine if getattr(config, name) != getattr(self._config, name))
        tables = (config.tables.keys() | self._config.tables.keys()) - self._app[PROVIDERS].keys()
        names += sorted(f"[{name}]" for name in tables if config.tables.get(name) != self._config.tables.get(name))
        names += [*self._changed_instances(config), *rest]
        if self._tls is None and config.tls_cert:
            names.append("tls_cert")
        if names:
            log.warning(
                "these settings changed and need a restart: %s",
                ", ".join(names),
                extra=event("config_needs_restart", settings=names),
            )

    def _take_over(self, config: Config) -> None:
        access, clients = self._app[ACCESS], self._app[CLIENTS]
        logging.getLogger().setLevel(config.log_level.upper())
        # The running configuration may differ from the one that was read, as that of the sandbox does.
        running = dataclasses.replace(access.config, **{name: getattr(config, name) for name in RELOADED})
        access.reconfigure(running)
        gone = clients.reconfigure()
        log.info(
            "the configuration was read again; tokens: %d; clients disconnected because their token was removed: %d",
            len(config.tokens),
            gone,
            extra=event("config_reloaded", tokens=len(config.tokens), clients_sent_away=gone),
        )

    def _reconfigure(self, changed: Mapping[str, Mapping[str, Any]]) -> None:
        """Give providers their new settings. Feeds are replaced before the old ones end: no stream is lost."""
        for name, settings in changed.items():
            provider = self._app[PROVIDERS][name]
            keys = sorted(key for key in settings if settings[key] != provider.settings.get(key))
            provider.reconfigure(settings)
            self._renew(name)
            log.info(
                "provider %s has new settings: %s",
                name,
                ", ".join(keys),
                extra=event("provider_reconfigured", provider=name, settings=keys),
            )

    def _change_way(self, config: Config) -> None:
        """Reach all providers by other proxies, or without."""
        outward_proxies(config, self._app[PROXIES])
        tell_proxies(self._app)
        for name in self._app[PROVIDERS]:
            self._renew(name)

    def _renew(self, name: str) -> None:
        self._app[DIRECTORY].ask_anew(name)
        self._app[SUPERVISORS][name].renew()
        if CLUSTER in self._app:
            self._app[CLUSTER].renew(name)
