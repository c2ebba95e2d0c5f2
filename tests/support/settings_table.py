"""The README's table of settings, made from their declarations: `python -m tests.support.settings_table` writes it."""

from pathlib import Path

from providers import BUILTIN
from relay.config.environment import names_of_variable
from relay.config.provider_settings import INSTANCE_SETTINGS, USES, enabled_variable, setting_default, setting_variables
from relay.config.settings import INSTANCES, SETTINGS, Config
from relay.plugins.loader import PluginHost

README = Path(__file__).parents[2] / "README.md"
HEAD = "| key | environment | default | |\n| --- | --- | --- | --- |\n"


def settings_table() -> str:
    """Return the table: a row for each setting of the relay and of the built-in providers."""
    rows = []
    for one in SETTINGS.values():
        variables, text = _variables(one.variable, is_secret=one.is_secret), one.help.removesuffix(".")
        rows.append((f"`{one.key}`", variables, _cell(one.default_text), text + _form(one.form)))
    host = PluginHost()
    host.load(BUILTIN, installed=False)
    for name, loaded in host.loaded.items():
        for setting in loaded.info.settings:
            variables = _variables(*setting_variables(Config(), loaded.info, setting), is_secret=setting.is_secret)
            default = "the public ones" if setting.kind == "urls" else _cell(setting_default(setting))
            rows.append((f"`[{name}] {setting.name}`", variables, default, setting.help))
    for one in INSTANCE_SETTINGS.values():
        variable = "–" if one.name == USES else f"`{enabled_variable('NAME')}`"
        rows.append((f"`[{INSTANCES}.NAME] {one.name}`", variable, _cell(one.default_text), one.help))
    return HEAD + "".join(f"| {' | '.join(cell.replace('|', '&#124;') for cell in row)} |\n" for row in rows)


def _variables(*names: str, is_secret: bool) -> str:
    return ", ".join(f"`{each}`" for name in names for each in names_of_variable(name, is_secret=is_secret))


def _form(form: str) -> str:
    return "" if form in {"", "NUMBER", "FILE"} else f": `{form}`"


def _cell(text: str) -> str:
    return text if " " in text or text in {"none", "never", "no", "yes"} else f"`{text}`"


def parts(readme: str) -> tuple[str, str, str]:
    """Return what stands before the table, the table, and what stands after it."""
    before, _, rest = readme.partition("\n| key | environment |")
    table, _, after = rest.partition("\n\n")
    return before + "\n", f"| key | environment |{table}\n", "\n" + after


if __name__ == "__main__":
    before, _, after = parts(README.read_text(encoding="utf-8"))
    README.write_text(before + settings_table() + after, encoding="utf-8")
