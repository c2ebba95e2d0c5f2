"""What of a provider has to be the same in two relays, or their candles may be others; pure."""

from hashlib import blake2b

import orjson

from relay.plugins.provider import Provider


def shaping(provider: Provider) -> list[str]:
    """Return the names of the settings that count: all but secrets and those that are declared to be free."""
    return [one.name for one in provider.info.settings if not (one.may_differ or one.is_secret or one.kind == "secret")]


def terms_of(provider: Provider) -> str:
    """Return a short text that is another one where candles may be other ones, for the provider's present settings.

    It gives nothing away: secrets are not in it. The version of the plugin is not either, or relays would share nothing
    while they are updated one by one.
    """
    info, settings = provider.info, provider.settings
    major = info.api[0] if isinstance(info.api, tuple) else info.api
    said = [
        *(provider.loaded.uses, info.title, major, sorted(info.asset_classes), sorted(info.intervals)),
        {name: settings.get(name) for name in sorted(shaping(provider))},
    ]
    return blake2b(orjson.dumps(said, default=_plain), digest_size=4).hexdigest()


def _plain(value: object) -> object:
    # Of mappings that cannot be changed, and what else a plugin's default may be.
    return dict(value) if hasattr(value, "keys") else repr(value)  # type: ignore[call-overload]
