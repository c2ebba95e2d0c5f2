"""Loads and binds one plugin as a relay does."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from types import MappingProxyType

from relay.config.settings import Config
from relay.core.clock import Clock, ProviderClock
from relay.plugins.cancellation import PLUGIN_TIMING, PluginTiming
from relay.plugins.loader import PluginHost
from relay.plugins.provider import Provider
from relay.plugins.provider_session import new_session
from relay.testing.findings import DoesNotConform, FaultName, Finding


@asynccontextmanager
async def open_provider(
    plugin: object,
    settings: Mapping[str, object] | None = None,
    *,
    clock: Clock | None = None,
    timing: PluginTiming = PLUGIN_TIMING,
) -> AsyncIterator[Provider]:
    """Load one plugin and bind it as a relay does, with a session and its settings as its table gives them.

    `plugin` is a module, a class, an object, or a text as in the setting `plugins`; `timing` is what its calls and
    feeds may take. Raises `DoesNotConform` with the reason for which a relay would refuse it, `ConfigError` for its
    settings.
    """
    host = PluginHost()
    if isinstance(plugin, str):
        host.find((), [plugin], installed=False)
    else:
        host.find([plugin], installed=False)
    host.configure(Config(tables=MappingProxyType({name: dict(settings or {}) for name in host.found})))
    if host.failures:
        raise DoesNotConform(host.failures[0].source, [Finding(FaultName.NOT_LOADED, host.failures[0].error)])
    if not host.loaded:
        said = "it only wraps hooks of others: there is no provider to check"
        raise DoesNotConform(str(plugin), [Finding(FaultName.NOT_LOADED, said)])
    (loaded,) = host.loaded.values()
    provider = host.bind(loaded, loaded.settings, ProviderClock(clock or Clock()), timing)
    provider.open(new_session(provider.clock))
    try:
        yield provider
    finally:
        await provider.close()
