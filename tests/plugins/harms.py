"""Harms the process when it is called first: the loop, with threads, with tasks of its own, with signals.

`how` says in which ways, one after the other.
"""

import asyncio
import signal
import threading
import time
from pathlib import Path

from relay import Instrument, ProviderInfo, Setting, hookimpl

BEGUN = []
KEPT = []


async def leave(kind):
    raise kind("leaves a task")


def fail():
    raise ValueError("in a callback")


def fail_later():
    raise ValueError("in a timer")


def drop(work):
    asyncio.create_task(work)  # noqa: RUF006 - that nobody keeps it is the harm


async def stay():
    while True:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            continue


def exit_always():
    asyncio.get_running_loop().call_soon(exit_always)
    raise SystemExit("in every round")


async def task_always():
    KEPT.append(asyncio.create_task(task_always()))
    del KEPT[:-1]
    raise SystemExit("in every round")


def block_once(file):
    if file.exists():
        time.sleep(3600)
    KEPT[:] = [asyncio.get_running_loop().call_later(0.05, block_once, file)]


def thread_always():
    loop = asyncio.get_running_loop()
    loop.call_soon_threadsafe(thread_always)
    raise SystemExit("in every round")


def stop_always():
    loop = asyncio.get_running_loop()
    loop.call_soon(stop_always)
    loop.stop()


async def harm(how):
    loop = asyncio.get_running_loop()
    match how:
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
        case "stop_always":
            KEPT.append(loop.call_soon(stop_always))
        case "exit_always":
            KEPT.append(loop.call_soon(exit_always))
        case "thread_always":
            KEPT.append(loop.call_soon_threadsafe(thread_always))
        case "task_always":
            KEPT.append(asyncio.create_task(task_always()))
        case "shut":
            await loop.shutdown_default_executor()
        case "own_executor":
            loop.set_default_executor(None)
        case "factory":
            loop.set_task_factory(print)
        case "handler":
            loop.set_exception_handler(print)
        case "generators":
            await loop.shutdown_asyncgens()
        case "close":
            loop.close()
        case "term":
            loop.add_signal_handler(signal.SIGTERM, print)
        case "signal":
            KEPT.append(signal.signal(signal.SIGTERM, signal.SIG_IGN))
        case "raise_soon":
            KEPT.append(loop.call_soon(fail))
        case "raise_later":
            KEPT.append(loop.call_later(0.05, fail_later))
        case "raise_in_task":
            drop(leave(ValueError))
        case "block":
            # Not before it serves: the test says when.
            block_once(Path("block"))
        case "task":
            KEPT.append(asyncio.create_task(stay(), name="stays"))
        case _:
            raise ValueError(how)


@hookimpl
def relay_provider():
    return ProviderInfo("harms", 2, "Harms", ("demo",), ("1m",), settings=(Setting("how", "list", ("stop",)),))


@hookimpl
async def relay_instruments(settings):
    if not BEGUN:
        BEGUN.append(True)
        refused = None
        for how in settings["how"]:
            try:
                await harm(how)
            except RuntimeError as error:
                refused = error
        if refused is not None:
            raise refused
    await asyncio.sleep(0.1)
    return [Instrument("X", "demo", "X", "USD")]


@hookimpl
async def relay_stream():
    await asyncio.Event().wait()
    yield
