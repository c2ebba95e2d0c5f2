"""Harms the process when its instruments are asked for: the loop, with threads, with tasks of its own."""

import asyncio
import threading
import time

from relay import API_VERSION, Instrument, ProviderInfo, Setting, hookimpl

HOW = ("stop", "exit", "interrupt", "threads", "executor", "task")
KEPT = []


async def leave(kind):
    raise kind("leaves a task")


async def stay():
    while True:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            continue


@hookimpl
def relay_provider():
    settings = (Setting("how", "choice", "stop", choices=HOW),)
    return ProviderInfo("harms", API_VERSION, "Harms", ("demo",), ("1m",), settings=settings)


@hookimpl
async def relay_instruments(settings):
    loop = asyncio.get_running_loop()
    if not KEPT:
        match settings["how"]:
            case "stop":
                KEPT.append(loop.stop())
            case "exit":
                KEPT.append(asyncio.create_task(leave(SystemExit)))
            case "interrupt":
                KEPT.append(asyncio.create_task(leave(KeyboardInterrupt)))
            case "threads":
                KEPT.extend(threading.Thread(target=threading.Event().wait) for _ in range(300))
                for thread in KEPT:
                    thread.start()
            case "executor":
                KEPT.extend(loop.run_in_executor(None, time.sleep, 3600) for _ in range(64))
            case "task":
                KEPT.append(asyncio.create_task(stay(), name="stays"))
    await asyncio.sleep(0.1)
    return [Instrument("X", "demo", "X", "USD")]


@hookimpl
async def relay_stream():
    await asyncio.Event().wait()
    yield
