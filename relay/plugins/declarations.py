"""What is wrong with what a plugin says of itself, as a sentence for its author, or None; pure but for the log."""

import logging
import math
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from relay.config import parsers
from relay.config.provider_settings import INSTANCE_SETTINGS, fault_of_name
from relay.core.intervals import INTERVALS
from relay.core.model import EXTRA_FIELDS, Setting
from relay.core.secret import Secret
from relay.plugins.hookspecs import API_MINOR, API_VERSION, SINCE
from relay.plugins.validation import NUMBERS, kind_of
from relay.telemetry.events import event

log = logging.getLogger(__name__)

_KINDS = ("text", "secret", "urls", "list", "int", "float", "bool", "choice", "table")
_NOT_IN_API = re.compile(r"cannot import name '(\w+)' from 'relay' ")
_NO_FIELD = re.compile(
    r"(Budget|Hosts|Instrument|ProviderInfo|Setting|TradingCalendar)\.__(?:new|init)__\(\) got an unexpected keyword "
    r"argument '(\w+)'"
)
"""Of what a plugin makes when it arrives."""
_SWITCHES = (
    "one_interval_per_feed", "is_utc_grid", "history_has_open", "has_every_candle", "is_recorded", "always_pinned",
)  # fmt: skip
OLDEST_API = 1
"""What was written for it needs nothing else: all that API 2 changed is that there is more."""


def fault_of_api(api: Any, package: str = "") -> str | None:
    """Judge the API that a plugin says it is written for: a number, or a pair with the minor number that it needs.

    `package` is what it is installed with.
    """
    pair = api if isinstance(api, tuple) else (api, 0)
    if len(pair) != 2 or any(type(number) is not int or number < 0 for number in pair):
        return (
            f"api is {api!r}; give the number of the API, {API_VERSION}, or ({API_VERSION}, 1) to need a minor number"
        )
    number, minor = pair
    said, mine = api_text(api), f"{API_VERSION}.{API_MINOR}"
    if number > API_VERSION or (number == API_VERSION and minor > API_MINOR):
        return (
            f"needs provider API {said}, this relay has {mine}; install a newer market-relay, or an older version of "
            f"{package or 'the plugin'}"
        )
    if number < OLDEST_API or (isinstance(api, tuple) and number < API_VERSION):
        return (
            f"is written for provider API {said}, this relay takes {OLDEST_API} to {mine}; install a newer version of "
            f"{package or 'the plugin'}"
        )
    return None


def fault_of_import(error: BaseException, package: str = "") -> str | None:
    """Say what a plugin that failed on its arrival wants of the relay and is not in its API; None for other errors."""
    found = _NOT_IN_API.match(str(error)) if isinstance(error, ImportError) and error.name == "relay" else None
    what = found and f"imports {found[1]} from relay"
    if what is None and isinstance(error, TypeError):
        found = _NO_FIELD.match(str(error))
        what = found and f"gives {found[1]} the field {found[2]}"
    if what is None:
        return None
    return (
        f"{what}, which provider API {API_VERSION}.{API_MINOR} does not have; install a newer market-relay, or an "
        f"older version of {package or 'the plugin'}"
    )


def api_text(api: int | tuple[int, int]) -> str:
    """Return the number of an API as people read it: `2`, or `2.1`."""
    return ".".join(map(str, api)) if isinstance(api, tuple) else str(api)


def remark_on_api(api: int | tuple[int, int], hooks: Iterable[str] = ()) -> str:
    """Return what is to be said of the API that a plugin is written for although it loads, "" if nothing.

    It may be older than the relay's, or older than that of the `hooks` which the plugin implements.
    """
    number, minor = api if isinstance(api, tuple) else (api, 0)
    if number != API_VERSION:
        mine = f"{API_VERSION}.{API_MINOR}"
        return f"is written for provider API {api_text(api)} and works as it is; this relay has {mine}"
    newer = {hook: SINCE[hook] for hook in hooks if SINCE.get(hook, 0) > minor}
    if not newer:
        return ""
    needed = api_text((API_VERSION, max(newer.values())))
    return (
        f"says that it needs provider API {api_text(api)}, and has {' and '.join(newer)} of {needed}; write "
        f"api=({API_VERSION}, {max(newer.values())}), so that an older relay can say what is missing"
    )


def fault_of_info(info: Any) -> str | None:
    """Judge what `relay_provider` returned, its api number aside."""
    return fault_of_declarations(info) or _fault_of_description(info)


def fault_of_declarations(info: Any) -> str | None:
    """Judge what counts before there are settings: the name, and the settings that are declared."""
    if fault := fault_of_name(info.name):
        return fault
    if not isinstance(info.settings, tuple):
        return f"settings are {kind_of(info.settings)}, not a tuple of Setting"
    for setting in info.settings:
        fault = _fault_of_setting(setting)
        # Nobody looked at the limits of what API 1 has, and it loads as it did.
        if fault is None and not remark_on_api(info.api):
            fault = _fault_of_limits(setting)
        if fault is not None:
            return fault
    names = [setting.name for setting in info.settings]
    if len(set(names)) < len(names):
        return f"two settings have the same name: {' '.join(names)}"
    return None


def _fault_of_description(info: Any) -> str | None:
    if not isinstance(info.title, str) or not info.title:
        return f"title is {info.title!r}, not a text to show"
    if not isinstance(info.attribution, str):
        return f"attribution is {kind_of(info.attribution)}, not a text"
    if not _is_tuple_of_texts(info.asset_classes):
        return f'asset_classes are {info.asset_classes!r}, not a tuple of texts such as ("crypto",)'
    if not _is_tuple_of_texts(info.intervals):
        return f'intervals are {info.intervals!r}, not a tuple of texts such as ("1m", "1h")'
    unknown = [interval for interval in info.intervals if interval not in INTERVALS]
    if unknown:
        return f"intervals {unknown!r} are not among {' '.join(INTERVALS)}"
    fault = _fault_of_numbers(info) or _fault_of_form(info.symbol_form)
    if fault is not None:
        return fault
    if info.needs_key and info.needs_key not in {setting.name for setting in info.settings}:
        return f"needs_key is {info.needs_key!r}, which is not one of its settings"
    return None


def _fault_of_form(form: Any) -> str | None:
    try:
        re.compile(form)
    except (TypeError, re.error) as error:
        return f"symbol_form is {form!r:.80}, not a regular expression: {error}"
    return None if isinstance(form, str) else f"symbol_form is {kind_of(form)}, not a text"


def _is_tuple_of_texts(value: Any) -> bool:
    return isinstance(value, tuple) and bool(value) and all(isinstance(part, str) and part for part in value)


def _fault_of_numbers(info: Any) -> str | None:
    if type(info.streams_per_feed) is not int or info.streams_per_feed < 1:
        return f"streams_per_feed is {info.streams_per_feed!r}, not a whole number of at least 1"
    for name in ("candles_per_call", "calls_at_once", "least_instruments"):
        if type(getattr(info, name)) is not int or getattr(info, name) < 1:
            return f"{name} is {getattr(info, name)!r}, not a whole number of at least 1"
    if type(info.candles_back) is not int or info.candles_back < 0:
        return f"candles_back is {info.candles_back!r}, not a whole number of at least 0"
    after = info.compare_after_s
    if not isinstance(after, tuple) or any(type(s) not in NUMBERS or not 0 < s < math.inf for s in after):
        return f"compare_after_s is {after!r}, not a tuple of numbers of seconds above 0"
    if not isinstance(info.always_listed, tuple) or not all(isinstance(one, str) for one in info.always_listed):
        return f"always_listed is {info.always_listed!r}, not a tuple of symbols"
    extras = info.candle_extras
    if not isinstance(extras, tuple) or any(one not in EXTRA_FIELDS for one in extras):
        return f"candle_extras is {extras!r}, not a tuple of names among {' '.join(EXTRA_FIELDS)}"
    for name in _SWITCHES:
        if type(getattr(info, name)) is not bool:
            return f"{name} is {getattr(info, name)!r}, not True or False"
    least = {
        "feed_life_s": (info.feed_life_s, 1),
        "close_grace_s": (info.close_grace_s, 0),
        "fresh_s": (info.fresh_s, 0),
        "instruments_ttl_s": (info.instruments_ttl_s, 1),
    }
    for name, (value, smallest) in least.items():
        if value is None and name == "feed_life_s":
            continue
        if type(value) not in NUMBERS or not smallest <= value < math.inf:
            return f"{name} is {value!r}, not a number of seconds of at least {smallest}"
    return None


def _fault_of_setting(setting: Any) -> str | None:
    if not isinstance(setting, Setting):
        return f"a setting is {kind_of(setting)}, not Setting"
    name = setting.name
    if not isinstance(name, str) or not name.isidentifier() or not name.isascii() or name != name.lower():
        return f"the setting {name!r} is not a lower-case identifier such as api_key"
    if name in INSTANCE_SETTINGS:
        return f"the setting {name} has a name that [providers.NAME] has for itself; choose another name"
    if setting.kind not in _KINDS:
        return f"the setting {name} is of the kind {setting.kind!r}; use one of {' '.join(_KINDS)}"
    if setting.kind == "choice" and not _is_tuple_of_texts(setting.choices):
        return f"the setting {name} is a choice without choices"
    said: Any = setting.help
    if not isinstance(said, str):
        return f"the help of the setting {name} is {kind_of(said)}, not a text"
    if setting.environment != () and not _is_tuple_of_texts(setting.environment):
        return f"the environment of the setting {name} is {setting.environment!r}, not a tuple of variables"
    check: Any = setting.check
    if check is not None and not callable(check):
        return f"the check of the setting {name} cannot be called"
    if setting.default is None:
        return None
    if setting.is_secret or setting.kind == "secret":
        fits = isinstance(setting.default, Secret)
    else:
        fits = _DEFAULTS[setting.kind](setting.default) and (
            setting.kind != "choice" or setting.default in setting.choices
        )
    if not fits:
        given = "empty" if setting.kind == "urls" and setting.default == () else kind_of(setting.default)
        return f"the default of the setting {name} is {given}: {_WANTED[setting.kind]}"
    return None


def _fault_of_limits(setting: Setting) -> str | None:
    """Judge `least` and `most` of a setting, and hold its default to what is asked of the values that people give."""
    ends: dict[str, Any] = {"least": setting.least, "most": setting.most}
    for end, value in ends.items():
        if value is None:
            continue
        if setting.kind not in ("int", "float"):
            return f"the setting {setting.name} has a {end}, and is of the kind {setting.kind}; only numbers have one"
        if type(value) not in NUMBERS or math.isnan(value):
            return f"{end} of the setting {setting.name} is {value!r}, not a number"
    if None not in ends.values() and ends["least"] > ends["most"]:
        return f"the setting {setting.name} has a least {ends['least']:g} that is above its most {ends['most']:g}"
    if setting.kind not in ("int", "float") or setting.default is None:
        return None
    default: Any = setting.default
    least = -math.inf if setting.least is None else setting.least
    most = math.inf if setting.most is None else setting.most
    try:
        parsers.number(int if setting.kind == "int" else float, least, most)(default)
    except ValueError as error:
        return f"the default of the setting {setting.name}, {default!r}, {error}"
    return None


_DEFAULTS: dict[str, Callable[[object], bool]] = {
    "text": lambda value: isinstance(value, str),
    "secret": lambda value: isinstance(value, Secret),
    "urls": _is_tuple_of_texts,
    "list": lambda value: value == () or _is_tuple_of_texts(value),
    "int": lambda value: type(value) is int,
    "float": lambda value: type(value) in NUMBERS,
    "bool": lambda value: isinstance(value, bool),
    "choice": lambda value: isinstance(value, str),
    "table": lambda value: isinstance(value, Mapping),
}
_WANTED = {
    "text": "a text is a str, a secret a Secret",
    "secret": "a secret is a Secret",
    "urls": "urls are a tuple of texts, at least one; None means that there are none",
    "list": "a list is a tuple of texts",
    "int": "it is an int",
    "float": "it is a float",
    "bool": "it is True or False",
    "choice": "it is one of the choices",
    "table": "a table is a dict",
}


def setting_as_used(setting: Setting) -> Setting:
    """Return a setting in the one form that the relay uses, with a check that cannot raise.

    API 1 knows secrets by `is_secret` alone. A plugin's mistake must not end the relay.
    """
    is_secret = setting.is_secret or setting.kind == "secret"
    default = parsers.table(setting.default) if isinstance(setting.default, Mapping) else setting.default
    kind = "secret" if is_secret else setting.kind
    return setting._replace(
        kind=kind, is_secret=is_secret, default=default, check=_guarded(setting.name, setting.check)
    )


def _guarded(name: str, check: Callable[[object], str | None] | None) -> Callable[[object], str | None] | None:
    if check is None:
        return None

    def guarded(value: object) -> str | None:
        try:
            fault = check(value)
        except BaseException as error:  # noqa: BLE001 - a plugin is isolated here
            log.debug("the check of the setting %s failed", name, extra=event("setting_unchecked", setting=name))
            return f"cannot be checked: {type(error).__name__}"
        return None if fault is None else str(fault)

    return guarded
