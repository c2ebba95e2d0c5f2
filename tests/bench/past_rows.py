"""Times warm klines of the facade for Binance's programs against the relay's own history of the same rows.

`python -m tests.bench.past_rows` prints a table for README.md here. A relay, a stand-in and a client share the process,
and both kinds of requests alternate over one connection each hundred, so that whatever else the machine does concerns
both; CPU time of the process is told, the client's part included.
"""

import argparse
import asyncio
import statistics
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from urllib.parse import urlsplit

from tests.support.running_relay import start_relay
from tests.support.sandbox import Sandbox

ROWS = 500
BATCH = 100
MINUTE_S = 60

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def ask(connection: Connection, request: bytes) -> None:
    """Ask over a connection that stays open, and read the answer. Raises AssertionError if it is none."""
    reader, writer = connection
    writer.write(request)
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    assert head.startswith(b"http/1.1 200"), head
    length = head.partition(b"content-length:")[2].partition(b"\r\n")[0]
    await reader.readexactly(int(length))


async def cpu_us(connection: Connection, requests: Sequence[bytes]) -> float:
    """Return the CPU time of the process for each of these requests."""
    began = time.process_time()
    for request in requests:
        await ask(connection, request)
    return (time.process_time() - began) / len(requests) * 1e6


async def measure(rounds: int) -> None:
    """Ask for ranges that nobody asked for before, and for one again and again; print what each took."""
    async with AsyncExitStack() as stack:
        sandbox = await stack.enter_async_context(Sandbox())
        relay = await start_relay(sandbox)
        stack.push_async_callback(relay.close)
        place = urlsplit(relay.url)
        connection = await asyncio.open_connection(place.hostname, place.port, limit=1 << 20)
        stack.callback(connection[1].close)
        last = sandbox.binance.now_ms() // 1000 // MINUTE_S * MINUTE_S - 86_400
        count = (rounds + 1) * BATCH

        def requests(path: str, unit: str) -> list[bytes]:
            ends = [last - number * MINUTE_S for number in range(count)]
            paths = [path.format(f"{end - (ROWS - 1) * MINUTE_S}{unit}", f"{end}{unit}") for end in ends]
            return [f"GET {one}&limit={ROWS} HTTP/1.1\r\nHost: {place.netloc}\r\n\r\n".encode() for one in paths]

        both = {
            "history": requests("/api/v1/market-data/history?symbol=BTCUSDT&interval=1m&start_time={}&end_time={}", ""),
            "klines": requests("/api/v3/klines?symbol=BTCUSDT&interval=1m&startTime={}&endTime={}", "000"),
        }
        for of_one in both.values():
            # All rows are in memory then, in both forms.
            for request in of_one[::BATCH] + of_one[:BATCH]:
                await ask(connection, request)
        print("| 500 rows of the past | `history` | `klines` | history / klines |\n| --- | ---: | ---: | ---: |")
        for what, is_same in (("another range each time", False), ("the same range each time", True)):
            times: dict[str, list[float]] = {name: [] for name in both}
            for number in range(1, rounds + 1):
                for name, of_one in both.items():
                    batch = of_one[:1] * BATCH if is_same else of_one[number * BATCH : (number + 1) * BATCH]
                    times[name].append(await cpu_us(connection, batch))
            ours, theirs = (statistics.median(times[name]) for name in ("history", "klines"))
            print(f"| {what} | {ours:.0f} µs | {theirs:.0f} µs | {ours / theirs:.2f} |")


def main() -> None:
    """Read the command line and measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=25)
    asyncio.run(measure(parser.parse_args().rounds))


if __name__ == "__main__":
    main()
