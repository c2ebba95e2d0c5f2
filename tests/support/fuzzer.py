"""A hostile WebSocket client on raw sockets: seeded, so that each run sends the same, and it tells what came of it."""

import asyncio
import base64
import contextlib
import random
import socket
import struct
import zlib
from collections import Counter
from collections.abc import Callable
from typing import Any

import orjson

from tests.support.conditions import LONGEST_WAIT_S
from tests.support.contracts import check_message
from tests.support.websocket_cases import CASES

PATH = "/api/v1/market-data/ws"
RANDOM = "random bytes"
TEXT, BINARY, CLOSE, PING, PONG = 0x1, 0x2, 0x8, 0x9, 0xA

REQUESTS: list[dict[str, Any]] = [
    {"action": "subscribe", "symbol": "BTCUSDT", "interval": "1s", "bars": 3, "id": 1},
    {"action": "subscribe", "streams": ["ETHUSDT@1m", "EUR/USD@1h", "NOPE@1m"], "throttle_ms": 100, "id": "x"},
    {"action": "subscribe", "symbol": "binance:ETHUSDT", "interval": "1H", "since": 1_764_000_000, "closed_only": True},
    {"action": "unsubscribe", "symbol": "BTCUSDT", "interval": "1s"},
    {"action": "unsubscribe", "streams": ["ETHUSDT@1m"], "id": -1},
    {"action": "list", "id": 3},
    {"action": "ping"},
]
ODD: list[Any] = [
    None, True, False, 0, -1, 1.5, 1e308, -0.0, 2**53, 2**63, 2**64, -(2**63), "", " ", "a" * 500, "\0", "\u202e", "😀",
    "BTCUSDT", "BTCUSDT@1m", "@", "1m", "1M", "__proto__", "'; DROP TABLE candles; --", "../../etc/passwd", "%00", "{}",
    [], {}, [[]], [None], [{}], {"a": {"b": []}}, ["BTCUSDT@1m"] * 101, [1, "BTCUSDT@1m"], {"action": "ping"}, "LIST",
]  # fmt: skip


def frame(
    opcode: int, body: bytes, dice: random.Random, *, final: bool = True, reserved: int = 0, masked: bool = True
) -> bytes:
    """Build one frame as a client does, or as none should."""
    head = bytes([(0x80 if final else 0) | reserved << 4 | opcode])
    bit = 0x80 if masked else 0
    size = len(body)
    if size < 126:
        head += bytes([bit | size])
    elif size < 65_536:
        head += bytes([bit | 126]) + struct.pack("!H", size)
    else:
        head += bytes([bit | 127]) + struct.pack("!Q", size)
    if not masked:
        return head + body
    mask = dice.randbytes(4)
    spread = (mask * (size // 4 + 1))[:size]
    return head + mask + (int.from_bytes(body, "big") ^ int.from_bytes(spread, "big")).to_bytes(size, "big")


# -- what is sent ----------------------------------------------------------------------------------


def mutated(dice: random.Random) -> bytes:
    """Return a request that somebody has damaged: in its fields, its values, or its bytes."""
    request = dict(dice.choice(REQUESTS))
    for _ in range(dice.choice((0, 1, 1, 2, 4))):
        field = dice.choice([*request, "id", "bars", "since", "throttle_ms", "streams", "colour"])
        if dice.random() < 0.25:
            request.pop(field, None)
        else:
            request[field] = dice.choice(ODD)
    try:
        text = orjson.dumps(request)
    except TypeError:
        text = repr(request).encode("utf-8", "replace")
    way = dice.random()
    if way < 0.1:
        at = dice.randrange(len(text))
        text = text[:at] + dice.randbytes(1) + text[at + 1 :]
    elif way < 0.2:
        text = text[: dice.randrange(len(text))]
    elif way < 0.25:
        text = b"[" * dice.choice((1, 50, 1500)) + text
    elif way < 0.3:
        text = text.replace(b":", b":-", 1) + text
    return text


class Attack:
    """One thing to send. `breaks` tells that the relay has to close the connection because of it."""

    def __init__(self, name: str, build: Callable[[random.Random], bytes], *, breaks: bool) -> None:
        self.name = name
        self.build = build
        self.breaks = breaks


def _fragments(dice: random.Random) -> bytes:
    text = mutated(dice)
    cuts = sorted(dice.randrange(len(text) + 1) for _ in range(dice.randrange(1, 5))) if text else [0]
    parts = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    sent = b""
    for at, part in enumerate(parts):
        sent += frame(TEXT if at == 0 else 0, part, dice, final=at == len(parts) - 1)
        if at < len(parts) - 1 and dice.random() < 0.5:
            sent += frame(dice.choice((PING, PONG)), dice.randbytes(dice.randrange(126)), dice)
    return sent


def _length(opcode: int, size: int, dice: random.Random) -> bytes:
    """A head that promises `size` bytes, and few of them."""
    return bytes([0x80 | opcode, 0x80 | 127]) + struct.pack("!Q", size) + dice.randbytes(24)


def _deflated(dice: random.Random, body: bytes) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    packed = packer.compress(body) + packer.flush(zlib.Z_SYNC_FLUSH)
    return frame(TEXT, packed[:-4], dice, reserved=4)


def _close(dice: random.Random) -> bytes:
    body = dice.choice(
        [b"", b"\x03", struct.pack("!H", 1000), struct.pack("!H", 1005) + b"no", struct.pack("!H", 0),
         struct.pack("!H", 4999) + b"\xff\xfe", struct.pack("!H", 65_535), struct.pack("!H", 1000) + b"x" * 123]
    )  # fmt: skip
    return frame(CLOSE, body, dice)


def _text(*bodies: bytes) -> Callable[[random.Random], bytes]:
    return lambda dice: frame(TEXT, dice.choice(bodies), dice)


def _endless(dice: random.Random) -> bytes:
    return frame(TEXT, b"[", dice, final=False) + frame(0, b"[" * 125, dice, final=False) * 60


def _nested(dice: random.Random) -> bytes:
    return frame(TEXT, b"{", dice, final=False) + frame(TEXT, b"{}", dice)


def _any_of(*opcodes: int, size: int, reserved: tuple[int, ...] = (0,)) -> Callable[[random.Random], bytes]:
    return lambda dice: frame(
        dice.choice(opcodes), dice.randbytes(dice.randrange(size + 1)), dice, reserved=dice.choice(reserved)
    )


# What is compressed is read by those who agreed to it; there half a character waits for its other half.
_JUDGED = [case.sent for case in CASES if case.breaks and not case.is_compressed and not case.is_first_bit]
_GOOD = [case.sent for case in CASES if case.messages and not case.breaks and not case.is_compressed]
_COMPRESSED = [case.sent for case in CASES if case.is_compressed or case.is_first_bit]

ATTACKS = [
    Attack("mutated JSON", lambda dice: frame(TEXT, mutated(dice), dice), breaks=False),
    Attack("fragments with control frames between", _fragments, breaks=False),
    Attack("ping or pong", _any_of(PING, PONG, size=125), breaks=False),
    Attack("binary", _any_of(BINARY, size=300), breaks=False),
    Attack("4,096 bytes", _text(b'{"action":"ping","x":"' + b"y" * 4072 + b'"}'), breaks=False),
    Attack("empty message", _text(b""), breaks=False),
    Attack("4,097 bytes", _text(b'{"action":"ping","x":"' + b"y" * 4073 + b'"}'), breaks=True),
    Attack("100,000 bytes", _text(b"z" * 100_000), breaks=True),
    Attack("fragments without end", _endless, breaks=True),
    Attack("reserved bits", _any_of(TEXT, BINARY, PING, size=20, reserved=(1, 2, 3, 5, 6, 7)), breaks=True),
    Attack("reserved opcode", _any_of(3, 4, 5, 6, 7, 11, 12, 13, 14, 15, size=20), breaks=True),
    Attack("unmasked", lambda dice: frame(TEXT, mutated(dice), dice, masked=False), breaks=True),
    Attack("bad UTF-8", _text(b"\xff", b'{"a":"\xc3("}', b"\xed\xa0\x80"), breaks=True),
    Attack("long control frame", lambda dice: frame(PING, b"p" * dice.choice((126, 5000)), dice), breaks=True),
    Attack("fragmented control frame", lambda dice: frame(PING, b"p", dice, final=False), breaks=True),
    Attack("continuation of nothing", lambda dice: frame(0, b"{}", dice), breaks=True),
    Attack("message within a message", _nested, breaks=True),
    Attack("length of 2^40 and more", lambda dice: _length(TEXT, 1 << dice.choice((40, 62, 63)), dice), breaks=True),
    Attack("deflate bit", lambda dice: _deflated(dice, mutated(dice)), breaks=False),
    # Some garbage can be inflated, and then it is no JSON.
    Attack("deflate bit, garbage", _any_of(TEXT, size=60, reserved=(4,)), breaks=False),
    Attack("deflate bomb", lambda dice: _deflated(dice, b"[" * 3_000_000), breaks=True),
    Attack("close", _close, breaks=True),
    Attack("a case of the conformance suite that breaks", lambda dice: dice.choice(_JUDGED), breaks=True),
    Attack("a case of the conformance suite", lambda dice: dice.choice(_GOOD), breaks=False),
    Attack("a case of the conformance suite, compressed", lambda dice: dice.choice(_COMPRESSED), breaks=False),
    Attack(RANDOM, lambda dice: dice.randbytes(dice.randrange(1, 400)), breaks=False),
]
_WEIGHTS = [60, 12, 6, 6, 1, 3, *[1] * (len(ATTACKS) - 10), 10, 12, 1, 1]


# -- who sends it ----------------------------------------------------------------------------------


class Fuzzer:
    """Sends frames over one connection after the other, and reads all that comes back."""

    def __init__(self, host: str, port: int, seed: object) -> None:
        self.outcomes: Counter[tuple[str, str]] = Counter()
        self.frames = 0
        self.connections = 0
        self.answers: Counter[str] = Counter()
        self._address = (host, port)
        self._dice = random.Random(f"fuzz {seed}")

    async def run(self, frames: int) -> None:
        """Send so many frames. Raises `AssertionError` when the relay answers something that no client could read."""
        goal = self.frames + frames
        while self.frames < goal:
            await self._connection(goal)

    async def _connection(self, goal: int) -> None:
        dice = self._dice
        self.connections += 1
        reader, writer = await asyncio.open_connection(*self._address)
        try:
            if not await self._handshake(reader, writer):
                return
            listener = asyncio.create_task(self._listen(reader))
            attack = ATTACKS[0]
            for _ in range(dice.randrange(1, 150)):
                if listener.done() or self.frames >= goal:
                    break
                attack = dice.choices(ATTACKS, _WEIGHTS)[0]
                await self._send(writer, attack)
                if attack.breaks or attack.name == RANDOM:
                    # Random bytes may begin a frame, and what follows be its end: then nothing has to happen.
                    break
            await self._leave(attack, listener, writer)
        finally:
            writer.transport.abort()

    async def _handshake(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Open a WebSocket, sometimes badly; tell whether there is one."""
        dice = self._dice
        lines = [
            f"GET {PATH} HTTP/1.1",
            "Host: 127.0.0.1",
            "Upgrade: websocket",
            "Connection: Upgrade",
            "Sec-WebSocket-Version: 13",
            f"Sec-WebSocket-Key: {base64.b64encode(dice.randbytes(16)).decode()}",
        ]
        if dice.random() < 0.5:
            lines.append("Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits")
        is_bad = dice.random() < 0.05
        if is_bad:
            at = dice.randrange(len(lines))
            lines[at] = dice.choice(("", "X", lines[at] + "\x01", lines[at] * 300, "Content-Length: 5"))
        request = ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
        if is_bad and dice.random() < 0.5:
            request = request[: dice.randrange(1, len(request))]
            writer.write(request)
            self.outcomes["half a handshake", "left"] += 1
            return False
        writer.write(request)
        try:
            async with asyncio.timeout(LONGEST_WAIT_S):
                answer = await reader.readuntil(b"\r\n\r\n")
        except (asyncio.IncompleteReadError, ConnectionError):
            answer = b""
        if b" 101 " not in answer.partition(b"\r\n")[0]:
            assert is_bad, answer
            self.outcomes["bad handshake", answer[9:12].decode() or "closed"] += 1
            return False
        return True

    async def _send(self, writer: asyncio.StreamWriter, attack: Attack) -> None:
        data = attack.build(self._dice)
        self.frames += 1
        with contextlib.suppress(OSError):
            if self._dice.random() < 0.1:
                # In two pieces, so that the relay sees a half.
                cut = self._dice.randrange(len(data) + 1)
                writer.write(data[:cut])
                await asyncio.sleep(0)
                data = data[cut:]
            writer.write(data)
            await writer.drain()

    async def _leave(self, attack: Attack, listener: "asyncio.Task[str]", writer: asyncio.StreamWriter) -> None:
        """Wait for the relay to close where it has to; else go, politely or not."""
        dice = self._dice
        if attack.breaks and dice.random() < 0.9:
            try:
                async with asyncio.timeout(LONGEST_WAIT_S):
                    self.outcomes[attack.name, await asyncio.shield(listener)] += 1
                return
            except TimeoutError:
                self.outcomes[attack.name, "goes on"] += 1
        way = dice.choice(("FIN", "RST", "half a frame", "close frame"))
        with contextlib.suppress(OSError):
            if way == "half a frame":
                data = frame(TEXT, mutated(dice), dice)
                writer.write(data[: dice.randrange(1, len(data))])
            elif way == "close frame":
                writer.write(frame(CLOSE, struct.pack("!H", 1000), dice))
            elif way == "RST":
                sock = writer.get_extra_info("socket")
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            await writer.drain()
        if listener.done():
            self.outcomes["any", listener.result()] += 1
        else:
            self.outcomes["any", f"left by {way}"] += 1
            listener.cancel()
            await asyncio.gather(listener, return_exceptions=True)

    async def _listen(self, reader: asyncio.StreamReader) -> str:
        """Read what the relay sends, hold it against the contract, and tell how it ended."""
        try:
            while True:
                first, second = await reader.readexactly(2)
                size = second
                assert second < 128, "the relay masked a frame"
                if second == 126:
                    (size,) = struct.unpack("!H", await reader.readexactly(2))
                elif second == 127:
                    (size,) = struct.unpack("!Q", await reader.readexactly(8))
                body = await reader.readexactly(size)
                assert first & 0x80, "the relay fragmented a message"
                if first & 0x0F == CLOSE:
                    return f"close {struct.unpack('!H', body[:2])[0]}" if body else "close"
                if first & 0x0F == TEXT:
                    text = zlib.decompressobj(-15).decompress(body + b"\0\0\xff\xff") if first & 0x40 else body
                    message = orjson.loads(text)
                    check_message(message)
                    self.answers[message.get("code") or message["type"]] += 1
                else:
                    assert first & 0x0F in (PING, PONG), first
        except (asyncio.IncompleteReadError, ConnectionError):
            return "cut off"
