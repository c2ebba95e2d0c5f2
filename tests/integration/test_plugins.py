"""Provider plugins from the host's side: how they come in, which are refused and why, how bad ones are contained."""

import asyncio
import gc
import importlib
import inspect
import logging
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from click.testing import CliRunner

from providers import BUILTIN
from relay import (
    API_VERSION,
    AuthenticationFailed,
    BadAnswer,
    Candle,
    Clock,
    Instrument,
    Memory,
    NativeUpdate,
    PriceUpdate,
    ProviderClock,
    ProviderError,
    ProviderInfo,
    ProviderTimeout,
    ProviderUnavailable,
    RateLimited,
    Secret,
    Setting,
    StreamKey,
    UnknownSymbol,
    Watchlist,
    hookimpl,
)
from relay.app import PROVIDERS, SUPERVISORS, RelayLimits, build_app
from relay.cli import main
from relay.config.provider_settings import provider_settings
from relay.core.errors import ConfigError, log_text
from relay.plugins import discovery
from relay.plugins.cancellation import PluginTiming, end_task
from relay.plugins.loader import PluginHost
from relay.plugins.provider import Provider
from relay.plugins.provider_session import new_session
from tests.support.conditions import eventually
from tests.support.running_relay import Running, config_of, start_relay
from tests.support.sandbox import Sandbox

# Limits are short here, and who keeps to them has to have the time for it.
# Plugins block threads and the loop.
pytestmark = [pytest.mark.real_time, pytest.mark.usefixtures("patient_loop")]

PLUGINS = Path(__file__).parents[1] / "plugins"
KEY = "abcd+secret/0123456789"


def path_of(name: str) -> str:
    return str(PLUGINS / f"{name}.py")


def tally() -> Any:
    """Import the class plugin afresh, so that its count of instances starts at 0."""
    return discovery.import_named(path_of("tally")).Tally


def load(*named: str, builtin: tuple[object, ...] = ()) -> PluginHost:
    host = PluginHost()
    host.load(builtin, [path_of(name) for name in named])
    return host


def refusal_of(name: str) -> str:
    """Load one broken plugin between two good ones; return why it was refused."""
    host = load(name, "clock", builtin=(tally(),))
    assert list(host.loaded) == ["tally", "clock"]
    (failure,) = host.failures
    assert failure.source == f"file:{path_of(name)}"
    return failure.error


# Plugins that do not end are waited for less.
TIMING = PluginTiming(call_grace_s=0.2, feed_grace_s=0.2, kill_grace_s=0.2)


@asynccontextmanager
async def opened(
    plugin: object, *wrappers: object, timing: PluginTiming = TIMING, **settings: Any
) -> AsyncIterator[Provider]:
    """Bind one plugin with its settings as a configuration file would give them."""
    host = PluginHost()
    named = [path_of(plugin)] if isinstance(plugin, str) else []
    host.load([*wrappers, *([] if named else [plugin])], named)
    assert not host.failures, host.failures
    (loaded,) = host.loaded.values()
    config = config_of({loaded.info.name: settings})
    provider = host.bind(loaded, provider_settings(config, loaded.info), ProviderClock(Clock()), timing)
    session = new_session(provider.clock)
    provider.open(session)
    try:
        yield provider
    finally:
        await session.close()


def provider_of(*, name: str = "made", **hooks: Callable[..., Any]) -> Any:
    """Make a plugin of hooks; those that are required have a default."""

    def relay_provider() -> ProviderInfo:
        return ProviderInfo(name, API_VERSION, "Made", ("demo",), ("1m", "1h"), close_grace_s=0.5)

    async def relay_stream() -> AsyncIterator[PriceUpdate]:
        await asyncio.Event().wait()
        yield None  # type: ignore[misc]

    hooks = {"relay_provider": relay_provider, "relay_stream": relay_stream, **hooks}
    plugin = ModuleType(name)
    for hook, function in hooks.items():
        setattr(plugin, hook, hookimpl(function))
    return plugin


# -- doors -----------------------------------------------------------------------------------------


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """Install fake distributions: real dist-info directories on `sys.path`."""
    monkeypatch.syspath_prepend(str(tmp_path))
    before = set(sys.modules)

    def install(name: str, version: str, entry_points: str, **modules: str) -> None:
        info = tmp_path / f"{name}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        (info / "entry_points.txt").write_text(entry_points)
        for module, source in modules.items():
            (tmp_path / f"{module}.py").write_text(source)
        importlib.invalidate_caches()

    yield install
    for module in set(sys.modules) - before:
        del sys.modules[module]


def source_of(plugin: str, **changes: str) -> str:
    text = Path(path_of(plugin)).read_text()
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new)
    return text


def test_plugins_come_in_by_four_doors_in_order(installed: Callable[..., None]) -> None:
    installed(
        "market-relay-tally",
        "2.5",
        "[relay.providers]\ntally = installed_tally:Tally\n",
        installed_tally=source_of("tally"),
        named_clock=source_of("clock", clock="named_clock"),
    )
    host = PluginHost()
    host.load(BUILTIN, ["named_clock", path_of("clock")])
    assert host.failures == []
    assert [(loaded.info.name, loaded.source, loaded.version) for loaded in host.loaded.values()] == [
        ("binance", "builtin:BinanceProvider", ""),
        ("twelve_data", "builtin:TwelveDataProvider", ""),
        ("binance_usdm", "builtin:BinanceUsdmProvider", ""),
        ("tally", "entry point:tally", "2.5"),
        ("named_clock", "module:named_clock", ""),
        ("clock", f"file:{path_of('clock')}", ""),
    ]


def test_entry_points_are_loaded_one_by_one(installed: Callable[..., None]) -> None:
    installed(
        "several",
        "1.0",
        "[relay.providers]\ngone = no_such_module_anywhere\nwrong = several_clock:missing\nclock = several_clock\n",
        several_clock=source_of("clock"),
    )
    host = load()
    assert list(host.loaded) == ["clock"]
    assert [(failure.source, failure.name) for failure in host.failures] == [
        ("entry point:gone", "gone"),
        ("entry point:wrong", "wrong"),
    ]
    assert host.failures[0].error == "ModuleNotFoundError: No module named 'no_such_module_anywhere'"


def test_distribution_with_a_malformed_list_does_not_hide_the_others(installed: Callable[..., None]) -> None:
    installed("aaa-broken", "1.0", "[relay.providers]\nnot an entry point\n")
    installed("good", "1.0", "[relay.providers]\nclock = good_clock\n", good_clock=source_of("clock"))
    assert list(load().loaded) == ["clock"]


def test_later_door_wins_with_a_warning_and_keeps_the_place(caplog: pytest.LogCaptureFixture) -> None:
    host = load("other_binance", builtin=BUILTIN)
    assert list(host.loaded) == ["binance", "twelve_data", "binance_usdm"]
    assert host.loaded["binance"].info.title == "Another Binance"
    assert host.failures == []
    assert caplog.messages == [
        f"provider binance of file:{path_of('other_binance')} replaces the one of builtin:BinanceProvider"
    ]


def test_plugin_that_comes_in_twice_is_loaded_once_and_stays(installed: Callable[..., None]) -> None:
    installed("twice", "3.0", "[relay.providers]\nclock = twice_clock\n", twice_clock=source_of("clock"))
    host = PluginHost()
    host.load((), ["twice_clock"])
    assert host.failures == []
    assert host.loaded["clock"].source == "module:twice_clock"
    assert host.implements(host.loaded["clock"].plugin, "relay_stream")


def test_two_files_of_one_name_do_not_share_a_module(tmp_path: Path) -> None:
    other = tmp_path / "clock.py"
    other.write_text(source_of("clock", clock="second_clock"))
    host = PluginHost()
    host.load((), [path_of("clock"), str(other)])
    first, second = (host.loaded[name].plugin for name in ("clock", "second_clock"))
    assert inspect.ismodule(first)
    assert inspect.ismodule(second)
    assert first.__name__ != second.__name__
    assert sys.modules[first.__name__] is first


def test_file_that_failed_leaves_no_module() -> None:
    load("raises_at_import")
    assert not [name for name in sys.modules if "raises_at_import" in name]


def test_class_is_instantiated_once_a_relay() -> None:
    plugin = tally()
    first, second = load(builtin=(plugin,)), load(builtin=(plugin,))
    assert plugin.made == 2
    assert first.loaded["tally"].plugin is not second.loaded["tally"].plugin


# -- refusals --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("raises_at_import", "RuntimeError: the stars are not right"),
        ("exits_at_import", "SystemExit: usage: exits_at_import.py FILE"),
        ("no_hook", "implements no hook; mark its functions with @hookimpl"),
        ("not_marked", "relay_provider and relay_stream are not marked with @hookimpl"),
        ("no_stream", "lacks the hook relay_stream"),
        ("no_provider", "lacks the hook relay_provider"),
        (
            "wrong_api",
            "needs provider API 3, this relay has 2.1; install a newer market-relay, or an older version of the plugin",
        ),
        ("nonsense", "relay_provider returned dict, not ProviderInfo"),
        ("async_provider", "relay_provider returned coroutine, not ProviderInfo"),
        (
            "unknown_hook",
            "marks relay_candels as a hook, which provider API 2.1 does not have; did you mean relay_candles?",
        ),
        (
            "unknown_argument",
            "relay_stream has an argument loop, which does not exist; it can have watchlist, session, settings",
        ),
        (
            "bad_intervals",
            "intervals ['1min', '7m'] are not among 1s 1m 3m 5m 15m 30m 1h 2h 4h 6h 8h 12h 1d 3d 1w 1M",
        ),
        ("bad_name", "name 'my-exchange' is not a lower-case identifier such as my_exchange"),
        ("taken_name", "name 'tokens' is a setting of the relay itself; choose another name"),
        ("text_for_tuple", "asset_classes are 'demo', not a tuple of texts such as (\"crypto\",)"),
        (
            "bad_setting",
            "the setting depth is of the kind 'integer'; use one of text secret urls list int float bool choice table",
        ),
    ],
)
def test_broken_plugin_is_refused_with_a_reason_and_the_others_load(name: str, reason: str) -> None:
    assert refusal_of(name) == reason


def test_file_that_is_no_python_or_not_there_is_refused(tmp_path: Path) -> None:
    bad = tmp_path / "bad.py"
    bad.write_text("def relay_provider(:\n")
    host = PluginHost()
    host.load((), [str(bad), str(tmp_path / "gone.py"), "no_such_module_at_all"])
    assert [failure.error.split(":")[0] for failure in host.failures] == [
        "SyntaxError",
        "FileNotFoundError",
        "ModuleNotFoundError",
    ]


INFO: Any = ProviderInfo("made", API_VERSION, "Made", ("demo",), ("1m",))


def test_limits_that_make_no_sense_do_not_refuse_a_plugin_for_api_1() -> None:
    settings = (Setting("a", "int", 50, most=3), Setting("b", least=3))
    host = load(builtin=(provider_of(relay_provider=lambda: INFO._replace(api=1, settings=settings)),))
    assert host.failures == []
    assert host.loaded["made"].settings == {"a": 50, "b": None}


@pytest.mark.parametrize(
    ("info", "reason"),
    [
        (INFO._replace(name="Made"), "name 'Made' is not a lower-case"),
        (INFO._replace(name=None), "name None is not a lower-case"),
        (INFO._replace(name="hôtel"), "name 'hôtel' is not a lower-case"),
        (INFO._replace(api="1"), "api is '1'; give the number of the API, 2, or (2, 1) to need a minor number"),
        (INFO._replace(api=True), "api is True; give the number"),
        (INFO._replace(api=(2,)), "api is (2,); give the number"),
        (INFO._replace(api=(2, -1)), "api is (2, -1); give the number"),
        (INFO._replace(api=0), "is written for provider API 0, this relay takes 1 to 2.1; install a newer version"),
        (INFO._replace(api=(1, 0)), "is written for provider API 1.0, this relay takes 1 to 2.1"),
        (INFO._replace(api=(2, 2)), "needs provider API 2.2, this relay has 2.1; install a newer market-relay, or an"),
        (INFO._replace(api=(3, 0)), "needs provider API 3.0, this relay has 2.1"),
        (INFO._replace(title=""), "title is ''"),
        (INFO._replace(asset_classes=()), "asset_classes are ()"),
        (INFO._replace(intervals=()), "intervals are ()"),
        (INFO._replace(intervals="1m"), "intervals are '1m'"),
        (INFO._replace(streams_per_feed=0), "streams_per_feed is 0"),
        (INFO._replace(one_interval_per_feed=1), "one_interval_per_feed is 1, not True or False"),
        (INFO._replace(feed_life_s=float("nan")), "feed_life_s is nan"),
        (INFO._replace(close_grace_s="5"), "close_grace_s is '5'"),
        (INFO._replace(candles_back=-1), "candles_back is -1"),
        (INFO._replace(compare_after_s=[300.0]), "compare_after_s is [300.0]"),
        (INFO._replace(compare_after_s=(300.0, 0)), "compare_after_s is (300.0, 0)"),
        (INFO._replace(fresh_s=None), "fresh_s is None"),
        (INFO._replace(symbol_form="[A-Z"), "symbol_form is '[A-Z', not a regular expression"),
        (INFO._replace(symbol_form=None), "symbol_form is None, not a regular expression"),
        (INFO._replace(symbol_form=b"[A-Z]"), "symbol_form is bytes, not a text"),
        (INFO._replace(always_pinned=1), "always_pinned is 1, not True or False"),
        (INFO._replace(instruments_ttl_s=0), "instruments_ttl_s is 0"),
        (INFO._replace(attribution=None), "attribution is None"),
        (INFO._replace(needs_key="api_key"), "needs_key is 'api_key', which is not one of its settings"),
        (INFO._replace(settings=[Setting("a")]), "settings are list, not a tuple of Setting"),
        (INFO._replace(settings=("api_key",)), "a setting is str, not Setting"),
        (INFO._replace(settings=(Setting("a"), Setting("a"))), "two settings have the same name"),
        (INFO._replace(settings=(Setting("Api-Key"),)), "the setting 'Api-Key' is not a lower-case"),
        (INFO._replace(settings=(Setting("a", "choice"),)), "the setting a is a choice without choices"),
        (INFO._replace(settings=(Setting("a", "urls", "https://x"),)), "the default of the setting a is str"),
        (INFO._replace(settings=(Setting("a", "int", "5"),)), "the default of the setting a is str"),
        (
            INFO._replace(settings=(Setting("a", "urls", ()),)),
            "the default of the setting a is empty: urls are a tuple of",
        ),
        (
            INFO._replace(settings=(Setting("a", "int", 50, most=3),)),
            "the default of the setting a, 50, is out of range; it has to be at most 3",
        ),
        (
            INFO._replace(settings=(Setting("a", "float", float("nan")),)),
            "the default of the setting a, nan, is not a number",
        ),
        (
            INFO._replace(settings=(Setting("a", least=3),)),
            "the setting a has a least, and is of the kind text; only numbers have one",
        ),
        (INFO._replace(settings=(Setting("a", "int", least="3"),)), "least of the setting a is '3', not a number"),  # type: ignore[arg-type]  # that is the mistake
        (
            INFO._replace(settings=(Setting("a", "int", least=4, most=3),)),
            "the setting a has a least 4 that is above its most 3",
        ),
        (INFO._replace(settings=(Setting("a", default="k", is_secret=True),)), "the default of the setting a is str"),
        (INFO._replace(settings=(Setting("a", "secret", "k"),)), "the default of the setting a is str: a secret is a"),
        (
            INFO._replace(settings=(Setting("a", "bool", 1),)),
            "the default of the setting a is int: it is True or False",
        ),
        (INFO._replace(settings=(Setting("a", "list", ["b"]),)), "the default of the setting a is list: a list is a"),
        (INFO._replace(settings=(Setting("a", "table", ()),)), "the default of the setting a is tuple: a table is a"),
        (INFO._replace(settings=(Setting("a", help=None),)), "the help of the setting a is None"),  # type: ignore[arg-type]
        (INFO._replace(settings=(Setting("a", environment="A"),)), "the environment of the setting a is 'A'"),  # type: ignore[arg-type]
        (INFO._replace(settings=(Setting("enabled", "bool"),)), "the setting enabled has a name that [providers.NAME]"),
        (INFO._replace(name="providers"), "name 'providers' is a setting of the relay itself"),
    ],
)
def test_info_that_makes_no_sense_is_refused(info: ProviderInfo, reason: str) -> None:
    host = load(builtin=(provider_of(relay_provider=lambda: info),))
    assert host.failures[0].error.startswith(reason)


def test_setting_check_that_raises_is_a_configuration_error() -> None:
    setting = Setting("depth", "int", 5, check=lambda value: "too deep" if value.deep else None)  # type: ignore[attr-defined]
    host = load(builtin=(provider_of(relay_provider=lambda: INFO._replace(settings=(setting,))),))
    with pytest.raises(ConfigError, match=r"depth in \[made\]: 7 cannot be checked: AttributeError"):
        provider_settings(config_of({"made": {"depth": 7}}), host.loaded["made"].info)


def test_table_of_a_refused_provider_is_no_error() -> None:
    config = config_of({"wrong_api": {"anything": 1}}, plugins=(path_of("wrong_api"), path_of("clock")))
    build_app(config, ())


def test_each_refusal_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    load("wrong_api")
    assert caplog.messages == [
        f"plugin file:{path_of('wrong_api')}: needs provider API 3, this relay has 2.1; install a newer market-relay, "
        "or an older version of the plugin"
    ]


# -- binding ---------------------------------------------------------------------------------------


async def test_hook_of_another_provider_is_never_called() -> None:
    calls = []

    def recorder(name: str) -> Any:
        async def relay_candles() -> list[Candle]:
            calls.append(name)
            return []

        return provider_of(name=name, relay_candles=relay_candles)

    host = load(builtin=(recorder("first"), recorder("second"), recorder("third")))
    second = host.bind(host.loaded["second"], {}, ProviderClock(Clock()))
    async with new_session(second.clock) as session:
        second.open(session)
        await second.candles(StreamKey("X", "1m"), None, 60, 1)
    assert calls == ["second"]


async def test_wrapper_plugin_applies_to_providers_of_any_door() -> None:
    async with opened(tally(), discovery.import_named(path_of("doubles"))) as provider:
        candles = await provider.candles(StreamKey("TALLY", "1s"), None, int(time.time()), 2)
    assert [candle.volume for candle in candles] == [2.0, 2.0]


def test_wrapper_plugin_is_no_provider_and_no_failure() -> None:
    host = load("doubles")
    assert (host.loaded, host.failures) == ({}, [])
    assert [(wrapping.source, wrapping.hooks) for wrapping in host.wrappings] == [
        (f"file:{path_of('doubles')}", ("relay_candles",))
    ]


async def test_wrapping_a_hook_is_not_implementing_it() -> None:
    def relay_candles() -> Any:
        return (yield)

    plugin = provider_of()
    plugin.relay_candles = hookimpl(relay_candles, wrapper=True)
    async with opened(plugin) as provider:
        assert not provider.has_history


async def test_capabilities_follow_from_the_hooks() -> None:
    async with opened("clock") as clock, opened(tally()) as full:
        assert (clock.has_history, clock.lists_instruments, clock.budgets()) == (False, False, ())
        assert (full.has_history, full.lists_instruments, len(full.budgets())) == (True, True, 1)


async def test_provider_gets_its_own_settings_only_and_secrets_wrapped() -> None:
    seen: dict[str, Any] = {}

    async def relay_instruments(settings: Any) -> list[Any]:
        seen.update(settings)
        return []

    settings = (Setting("depth", "int", 5), Setting("api_key", is_secret=True))
    info = INFO._replace(settings=settings, needs_key="api_key")
    plugin = provider_of(relay_provider=lambda: info, relay_instruments=relay_instruments)
    host = load("clock", builtin=(plugin,))
    config = config_of({"made": {"api_key": KEY}, "clock": {}})
    provider = host.bind(host.loaded["made"], provider_settings(config, info), ProviderClock(Clock()))
    async with new_session(provider.clock) as session:
        provider.open(session)
        await provider.instruments()
    assert seen == {"depth": 5, "api_key": Secret(KEY)}
    assert provider.refusal is None


async def test_missing_key_says_how_to_set_it() -> None:
    async with opened("leaks_key") as provider:
        sentence = "Leaks its key needs a key: set RELAY_LEAKS_KEY_API_KEY, or api_key in [leaks_key]"
        assert provider.refusal is not None
        assert provider.refusal.startswith(sentence)
        with pytest.raises(AuthenticationFailed):
            await provider.candles(StreamKey("X", "1m"), None, 60, 1)


# -- what plugins raise and return -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "kind", "sentence"),
    [
        ("none", BadAnswer, "provider wrong_history: relay_candles returned None, not a list of Candle"),
        ("dict", BadAnswer, "provider wrong_history: relay_candles returned dict, not a list of Candle"),
        ("generator", BadAnswer, "provider wrong_history: relay_candles returned generator, not a list of Candle"),
        ("texts", BadAnswer, "provider wrong_history: relay_candles: a candle is str, not Candle"),
        ("rows", BadAnswer, "provider wrong_history: relay_candles: a candle is tuple, not Candle"),
        (
            "decimals",
            BadAnswer,
            "provider wrong_history: relay_candles: open is Decimal, not a float; convert it with float()",
        ),
        ("raises", ProviderUnavailable, "provider wrong_history failed (RuntimeError in relay_candles)"),
        ("exits", ProviderUnavailable, "provider wrong_history failed (SystemExit in relay_candles)"),
        ("cancels", ProviderUnavailable, "provider wrong_history failed (CancelledError in relay_candles)"),
        ("hangs", ProviderTimeout, "Wrong history did not answer in time"),
        ("stays", ProviderTimeout, "Wrong history did not answer in time"),
    ],
)
async def test_wrong_history_leaves_as_a_provider_error(answer: str, kind: type[ProviderError], sentence: str) -> None:
    async with opened("wrong_history", timing=TIMING._replace(call_timeout_s=0.1), answer=answer) as provider:
        with pytest.raises(kind) as caught:
            await provider.candles(StreamKey("X", "1m"), None, 120, 1)
    assert str(caught.value) == sentence


async def test_history_call_that_swallows_cancellation_does_not_hold_whoever_asked() -> None:
    async with opened("wrong_history", answer="stays") as provider:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await provider.candles(StreamKey("X", "1m"), None, 120, 1)
    assert len(asyncio.all_tasks()) == 1


async def test_error_of_a_call_whose_caller_is_cancelled_as_it_ends_is_not_reported(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def relay_candles() -> list[Candle]:
        asking.cancel()
        raise ProviderUnavailable("not now")

    plugin = provider_of()
    plugin.relay_candles = hookimpl(relay_candles)
    async with opened(plugin) as provider:
        asking = asyncio.create_task(provider.candles(StreamKey("X", "1m"), None, 120, 1))
        assert isinstance((await asyncio.gather(asking, return_exceptions=True))[0], asyncio.CancelledError)
    gc.collect()
    assert not caplog.messages


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        ("raises", "provider wrong_instruments failed (RuntimeError in relay_instruments)"),
        ("none", "provider wrong_instruments: relay_instruments returned None, not a list of Instrument"),
        ("texts", "provider wrong_instruments: relay_instruments: an instrument is str, not Instrument"),
    ],
)
async def test_wrong_list_of_instruments_leaves_as_a_provider_error(answer: str, sentence: str) -> None:
    async with opened("wrong_instruments", answer=answer) as provider:
        with pytest.raises(ProviderError) as caught:
            await provider.instruments()
    assert str(caught.value) == sentence


async def test_instruments_that_make_no_sense_are_left_out(caplog: pytest.LogCaptureFixture) -> None:
    async with opened("wrong_instruments", answer="mixed") as provider:
        found = await provider.instruments()
    assert [instrument.symbol for instrument in found] == ["GOOD", "GOODTOO"]
    assert caplog.messages == [
        "provider wrong_instruments lists 8 invalid instruments, the first: an instrument is None, not Instrument"
    ]


async def test_a_symbol_that_is_listed_twice_with_other_values_is_the_first(caplog: pytest.LogCaptureFixture) -> None:
    pepe, twin = Instrument("kPEPE", "demo", "PEPE", "USD", name="A thousand"), Instrument("KPEPE", "demo", "K", "USD")

    async def relay_instruments() -> list[Instrument]:
        return [pepe, Instrument("X", "demo", "X", "USD"), twin, pepe._replace()]

    async with opened(provider_of(relay_instruments=relay_instruments)) as provider:
        found = await provider.instruments()
    assert [one for one in found if one.symbol.upper() == "KPEPE"] == [pepe, pepe]
    assert caplog.messages == [
        "provider made lists 1 invalid instruments, the first: KPEPE is listed twice with other values, first as "
        "kPEPE; case is ignored"
    ]


async def updates_of(provider: Provider, watchlist: Watchlist, count: int) -> list[PriceUpdate]:
    found = []
    async with aclosing(provider.stream(watchlist)) as updates:
        async for update in updates:
            found.append(update)
            if len(found) == count:
                break
    return found


async def test_rubbish_is_skipped_with_a_reason_and_the_stream_goes_on() -> None:
    skipped: list[str] = []
    key = StreamKey("GOOD", "1m")
    async with opened("rubbish") as provider:
        found = await updates_of(provider, Watchlist([key], on_skip=skipped.append), 2)
    assert [update.candle.close for update in found] == [2.5, 2.0]
    rubbish = dict(discovery.import_named(path_of("rubbish")).rubbish(key, 60))
    assert len(skipped) == 2 * len(rubbish)
    assert len(rubbish) == 34
    assert skipped[:6] == [
        "relay_stream yielded None, not PriceUpdate",
        "relay_stream yielded str, not PriceUpdate",
        "relay_stream yielded tuple, not PriceUpdate",
        "relay_stream yielded object, not PriceUpdate",
        "an update of NEVERASKED@1m, which is not on the watchlist",
        "an update of GOOD@1m, which is not on the watchlist",
    ]
    assert "GOOD@1m: open is Decimal, not a float; convert it with float()" in skipped
    assert "GOOD@1m: a value is not a finite number" in skipped


async def test_update_of_a_stream_that_was_just_withdrawn_is_late_not_wrong() -> None:
    skipped: list[str] = []
    first, second = StreamKey("A", "1m"), StreamKey("B", "1m")
    watchlist = Watchlist([first, second], on_skip=skipped.append)
    watchlist.remove(second)
    watchlist.add(second)
    watchlist.remove(first)

    async def relay_stream() -> AsyncIterator[PriceUpdate]:
        for key in (first, second):
            yield PriceUpdate(key, Candle(60, 1.0, 1.0, 1.0, 1.0))

    async with opened(provider_of(relay_stream=relay_stream)) as provider:
        found = await updates_of(provider, watchlist, 2)
    assert [update.key for update in found] == [first, second]
    assert skipped == []


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("stream_raises", "provider stream_raises failed (KeyError in relay_stream)"),
        ("stream_raises_later", "provider stream_raises_later failed (ZeroDivisionError in relay_stream)"),
        (
            "stream_is_no_generator",
            "relay_stream returned coroutine, not an async generator; write `def`, not `async def`, around `return`",
        ),
    ],
)
async def test_failing_stream_leaves_as_a_provider_error(name: str, sentence: str) -> None:
    async with opened(name) as provider:
        with pytest.raises(ProviderError) as caught:
            await updates_of(provider, Watchlist([StreamKey("X", "1m")]), 10)
    assert str(caught.value) == sentence


async def test_cancellation_that_nobody_asked_for_is_a_failure_of_the_plugin() -> None:
    async def relay_stream() -> AsyncIterator[PriceUpdate]:
        for update in list[PriceUpdate]():
            yield update
        raise asyncio.CancelledError

    plugin = provider_of()
    plugin.relay_stream = hookimpl(relay_stream)
    async with opened(plugin) as provider:
        with pytest.raises(ProviderUnavailable, match=r"failed \(CancelledError in relay_stream\)"):
            await updates_of(provider, Watchlist([StreamKey("X", "1m")]), 1)


async def test_traceback_is_logged_once_as_long_as_nothing_changes(caplog: pytest.LogCaptureFixture) -> None:
    async with opened("stream_raises") as provider:
        for _ in range(3):
            with pytest.raises(ProviderUnavailable):
                await updates_of(provider, Watchlist([StreamKey("X", "1m")]), 1)
    assert [message.count("Traceback") for message in caplog.messages] == [1, 0, 0]


async def test_network_errors_of_a_plugin_are_understood(sandbox: Sandbox) -> None:
    status = 0

    async def relay_candles(session: Any) -> Any:
        if status == 0:
            await session.get("http://127.0.0.1:1/")
        async with session.get(f"{sandbox.binance.rest_url}/api/v3/ping", raise_for_status=True) as answer:
            return await answer.json()

    found: dict[int, ProviderError] = {}
    async with opened(provider_of(relay_candles=relay_candles)) as provider:
        for status in (0, 400, 401, 418, 429, 451, 503):
            sandbox.binance.faults.clear()
            if status:
                sandbox.binance.faults.answer_rest(status, "{}", retry_after=7)
            with pytest.raises(ProviderError) as caught:
                await provider.candles(StreamKey("X", "1m"), None, 120, 1)
            found[status] = caught.value
            # Ends the wait that was asked for.
            provider.reconfigure(provider.settings)
    assert {status: type(error) for status, error in found.items()} == {
        0: ProviderUnavailable,
        400: BadAnswer,
        # Without a key no key can be refused.
        401: ProviderUnavailable,
        418: RateLimited,
        429: RateLimited,
        451: ProviderUnavailable,
        503: ProviderUnavailable,
    }
    limited = found[429]
    assert isinstance(limited, RateLimited)
    assert limited.retry_after == 7


@pytest.mark.parametrize("wait_s", [float("nan"), float("inf"), -1, None, "60"])
async def test_retry_after_that_makes_no_sense_is_a_minute(wait_s: Any) -> None:
    async def relay_candles() -> Any:
        raise RateLimited("slow down", wait_s)

    async with opened(provider_of(relay_candles=relay_candles)) as provider:
        with pytest.raises(RateLimited) as caught:
            await provider.candles(StreamKey("X", "1m"), None, 120, 1)
    assert caught.value.retry_after == 60


@pytest.mark.parametrize("has_budgets", [True, False])
async def test_wait_is_told_until_it_is_over_and_logged_once(
    caplog: pytest.LogCaptureFixture, has_budgets: bool
) -> None:
    refuses = True

    async def relay_candles() -> Any:
        if refuses:
            raise RateLimited("slow down", 200)
        return []

    hooks: dict[str, Any] = {"relay_budgets": lambda: ()} if has_budgets else {}
    async with opened(provider_of(relay_candles=relay_candles, **hooks)) as provider:
        assert provider.requests_wait() is None
        for _ in range(3):
            with pytest.raises(RateLimited):
                await provider.candles(StreamKey("X", "1m"), None, 120, 1)
        wait = provider.requests_wait()
        assert wait is not None
        assert (wait.why, 190 < wait.left_s <= 200) == ("slow down", True)
        assert caplog.text.count("takes no requests for 200 s: slow down") == 1
        refuses = False
        if not has_budgets:
            # It is not asked before.
            provider.reconfigure(provider.settings)
        await provider.candles(StreamKey("X", "1m"), None, 120, 1)
        assert provider.requests_wait() is None


async def test_errors_that_mean_something_keep_their_meaning() -> None:
    error: ProviderError = ProviderError("")

    async def relay_candles() -> Any:
        raise error

    async with opened(provider_of(relay_candles=relay_candles)) as provider:
        for kind in (ProviderUnavailable, ProviderTimeout, BadAnswer, UnknownSymbol):
            for text in ("short", "long" * 1000):
                error = kind(text)
                with pytest.raises(kind) as caught:
                    await provider.candles(StreamKey("X", "1m"), None, 120, 1)
                assert str(caught.value) == text[:300]


@pytest.mark.parametrize("how", ["raise", "own", "limit", "reject"])
async def test_no_key_leaks(how: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    told: list[str] = []
    watchlist = Watchlist(
        [StreamKey("X", "1m")],
        on_skip=told.append,
        on_reject=lambda key, error: told.append(log_text(error)),
        on_pause=lambda key, status, message: told.append(message),
    )
    async with opened("leaks_key", api_key=KEY, how=how) as provider:
        try:
            async with asyncio.timeout(0.1):
                await updates_of(provider, watchlist, 1)
        except (ProviderError, TimeoutError) as error:
            told.append(str(error))
            logging.getLogger("test").error("as somebody may log it", exc_info=error)
        with pytest.raises(ProviderError) as caught:
            await provider.candles(StreamKey("X", "1m"), None, 120, 1)
        told.append(str(caught.value))
        assert provider.budgets() == ()
    everything = "\n".join([*told, caplog.text])
    for spelling in (KEY, "abcd%2Bsecret", "0123456789"):
        assert spelling not in everything
    assert len(told) >= 4


# -- whatever can be raised ------------------------------------------------------------------------


class Odd(BaseException):
    """No Exception, so that hardly anything catches it."""


class Mute(RuntimeError):
    """Raises when it is asked what it says."""

    def __str__(self) -> str:
        raise Odd("no words")


RAISED = (Odd, Mute, SystemExit, KeyboardInterrupt, GeneratorExit, asyncio.CancelledError, BaseExceptionGroup)


def raised(kind: type[BaseException]) -> BaseException:
    return kind("several", [Odd()]) if kind is BaseExceptionGroup else kind("odd")


@pytest.mark.parametrize("kind", RAISED)
async def test_whatever_a_hook_raises_is_its_providers_failure(kind: type[BaseException]) -> None:
    async def relay_candles() -> Any:
        raise raised(kind)

    def relay_instruments() -> Any:
        raise raised(kind)

    def plain() -> Any:
        raise raised(kind)

    hooks: dict[str, Any] = {"relay_budgets": plain, "relay_memory": plain, "relay_hours": plain}
    async with opened(provider_of(relay_candles=relay_candles, relay_instruments=relay_instruments, **hooks)) as bad:
        with pytest.raises(ProviderUnavailable, match=rf"made failed \({kind.__name__} in relay_candles\)"):
            await bad.candles(StreamKey("X", "1m"), None, 120, 1)
        with pytest.raises(ProviderUnavailable, match=rf"made failed \({kind.__name__} in relay_instruments\)"):
            await bad.instruments()
        bad.remember(Memory())
        assert bad.budgets() == ()
        assert not bad.market("X").is_closed(60, 120)


@pytest.mark.parametrize("where", ["call", "first", "later", "finally"])
@pytest.mark.parametrize("kind", RAISED)
async def test_whatever_a_stream_raises_is_its_providers_failure(kind: type[BaseException], where: str) -> None:
    key = StreamKey("X", "1m")

    async def updates() -> AsyncIterator[PriceUpdate]:
        if where == "first":
            raise raised(kind)
        try:
            yield PriceUpdate(key, Candle(60, 1.0, 1.0, 1.0, 1.0))
            if where == "later":
                raise raised(kind)
        finally:
            if where == "finally":
                raise raised(kind)

    def relay_stream() -> Any:
        if where == "call":
            raise raised(kind)
        return updates()

    async with opened(provider_of(relay_stream=relay_stream)) as provider:
        with pytest.raises(ProviderUnavailable, match=rf"made failed \({kind.__name__} in relay_stream\)"):
            await updates_of(provider, Watchlist([key]), 2)
        assert provider.failures.failed == 1


async def test_reader_that_leaves_is_no_failure_of_the_provider() -> None:
    key = StreamKey("X", "1m")

    async def relay_stream() -> AsyncIterator[PriceUpdate]:
        while True:
            yield PriceUpdate(key, Candle(60, 1.0, 1.0, 1.0, 1.0))

    async with opened(provider_of(relay_stream=relay_stream)) as provider:
        assert len(await updates_of(provider, Watchlist([key]), 1)) == 1
        assert provider.failures.failed == 0


@pytest.mark.parametrize("kind", [Odd, KeyboardInterrupt, GeneratorExit, asyncio.CancelledError])
def test_whatever_is_raised_at_import_refuses_that_plugin_only(kind: type[BaseException], tmp_path: Path) -> None:
    lines = ["import asyncio", "class Odd(BaseException): pass", f"raise {kind.__name__}('not today')"]
    file = tmp_path / "raises.py"
    file.write_text("\n".join(lines).replace("raise Cancelled", "raise asyncio.Cancelled"))
    host = PluginHost()
    host.load((), [str(file), path_of("clock")])
    assert list(host.loaded) == ["clock"]
    assert [failure.error for failure in host.failures] == [f"{kind.__name__}: not today"]


async def test_list_that_raises_when_it_is_read_is_its_providers_failure() -> None:
    class Trap(list[Candle]):
        def __iter__(self) -> Any:
            raise Odd("not to be read")

    async def relay_candles() -> Any:
        return Trap([Candle(60, 1.0, 1.0, 1.0, 1.0)])

    async with opened(provider_of(relay_candles=relay_candles)) as provider:
        with pytest.raises(ProviderUnavailable, match="Odd in relay_candles"):
            await provider.candles(StreamKey("X", "1m"), None, 120, 1)


@pytest.mark.parametrize(("hook", "most"), [("relay_candles", "20,000"), ("relay_instruments", "100,000")])
async def test_answer_of_too_many_entries_is_refused_with_the_bound(hook: str, most: str) -> None:
    async def answer() -> Any:
        return [None] * 1_000_000

    hooks: dict[str, Any] = {hook: answer}
    async with opened(provider_of(**hooks)) as provider:
        asking = provider.candles(StreamKey("X", "1m"), None, 120, 1) if "candles" in hook else provider.instruments()
        with pytest.raises(BadAnswer, match=rf"{hook} returned 1,000,000 entries; .* at most {most}"):
            await asking


@pytest.mark.parametrize("closes_connector", [False, True])
async def test_session_that_a_plugin_closes_is_replaced_and_that_is_said(
    sandbox: Sandbox, caplog: pytest.LogCaptureFixture, closes_connector: bool
) -> None:
    async def relay_instruments(session: Any) -> Any:
        await (session.connector if closes_connector else session).close()
        return []

    async def relay_candles(session: Any) -> Any:
        async with session.get(f"{sandbox.binance.rest_url}/api/v3/ping") as answer:
            assert answer.status == 200
        return []

    async with opened(provider_of(relay_instruments=relay_instruments, relay_candles=relay_candles)) as provider:
        await provider.instruments()
        assert await provider.candles(StreamKey("X", "1m"), None, 120, 1) == []
        assert caplog.messages == ["provider made closed its session, which belongs to the relay; it must be corrected"]
        assert provider.failures.failed == 1
        await provider.close()


@pytest.mark.parametrize("how", ["raises", "cancels"])
async def test_feed_that_its_plugin_ends_is_not_said_to_be_closed_by_the_upstream(
    sandbox: Sandbox, caplog: pytest.LogCaptureFixture, how: str
) -> None:
    async def relay_stream(watchlist: Watchlist) -> AsyncIterator[PriceUpdate]:
        watchlist.accept(watchlist.streams)
        await asyncio.sleep(0)
        if how == "raises":
            raise Odd("odd")
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(1)
        yield PriceUpdate(watchlist.streams[0], Candle(60, 1.0, 1.0, 1.0, 1.0))

    running = await start_relay(sandbox, builtin=[*BUILTIN, provider_of(relay_stream=relay_stream)])
    try:
        client = await running.connect()
        await client.subscribe("made:X@1m")
        told = await client.until_type("status", status="reconnecting")
    finally:
        await running.close()
    reason = "provider made failed (Odd in relay_stream)" if how == "raises" else "it was cancelled by its own plugin"
    assert told["message"].startswith(reason)
    assert "the provider closed" not in caplog.text


# -- plugins that do not end -----------------------------------------------------------------------


@pytest.mark.parametrize("name", ["swallows_cancellation", "never_closes"])
async def test_feed_that_does_not_end_is_killed(name: str, caplog: pytest.LogCaptureFixture) -> None:
    async with opened(name) as provider:
        watchlist = Watchlist([StreamKey("X", "1m")])

        async def pump() -> None:
            async with aclosing(provider.stream(watchlist)) as updates:
                async for _ in updates:
                    pass

        task = asyncio.create_task(pump(), name=f"pump {name} 1")
        await asyncio.sleep(0.1)
        # Without being killed it never ends.
        await provider.end_feed(task)
        assert task.done()
    assert [record.getMessage() for record in caplog.records if record.name == "relay.plugins.cancellation"] == [
        f"pump {name} 1 did not end when it was cancelled and was killed; its plugin must be corrected"
    ]


async def test_feed_that_ends_is_given_time_for_it() -> None:
    is_closed = False

    async def work() -> None:
        nonlocal is_closed
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0.05)
            is_closed = True

    task = asyncio.create_task(work())
    await asyncio.sleep(0)
    cancellation = asyncio.create_task(end_task(task))
    await asyncio.sleep(0)
    cancellation.cancel()
    await asyncio.wait((cancellation,))
    assert is_closed
    assert cancellation.cancelled()


async def test_feed_that_never_waits_lets_others_run() -> None:
    async with opened("never_waits") as provider:
        task = asyncio.create_task(updates_of(provider, Watchlist([StreamKey("X", "1m")]), -1))
        turns = 0
        async with asyncio.timeout(30):
            while turns < 20:
                await asyncio.sleep(0)
                turns += 1
        await end_task(task)
        assert task.cancelled()


# -- in a relay, over a real socket ----------------------------------------------------------------

UNRULY = (
    "stream_raises",
    "stream_raises_later",
    "stream_ends",
    "stream_is_no_generator",
    "rubbish",
    "never_waits",
    "ignores_watchlist",
    "swallows_cancellation",
    "never_closes",
    "wrong_history",
    "wrong_instruments",
    "leaks_key",
)
REFUSED = ("raises_at_import", "exits_at_import", "no_hook", "wrong_api", "unknown_hook", "nonsense", "bad_name")


@pytest.fixture
async def unruly(sandbox: Sandbox) -> AsyncIterator[Running]:
    """A relay with the built-in providers, the clock and every bad plugin there is."""
    named = [path_of(name) for name in (*REFUSED, *UNRULY, "clock")]
    tables = {"wrong_history": {"answer": "raises"}, "leaks_key": {"api_key": KEY}}
    async with AsyncExitStack() as stack:
        running = await start_relay(sandbox, plugins=tuple(named), tables=tables, limits=RelayLimits(plugins=TIMING))
        stack.push_async_callback(running.close)
        yield running


async def test_relay_with_unruly_plugins_serves_the_others(unruly: Running) -> None:
    bad = await unruly.connect()
    pins = [f"{name}:X@1m" for name in UNRULY if name != "wrong_instruments"]
    await bad.subscribe(*pins, "wrong_instruments:GOOD@1m")
    good = await unruly.connect()
    await good.subscribe("BTCUSDT@1m", "EUR/USD@1m", "clock:X@1s")
    seen: set[tuple[str, str]] = set()
    async with asyncio.timeout(30):
        while seen != {("BTCUSDT", "1m"), ("EUR/USD", "1m"), ("clock:X", "1s")}:
            update = await good.update()
            seen.add((update["symbol"], update["interval"]))
    closed = [await good.update(symbol="clock:X", is_closed=True) for _ in range(2)]
    assert closed[1]["candle"]["time"] == closed[0]["candle"]["time"] + 1
    texts = str([*bad.received, *good.received])
    assert KEY not in texts
    status = (await unruly.get("status")).text
    assert KEY not in status
    assert str(PLUGINS) not in status


async def test_relay_with_unruly_plugins_shuts_down_in_time(unruly: Running) -> None:
    client = await unruly.connect()
    await client.subscribe(*[f"{name}:X@1m" for name in ("swallows_cancellation", "never_closes", "never_waits")])
    await client.update(symbol="never_closes:X")
    async with asyncio.timeout(20):
        await unruly.close()
    left = [task.get_name() for task in asyncio.all_tasks() if "pump" in task.get_name()]
    assert left == []


async def test_rubbish_is_counted_and_the_good_updates_of_that_provider_arrive(unruly: Running) -> None:
    client = await unruly.connect()
    await client.subscribe("rubbish:X@1m")
    closes: set[float] = set()
    # Of several that wait to be sent only the newest is.
    while len(closes) < 2:
        closes.add((await client.update(symbol="rubbish:X"))["candle"]["close"])
    assert closes == {2.0, 2.5}
    status = (await unruly.get("status")).body
    (found,) = [provider for provider in status["providers"] if provider["name"] == "rubbish"]
    assert any(isinstance(value, int) and value >= 34 for value in found.values()), found


async def test_status_counts_what_each_plugin_did(unruly: Running) -> None:
    client = await unruly.connect()
    names = ["stream_raises:X@1m", "never_closes:X@1m", "ignores_watchlist:A@1m", "ignores_watchlist:B@1m"]
    await client.subscribe(*names)
    await client.update(symbol="never_closes:X")
    await client.update(symbol="ignores_watchlist:A")
    await client.ask("unsubscribe", streams=["never_closes:X@1m", "ignores_watchlist:A@1m"])
    providers = unruly.app[PROVIDERS]
    await eventually(
        lambda: (
            providers["never_closes"].killed
            and providers["stream_raises"].failures.failed
            and unruly.app[SUPERVISORS]["ignores_watchlist"].counters.skipped
        )
    )
    status = (await unruly.get("status")).body
    told = {provider["name"]: provider for provider in status["providers"]}
    assert told["never_closes"]["tasks_killed"] == 1
    assert told["stream_raises"]["hooks_failed"] >= 1
    assert told["ignores_watchlist"]["messages_skipped"] >= 1
    assert {told["binance"][name] for name in ("tasks_killed", "hooks_failed", "messages_skipped")} == {0}


async def test_failed_history_of_a_plugin_is_an_error_of_that_request_only(unruly: Running) -> None:
    answer = await unruly.get("history", symbol="wrong_history:X", interval="1m")
    assert answer.status in (502, 503)
    assert "provider wrong_history failed (RuntimeError in relay_candles)" in answer.text
    assert (await unruly.get("history", symbol="BTCUSDT", interval="1m", limit=2)).status == 200


async def test_feed_of_ignores_watchlist_reaches_nobody_who_left(unruly: Running) -> None:
    client = await unruly.connect()
    await client.subscribe("ignores_watchlist:A@1m", "ignores_watchlist:B@1m")
    await client.update(symbol="ignores_watchlist:A")
    await client.ask("unsubscribe", streams=["ignores_watchlist:A@1m"], id_=1)
    await client.answer(1)
    await eventually(lambda: all(stream.key.symbol != "A" for stream in unruly.hub.streams.values()))
    await client.update(symbol="ignores_watchlist:B")
    before = len(client.received)
    await client.ask("ping", id_=2)
    await client.answer(2)
    assert all(message.get("symbol") != "ignores_watchlist:A" for message in client.received[before:])


class EndlessRound:
    """A plugin that goes round its watchlist, and waits for nothing but that somebody takes what it yields."""

    __name__ = "endless"

    def __init__(self) -> None:
        self.found_it_empty = False

    @hookimpl
    def relay_provider(self) -> ProviderInfo:
        return ProviderInfo("endless", API_VERSION, "Endless", ("demo",), ("1m",))

    async def _round(self, watchlist: Watchlist) -> AsyncIterator[StreamKey]:
        while not self.found_it_empty:
            for key in watchlist.streams:
                yield key
            # It would never end.
            self.found_it_empty = not watchlist.streams

    @hookimpl
    async def relay_stream(self, watchlist: Watchlist) -> AsyncIterator[PriceUpdate]:
        async for key in self._round(watchlist):
            yield PriceUpdate(key, Candle(int(time.time()) // 60 * 60, 1.0, 1.0, 1.0, 1.0))

    @hookimpl
    async def relay_native_stream(self, watchlist: Watchlist) -> AsyncIterator[NativeUpdate]:
        async for key in self._round(watchlist):
            yield NativeUpdate(key, b"{}")


async def test_feed_that_never_waits_does_not_find_its_watchlist_empty_when_the_last_stream_leaves(
    sandbox: Sandbox,
) -> None:
    endless = EndlessRound()
    running = await start_relay(sandbox, builtin=[*BUILTIN, endless])
    try:
        client = await running.connect()
        await client.subscribe("endless:X@1m", "endless:Y@1m")
        await client.update(symbol="Y")
        await client.ask("unsubscribe", streams=["endless:X@1m", "endless:Y@1m"])
        await eventually(lambda: running.app[SUPERVISORS]["endless"].is_idle)
    finally:
        await running.close()
    assert not endless.found_it_empty


async def test_feed_of_answers_that_never_waits_does_not_find_its_watchlist_empty_either(sandbox: Sandbox) -> None:
    endless, keys = EndlessRound(), (StreamKey("X", "depth"), StreamKey("Y", "depth"))
    running = await start_relay(sandbox, builtin=[*BUILTIN, endless])
    try:
        supervisor = running.app[SUPERVISORS]["endless"]
        assert all(map(supervisor.native.follow, keys))
        await eventually(lambda: all(map(supervisor.native.newest, keys)))
        for key in keys:
            supervisor.native.let_go(key)
        await eventually(lambda: supervisor.is_idle)
        assert not any(map(supervisor.native.newest, keys))
    finally:
        await running.close()
    assert not endless.found_it_empty


# -- the command -----------------------------------------------------------------------------------


def test_relay_plugins_prints_what_loaded_from_where_and_what_did_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = ["plugins"]
    for name in ("clock", "doubles", "wrong_api"):
        arguments += ["--plugins", path_of(name)]
    result = CliRunner().invoke(main, arguments, env={"RELAY_TWELVE_DATA_API_KEY": None, "TWELVE_DATA_API_KEY": None})
    assert result.exit_code == 1
    lines = [line.split("\t") for line in result.stdout.splitlines()]
    assert [line[:3] for line in lines if line[0] != "setting"] == [
        ["binance", "ready", "builtin:BinanceProvider"],
        ["twelve_data", "needs a key", "builtin:TwelveDataProvider"],
        ["binance_usdm", "ready", "builtin:BinanceUsdmProvider"],
        ["clock", "ready", f"file:{path_of('clock')}"],
        ["wraps", "relay_candles", f"file:{path_of('doubles')}"],
        ["refused", f"file:{path_of('wrong_api')}", lines[-1][2]],
    ]
    assert lines[-1][2].startswith("needs provider API 3")


def test_relay_plugins_exits_0_when_nothing_was_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(main, ["plugins", "--plugins", path_of("clock")])
    assert result.exit_code == 0
