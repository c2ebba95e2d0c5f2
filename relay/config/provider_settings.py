"""Which providers the configuration has and switches off, and the settings of each; every complaint names the key."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from relay.config import parsers
from relay.config.environment import given_variable, is_of_a_service, names_of_variable
from relay.config.given_settings import masked, parsed, quoted
from relay.config.settings import CLUSTER, INSTANCES, SETTINGS, Config, RelaySetting
from relay.core.errors import ConfigError
from relay.core.model import ProviderInfo, Setting
from relay.core.near_names import did_you_mean
from relay.core.secret import pattern_of

USES, ENABLED = "uses", "enabled"
INSTANCE_SETTINGS = {
    one.name: one
    for one in (
        RelaySetting(
            USES,
            parsers.text,
            "",
            "Another instance of this provider, under the name NAME; the other keys of the table, or RELAY_NAME_KEY, "
            "are its settings",
            automatic="none",
        ),
        RelaySetting(
            ENABLED,
            parsers.switch,
            True,
            "false switches the provider or the instance NAME off: it is not contacted and not listed",
        ),
    )
}
"""The keys of a table [providers.NAME] that are no settings of the provider."""


def fault_of_name(name: Any) -> str | None:
    """Say why a provider, or an instance of one, cannot have this name, or None."""
    if not isinstance(name, str) or not name.isidentifier() or not name.isascii() or name != name.lower():
        return f"name {name!r} is not a lower-case identifier such as my_exchange"
    if name in SETTINGS or name in (INSTANCES, CLUSTER, "insecure"):
        return f"name {name!r} is a setting of the relay itself; choose another name"
    return None


# -- instances -------------------------------------------------------------------------------------


def instances(config: Config) -> dict[str, str]:
    """Return the name of each instance and of the provider that it uses, in the order of the file.

    Raises `ConfigError` for a table [providers.NAME] that makes no sense, whoever the providers are.
    """
    found = {}
    for name, table in config.instances.items():
        if fault := fault_of_name(name):
            raise ConfigError(f"[{INSTANCES}.{name}]: {fault}")
        is_enabled(config, name)
        if USES in table:
            found[name] = parsed(INSTANCE_SETTINGS[USES].parse, table[USES], f"{USES} in [{INSTANCES}.{name}]")
            if name in config.tables:
                raise ConfigError(
                    f"the settings of {name}, which uses {found[name]}, are in [{INSTANCES}.{name}]; move the keys of "
                    f"[{name}] there"
                )
    return found


def uses_of(config: Config, name: str) -> str:
    """Return the provider that an instance uses, "" if there is no instance of this name."""
    return str(config.instances.get(name, {}).get(USES, ""))


def heading_of(config: Config, name: str) -> str:
    """Return the heading of the table that the settings of a provider or an instance are in."""
    return f"[{INSTANCES}.{name}]" if uses_of(config, name) else f"[{name}]"


def is_enabled(config: Config, name: str) -> bool:
    """Say whether a provider or an instance is not switched off. Raises `ConfigError`."""
    table = config.instances.get(name, {})
    given = [(table[ENABLED], f"{ENABLED} in [{INSTANCES}.{name}]")] if ENABLED in table else []
    if variable := given_variable(config.environ, enabled_variable(name)):
        given.append(variable)
    # A wrong value is one, also where a stronger source hides it for now.
    return all([True, *(parsed(INSTANCE_SETTINGS[ENABLED].parse, value, where) for value, where in given)][-1:])


def enabled_variable(name: str) -> str:
    """Return the environment variable that switches a provider or an instance off."""
    return f"RELAY_{name}_{ENABLED}".upper()


def check_tables(
    config: Config, known: Iterable[str], having: Callable[[Iterable[str]], Sequence[str]] = lambda keys: ()
) -> None:
    """Refuse tables that belong to no provider. `known` are the names of all, also of what is off or was refused.

    `having` returns the providers that have settings of all these names. Raises `ConfigError`.
    """
    found, names = instances(config), list(known)
    listed = ", ".join(sorted(names)) or "none"
    for name, used in found.items():
        if used in names or not is_enabled(config, name):
            continue
        hint = f"; {used} is an instance itself, of {found[used]}" if used in found else did_you_mean(used, names)
        raise ConfigError(
            f"{USES} in [{INSTANCES}.{name}]: there is no provider {used!r}; providers are {listed}{hint}"
        )
    for name, table in config.instances.items():
        if name in found:
            continue
        keys = [key for key in table if key not in INSTANCE_SETTINGS]
        if keys and name in names:
            raise ConfigError(
                f"unknown key {keys[0]!r} in [{INSTANCES}.{name}], which uses no other provider; the settings of "
                f"{name} itself are in [{name}]{did_you_mean(keys[0], INSTANCE_SETTINGS)}"
            )
        if keys:
            meant = [] if did_you_mean(name, names) else [*having(keys)]
            raise ConfigError(
                f"[{INSTANCES}.{name}] lacks {USES}, and there is no provider {name!r}: "
                f"{_uses_to_add(meant)}; providers are {listed}{did_you_mean(name, names)}"
            )
        if name not in names:
            raise ConfigError(
                f"unknown provider {name!r} in [{INSTANCES}.{name}]; providers are {listed}; for another instance of "
                f'one of them add {USES} = "…"{did_you_mean(name, names)}'
            )
    for name in config.tables:
        if name not in names:
            raise ConfigError(
                f"unknown key {name!r} in the configuration file: there is no such setting and no provider of "
                f"that name; providers are {listed}{did_you_mean(name, [*names, *SETTINGS, INSTANCES])}"
            )


def _uses_to_add(meant: Sequence[str]) -> str:
    if not meant:
        return f'add {USES} = "…" with the provider that it is an instance of'
    return f"add {' or '.join([_usage(name) for name in meant])}, which has these settings"


def _usage(name: str) -> str:
    return f'{USES} = "{name}"'


def check_variables(config: Config, infos: Sequence[ProviderInfo]) -> None:
    """Refuse a variable of the environment that two settings read: it can be meant for one. Raises `ConfigError`."""
    readers: dict[str, str] = {
        each: name
        for name, setting in SETTINGS.items()
        for each in names_of_variable(setting.variable, is_secret=setting.is_secret)
    }
    for info in infos:
        for variable, reader in _own_variables(config, info):
            other = readers.setdefault(variable, reader)
            value = config.environ.get(variable)
            if other != reader and value and not is_of_a_service(variable, value):
                raise ConfigError(
                    f"{variable} is read by {other} and by {reader}; write these settings into a file instead, or "
                    f"give one of the providers another name with [{INSTANCES}.NAME] {USES}"
                )


def _own_variables(config: Config, info: ProviderInfo) -> Iterator[tuple[str, str]]:
    heading = heading_of(config, info.name)
    yield enabled_variable(info.name), f"{ENABLED} in [{INSTANCES}.{info.name}]"
    for setting in info.settings:
        own = setting_variables(config, info, setting)[0]
        for each in names_of_variable(own, is_secret=setting.is_secret):
            yield each, f"{setting.name} in {heading}"


# -- settings --------------------------------------------------------------------------------------


def provider_settings(config: Config, info: ProviderInfo) -> Mapping[str, Any]:
    """Return one provider's settings by name, checked. Raises `ConfigError` that names the key and the value."""
    declared = {setting.name: setting for setting in info.settings}
    for name in _table_of(config, info.name):
        if name not in declared:
            raise ConfigError(
                f"unknown key {name!r} in {heading_of(config, info.name)}; known keys are "
                f"{', '.join(sorted(declared)) or 'none'}{did_you_mean(name, declared)}"
            )
    found: dict[str, Any] = {}
    for name, setting in declared.items():
        found[name] = setting.default
        for given, where in _given(config, info, setting):
            found[name] = parsed(_parser_of(setting), given, where, is_secret=setting.is_secret)
            fault = setting.check(found[name]) if setting.check else None
            if fault:
                raise ConfigError(f"{where}: {_shown_fault(setting, given, found[name], fault)}")
    return MappingProxyType(found)


def _shown_fault(setting: Setting, given: Any, value: Any, fault: str) -> str:
    """Return what a provider's own check says of a value, without the value itself where nobody is to see it."""
    if setting.kind == "table":
        # There may be keys in it.
        return f"the table {masked(fault)}"
    if not setting.is_secret:
        return f"{quoted(given)} {masked(fault)}"
    # However short it is: here it is known that it may be in the text.
    return f"the value {pattern_of([value.reveal()]).sub('***', fault)}"


def _table_of(config: Config, name: str) -> Mapping[str, Any]:
    if not uses_of(config, name):
        return config.tables.get(name, {})
    return {key: value for key, value in config.instances[name].items() if key not in INSTANCE_SETTINGS}


def given_setting(config: Config, info: ProviderInfo, setting: Setting) -> tuple[Any, str | None]:
    """Return a provider's setting as it was given and where; `(None, None)` where it was not."""
    return [(None, None), *_given(config, info, setting)][-1]


def _given(config: Config, info: ProviderInfo, setting: Setting) -> list[tuple[Any, str]]:
    """Return each value that a provider's setting is given, and where, the one that holds last."""
    own, *others = setting_variables(config, info, setting)
    found: list[tuple[Any, str] | None] = [
        given_variable(config.environ, name, is_secret=setting.is_secret) for name in reversed(others)
    ]
    table = _table_of(config, info.name)
    if setting.name in table:
        found.append((table[setting.name], f"{setting.name} in {heading_of(config, info.name)}"))
    found.append(given_variable(config.environ, own, is_secret=setting.is_secret))
    return [one for one in found if one is not None]


def setting_variables(config: Config, info: ProviderInfo, setting: Setting) -> tuple[str, ...]:
    """Return the environment variables that a provider's setting is read from, the first one first.

    What the plugin names beside its own variable is for the provider itself: with it two accounts would have one key.
    """
    others = setting.environment if uses_of(config, info.name) in ("", info.name) else ()
    return (f"RELAY_{info.name}_{setting.name}".upper(), *others)


def setting_values(setting: Setting) -> str:
    """Return in words which values a provider's setting takes."""
    if setting.is_secret:
        return "a secret"
    if setting.choices:
        return " or ".join(setting.choices)
    least = "" if setting.least is None else f" from {setting.least:g}"
    most = "" if setting.most is None else f" to {setting.most:g}"
    return f"{_VALUES[setting.kind]}{least}{most}"


_VALUES = {
    "text": "a text",
    "urls": "addresses, with commas",
    "list": "texts, with commas",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "table": "a table, in the file only",
}


def setting_default(setting: Setting) -> str:
    """Return in words what holds where a provider's setting is not given."""
    return "none" if setting.is_secret else shown_value(setting.default)


def shown_value(value: Any) -> str:
    """Return a setting's value in words; of a table its keys, since it may hold what nobody is to see."""
    if value is None or value in ("", ()):
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return ", ".join(map(str, value))
    if isinstance(value, Mapping):
        return f"a table of {', '.join(map(str, value))}" if value else "none"
    return str(value)


def _parser_of(setting: Setting) -> Callable[[Any], Any]:
    if setting.is_secret:
        return parsers.secret
    least = float("-inf") if setting.least is None else setting.least
    most = float("inf") if setting.most is None else setting.most
    by_kind: dict[str, Callable[[Any], Any]] = {
        "text": parsers.text,
        "urls": parsers.urls,
        "list": parsers.texts,
        "int": parsers.number(int, least, most),
        "float": parsers.number(float, least, most),
        "bool": parsers.switch,
        "choice": parsers.one_of(*setting.choices),
        "table": parsers.table,
    }
    return by_kind[setting.kind]
