# SPDX-License-Identifier: GPL-2.0-or-later
"""Cores of real kernels, cut down to the bytes that are read; each lies in a folder with its own truth.

A folder has ``core.elf.zst``, ``btf`` and ``kallsyms`` (of what is read), and ``truth.json``: the SHA-1 of the
page at each swap slot, ``TYPE:OFFSET``, from the workload in the guest.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from pathlib import Path

import pytest

from model.crypto import compressor_for
from replay.tools.vmcore import check_core
from traces.record.release import release_line
from traces.vmcore import read_core

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

CORES = Path(os.environ.get("ZREPLAY_VMCORES", Path(__file__).resolve().parent / "vmcores"))
FOLDERS = sorted(path.parent for path in CORES.glob("*/core.elf.zst"))


@pytest.mark.parametrize("folder", [pytest.param(path, id=path.name) for path in FOLDERS] or [
    pytest.param(None, marks=pytest.mark.skip(reason=f"no cores in {CORES}"))])
def test_every_entry_of_a_real_core(folder: Path, tmp_path: Path) -> None:
    core = tmp_path / "core.elf"
    core.write_bytes(zstd.decompress((folder / "core.elf.zst").read_bytes()))
    image = read_core(core, btf=folder / "btf", symbols=folder / "kallsyms")
    result = check_core(image)
    assert (result.verdict, result.differences, result.reasons) == ("PASS", [], [])
    assert len(image.pools) == 2  # the compressor was switched
    assert len(image.entries) > 40
    truth = json.loads((folder / "truth.json").read_text())
    line = "mainline-{}.{}".format(*release_line(image.release) or ())
    compressors = {pool.compressor: compressor_for(pool.compressor, line) for pool in image.pools.values()}
    for entry in image.entries:
        data = image.bytes_of(entry)
        assert data is not None
        raw = len(data) == 4096 and line != "mainline-6.12"
        page = data if raw else compressors[image.pools[entry.pool].compressor].decompress(data)
        assert hashlib.sha1(page).hexdigest() == truth[f"{entry.type}:{entry.offset}"]
