"""Compression: what either library writes, zlib reads, and what one stored, the other finds right."""

import gzip
import subprocess
import sys
import zlib
from importlib.util import find_spec

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.core import compression

TEXT = b'{"time":1764000000,"open":1.5,"high":2.0,"low":1.0,"close":1.75,"volume":12.5},' * 40
WITHOUT = "import sys; sys.modules['isal'] = None\n"
SAYS = f"""from relay.core import compression
text = {TEXT!r}
out = [compression.library.__name__, compression.crc32(text), compression.gzipped(text), compression.deflated(text)]
print(repr(out))
"""


@given(st.binary(max_size=5000), st.integers(1, 4))
def test_what_is_packed_is_read_by_zlib(data: bytes, times: int) -> None:
    data *= times
    assert gzip.decompress(compression.gzipped(data)) == data
    assert zlib.decompressobj(-15).decompress(compression.deflated(data) + b"\0\0\xff\xff") == data
    assert compression.crc32(data[:7]) == zlib.crc32(data[:7])
    assert compression.crc32(data, 17) == zlib.crc32(data, 17)


@pytest.mark.parametrize("before", ["", WITHOUT], ids=["as installed", "without isal"])
def test_either_library_does(before: str) -> None:
    done = subprocess.run([sys.executable, "-c", before + SAYS], capture_output=True, text=True, check=True)
    name, check, packed, payload = eval(done.stdout)
    assert name == ("isal.isal_zlib" if not before and find_spec("isal") else "zlib")
    assert check == zlib.crc32(TEXT)
    assert gzip.decompress(packed) == TEXT
    assert len(packed) < len(TEXT) / 10
    assert zlib.decompressobj(-15).decompress(payload + b"\0\0\xff\xff") == TEXT
