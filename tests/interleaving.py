# SPDX-License-Identifier: GPL-2.0-or-later
"""Several tasks on one imaginary kernel, switched between any two of its steps that no lock keeps together.

A step is finer than an event.  A task first *runs*: the kernel's code continues from where it stood to its next probe,
or to a place at which it waits for a lock.  Then it *shows* its event.  Other tasks may run and show events between the
two, and between an event and the code that follows it: a task may be preempted at each of these places.  A task that
holds a spinlock is not preempted, so another one that waits for the lock only continues once it is released.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from model import errno
from model.effects import DEFAULTS, Effect, Steps
from model.list_lru import LRU_ROTATE
from model.zswap import Folio
from replay.tools.synthetic import ImaginaryKernel, write_recording

#: the cgroup of everything
MEMCG = 0xFFFF888000003000
#: yielded under a size class's lock (and, for the walk's, under the LRU's)
_LOCKED = frozenset({"obj_malloc", "obj_malloc_ret", "obj_free", "fix_fullness_group", "fix_fullness_group_ret",
                     "__free_zspage", "?trylock_zspage", "?contended", "?zspage_write_trylock", "shrink_memcg_cb"})
#: of what ImaginaryKernel knows of the operation under way
_OWN = ("_folio", "_index", "_pages", "_store_pool", "_compacted", "_handles")


class Task:
    """One task: the operation it is in, if any, and the effect that its code has come to."""

    def __init__(self, box: Interleaved, pid: int) -> None:
        self.box = box
        self.pid = pid
        self.gen: Steps[Any] | None = None
        self.effect: Effect | None = None
        #: the effect's event was shown
        self.shown = False
        self.own: dict[str, Any] = {}
        #: swap slots that the operation, and the writeback inside it, have locked
        self.slots: set[int] = set()
        self.written_back: set[int] = set()
        self.handles: list[int] = []
        self.reads: Any = None
        #: compaction keeps the class lock from one zspage to the next
        self.kept = False
        self.result: Any = None

    @property
    def name(self) -> str:
        """The effect that its code has come to, "" outside of operations."""
        return self.effect[0] if self.effect is not None else ""

    def begin(self, steps: Steps[Any], slots: set[int] | None = None) -> None:
        """Call an operation; its code runs to its first effect."""
        assert self.gen is None
        self.gen, self.slots = steps, slots or set()
        self.own = {name: getattr(self.box.kernel, name) for name in _OWN}
        self._run(None)

    def is_locked(self) -> bool:
        """True while it holds a spinlock."""
        name = self.name
        return name in _LOCKED or (name == "shrink_memcg_cb_ret" and self.effect[1] == LRU_ROTATE) \
            or (name == "?compact_end" and self.kept)

    def step(self) -> None:
        """Show the event that the code has come to, or, where it was shown, let the code run on."""
        assert self.effect is not None
        if self.shown or self.name[0] == "?":
            self._run(self.box.answer(self, self.effect))
        else:
            self._switch()
            self.box.kernel._write(self.effect)
            self._keep()
            self.shown = True
            self.note_shown()

    def note_shown(self) -> None:
        """An object that is read holds its zspage from this event on."""
        if self.name in ("zs_obj_read", "zs_obj_write"):
            self.reads = self.effect[1]

    def until(self, *names: str) -> None:
        """Step until the code has come to one of these effects, or the operation is over."""
        while self.gen is not None and self.name not in names:
            self.step()

    def end(self) -> Any:
        """Step to the operation's end; returns its result."""
        while self.gen is not None:
            self.step()
        return self.result

    def _switch(self) -> None:
        kernel = self.box.kernel
        kernel.pid, kernel.cpu = self.pid, self.box.cpu_of(self.pid)
        for name, value in self.own.items():
            setattr(kernel, name, value)

    def _keep(self) -> None:
        self.own = {name: getattr(self.box.kernel, name) for name in _OWN}

    def _run(self, send: Any) -> None:
        assert self.gen is not None
        before = self.name
        try:
            self.effect, self.shown = self.gen.send(send), False
        except StopIteration as stop:
            self.gen, self.effect, self.result = None, None, stop.value
            self.slots, self.reads = set(), None
        if before in ("zs_obj_write", "crypto_acomp_decompress_ret") or self.gen is None:
            self.reads = None
        if before == "__swap_writepage":
            self.written_back = set()
        if self.name == "?compact_end":
            self.kept = not self.effect[2] and not self.box.contends(self)


class Interleaved:
    """A kernel with tasks of its own.

    :param cpus: one: no task waits for a lock while another runs; two: compaction may be asked to release one
    :param choose: picks one of that number; asked where the kernel's outside decides
    """

    def __init__(self, revision: str = "mainline-7.3", length: Callable[[int], int] | None = None, *, tasks: int = 2,
                 cpus: int = 1, choose: Callable[[int], int] = lambda count: 0, totalram_pages: int = 1 << 20) -> None:
        self.kernel = ImaginaryKernel(revision, length, totalram_pages)
        self.model = self.kernel.model
        self.revision = revision
        self.cpus = cpus
        self.choose = choose
        #: what is answered in place of what this kernel would; which questions were asked
        self.answers: dict[str, Any] = {}
        self.asked: set[str] = set()
        self.tasks = [Task(self, 100 + number) for number in range(tasks)]

    def cpu_of(self, pid: int) -> int:
        """Return the CPU a task runs on."""
        return (pid - 100) % self.cpus

    def contends(self, task: Task) -> bool:
        """True where another task waits for the pool's lock, and compaction sees it."""
        doors = ("zs_obj_read", "zs_obj_write", "zs_free")
        waiting = any(other is not task and other.shown and other.name in doors for other in self.tasks)
        return self.cpus > 1 and waiting and bool(self.choose(2))

    def answer(self, task: Task, effect: Effect) -> Any:
        """Answer an effect or question as this kernel has it."""
        kind = effect[0]
        self.asked.add(kind)
        if kind in self.answers:
            return self.answers[kind]
        if kind == "?contended":
            return not task.kept
        if kind == "?zspage_write_trylock":
            held = [other for other in self.tasks if other is not task and other.reads is not None
                    and other.reads.zspage is effect[1]]
            # A writer has the lock only for a moment of the time between its two events.
            return not any(other.name != "zs_obj_write" or self.choose(2) for other in held)
        if kind == "?new_zspage":
            return bool(self.choose(2))
        if kind == "?swap_cache_alloc":
            slot = effect[1].swpent
            if slot not in self.model.tree:
                return errno.ENOMEM
            if self.busy(slot):
                return errno.EEXIST
            task.written_back = {slot}
            return 0
        task._switch()
        answer = self.kernel._answer(effect)
        return DEFAULTS.get(kind) if answer is None else answer

    def busy(self, slot: int) -> bool:
        """True while an operation has a slot's folio locked."""
        return any(slot in task.slots or slot in task.written_back for task in self.tasks)

    def run(self, schedule: Callable[[int], int]) -> None:
        """Step all tasks to the end of their operations; ``schedule`` picks one of those that can continue."""
        while True:
            ready = [task for task in self.tasks if task.gen is not None]
            if not ready:
                return
            locked = [task for task in ready if task.is_locked()]
            able = locked or ready
            able[schedule(len(able))].step()

    # ---- operations -------------------------------------------------------------------------------------------

    def folio(self, slot: int, order: int = 0) -> Folio:
        """Return the folio of a slot."""
        return Folio(slot, order, 0xFFFFEA0000000000 + slot * 64)

    def store(self, task: Task, slot: int, order: int = 0) -> None:
        """Begin to swap a folio out."""
        task.begin(self.model.swap_writeout(self.folio(slot, order)), set(range(slot, slot + (1 << order))))

    def load(self, task: Task, slot: int) -> None:
        """Begin to swap a page in."""
        task.begin(self.model.zswap_load(self.folio(slot)), {slot})

    def invalidate(self, task: Task, slot: int) -> None:
        """Begin to free a slot."""
        task.begin(self.model.zswap_invalidate(slot), {slot})

    def compact(self, task: Task) -> None:
        """Begin to compact."""
        task.begin(self.model.pools[0].zs_pool.zs_shrinker_scan())

    def shrink(self, task: Task) -> None:
        """Begin to write back from the cgroup."""
        task.begin(self.model.shrink_memcg(MEMCG))

    def record(self, path: Path) -> Path:
        """Write what was shown as a recording."""
        write_recording(str(path), self.kernel.block(), revision=self.revision)
        return path
