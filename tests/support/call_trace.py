"""Which modules of the relay a request passes, in which order, and how often it comes to each of their functions."""

import ast
import asyncio
import contextvars
import re
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import CodeType, FrameType

import relay

ROOT = Path(relay.__file__).parent
_FED = ("supervision/", "upstream/", "plugins/")
"""Whose tasks go on for their own sake, though a request may start them."""
_is_traced: contextvars.ContextVar[bool] = contextvars.ContextVar("is_traced", default=False)


@cache
def module_of(path: str) -> str | None:
    """Return the module of a file as `web/ws/connection`, None if it is none of the relay's."""
    place = Path(path)
    return place.relative_to(ROOT).with_suffix("").as_posix() if place.is_relative_to(ROOT) else None


@cache
def is_value(module: str) -> bool:
    """Say whether a module only computes: one of `core` or `protocol`, or one that says that it is pure."""
    return module.startswith(("core/", "protocol/")) or says_it_is_pure(ROOT / f"{module}.py")


def says_it_is_pure(path: Path) -> bool:
    """Say whether the first paragraph of a module says that it only computes."""
    text = ast.get_docstring(ast.parse(path.read_text("utf-8"))) or ""
    return re.search(r"[;:.] pure\b", text.partition("\n\n")[0], re.IGNORECASE) is not None


class CallTrace:
    """The calls of one request, where it is read and in tasks that it starts. `begins` is the function it begins with.

    `modules` are all that it comes to. A module is `passed` if it calls on into another one, values aside; the others
    are only asked. `entered` counts the calls of each function from another module.
    """

    def __init__(self, begins: str) -> None:
        self.modules: dict[str, None] = {}
        self.entered: Counter[str] = Counter()
        self._begins = begins
        self._passing: set[str] = set()
        self._stacks: dict[asyncio.Task[object] | None, list[str]] = {}
        # Kept, so that no other frame gets the place of one that was seen: a coroutine is called once, and resumed.
        self._seen: dict[FrameType, None] = {}

    @property
    def passed(self) -> list[str]:
        """The modules that hold a step of the way, in the order in which it comes to them."""
        return [module for module in self.modules if module in self._passing]

    @property
    def visits(self) -> dict[str, int]:
        """How often each module was come to from another one."""
        visits: Counter[str] = Counter()
        for name, count in self.entered.items():
            visits[name.partition(":")[0]] += count
        return dict(visits)

    @contextmanager
    def trace(self) -> Iterator[None]:
        """Take note of what is called until the end of the block."""
        sys.setprofile(self._note)
        try:
            yield
        finally:
            sys.setprofile(None)
            self._seen.clear()

    def _note(self, frame: FrameType, event: str, _: object) -> None:
        module = module_of(frame.f_code.co_filename) if event in ("call", "return") else None
        if module is None:
            return
        name = f"{module}:{frame.f_code.co_qualname}"
        if event == "call" and name == self._begins:
            _is_traced.set(True)
        if not _is_traced.get():
            return
        task = _task()
        if task is None:
            # Timers that it started are no part of it.
            if name != self._begins and not self._stacks.get(None):
                return
        elif (_code_of(task) or "").startswith(_FED):
            return
        stack = self._stacks.setdefault(task, [])
        if event == "return":
            if stack:
                stack.pop()
            if name == self._begins:
                _is_traced.set(False)
            return
        if frame not in self._seen:
            self._seen[frame] = None
            self._note_call(stack[-1] if stack else None, module, name)
        stack.append(module)

    def _note_call(self, caller: str | None, module: str, name: str) -> None:
        self.modules[module] = None
        if caller not in (None, module) and not is_value(module):
            self.entered[name] += 1
            if not is_value(caller):
                self._passing.add(caller)


def _task() -> asyncio.Task[object] | None:
    try:
        return asyncio.current_task()
    except RuntimeError:
        return None


def _code_of(task: asyncio.Task[object]) -> str | None:
    code = getattr(task.get_coro(), "cr_code", None)
    return module_of(code.co_filename) if isinstance(code, CodeType) else None
