# SPDX-License-Identifier: GPL-2.0-or-later
"""Recordings of emulated IAA devices and of the driver that used them, made in memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd

from model.crypto.iaa_stats import GLOBAL_STATS
from replay.iaa.calls import COLUMNS
from replay.iaa.check import run_driver
from replay.reference.checks import Tally
from replay.verdict.findings import driver_notes
from traces import schema

VMEMMAP = 0xFFFFEA0000000000
COMP, DECOMP = "crypto_acomp_compress", "crypto_acomp_decompress"
#: Nanoseconds between events; what the devices' clock is ahead, with half of that between a call and its job.
STEP, AHEAD = 100_000_000, 10**15
COMP_FLAGS, DECOMP_FLAGS, IRQ = 0x1010C, 0x10C, 0x10


class Run:
    """A recording in memory: what two CPUs did with two devices of two queues each."""

    def __init__(self, release: str = "7.3.4", mode: str = "sync", verify: int = 0, devices: int = 2, wqs: int = 2) -> None:
        self.options = {"devices": devices, "wqs": wqs, "depth": 128, "mode": mode, "verify": verify}
        self.events: list[dict[str, Any]] = []
        self.jobs: list[dict[str, Any]] = []
        self.stats: dict[int, dict[str, Any]] = {}
        self.release = release
        self.box: dict[str, Any] = {"cpus_online": "0-1", "numa": {"online": "0"}}
        self.faults = ""
        self.layer, self.compressor = "7.3", "deflate-iaa"
        #: bytes of pages, by their reference
        self.pages: Any = None
        self.probes = {kind.name: {"columns": list(kind.columns)} for kind in schema.EVENTS}
        self.lines: int | None = None
        self.turn: dict[int, int] = {}
        #: device -> its queues that the driver has, in the order in which it was given them
        self.bound = {device: list(range(wqs)) for device in range(devices)}

    def event(self, name: str, pid: int, cpu: int, **columns: int) -> None:
        row = dict.fromkeys(COLUMNS, 0) | {"content": -1, "event": schema.CODE[name], "pid": pid, "cpu": cpu, "ts": STEP * len(self.events)}
        self.events.append(row | columns)

    def job(self, op: str, cpu: int, pfn: int, size: int, room: int, out: int, *, to: int = 0, status: int = 1,
            error: int = 0, how: int | None = None, same: bool = False, **more: Any) -> dict[str, Any]:
        """Submit a job where the CPU's turn is; ``same``: on the queue of the job before."""
        if not same:
            self.turn[cpu] = (self.turn.get(cpu, 0) + 1) % len(self.bound[cpu % self.options["devices"]])
        flags = COMP_FLAGS if op == "compress" else DECOMP_FLAGS
        if self.options["mode"] == "async_irq" and not same:
            flags |= IRQ
        row = {"n": len(self.jobs), "device": cpu % self.options["devices"], "queue": self.bound[cpu % self.options["devices"]][self.turn[cpu]], "op": op, "flags": flags,
               "how": how if how is not None else 6 if op == "compress" else 15, "pfn": pfn, "in": size, "to": to,
               "room": room, "status": status, "error": error, "out": out, "in_flight": 0,
               "submitted": AHEAD + STEP * len(self.events) - STEP // 2 + len(self.jobs), "note": ""} | more
        row.setdefault("ended", row["submitted"])
        self.jobs.append(row)
        return row

    def compress(self, pfn: int, length: int, *, cpu: int = 0, pid: int = 1, ret: int = 0, dlen: int | None = None,
                 **fault: Any) -> dict[str, Any]:
        """zswap compresses a page; without a fault the call returns what the device gave."""
        self.event(COMP, pid, cpu, folio=VMEMMAP + 64 * pfn, size=4096, dlen=4096)
        job = self.job("compress", cpu, pfn, 4096, 4096, length, **fault)
        if self.options["verify"] and job["status"] == 1 and not job["note"]:
            self.job("decompress", cpu, job["to"] >> 12, length, 4096, 4096, to=pfn << 12, how=0x20F, same=True)
        irq = self.options["mode"] == "async_irq"
        self.event(COMP + "_ret", pid, cpu, ret=-115 if irq else ret, dlen=length if dlen is None else dlen)
        return job

    def decompress(self, pfn: int, length: int, *, cpu: int = 0, pid: int = 1, ret: int = 0, handle: int = 1,
                   software: Sequence[tuple[int, int]] = (), device: bool = True, **fault: Any) -> None:
        """zswap reads an object into a page; ``software``: (ret, dlen) of the driver's own calls."""
        self.event("zswap_decompress", pid, cpu, folio=VMEMMAP + 64 * pfn, handle=handle, size=length)
        self.event(DECOMP, pid, cpu, size=length, dlen=4096)
        if device:
            self.job("decompress", cpu, 77, length, 4096, 4096 if fault.get("status", 1) == 1 else 0, to=pfn << 12, **fault)
        for err, dlen in software:
            self.event(DECOMP, pid, cpu, size=length, dlen=4096)
            self.event(DECOMP + "_ret", pid, cpu, ret=err, dlen=dlen)
        self.event(DECOMP + "_ret", pid, cpu, ret=-115 if self.options["mode"] == "async_irq" and device else ret,
                   dlen=4096)

    def line(self, op: str, device: int, queue: int) -> None:
        """A line of the log about a queue."""
        now = AHEAD + STEP * len(self.events) - STEP // 2 + len(self.jobs)
        self.jobs.append(dict.fromkeys(("flags", "how", "pfn", "in", "to", "room", "status", "error", "out", "in_flight"), 0)
                         | {"n": len(self.jobs), "device": device, "queue": queue, "op": op, "submitted": now, "ended": now,
                            "note": ""})

    def take(self, device: int, queue: int, during: Callable[[str], None] = lambda step: None) -> None:
        """The driver loses a queue; ``during`` is called behind each step."""
        self.event("iaa_crypto_remove", 90, 0)
        during("quiesced")
        self.line("queue_off", device, queue)
        during("disabled")
        self.event("rebalance_wq_table", 90, 0)
        self.bound[device].remove(queue)
        self.turn = dict.fromkeys(range(8), 0)
        during("cleared")
        self.event("rebalance_wq_table_ret", 90, 0)
        self.event("iaa_crypto_remove_ret", 90, 0)

    def give(self, device: int, queue: int, ret: int = 0) -> None:
        """The driver is given a queue; with ``ret`` it does not take it."""
        self.event("iaa_crypto_probe", 90, 0)
        self.line("queue_on", device, queue)
        self.event("rebalance_wq_table", 90, 0)
        self.event("rebalance_wq_table_ret", 90, 0)
        if ret:
            self.line("queue_off", device, queue)
        else:
            self.bound[device].append(queue)
            self.turn = dict.fromkeys(range(8), 0)
        self.event("iaa_crypto_probe_ret", 90, 0, ret=ret)

    def counters(self, **values: int) -> None:
        """A snapshot with statistics of the driver."""
        number = len(self.stats)
        self.event("counters", 0, 0, ret=number)
        lines = [f"  {name}: {values.get(name, 0)}" for name in GLOBAL_STATS]
        self.stats[number] = {"iaa_crypto": {"global_stats": "\n".join(["global stats:", *lines, ""]), "wq_stats": ""}}

    def recording(self) -> Any:
        frame = pd.DataFrame(self.jobs)

        def batches(columns: Sequence[str], start: int = 0) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
            yield 0, {name: np.array([row[name] for row in self.events], np.uint64 if name in ("folio", "handle", "obj")
                                     else np.int64) for name in columns if name in COLUMNS} | (
                {"word": np.zeros(len(self.events), np.int64)} if "word" in columns else {}) | (
                {"text": np.array([row.get("text", "") for row in self.events], object)} if "text" in columns else {})

        return SimpleNamespace(
            path=Path("r.zr"), manifest={"config": {"compressor": self.compressor, "chain_size": 8}, "probes": self.probes,
                                         "pages": {"with_bytes": self.pages is not None}, "capture": {"box": self.box},
                                         "kernel": {"release": self.release, "version": self.release}},
            document=lambda name: {"options": self.options, "faults": self.faults, "logs": [{}],
                                   "jobs": {"lines": self.lines}} if name == "iaa" else None,
            table=lambda name: frame if name == "iaa_jobs" else None, lists=lambda name, columns: None, batches=batches, pages=self.pages, texts=lambda: {row.get("text", "") for row in self.events} - {""},
            counts=lambda: Counter(schema.NAMES[row["event"]] for row in self.events),
            snapshots=list(self.stats), snapshot=lambda number: self.stats[number])

    def check(self, tally: Tally | None = None) -> tuple[Tally, list[str]]:
        recording, tally = self.recording(), tally or Tally()
        run = run_driver(recording, self.layer)
        assert run is not None
        tally.add(run.compared, run.divergences, run.reasons)
        return tally, driver_notes(run, recording, tally)


def whole(run: Run) -> Run:
    """Some calls on two CPUs, and two that the device refuses."""
    for k in range(12):
        run.compress(100 + k, 900 + k, cpu=k % 2, pid=1 + k % 2)
    run.compress(150, 0, ret=-7, dlen=4096, status=0x0A, error=0x19)
    for k in range(8):
        run.decompress(200 + k, 900 + k, cpu=k % 2, pid=1 + k % 2)
    return run


def differs(run: Run) -> dict[str, int]:
    return run.check()[0].different


def begun(run: Run, pfn: int, pid: int, cpu: int) -> None:
    run.event(COMP, pid, cpu, folio=VMEMMAP + 64 * pfn, size=4096, dlen=4096)


def returned(run: Run, pid: int, cpu: int, **outcome: int) -> None:
    run.event(COMP + "_ret", pid, cpu, **outcome)


def interrupted(*fallbacks: int) -> Run:
    """Two decompressions of one size are under way; the device refuses the second, and there are calls of software."""
    run = whole(Run(mode="async_irq"))
    for cpu, pfn, status in ((0, 400, 1), (1, 401, 10)):
        run.decompress(pfn, 777, cpu=cpu, pid=1 + cpu, status=status, error=5)
    for size in fallbacks:
        run.event(DECOMP, 99, 0, size=size, dlen=4096)
        run.event(DECOMP + "_ret", 99, 0, dlen=4096)
    return run


def batch(run: Run, pfn: int, lengths: Sequence[int], *, ret: int = 0, cpu: int = 0, pid: int = 1,
          jobs: Sequence[int] | None = None, queue: int = 1) -> None:
    """zswap of v14 has a folio's pages compressed in one call; a length below 0 is an errno of the device."""
    run.event(COMP, pid, cpu, folio=VMEMMAP + 64 * pfn, size=4096 * len(lengths), dlen=4096 * len(lengths))
    for k in jobs if jobs is not None else range(len(lengths)):
        bad = {} if lengths[k] > 0 else {"status": 0x0A, "error": 0x19}
        job = run.job("compress", cpu, pfn + k, 4096, 4096, max(0, lengths[k]), **bad)
        job["queue"] = queue
    run.event(COMP + "_ret", pid, cpu, ret=ret, dlen=lengths[0])


def posted() -> Run:
    """One device of two queues: v14's driver compresses on the second and decompresses on the first."""
    run = Run("7.0.13", mode="async", devices=1)
    run.layer = "v14"
    run.jobs, run.events = [], []
    for n in range(4):
        batch(run, 100 + 16 * n, [900 + k for k in range(8)])
    batch(run, 300, [900, -7, 800], ret=0)
    run.decompress(400, 900)
    run.jobs[-1]["queue"] = 0
    return run
