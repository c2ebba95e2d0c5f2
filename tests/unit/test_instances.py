"""Instances of providers: their names and settings, what is switched off, and what is said of mistakes."""

import importlib
import logging
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import Any

import pytest

from providers import BUILTIN
from relay import ProviderInfo, Secret, Setting, hookimpl
from relay.app import load_plugins
from relay.config.given_settings import load_config
from relay.config.likely_mistakes import likely_mistakes
from relay.core.clock import Clock, ProviderClock
from relay.core.errors import ConfigError
from relay.plugins.declarations import remark_on_api
from relay.plugins.discovery import import_named
from relay.plugins.loader import PluginHost

PLUGINS = Path(__file__).parents[1] / "plugins"
EXCHANGES = f"{PLUGINS / 'exchanges.py'}:Exchanges"
KRAKEN = "[providers.kraken]\nuses = 'exchanges'\nexchange = 'kraken'\n"
COINBASE = "[providers.coinbase]\nuses = 'exchanges'\nexchange = 'coinbase'\n"

Host = Callable[..., PluginHost]


@pytest.fixture
def host_of(tmp_path: Path) -> Host:
    """Load the plugins of a configuration file, in which `plugins` are the exchanges unless others are given."""

    def load(
        content: str = "",
        environ: Mapping[str, str] | None = None,
        *,
        builtin: tuple[object, ...] = (),
        plugins: tuple[str, ...] = (EXCHANGES,),
        installed: bool = False,
    ) -> PluginHost:
        path = tmp_path / "relay.toml"
        path.write_text(f"plugins = {list(plugins)}\n{content}")
        return load_plugins(load_config({}, environ or {}, str(path)), builtin, installed=installed)

    return load


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, str], None]]:
    """Write modules that can be imported."""
    folder = tmp_path / "modules"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    before = set(sys.modules)

    def write(name: str, text: str) -> None:
        (folder / f"{name}.py").write_text(text)
        importlib.invalidate_caches()

    yield write
    for module in set(sys.modules) - before:
        del sys.modules[module]


def source_of(plugin: str, *changes: tuple[str, str]) -> str:
    text = (PLUGINS / f"{plugin}.py").read_text()
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    return text


def plugin_of(name: str, *settings: Setting, **fields: Any) -> Any:
    """Make a plugin that is a module."""

    def relay_provider() -> ProviderInfo:
        return ProviderInfo(name, 2, name.title(), ("demo",), ("1m",), settings=settings, **fields)

    async def relay_stream() -> Any:
        yield None

    plugin = ModuleType(name)
    plugin.relay_provider, plugin.relay_stream = hookimpl(relay_provider), hookimpl(relay_stream)  # type: ignore[attr-defined]
    return plugin


def complaint(host_of: Host, content: str, environ: Mapping[str, str] | None = None, **more: Any) -> str:
    with pytest.raises(ConfigError) as error:
        host_of(content, environ, **more)
    assert "\n" not in str(error.value)
    return str(error.value)


# -- names and descriptions ------------------------------------------------------------------------


def test_instances_have_names_settings_and_descriptions_of_their_own(host_of: Host) -> None:
    host = host_of(KRAKEN + "depth = 7\n" + COINBASE, {"RELAY_COINBASE_DEPTH": "3", "RELAY_KRAKEN_API_KEY": "k-secret"})
    assert host.failures == []
    assert list(host.loaded) == ["exchanges", "kraken", "coinbase"]
    kraken, coinbase = host.loaded["kraken"], host.loaded["coinbase"]
    assert (kraken.info.name, kraken.info.title, kraken.info.intervals) == ("kraken", "Exchanges: kraken", ("1m", "1h"))
    assert (coinbase.info.name, coinbase.info.intervals) == ("coinbase", ("1m",))
    assert (kraken.uses, kraken.heading) == ("exchanges", "[providers.kraken]")
    assert (kraken.settings["depth"], coinbase.settings["depth"]) == (7, 3)
    assert (kraken.settings["api_key"], coinbase.settings["api_key"]) == (Secret("k-secret"), None)


def test_a_provider_itself_has_its_table_as_before(host_of: Host) -> None:
    (loaded,) = host_of("[exchanges]\nexchange = 'kraken'\ndepth = 2").loaded.values()
    assert (loaded.info.title, loaded.heading, loaded.uses, loaded.settings["depth"]) == (
        "Exchanges: kraken",
        "[exchanges]",
        "",
        2,
    )


def test_further_variables_are_for_the_provider_itself_or_two_accounts_would_have_one_key(host_of: Host) -> None:
    host = host_of(KRAKEN, {"EXCHANGES_KEY": "of the account"})
    assert host.loaded["exchanges"].settings["api_key"] == Secret("of the account")
    assert host.loaded["kraken"].settings["api_key"] is None


def test_each_instance_of_a_class_has_an_object_and_all_of_a_module_share_it(host_of: Host) -> None:
    host = host_of("[providers.exchanges]\nenabled = false\n" + KRAKEN + COINBASE)
    kraken, coinbase = (host.loaded[name].plugin for name in ("kraken", "coinbase"))
    assert kraken is not coinbase
    assert type(kraken).made == 2  # type: ignore[attr-defined]
    module = str(PLUGINS / "clock.py")
    host = host_of("[providers.second]\nuses = 'clock'", plugins=(module,))
    assert host.loaded["clock"].plugin is host.loaded["second"].plugin


def test_what_a_plugin_says_wrong_of_one_instance_refuses_that_one(host_of: Host) -> None:
    host = host_of(KRAKEN + "[providers.other]\nuses = 'exchanges'\nexchange = 'nowhere'")
    assert list(host.loaded) == ["exchanges", "kraken"]
    assert [(failure.name, failure.error) for failure in host.failures] == [
        ("other", "[providers.other] candles_per_call is 0, not a whole number of at least 1")
    ]


def test_a_description_that_cannot_be_given_before_settings_are_read_says_so(host_of: Host, tmp_path: Path) -> None:
    plugin = tmp_path / "early.py"
    plugin.write_text(source_of("exchanges", ('INTERVALS.get(exchange, ("1m",))', "INTERVALS[exchange]")))
    host = host_of("", plugins=(f"{plugin}:Exchanges",))
    assert host.failures[0].error == (
        "relay_provider raised KeyError: None when it was called before its settings are read: each is None then, and "
        "it has to say its name and which settings there are"
    )


def test_a_constructor_that_fails_for_the_second_instance_refuses_that_one(host_of: Host, tmp_path: Path) -> None:
    plugin = tmp_path / "one.py"
    plugin.write_text(source_of("exchanges", ("self.asked = 0", "self.asked = 1 // (2 - self.made)")))
    host = host_of(KRAKEN, plugins=(f"{plugin}:Exchanges",))
    assert [(failure.name, failure.error) for failure in host.failures] == [
        ("kraken", "[providers.kraken] ZeroDivisionError: integer division or modulo by zero")
    ]


# -- switched off ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "environ"),
    [
        ("[providers.offline]\nenabled = false", {}),
        ("", {"RELAY_OFFLINE_ENABLED": "false"}),
        ("[providers.offline]\nenabled = true", {"RELAY_OFFLINE_ENABLED": "off"}),
    ],
)
def test_a_built_in_provider_that_is_switched_off_is_not_imported(
    host_of: Host, modules: Callable[[str, str], None], content: str, environ: dict[str, str]
) -> None:
    modules("offline", "raise RuntimeError('imported')")
    host = host_of(f"{content}\n[offline]\nkey = 5", environ, builtin=("offline:Offline",))
    assert host.failures == []
    assert list(host.loaded) == ["exchanges"]
    assert list(host.switched_off) == ["offline"]
    assert "offline" not in sys.modules


def test_an_instance_of_a_provider_that_is_switched_off_works(
    host_of: Host, modules: Callable[[str, str], None]
) -> None:
    modules("exchanges", source_of("exchanges"))
    content = "[providers.exchanges]\nenabled = false\n" + KRAKEN
    host = host_of(content, builtin=("exchanges:Exchanges",), plugins=())
    assert (list(host.loaded), list(host.switched_off)) == (["kraken"], ["exchanges"])
    assert host.loaded["kraken"].plugin.made == 1  # type: ignore[attr-defined]


def test_an_instance_can_be_switched_off_by_its_variable(host_of: Host) -> None:
    host = host_of(KRAKEN + COINBASE, {"RELAY_KRAKEN_ENABLED": "no"})
    assert (list(host.loaded), list(host.switched_off)) == (["exchanges", "coinbase"], ["kraken"])
    assert host.switched_off["kraken"].uses == "exchanges"


def test_a_file_that_is_switched_off_is_not_bound(host_of: Host) -> None:
    host = host_of("[providers.exchanges]\nenabled = false", builtin=BUILTIN)
    assert (list(host.loaded), list(host.switched_off)) == (
        ["binance", "twelve_data", "binance_usdm"],
        ["exchanges"],
    )


def test_a_relay_in_which_all_is_switched_off_says_so(host_of: Host) -> None:
    host = host_of("[providers.exchanges]\nenabled = false")
    with pytest.raises(ConfigError, match="every provider is switched off: exchanges"):
        host.check_any()


# -- collisions ------------------------------------------------------------------------------------


def test_an_instance_with_the_name_of_a_provider_replaces_it_with_a_warning(
    host_of: Host, caplog: pytest.LogCaptureFixture
) -> None:
    host = host_of("[providers.binance]\nuses = 'exchanges'\nexchange = 'kraken'", builtin=BUILTIN)
    assert list(host.loaded) == ["binance", "twelve_data", "binance_usdm", "exchanges"]
    assert host.loaded["binance"].info.title == "Exchanges: kraken"
    assert caplog.messages == [
        "provider binance of [providers.binance], which uses exchanges, replaces the one of builtin:BinanceProvider"
    ]
    assert [lost.name for lost in host.lost] == ["binance"]


def test_an_instance_may_have_the_name_of_the_provider_that_it_uses(
    host_of: Host, caplog: pytest.LogCaptureFixture
) -> None:
    host = host_of("[providers.exchanges]\nuses = 'exchanges'\ndepth = 4", {"EXCHANGES_KEY": "usual"})
    (loaded,) = host.loaded.values()
    assert (loaded.settings["depth"], loaded.settings["api_key"]) == (4, Secret("usual"))
    assert caplog.messages == []


def distribution(folder: Path, name: str, version: str, entry_points: str) -> None:
    """Install a distribution, which is a folder on `sys.path`."""
    info = folder / f"{name}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    (info / "entry_points.txt").write_text(f"[relay.providers]\n{entry_points}\n")


def test_two_entry_points_of_one_name_are_taken_in_the_order_of_their_distributions(
    host_of: Host, modules: Callable[[str, str], None], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name, version in (("zz-clock", "2.0"), ("aa-clock", "1.0")):
        module = name.replace("-", "_")
        modules(module, source_of("clock", ("Clock", name)))
        distribution(tmp_path / "modules", name, version, f"clock = {module}")
    host = host_of(installed=True)
    assert host.failures == []
    assert host.loaded["clock"].info.title == "zz-clock"
    assert (host.loaded["clock"].distribution, host.loaded["clock"].version) == ("zz-clock", "2.0")
    assert caplog.messages == [
        "provider clock of entry point:clock of zz-clock 2.0 replaces the one of entry point:clock of aa-clock 1.0"
    ]


def test_an_entry_point_that_is_switched_off_is_not_imported(
    host_of: Host, modules: Callable[[str, str], None], tmp_path: Path
) -> None:
    modules("costly", "raise RuntimeError('imported')")
    distribution(tmp_path / "modules", "market-relay-costly", "3.1", "costly = costly")
    host = host_of("[providers.costly]\nenabled = false", installed=True)
    assert (host.failures, list(host.loaded)) == ([], ["exchanges"])
    door = host.switched_off["costly"].door
    assert door is not None
    assert (door.source, door.distribution, door.version) == ("entry point:costly", "market-relay-costly", "3.1")


def test_a_class_that_comes_in_by_two_doors_is_one_provider(
    host_of: Host, modules: Callable[[str, str], None], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    modules("both", source_of("exchanges"))
    distribution(tmp_path / "modules", "both", "1.0", "exchanges = both:Exchanges")
    host = host_of(plugins=("both:Exchanges",), installed=True)
    assert (host.loaded["exchanges"].source, host.loaded["exchanges"].version) == ("module:both:Exchanges", "1.0")
    assert caplog.messages == []


def test_a_variable_that_two_settings_read_is_a_complaint_when_it_is_set(host_of: Host) -> None:
    foo, foo_bar = plugin_of("foo", Setting("bar_key")), plugin_of("foo_bar", Setting("key"))
    assert list(host_of(builtin=(foo, foo_bar)).loaded) == ["foo", "foo_bar", "exchanges"]
    assert complaint(host_of, "", {"RELAY_FOO_BAR_KEY": "x"}, builtin=(foo, foo_bar)) == (
        "RELAY_FOO_BAR_KEY is read by bar_key in [foo] and by key in [foo_bar]; write these settings into a file "
        "instead, or give one of the providers another name with [providers.NAME] uses"
    )
    # What Kubernetes makes of a Service is no setting.
    ports = plugin_of("foo", Setting("bar_port")), plugin_of("foo_bar", Setting("port"))
    assert len(host_of("", {"RELAY_FOO_BAR_PORT": "tcp://10.0.0.11:80"}, builtin=ports).loaded) == 3
    words = complaint(host_of, "", {"RELAY_LOG_LEVEL": "info"}, builtin=(plugin_of("log", Setting("level")),))
    assert "RELAY_LOG_LEVEL is read by log_level and by level in [log]" in words


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("providers = 5", "providers in {file}: 5 is not a table; write [providers.NAME]"),
        (
            "[providers]\nkraken = 'exchanges'",
            "kraken in [providers]: the value is not a table; write [providers.kraken]",
        ),
        ("[providers.kraken]\nuses = 5", "uses in [providers.kraken]: 5 is not a text; write it in quotation marks"),
        ("[providers.kraken]\nuses = ''", "uses in [providers.kraken]: '' is empty"),
        (
            "[providers.kraken]\nuses = 'exchange'",
            "there is no provider 'exchange'; providers are exchanges; did you mean ex",
        ),
        (
            KRAKEN + "[providers.k2]\nuses = 'kraken'",
            "providers are exchanges; kraken is an instance itself, of exchanges",
        ),
        ("[providers.Kraken]\nuses = 'exchanges'", "name 'Kraken' is not a lower-case identifier such as my_exchange"),
        (
            "[providers.tokens]\nuses = 'exchanges'",
            "name 'tokens' is a setting of the relay itself; choose another name",
        ),
        (
            "[providers.exchangs]\nenabled = false",
            "unknown provider 'exchangs' in [providers.exchangs]; providers are exchanges",
        ),
        (
            "[providers.exchanges]\nenabled = 'maybe'",
            "enabled in [providers.exchanges]: 'maybe' is neither true nor false",
        ),
        (
            "[providers.exchanges]\ndepth = 3",
            "uses no other provider; the settings of exchanges itself are in [exchanges]",
        ),
        ("[providers.exchanges]\nenable = false", "unknown key 'enable' in [providers.exchanges]"),
        ("[providers.exchanges]\nenable = false", "did you mean enabled?"),
        (
            KRAKEN + "[kraken]\ndepth = 3",
            "settings of kraken, which uses exchanges, are in [providers.kraken]; move the keys",
        ),
        (KRAKEN + "dept = 3", "unknown key 'dept' in [providers.kraken]; known keys are"),
        (KRAKEN + "dept = 3", "did you mean depth?"),
        ("[provider.kraken]\nuses = 'exchanges'", "did you mean providers?"),
        (
            "[providers.kraken]\nexchange = 'kraken'",
            "[providers.kraken] lacks uses, and there is no provider 'kraken': "
            'add uses = "exchanges", which has these settings; providers are exchanges',
        ),
        (
            "[providers.kraken]\nexchange = 'kraken'\ndept = 3",
            'add uses = "…" with the provider that it is an instance of; providers are exchanges',
        ),
        (
            "[providers.exchangs]\ndepth = 3",
            "is an instance of; providers are exchanges; did you mean exchanges?",
        ),
    ],
)
def test_a_table_of_an_instance_that_makes_no_sense_is_a_complaint(
    host_of: Host, tmp_path: Path, content: str, words: str
) -> None:
    assert words.replace("{file}", str(tmp_path / "relay.toml")) in complaint(host_of, content)


def test_a_table_without_uses_is_told_which_provider_has_its_keys_also_one_that_runs_only_as_an_instance(
    host_of: Host,
) -> None:
    said = complaint(host_of, "[providers.kraken]\nexchange = 'kraken'", builtin=BUILTIN, plugins=())
    assert "there is no provider 'kraken': add uses = \"ccxt\", which has these settings; providers are" in said


def test_an_instance_of_a_refused_provider_is_refused_too(host_of: Host) -> None:
    wrong = str(PLUGINS / "wrong_api.py")
    host = host_of("[providers.mine]\nuses = 'wrong_api'\nkey = 5", plugins=(EXCHANGES, wrong))
    assert list(host.loaded) == ["exchanges"]
    assert [failure.name for failure in host.failures] == ["wrong_api", "mine"]
    assert host.failures[1].error == "wrong_api, which it uses, was refused"


# -- kinds of settings -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "written", "in_environment", "value"),
    [
        ("exchange", "'coinbase'", "coinbase", "coinbase"),
        ("api_key", "'abcdef'", " abcdef\n", Secret("abcdef")),
        ("rest_url", "'https://a.example'", "https://a.example", ("https://a.example",)),
        ("quotes", "['GBP', 'JPY']", "GBP, JPY,", ("GBP", "JPY")),
        ("testnet", "true", "yes", True),
        ("depth", "9", "9", 9),
        ("pace", "2", "2", 2.0),
        ("note", "'x'", "x", "x"),
    ],
)
def test_a_setting_of_each_kind_is_read_from_file_and_environment(
    host_of: Host, key: str, written: str, in_environment: str, value: object
) -> None:
    assert (
        host_of(f"{KRAKEN.splitlines()[0]}\nuses = 'exchanges'\n{key} = {written}").loaded["kraken"].settings[key]
        == value
    )
    host = host_of("[providers.kraken]\nuses = 'exchanges'", {f"RELAY_KRAKEN_{key.upper()}": in_environment})
    assert host.loaded["kraken"].settings[key] == value


def test_a_table_reaches_the_provider_and_nobody_can_change_it(host_of: Host) -> None:
    content = KRAKEN + "[providers.kraken.options]\nretries = 5\nnested = {names = ['a', 'b']}"
    options = host_of(content).loaded["kraken"].settings["options"]
    assert options == {"retries": 5, "nested": {"names": ("a", "b")}}
    assert isinstance(options["nested"], MappingProxyType)
    with pytest.raises(TypeError):
        options["retries"] = 6
    with pytest.raises(TypeError):
        host_of().loaded["exchanges"].settings["options"]["retries"] = 6


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("exchange = 'krakn'", "'krakn' is not one of kraken, coinbase, nowhere; did you mean kraken?"),
        ("api_key = 5", "api_key in [providers.mine]: the value is not a text"),
        ("rest_url = 'example.org'", "rest_url in [providers.mine]: 'example.org' is not a list of addresses such as"),
        ("quotes = 5", '5 is not a list of texts such as ["a", "b"], or one text with commas'),
        ("quotes = [5]", "quotes in [providers.mine]: [5] is not a list of texts"),
        ("options = 5", "options in [providers.mine]: 5 is not a table; write its lines, key = value, below"),
        ("options = 'a'", "'a' is not a table; a table cannot be written in a variable or as a text"),
        ("testnet = 1", "testnet in [providers.mine]: 1 is neither true nor false"),
        ("depth = 10", "depth in [providers.mine]: 10 is out of range; it has to be from 1 to 9"),
        ("depth = true", "depth in [providers.mine]: True is not a whole number from 1 to 9"),
        ("pace = 'fast'", "pace in [providers.mine]: 'fast' is not a number from 0.1 upwards"),
        ("note = 5", "note in [providers.mine]: 5 is not a text; write it in quotation marks"),
    ],
)
def test_a_wrong_value_of_each_kind_says_what_would_be_right(host_of: Host, line: str, words: str) -> None:
    assert words in complaint(host_of, f"[providers.mine]\nuses = 'exchanges'\n{line}")


def test_a_table_in_a_variable_is_a_complaint_that_names_it(host_of: Host) -> None:
    words = complaint(host_of, KRAKEN, {"RELAY_KRAKEN_OPTIONS": "retries=5"})
    assert words.startswith("RELAY_KRAKEN_OPTIONS: 'retries=5' is not a table; a table cannot be written in a variable")


def test_likely_mistakes_know_the_variables_of_instances_and_of_what_is_off(tmp_path: Path) -> None:
    path = tmp_path / "relay.toml"
    path.write_text(f"plugins = ['{EXCHANGES}']\n[providers.binance]\nenabled = false\n{KRAKEN}")
    known = ("RELAY_KRAKEN_ENABLED", "RELAY_KRAKEN_API_KEY_FILE", "RELAY_EXCHANGES_ENABLED", "RELAY_BINANCE_WS_URL")
    environ = {name: "" for name in known} | {"RELAY_KRAKEN_API_KY": "x"}
    config = load_config({}, environ, str(path))
    host = load_plugins(config, BUILTIN, installed=False)
    infos = [loaded.info for loaded in host.loaded.values()]
    assert list(likely_mistakes(config, infos, host.unread)) == [
        "no setting reads the variable RELAY_KRAKEN_API_KY; did you mean RELAY_KRAKEN_API_KEY?"
    ]


def test_one_key_for_two_instances_is_a_likely_mistake_that_is_not_repeated(tmp_path: Path) -> None:
    path = tmp_path / "relay.toml"
    keys = "[providers.one]\nuses = 'exchanges'\napi_key = 'opensesame'\n" + KRAKEN + "api_key = 'another'\n"
    path.write_text(f"plugins = ['{EXCHANGES}']\n[exchanges]\napi_key = 'opensesame'\n{keys}")
    config = load_config({}, {}, str(path))
    host = load_plugins(config, (), installed=False)
    assert list(likely_mistakes(config, [loaded.info for loaded in host.loaded.values()])) == [
        "exchanges and one have the same api_key: each spends its limits without regard to the other"
    ]


def test_a_required_setting_that_is_no_key_is_asked_for_where_the_instance_has_it(host_of: Host) -> None:
    host = host_of("[providers.mine]\nuses = 'exchanges'")
    provider = host.bind(host.loaded["mine"], host.loaded["mine"].settings, ProviderClock(Clock()))
    assert provider.refusal == (
        "Exchanges: None needs the setting exchange: set RELAY_MINE_EXCHANGE, or exchange in [providers.mine] of the "
        "configuration"
    )


# -- what can be named -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["Exchanges", "provider", "Inner.provider"])
def test_a_class_or_an_object_of_a_module_or_a_file_can_be_named(
    host_of: Host, modules: Callable[[str, str], None], tmp_path: Path, name: str
) -> None:
    text = source_of("exchanges") + "\n\nclass Inner:\n    provider = provider\n"
    modules("venues", text)
    (tmp_path / "venues.py").write_text(text)
    for named in (f"venues:{name}", f"{tmp_path / 'venues.py'}:{name}"):
        host = host_of(plugins=(named,))
        assert (host.failures, list(host.loaded)) == ([], ["exchanges"])
        assert host.loaded["exchanges"].source.endswith(named)


def test_two_classes_of_one_module_are_two_providers(host_of: Host, modules: Callable[[str, str], None]) -> None:
    text = source_of("exchanges")
    modules(
        "venues", text + text.replace("class Exchanges", "class Others").replace('name="exchanges"', 'name="others"')
    )
    assert list(host_of(plugins=("venues:Exchanges", "venues:Others")).loaded) == ["exchanges", "others"]


def test_a_name_that_a_module_does_not_have_is_refused_with_the_nearest(host_of: Host) -> None:
    (failure,) = host_of(plugins=(f"{PLUGINS / 'exchanges.py'}:Exchange",)).failures
    assert failure.error == f"{PLUGINS / 'exchanges.py'} has no Exchange; did you mean Exchanges?"


# -- the first API ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["FirstApi", "plugin"])
def test_a_plugin_of_the_first_api_loads_as_it_is_and_that_is_said(host_of: Host, name: str) -> None:
    host = host_of("[first_api]\napi_key = 'abcdef'", plugins=(f"{PLUGINS / 'first_api.py'}:{name}",))
    assert host.failures == []
    loaded = host.loaded["first_api"]
    assert loaded.settings == {"api_key": Secret("abcdef"), "depth": 3}
    assert [(setting.kind, setting.is_secret) for setting in loaded.info.settings] == [("secret", True), ("int", False)]
    assert remark_on_api(loaded.info.api) == ("is written for provider API 1 and works as it is; this relay has 2.1")


@pytest.mark.parametrize("api", [2, (2, 0)])
def test_a_plugin_of_this_api_needs_no_remark(api: Any) -> None:
    assert remark_on_api(api) == ""
    assert remark_on_api((2, 1), ["relay_close"]) == ""
    assert remark_on_api(api, ["relay_candles"]) == ""


def test_a_plugin_that_has_hooks_of_a_later_api_than_it_says_is_told_what_to_write() -> None:
    assert remark_on_api(2, ["relay_close", "relay_instrument"]) == (
        "says that it needs provider API 2, and has relay_close and relay_instrument of 2.1; write api=(2, 1), so that "
        "an older relay can say what is missing"
    )


def test_what_a_plugin_imports_that_is_not_in_the_api_is_said_in_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "later.py").write_text("from relay import hookimpl, each_planet\n")
    (tmp_path / "own.py").write_text("from relay.core import no_such_thing\n")
    host = PluginHost()
    host.load((), [str(tmp_path / "later.py"), str(tmp_path / "own.py")], installed=False)
    later, own = host.failures
    assert later.error == (
        "imports each_planet from relay, which provider API 2.1 does not have; install a newer market-relay, or an "
        "older version of the plugin"
    )
    assert own.error.startswith("ImportError: cannot import name 'no_such_thing' from 'relay.core'")


def test_a_plugin_of_a_later_api_that_gives_and_marks_more_is_told_what_to_install(tmp_path: Path) -> None:
    begin = "from relay import ProviderInfo, hookimpl\n@hookimpl\ndef relay_provider():\n    return ProviderInfo("
    end = ")\n@hookimpl\nasync def relay_stream(watchlist):\n    yield\n"
    info = "'later', (2, 9), 'L', ('demo',), ('1m',)"
    (tmp_path / "field.py").write_text(f"{begin}{info}, planet='Mars'{end}")
    (tmp_path / "hook.py").write_text(f"{begin}{info}{end}@hookimpl\ndef relay_planet(settings):\n    pass\n")
    (tmp_path / "argument.py").write_text(f"{begin}{info}{end.replace('watchlist', 'watchlist, planet')}")
    host = PluginHost()
    host.load((), [str(tmp_path / f"{name}.py") for name in ("field", "hook", "argument")], installed=False)
    install = "install a newer market-relay, or an older version of the plugin"
    assert [failure.error for failure in host.failures] == [
        f"gives ProviderInfo the field planet, which provider API 2.1 does not have; {install}",
        f"needs provider API 2.9, this relay has 2.1; {install}",
        f"needs provider API 2.9, this relay has 2.1; {install}",
    ]


# -- lines of a plugin -----------------------------------------------------------------------------


def test_a_line_of_a_plugin_names_the_instance_that_it_is_about(
    host_of: Host, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    from relay.telemetry.logs import JsonFormatter, TextFormatter

    lines: list[str] = []

    class Lines(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.extend((TextFormatter().format(record).partition("Z ")[2], JsonFormatter().format(record)))

    plugin = tmp_path / "talks.py"
    plugin.write_text(
        source_of(
            "exchanges",
            ("import time\n", "import logging\nimport time\n"),
            ("        return [Budget(", "        logging.getLogger('talks').warning('hello')\n        return [Budget("),
        )
    )
    host = host_of(KRAKEN, plugins=(f"{plugin}:Exchanges",))
    logger = logging.getLogger("talks")
    handler = Lines()
    logger.addHandler(handler)
    try:
        for name in ("kraken", "exchanges"):
            host.bind(host.loaded[name], host.loaded[name].settings, ProviderClock(Clock())).budgets()
    finally:
        logger.removeHandler(handler)
    assert lines[0::2] == ["WARNING talks: kraken: hello", "WARNING talks: hello"]
    assert ['"provider":"kraken"' in line for line in lines[1::2]] == [True, False]


def test_import_named_returns_what_is_named() -> None:
    assert import_named("pathlib:Path.home") == Path.home


def dashless(value: Any) -> str:
    return f"{value.reveal()!r} has no dash; write it as on the page"


def no_key(value: Any) -> str:
    return f"{value.reveal().upper()} is no key"


def is_down(value: Any) -> str:
    return f"of {value[0]} is down"


@pytest.mark.parametrize(
    ("setting", "value", "said"),
    [
        (
            Setting("key", "secret", check=dashless),
            "hunter2hunter2",
            "the value '***' has no dash; write it as on the page",
        ),
        (Setting("key", "secret", check=no_key), "abc", "*** is no key"),
        (
            Setting("address", "urls", check=is_down),
            "https://user:hunter2hunter2@a.example/?key=abc",
            "of https://***@a.example/?*** is down",
        ),
    ],
)
def test_the_text_of_a_check_shows_no_secret(host_of: Host, setting: Setting, value: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        host_of(f'[acme]\n{setting.name} = "{value}"\n', plugins=(), builtin=(plugin_of("acme", setting),))
    assert said in str(caught.value)
    assert value not in str(caught.value)
    assert "hunter2" not in str(caught.value)


class Telltale:
    """Says its key where it describes itself: in an error, or in a field that is wrong."""

    @hookimpl
    def relay_provider(self, settings: Mapping[str, Any]) -> ProviderInfo:
        key = settings["key"].reveal() if settings["key"] else ""
        if key.startswith("raise"):
            raise ValueError(f"the key {key} is out of date")
        return ProviderInfo("telltale", 2, "T", ("demo",), (key or "1m",), settings=(Setting("key", "secret"),))

    @hookimpl
    def relay_stream(self) -> None:
        """Deliver nothing: it is refused before that."""


@pytest.mark.parametrize("key", ["raise-hunter2", "return-hunter2"])
def test_the_reason_why_an_instance_is_refused_shows_no_secret(
    host_of: Host, key: str, caplog: pytest.LogCaptureFixture
) -> None:
    host = host_of(f'[telltale]\nkey = "{key}"\n', plugins=(), builtin=(Telltale,))
    assert [("***" in failure.error, key in failure.error) for failure in host.failures] == [(True, False)]
    assert "***" in caplog.text
    assert key not in caplog.text


def test_a_file_that_is_named_twice_is_run_once_and_is_one_provider(host_of: Host, tmp_path: Path) -> None:
    file = tmp_path / "twice.py"
    file.write_text(source_of("clock"))
    host = host_of(plugins=(str(file), f"{tmp_path}/./twice.py"))
    assert (list(host.loaded), host.lost, host.failures) == (["clock"], [], [])
    assert host.loaded["clock"].source == f"file:{tmp_path}/./twice.py"


def test_two_classes_of_a_file_share_its_globals(host_of: Host, tmp_path: Path) -> None:
    file = tmp_path / "pair.py"
    file.write_text(source_of("exchanges") + "\n\nclass Others(Exchanges):\n    pass\n")
    host = host_of(plugins=(f"{file}:Exchanges", f"{file}:Others"))
    (loaded,) = host.loaded.values()
    assert sys.modules[type(loaded.plugin).__module__].Exchanges in type(loaded.plugin).__mro__
    assert [name for name in sys.modules if name.startswith("relay_plugin_pair")] == ["relay_plugin_pair"]


@pytest.mark.parametrize(
    ("plugin", "reason"),
    [
        ("./clock.py:", "'./clock.py:' is not of the form module, module:Name, ./file.py or ./file.py:Name"),
        ("json:decoder:Nothing", "'json:decoder:Nothing' is not of the form module, module:Name"),
        (".relative", "'.relative' is not of the form module, module:Name"),
        (str(PLUGINS / "exchanges.py"), f"implements no hook; name the class that does: {EXCHANGES}"),
    ],
)
def test_a_plugin_that_is_named_wrongly_is_refused_with_what_is_right(host_of: Host, plugin: str, reason: str) -> None:
    (failure,) = host_of(plugins=(plugin,)).failures
    assert failure.error.startswith(reason)


@pytest.mark.parametrize(
    ("setting", "value", "said"),
    [
        (Setting("a", "float"), "nan", "nan is not a number"),
        (Setting("a", "float", least=1), "inf", "inf is not a number from 1 upwards"),
        (Setting("a", "int", most=3), "4", "4 is out of range; it has to be at most 3"),
        (Setting("a", "int"), "1.5", "1.5 is not a whole number"),
    ],
)
def test_what_a_number_has_to_be_is_said_without_ends_that_are_none(
    host_of: Host, setting: Setting, value: str, said: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        host_of(f"[acme]\na = {value}\n", plugins=(), builtin=(plugin_of("acme", setting),))
    assert str(caught.value) == f"a in [acme]: {said}"


# -- a provider for instances only -----------------------------------------------------------------

RELAY = (("providers.relay:RelayProvider", "if used"),)


def test_a_provider_for_instances_is_only_where_one_uses_it(host_of: Host) -> None:
    host = host_of(builtin=RELAY)
    assert (host.loaded.keys() & {"relay"}, host.switched_off.keys() & {"relay"}) == (set(), set())
    host = host_of("[providers.upstream]\nuses = 'relay'\nurls = ['http://127.0.0.1:1']\n", builtin=RELAY)
    assert (host.loaded.keys() & {"relay", "upstream"}, host.failures) == ({"upstream"}, [])


@pytest.mark.parametrize("also", ["", "[providers.upstream]\nuses = 'relay'\nurls = 'http://127.0.0.1:1'\n"])
def test_settings_of_a_provider_for_instances_belong_to_an_instance(host_of: Host, also: str) -> None:
    with pytest.raises(ConfigError, match=r"\[relay\] needs an instance; write \[providers.NAME\] with uses"):
        host_of(f"{also}[relay]\nurls = ['http://127.0.0.1:1']\n", builtin=RELAY)
