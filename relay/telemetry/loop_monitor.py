"""How late the event loop runs what is due, and, from a thread of its own, whose code blocks it."""

import asyncio
import logging
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import FrameType, MappingProxyType
from typing import Any, NamedTuple, Self

from relay.telemetry.events import event
from relay.telemetry.histogram import LAG_BOUNDS_S, Histogram

log = logging.getLogger(__name__)

BEAT_S = 0.25
BLOCKED_S = 1.0
"""A loop that has not beaten for so long is blocked."""
RECENT_S = 60.0

_IDLE_FILES = ("selectors.py", "runners.py", "base_events.py")
_HOSTS = {"relay.plugins.hook_calls": "HookCalls.", "relay.plugins.judged_feed": "JudgedFeeds."}
"""The modules and classes that call a plugin; their `self` knows for whom, by `name`."""
_JOINED = " and "


class CodePlace(NamedTuple):
    """Where the loop's thread is: the provider (or source of a wrapper) it runs for, if any, and the line."""

    owner: str | None
    function: str
    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.function} ({self.file}, line {self.line})"


class Blocks:
    """How often and for how long one provider blocked the loop, and where it did so last."""

    def __init__(self) -> None:
        self.count = 0
        self.longest_s = 0.0
        self.last: CodePlace | None = None
        self.last_at = 0.0

    def told(self) -> dict[str, Any]:
        """Return it as the status shows it."""
        last = None if self.last is None else {"time": round(self.last_at, 3), "place": str(self.last)}
        return {"count": self.count, "longest_s": round(self.longest_s, 2), "last": last}


def waits_for_processor(thread: int) -> Callable[[], float]:
    """Return how to read the seconds that a thread waited for a processor; always 0 where the system does not say.

    `thread` is its native id.
    """
    path = f"/proc/self/task/{thread}/schedstat"

    def waited_s() -> float:
        try:
            with open(path, "rb") as file:
                return int(file.read().split()[1]) / 1e9
        except (OSError, IndexError):
            return 0.0

    return waited_s


class LoopMonitor:
    """Watches the running loop while it is entered; nothing is added to what the loop does but a beat now and then.

    `lateness` are the delays of its beats. `longest_blocked_s` is the longest time that nothing else could run by the
    loop's own doing: told by a thread that ticks beside it and by the CPU time that the loop used, so that a pause of
    the whole process counts little. A loop that does not beat for `blocked_s` is blocked: `owner_of` names whom a file
    belongs to, and what is noticed of an owner is counted in `blocks`, if it is there.

    On a machine with too much to do the loop's thread waits while other programs run; nobody's code blocks it then.
    `processor_waits` returns, for a thread, how to read the seconds that it waited so.
    """

    def __init__(
        self,
        owner_of: Callable[[str], str | None] = lambda file: None,
        blocks: Mapping[str, Blocks] = MappingProxyType({}),
        *,
        beat_s: float = BEAT_S,
        tick_s: float = BEAT_S,
        blocked_s: float = BLOCKED_S,
        wall: Callable[[], float] | None = None,
        processor_waits: Callable[[int], Callable[[], float]] = waits_for_processor,
    ) -> None:
        self.lateness = Histogram(LAG_BOUNDS_S)
        self.longest_blocked_s = 0.0
        self._recent: deque[float] = deque(maxlen=round(RECENT_S / beat_s))
        self._beat_s, self._tick_s, self._blocked_s = beat_s, tick_s, blocked_s
        self._blocks = blocks
        self._owner_of = owner_of
        self._wall = wall or time.time
        self._processor_waits = processor_waits
        self._told: set[CodePlace] = set()
        self._noticed: list[Blocks] = []
        self._is_noticed = False
        self._ticked_s = self._ticked_seen_s = 0.0
        self._beats = 0
        self._beaten_at = self._used_s = 0.0
        self._ended = threading.Event()

    @property
    def longest_recent_s(self) -> float:
        """The longest delay of the last minute."""
        return max(self._recent, default=0.0)

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self._thread_id = threading.get_ident()
        self._waited_s = self._processor_waits(threading.get_native_id())
        self._plan(time.monotonic(), time.thread_time())
        self._thread = threading.Thread(target=self._watch, name="loop monitor", daemon=True)
        self._thread.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._handle.cancel()
        self._ended.set()
        # It ends at once, and the threads that could wait for it may all be held by a plugin.
        self._thread.join()

    def _plan(self, now: float, used_s: float) -> None:
        self._beaten_at, self._used_s, self._ticked_seen_s = now, used_s, self._ticked_s
        self._handle = self._loop.call_later(self._beat_s, self._beat)

    def _beat(self) -> None:
        now, used_s = time.monotonic(), time.thread_time()
        late_s = max(0.0, now - self._beaten_at - self._beat_s)
        self.lateness.observe(late_s)
        self._recent.append(late_s)
        by_ticks_s, by_cpu_s = self._ticked_s - self._ticked_seen_s, used_s - self._used_s
        self.longest_blocked_s = max(self.longest_blocked_s, max(by_ticks_s, by_cpu_s) - self._beat_s)
        for blocks in self._noticed:
            blocks.longest_s = max(blocks.longest_s, late_s)
        self._noticed = []
        self._is_noticed = False
        self._beats += 1
        self._plan(now, used_s)

    # -- in the thread -----------------------------------------------------------------------------

    def _watch(self) -> None:
        # By how often this thread woke, not by a clock: a pause of the whole process is nobody's doing.
        beats, missed_s, waited_s = self._beats, 0.0, self._waited_s()
        while not self._ended.wait(self._tick_s):
            before_s, waited_s = waited_s, self._waited_s()
            ticked_s = min(max(self._tick_s - (waited_s - before_s), 0.0), self._tick_s)
            self._ticked_s += ticked_s
            missed_s = missed_s + ticked_s if beats == self._beats else 0.0
            beats = self._beats
            if missed_s < self._blocked_s or self._is_noticed:
                continue
            frame = sys._current_frames().get(self._thread_id)
            place = None if frame is None else place_of(frame, self._owner_of)
            if place is not None:
                self._note(place)
                # Last: a beat that comes meanwhile measures what is noted, and forgets it.
                self._is_noticed = True

    def _note(self, place: CodePlace) -> None:
        self._noticed = [self._blocks[name] for name in names_of(place.owner) if name in self._blocks]
        for blocks in self._noticed:
            blocks.count += 1
            blocks.last, blocks.last_at = place, self._wall()
        if place in self._told:
            return
        self._told.add(place)
        about = event("loop_blocked", provider=place.owner, place=str(place))
        if place.owner is None:
            log.error("the event loop is blocked for more than %g s, in %s", self._blocked_s, place, extra=about)
        else:
            log.error(
                "provider %s blocks the event loop for more than %g s, in %s, and everything else waits; its plugin "
                "needs asyncio.to_thread there",
                place.owner,
                self._blocked_s,
                place,
                extra=about,
            )


def place_of(innermost: FrameType, owner_of: Callable[[str], str | None]) -> CodePlace | None:
    """Find whose code a stack runs, and the innermost line of it; None if the loop only waits for events."""
    if innermost.f_code.co_filename.endswith(_IDLE_FILES) or "uvloop" in innermost.f_code.co_filename:
        return None
    frame: FrameType | None = innermost
    called = innermost
    while frame is not None:
        owner = owner_of(frame.f_code.co_filename)
        if owner is not None:
            # Of several instances of one plugin that which was asked.
            asked = next(filter(None, map(_provider_of, _frames_from(frame))), None)
            return _place(asked if asked in names_of(owner) else owner, frame)
        if (asked := _provider_of(frame)) is not None:
            # The plugin waits for code that is not its own.
            return _place(asked, called)
        called, frame = frame, frame.f_back
    return _place(None, innermost)


def _frames_from(frame: FrameType | None) -> Iterator[FrameType]:
    while frame is not None:
        yield frame
        frame = frame.f_back


def _provider_of(frame: FrameType) -> str | None:
    """Return the provider whose hook a frame calls, None if it calls none."""
    host = _HOSTS.get(frame.f_globals.get("__name__", ""))
    if host is not None and frame.f_code.co_qualname.startswith(host):
        return str(frame.f_locals["self"].name)
    return None


def _place(owner: str | None, frame: FrameType) -> CodePlace:
    return CodePlace(owner, frame.f_code.co_name, Path(frame.f_code.co_filename).name, frame.f_lineno)


def owners(plugins: Mapping[str, object]) -> Callable[[str], str | None]:
    """Return who owns a file: the plugin whose module it is, else the only one in the innermost package around it.

    `plugins` are the plugins by the name to give; instances of one plugin have their code together, and own it so:
    `names_of` parts their names.
    """
    files: dict[str, str] = {}
    folders: dict[str, set[str]] = {}
    instances: dict[str, list[str]] = {}
    for name, plugin in plugins.items():
        module_name = str(getattr(plugin, "__module__", "") or getattr(plugin, "__name__", ""))
        module = sys.modules.get(module_name)
        file = getattr(module, "__file__", None)
        if file is None:
            continue
        files[file] = module_name
        instances.setdefault(module_name, []).append(name)
        parts = module_name.split(".")
        for depth in range(1, len(parts) + 1):
            package = sys.modules.get(".".join(parts[:depth]))
            for folder in getattr(package, "__path__", ()):
                folders.setdefault(f"{folder}/", set()).add(module_name)
    innermost = sorted(folders.items(), key=lambda item: len(item[0]), reverse=True)

    def owner_of(file: str) -> str | None:
        modules = {files[file]} if file in files else next((all_ for at, all_ in innermost if file.startswith(at)), ())
        return _JOINED.join(instances[next(iter(modules))]) if len(modules) == 1 else None

    return owner_of


def names_of(owner: str | None) -> list[str]:
    """Return the instances that an owner of code is."""
    return owner.split(_JOINED) if owner else []
