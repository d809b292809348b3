# SPDX-License-Identifier: GPL-2.0-or-later
"""What a file is, by its bytes: names lie, and people rename.  Compressed files are looked into."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from traces.importers.bpftracejson import sniff_bpftrace
from traces.importers.eventformat import HeaderPage
from traces.importers.ftracetext import sniff_text
from traces.importers.inputfile import read_head, read_json
from traces.importers.perftext import sniff_perf
from traces.importers.tracedat import sniff_tracedat

__all__ = ["TRUTH_HEAD", "classify", "first_line"]

_HEAD: Final = 1 << 16
#: per_cpu/cpuN/stats as it is (tracing_stats_read() in kernel/trace/trace.c)
_STATS: Final = re.compile(rb"entries: \d{1,18}\noverrun: \d{1,18}\n")
#: A workload's truth: the column of digests is called ``sha1``, or says which key they have.
TRUTH_HEAD: Final = re.compile(rb"phase,page,kind,(?:sha1|blake2b-([0-9a-f]{16}))\b")


def _is_ring(head: bytes, header: HeaderPage | None) -> bool:
    """True when the bytes begin like sub-buffers: lengths in range, time stamps in order, records in a row.

    Half of them may be damaged: the decoder counts that, and a ring must not be taken for another kind of file.
    """
    size, data_at = (header.size, header.data_offset) if header is not None else (4096, 16)
    if len(head) < size:
        return False
    before = good = seen = 0
    for at in range(0, min(len(head), 8 * size) - 15, size):
        stamp = int.from_bytes(head[at:at + 8], "little")
        length = int.from_bytes(head[at + 8:at + 16], "little") & ((1 << 27) - 1)
        good += stamp >= before and 8 <= length <= size - 16 \
            and _has_records(head[at + data_at:at + data_at + length])
        seen += 1
        before = stamp
    return good * 2 >= seen


def _has_records(data: bytes) -> bool:
    """True when one record follows the other for at least half of a sub-buffer's data."""
    at = 0
    while at + 4 <= len(data) and at * 2 < len(data):
        word, more = int.from_bytes(data[at:at + 4], "little"), int.from_bytes(data[at + 4:at + 8], "little")
        kind = word & 31
        if kind == 29 and not word >> 5:
            return True  # padding to the end
        if kind in (0, 29) and more < 4:
            return False
        at += 8 if kind > 29 else 4 * kind + 4 if 0 < kind < 29 else 4 + (more + 3 & ~3)
    return at <= len(data)


def classify(path: Path, header: HeaderPage | None = None) -> str:
    """Return what a file is: ``tracedat``, ``text``, ``perftext``, ``bpftrace``, ``ring``, ``pageindex``,
    ``pages``, ``truth``, ``counters``, ``objects``, ``config``, ``dmesg``, ``probes``, ``symbols``,
    ``ringstats``, ``json``, ``empty`` or ``unknown``.

    ``pages`` is any file of whole pages that is nothing else and not lines of text.
    """
    head = read_head(path, _HEAD if header is None else max(_HEAD, header.size))
    if not head:
        return "empty"
    if sniff_tracedat(head[:16]):
        return "tracedat"
    if head.startswith(b"n,ts_ns,src,sha1"):
        return "pageindex"
    if TRUTH_HEAD.match(head):
        return "truth"
    if sniff_bpftrace(head):
        return "bpftrace"
    if head.lstrip()[:1] == b"{":
        value = read_json(path)
        if value is not None:
            if "zswap_debugfs" in value and "t" in value:
                return "counters"
            if value and all(isinstance(text, str) and text.startswith("entries:") for text in value.values()):
                return "ringstats"
            return "symbols" if "zswap_list_lru" in value else "json"
    if _STATS.match(head):
        return "ringstats"
    if head.startswith((b"f:", b"f256:", b"p:", b"r:", b"e:", b"r256:")):
        return "probes"
    if b"Kernel Configuration" in head[:400]:
        return "config"
    if b"Linux version " in head[:400]:
        return "dmesg"
    if sniff_text(head):
        return "text"
    if sniff_perf(head):
        return "perftext"
    if _is_ring(head, header):
        return "ring"
    if _is_objects(head):
        return "objects"
    return "pages" if len(head) >= 4096 and not _is_text(path, head) else "unknown"


def _is_text(path: Path, head: bytes) -> bool:
    """True for lines of text: a page may hold text, but a file of pages has a whole number of them."""
    # The size of a packed file says nothing: having more than a first page does.
    return b"\n" in head and not re.search(rb"[^\t\n\r\x1b -~\x80-\xff]", head) and path.stat().st_size % 4096 != 0


def first_line(path: Path) -> tuple[int, str]:
    """Return the first line of a file that is not blank, shortened, with its number; 0 for a file that is not text."""
    head = read_head(path, 4096)
    for number, line in enumerate(head.split(b"\n"), 1):
        if b"\0" in line:
            break
        if line.strip():
            return number, line[:80].decode("utf-8", "backslashreplace").strip()
    return 0, ""


def _is_objects(head: bytes) -> bool:
    """Records of u64 handle, u32 length, bytes: kernel pointers and lengths up to a page, several in a row."""
    at = seen = 0
    while at + 12 <= len(head) and seen < 8:
        handle = int.from_bytes(head[at:at + 8], "little")
        length = int.from_bytes(head[at + 8:at + 12], "little")
        if handle >> 47 != 0x1FFFF or not 0 < length <= 4096:
            return False
        at += 12 + length
        seen += 1
    return seen > 1
