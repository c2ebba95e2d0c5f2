"""The native write, built for the tests from the sources: a checkout has none."""

import shutil
import subprocess
import sys
import sysconfig
import tempfile
from functools import cache
from importlib.machinery import ExtensionFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from typing import cast

import pytest

from relay.streams.group_write import SendAll

SOURCE = Path(__file__).parents[2] / "relay" / "streams" / "_native_write.c"
WARNINGS = ("-Wall", "-Wextra", "-Werror", "-Wno-missing-field-initializers")


@cache
def built_send_all() -> SendAll:
    """Build it and return its call; skip the test where there is no compiler."""
    compiler = shutil.which("cc")
    include = Path(sysconfig.get_path("include"))
    if compiler is None or not (include / "Python.h").is_file():
        pytest.skip("needs a C compiler and Python's headers")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, f"_native_write{sysconfig.get_config_var('EXT_SUFFIX')}")
        flags = ["-dynamiclib", "-undefined", "dynamic_lookup"] if sys.platform == "darwin" else ["-shared"]
        command = [compiler, "-O2", "-fPIC", *WARNINGS, *flags, f"-I{include}", "-o", str(file), str(SOURCE)]
        subprocess.run(command, check=True, capture_output=True, text=True)
        loader = ExtensionFileLoader("_native_write", str(file))
        spec = spec_from_loader("_native_write", loader)
        assert spec is not None
        module = module_from_spec(spec)
        loader.exec_module(module)
        return cast(SendAll, module.send_to_groups)
