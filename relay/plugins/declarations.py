"""What is wrong with what a plugin says of itself when it arrives, as a sentence for its author, or None; pure."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

from relay.config.settings import Config
from relay.core.intervals import INTERVALS
from relay.core.model import EXTRA_FIELDS, Setting
from relay.core.secret import Secret
from relay.plugins.validation import NUMBERS, kind_of

_KINDS = ("text", "urls", "int", "float", "choice")
_TAKEN = frozenset(field.name for field in dataclasses.fields(Config))


def fault_of_info(info: Any) -> str | None:
    """Judge what `relay_provider` returned, its api number aside."""
    name = info.name
    if not isinstance(name, str) or not name.isidentifier() or not name.isascii() or name != name.lower():
        return f"name {name!r} is not a lower-case identifier such as my_exchange"
    if name in _TAKEN:
        return f"name {name!r} is a setting of the relay itself; choose another name"
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
    fault = _fault_of_numbers(info)
    if fault is not None:
        return fault
    if not isinstance(info.settings, tuple):
        return f"settings are {kind_of(info.settings)}, not a tuple of Setting"
    for setting in info.settings:
        fault = _fault_of_setting(setting)
        if fault is not None:
            return fault
    names = [setting.name for setting in info.settings]
    if len(set(names)) < len(names):
        return f"two settings have the same name: {' '.join(names)}"
    if info.needs_key and info.needs_key not in names:
        return f"needs_key is {info.needs_key!r}, which is not one of its settings"
    return None


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
    for name in ("one_interval_per_feed", "is_utc_grid", "history_has_open", "has_every_candle"):
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
    if setting.kind not in _KINDS:
        return f"the setting {name} is of the kind {setting.kind!r}; use one of {' '.join(_KINDS)}"
    if setting.kind == "choice" and not _is_tuple_of_texts(setting.choices):
        return f"the setting {name} is a choice without choices"
    check: Any = setting.check
    if check is not None and not callable(check):
        return f"the check of the setting {name} cannot be called"
    if setting.default is None:
        return None
    if setting.is_secret:
        fits = isinstance(setting.default, Secret)
    else:
        fits = _DEFAULTS[setting.kind](setting.default) and (
            setting.kind != "choice" or setting.default in setting.choices
        )
    return None if fits else f"the default of the setting {name} is {kind_of(setting.default)}: {_WANTED[setting.kind]}"


_DEFAULTS: dict[str, Callable[[object], bool]] = {
    "text": lambda value: isinstance(value, str),
    "urls": _is_tuple_of_texts,
    "int": lambda value: type(value) is int,
    "float": lambda value: type(value) in NUMBERS,
    "choice": lambda value: isinstance(value, str),
}
_WANTED = {
    "text": "a text is a str, a secret a Secret",
    "urls": "urls are a tuple of texts",
    "int": "it is an int",
    "float": "it is a float",
    "choice": "it is one of the choices",
}
