# SPDX-License-Identifier: GPL-2.0-or-later
"""Runs a sequence through the driver: phases of a few operations, settings between them, all pages read back.

A phase is named after its operations, ``s5-8`` for the fifth to the eighth, so that an event of the recording can be
traced to them.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Callable
from typing import Any, Final

from traces.events import PAGE_SIZE

from .driver import WorkloadDriver
from .sequence import FOLIOS, SETTINGS, Sequence

__all__ = ["run_sequence"]

#: Operations in one phase: its end takes truth and a snapshot, which is slow compared with small operations.
_TOGETHER: Final = 4
#: Bytes that a worker itself needs to continue: page tables, its interpreter's memory.
_WORKER: Final = 256 << 10


def run_sequence(d: WorkloadDriver, sequence: Sequence) -> None:
    """Do all operations, read every region back, and end the workers."""
    script = _Script(d)
    waiting: list[tuple[int, dict[str, Any]]] = []
    for number, operation in enumerate(sequence.operations, 1):
        alone = operation["do"] in SETTINGS or operation["do"] == "pressure"
        if alone or len(waiting) == _TOGETHER:
            script.phase(waiting)
            waiting = []
        if operation["do"] in SETTINGS:
            script.do(operation)
        elif operation["do"] == "pressure":
            script.pressure(number, operation)
        else:
            waiting.append((number, operation))
    script.phase(waiting)
    with d.phase("final"):
        d.read(*script.folios)
    d.exit()


def _where(operation: dict[str, Any], *more: str) -> dict[str, Any]:
    return {name: operation[name] for name in ("first", "last", *more) if name in operation}


class _Script:
    def __init__(self, d: WorkloadDriver) -> None:
        self.d = d
        #: region -> bytes of its folios
        self.folios: dict[str, int] = {}

    def phase(self, operations: list[tuple[int, dict[str, Any]]]) -> None:
        """Do operations as one phase."""
        if not operations:
            return
        with self.d.phase(f"s{operations[0][0]}-{operations[-1][0]}"):
            for _, operation in operations:
                self.do(operation)

    def do(self, operation: dict[str, Any]) -> None:
        """Do one operation."""
        if operation.get("region") in self.folios:
            # The driver rounds what is paged out to whole folios.
            self.d.folio = PAGE_SIZE if operation.get("split") else self.folios[operation["region"]]
        name = f"_{operation['do'].replace('-', '_')}"
        method: Callable[[dict[str, Any]], None] = getattr(self, name)
        method(operation)

    # Memory

    def _map(self, operation: dict[str, Any]) -> None:
        folio = FOLIOS[operation.get("folio", "4k")]
        self.d.box.folio(folio)
        self.d.folio = self.folios[operation["region"]] = folio
        self.d.map(operation["region"], operation["pages"], operation["mix"], _name(operation))

    def _fill(self, operation: dict[str, Any]) -> None:
        self.d.fill(operation["region"], operation["mix"], _name(operation), **_where(operation, "step"))

    def _out(self, operation: dict[str, Any]) -> None:
        self.d.out(operation["region"], pause=operation.get("pause", 0) / 1000, **_where(operation, "chunk"))

    def _read(self, operation: dict[str, Any]) -> None:
        self.d.read(operation["region"], **_where(operation, "step"))

    def _unmap(self, operation: dict[str, Any]) -> None:
        self.d.unmap(operation["region"], **_where(operation))

    def _fork(self, operation: dict[str, Any]) -> None:
        self.d.fork(operation["region"], operation["mix"], _name(operation))

    def _churn(self, operation: dict[str, Any]) -> None:
        self.d.churn(operation["region"], operation["mix"], _name(operation), operation["rounds"])

    def _cross(self, operation: dict[str, Any]) -> None:
        self.d.cross(operation["region"])

    def pressure(self, number: int, operation: dict[str, Any]) -> None:
        """Map and read a region below a memory.max, as a phase of its own: the limit is announced outside of it."""
        d = self.d
        room = (operation["pages"] * PAGE_SIZE * operation["quarters"] // 4 + _WORKER) * d.procs
        d.folio = self.folios[operation["region"]] = PAGE_SIZE
        d.memcg("memory.max", d.usage("memory.current") + room & ~(PAGE_SIZE - 1))
        with d.phase(f"s{number}-{number}"):
            d.map(operation["region"], operation["pages"], operation["mix"], _name(operation))
            d.read(operation["region"], step=2)
        d.memcg("memory.max", "max")

    # The box

    def _reclaim(self, operation: dict[str, Any]) -> None:
        self.d.reclaim(operation["pages"] * PAGE_SIZE)

    def _drop(self, operation: dict[str, Any]) -> None:
        self.d.drop_caches(operation["what"])

    def _compact(self, operation: dict[str, Any]) -> None:
        self.d.box.write("proc/sys/vm/compact_memory", 1)

    def _swapoff(self, operation: dict[str, Any]) -> None:
        try:
            self.d.box.swap_again()
        except OSError as problem:
            if problem.errno not in (errno.ENOMEM, errno.EINTR):
                raise
            print(f"swapoff was given up ({problem.strerror})", flush=True)

    def _wait(self, operation: dict[str, Any]) -> None:
        time.sleep(operation["milliseconds"] / 1000)

    # Settings

    def _zswap_max(self, operation: dict[str, Any]) -> None:
        pages = operation["pages"]
        self.d.memcg("memory.zswap.max", "max" if pages == "max" else pages * PAGE_SIZE)

    def _zswap_room(self, operation: dict[str, Any]) -> None:
        used = self.d.usage("memory.zswap.current") & ~(PAGE_SIZE - 1)
        self.d.memcg("memory.zswap.max", used + operation["pages"] * PAGE_SIZE)

    def _writeback(self, operation: dict[str, Any]) -> None:
        self.d.memcg("memory.zswap.writeback", operation["on"])

    def _compressor(self, operation: dict[str, Any]) -> None:
        self.d.param("compressor", operation["name"])

    def _max_pool(self, operation: dict[str, Any]) -> None:
        self.d.param("max_pool_percent", operation["percent"])

    def _accept(self, operation: dict[str, Any]) -> None:
        self.d.param("accept_threshold_percent", operation["percent"])

    def _shrinker(self, operation: dict[str, Any]) -> None:
        self.d.param("shrinker_enabled", operation["on"])

    def _zswap(self, operation: dict[str, Any]) -> None:
        self.d.param("enabled", operation["on"])


def _name(operation: dict[str, Any]) -> str:
    """Return a value by which an operation's pages differ from another's; it stays when the sequence is shrunk."""
    return f"{operation['do']} {operation.get('content', 0)}"
