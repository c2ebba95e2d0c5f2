"""A throttled subscription: few updates, and always the last."""

import time

from tests.support.running_relay import Running
from tests.support.sandbox import Sandbox
from tests.support.transports import Transport


async def test_throttled_client_gets_few_updates_and_always_the_last(
    relay: Running, sandbox: Sandbox, over: Transport
) -> None:
    plain, throttled = await over.subscriber(relay, "BTCUSDT@1d"), await over.reader(relay)
    began = time.monotonic()
    await throttled.subscribe("BTCUSDT@1d", throttle_ms=700)
    for _ in range(12):
        await plain.update()
    sandbox.binance.faults.mute()
    await plain.settle()
    newest = plain.updates[-1]["seq"]
    last = await throttled.update(seq=newest)
    most = (time.monotonic() - began) / 0.7 + 2
    assert last["candle"] == plain.updates[-1]["candle"]
    seqs = [message["seq"] for message in throttled.updates]
    assert seqs == sorted(set(seqs))
    assert len(seqs) <= most


async def test_candle_that_a_throttled_client_is_sent_at_once_is_its_first_update(
    relay: Running, over: Transport
) -> None:
    plain = await over.subscriber(relay, "BTCUSDT@1d")
    await plain.update()
    throttled = await over.subscriber(relay, "BTCUSDT@1d", throttle_ms=60_000)
    first = await throttled.update()
    for _ in range(4):
        assert (await plain.update())["is_closed"] is False
    await throttled.settle()
    assert throttled.updates == [first]


async def test_held_update_survives_a_change_of_options(relay: Running, sandbox: Sandbox) -> None:
    plain, throttled = await relay.connect(), await relay.connect()
    await plain.subscribe("BTCUSDT@1d")
    await throttled.subscribe("BTCUSDT@1d", throttle_ms=60_000)
    for _ in range(4):
        await plain.update()
    sandbox.binance.faults.mute()
    await plain.settle()
    newest = plain.updates[-1]["seq"]
    await throttled.subscribe("BTCUSDT@1d")
    assert await throttled.seen("price_update", seq=newest)
