"""What a conformance suite of WebSockets asks a server: bytes that clients send, and what they have to come to."""

import itertools
import struct
import zlib
from collections.abc import Iterator
from typing import NamedTuple

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
BINARY_READ = (BINARY,)
MASK = b"\x37\xfa\x21\x3d"


def client_frame(
    opcode: int,
    body: bytes = b"",
    *,
    final: bool = True,
    reserved: int = 0,
    masked: bool = True,
    width: int | None = None,
) -> bytes:
    """Return a frame as a client sends it, or as none should; `width` is that of its length: 7, 16 or 64 bits."""
    size = len(body)
    if width is None:
        width = 7 if size < 126 else 16 if size < 1 << 16 else 64
    head = bytes([(0x80 if final else 0) | reserved << 4 | opcode])
    bit = 0x80 if masked else 0
    if width == 7:
        head += bytes([bit | size])
    elif width == 16:
        head += bytes([bit | 126]) + struct.pack("!H", size)
    else:
        head += bytes([bit | 127]) + struct.pack("!Q", size)
    if not masked:
        return head + body
    return head + MASK + bytes(byte ^ MASK[at % 4] for at, byte in enumerate(body))


def fragments(opcode: int, *bodies: bytes) -> bytes:
    """Return one message in so many frames."""
    last = len(bodies) - 1
    return b"".join(
        client_frame(opcode if at == 0 else CONTINUATION, body, final=at == last) for at, body in enumerate(bodies)
    )


def deflated(body: bytes) -> bytes:
    """Return the payload of a compressed message."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    return (packer.compress(body) + packer.flush(zlib.Z_SYNC_FLUSH))[:-4]


def closing(code: int, reason: bytes = b"") -> bytes:
    """Return a close frame."""
    return client_frame(CLOSE, struct.pack("!H", code) + reason)


class Case(NamedTuple):
    """What is sent, and the messages that it holds, as the reader hands them on.

    A message is a text, `BINARY_READ`, `(PING, body)`, `(PONG,)`, or the last: `(CLOSE, code)` that the client sent, or
    the code alone with which the relay has to close. `by_aiohttp` is what its reader makes of it, where that differs.
    """

    name: str
    sent: bytes
    messages: tuple[object, ...]
    by_aiohttp: tuple[object, ...] | None = None
    is_compressed: bool = False

    @property
    def is_first_bit(self) -> bool:
        """Whether the first reserved bit alone is set, which says that a message is compressed."""
        return self.sent[0] & 0x70 == 0x40 or self.name.startswith("reserved bits 4")

    @property
    def breaks(self) -> bool:
        """Whether the relay has to close the connection."""
        last = self.messages[-1:] or ("",)
        return isinstance(last[0], int) or (isinstance(last[0], tuple) and last[0][0] == CLOSE)


EURO = "κόσμε €😀"
OK_TEXT = '{"action":"ping","id":"' + EURO + '"}'
BAD_UTF8 = {
    "a lone continuation byte": b"\x80",
    "half a character": b"\xc3",
    "half a character in the middle": b"\xe2\x82x",
    "an overlong slash": b"\xc0\xaf",
    "an overlong zero": b"\xe0\x80\x80",
    "a surrogate": b"\xed\xa0\x80",
    "above U+10FFFF": b"\xf4\x90\x80\x80",
    "five bytes": b"\xf8\x88\x80\x80\x80",
    "byte ff": b"\xff",
}
GOOD_CODES = (1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999)
BAD_CODES = (0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999)
UNKNOWN_CODES = (5000, 65_535)


def _fragmented() -> Iterator[Case]:
    text = OK_TEXT.encode()
    yield Case("two fragments", fragments(TEXT, text[:9], text[9:]), (OK_TEXT,))
    yield Case("a fragment a byte", fragments(TEXT, *(bytes([byte]) for byte in text)), (OK_TEXT,))
    yield Case("empty fragments around", fragments(TEXT, b"", text, b"", b""), (OK_TEXT,))
    yield Case("only empty fragments", fragments(TEXT, b"", b"", b""), ("",))
    yield Case("fragments of binary", fragments(BINARY, b"\xff", b"\0", b""), (BINARY_READ,))
    begin, end = client_frame(TEXT, b"{", final=False), client_frame(CONTINUATION, b"}")
    ping = client_frame(PING, b"are you there")
    yield Case("a ping between fragments", begin + ping + end, ((PING, b"are you there"), "{}"))
    yield Case("pings and pongs between fragments", begin + ping + client_frame(PONG) + ping + end,
               ((PING, b"are you there"), (PONG,), (PING, b"are you there"), "{}"))  # fmt: skip
    yield Case("a close frame between fragments", begin + closing(1000), ((CLOSE, 1000),))
    yield Case("a text within a text", begin + client_frame(TEXT, b"{}"), (1002,))
    yield Case("a binary within a text", begin + client_frame(BINARY, b"{}"), (1002,))
    yield Case("a fragmented text within a text", begin + begin, (1002,))
    yield Case("a text after an empty fragment", client_frame(TEXT, final=False) + client_frame(TEXT, b"{}"), (1002,),
               by_aiohttp=("{}",))  # fmt: skip
    yield Case("a continuation of nothing", end, (1002,))
    yield Case("a continuation of nothing that goes on", client_frame(CONTINUATION, b"{", final=False), (1002,))
    yield Case("a continuation of a whole message", client_frame(TEXT, b"{}") + end, ("{}", 1002))
    for opcode, name in ((PING, "ping"), (PONG, "pong"), (CLOSE, "close")):
        yield Case(f"a fragmented {name}", client_frame(opcode, b"\x03\xe8", final=False), (1002,))
        yield Case(f"a fragmented {name} within a text", begin + client_frame(opcode, final=False), (1002,))


def _utf8() -> Iterator[Case]:
    text = OK_TEXT.encode()
    for at in range(len(text) + 1):
        yield Case(f"UTF-8 split at {at}", fragments(TEXT, text[:at], text[at:]), (OK_TEXT,))
    for name, bad in BAD_UTF8.items():
        yield Case(f"UTF-8 with {name}", client_frame(TEXT, b"ok " + bad), (1007,))
        yield Case(f"after a good one, UTF-8 with {name}", client_frame(TEXT) + client_frame(TEXT, bad), ("", 1007))
        for at in range(len(bad) + 1):
            yield Case(f"UTF-8 with {name}, split at {at}", fragments(TEXT, bad[:at], bad[at:]), (1007,))
        is_half = name == "half a character"
        yield Case(f"the beginning of a text, UTF-8 with {name}", client_frame(TEXT, bad, final=False),
                   () if is_half else (1007,), by_aiohttp=())  # fmt: skip
        yield Case(f"a reason with {name}", closing(1000, bad), (1007,))
    yield Case("binary that is no text", client_frame(BINARY, b"\xff\xfe"), (BINARY_READ,))
    for last in ("\ud7ff", "\ue000", "\uffff", "\U0010ffff", "\0"):
        yield Case(f"UTF-8 of {last!a}", client_frame(TEXT, last.encode()), (last,))


def _closes() -> Iterator[Case]:
    for code in GOOD_CODES:
        yield Case(f"close with {code}", closing(code, b"why"), ((CLOSE, code),))
    for code in BAD_CODES:
        yield Case(f"close with {code}", closing(code), (1002,), by_aiohttp=((CLOSE, 1006),) if code == 1006 else None)
    for code in UNKNOWN_CODES:
        yield Case(f"close with {code}", closing(code), (1002,), by_aiohttp=((CLOSE, code),))
    yield Case("close with nothing", client_frame(CLOSE), ((CLOSE, 1005),))
    yield Case("close with a byte", client_frame(CLOSE, b"\x03"), (1002,))
    yield Case("close with the longest reason", closing(1000, b"x" * 123), ((CLOSE, 1000),))
    yield Case("close with a reason that is too long", closing(1000, b"x" * 124), (1002,))
    yield Case("nothing after a close", closing(1000) + client_frame(TEXT, b"{}"), ((CLOSE, 1000),),
               by_aiohttp=((CLOSE, 1000), "{}"))  # fmt: skip
    yield Case("a text before a close", client_frame(TEXT, b"{}") + closing(1001), ("{}", (CLOSE, 1001)))


def _reserved() -> Iterator[Case]:
    kinds = {TEXT: "text", BINARY: "binary", PING: "ping", PONG: "pong", CLOSE: "close frame"}
    for bits, (opcode, name) in itertools.product(range(1, 8), kinds.items()):
        yield Case(f"reserved bits {bits} in a {name}", client_frame(opcode, reserved=bits), (1002,))
    for bits in range(1, 8):
        yield Case(f"reserved bits {bits} in a continuation",
                   client_frame(TEXT, final=False) + client_frame(CONTINUATION, reserved=bits), (1002,))  # fmt: skip
    for opcode in (*range(3, 8), *range(11, 16)):
        yield Case(f"opcode {opcode}", client_frame(opcode), (1002,))
        yield Case(f"opcode {opcode} after a text", client_frame(TEXT) + client_frame(opcode, b"x"), ("", 1002))


def _lengths() -> Iterator[Case]:
    for size in (0, 1, 125, 126, 127, 4096):
        yield Case(f"a text of {size} bytes", client_frame(TEXT, b"x" * size), ("x" * size,))
    # RFC 6455 section 5.2 wants the shortest form of a sender, and no reader has to look.
    for size, width in ((5, 16), (5, 64), (300, 64)):
        yield Case(f"{size} bytes in {width} bits", client_frame(TEXT, b"x" * size, width=width), ("x" * size,))
    for size in (4097, 65_535, 65_536):
        yield Case(f"a text of {size} bytes", client_frame(TEXT, b"x" * size), (1009,))
    for size in (1 << 31, 1 << 62, (1 << 63) - 1, 1 << 63, (1 << 64) - 1):
        yield Case(f"the head of a text of {size} bytes", b"\x81\xff" + struct.pack("!Q", size) + MASK, (1009,))
    yield Case("fragments that are too much together", fragments(TEXT, b"x" * 4000, b"x" * 97), (1009,))


def _control() -> Iterator[Case]:
    for size in (0, 1, 125):
        body = bytes(range(size))
        yield Case(f"a ping of {size} bytes", client_frame(PING, body), ((PING, body),))
        yield Case(f"a pong of {size} bytes", client_frame(PONG, body), ((PONG,),))
    for size in (126, 4000):
        yield Case(f"a ping of {size} bytes", client_frame(PING, bytes(size)), (1002,))
        yield Case(f"a pong of {size} bytes", client_frame(PONG, bytes(size)), (1002,))
    pings = [bytes([at]) for at in range(10)]
    yield Case("ten pings", b"".join(client_frame(PING, body) for body in pings), tuple((PING, body) for body in pings))
    yield Case("an empty text and an empty binary", client_frame(TEXT) + client_frame(BINARY), ("", BINARY_READ))


def _unmasked() -> Iterator[Case]:
    """aiohttp does not look for masks."""
    text = client_frame(TEXT, b"{}")
    read: dict[int, tuple[str, object]] = {
        TEXT: ("text", ""),
        BINARY: ("binary", BINARY_READ),
        PING: ("ping", (PING, b"")),
        PONG: ("pong", (PONG,)),
        CLOSE: ("close frame", (CLOSE, 1005)),
    }
    for opcode, (name, message) in read.items():
        bad = client_frame(opcode, masked=False)
        yield Case(f"a {name} without a mask", bad, (1002,), by_aiohttp=(message,))
        yield Case(f"a {name} without a mask after a text", text + bad, ("{}", 1002), by_aiohttp=("{}", message))
    within = client_frame(TEXT, b"{", final=False) + client_frame(CONTINUATION, b"}", masked=False)
    yield Case("a continuation without a mask", within, (1002,), by_aiohttp=("{}",))
    long = client_frame(TEXT, b" " * 256, masked=False)
    yield Case("a long text without a mask", long, (1002,), by_aiohttp=(" " * 256,))


def _compressed() -> Iterator[Case]:
    text, packed = OK_TEXT, deflated(OK_TEXT.encode())
    rest = (*client_frame(CONTINUATION, packed[9:]),)
    yield Case("a compressed text", client_frame(TEXT, packed, reserved=4), (text,))
    yield Case("two of them", client_frame(TEXT, packed, reserved=4) * 2, (text, text))
    yield Case("a plain text", client_frame(TEXT, b"{}"), ("{}",))
    yield Case("a compressed text in fragments",
               client_frame(TEXT, packed[:9], final=False, reserved=4) + client_frame(PING) + bytes(rest),
               ((PING, b""), text))  # fmt: skip
    yield Case("the bit in a continuation", client_frame(TEXT, packed[:9], final=False, reserved=4)
               + client_frame(CONTINUATION, packed[9:], reserved=4), (1002,))  # fmt: skip
    yield Case("other bits", client_frame(TEXT, packed, reserved=6), (1002,))
    yield Case("compressed, and no text", client_frame(TEXT, deflated(b"\xff"), reserved=4), (1007,))
    yield Case("what cannot be unpacked", client_frame(TEXT, b"\xff\xff\xff", reserved=4), (1002,))
    yield Case("4,096 bytes", client_frame(TEXT, deflated(b"x" * 4096), reserved=4), ("x" * 4096,))
    for size in (4098, 1_000_000):
        yield Case(f"{size:,} bytes", client_frame(TEXT, deflated(b"x" * size), reserved=4), (1009,))


def _all() -> Iterator[Case]:
    yield from itertools.chain(_fragmented(), _utf8(), _closes(), _reserved(), _lengths(), _control(), _unmasked())
    for case in _compressed():
        yield case._replace(name=f"compressed: {case.name}", is_compressed=True)


CASES = list(_all())
