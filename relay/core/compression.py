"""Compression and check sums: by ISA-L where there is a build of it, several times as fast, else by zlib.

Both write the same formats, and each reads what the other wrote.
"""

import zlib
from types import ModuleType

library: ModuleType
try:
    from isal import isal_zlib as library
except ImportError:
    library = zlib

crc32 = library.crc32

DEFLATE_WINDOW_BITS = 15
_LEVEL = 1
_GZIP = 16


def gzipped(data: bytes) -> bytes:
    """Return data as a gzip file, without a time."""
    packed: bytes = library.compress(data, _LEVEL, wbits=_GZIP + DEFLATE_WINDOW_BITS)
    return packed


def deflated(text: bytes) -> bytes:
    """Return the payload of a compressed message (permessage-deflate, RFC 7692), readable without any earlier one."""
    compressor = library.compressobj(_LEVEL, library.DEFLATED, -DEFLATE_WINDOW_BITS)
    payload: bytes = compressor.compress(text) + compressor.flush(library.Z_SYNC_FLUSH)
    return payload[:-4]
