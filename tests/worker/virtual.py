"""A virtual clock for many workers in one process: each call to the file system takes 5 ms of the worker that does it.

Every worker has a thread and a time of its own. Only one of them runs: at each call that others may see, or that sees
what others did, the one whose time is the earliest goes on. So what the workers do to the run directory happens in the
order of their times, as on machines that share a slow file system.
"""

import heapq
import io
import itertools
import os
import threading
import time
from collections import Counter
from pathlib import Path

CALL_S = 0.005
_GETDENTS_BYTES = 32 << 10  # what one call of readdir's gives
_SEEN = ("link", "rename", "replace", "stat", "lstat")
_UNSEEN = ("remove", "mkdir", "rmdir", "readlink")
_ON_HANDLES = ("read", "write", "close", "fstat")


class Task:
    """One thread and its time. `calls`: what it asked of the file system, by name."""

    numbers = itertools.count()

    def __init__(self, sea, start_s, work):
        self.sea, self.now_s, self.work = sea, start_s, work
        self.number = next(Task.numbers)
        self.turn = threading.Lock()
        self.turn.acquire()
        self.calls: Counter[str] = Counter()
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self):
        self.turn.acquire()
        Sea.local.task = self
        error = None
        try:
            self.work(self)
        except BaseException as raised:
            error = raised
        self.sea.ended(error)

    def sleep(self, seconds):
        """Let so much time pass."""
        self.now_s += seconds
        self.sea.switch(self)


class Stop(threading.Event):
    """Is never set; to wait for it takes virtual time."""

    def wait(self, timeout=None):
        Sea.task().sleep(timeout)
        return False


class Sea:
    """All tasks, and the patched calls below `root`. Threads that tasks start spend time beside it: `aside_s`."""

    local = threading.local()

    def __init__(self, root, monkeypatch):
        self.root = f"{root}/"
        self.heap = []
        self.error = None
        self.over = threading.Event()
        self.handles = set()
        self.aside_s: Counter[int] = Counter()
        self._patch(monkeypatch)

    @classmethod
    def task(cls):
        """The task that runs; None in another thread."""
        return getattr(cls.local, "task", None)

    def add(self, start_s, work):
        """Begin `work` at this time."""
        task = Task(self, start_s, work)
        heapq.heappush(self.heap, (start_s, task.number, task))

    def run(self, timeout_s):
        """Let all tasks run to their end. Raises the first error."""
        heapq.heappop(self.heap)[2].turn.release()
        assert self.over.wait(timeout_s), "the tasks took too long"
        if self.error is not None:
            raise self.error

    def switch(self, task):
        """Let another task run until it is later than this one."""
        if self.heap and self.heap[0][0] < task.now_s:
            earlier = heapq.heapreplace(self.heap, (task.now_s, task.number, task))[2]
            earlier.turn.release()
            task.turn.acquire()

    def ended(self, error):
        """State that the task that runs has ended."""
        self.error = error
        if error is not None or not self.heap:
            self.over.set()
        else:
            heapq.heappop(self.heap)[2].turn.release()

    def spend(self, name, count=1, is_seen=False):
        """Let calls take their time."""
        task = self.task()
        if task is None:
            self.aside_s[threading.get_ident()] += CALL_S * count
            return
        task.calls[name] += count
        task.now_s += CALL_S * count
        if is_seen:
            self.switch(task)

    def is_below(self, path):
        """Whether a path belongs to the run."""
        return not isinstance(path, int) and os.fspath(path).startswith(self.root)

    def _patch(self, monkeypatch):
        names = (*_SEEN, *_UNSEEN, *_ON_HANDLES, "unlink", "fsync", "open", "listdir", "scandir")
        real = {name: getattr(os, name) for name in names}
        real_open, real_monotonic = io.open, time.monotonic

        def on_path(name, is_seen):
            def call(path, *arguments, **options):
                if self.is_below(path):
                    self.spend(name, is_seen=is_seen)
                return real[name](path, *arguments, **options)

            return call

        def on_handle(name):
            def call(handle, *arguments):
                if handle in self.handles:
                    self.spend(name)
                    if name == "close":
                        self.handles.discard(handle)
                return real[name](handle, *arguments)

            return call

        def fsync(handle):
            self.spend("fsync")  # in memory there is nothing to do

        def unlink(path, **options):
            if self.is_below(path):
                self.spend("unlink", is_seen=Path(path).parent.name == "leases")
            return real["unlink"](path, **options)

        def opened(path, flags, *arguments, **options):
            if not self.is_below(path):
                return real["open"](path, flags, *arguments, **options)
            self.spend("open", is_seen=bool(flags & os.O_CREAT))
            handle = real["open"](path, flags, *arguments, **options)
            self.handles.add(handle)
            return handle

        def opened_by_io(path, mode="r", *arguments, **options):
            if self.is_below(path):
                self.spend("open, fstat, read, read, close" if "r" in mode else "open, fstat, write, close", 5)
            return real_open(path, mode, *arguments, **options)

        def listing(name):
            def call(path="."):
                if not self.is_below(path):
                    return real[name](path)
                self.spend("open", is_seen=True)
                found = real[name](path)
                names = found if name == "listdir" else real["listdir"](path)
                entry_bytes = (len(names[len(names) // 2]) + 20 + 7) // 8 * 8 if names else 0
                self.spend("fstat")
                self.spend("close")
                self.spend("getdents", 1 + -(-entry_bytes * len(names) // _GETDENTS_BYTES))
                return found

            return call

        def monotonic():
            task = self.task()
            return real_monotonic() if task is None else task.now_s

        patched = {name: on_path(name, name in _SEEN) for name in (*_SEEN, *_UNSEEN)}
        patched |= {name: on_handle(name) for name in _ON_HANDLES}
        patched |= {name: listing(name) for name in ("listdir", "scandir")}
        for name, call in (patched | {"unlink": unlink, "fsync": fsync, "open": opened}).items():
            monkeypatch.setattr(os, name, call)
        monkeypatch.setattr(io, "open", opened_by_io)
        monkeypatch.setattr(time, "monotonic", monotonic)
