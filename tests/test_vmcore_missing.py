# SPDX-License-Identifier: GPL-2.0-or-later
"""Memory that a core lacks, or has as zeros: whatever depends on it is not compared, and the verdict stays open.

The cores of real kernels in ``tests/vmcores`` are sound, and almost all of their pages are read: whatever is taken away
from them, a FAIL is wrong.
"""

from __future__ import annotations

import functools
import struct
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from replay.tools.vmcore import CoreResult, check_core
from traces.errors import BadInput
from traces.vmcore import read_core

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

CORES = Path(__file__).resolve().parent / "vmcores"
NAMES = sorted(path.parent.name for path in CORES.glob("*/core.elf.zst"))
PAGE = 4096


class Segment(NamedTuple):
    """A PT_LOAD: where its header is in the file, its bytes, and how many."""

    header: int
    offset: int
    size: int


@functools.cache
def core(name: str) -> bytes:
    return zstd.decompress((CORES / name / "core.elf.zst").read_bytes())


@functools.cache
def segments(name: str) -> tuple[Segment, ...]:
    data = core(name)
    table, = struct.unpack_from("<Q", data, 32)
    count, = struct.unpack_from("<H", data, 56)
    headers = [(table + 56 * number, struct.unpack_from("<IIQQQQQQ", data, table + 56 * number))
               for number in range(count)]
    return tuple(Segment(at, row[2], row[5]) for at, row in headers if row[0] == 1)


@functools.cache
def pages(name: str) -> tuple[int, ...]:
    """Where in the file the pages of memory are."""
    return tuple(at for segment in segments(name) for at in range(segment.offset, segment.offset + segment.size, PAGE))


def checked(name: str, data: bytes, path: Path) -> CoreResult | None:
    """The result, None where the core cannot be read any more."""
    path.write_bytes(data)
    try:
        return check_core(read_core(path, btf=CORES / name / "btf", symbols=CORES / name / "kallsyms"))
    except BadInput:
        return None


def compared(result: CoreResult) -> dict[str, int]:
    return {check.id: check.compared for check in result.checks.values()}


def verdict_of(name: str, data: bytes, path: Path) -> str:
    """The verdict; a PASS has to have compared all that the whole core has."""
    result = checked(name, data, path)
    if result is None:
        return "unreadable"
    if result.verdict == "PASS":
        whole = checked(name, core(name), path)
        assert whole is not None
        assert compared(result) == compared(whole)
    assert result.verdict != "FAIL", result.differences[:3]
    return result.verdict


def blanked(data: bytes, places: Iterable[tuple[int, int]]) -> bytes:
    out = bytearray(data)
    for at, size in places:
        out[at:at + size] = bytes(size)
    return bytes(out)


@pytest.mark.parametrize("how", ["zeros", "left out", "no bytes of it"])
@pytest.mark.parametrize("name", NAMES)
def test_one_segment_is_missing(tmp_path: Path, name: str, how: str) -> None:
    seen: Counter[str] = Counter()
    for header, offset, size in segments(name):
        data = core(name)
        if how == "zeros":
            data = blanked(data, [(offset, size)])
        else:
            # PT_NULL for the type; or p_filesz of 0, as of a stretch that was filtered.
            data = blanked(data, [(header, 4) if how == "left out" else (header + 32, 8)])
        seen[verdict_of(name, data, tmp_path / "core.elf")] += 1
    # Without the page of the banner, or those that map it, the kernel is not known.
    assert seen["unreadable"] <= 4
    assert seen["PASS"] <= 1
    assert seen["UNDECIDED"] + seen["PASS"] + seen["unreadable"] == len(segments(name)) >= 40


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_pages_are_missing(tmp_path_factory: pytest.TempPathFactory, name: str, data: st.DataObject) -> None:
    gone = data.draw(st.lists(st.sampled_from(pages(name)), max_size=6))
    cut = data.draw(st.none() | st.integers(0x8000, len(core(name))))
    changed = blanked(core(name), [(at, PAGE) for at in gone])[:cut]
    verdict_of(name, changed, tmp_path_factory.mktemp("core") / "core.elf")


@pytest.mark.parametrize("name", NAMES)
def test_a_core_that_is_cut_off(tmp_path: Path, name: str) -> None:
    result = checked(name, core(name)[:-3 * PAGE - 100], tmp_path / "core.elf")
    assert result is not None
    assert result.verdict == "UNDECIDED"
    assert any("the core is cut off" in reason for reason in result.reasons)


def test_a_counter_that_is_gone_is_still_one_that_the_kernel_has(tmp_path: Path) -> None:
    """Without zswap_stored_incompressible_pages it would seem to be a kernel that keeps no page as it is."""
    from traces.vmcore.memory import CoreMemory

    name = "7.3"
    memory = CoreMemory(read_core_file(name, tmp_path))
    line = next(line for line in (CORES / name / "kallsyms").read_text().splitlines()
                if line.endswith("zswap_stored_incompressible_pages"))
    page = memory._frame(int(line.split()[0], 16))
    at = next(segment.offset + page - address for segment, address in with_addresses(name)
              if address <= page < address + segment.size)
    result = checked(name, blanked(core(name), [(at, PAGE)]), tmp_path / "core.elf")
    assert result is not None
    assert (result.verdict, result.differences) == ("UNDECIDED", [])
    assert result.checks["counter.stored_incompressible_pages"].reason == \
        "zswap_stored_incompressible_pages is not in the core"


def read_core_file(name: str, tmp_path: Path):  # type: ignore[no-untyped-def]
    from traces.vmcore.elfcore import open_core

    (tmp_path / "whole.elf").write_bytes(core(name))
    return open_core(tmp_path / "whole.elf")


def with_addresses(name: str) -> list[tuple[Segment, int]]:
    return [(segment, struct.unpack_from("<Q", core(name), segment.header + 24)[0]) for segment in segments(name)]
