# SPDX-License-Identifier: GPL-2.0-or-later
"""The emulated IAA's server alone: a client in QEMU's place submits pages one by one, and in batches."""

from __future__ import annotations

import struct
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

from replay.benchmarks.iaaclient import IaaClient, ServerProcess
from replay.benchmarks.row import BenchRow
from traces.lab.iaa.descriptors import Opcode

__all__ = ["ServerSpeed", "iaa_rows", "server_speed"]

_JOBS: Final = 10_000
_RUNS: Final = 5
#: Offsets in the client's memory: pages, results, records.
_SOURCES, _RESULTS, _RECORDS = 0x10000, 0x40000, 0x80000
_PAGES: Final = 32
_PAGE: Final = 4096


class ServerSpeed(NamedTuple):
    """Of one run: jobs a second as the client sees it, and microseconds of the server's CPU for a job."""

    rate: float
    cpu: float


def server_speed(
    client: IaaClient, server: ServerProcess, pages: list[bytes], batch: int, jobs: int = _JOBS
) -> ServerSpeed:
    """Compress and decompress pages, ``batch`` of them on their way at a time.

    :param pages: of 4096 bytes each; 32 are used
    :param jobs: half of them compress
    """
    chosen = (pages * _PAGES)[:_PAGES]
    for number, page in enumerate(chosen):
        client.put(_SOURCES + _PAGE * number, page)
    began, used, done = time.perf_counter(), server.seconds(), 0
    while done < jobs:
        for first in range(0, _PAGES, batch):
            numbers = range(first, min(first + batch, _PAGES))
            records = _round(client, Opcode.COMPRESS, numbers, dict.fromkeys(numbers, _PAGE))
            done += len(records)
            # A page that does not compress is stored as it is: nothing to decompress.
            sizes = {number: struct.unpack_from("<I", record, 0x18)[0] for number, record in records.items()
                     if record[0] == 1}
            done += len(_round(client, Opcode.DECOMPRESS, sizes, sizes))
    return ServerSpeed(done / (time.perf_counter() - began), (server.seconds() - used) / done * 1e6)


def _round(
    client: IaaClient, opcode: Opcode, numbers: range | dict[int, int], sizes: dict[int, int]
) -> dict[int, bytes]:
    source, target = (_SOURCES, _RESULTS) if opcode == Opcode.COMPRESS else (_RESULTS, _SOURCES)
    for number in numbers:
        record = _RECORDS + 64 * number
        client.ram[record] = 0
        client.submit(client.descriptor(opcode, source + _PAGE * number, sizes[number], target + _PAGE * number, _PAGE,
                                        record))
    return {number: client.wait(_RECORDS + 64 * number) for number in numbers}


def iaa_rows(pages: list[bytes], say: Callable[[str], None], jobs: int = _JOBS, runs: int = _RUNS) -> list[BenchRow]:
    """Measure the server with its job log, descriptors arriving at the portal as MOVDIR64B's plugin sends them."""
    rows = []
    with tempfile.TemporaryDirectory(prefix="zreplay-bench-iaa-") as scratch:
        base = Path(scratch)
        with ServerProcess(base, "--log", str(base / "jobs"), portal=True) as server:
            client = IaaClient(server.sockets[0], server.portal)
            try:
                client.hello()
                client.set_up()
                for batch, what in ((1, "one page at a time"), (8, "batches of 8")):
                    say(f"the emulated IAA, {what}")
                    server_speed(client, server, pages, batch, jobs // 10)
                    found = [server_speed(client, server, pages, batch, jobs) for _ in range(runs)]
                    name = f"emulated IAA, {what}"
                    rows.append(BenchRow.of(f"{name}: server's CPU", [one.cpu for one in found], 1, "us/job", "< 60"))
                    rows.append(BenchRow.of(name, [one.rate for one in found], 1e3, "thousand jobs/s", ">= 4"))
            finally:
                client.close()
    return rows
